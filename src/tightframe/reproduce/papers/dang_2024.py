"""Dang et al. 2024: neural collapse under imbalance with cross-entropy and ReLU features.

Every prediction is computed: the closed form by `tightframe.solve` with its certificate, where
classes vanish by `tightframe.thresholds`. The paper's training step halves the loss and sums the
features over a batch; `tightframe.Problem.from_batch_features` converts its decays. The UFM is
trained with equal decays of the same product, which has the same logits and trains faster.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from tightframe.figures.model import (
    Chart,
    Curve,
    HeatMaps,
    Mark,
    Matrix,
    Panel,
    Table,
    block_borders,
)
from tightframe.geometry.dense import Geometry, cosines
from tightframe.problem.counts import parse_counts
from tightframe.problem.problem import Problem
from tightframe.reproduce.spec import Figure, Paper, Results, Task, Verdict, verdict
from tightframe.runs.verdicts import COLLAPSE_TOLERANCE as COLLAPSED
from tightframe.solve import solve
from tightframe.theory.thresholds import thresholds

Array = NDArray[np.float64]

#: The paper's metrics and the columns that they are; NC2_W needs more than one Gram (`nc2_w`).
METRICS = {
    "NC1": "nc1",
    "NC2_H": "means_to_predicted",
    "NC2_W": "nc2_w",
    "NC2_WWᵀ": "classifier_to_predicted",
    "NC3_WH": "logits_to_predicted",
}

#: Samples per class of the paper's data sets, as in its code.
_COUNTS = {
    "MNIST, Fashion-MNIST": "100x2,200x2,300x2,400x2,500x2",
    "CIFAR10": "1000x2,2000x2,3000x2,4000x2,5000x2",
    "CIFAR100": "100x20,200x20,300x20,400x20,500x20",
}

#: Its training step: CE/2 + (decay/2) ||W||^2 + (decay/2) (features summed over the batch).
_WEIGHT_DECAY, _FEATURE_DECAY, _BATCH, _HALF = 1e-4, 1e-5, 256, 0.5

#: The same proportions as the paper's, for a UFM with one column a sample and for networks.
_SAMPLES = {"smoke": "10x2,20x2,30x2,40x2,50x2", "cpu": _COUNTS["MNIST, Fashion-MNIST"]}
_SAMPLES["paper"] = _SAMPLES["cpu"]
_DIGITS = "28x2,56x2,84x2,112x2,140x2"
_FASHION = "20x2,40x2,60x2,80x2,100x2"

#: N lambda over the root of the smallest count, of these UFMs and networks.
_STRENGTH = {"UFM": 0.15, "network": 0.3}

_LAMBDA = "λ = √(weight decay · feature decay)"


# -- problems and tasks ----------------------------------------------------------------------------


def paper_problem(counts: str) -> Problem:
    """Return the UFM whose decays the paper's networks were trained with."""
    return Problem.from_batch_features(
        counts,
        weight_decay=_WEIGHT_DECAY,
        feature_decay=_FEATURE_DECAY,
        batch_size=_BATCH,
        loss_scale=_HALF,
        features="nonnegative",
    )


def _problem(counts: str, decay: float) -> Problem:
    return Problem(counts, weight_decay=decay, feature_decay=decay, features="nonnegative")


def _decay(counts: str, strength: float) -> float:
    """Return lambda for a strength ``N lambda / sqrt(smallest count)``; margins depend on it."""
    runs = parse_counts(counts)
    total = sum(run.count * run.classes for run in runs)
    return strength * math.sqrt(min(run.count for run in runs)) / total


def _ufm(problems: Sequence[Problem], labels: Mapping[str, Any], **options: Any) -> Task:
    given = {"problems": [p.to_dict() for p in problems], "momentum": 0.9, "arrays": True}
    return Task("ufm", {**given, **options}, {"what": "UFM", **labels})


def _sampled(scale: str, counts: str, labels: Mapping[str, Any], **options: Any) -> Task:
    """Train the UFM with one column a sample, so that NC1 can be measured.

    The starting values are N(0, 1): from smaller ones classes vanish, see the figure ``ufm``.
    """
    problem = _problem(counts, _decay(counts, _STRENGTH["UFM"]))
    given = {
        "seeds": [0, 1] if scale == "smoke" else [0, 1, 2, 3],
        "dim": 20,
        "lr": problem.num_samples / 60,
        "iterations": 3000,
        "init_std": 1.0,
        "records": 30,
    }
    return _ufm([problem], labels, **{**given, **options})


def _network(name: str, config: Mapping[str, Any], **labels: Any) -> Task:
    given = {"features": "nonnegative", **config}
    own = {"what": "network", "network": name, **labels}
    return Task("network", {"config": given, "arrays": True}, own)


#: The networks' architectures and trainings by scale. Features are wider than K, because in narrow
#: ReLU layers classes vanish more often than the theory has it.
_MLP: dict[str, dict[str, Any]] = {
    "smoke": {"hidden": [64], "feature_dim": 64, "epochs": 80, "measure_every": 10},
    "cpu": {"hidden": [256, 256], "feature_dim": 128, "epochs": 1200, "measure_every": 30},
}
_CNN: dict[str, dict[str, Any]] = {
    "smoke": {
        "network": "vgg11",
        "network_options": {"width": 4},
        "epochs": 4,
        "batch_size": 120,
        "measure_every": 1,
    },
    "cpu": {
        "network": "vgg11",
        "network_options": {"width": 8},
        "epochs": 500,
        "batch_size": 210,
        "measure_every": 10,
    },
}
_PAPER_TRAINING: dict[str, Any] = {
    "optimizer": "adam",
    "lr": 1e-4,
    "schedule": "milestones",
    "milestones": [2000],
    "batch_size": _BATCH,
    "epochs": 4000,
    "measure_every": 40,
    "seed": 1,
}
_PAPER_NETWORKS: dict[str, dict[str, Any]] = {
    # Six ReLU layers, one more linear layer and a ReLU, all 1024 wide.
    "MLP": {"hidden": [1024] * 6, "feature_dim": 1024},
    "ResNet18": {"network": "resnet18"},
    "VGG11": {"network": "vgg11"},
}
_PAPER_DATA = {
    "cifar10": "CIFAR10",
    "cifar100": "CIFAR100",
    "mnist": "MNIST, Fashion-MNIST",
    "fashion_mnist": "MNIST, Fashion-MNIST",
}


