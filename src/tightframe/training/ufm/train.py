"""The unconstrained features model trained by gradient descent, as the papers do."""

from __future__ import annotations

import math
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from tightframe.checks import choice, is_several, number_of, positive_float, whole_number
from tightframe.geometry.blocks import BlockMatrix
from tightframe.geometry.dense import normalized_distance, seli
from tightframe.metrics.plain import plain_tensors
from tightframe.problem.counts import CountsLike
from tightframe.problem.problem import Problem
from tightframe.progress import Progress, ProgressLike, told, watched
from tightframe.saved import Saved, kept
from tightframe.shown import Block, Shown, frame, plot, record
from tightframe.solution import Solution
from tightframe.solve import solve
from tightframe.theory.certificate import certify, finite_array
from tightframe.theory.coverage import coverage
from tightframe.theory.svm import certify_svm, least_margin
from tightframe.training.ufm.context_records import ContextRecorder
from tightframe.training.ufm.descent import (
    NONNEGATIVE,
    Descent,
    Evaluation,
    log_spaced,
    without_decays,
)
from tightframe.training.ufm.pictures import excess_chart, runs_table
from tightframe.training.ufm.records import Recorder, State

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]

#: Factor of the learning rate at an iteration: a name, steps, or a function of the share done.
Schedule = str | Sequence[tuple[int, float]] | Callable[[float], float]

SCHEDULES = ("constant", "linear", "cosine")

#: Iterations between two looks at the gradient; the same in every batch, so that a run ends at the
#: same iteration whatever it is batched with.
CHECK_EVERY = 100

#: Feature entries of one batch (and as many velocities); 256 MiB of each in float64.
BATCH_ENTRIES = 2**25

#: Normalized descent ends where logits pass this power of 1 / eps, and their differences blur.
BLURRED = 0.75

#: A critical point this far above the reference, relatively, is named in `reason`.
EXCESS_SHARE = 1e-4


@kept
@dataclass(frozen=True, eq=False)
class UFMRun(Shown):
    """One trained run: where it ended and how far that is from the optimum.

    Attributes
    ----------
    problem : Problem
        With the width that was trained, ``dim``.
    seed : int
    status : {"converged", "stopped", "diverged"}
        Converged: the scaled gradient is at most ``tol``, which a saddle's is, too: see ``excess``.
    reason : str
        Why the run ended, and what is peculiar about where.
    iterations : int
        Steps taken.
    history : list of dict
        One row a record, see `train_ufm`; the last is of the last iterate.
    reference : Solution or None
        What the run is compared with, solved with ``dim=None`` where the width suffices.
    gap : float or None
        Certified gap of the run's class means, see `train_ufm`.
    gap_note : str
        How the gap is certified, or why there is none.
    weights : tuple of ndarray
        The layers, W_1 (d x d, or K x d if the only one), next to the features, first.
    class_means : ndarray, shape (d, K), float64
        With targets (d, m), and the logits (V, m).
    bias : ndarray, shape (K,), float64
        Zeros without bias.
    logits : ndarray, shape (K, K), float64
        Mean logits without bias; column k holds the samples of class k.
    """

    problem: Problem
    seed: int
    status: str
    reason: str
    iterations: int
    history: list[dict[str, Any]]
    reference: Solution | None
    gap: float | None
    gap_note: str
    weights: tuple[Array, ...]
    class_means: Array
    bias: Array
    logits: Array

    def __repr__(self) -> str:
        last = self.history[-1]
        return (
            f"<UFMRun: {self.problem.num_classes} classes, seed {self.seed}, {self.status} after "
            f"{number_of(self.iterations, 'iteration')}, objective {last['objective']:.8g}, excess "
            f"{self.excess:.2g}, distance {self.distance:.2g}>"
        )

    def _blocks(self) -> Iterator[Block]:
        yield repr(self)[1:-1]
        yield self.reason

    def to_frame(self) -> pd.DataFrame:
        """Return `history` as a DataFrame, see `tightframe.shown.frame`."""
        return frame(self.history)

    def plot(self, ax: Any = None) -> tuple[Any, Any]:
        """Draw the excess of the objective along the iterations, see `tightframe.shown.plot`."""
        return plot(excess_chart([self]), ax)

    @property
    def excess(self) -> float:
        """Objective less the certified lower bound (or the best objective found); NaN if none."""
        return float(self.history[-1]["excess"])

    @property
    def distance(self) -> float:
        """Normalised Frobenius distance of the logits to the reference's, from 0 to 2.

        NaN without a reference, or if either is zero. Minimisers that break the symmetry between
        classes (low-rank ones of deep cross-entropy) come in several orders of the classes:
        ``spectrum_to_predicted`` in the history does not depend on it.
        """
        return float(self.history[-1]["logits_to_predicted"])

    @property
    def final(self) -> dict[str, Any]:
        """The run's settings, outcome and last row of the history, JSON-ready but for NaN."""
        problem = self.problem.to_dict()
        problem.pop("targets", None)  # as many numbers as the run itself
        fields = {name if name != "loss" else "problem_loss": problem[name] for name in problem}
        return {
            **self.history[-1],
            **fields,
            "status": self.status,
            "reason": self.reason,
            "iterations": self.iterations,
            "distance": self.distance,
            "gap": self.gap,
            "gap_note": self.gap_note,
            "reference": "none" if self.reference is None else self.reference.status,
            "reference_objective": None if self.reference is None else self.reference.objective,
        }


