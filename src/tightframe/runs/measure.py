"""Measure a network from saved features, labels and classifier, against every known geometry."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tightframe.checks import MAX_DENSE_CLASSES, number_of
from tightframe.geometry.dense import Geometry, orthogonal_frame, seli_of_head, simplex_etf
from tightframe.heads.last_layer import LastLayer
from tightframe.metrics import Answers, ClassMoments, ClassTable, CollapseReport
from tightframe.metrics.answers import answers_of
from tightframe.metrics.readings import describe_classes
from tightframe.metrics.registry import CENTERINGS
from tightframe.problem.labels import require_several_classes
from tightframe.problem.problem import Problem
from tightframe.runs.network_files import SavedNetwork
from tightframe.runs.tables import distances_by_target
from tightframe.runs.verdicts import Verdict, group_verdicts
from tightframe.shown import record
from tightframe.solution import Solution
from tightframe.solve import solve_certified
from tightframe.theory.certificate import Certificate, certify, factored_objective

#: Arrays that a file must hold.
REQUIRED = ("features", "labels", "weight")


@record
@dataclass(frozen=True, eq=False)
class Measurement:
    """What saved features say, and how that compares with the theory.

    Attributes
    ----------
    report : CollapseReport
        NC1 to NC4 and the measured geometry.
    classes : ClassTable
        What the network does with every class, worst first.
    targets : tuple of Geometry
        What it is compared with; the predicted geometry first, if decays were given. None where
        classes have no samples or are too many for a K x K matrix; the report's rows have the
        frames then.
    solution : Solution or None
        The prediction, if decays were given.
    certificate : Certificate or None
        Of the class means' logits, against the solution's lower bound if that is better.
    objective : float or None
        The network's own objective: mean loss over the samples plus the decay costs of its actual
        classifier, features and bias. At least the solution's lower bound.
    verdicts : list of Verdict
        One a group of classes, if decays were given.
    """

    report: CollapseReport
    classes: ClassTable
    targets: tuple[Geometry, ...]
    solution: Solution | None
    certificate: Certificate | None
    objective: float | None
    verdicts: list[Verdict]

    def to_dict(self) -> dict[str, Any]:
        """Return everything JSON-ready (numbers that are not finite are left to the writer)."""
        report = {"classes": None} | self.report.to_dict()  # they come first
        report["classes"] = self.classes.to_dict()
        report["distances"] = distances_by_target(self.report, self.targets)
        remarks = map(self.report.head.remark, self.targets)
        report["notes"] = [*filter(None, [*remarks, CENTERINGS[self.report.center]])]
        if self.solution is not None and self.certificate is not None:
            report["prediction"] = self.solution.to_dict()
            report["certificate"] = {
                "primal": self.certificate.primal,
                "lower_bound": self.certificate.dual,
                "gap": self.certificate.gap,
                "network_objective": self.objective,
            }
            report["verdicts"] = [verdict.to_dict() for verdict in self.verdicts]
        return report


def measure(
    source: Mapping[str, NDArray[Any]] | SavedNetwork, *, center: str = "class", **decays: Any
) -> Measurement:
    """Measure saved arrays.

    Parameters
    ----------
    source : mapping or SavedNetwork
        ``features`` (N, D), ``labels`` (N,) with 0 <= label < K, ``weight`` (K, D) and
        optionally ``bias`` (K,), ``class_names`` and ``held_out``, a pair of features and labels.
        Others are ignored.
    center : {"class", "sample"}
        As in `CollapseReport.measure`.
    **decays
        Keyword arguments of `Problem` except ``counts`` and ``dim``, which the data give. Without
        any, the metrics are compared with the ETF, the orthogonal frame and SELI only, that
        of a free bias if there is a ``bias``; classes without samples are then left out.

    Raises
    ------
    ValueError
        If an array is missing or has wrong shapes or values, a class has no samples and decays are
        given, or the arguments of `Problem` are out of range.
    """
    arrays: Mapping[str, Any] = vars(source) if isinstance(source, SavedNetwork) else source
    for name in REQUIRED:
        if arrays.get(name) is None:
            there = sorted(key for key, array in arrays.items() if array is not None and len(array))
            present = ", ".join(there) or "nothing"
            raise ValueError(f"{name}: missing; need {', '.join(REQUIRED)}, the file has {present}")
    features, weight = np.asarray(arrays["features"]), np.asarray(arrays["weight"])
    labels = np.asarray(arrays["labels"])
    if weight.ndim != 2 or features.ndim != 2 or weight.shape[1] != features.shape[1]:
        raise ValueError(
            f"weight: got shape {weight.shape} with features {features.shape}; "
            "need (K, D) with features (N, D)"
        )
    if len(weight) < 2:
        raise ValueError(
            f"weight: got {number_of(len(weight), 'row')}, need at least 2, one for each class"
        )
    bias = None if arrays.get("bias") is None else np.asarray(arrays["bias"])
    moments = ClassMoments(len(weight)).update(features, labels)
    names = arrays.get("class_names")
    if moments.missing:
        absent = describe_classes([k if names is None else names[k] for k in moments.missing])
        if decays:
            raise ValueError(
                f"labels: {absent} without samples; a prediction needs some of every class, "
                "without decays the others are measured"
            )
        require_several_classes(moments.counts.numpy())
        warnings.warn(f"{absent} without samples, but rivals", RuntimeWarning, stacklevel=2)
    with warnings.catch_warnings():
        # Every metric says so again, by numbers.
        warnings.filterwarnings("ignore", ".* without samples and left out", RuntimeWarning)
        report = CollapseReport.measure(
            moments,
            weight,
            bias,
            features=features,
            labels=labels,
            missing="leave_out",
            class_names=names,
            center=center,
        )
    held_out = _held_out(arrays, weight, bias)
    classes = report.class_table(held_out=held_out)
    if report.missing or len(weight) > MAX_DENSE_CLASSES:
        return Measurement(report, classes, (), None, None, None, [])
    limit = seli_of_head(report.counts, bias is not None)
    frames = (simplex_etf(len(weight)), orthogonal_frame(len(weight)), limit)
    if not decays:
        return Measurement(report, classes, frames, None, None, None, [])

    problem = Problem(
        report.counts, dim=features.shape[1], class_names=report.class_names, **decays
    )
    if problem.features == "nonnegative" and features.min() < 0:
        raise ValueError(f"features: smallest entry is {features.min():.3g} with 'nonnegative'")
    solution = solve_certified(problem)
    return Measurement(
        report,
        report.class_table(held_out=held_out, problem=problem),
        (solution.geometry, *frames),
        solution,
        certify(problem, report.geometry.logits, bias, lower_bound=solution.lower_bound),
        factored_objective(problem, [weight], features, labels.reshape(-1), bias),
        group_verdicts(problem, solution, report.logits, bias),
    )


def _held_out(
    arrays: Mapping[str, Any], weight: NDArray[Any], bias: NDArray[Any] | None
) -> Answers | None:
    """Return what the classifier answers on held-out samples, if there are any."""
    if arrays.get("held_out") is None:
        return None
    features, labels = arrays["held_out"]
    try:
        apart = LastLayer.of(features, labels, weight, bias)
    except ValueError as error:
        raise ValueError(f"held_out {error}") from None
    return answers_of(apart.features, apart.labels, apart.weight, apart.bias)