def _setting(counts: str) -> dict[str, Any]:
    """Return counts and decays of a small network: lambda as `_decay`, in the ratio 100."""
    decay = _decay(counts, _STRENGTH["network"])
    return {"counts": counts, "settings": [[10 * decay, decay / 10]]}


def _network_tasks(scale: str) -> list[Task]:
    if scale != "paper":
        tasks = [
            _network("MLP, digits", {"data": "digits", **_setting(_DIGITS), **_MLP[scale]}),
            _network("VGG11, digits", {"data": "digits", **_setting(_DIGITS), **_CNN[scale]}),
        ]
        if scale == "cpu":
            fashion = {"data": "fashion_mnist", **_setting(_FASHION), **_MLP[scale]}
            tasks.insert(1, _network("MLP, Fashion-MNIST", fashion))
        return tasks
    tasks = []
    for data, which in _PAPER_DATA.items():
        problem = paper_problem(_COUNTS[which])
        settings = [[problem.weight_decays[0], problem.feature_decay]]
        for name, network in _PAPER_NETWORKS.items():
            config = {"data": data, "counts": _COUNTS[which], "settings": settings}
            tasks.append(_network(f"{name}, {data}", {**config, **_PAPER_TRAINING, **network}))
    return tasks


# -- what several figures share --------------------------------------------------------------------


def nc2_w(counts: ArrayLike, logits: ArrayLike, classifier: ArrayLike, means: ArrayLike) -> float:
    """Return the paper's NC2_W from Gram matrices.

    It is the normalised distance of W to the matrix T with rows ``K sqrt(n_k) h_k - sum_m
    sqrt(n_m) h_m``, that is ``T = K (I - 11^T/K) D^{1/2} H^T``; ``<W, T>`` and ``||T||^2`` follow
    from the logits ``W H`` and from ``H^T H``.

    Parameters
    ----------
    counts : array_like, shape (K,)
    logits, classifier, means : array_like, shape (K, K)
        ``W H``, ``W W^T`` and ``H^T H``.

    Returns
    -------
    float
        From 0 to 2; NaN if W or T is zero.
    """
    n = np.asarray(counts, dtype=np.float64)
    z, ww, hh = (np.asarray(a, dtype=np.float64) for a in (logits, classifier, means))
    shape = (np.eye(len(n)) - 1 / len(n)) * np.sqrt(n)
    squares = float(np.trace(ww)), float(np.einsum("ij,jk,ik->", shape, hh, shape))
    if min(squares) <= 0:
        return math.nan
    inner = float((shape * z).sum()) / math.sqrt(squares[0]) / math.sqrt(squares[1])
    return math.sqrt(max(2 - 2 * inner, 0.0))


def published_margins(counts: ArrayLike) -> Array:
    """Return the margins M_k as the paper's published code computes them.

    Its ``compute_M_array`` divides by ``sqrt(lH/2 lW/2) sqrt((K-1)/K lW/lH)``, from which the
    feature decay cancels, where the minimiser has ``sqrt(lW lH (K-1)/K)``.

    Parameters
    ----------
    counts : array_like, shape (K,)

    Returns
    -------
    ndarray, shape (K,), float64
        In nats; 0 where the argument of the logarithm is below 1.
    """
    n = np.asarray(counts, dtype=np.float64)
    k = len(n)
    decay = math.sqrt(_FEATURE_DECAY / 2 * _WEIGHT_DECAY / 2)
    decay *= math.sqrt((k - 1) / k * _WEIGHT_DECAY / _FEATURE_DECAY)
    inside: Array = (k - 1) * (np.sqrt(n) / (n.sum() * decay) - 1)
    return np.log(np.maximum(inside, 1.0))


def _of_row(row: Mapping[str, Any] | pd.Series) -> Problem:
    """Return the problem of a result row."""
    return Problem(
        row["counts"],
        weight_decay=float(row["weight_decay"]),
        feature_decay=float(row["feature_decay"]),
        features="nonnegative",
    )


def _with_nc2_w(part: Results) -> pd.DataFrame:
    """Return the rows of a part with all columns of `METRICS`; NaN where nothing is known."""
    rows = part.rows
    for column in METRICS.values():
        if column not in rows:
            rows[column] = math.nan
    rows["nc2_w"] = [
        nc2_w(_of_row(row).counts, *(part.array(row, a) for a in ("logits", "classifier", "means")))
        for _, row in rows.iterrows()
    ]
    return rows


def _worst(rows: pd.DataFrame, columns: Iterable[str]) -> float:
    """Return the largest entry, NaN if one is NaN."""
    return float(rows[list(columns)].to_numpy(dtype=np.float64).max())


def _number(value: float) -> str:
    return f"{value:.2g}"


#: Below this a distance is rounding, and a logarithmic axis shows nothing else.
_DRAWN = 1e-10


def _over_training(table: pd.DataFrame, x: str, metrics: Mapping[str, str]) -> list[Curve]:
    """Draw metrics of one run, each in its own colour."""
    curves = []
    for color, (name, column) in enumerate(METRICS.items()):
        if name in metrics and column in table and table[column].notna().any():
            drawn = table[column].where(table[column] > _DRAWN)
            curves.append(Curve(name, list(table[x]), list(drawn), color))
    return curves


# -- the theorem and gradient descent --------------------------------------------------------------

#: Iterations at which NC2_W is measured: the history has no vectors to compute it from.
_SNAPSHOTS = (1, 3, 10, 30, 60, 100, 200)

#: Other starts of the same descent: what they are called, and the options.
_STARTS: dict[str, dict[str, Any]] = {
    "projected, N(0, 1)": {},
    "projected, N(0, 0.3²)": {"init_std": 0.3},
    "projected, N(0, 0.1²)": {"init_std": 0.1},
    "H = ReLU(V), N(0, 0.1²)": {"init_std": 0.1, "nonnegative": "relu"},
}
_MAIN = "projected, N(0, 1)"