@dataclass(frozen=True, eq=False)
class UFMRuns(Shown, Saved):
    """All runs of `train_ufm`: problem by problem, and for each seed by seed.

    Attributes
    ----------
    runs : tuple of UFMRun
    interrupted : bool
        Whether Ctrl-C ended the training; what was reached is here.
    seconds : float
        Wall time in all.
    """

    runs: tuple[UFMRun, ...]
    interrupted: bool
    seconds: float

    def __len__(self) -> int:
        return len(self.runs)

    def __iter__(self) -> Iterator[UFMRun]:
        return iter(self.runs)

    def __getitem__(self, index: int) -> UFMRun:
        return self.runs[index]

    @property
    def history(self) -> list[dict[str, Any]]:
        """The rows of all runs, one run after the other; columns as in `train_ufm`."""
        return [row for run in self.runs for row in run.history]

    @property
    def final(self) -> list[dict[str, Any]]:
        """One dict a run, see `UFMRun.final`."""
        return [run.final for run in self.runs]

    @cached_property
    def logits(self) -> Array:
        """Mean logits without bias, shape (runs, K, K); column k holds the samples of class k.

        Like the arrays below only where all runs have equal shapes (ValueError else).
        """
        return self._stacked("logits", [run.logits for run in self.runs])

    @cached_property
    def class_means(self) -> Array:
        """Class means as columns, shape (runs, d, K)."""
        return self._stacked("class_means", [run.class_means for run in self.runs])

    @cached_property
    def bias(self) -> Array:
        """Bias, shape (runs, K); zeros without."""
        return self._stacked("bias", [run.bias for run in self.runs])

    @cached_property
    def weights(self) -> list[Array]:
        """The layers, W_1 (next to the features) first, each (runs, out, in)."""
        depths = {run.problem.depth for run in self.runs}
        if len(depths) > 1:
            raise ValueError(f"weights: runs of depths {sorted(depths)}; take them run by run")
        layers = zip(*(run.weights for run in self.runs), strict=True)
        return [self._stacked("weights", list(layer)) for layer in layers]

    def __repr__(self) -> str:
        ended = Counter(run.status for run in self.runs)
        how = ", ".join(f"{number} {status}" for status, number in ended.items())
        worst = max((run.excess for run in self.runs), default=math.nan)
        return (
            f"UFMRuns({number_of(len(self), 'run')}: {how}; excess at most {worst:.2g}, "
            f"{self.seconds:.3g} s"
            f"{', interrupted' if self.interrupted else ''})"
        )

    def _blocks(self) -> Iterator[Block]:
        yield repr(self)
        yield runs_table(self.runs)

    def plot(self, ax: Any = None) -> tuple[Any, Any]:
        """Draw the excess of every run's objective along the iterations.

        See `tightframe.shown.plot`.
        """
        return plot(excess_chart(self.runs), ax)

    def to_frame(self) -> pd.DataFrame:
        """Return `history` as a DataFrame, see `tightframe.shown.frame`."""
        return frame(self.history)

    def final_frame(self) -> pd.DataFrame:
        """Return `final` as a DataFrame, one row a run; see `tightframe.shown.frame`."""
        return frame(self.final)

    def _stacked(self, name: str, arrays: list[Array]) -> Array:
        shapes = {array.shape for array in arrays}
        if len(shapes) > 1:
            raise ValueError(f"{name}: the runs have shapes {sorted(shapes)}; take them run by run")
        return np.stack(arrays)