#: Width, learning rate and iterations of the UFMs with the paper's decays.
_DESCENTS = {
    "MNIST, Fashion-MNIST": (40, 100.0, 6000),
    "CIFAR10": (40, 300.0, 8000),
    "CIFAR100": (150, 300.0, 20_000),
}


def _ufm_tasks(scale: str) -> list[Task]:
    problems = [paper_problem(counts).to_dict() for counts in _COUNTS.values()]
    tasks = [Task("solve", {"problems": problems}, {"what": "theory"})]
    counts = _SAMPLES[scale]
    for start, options in _STARTS.items():
        tasks.append(_sampled(scale, counts, {"start": start}, **options))
    for iterations in _SNAPSHOTS:
        labels = {"what": "snapshot"}
        tasks.append(_sampled(scale, counts, labels, seeds=[0], iterations=iterations, records=2))
    for data, (dim, lr, iterations) in _DESCENTS.items():
        if scale == "smoke" and data != "MNIST, Fashion-MNIST":
            continue
        counts = _COUNTS[data]
        options = {"per_sample": False, "dim": dim, "lr": lr, "iterations": iterations}
        options |= {"seeds": [0] if scale == "smoke" else [0, 1], "records": 10}
        problem = _problem(counts, paper_problem(counts).logit_decay)
        tasks.append(_ufm([problem], {"what": "paper", "data": data}, **options))
    return tasks


def _judge_ufm(results: Results) -> list[Verdict]:
    theory = results.select(what="theory").rows
    gap = float((theory["gap"] / theory["objective"]).max())
    certified = bool((theory["status"] == "optimal").all())
    verdicts = [
        verdict(
            certified and gap < 1e-9,
            criterion="the closed form's objective is within 1e-9, relatively, of a lower bound "
            "that holds for all W and all H ≥ 0, for all counts and decays of the paper",
            claimed="the global minimisers have orthogonal class means and margins M_k in closed "
            "form",
            predicted=0.0,
            measured=gap,
            tolerance=1e-9,
            sentence=f"For {len(theory)} sets of counts the objective of the closed form is at "
            f"most {gap:.1g} above the bound, relatively: it is the minimum.",
        )
    ]
    rows = _with_nc2_w(results.select(what="UFM", start=_MAIN))
    worst = _worst(rows, METRICS.values())
    others = results.select(what="UFM").rows
    others = others[others["start"] != _MAIN]
    short = int((~_at_minimum(others)).sum())
    verdicts.append(
        verdict(
            worst < 1e-3,
            criterion="all five metrics of every run of the UFM (one column a sample, started at "
            "N(0, 1)) end below 1e-3",
            claimed="NC1, NC2_H, NC2_W, NC2_WWᵀ and NC3_WH go to 0 for imbalanced counts",
            predicted=0.0,
            measured=worst,
            tolerance=1e-3,
            sentence=f"UFM: the largest metric of {len(rows)} runs ends at {_number(worst)}. "
            f"The theorem is on global minimisers only: {short} of {len(others)} runs from the "
            "other starts end above the minimum, with classes that have vanished.",
        )
    )
    rows = _with_nc2_w(results.select(what="paper"))
    columns = [column for column in METRICS.values() if column != "nc1"]
    worst, off = _worst(rows, columns), _margin_error(rows)
    verdicts.append(
        verdict(
            worst < 1e-2 and off < 0.01,
            criterion="with the paper's counts and decays the four distances of every run of the "
            "UFM end below 1e-2 and its margins within 0.01 nats of M_k",
            claimed="margins M_k = log((K-1)(√n_k / (N √(λ_W λ_H (K-1)/K)) - 1))",
            predicted=0.0,
            measured=max(worst, off),
            tolerance=1e-2,
            sentence=f"UFM with the paper's decays ({', '.join(sorted(set(rows['data'])))}): "
            f"the largest distance is {_number(worst)}, the margins are within {_number(off)} "
            "nats of the closed form.",
        )
    )
    return verdicts


def _at_minimum(rows: pd.DataFrame) -> pd.Series:
    """Tell which runs ended within 1e-4 of the minimum, relatively."""
    near: pd.Series = rows["excess"] < 1e-4 * rows["predicted_objective"]
    return near


def _margin_error(rows: pd.DataFrame) -> float:
    errors = [
        (rows[f"group{g}_margin"] - rows[f"group{g}_predicted_margin"]).abs()
        for g in range(_groups(rows))
    ]
    return float(pd.concat(errors).max(skipna=False))


def _groups(rows: pd.DataFrame) -> int:
    return len(parse_counts(rows["counts"].iloc[0]))


def _draw_ufm(results: Results) -> list[Panel]:
    main = results.select(what="UFM", start=_MAIN)
    panels: list[Panel] = []
    if len(main.rows):
        history = main.history
        history = history[(history["row"] == 0) & (history["iteration"] > 0)]
        curves = _over_training(history, "iteration", METRICS)
        snapshots = _with_nc2_w(results.select(what="snapshot"))
        snapshots = pd.concat([snapshots, _with_nc2_w(main).head(1)])
        snapshots = snapshots.sort_values("iterations")
        curves.append(
            Curve(
                "NC2_W",
                list(snapshots["iterations"]),
                list(snapshots["nc2_w"].where(snapshots["nc2_w"] > _DRAWN)),
                list(METRICS).index("NC2_W"),
                "line+points",
            )
        )
        panels.append(
            Chart(
                "The five metrics, gradient descent",
                "iteration",
                "metric",
                curves,
                log_x=True,
                log_y=True,
                note=f"Samples per class {main.rows['counts'].iloc[0]}. NC2_W is measured at some "
                "iterations only. What is below 1e-10 is not drawn.",
            )
        )
        row = main.rows.iloc[0]
        panels.append(_logit_maps("Mean logits W H", main, row, "gradient descent"))
    panels += [_margin_chart(results), _margin_table(results), _start_table(results)]
    return panels


def _logit_maps(title: str, part: Results, row: pd.Series, name: str) -> HeatMaps:
    problem = _of_row(row)
    maps = [
        Matrix("closed form", part.array(row, "predicted_logits")),
        Matrix(name, part.array(row, "logits")),
    ]
    return HeatMaps(title, maps, borders=block_borders(problem.counts))


def _paper_margins(results: Results) -> Iterator[tuple[str, Any]]:
    """Yield data set and a table: count, closed form, published formula, measured."""
    runs = results.select(what="paper").rows
    for data, counts in _COUNTS.items():
        problem = paper_problem(counts)
        margins, published = solve(problem).margins, published_margins(problem.counts)
        found = runs[runs["data"] == data] if len(runs) else runs
        table = []
        for g, group in enumerate(problem.groups):
            k = int(np.flatnonzero(problem.class_groups == g)[0])
            measured = float(found[f"group{g}_margin"].mean()) if len(found) else None
            table.append([group.count, float(margins[k]), float(published[k]), measured])
        yield data, table


def _margin_chart(results: Results) -> Chart:
    curves = []
    for color, (data, table) in enumerate(_paper_margins(results)):
        count, exact, published, measured = (list(c) for c in zip(*table, strict=True))
        shares = [n / max(count) for n in count]
        curves.append(Curve(data, shares, exact, color, "dashed"))
        curves.append(Curve("", shares, published, color, "dotted"))
        if measured[0] is not None:
            curves.append(Curve("", shares, measured, color, "points"))
    return Chart(
        "Margins at the paper's decays",
        "samples of the class over the largest count",
        "margin M_k (nats)",
        curves,
        note="Dashed: closed form; dotted: published code; points: gradient descent. The closed "
        "forms of the first two sets of counts coincide.",
    )


def _margin_table(results: Results) -> Table:
    rows = [[data, *line] for data, table in _paper_margins(results) for line in table]
    return Table(
        "Margins M_k (nats) with the paper's counts and decays",
        ["data set", "samples", "closed form", "published code", "gradient descent"],
        rows,
        "The published formula lacks the feature decay; gradient descent agrees with the theorem.",
    )


def _start_table(results: Results) -> Table:
    table = []
    for start in _STARTS:
        part = results.select(what="UFM", start=start)
        rows = part.rows
        if not len(rows):
            continue
        vanished = [_vanished(part.array(row, "means")) for _, row in rows.iterrows()]
        excess = rows["excess"] / rows["predicted_objective"]
        nc1 = float(rows["nc1"].max())
        table.append(
            [
                start,
                len(rows),
                int(_at_minimum(rows).sum()),
                max(vanished),
                float(excess.max()),
                nc1,
            ]
        )
    return Table(
        "Where gradient descent ends, by start",
        [
            "features, start",
            "runs",
            "at the minimum",
            "classes vanished, most",
            "largest relative excess",
            "largest NC1",
        ],
        table,
        "The problem with H ≥ 0 has local minima: features that reach 0 stay there.",
    )


def _vanished(means: Array) -> int:
    """Return how many class means are zero."""
    lengths = np.diagonal(means)
    return int((lengths <= 1e-6 * lengths.max()).sum())


# -- networks --------------------------------------------------------------------------------------


def _judge_networks(results: Results) -> list[Verdict]:
    smoke = results.scale == "smoke"
    verdicts = []
    for _, row in _with_nc2_w(results.select(what="network")).iterrows():
        nc1, far = float(row["nc1"]), max(float(row[c]) for c in list(METRICS.values())[1:])
        far = math.nan if any(math.isnan(float(row[c])) for c in METRICS.values()) else far
        ends = ", ".join(f"{name} {_number(float(row[c]))}" for name, c in METRICS.items())
        verdicts.append(
            verdict(
                None if smoke else nc1 < 1e-2 and far < 0.1,
                criterion="NC1 ends below 1e-2 and each of the four distances below 0.1",
                claimed="the five metrics go towards 0 in practical networks",
                predicted=0.0,
                measured=far,
                tolerance=0.1,
                sentence=f"{row['network']}: at the end of training {ends}"
                + (" (a short training)." if smoke else "."),
            )
        )
    return verdicts


_STYLES = ("solid", "dashed", "dotted", "line+points")


def _draw_networks(results: Results) -> list[Panel]:
    part = results.select(what="network")
    if not len(part.rows):
        return []
    rows = _with_nc2_w(part)
    panels: list[Panel] = []
    families = sorted({name.split(",")[0] for name in rows["network"]})
    sets = list(dict.fromkeys(name.split(", ")[1] for name in rows["network"]))
    for name, column in METRICS.items():
        column = "self_duality_to_predicted" if column == "nc2_w" else column
        curves = []
        for network, table in part.history.groupby("network", sort=False):
            family, data = str(network).split(", ")
            values = table[column].where(table[column] > _DRAWN)
            style = _STYLES[sets.index(data)]
            color = families.index(family)
            share = table["epoch"] / table["epoch"].max()
            curves.append(Curve(str(network), list(share), list(values), color, style))
        title, x_label = f"{name} of the networks", "share of the training"
        panels.append(Chart(title, x_label, name, curves, log_y=True))
    ends = [
        [row["network"], *(float(row[c]) for c in METRICS.values()), row["test_accuracy"]]
        for _, row in rows.iterrows()
    ]
    title = "The five metrics at the end of training"
    panels.append(Table(title, ["network", *METRICS, "test accuracy"], ends))
    first = rows.iloc[0]
    title = f"Mean logits, {first['network']}, n = {first['counts']}"
    return [*panels, _logit_maps(title, part, first, "network")]


# -- norms and angles ------------------------------------------------------------------------------


def _angle_tasks(scale: str) -> list[Task]:
    return [_sampled(scale, _SAMPLES[scale], {}), *_network_tasks(scale)]


def norm_error(measured: ArrayLike, predicted: ArrayLike) -> float:
    """Return the largest relative error of the lengths behind a Gram matrix.

    Parameters
    ----------
    measured, predicted : array_like, shape (K, K)

    Returns
    -------
    float
        Relative to the longest predicted vector, so that vanished ones count, too.
    """
    found, expected = (np.sqrt(np.diagonal(np.asarray(g))) for g in (measured, predicted))
    return float(np.abs(found - expected).max() / expected.max())