@plain_tensors()
def train_ufm(
    problems: Problem | Iterable[Problem],
    *,
    seeds: Iterable[int] = (0,),
    dim: int | Sequence[int] | None = None,
    lr: float = 0.1,
    momentum: float = 0.9,
    iterations: int = 30_000,
    init_std: float = 0.1,
    schedule: Schedule = "constant",
    records: int = 60,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
    per_sample: bool = True,
    nonnegative: str = "projection",
    normalized: bool = False,
    tol: float = 1e-6,
    max_seconds: float | None = None,
    progress: ProgressLike = None,
) -> UFMRuns:
    """Train the unconstrained features model of every problem from every seed.

    Features, layers and bias are all free parameters, start from N(0, init_std^2) and follow plain
    gradient descent with momentum (heavy ball, ``v <- momentum v + gradient``, ``x <- x - lr v``)
    on the objective of `Problem`. The default values are those of the synthetic experiments of
    Dang et al. (2023, https://arxiv.org/abs/2301.00437).

    Runs that agree in all but decays and seeds are computed as one batch; a run's numbers do not
    depend on its batch, but for rounding. Nothing is hidden: descent may end at a saddle or a local
    minimum, crawl, or diverge, and `UFMRun.status`, ``excess`` and ``gap`` say so.

    Parameters
    ----------
    problems : Problem or iterable of Problem
        Real or non-negative features, any loss, bias and depth, and all terms of the loss; or label
        distributions of contexts, ``targets``, where a class is a context in all that follows.
    seeds : iterable of int
        Each gives every problem one run; runs of one seed and equal shapes start alike.
    dim : int or sequence of int, optional
        Width d of features and hidden layers, as in `Problem`, of the problems that have no ``dim``
        of their own (another than theirs is refused). By default 2 K: the theory needs K, or K - 1;
        with targets twice the smaller number of labels and contexts.
    lr : float
        Learning rate. Descent is unstable beyond 2 (1 + momentum) / curvature.
    momentum : float
        From 0 to below 1.
    iterations : int
        Steps at most; 0 measures the start.
    init_std : float
        Standard deviation of all starting values (with projection the features' are made positive).
    schedule : str, sequence of (iteration, factor), or callable
        ``"constant"``; ``"linear"`` or ``"cosine"`` decay of lr to 0; steps, ``[(10_000, 0.1)]``:
        from that iteration on ``factor * lr``; or a function from the share of the iterations done,
        in [0, 1), to a factor.
    records : int
        About how many rows a run's history has, evenly spaced in the logarithm of the iteration.
    dtype : {torch.float64, torch.float32}
        Of the descent; what is recorded is computed in float64.
    device : torch.device or str
        Of the descent. Starting values are the same on every device.
    per_sample : bool
        One column of features for each of the N samples, as in the papers. If False one column a
        class stands for its n_k samples and moves as each of them would: what per-sample descent
        does once within-class variability has vanished, at K columns' cost. The objective is the
        same function, so the minimum is; NC1 is then NaN, not zero.
    nonnegative : {"projection", "relu"}
        How ``H >= 0`` is kept, where the problem asks for it: projected gradient descent from
        ``|N(0, init_std^2)|``, or features ``relu(V)`` with free V from N(0, init_std^2), decayed
        as features are. The code of Dang et al. (2024) trains networks only, whose features are a
        ReLU's output: ``"relu"`` is its counterpart, but features that die (V <= 0) stay dead, and
        most runs end above the minimum. With projection that happens where all samples of a class
        vanish early: give width to spare (several times K), and small classes a larger
        ``init_std``.
    normalized : bool
        Descend without decays, on cross-entropy alone, with steps of lr over the samples' mean
        ``1 - p_y`` (then an lr of 0.02 and a momentum of 0 are a start). The loss has no minimum:
        what the run tends to is a direction (SELI, Thrampoulidis et al. 2022), which plain descent
        nears as the logarithm of the iterations. The decays of the problem are not used and nothing
        is predicted; a run ends when logits grow too large for their differences. A free bias
        grows slower than logits, so that the direction is that without a bias.
    tol : float
        A run has converged, and ends, when its scaled gradient (``gradient_norm`` below) is at
        most this; looked at every 100 iterations. 0 lets all runs use up their iterations.
    max_seconds : float, optional
        Wall time of the training, shared evenly among batches. Runs cut off are ``"stopped"``.

    progress : callable or bool, optional
        As in `tightframe.solve`, of the iterations of all batches; a true answer ends the training
        as Ctrl-C does.

    Returns
    -------
    UFMRuns
        Ctrl-C ends the training, not the call: `UFMRuns.interrupted` is then True.

    Raises
    ------
    ValueError
        If an argument is out of range; the message names it.

    Warns
    -----
    NotConvergedWarning
        If `tightframe.solve` did not reach its tolerance on a problem.
    RuntimeWarning
        If the predicted logits of a problem are zero: distances to them are NaN. If a run diverged.

    Notes
    -----
    Every row of `UFMRuns.history` has, NaN where a quantity is undefined:

    - run, problem, seed, iteration, lr: index of the run and of the problem, steps taken, the
      learning rate of the next step;
    - loss, objective: mean data loss, and with the decays of the run's own factors;
    - excess: objective less the certified lower bound of `tightframe.solve`; for problems without
      certificate less the best objective that a multi-start search found, so it may be negative.
      ``reference`` in `UFMRuns.final` says which: "optimal" (certified), "not_converged", "local",
      or "none" where nothing solves the problem (the reason is in ``gap_note``);
    - gradient_norm: ``sqrt(sum_x ||dF/dx||^2 / decay_x / (2 F))`` over layers, features, bias; NaN
      in normalized descent, where the objective is the loss;
    - train_accuracy: share of the samples with the largest score their own (logits and bias; a
      logit adjustment is part of the loss alone);
    - nc1, nc1_quotient: as `tightframe.metrics.nc1` and ``nc1_quotient``, class-weighted; infinite
      if all class means are equal;
    - ``<part>_to_<target>``: `normalized_distance` of the parts of `geometry.PARTS` to
      "predicted" (the reference's geometry), "etf", "seli" (with a bias that of a free bias, see
      `tightframe.geometry.dense.seli_of_head`), "orthogonal_frame";
    - spectrum_to_predicted, rank: normalised distance of the singular values of ``Z D^{1/2}`` to
      the reference's, and how many are above 1e-3 of the largest;
    - ``group<i>_margin``: see `tightframe.training.group_margins`; groups as ``problem.groups``;
    - ``group<i>_<vectors>_norm``, ``group<i>_group<j>_<vectors>_cosine`` (i <= j): mean lengths,
      and mean cosines over pairs of distinct classes, of the classifier's rows, of the class means
      (not centred) and of the mean logits' columns ("classifier", "means", "logits");
    - bias_norm.

    With targets there are of the distances ``logits_to_predicted``, ``classifier_to_predicted``,
    ``classifier_to_etf``, ``means_to_predicted`` and ``spectrum_to_predicted``, and nothing by
    group; ``train_accuracy`` is the share of the samples whose label has the largest score.

    The ``gap`` of a run is that of `tightframe.certify` for the mean logits of its class means,
    with their cheapest factors: at most the excess, up to rounding, since within-class variability
    and unbalanced factors cost the run more. None where nothing certifies the problem.

    Examples
    --------
    >>> problem = Problem("10x3", weight_decay=1e-2, feature_decay=1e-2)
    >>> runs = train_ufm(problem, seeds=range(2), iterations=3000)
    >>> [run.status for run in runs], max(run.excess for run in runs) < 1e-8
    (['converged', 'converged'], True)
    """
    began = time.perf_counter()
    settings = _Settings.checked(
        lr=lr,
        momentum=momentum,
        iterations=iterations,
        init_std=init_std,
        schedule=schedule,
        records=records,
        dtype=dtype,
        device=device,
        per_sample=per_sample,
        nonnegative=nonnegative,
        normalized=normalized,
        tol=tol,
    )
    given = _with_width(_problem_list(problems), dim)
    if settings.normalized:
        _require_vanishing_loss(given)
    seed_list = _seed_list(seeds)
    budget = math.inf if max_seconds is None else positive_float("max_seconds", max_seconds)
    references = [None] * len(given) if settings.normalized else _references(given)
    jobs = [
        _Job(index, len(seed_list) * index + s, problem, seed, references[index])
        for index, problem in enumerate(given)
        for s, seed in enumerate(seed_list)
    ]
    batches = _batches(jobs, per_sample)
    runs: dict[int, UFMRun] = {}
    interrupted = False
    started = time.perf_counter()
    with watched(progress, "iterations") as tell:
        for left, batch in zip(range(len(batches), 0, -1), batches, strict=True):
            now = time.perf_counter()
            share = (started + budget - now) / left
            # After Ctrl-C the remaining batches report their starts.
            training = _Training(batch, settings, -math.inf if interrupted else now + share)
            place = (len(batches) - left, len(batches))
            interrupted |= training.run(interrupted, tell, place)
            for job, run in training.finished():
                runs[job.run] = run
    done = tuple(runs[i] for i in range(len(jobs)))
    diverged = sum(run.status == "diverged" for run in done)
    if diverged:
        warnings.warn(
            f"{diverged} of {len(done)} runs diverged; see their reason, and lower lr",
            RuntimeWarning,
            stacklevel=3,
        )
    return UFMRuns(done, interrupted, time.perf_counter() - began)