def angle_error(measured: ArrayLike, predicted: ArrayLike) -> float:
    """Return the largest error of a cosine behind a Gram matrix.

    Pairs with a vector that is predicted to vanish have no angle; one that has vanished against
    the prediction counts as an error of 1.

    Parameters
    ----------
    measured, predicted : array_like, shape (K, K)
    """
    expected = cosines(predicted)
    known = np.isfinite(expected)
    errors = np.abs(cosines(measured) - expected)[known]
    return float(np.where(np.isfinite(errors), errors, 1.0).max(initial=0.0))


_VECTORS = {"classifier": "w_k", "means": "h_k"}


def _geometry_errors(part: Results, row: pd.Series) -> tuple[float, float]:
    """Return the largest errors of the lengths and of the cosines of a run."""
    predicted: Geometry = solve(_of_row(row)).geometry
    pairs = [(part.array(row, name), getattr(predicted, name)) for name in _VECTORS]
    return max(norm_error(*p) for p in pairs), max(angle_error(*p) for p in pairs)


def _judge_angles(results: Results) -> list[Verdict]:
    verdicts = []
    for what, tolerance in (("UFM", 0.01), ("network", 0.1)):
        part = results.select(what=what)
        smoke = results.scale == "smoke" and what == "network"
        errors = {
            f"{row.get('network', 'UFM')}, run {i}": _geometry_errors(part, row)
            for i, row in part.rows.iterrows()
        }
        if what == "UFM":
            errors = {"UFM": tuple(np.max(list(errors.values()), axis=0))}
        for name, (lengths, angles) in errors.items():
            worst = float(max(lengths, angles))
            verdicts.append(
                verdict(
                    None if smoke else worst < tolerance,
                    criterion=f"lengths of w_k and h_k are within {tolerance:g} of the longest "
                    f"predicted one, and all cosines within {tolerance:g} of the closed form's",
                    claimed="lengths and angles of classifier and class means follow the counts "
                    "as in the closed form; class means are orthogonal",
                    predicted=0.0,
                    measured=worst,
                    tolerance=tolerance,
                    sentence=f"{name.split(', run')[0]}: the lengths are at most "
                    f"{_number(lengths)} off, the cosines {_number(angles)}"
                    + (" (a short training)." if smoke else "."),
                )
            )
    return verdicts


def _draw_angles(results: Results) -> list[Panel]:
    panels: list[Panel] = []
    part = results.select(what="UFM")
    if len(part.rows):
        row = part.rows.iloc[0]
        history = part.history
        history = history[(history["row"] == row["row"]) & (history["iteration"] > 0)]
        problem = _of_row(row)
        predicted = solve(problem).geometry
        first = [int(np.argmax(problem.class_groups == g)) for g in range(len(problem.groups))]
        for name, symbol in _VECTORS.items():
            lengths = getattr(predicted, f"{name}_norms")
            panels.append(
                Chart(
                    f"UFM: lengths of {symbol} by samples of the class",
                    "iteration",
                    f"‖{symbol}‖",
                    _with_limits(
                        history,
                        {
                            f"n_k = {group.count}": (f"group{g}_{name}_norm", lengths[first[g]])
                            for g, group in enumerate(problem.groups)
                        },
                    ),
                    log_x=True,
                )
            )
        last = len(problem.groups) - 1
        chosen = {"fewest": (0, 0), "fewest and most": (0, last), "most": (last, last)}
        for name, symbol in _VECTORS.items():
            angles = getattr(predicted, f"{name}_cosines")
            lines = {}
            for label, (i, j) in chosen.items():
                value = angles[first[i], first[j] + (i == j)]
                lines[label] = (f"group{i}_group{j}_{name}_cosine", float(value))
            title = f"UFM: cosines of {symbol} by samples of the classes"
            curves = _with_limits(history, lines)
            panels.append(Chart(title, "iteration", "mean cosine", curves, log_x=True))
    return panels + _network_lengths(results.select(what="network"))


def _with_limits(history: pd.DataFrame, lines: Mapping[str, tuple[str, float]]) -> list[Curve]:
    """Draw columns of a history, and dashed in the same colour what is predicted for each."""
    x = list(history["iteration"])
    curves = []
    for color, (label, (column, limit)) in enumerate(lines.items()):
        curves.append(Curve(label, x, list(history[column]), color))
        title = "closed form" if color == 0 else ""
        curves.append(Curve(title, [x[0], x[-1]], [limit, limit], color, "dashed"))
    return curves


def _network_lengths(part: Results) -> list[Panel]:
    """Compare the lengths of the networks' vectors with the closed form, class by class."""
    if not len(part.rows):
        return []
    table: list[list[Any]] = []
    charts: dict[str, list[Curve]] = {name: [] for name in _VECTORS}
    for color, (_, row) in enumerate(part.rows.iterrows()):
        problem = _of_row(row)
        predicted = solve(problem).geometry
        shares = problem.counts / problem.counts.max()
        line: list[Any] = [row["network"]]
        for name in _VECTORS:
            gram = part.array(row, name)
            found, expected = np.sqrt(np.diagonal(gram)), getattr(predicted, f"{name}_norms")
            ratio = [float(r) for r in found / expected]
            charts[name].append(Curve(row["network"], list(shares), ratio, color, "points"))
            line += [norm_error(gram, getattr(predicted, name))]
            line += [angle_error(gram, getattr(predicted, name))]
        table.append(line)
    one = [Mark(1.0, "closed form", "y")]
    x_label = "samples of the class over the largest count"
    panels: list[Panel] = [
        Chart(f"Networks: ‖{symbol}‖ over the closed form's", x_label, "ratio", charts[name], one)
        for name, symbol in _VECTORS.items()
    ]
    columns = ["network", "length of w_k", "cosines of w_k", "length of h_k", "cosines of h_k"]
    panels.append(Table("Networks: largest errors against the closed form", columns, table))
    return panels


# -- where classes vanish --------------------------------------------------------------------------

#: lambda in units of the smallest class's threshold: at least two points between two thresholds,
#: which are at 1, sqrt(2), ..., sqrt(5), and beyond the last, so that a switch two steps off shows.
_GRID = (0.4, 0.8, 0.95, 1.05, 1.2, 1.35, 1.48, 1.66, 1.8, 1.93, 2.07, 2.17, 2.3, 2.45)