@record
class SvmDirection(NamedTuple):
    """How close logits point to the solution of the UFM-SVM; see `svm_direction`.

    Attributes
    ----------
    distance : float
        Normalised Frobenius distance to SELI's logits, columns weighted by ``sqrt(n_k)``.
    margin : float
        Least margin of a class over another; with a free bias, with the best one.
    gap : float or None
        Certified relative gap of the logits, scaled to a least margin of one, to the minimum of
        the UFM-SVM; None if the margin is not positive: then they separate nothing.
    """

    distance: float
    margin: float
    gap: float | None


def svm_direction(counts: CountsLike, logits: ArrayLike, *, bias: str = "none") -> SvmDirection:
    """Compare the direction of logits with the UFM-SVM's solution, SELI.

    That is where cross-entropy points as the decays vanish, and what descent without decay is
    compared with (without bias Thrampoulidis et al. 2022, https://arxiv.org/abs/2208.05512).

    Parameters
    ----------
    counts : str or iterable of int
        Samples per class.
    logits : array_like, shape (K, K)
        Mean logits, for example `UFMRun.logits`; column k holds the samples of class k.
    bias : {"none", "free"}
        Bias of the head, as for `tightframe.seli`; it is not part of the logits.

    Returns
    -------
    SvmDirection
        For zero logits the distance is NaN, with a RuntimeWarning.

    Raises
    ------
    ValueError
        If shapes or values are off.
    """
    problem = Problem(counts, weight_decay=1.0, feature_decay=1.0)  # for its counts only
    frame = seli(problem.compact_counts, bias).logits
    root = np.sqrt(problem.counts)
    z = finite_array("logits", logits, frame.shape)
    margin = least_margin(BlockMatrix.from_dense(problem, z), bias)
    gap = None
    if margin > 0:
        certificate = certify_svm(problem.compact_counts, z, bias=bias)
        gap = certificate.gap / certificate.dual if certificate.dual > 0 else math.inf
    return SvmDirection(normalized_distance(z * root, frame * root), margin, gap)