#: Points of the grid at which a smoke run trains a network.
_SMOKE_POINTS = (0, 6)


def _unit(counts: str) -> float:
    """Return the decay at which the smallest class vanishes."""
    groups = thresholds(_problem(counts, 1.0)).groups
    return float(min(group.logit_decay or math.inf for group in groups))


def _threshold_tasks(scale: str) -> list[Task]:
    tasks = []
    counts = {"UFM": _COUNTS["MNIST, Fashion-MNIST"], "network": _DIGITS}
    if scale == "paper":
        counts["network"] = _COUNTS["MNIST, Fashion-MNIST"]
    for of, own in counts.items():
        dense = [float(round(u * _unit(own), 9)) for u in np.linspace(_GRID[0], _GRID[-1], 39)]
        problems = [_problem(own, decay).to_dict() for decay in dense]
        tasks.append(Task("solve", {"problems": problems}, {"what": "theory", "of": of}))
    decays = [round(u * _unit(counts["UFM"]), 9) for u in _GRID]
    options: dict[str, Any] = {"per_sample": False, "dim": 40, "lr": 20.0}
    options |= {"iterations": 4000, "records": 5}
    options["seeds"] = list(range(3 if scale == "smoke" else 10))
    tasks.append(_ufm([_problem(counts["UFM"], decay) for decay in decays], {}, **options))
    for i, u in enumerate(_GRID):
        if scale == "smoke" and i not in _SMOKE_POINTS:
            continue
        decay = float(round(u * _unit(counts["network"]), 9))
        config: dict[str, Any] = {"counts": counts["network"]}
        config["settings"] = [[10 * decay, decay / 10]]
        if scale == "paper":
            config |= {"data": "fashion_mnist", **_PAPER_NETWORKS["MLP"], **_PAPER_TRAINING}
        else:
            config |= {"data": "digits", **_MLP[scale]}
        if scale == "cpu":
            config |= {"feature_dim": 256, "epochs": 500, "measure_every": 100}
        # With full decays from the start on, classes above their threshold vanish for good.
        config["warmup_epochs"] = config["epochs"] * 3 // 10
        tasks.append(_network("MLP", config, **{"lambda": decay}))
    return tasks


def _best(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the run with the least objective for every lambda."""
    chosen = rows.groupby("lambda")["objective"].idxmin()
    return rows.loc[chosen].sort_values("lambda")


def _steps(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Compare where each group of classes vanishes with its threshold, in steps of the grid."""
    table = _best(rows)
    values = [float(v) for v in table["lambda"]]
    found = []
    for g in range(_groups(table)):
        threshold = float(table[f"group{g}_threshold"].iloc[0])
        alive = [bool(m > COLLAPSED) for m in table[f"group{g}_margin"]]
        # From here on all are collapsed.
        switch = max((i + 1 for i, is_alive in enumerate(alive) if is_alive), default=0)
        expected = sum(v < threshold * (1 - 1e-12) for v in values)
        found.append(
            {
                "count": int(table[f"group{g}_count"].iloc[0]),
                "threshold": threshold,
                "between": _interval(values, switch),
                "steps": abs(switch - expected),
                "covered": 0 < expected < len(values),
            }
        )
    return found


def _interval(values: Sequence[float], index: int) -> str:
    if index == 0:
        return f"from {values[0]:.3g} on"
    if index == len(values):
        return f"nowhere up to {values[-1]:.3g}"
    return f"{values[index - 1]:.3g} to {values[index]:.3g}"


def _judge_thresholds(results: Results) -> list[Verdict]:
    verdicts = []
    for what in ("UFM", "network"):
        rows = results.select(what=what).rows
        steps = _steps(rows)
        smoke = what == "network" and results.scale == "smoke"
        worst = max(step["steps"] for step in steps)
        holds = worst <= 1 and all(step["covered"] for step in steps)
        ends = "; ".join(f"n_k = {s['count']}: {s['between']}" for s in steps)
        sentence = f"{what}: the classes vanish at λ of {ends}."
        if what == "UFM":
            above = int((~_at_minimum(rows)).sum())
            sentence += (
                f" {above} of all {len(rows)} runs end above the minimum, because classes that "
                "vanish too early stay at zero; of each λ the best run counts."
            )
        if smoke:
            sentence += " Too few points and too short a training to decide."
        verdicts.append(
            verdict(
                None if smoke else holds,
                criterion="for each of the five counts the switch lies within one grid step of the "
                f"predicted threshold (switch: from there on the margin is below {COLLAPSED} nats)",
                claimed="class k vanishes iff N √(λ_W λ_H) ≥ √(n_k (K-1)/K)",
                predicted=", ".join(f"{step['threshold']:.3g}" for step in steps),
                measured=float(worst),
                tolerance="1 grid step",
                sentence=sentence,
            )
        )
    return verdicts


def _draw_thresholds(results: Results) -> list[Panel]:
    panels: list[Panel] = []
    table: list[list[Any]] = []
    ufm = results.select(what="UFM")
    measured = {"UFM": ufm.rows, "network": results.select(what="network").rows}
    for what, title in (("UFM", "UFM, best of its starts"), ("network", "MLP")):
        theory = results.select(what="theory", of=what).rows.sort_values("lambda")
        rows = measured[what]
        best = _best(rows) if len(rows) else rows
        curves = []
        for g in range(_groups(theory)):
            count = int(theory[f"group{g}_count"].iloc[0])
            x, y = list(theory["lambda"]), list(theory[f"group{g}_margin"])
            curves.append(Curve(f"n_k = {count}", x, y, g, "dashed"))
            if len(best):
                y = list(best[f"group{g}_margin"])
                curves.append(Curve("", list(best["lambda"]), y, g, "points"))
        title = f"{title}, n = {theory['counts'].iloc[0]}"
        note = "Dashed: closed form; points: measured; vertical lines: predicted thresholds."
        panels.append(Chart(title, _LAMBDA, "margin (nats)", curves, _marks(theory), note=note))
        if len(rows):
            table += [
                [what, step["count"], step["threshold"], step["between"], step["steps"]]
                for step in _steps(rows)
            ]
    rows = measured["UFM"]
    if len(rows):
        share = _at_minimum(rows).groupby(rows["lambda"]).mean()
        curve = Curve("", list(share.index), list(share), style="line+points")
        title = "UFM: share of the runs that end at the minimum"
        panels.append(Chart(title, _LAMBDA, "share", [curve], _marks(rows)))
    columns = ["", "samples n_k", "predicted λ", "measured between", "grid steps off"]
    panels.append(Table("Where classes vanish", columns, table))
    if len(rows):
        maps = [
            Matrix(f"λ = {row['lambda']:.3g}", ufm.array(row, "logits"))
            for _, row in _best(rows).iterrows()
        ]
        borders = block_borders(_of_row(rows.iloc[0]).counts)
        panels.append(HeatMaps("UFM, mean logits over λ", maps, borders=borders))
    return panels


def _marks(rows: pd.DataFrame) -> list[Mark]:
    """Mark each group's threshold in the group's colour."""
    values = [float(rows[f"group{g}_threshold"].iloc[0]) for g in range(_groups(rows))]
    return [Mark(value, "", color=g) for g, value in enumerate(values)]


# -- balanced counts -------------------------------------------------------------------------------

#: Imbalance ratios of the closed form's own distances.
_RATIOS = (1, 2, 3, 5, 10, 20, 50, 100)

#: What is measured against what the theorem has for balanced counts.
_BALANCED = {
    "W to the simplex ETF": "classifier_to_etf",
    "H to the orthogonal frame": "means_to_orthogonal_frame",
}


def _balanced_tasks(scale: str) -> list[Task]:
    problems = []
    for ratio in _RATIOS:
        counts = f"100x5,{100 * ratio}x5"
        problems.append(_problem(counts, _decay(counts, _STRENGTH["UFM"])).to_dict())
    tasks = [Task("solve", {"problems": problems, "arrays": True}, {"what": "theory"})]
    tasks.append(_sampled(scale, "30x10" if scale == "smoke" else "300x10", {}))
    if scale == "paper":
        problem = paper_problem("300x10")
        config: dict[str, Any] = {"data": "fashion_mnist", "counts": "300x10"}
        config["settings"] = [[problem.weight_decays[0], problem.feature_decay]]
        for name, network in _PAPER_NETWORKS.items():
            given = {**config, **_PAPER_TRAINING, **network}
            tasks.append(_network(f"{name}, fashion_mnist", given))
        return tasks
    config = {"data": "digits", **_setting("84x10")}
    tasks.append(_network("MLP, digits", {**config, **_MLP[scale]}))
    if scale == "cpu":
        tasks.append(_network("VGG11, digits", {**config, **_CNN[scale]}))
    return tasks


def _frame_distances(part: Results, row: pd.Series) -> dict[str, float]:
    """Return the distances of `_BALANCED` from the Grams of a row."""
    k = int(row["num_classes"])
    frames = {"classifier": np.eye(k) - 1 / k, "means": np.eye(k)}
    found = []
    for name, frame in frames.items():
        gram = part.array(row, name)
        size = np.linalg.norm(gram)
        unit = gram / size if size > 0 else np.full_like(gram, np.nan)
        found.append(float(np.linalg.norm(unit - frame / np.linalg.norm(frame))))
    return dict(zip(_BALANCED, found, strict=True))


def _judge_balanced(results: Results) -> list[Verdict]:
    part = results.select(what="theory")
    rows = part.rows.sort_values("num_samples")
    distances = np.array([list(_frame_distances(part, row).values()) for _, row in rows.iterrows()])
    largest, grows = float(distances[0].max()), bool((np.diff(distances, axis=0) > 0).all())
    claim = "with balanced counts W is a simplex ETF and H an orthogonal frame"
    verdicts = [
        verdict(
            largest < 1e-12 and grows,
            criterion="the closed form's distances to both frames are below 1e-12 for balanced "
            "counts and grow with the imbalance ratio",
            claimed=claim,
            predicted=0.0,
            measured=largest,
            tolerance=1e-12,
            sentence=f"Closed form: the distances are {largest:.1g} for balanced counts and, at "
            f"ratio {_RATIOS[-1]}, {distances[-1, 0]:.2g} for W and {distances[-1, 1]:.2g} for H.",
        )
    ]
    for what, tolerance in (("UFM", 1e-3), ("network", 0.1)):
        part = results.select(what=what)
        smoke = what == "network" and results.scale == "smoke"
        found: dict[str, list[dict[str, float]]] = {}
        for _, row in part.rows.iterrows():
            found.setdefault(row.get("network", "UFM"), []).append(_frame_distances(part, row))
        for name, runs in found.items():
            by_frame = {frame: float(np.max([run[frame] for run in runs])) for frame in _BALANCED}
            worst = float(np.max(list(by_frame.values())))
            ends = ", ".join(f"{frame} {_number(value)}" for frame, value in by_frame.items())
            verdicts.append(
                verdict(
                    None if smoke else worst < tolerance,
                    criterion=f"both normalised distances end below {tolerance:g}",
                    claimed=claim,
                    predicted=0.0,
                    measured=worst,
                    tolerance=tolerance,
                    sentence=f"{name}: {ends}" + (" (a short training)." if smoke else "."),
                )
            )
    return verdicts


def _draw_balanced(results: Results) -> list[Panel]:
    panels: list[Panel] = []
    ufm = results.select(what="UFM")
    if len(ufm.rows):
        history = ufm.history
        history = history[(history["row"] == 0) & (history["iteration"] > 0)]
        x = list(history["iteration"])
        curves = [
            Curve(name, x, list(history[column].where(history[column] > _DRAWN)), color)
            for color, (name, column) in enumerate(_BALANCED.items())
        ]
        title = f"UFM, n = {ufm.rows['counts'].iloc[0]}"
        y_label = "normalised distance"
        panels.append(Chart(title, "iteration", y_label, curves, log_x=True, log_y=True))
    networks = results.select(what="network")
    curves = []
    # The means' prediction is the orthogonal frame, see the first verdict.
    columns = ("classifier_to_etf", "means_to_predicted")
    runs = networks.history.groupby("network", sort=False) if len(networks.history) else ()
    for i, (network, table) in enumerate(runs):
        style = _STYLES[i % len(_STYLES)]
        for color, (name, column) in enumerate(zip(_BALANCED, columns, strict=True)):
            label = f"{network}: {name}"
            curves.append(Curve(label, list(table["epoch"]), list(table[column]), color, style))
    panels.append(Chart("Networks", "epoch", "normalised distance", curves, log_y=True))
    theory = results.select(what="theory")
    rows = theory.rows.sort_values("num_samples")
    points = [_frame_distances(theory, row) for _, row in rows.iterrows()]
    ratios = list(rows["group1_count"].fillna(100.0) / 100)
    curves = [
        Curve(name, ratios, [max(p[name], 0.0) for p in points], color, "line+points")
        for color, name in enumerate(_BALANCED)
    ]
    title = "Closed form under imbalance, 5 classes each"
    x_label = "imbalance ratio n_max / n_min"
    panels.append(Chart(title, x_label, "normalised distance", curves, log_x=True))
    for part, name in ((ufm, "UFM"), (networks, "network")):
        for _, row in part.rows.head(1).iterrows():
            label = str(row.get("network", name))
            grams = [(part.array(row, v), v, s) for v, s in (("classifier", "W"), ("means", "H"))]
            maps = [
                Matrix(f"{symbol}: {vectors}", gram / np.diagonal(gram).max())
                for gram, vectors, symbol in grams
            ]
            title = f"{label}: Gram matrices over their largest entry"
            panels.append(HeatMaps(title, maps, x_label="class", y_label="class"))
    return panels


# -- the paper -------------------------------------------------------------------------------------

_SMALL = (
    "At scales smoke and cpu the networks are MLPs and narrow VGG11s on digits and Fashion-MNIST, "
    f"with counts in the paper's proportions ({_DIGITS}; {_FASHION}) and larger decays, so that a "
    "short training gets there. "
)

PAPER = Paper(
    "dang-2024",
    "H. Dang, T. Tran, T. Nguyen and N. Ho, Neural Collapse for Cross-entropy Class-Imbalanced "
    "Learning with Unconstrained ReLU Features Model, ICML 2024, arXiv 2401.02058",
    "https://arxiv.org/abs/2401.02058",
    [
        Figure(
            "ufm",
            "The theorem, and gradient descent on the unconstrained ReLU features model",
            "main theorem (no figure)",
            claim="With cross-entropy and H ≥ 0 the features of a class collapse, class means are "
            "orthogonal, and classifier and logits have a closed form in the counts: NC1, NC2_H, "
            "NC2_W, NC2_WWᵀ and NC3_WH go to 0 for any counts.",
            caption="All five metrics of the UFM fall to rounding; measured margins lie on the "
            "closed form, not on the published code's formula. The last table says from which "
            "starts gradient descent gets there.",
            tasks=_ufm_tasks,
            judge=_judge_ufm,
            draw=_draw_ufm,
            note="The paper has no synthetic experiment; this is the theorem itself. The published "
            "code computes M_k with √(λ_H/2 · λ_W/2) √((K-1)/K · λ_W/λ_H), from which λ_H cancels, "
            "in place of √(λ_W λ_H (K-1)/K); all targets here use the latter, which the "
            "certificate and gradient descent confirm. One column a sample is trained at "
            "N λ = 0.15 √n_min, one column a class at the paper's own decays.",
        ),
        Figure(
            "networks",
            "The five metrics in networks",
            "main figure and appendix: MLP, ResNet18, VGG11, DenseNet",
            claim="The five metrics go towards 0 during the training of MLPs and convolutional "
            "networks with ReLU features on imbalanced data.",
            caption="Each metric over training, one curve a network; the table has where they end.",
            tasks=_network_tasks,
            judge=_judge_networks,
            draw=_draw_networks,
            note=_SMALL + "At scale paper its MLP, ResNet18 and VGG11 on CIFAR10, CIFAR100, MNIST "
            "and Fashion-MNIST; DenseNet and SVHN are left out, and all batches have 256 samples "
            "(the README has 32 for ResNet18 on CIFAR10).",
        ),
        Figure(
            "norms-angles",
            "Norms and angles over training against the closed form",
            "follows from the theorem (no figure)",
            claim="Class means are orthogonal with ‖h_k‖² = √((K-1) λ_W / (K λ_H n_k)) M_k, and "
            "the classifier's rows are their scaled, centred images: more samples, longer w_k.",
            caption="Lengths and cosines of the UFM run into the dashed lines of the closed form; "
            "the last panels have the networks' lengths relative to it.",
            tasks=_angle_tasks,
            judge=_judge_angles,
            draw=_draw_angles,
            note=_SMALL + "The networks' lengths are known at the end of training only.",
        ),
        Figure(
            "collapse-threshold",
            "Each class vanishes at its own threshold",
            "follows from the theorem (no figure)",
            claim="Class k vanishes, h_k = 0, exactly when N √(λ_W λ_H) ≥ √(n_k (K-1)/K).",
            caption="The margin of each group of classes falls to zero at the vertical line of its "
            "colour, the rarest classes first.",
            tasks=_threshold_tasks,
            judge=_judge_thresholds,
            draw=_draw_thresholds,
            note="The UFM has the paper's counts and one column a class. A vanished class is also "
            "a local minimum below its threshold, so the run with the least objective counts; "
            "networks have one start and, as Hong & Ling's, a tenth of the decays in the first 30% "
            "of the training: without that, classes vanish before their threshold. " + _SMALL,
        ),
        Figure(
            "balanced",
            "Balanced counts: simplex ETF and orthogonal frame",
            "corollary (no figure)",
            claim="With balanced counts W is a simplex ETF and the class means an orthogonal "
            "frame.",
            caption="Both distances fall to zero; the closed form leaves both frames as soon as "
            "the counts differ.",
            tasks=_balanced_tasks,
            judge=_judge_balanced,
            draw=_draw_balanced,
            note=_SMALL + "Balanced: 84 a class on digits, lambda by the same rule; at scale "
            "paper 300 a class of Fashion-MNIST.",
        ),
    ],
)