# -- arguments -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Settings:
    lr: float
    momentum: float
    iterations: int
    init_std: float
    schedule: Schedule
    records: int
    dtype: torch.dtype
    device: torch.device
    per_sample: bool
    nonnegative: str
    normalized: bool
    tol: float

    @classmethod
    def checked(cls, **given: Any) -> _Settings:
        momentum = given["momentum"]
        if isinstance(momentum, bool) or not isinstance(momentum, int | float):
            raise ValueError(f"momentum: got {momentum!r}, need a number from 0 to below 1")
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum: got {momentum}, need a number from 0 to below 1")
        if given["dtype"] not in (torch.float64, torch.float32):
            raise ValueError(
                f"dtype: got {given['dtype']}, allowed are torch.float64, torch.float32"
            )
        choice("nonnegative", given["nonnegative"], NONNEGATIVE)
        for name in ("per_sample", "normalized"):
            if not isinstance(given[name], bool):
                raise ValueError(f"{name}: got {given[name]!r}, need True or False")
        tol = given["tol"]
        return cls(
            lr=positive_float("lr", given["lr"]),
            momentum=float(momentum),
            iterations=whole_number("iterations", given["iterations"], 0),
            init_std=positive_float("init_std", given["init_std"]),
            schedule=_checked_schedule(given["schedule"]),
            records=whole_number("records", given["records"], 2),
            dtype=given["dtype"],
            device=_device(given["device"], given["dtype"]),
            per_sample=given["per_sample"],
            nonnegative=given["nonnegative"],
            normalized=given["normalized"],
            tol=0.0 if tol == 0 and not isinstance(tol, bool) else positive_float("tol", tol),
        )

    def rate(self, iteration: int) -> float:
        """Return the learning rate of the step from an iteration to the next."""
        share = iteration / max(self.iterations, 1)
        schedule = self.schedule
        if callable(schedule):
            factor = schedule(share)
            if not (isinstance(factor, int | float) and math.isfinite(factor) and factor >= 0):
                raise ValueError(
                    f"schedule: returned {factor!r} at {share}, need a finite factor, at least 0"
                )
        elif not isinstance(schedule, str):
            factor = next((f for start, f in reversed(schedule) if start <= iteration), 1.0)
        elif schedule == "cosine":
            factor = (1 + math.cos(math.pi * share)) / 2
        else:
            factor = 1 - share if schedule == "linear" else 1.0
        return self.lr * factor


def _checked_schedule(schedule: Schedule) -> Schedule:
    if callable(schedule) or (isinstance(schedule, str) and schedule in SCHEDULES):
        return schedule
    message = (
        f"schedule: got {schedule!r}; allowed are {', '.join(SCHEDULES)}, a function, or "
        "(iteration, factor) pairs with rising iterations"
    )
    if isinstance(schedule, str) or not isinstance(schedule, Sequence):
        raise ValueError(message)
    steps: list[tuple[int, float]] = []
    for pair in schedule:
        if not isinstance(pair, Sequence) or isinstance(pair, str) or len(pair) != 2:
            raise ValueError(message)
        start = whole_number("schedule", pair[0], 0)
        if steps and start <= steps[-1][0]:
            raise ValueError(message)
        steps.append((start, positive_float("schedule", pair[1])))
    return steps


def _device(device: Any, dtype: torch.dtype) -> torch.device:
    try:
        chosen = torch.device(device)
        torch.zeros((), dtype=dtype, device=chosen)
        torch.zeros((), dtype=torch.float64, device=chosen)  # records are computed in float64
    except (RuntimeError, TypeError, AssertionError) as error:
        reason = (str(error).splitlines() or [""])[0]
        raise ValueError(f"device: got {device!r}, which cannot be used: {reason}") from None
    return chosen


def _problem_list(problems: Any) -> list[Problem]:
    given = [problems] if isinstance(problems, Problem) else problems
    if not is_several(given):
        raise ValueError(f"problems: got {problems!r}, need a tightframe.Problem or several")
    out = list(given)
    for problem in out:
        if not isinstance(problem, Problem):
            raise ValueError(f"problems: got a {type(problem).__name__}, need tightframe.Problem")
    if not out:
        raise ValueError("problems: got none, need at least one")
    return out


def _seed_list(seeds: Any) -> list[int]:
    if not is_several(seeds):
        raise ValueError(f"seeds: got {seeds!r}, need whole numbers, for example range(4)")
    out = [whole_number("seeds", seed, 0) for seed in seeds]
    if not out:
        raise ValueError("seeds: got none, need at least one")
    if max(out) >= 2**63:
        raise ValueError(f"seeds: got {max(out)}, need numbers below 2**63")
    if len(set(out)) < len(out):
        raise ValueError(f"seeds: got {out}, where one comes twice")
    return out


def _with_width(problems: list[Problem], dim: int | Sequence[int] | None) -> list[Problem]:
    out = []
    for problem in problems:
        wanted = problem.replace(dim=2 * _most_rank(problem) if dim is None else dim)
        if problem.dim is not None:
            if dim is not None and wanted.dim != problem.dim:
                raise ValueError(f"dim: got {dim}, but a problem has dim {problem.dim} of its own")
            wanted = problem
        out.append(wanted)
    return out


def _require_vanishing_loss(problems: list[Problem]) -> None:
    for problem in problems:
        if problem.loss != "cross_entropy" or problem.label_smoothing:
            name = "loss" if problem.loss != "cross_entropy" else "label_smoothing"
            raise ValueError(
                f"normalized: got True with {name} {getattr(problem, name)!r}, need cross-entropy "
                "of hard labels, the loss that descent drives to zero"
            )


# -- what runs are compared with -------------------------------------------------------------------


def _solvable(problem: Problem) -> Problem:
    """Leave out a width that suffices: theorems and solvers then need not look at it."""
    wide = problem.width is None or problem.width >= _most_rank(problem)
    return problem.replace(dim=None) if wide else problem


def _most_rank(problem: Problem) -> int:
    """Return a rank that no logits exceed: the number of classes; of labels or contexts."""
    return min(problem.num_classes, problem.num_contexts)


def _references(problems: list[Problem]) -> list[Solution | None]:
    known: dict[Problem, Solution | None] = {}
    out = []
    for problem in problems:
        key = _solvable(problem)
        if key not in known:
            known[key] = solve(key) if _is_solved(key) else None
            solution = known[key]
            if solution is not None and not solution.logits.any():
                warnings.warn(
                    "problems: the predicted logits of a problem are zero (every class "
                    "collapses), distances to them are NaN",
                    RuntimeWarning,
                    stacklevel=4,
                )
        out.append(known[key])
    return out


def _is_solved(problem: Problem) -> bool:
    return problem.targets is not None or coverage(problem).outcome != "refused"


def _certified_gap(
    problem: Problem, reference: Solution | None, logits: Array, bias: Array, objective: float
) -> tuple[float | None, str]:
    key = _solvable(problem)
    case = None if key.targets is not None else coverage(key)  # all with targets are certified
    if case is not None and not case.is_certified:
        bound = None if reference is None else reference.lower_bound
        if reference is None or bound is None or problem.features == "real":
            return None, f"no certificate: {case.reason}"
        # What non-negative features cost, their logits do not tell; the run's own factors do.
        return max(objective - bound, 0.0), reference.note
    try:
        certificate = certify(
            key,
            logits,
            None if problem.bias == "none" else bias,
            lower_bound=None if reference is None else reference.lower_bound,
        )
    except ValueError as error:  # a width that these logits, full rank but for rounding, exceed
        return None, f"no certificate: {error}"
    return certificate.gap, "" if reference is None else reference.note


# -- batches ---------------------------------------------------------------------------------------


class _Job(NamedTuple):
    number: int  # of the problem
    run: int
    problem: Problem
    seed: int
    reference: Solution | None


def _batches(jobs: list[_Job], per_sample: bool) -> list[list[_Job]]:
    """Group jobs that differ in decays and seeds only, as many as memory allows."""
    alike: dict[Problem, list[_Job]] = {}
    for job in jobs:
        alike.setdefault(without_decays(job.problem), []).append(job)
    batches = []
    for group in alike.values():
        p = group[0].problem
        entries = max(p.dims or (1,)) * (p.num_samples if per_sample else p.num_contexts)
        size = max(1, BATCH_ENTRIES // entries)
        batches += [group[i : i + size] for i in range(0, len(group), size)]
    return batches


class _Training:
    """The descent of one batch: when to look, what to record, which runs go on."""

    def __init__(self, jobs: list[_Job], settings: _Settings, deadline: float) -> None:
        self.jobs, self.settings, self.deadline = jobs, settings, deadline
        problems = [job.problem for job in jobs]
        self._descent = Descent(
            problems,
            [job.seed for job in jobs],
            problems[0].dim or 1,
            init_std=settings.init_std,
            per_sample=settings.per_sample,
            nonnegative=settings.nonnegative,
            normalized=settings.normalized,
            dtype=settings.dtype,
            device=settings.device,
        )
        references: list[Any] = [job.reference for job in jobs]
        self._recorder: Recorder | ContextRecorder = (
            Recorder(problems, references)
            if problems[0].targets is None
            else ContextRecorder(problems, references)
        )
        self._going = np.arange(len(jobs))
        self._histories: list[list[dict[str, Any]]] = [[] for _ in jobs]
        self._done: list[tuple[_Job, UFMRun]] = []
        self._iteration = 0

    def run(
        self,
        interrupted: bool = False,
        tell: Progress | None = None,
        place: tuple[int, int] = (0, 1),
    ) -> bool:
        """Train until every run has ended; return whether Ctrl-C was pressed meanwhile.

        ``place``: how many batches are before this one, and how many there are.
        """
        s, (before, batches) = self.settings, place
        recorded = log_spaced(s.iterations, s.records)
        looks = sorted({*recorded, *range(0, s.iterations, CHECK_EVERY)})
        at_record = set(recorded)
        reason = "all iterations used"
        try:
            for look in looks if not interrupted else [0]:
                in_time = self._advance(look)
                self._look(record=look in at_record and in_time)
                done = before * s.iterations + look
                if told(tell, done, batches * s.iterations, number_of(len(self._going), "run")):
                    raise KeyboardInterrupt
                if not in_time:
                    reason = "max_seconds reached"
                if not in_time or not len(self._going):
                    break
        except KeyboardInterrupt:
            interrupted = True
        if interrupted:
            reason = "interrupted"
        self._end(np.ones(len(self._going), dtype=bool), "stopped", reason)
        return interrupted

    def finished(self) -> list[tuple[_Job, UFMRun]]:
        return self._done

    def _advance(self, until: int) -> bool:
        """Descend to an iteration; return whether time allowed it."""
        s, descent = self.settings, self._descent
        while self._iteration < until:
            if time.perf_counter() > self.deadline:
                return False
            descent.step(s.rate(self._iteration), s.momentum)
            self._iteration += 1
        return True

    def _look(self, record: bool) -> None:
        """End the runs that have diverged or converged; record the others where it is time to."""
        now = self._descent.evaluate()
        norms = now.gradient_norm.cpu().numpy()
        finite = np.isfinite(now.objective.cpu().numpy())
        if not self.settings.normalized:
            finite &= np.isfinite(norms)
        if not finite.all():
            self._end(~finite, "diverged", "the objective or its gradient is not finite")
            norms, now = norms[finite], self._descent.evaluate()
        converged = norms <= self.settings.tol
        if record and len(self._going):
            self._record(now)
        if converged.any():
            self._end(converged, "converged", "the scaled gradient is within tol")
        if self.settings.normalized and len(self._going):
            eps = torch.finfo(self.settings.dtype).eps
            blurred = (self._descent.largest_scores() > eps**-BLURRED).cpu().numpy()
            self._end(blurred, "stopped", "the logits are too large for their differences")

    def _record(self, now: Evaluation) -> None:
        rows = self._recorder.rows(self._descent, now, self._going)
        for place, row in zip(self._going.tolist(), rows, strict=True):
            self._histories[place].append(self._place(place) | row)

    def _place(self, place: int) -> dict[str, Any]:
        """Return the columns that say which run and when."""
        job, s = self.jobs[place], self.settings
        rate = s.rate(min(self._iteration, max(s.iterations - 1, 0)))
        return {
            "run": job.run,
            "problem": job.number,
            "seed": job.seed,
            "iteration": self._iteration,
            "lr": rate,
        }

    def _complete(self, ending: NDArray[np.bool_], status: str) -> None:
        """Give runs that end a row of their last iterate, unless it was recorded just now."""
        places = [int(place) for place in self._going[ending]]
        places = [p for p in places if self._last_recorded(p) != self._iteration]
        if not places:
            return
        if status == "diverged":
            rows = {place: dict.fromkeys(self._recorder.columns, math.nan) for place in places}
        else:
            measured = self._recorder.rows(self._descent, self._descent.evaluate(), self._going)
            rows = dict(zip(self._going.tolist(), measured, strict=True))
        for place in places:
            self._histories[place].append(self._place(place) | rows[place])

    def _last_recorded(self, place: int) -> int:
        history = self._histories[place]
        return int(history[-1]["iteration"]) if history else -1

    def _end(self, ending: NDArray[np.bool_], status: str, reason: str) -> None:
        """Take runs out of the batch, with a last row and their certificate."""
        if not ending.any():
            return
        descent = self._descent
        state = State.of(descent)
        self._complete(ending, status)
        for r in np.flatnonzero(ending):
            job = self.jobs[self._going[r]]
            history = self._histories[self._going[r]]
            gap, note = None, "no certificate: the run diverged"
            if self.settings.normalized and status != "diverged":
                note = "no certificate: without decays there is no minimum; see svm_direction"
            elif status != "diverged":
                gap, note = _certified_gap(
                    job.problem,
                    job.reference,
                    state.logits[r],
                    state.bias[r],
                    float(history[-1]["objective"]),
                )
            run = UFMRun(
                problem=job.problem,
                seed=job.seed,
                status=status,
                reason=reason + _peculiar(status, history[-1], job.reference),
                iterations=self._iteration,
                history=history,
                reference=job.reference,
                gap=gap,
                gap_note=note,
                weights=tuple(layer[r] for layer in state.layers),
                class_means=state.class_means[r],
                bias=state.bias[r],
                logits=state.logits[r],
            )
            self._done.append((job, run))
        descent.keep(torch.as_tensor(~ending, device=self.settings.device))
        self._going = self._going[~ending]


def _peculiar(status: str, row: dict[str, Any], reference: Solution | None) -> str:
    """Say where a run converged that did not reach what it is compared with."""
    if status != "converged" or reference is None:
        return ""
    if row["excess"] > EXCESS_SHARE * reference.objective:
        return "; above the minimum: a saddle or a local minimum"
    if row["excess"] < -EXCESS_SHARE * reference.objective:
        return "; below the best that the search found"
    return ""
