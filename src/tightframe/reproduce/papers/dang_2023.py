"""Dang et al. 2023: collapse in deep linear networks, balanced (MSE, CE) and imbalanced (MSE).

Every prediction is computed: minimisers with MSE by `tightframe.solve`, certified; the paper's own
formula for the lengths of the general orthogonal frame by `gof_lengths`; thresholds by
`tightframe.thresholds`. With cross-entropy and several layers nothing certifies a minimiser, but
nothing needs to: a point below the best simplex ETF refutes that the ETF is a minimiser, and
`explicit_losses` evaluates such points as actual layers and features.

Networks stand in the paper's setting: its ``mse_loss / 2`` averages over N K entries and its
features are summed over the batch, which `Problem.from_batch_features` converts. With another
number of samples the feature decay is moved so that n ``feature_decay`` stays what it was, which
keeps all decays in the same ratio to the thresholds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq, minimize_scalar

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
from tightframe.geometry.dense import PARTS, normalized_distance, orthogonal_frame, simplex_etf
from tightframe.problem.problem import Problem
from tightframe.reproduce.spec import Figure, Paper, Results, Task, Verdict, verdict
from tightframe.theory.certificate import factored_objective
from tightframe.theory.factors import balanced_factors

Array = NDArray[np.float64]

#: Numbers of linear layers M, with balanced and with imbalanced classes.
_DEPTHS = (1, 3, 6, 9)
_IMBALANCED_DEPTHS = (1, 3, 6)

#: What NC1 and the distances (NC2, NC3) must fall below: UFM, networks.
_UFM_LIMIT = 1e-2
_NETWORK_LIMITS = {"nc1": 5e-2, "distance": 1e-1}

#: A mean logit of its own class below this has vanished; labels are 0 and 1.
VANISHED = 0.02

#: Losses this far apart differ.
LOSS_TOLERANCE = 1e-5

_BIAS_NAMES = {"none": "no bias", "free": "last-layer bias"}
_NETWORKS = {"smoke": "MLP on digits", "cpu": "MLP on digits", "paper": "networks on CIFAR10"}

_NC1 = "NC1 = tr(Σ_W Σ_B⁺)/K"
_DISTANCE = "normalised Frobenius distance"


# -- problems and tasks ----------------------------------------------------------------------------


def _mse(counts: str, decay: float, depth: int, **rest: Any) -> dict[str, Any]:
    given: dict[str, Any] = {"weight_decay": decay, "feature_decay": decay, "depth": depth, **rest}
    return Problem(counts, "mse", **given).to_dict()


def _theory(problems: Sequence[Mapping[str, Any]], **labels: Any) -> Task:
    return Task("solve", {"problems": list(problems), "arrays": True}, {"what": "theory", **labels})


def _descent(scale: str, dim: int | None = None) -> dict[str, Any]:
    """Return the options of gradient descent: the paper's, or for smoke narrower and faster.

    What starting layers do to a vector's length, ``init_std sqrt(d)``, is the paper's at any width.
    """
    paper = {"dim": 64, "init_std": 0.1, "lr": 0.1, "momentum": 0.9, "iterations": 30_000}
    if scale == "smoke":
        return {
            **_width(dim or 16),
            "lr": 0.2,
            "schedule": [[300, 5.0]],
            "iterations": 1200,
            "records": 30,
            "seeds": [0],
        }
    return {**paper, **({} if dim is None else _width(dim)), "seeds": [0, 1, 2]}


def _width(dim: int) -> dict[str, Any]:
    return {"dim": dim, "init_std": round(0.8 / math.sqrt(dim), 6)}


def _ufm(
    scale: str,
    problems: Sequence[Mapping[str, Any]],
    dim: int | None = None,
    options: Mapping[str, Any] | None = None,
    **labels: Any,
) -> Task:
    arguments = {
        "problems": list(problems),
        "arrays": True,
        **_descent(scale, dim),
        **(options or {}),
    }
    return Task("ufm", arguments, {"what": "UFM", **labels})


#: Heads start with PyTorch's layers, which shorten vectors; with the decays on from the first step
#: six or nine of them collapse to zero, so the decays come after a first phase.
_TRAINING: dict[str, dict[str, Any]] = {
    "smoke": {
        "data": "digits",
        "hidden": [64],
        "feature_dim": 32,
        "lr": 5e-3,
        "epochs": 100,
        "measure_every": 25,
    },
    "cpu": {
        "data": "digits",
        "hidden": [128, 128],
        "feature_dim": 64,
        "lr": 2e-3,
        "batch_size": 100,
        "epochs": 500,
        "measure_every": 20,
        "warmup_epochs": 250,
        "warmup_decay_factor": 0.0,
    },
    "paper": {
        "data": "cifar10",
        "hidden": [2048] * 6,
        "feature_dim": 2048,
        "optimizer": "adam",
        "lr": 1e-4,
        "schedule": "milestones",
        "milestones": [50, 100, 150],
        "batch_size": 128,
        "epochs": 200,
        "measure_every": 5,
    },
}


def _network(
    scale: str, counts: str, setting: Sequence[float], more: Mapping[str, Any], **labels: Any
) -> Task:
    config = {
        "counts": counts,
        "settings": [list(setting)],
        "loss": "mse",
        **_TRAINING[scale],
        **more,
    }
    return Task("network", {"config": config, "arrays": True}, {"what": "network", **labels})


def _small(scale: str) -> dict[str, Any]:
    """Return the options of the networks on digits in which nothing is swept but the decays.

    All samples in one step, which converges fast; without decays at first where layers are deep.
    """
    if scale == "smoke":
        return {"epochs": 60, "measure_every": 60}
    return {
        "data": "digits",
        "hidden": [128, 128],
        "feature_dim": 64,
        "batch_size": None,
        "lr": 5e-3,
        "schedule": "cosine",
        "milestones": [],
        "epochs": 1000,
        "measure_every": 50,
    }


def _paper_setting(counts: str, decay: float, batch_size: int, samples: int) -> list[float]:
    """Return ``(weight_decay, feature_decay)`` of a run of the paper's code, moved to ``counts``.

    Parameters
    ----------
    counts : str
    decay : float
        The code's ``weight_decay`` and ``feature_decay_rate``.
    batch_size, samples : int
        The paper's.
    """
    k = Problem(counts, **_ANY).num_classes
    original = Problem.from_batch_features(
        [samples // k] * k,
        "mse",
        weight_decay=decay,
        feature_decay=decay,
        batch_size=batch_size,
        loss_scale=1 / k,
    )
    moved = original.feature_decay * samples / Problem(counts, **_ANY).num_samples
    return [float(f"{value:.8g}") for value in (original.weight_decays[0], moved)]


#: Decays where only the counts of a problem matter.
_ANY: dict[str, Any] = {"weight_decay": 1.0, "feature_decay": 1.0}


# -- what several figures share --------------------------------------------------------------------


def _measures(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the paper's NC1, NC2 (``W``, ``H``) and NC3 (``W H``) of every row; NaN if undefined.

    The means are centred where a bias takes their mean.
    """
    # A column without any value is missing.
    parts = ["nc1", *(f"{part}_to_predicted" for part in PARTS)]
    found = rows.reindex(columns=parts).astype(float)
    means = found["centered_means_to_predicted"].where(
        rows["bias"] == "free", found["means_to_predicted"]
    )
    return pd.DataFrame(
        {
            "NC1": found["nc1"],
            "W": found["classifier_to_predicted"],
            "H": means,
            "W H": found["logits_to_predicted"],
        }
    )


def _unfinished(holds: bool, scale: str, rows: pd.DataFrame) -> bool | None:
    """Return None for a smoke run that fails a criterion because it was stopped early."""
    stopped = bool((rows["status"] == "stopped").any())
    return None if scale == "smoke" and stopped and not holds else holds


def _judge_collapse(part: Results, what: str, claimed: str, name: str) -> Verdict:
    """Judge whether NC1 and all distances to the predicted geometry end below their limits."""
    rows = part.rows
    network = what == "network"
    limits = _NETWORK_LIMITS if network else {"nc1": _UFM_LIMIT, "distance": _UFM_LIMIT}
    measures = _measures(rows)
    distances = measures.drop(columns="NC1")
    # A zero matrix has no direction: NaN.
    nc1, worst = float(measures["NC1"].max(skipna=False)), float(np.max(distances.to_numpy()))
    # Runs that failed are not in the rows, and no evidence for a claim.
    holds = nc1 < limits["nc1"] and worst < limits["distance"] and not len(part.failed)
    smoke = part.scale == "smoke"
    by_depth = distances.max(axis=1, skipna=False).groupby(rows["depth"]).max()
    ends = ", ".join(f"{value:.2g} (M = {depth})" for depth, value in by_depth.items())
    sentence = f"{name}: NC1 ends at most at {nc1:.2g}, the largest distance at {ends}"
    sentence += f"; {len(part.failed)} runs failed" if len(part.failed) else ""
    outcome = None if smoke and network else _unfinished(holds, part.scale, rows)
    return verdict(
        outcome,
        criterion=f"every run ends with NC1 below {limits['nc1']:g} and the distances of W Wᵀ, "
        f"H̄ᵀH̄ and W H̄ to the predicted geometry below {limits['distance']:g}",
        claimed=claimed,
        predicted=0.0,
        measured=max(nc1, worst) if math.isfinite(worst) else math.nan,
        tolerance=limits["distance"],
        sentence=sentence + (", after a training too short to decide." if outcome is None else "."),
    )


def _curves(part: Results, column: str, x: str) -> list[Curve]:
    """Return one curve a depth and bias, of the first run of each task."""
    curves = []
    for result in part.tasks:
        labels = result.task.labels
        history = result.history
        if not len(history):
            continue
        history = history[history["row"] == 0]
        bias = labels.get("bias", "none")
        name = column
        if column == "means_to_predicted" and bias == "free":
            name = "centered_means_to_predicted"
        label = f"M = {labels['layers']}"
        if "network" in labels:
            label += f", {labels['network']}"
        curves.append(
            Curve(
                label + (", bias" if bias == "free" else ""),
                list(history[x]),
                list(history[name]),
                _DEPTHS.index(labels["layers"]),
                "dashed" if bias == "free" else "solid",
            )
        )
    return curves


def _collapse_charts(part: Results, name: str, x: str) -> list[Panel]:
    """Draw the paper's four metrics over training."""
    if part.scale == "paper" and len(part.tasks) > 8:
        # Eight curves are as many as can be told apart.
        part = part.select(network="MLP, width 2048")
    log_x = x == "iteration"
    metrics = {
        "NC1": ("nc1", _NC1),
        "NC2, classifier W Wᵀ": ("classifier_to_predicted", _DISTANCE),
        "NC2, class means H̄ᵀH̄": ("means_to_predicted", _DISTANCE),
        "NC3, mean logits W H̄": ("logits_to_predicted", _DISTANCE),
    }
    return [
        Chart(f"{title}, {name}", x, label, _curves(part, column, x), log_x=log_x, log_y=True)
        for title, (column, label) in metrics.items()
    ]


def _final_table(part: Results, title: str) -> Table:
    """List where the runs ended, the worst of the seeds."""
    rows = part.rows
    table = _measures(rows)
    columns = {"M": rows["depth"], "bias": rows["bias"].map(_BIAS_NAMES)}
    if "network" in rows:
        columns["network"] = rows["network"]
    for column in ("objective", "predicted_objective"):
        table[column] = rows[column]
    if "test_accuracy" in rows:
        table["test_accuracy"] = rows["test_accuracy"]
    keys = list(columns)
    worst = pd.concat([pd.DataFrame(columns), table], axis=1).groupby(keys, sort=False).max()
    names = {"predicted_objective": "certified minimum"} | {
        name: f"{name} distance" for name in ("W", "H", "W H")
    }
    return Table(
        title,
        [*keys, *(names.get(name, name.replace("_", " ")) for name in worst.columns)],
        [
            [*(key if isinstance(key, tuple) else (key,)), *(float(v) for v in values)]
            for key, values in zip(worst.index, worst.to_numpy(), strict=True)
        ],
        "Distances of W Wᵀ, H̄ᵀH̄ and W H̄ to the predicted geometry, each divided by its norm first "
        "(H̄ centred where there is a bias). The largest of the seeds.",
    )


# -- balanced: UFM ---------------------------------------------------------------------------------

_BALANCED = "100x4"
_SYNTHETIC_DECAY = 5e-4


def _balanced_problem(depth: int, bias: str, **rest: Any) -> dict[str, Any]:
    return _mse(_BALANCED, _SYNTHETIC_DECAY, depth, bias=bias, **rest)


def _balanced_ufm_tasks(scale: str) -> list[Task]:
    problems = [_balanced_problem(depth, bias) for depth in _DEPTHS for bias in _BIAS_NAMES]
    return [
        _theory(problems),
        *(
            _ufm(scale, [_balanced_problem(depth, bias)], layers=depth, bias=bias)
            for depth in _DEPTHS
            for bias in _BIAS_NAMES
        ),
    ]


def _frame_distance(results: Results, row: pd.Series) -> float:
    """Return how far a minimiser is from the paper's frame: orthogonal, or simplex ETF with bias.

    The largest distance of the three matrices.
    """
    k = int(row["num_classes"])
    frame = simplex_etf(k) if row["bias"] == "free" else orthogonal_frame(k)
    return max(
        normalized_distance(results.array(row, part), getattr(frame, part))
        for part in ("classifier", "means", "logits")
    )


def _judge_balanced_ufm(results: Results) -> list[Verdict]:
    theory = results.select(what="theory")
    worst = max(_frame_distance(theory, row) for _, row in theory.rows.iterrows())
    gap = float((theory.rows["gap"] / theory.rows["objective"]).max())
    certified = bool((theory.rows["status"] == "optimal").all())
    verdicts = [
        verdict(
            worst < 1e-6 and certified,
            criterion="W Wᵀ, H̄ᵀH̄ and W H̄ of every certified minimiser are within 1e-6 of an "
            "orthogonal frame (no bias) or a simplex ETF (last-layer bias)",
            claimed="global minimisers form an orthogonal frame without bias and a simplex ETF "
            "with a last-layer bias, for any number of linear layers",
            predicted=0.0,
            measured=worst,
            tolerance=1e-6,
            sentence=f"The {len(theory.rows)} certified minimisers (relative gap at most {gap:.1g})"
            f" are within {worst:.1g} of the claimed frames.",
        )
    ]
    for bias, name in _BIAS_NAMES.items():
        frame = "simplex ETF" if bias == "free" else "orthogonal frame"
        part = results.select(what="UFM", bias=bias)
        claim = f"with {name}, NC1 and the distances to the {frame} fall to near 0"
        verdicts.append(_judge_collapse(part, "UFM", claim, f"UFM, {name}"))
    return verdicts


def _draw_balanced_ufm(results: Results) -> list[Panel]:
    part = results.select(what="UFM")
    return [*_collapse_charts(part, "UFM", "iteration"), _final_table(part, "UFM, end of training")]


# -- balanced: networks ----------------------------------------------------------------------------

_CIFAR = "5000x10"
_WIDTHS = (512, 1024, 2048)


def _balanced_network_tasks(scale: str) -> list[Task]:
    counts = _CIFAR if scale == "paper" else "100x10"
    setting = _paper_setting(counts, 1e-4, 128, 50_000)
    tasks = [
        _theory([_network_problem(counts, setting, depth, bias)], layers=depth, bias=bias)
        for depth in _DEPTHS
        for bias in _BIAS_NAMES
    ]
    # Twenty epochs are too few for more than three linear layers.
    depths = _DEPTHS[:2] if scale == "smoke" else _DEPTHS
    for depth in depths:
        for bias in _BIAS_NAMES:
            for name, own, more in _backbones(scale, setting):
                labels = {"layers": depth, "bias": bias, "network": name}
                given = {"depth": depth, "bias": bias, **more}
                tasks.append(_network(scale, counts, own, given, **labels))
    return tasks


def _network_problem(
    counts: str, setting: Sequence[float], depth: int, bias: str = "none", dim: int | None = None
) -> dict[str, Any]:
    weight_decay, feature_decay = setting
    problem = Problem(
        counts,
        "mse",
        weight_decay=weight_decay,
        feature_decay=feature_decay,
        depth=depth,
        bias=bias,
        dim=dim,
    )
    return problem.to_dict()


def _backbones(
    scale: str, setting: Sequence[float]
) -> Iterator[tuple[str, Sequence[float], dict[str, Any]]]:
    """Yield name, decays and options of the networks."""
    if scale != "paper":
        yield "MLP", setting, {}
        return
    for width in _WIDTHS:
        more = {"hidden": [width] * 6, "feature_dim": width}
        yield f"MLP, width {width}", setting, {**more, "network_options": {"batch_norm": True}}
    # These decay all parameters, of a mean over entries: 2 / K of our loss. SGD sees the factor.
    scaled = [1e-4 * 10 / 2, setting[1]]
    sgd = {"optimizer": "sgd", "momentum": 0.9, "lr": 1e-3 * 2 / 10, "decay_on": "all"}
    for network in ("resnet18", "vgg13"):
        yield network, scaled, {"network": network, "hidden": [256, 256], "feature_dim": 512, **sgd}


def _judge_balanced_networks(results: Results) -> list[Verdict]:
    verdicts = []
    for bias, name in _BIAS_NAMES.items():
        frame = "simplex ETF" if bias == "free" else "orthogonal frame"
        part = results.select(what="network", bias=bias)
        claim = f"networks with {name}: NC1 and the distances to the {frame} fall to near 0"
        verdicts.append(_judge_collapse(part, "network", claim, f"{_title(results)}, {name}"))
    return verdicts


def _title(results: Results) -> str:
    return _NETWORKS[results.scale]


def _draw_balanced_networks(results: Results) -> list[Panel]:
    part = results.select(what="network")
    table = _final_table(part, f"{_title(results)}, end of training")
    return [*_collapse_charts(part, _title(results), "epoch"), table]


# -- imbalanced: general orthogonal frames ---------------------------------------------------------

_IMBALANCED = "200,100,50x2"
_IMBALANCED_CIFAR = "100x2,200x2,300x2,400x2,500x2"


def gof_lengths(
    counts: ArrayLike, depth: int, weight_decay: float, feature_decay: float
) -> tuple[Array, Array, Array]:
    """Return the general orthogonal frame by the paper's formula: MSE, no bias, any counts.

    For every class x is the larger root of ``b / n = M x^{M-1} / (x^M + 1)^2`` with
    ``b = M N (N weight_decay^M feature_decay)^{1/M}``, and ``W H = x^M / (x^M + 1)``; the class
    vanishes unless ``b / n < (M-1)^{(M-1)/M} / M`` (Dang et al. 2023 and their code).

    Parameters
    ----------
    counts : array_like, shape (K,)
    depth : int
        Number M of linear layers.
    weight_decay, feature_decay : float

    Returns
    -------
    classifier, means, logits : ndarray, shape (K,)
        Diagonals of ``W W^T``, ``H^T H`` (class means) and ``W H``; all else is zero.
    """
    n = np.asarray(counts, dtype=np.float64)
    m, total = depth, float(n.sum())
    shrinkage = total * feature_decay
    b = m * total * (total * weight_decay**m * feature_decay) ** (1 / m)
    limit = (m - 1) ** ((m - 1) / m) / m
    squares = np.array([_root(float(b / one), m) ** m if b / one < limit else 0.0 for one in n])
    classifier = shrinkage * squares  # s^{2M}
    return classifier, classifier / (classifier + shrinkage) ** 2, squares / (squares + 1)


def _root(ratio: float, m: int) -> float:
    """Return the larger root of ``M x^{M-1} / (x^M + 1)^2 = ratio``; there are two."""
    peak = ((m - 1) / (m + 1)) ** (1 / m)

    def excess(x: float) -> float:
        return m * x ** (m - 1) / (x**m + 1) ** 2 - ratio

    high = max(2 * peak, 1.0)
    while excess(high) > 0:
        high *= 2
    return float(brentq(excess, peak, high, xtol=1e-15, rtol=1e-14))


def _imbalanced_problem(depth: int) -> dict[str, Any]:
    return _mse(_IMBALANCED, _SYNTHETIC_DECAY, depth)


def _imbalanced_ufm_tasks(scale: str) -> list[Task]:
    return [
        _theory([_imbalanced_problem(depth) for depth in _IMBALANCED_DEPTHS]),
        *(
            _ufm(scale, [_imbalanced_problem(depth)], layers=depth, bias="none")
            for depth in _IMBALANCED_DEPTHS
        ),
    ]


def _lengths(row: pd.Series) -> dict[str, Array]:
    """Return the paper's lengths for a row's problem, by the names of its arrays."""
    counts = Problem(row["counts"], **_ANY).counts
    found = gof_lengths(counts, int(row["depth"]), row["weight_decay"], row["feature_decay"])
    return dict(zip(("classifier", "means", "logits"), found, strict=True))


def _length_error(part: Results) -> float:
    """Return how far matrices are from the paper's diagonal ones, over the largest entry."""
    worst = 0.0
    for _, row in part.rows.iterrows():
        for name, expected in _lengths(row).items():
            error = np.abs(part.array(row, name) - np.diag(expected)).max() / expected.max()
            worst = max(worst, float(error))
    return worst


def _judge_lengths(part: Results, tolerance: float, what: str) -> Verdict:
    worst = _length_error(part)
    holds = worst < tolerance and not len(part.failed)
    outcome = _unfinished(holds, part.scale, part.rows)
    return verdict(
        outcome,
        criterion="every entry of W Wᵀ, H̄ᵀH̄ and W H̄ is within "
        f"{tolerance:g} of the largest from the diagonal matrices of the paper's formula",
        claimed="minimisers are general orthogonal frames whose lengths follow from the counts",
        predicted=0.0,
        measured=worst,
        tolerance=tolerance,
        sentence=f"{what}: entries differ from the formula's by at most {worst:.1g} of the largest"
        + ("; not converged yet." if outcome is None else "."),
    )


def _judge_imbalanced_ufm(results: Results) -> list[Verdict]:
    theory, part = results.select(what="theory"), results.select(what="UFM")
    claim = "NC1 and the distances to the general orthogonal frame fall to near 0"
    return [
        _judge_lengths(theory, 1e-6, "Certified minimisers"),
        _judge_lengths(part, _UFM_LIMIT, "UFM"),
        _judge_collapse(part, "UFM", claim, "UFM"),
    ]


def _length_table(part: Results, title: str) -> Table:
    """Put predicted and measured squared lengths side by side, of the first seed."""
    lines: list[list[Any]] = []
    rows = part.rows
    if len(rows):
        for _, row in rows.drop_duplicates("depth").iterrows():
            problem = Problem(row["counts"], **_ANY)
            expected = _lengths(row)
            found = {name: np.diagonal(part.array(row, name)) for name in expected}
            for g, group in enumerate(problem.groups):
                members = problem.class_groups == g
                line: list[Any] = [int(row["depth"]), group.count]
                for name, values in expected.items():
                    line += [float(values[members].mean()), float(found[name][members].mean())]
                lines.append(line)
    columns = ["M", "samples"]
    for name in ("|w|²", "|h|²", "w·h"):
        columns += [f"{name} predicted", f"{name} measured"]
    return Table(title, columns, lines, "Means over the classes with so many samples.")


def _diagonal_maps(part: Results, title: str) -> HeatMaps:
    maps: list[Matrix] = []
    borders: list[float] = []
    rows = part.rows
    if len(rows):
        chosen = rows.drop_duplicates("depth").sort_values("depth")
        for _, row in chosen.iterrows():
            gram = part.array(row, "classifier")
            maps.append(Matrix(f"M = {int(row['depth'])}", gram / np.abs(gram).max()))
        borders = block_borders(Problem(rows["counts"].iloc[0], **_ANY).counts)
    return HeatMaps(title, maps, "class", "class", borders, 1.0)


def _draw_imbalanced_ufm(results: Results) -> list[Panel]:
    part = results.select(what="UFM")
    return [
        *_collapse_charts(part, "UFM", "iteration"),
        _length_table(part, "Squared lengths, the paper's formula and the trained UFM"),
        _diagonal_maps(part, "W Wᵀ of the trained UFM over its largest entry"),
    ]


def _imbalanced_network_tasks(scale: str) -> list[Task]:
    counts = _IMBALANCED_CIFAR if scale == "paper" else "20x2,40x2,60x2,80x2,100x2"
    # The code takes all 3000 samples in one batch.
    setting = _paper_setting(counts, 1e-5, 3000, 3000)
    tasks = [_theory([_network_problem(counts, setting, depth) for depth in _IMBALANCED_DEPTHS])]
    more: dict[str, Any] = {}
    if scale == "cpu":
        more = {"epochs": 900, "warmup_epochs": 450, "measure_every": 30}
    if scale == "paper":
        more = {"batch_size": None, "epochs": 12_000, "milestones": [6000], "measure_every": 200}
    for depth in _IMBALANCED_DEPTHS[:2] if scale == "smoke" else _IMBALANCED_DEPTHS:
        tasks.append(_network(scale, counts, setting, {"depth": depth, **more}, layers=depth))
    return tasks


def _judge_imbalanced_networks(results: Results) -> list[Verdict]:
    part = results.select(what="network")
    rows = part.rows
    claim = "networks: NC1 and the distances to the general orthogonal frame fall to near 0"
    verdicts = [_judge_collapse(part, "network", claim, _title(results))]
    gof = rows[["classifier_to_predicted", "means_to_predicted"]].to_numpy()
    frame = np.array(
        [
            [
                normalized_distance(part.array(row, name), np.eye(int(row["num_classes"])))
                for name in ("classifier", "means")
            ]
            for _, row in rows.iterrows()
        ]
    )
    ratio = float((gof / frame).max())
    smoke = results.scale == "smoke"
    holds = ratio < 0.5 and not len(part.failed)
    verdicts.append(
        verdict(
            None if smoke else holds,
            criterion="W Wᵀ and H̄ᵀH̄ of every network are less than half as far from the general "
            "orthogonal frame of the counts as from the frame of equal lengths",
            claimed="lengths depend on the number of samples: larger classes have longer "
            "classifier rows",
            predicted=0.0,
            measured=ratio,
            tolerance=0.5,
            sentence=f"{_title(results)}: the distance to the predicted frame is at most "
            f"{ratio:.2g} of that to an orthogonal frame of equal lengths"
            + (", after a short training." if smoke else "."),
        )
    )
    return verdicts


def _draw_imbalanced_networks(results: Results) -> list[Panel]:
    part = results.select(what="network")
    return [
        *_collapse_charts(part, _title(results), "epoch"),
        _final_table(part, f"{_title(results)}, end of training"),
        _length_table(part, f"Squared lengths, the paper's formula and {_title(results)}"),
    ]


# -- thresholds ------------------------------------------------------------------------------------

_THRESHOLD_DEPTHS = (1, 2, 3)
_DECAYS = [round(float(decay), 6) for decay in np.geomspace(0.01, 0.045, 12)]

#: Networks on digits: three sizes of classes, whose thresholds with one layer lie in the grid.
_SMALL_COUNTS = "100x4,50x3,25x3"
_SMALL_DECAYS = [round(float(decay), 6) for decay in np.geomspace(0.006, 0.02, 8)]


def _threshold_tasks(scale: str) -> list[Task]:
    tasks = []
    for depth in _THRESHOLD_DEPTHS:
        problems = [_mse(_IMBALANCED, decay, depth) for decay in _DECAYS]
        tasks.append(_theory(problems, layers=depth))
        options = {"per_sample": False}
        tasks.append(_ufm(scale, problems, options=options, layers=depth))
    for decay in _SMALL_DECAYS[2::4] if scale == "smoke" else _SMALL_DECAYS:
        # One layer, where only the product of the decays matters; this ratio trains well.
        setting = [float(f"{10 * decay:.8g}"), float(f"{decay / 10:.8g}")]
        tasks.append(_network(scale, _SMALL_COUNTS, setting, _small(scale), layers=1))
    return tasks


def local_minimum_ends(count: float, depth: int, num_samples: int) -> float:
    """Return the geometric mean decay from which on only zero is a local minimum of a class.

    With several layers a class has a local minimum beyond its threshold too, as long as
    ``(sqrt(n) - s) s^{(M-1)/(M+1)} = N mu`` has a root s > 0: up to the left side's peak. With one
    layer that is the threshold.
    """
    p = (depth - 1) / (depth + 1)
    peak = math.sqrt(count) * p / (1 + p)
    height: float = (math.sqrt(count) - peak) * peak**p / num_samples
    return height


def _own_logits(part: Results) -> pd.DataFrame:
    """Return a line for every row and group: decay, the group's mean own logit, its threshold."""
    lines = []
    for _, row in part.rows.iterrows():
        problem = Problem(row["counts"], **_ANY)
        diagonal = np.diagonal(part.array(row, "logits"))
        for g, group in enumerate(problem.groups):
            own = diagonal[problem.class_groups == g]
            lines.append(
                {
                    "lambda": row["lambda"],
                    "group": g,
                    "count": group.count,
                    "own": float(own.mean()),
                    # A class of the group that is left counts.
                    "largest": float(own.max()),
                    "threshold": row[f"group{g}_threshold"],
                    "seed": row.get("seed", 0),
                }
            )
    return pd.DataFrame(lines)


def _steps_off(lines: pd.DataFrame) -> dict[int, int]:
    """Return for every count by how many grid points the switch is off; positive: late."""
    off = {}
    for count, group in lines.groupby("count", sort=False):
        table = group.groupby("lambda")["largest"].max().sort_index()
        left = np.flatnonzero(table.to_numpy() >= VANISHED)
        switch = int(left[-1]) + 1 if len(left) else 0
        expected = int((table.index.to_numpy() < group["threshold"].iloc[0]).sum())
        off[int(str(count))] = switch - expected
    return off


def _judge_switch(part: Results, what: str, depth: int, sentence: str = "") -> Verdict:
    lines = _own_logits(part)
    off = _steps_off(lines)
    worst = max(off.values(), key=abs)
    smoke_network = part.scale == "smoke" and "MLP" in what
    holds = _unfinished(abs(worst) <= 1 and not len(part.failed), part.scale, part.rows)
    found = ", ".join(f"{steps:+d} (n = {count})" for count, steps in off.items())
    levels = lines.drop_duplicates("count")
    predicted = ", ".join(f"{t:.4g}" for t in levels["threshold"])
    return verdict(
        None if smoke_network else holds,
        criterion="for every count, the decay from which on its classes' own logits are below "
        f"{VANISHED} is within one grid step of the predicted threshold",
        claimed="a class vanishes exactly when c_M n^{M/(M+1)} / N ≤ the decays' geometric mean",
        predicted=predicted,
        measured=f"grid steps off: {found}",
        tolerance="1 grid step",
        sentence=f"{what}, M = {depth}: the switch is off by {found} grid steps."
        + (" Too few points and too short a training to decide." if smoke_network else sentence),
    )


def _judge_thresholds(results: Results) -> list[Verdict]:
    verdicts = [_judge_certified_switch(results.select(what="theory"))]
    for depth in _THRESHOLD_DEPTHS:
        part = results.select(what="UFM", layers=depth)
        verdicts.append(_judge_switch(part, "UFM", depth, _beyond(part) if depth > 1 else ""))
    verdicts.append(_judge_switch(results.select(what="network"), "MLP on digits", 1))
    return verdicts


def _judge_certified_switch(theory: Results) -> Verdict:
    lines = _own_logits(theory)
    wrong = (lines["own"] > 0) != (lines["lambda"] < lines["threshold"])
    certified = bool((theory.rows["status"] == "optimal").all())
    return verdict(
        not wrong.any() and certified,
        criterion="in every certified minimiser exactly the classes below their threshold are left",
        claimed="a class vanishes exactly when c_M n^{M/(M+1)} / N ≤ the decays' geometric mean",
        predicted=0.0,
        measured=float(wrong.sum()),
        tolerance=0.0,
        sentence=f"{int(wrong.sum())} of {len(lines)} classes (by count, depth and decay) are not "
        "as the threshold says.",
    )


def _beyond(part: Results) -> str:
    """Say where runs ended above the certified minimum, and whether that is a local minimum."""
    rows = part.rows
    above = int((rows["excess"] > 1e-4 * rows["predicted_objective"]).sum())
    depth, total = int(rows["depth"].iloc[0]), int(rows["num_samples"].iloc[0])
    lines = _own_logits(part)
    ends = np.array([local_minimum_ends(n, depth, total) for n in lines["count"]])
    survivors = lines["largest"] >= VANISHED
    outside = int((survivors & (lines["lambda"] >= ends)).sum())
    return (
        f" {above} of {len(rows)} runs end in a local minimum above the certified one: with several"
        f" layers a class can stay, or be lost, on either side of its threshold; {outside} stay "
        "where not even a local minimum is left."
    )


def _draw_thresholds(results: Results) -> list[Panel]:
    panels: list[Panel] = []
    for depth in _THRESHOLD_DEPTHS:
        theory = results.select(what="theory", layers=depth)
        measured = results.select(what="UFM", layers=depth)
        panels.append(_threshold_chart(theory, measured, f"UFM, M = {depth}", _IMBALANCED))
    networks = results.select(what="network")
    chart = _threshold_chart(networks, networks, "MLP on digits, M = 1", _SMALL_COUNTS)
    return [*panels, chart, _switch_table(results)]


def _threshold_chart(theory: Results, measured: Results, title: str, counts: str) -> Chart:
    """Draw own logits over the decays: minimisers dashed, runs as points, thresholds marked."""
    curves, marks = [], []
    predicted = _own_logits(theory) if len(theory.rows) else pd.DataFrame()
    found = _own_logits(measured) if len(measured.rows) else pd.DataFrame()
    if theory is measured and len(predicted):
        levels = [
            np.diagonal(theory.array(row, "predicted_logits")) for _, row in theory.rows.iterrows()
        ]
        groups = Problem(counts, **_ANY).class_groups
        predicted["own"] = [
            float(level[groups == g].mean()) for level in levels for g in range(groups.max() + 1)
        ]
    for g, group in enumerate(Problem(counts, **_ANY).groups):
        if len(predicted):
            line = predicted[predicted["group"] == g].sort_values("lambda")
            marks.append(Mark(float(line["threshold"].iloc[0]), f"n = {group.count}", color=g))
            x, y = list(line["lambda"]), list(line["own"])
            curves.append(Curve(f"n = {group.count}", x, y, g, "dashed"))
        if len(found):
            line = found[found["group"] == g].sort_values("lambda")
            x, y = list(line["lambda"]), list(line["own"])
            curves.append(Curve("", x, y, g, "points"))
    label = "geometric mean of the decays"
    note = "Dashed: the certified minimiser. Points: trained. Vertical: the predicted threshold."
    return Chart(title, label, "own mean logit", curves, marks, log_x=True, note=note)


def _switch_table(results: Results) -> Table:
    """List thresholds, where local minima end, and the largest decay at which classes are left."""
    lines: list[list[Any]] = []
    for what, name in (("UFM", "UFM"), ("network", "MLP on digits")):
        for depth in _THRESHOLD_DEPTHS:
            part = results.select(what=what, layers=depth)
            if not len(part.rows):
                continue
            total = int(part.rows["num_samples"].iloc[0])
            for count, group in _own_logits(part).groupby("count", sort=False):
                n = int(str(count))
                left = group.loc[group["largest"] >= VANISHED, "lambda"]
                line = [float(group["threshold"].iloc[0]), local_minimum_ends(n, depth, total)]
                last = float(left.max()) if len(left) else None
                lines.append([name, depth, n, *line, last])
    columns = ["", "M", "samples", "threshold", "local minimum ends", "last decay left"]
    note = "Of all seeds; decays are those of the grid."
    return Table("Thresholds and the largest decay at which a class is left", columns, lines, note)


# -- rank-deficient --------------------------------------------------------------------------------

_RANK_COUNTS = "300,250,200,150,100,50"
_RANK_DIMS = (2, 4)
_RANK_DEPTHS = (1, 3)
_RANK_BALANCED = "100x4"
_RANK_NETWORK = "140,126,112,98,84,70,56,42,28,14"
_RANK_NETWORK_DIM = 4
_RANK_SETTINGS = {1: (1e-2, 1e-4), 3: (2e-3, 2e-5)}


def _rank_tasks(scale: str) -> list[Task]:
    tasks = []
    steps = {"schedule": [[300, 5.0], [600, 10.0]], "iterations": 2000} if scale == "smoke" else {}
    for dim in _RANK_DIMS:
        problems = [_mse(_RANK_COUNTS, _SYNTHETIC_DECAY, depth, dim=dim) for depth in _RANK_DEPTHS]
        tasks.append(_theory(problems, classes="distinct", width=dim))
        tasks.append(_ufm(scale, problems, dim, steps, classes="distinct", width=dim))
    balanced = [
        _balanced_problem(depth, bias, dim=2) for depth in _RANK_DEPTHS for bias in _BIAS_NAMES
    ]
    tasks.append(_theory(balanced, classes="balanced", width=2))
    tasks.append(_ufm(scale, balanced, 2, steps, classes="balanced", width=2))
    for depth, setting in _RANK_SETTINGS.items():
        # The prediction comes with the network's own rows.
        more = {**_small(scale), "feature_dim": _RANK_NETWORK_DIM, "depth": depth}
        tasks.append(
            _network(scale, _RANK_NETWORK, setting, more, classes="distinct", layers=depth)
        )
    return tasks


def dropped(logits: ArrayLike) -> list[int]:
    """Return the classes whose own mean logit has vanished (below `VANISHED`)."""
    return [int(k) for k in np.flatnonzero(np.diagonal(np.asarray(logits)) < VANISHED)]


def _smallest(row: pd.Series) -> list[int]:
    """Return the K - d classes with the fewest samples, which the paper says are dropped."""
    counts = Problem(row["counts"], **_ANY).counts
    return sorted(np.argsort(counts)[: len(counts) - int(row["dim"])].tolist())


def _judge_drops(part: Results, what: str, depth: int | None = None) -> Verdict:
    rows = part.rows if depth is None else part.rows[part.rows["depth"] == depth]
    sentence = what if depth is None else f"{what}, M = {depth}"
    wrong = [dropped(part.array(row, "logits")) != _smallest(row) for _, row in rows.iterrows()]
    smoke_network = part.scale == "smoke" and "MLP" in what
    outcome = _unfinished(not any(wrong) and not len(part.failed), part.scale, rows)
    return verdict(
        None if smoke_network else outcome,
        criterion="in every run exactly the K - d classes with the fewest samples have own mean "
        f"logits below {VANISHED}",
        claimed="with d < K the classes with the fewest samples are dropped",
        predicted=0.0,
        measured=float(sum(wrong)),
        tolerance=0.0,
        sentence=f"{sentence}: other classes than the smallest are dropped in {sum(wrong)} of "
        f"{len(rows)} cases"
        + (", after a short training." if smoke_network else _above(rows, any(wrong))),
    )


def _above(rows: pd.DataFrame, any_wrong: bool) -> str:
    """Say how many runs ended above the certified minimum, where that explains something."""
    if not any_wrong or "excess" not in rows:
        return "."
    above = int((rows["excess"] > 1e-4 * rows["predicted_objective"]).sum())
    few = int((rows["rank"] < rows["dim"]).sum())
    return f"; {above} runs end above the certified minimum, {few} with fewer classes than d left."


def projector_distance(part: Results, row: pd.Series, name: str) -> float:
    """Return how far a matrix is from the nearest rank-d projector, up to scale.

    With a bias the projector is orthogonal to the ones: a best rank-d approximation of the simplex
    ETF, else of the identity. Which one a minimiser takes is arbitrary, so distance to any counts.
    """
    matrix = part.array(row, name)
    k, d = len(matrix), int(row["dim"])
    inside = np.eye(k) - 1 / k if row["bias"] == "free" else np.eye(k)
    values, vectors = np.linalg.eigh(inside @ (matrix + matrix.T) @ inside)
    top = vectors[:, np.argsort(values)[-d:]]
    return normalized_distance(matrix, top @ top.T)


def _judge_rank(results: Results) -> list[Verdict]:
    theory, ufm = results.select(what="theory"), results.select(what="UFM")
    return [
        _judge_drops(theory.select(classes="distinct"), "Certified minimisers"),
        *(_judge_drops(ufm.select(classes="distinct"), "UFM", depth) for depth in _RANK_DEPTHS),
        _judge_approximation(theory.select(classes="balanced"), "Certified minimisers", 1e-6),
        *(
            _judge_approximation(ufm.select(classes="balanced"), "UFM", _UFM_LIMIT, depth)
            for depth in _RANK_DEPTHS
        ),
        _judge_drops(results.select(what="network"), "MLP on digits"),
    ]


def _judge_approximation(
    part: Results, what: str, tolerance: float, depth: int | None = None
) -> Verdict:
    rows = part.rows if depth is None else part.rows[part.rows["depth"] == depth]
    name = what if depth is None else f"{what}, M = {depth}"
    away = [
        max(projector_distance(part, row, matrix) for matrix in ("classifier", "logits"))
        for _, row in rows.iterrows()
    ]
    worst, wrong = max(away), sum(value >= tolerance for value in away)
    outcome = _unfinished(wrong == 0 and not len(part.failed), part.scale, rows)
    return verdict(
        outcome,
        criterion=f"with balanced classes W Wᵀ and W H̄ are within {tolerance:g} of a rank-d "
        "projector (orthogonal to the ones with a bias)",
        claimed="with d below the frame's rank: its best rank-d approximation",
        predicted=0.0,
        measured=worst,
        tolerance=tolerance,
        sentence=f"{name}: {wrong} of {len(rows)} cases are not a best rank-2 approximation of the "
        f"frame, the worst at distance {worst:.1g}" + _above(rows, wrong > 0),
    )


def _draw_rank(results: Results) -> list[Panel]:
    panels: list[Panel] = []
    for what, name in (("UFM", "UFM"), ("network", "MLP on digits")):
        part = results.select(what=what, classes="distinct")
        rows = part.rows
        curves: list[Curve] = []
        if len(rows):
            chosen = rows.drop_duplicates(["dim", "depth"])
            for color, (_, row) in enumerate(chosen.iterrows()):
                counts = [float(n) for n in Problem(row["counts"], **_ANY).counts]
                label = f"d = {int(row['dim'])}, M = {int(row['depth'])}"
                predicted = np.diagonal(part.array(row, "predicted_logits")).tolist()
                measured = np.diagonal(part.array(row, "logits")).tolist()
                curves.append(Curve(f"{label}, minimiser", counts, predicted, color, "dashed"))
                curves.append(Curve(f"{label}, trained", counts, measured, color, "points"))
        title = f"{name}: which classes are left"
        panels.append(Chart(title, "samples of the class", "own mean logit", curves))
    part = results.select(what="UFM", classes="balanced")
    maps: list[Matrix] = []
    if len(part.rows):
        for _, row in part.rows.drop_duplicates(["depth", "bias"]).iterrows():
            gram = part.array(row, "classifier")
            title = f"M = {int(row['depth'])}, {_BIAS_NAMES[row['bias']]}"
            maps.append(Matrix(title, gram / np.trace(gram)))
    title = "W Wᵀ over its trace, 4 balanced classes in 2 dimensions"
    note = "Which approximation a run takes is arbitrary."
    return [*panels, HeatMaps(title, maps, "class", "class", note=note)]


# -- deep cross-entropy ----------------------------------------------------------------------------

#: Classes, linear layers and decays (weights, features) with ten samples a class.
_CE_POINTS = (
    (4, 1, 3e-3, 3e-4),
    (4, 2, 3e-3, 3e-4),
    (4, 2, 2e-3, 2e-3),
    (4, 3, 3e-3, 3e-4),
    (6, 2, 3e-3, 3e-4),
    (6, 3, 1e-3, 1e-3),
    (10, 2, 3e-3, 3e-4),
    (10, 3, 5e-4, 5e-4),
)

#: Those left out at scale smoke.
_CE_LONG = (1, 6)


def _ce_problem(point: Sequence[Any], bias: str = "none", *, equal: bool = False) -> Problem:
    """Return the problem of a point; with equal decays the logits are the same."""
    classes, depth, weight_decay, feature_decay = point
    problem = Problem(
        f"10x{classes}",
        weight_decay=weight_decay,
        feature_decay=feature_decay,
        depth=depth,
        bias=bias,
    )
    if not equal:
        return problem
    return problem.replace(weight_decay=problem.mean_decay, feature_decay=problem.mean_decay)


def _ce_tasks(scale: str) -> list[Task]:
    tasks = []
    smoke = scale == "smoke"
    options: dict[str, Any] = {"per_sample": False, "lr": 0.1, "iterations": 40_000}
    options |= {"schedule": [[1000, 5.0]], "seeds": list(range(8)), "records": 40}
    if smoke:
        options |= {"schedule": [[300, 5.0]], "lr": 0.2, "iterations": 1500, "seeds": [0, 1, 2]}
    for i, point in enumerate(_CE_POINTS):
        if smoke and i in _CE_LONG:
            continue
        own = {"point": i, "classes": point[0], "layers": point[1]}
        # What is not asked for at scale smoke would take most of the time there.
        for bias in _BIAS_NAMES if not smoke or point[0] == 4 else ("none",):
            problems = [_ce_problem(point, bias).to_dict()]
            search = {} if smoke else {"starts": 16}
            arguments = {"problems": problems, "arrays": True, **search}
            tasks.append(Task("solve", arguments, {"what": "theory", "bias": bias, **own}))
        if not smoke or point[0] < 10:
            equal = [_ce_problem(point, equal=True).to_dict()]
            tasks.append(_ufm(scale, equal, 2 * point[0], options, **own))
    return tasks


def explicit_losses(problem: Problem, logits: ArrayLike, bias: ArrayLike) -> tuple[float, float]:
    """Return the objective of logits and of the best simplex ETF, as actual layers and features.

    The layers and features with these logits that cost least are made and put into the objective
    as it is written; nothing of a solver is used. For the ETF ``m (I - 11^T/K)`` the length m is
    searched for; a bias is constant there, by symmetry, and changes nothing.

    Parameters
    ----------
    problem : Problem
        Balanced, real features.
    logits : array_like, shape (K, K)
        Column k holds the samples of class k.
    bias : array_like, shape (K,)

    Returns
    -------
    point, etf : float
        An upper bound of the minimum, and the least loss that a simplex ETF has.
    """
    frame = simplex_etf(problem.num_classes).logits
    none = np.zeros(problem.num_classes)
    lengths = np.linspace(0.0, 60.0, 241)  # the loss may have two minima, one at zero
    losses = [_explicit(problem, m * frame, none) for m in lengths]
    best = int(np.argmin(losses))
    around = (lengths[max(best - 1, 0)], lengths[min(best + 1, 240)])
    found = minimize_scalar(
        lambda m: _explicit(problem, m * frame, none),
        bounds=around,
        method="bounded",
        options={"xatol": 1e-9},
    )
    etf = min(float(found.fun), losses[best])
    return _explicit(problem, np.asarray(logits), np.asarray(bias)), etf


def _explicit(problem: Problem, logits: Array, bias: Array) -> float:
    weights, means = balanced_factors(problem, logits)
    labels = np.repeat(np.arange(problem.num_classes), problem.counts)
    return factored_objective(problem, weights, means.T[labels], labels, bias)


def _refuted(classes: int, layers: int) -> bool:
    """Return whether Garrod & Keating (2024, arXiv 2410.23169, Thm 1) exclude the ETF."""
    return (classes >= 4 and layers >= 3) or (classes >= 6 and layers == 2)


def _losses(results: Results) -> pd.DataFrame:
    """Return a line for every point and bias: the ETF's loss, the best one's, by two ways each."""
    lines = []
    theory = results.select(what="theory")
    for _, row in theory.rows.iterrows():
        point = _CE_POINTS[int(row["point"])]
        problem = _ce_problem(point, row["bias"])
        best, etf = explicit_losses(problem, theory.array(row, "logits"), theory.array(row, "bias"))
        single = point[1] == 1
        lines.append(
            {
                "point": int(row["point"]),
                "classes": point[0],
                "layers": point[1],
                "bias": row["bias"],
                "etf": etf,
                # With one layer the minimiser is certified, and an ETF.
                "etf_solved": row["objective"] if single else row["etf_objective"],
                "best": best,
                "best_solved": row["objective"],
                "rank": int(row["rank"]),
                "winner": "ETF (certified)" if single else row["winner"],
                "drop": etf - best,
            }
        )
    return pd.DataFrame(lines).sort_values(["point", "bias"], ascending=[True, False])


def _judge_ce(results: Results) -> list[Verdict]:
    losses = _losses(results)
    drop = losses.iloc[int(np.argmax(losses["drop"]))]
    lower = losses[losses["drop"] > LOSS_TOLERANCE]
    sentence = (
        f"At {len(lower)} of {len(losses)} settings explicit layers and features have a lower loss "
        f"than every simplex ETF, most of all with K = {drop['classes']}, M = {drop['layers']}: "
        f"{drop['best']:.6f} at rank {drop['rank']} against {drop['etf']:.6f}."
    )
    verdicts = [
        verdict(
            not len(lower),
            criterion=f"no point has a loss more than {LOSS_TOLERANCE:g} below the best simplex "
            "ETF's, evaluated as layers and features",
            claimed="with cross-entropy, global minimisers of deep linear networks are simplex "
            "ETFs across the layers",
            predicted=float(drop["best"]),
            measured=float(drop["drop"]),
            tolerance=LOSS_TOLERANCE,
            sentence=sentence,
        ),
        _judge_refutation(losses),
    ]
    return [*verdicts, _judge_single(results), *_judge_ce_descent(results, losses)]


def _judge_refutation(losses: pd.DataFrame) -> Verdict:
    """Judge the later theorem against the same losses, and whether two ways to them agree."""
    errors = [
        float((losses["etf"] - losses["etf_solved"]).abs().max(skipna=False)),
        float((losses["best"] - losses["best_solved"]).abs().max(skipna=False)),
    ]
    excluded = losses.apply(lambda line: _refuted(line["classes"], line["layers"]), axis=1)
    beaten = losses["drop"] > LOSS_TOLERANCE
    missing = int((excluded & ~beaten).sum())
    others = int((~excluded & beaten).sum())
    worst = max(errors)
    return verdict(
        missing == 0 and others == 0 and worst < LOSS_TOLERANCE,
        criterion="the ETF is beaten where K >= 4, M >= 3 or K >= 6, M = 2, and nowhere else; the "
        f"losses of tightframe.solve and of explicit factors agree to {LOSS_TOLERANCE:g}",
        claimed="Garrod & Keating 2024, Thm 1: there no simplex ETF is a global minimiser",
        predicted=0.0,
        measured=worst,
        tolerance=LOSS_TOLERANCE,
        sentence=f"The ETF is beaten at {int((excluded & beaten).sum())} of {int(excluded.sum())} "
        f"settings that the theorem excludes and at {others} of {int((~excluded).sum())} others; "
        f"losses agree to {worst:.1g}.",
    )


def _judge_single(results: Results) -> Verdict:
    part = results.select(what="theory", layers=1)
    frame = simplex_etf(4).logits
    worst = max(
        normalized_distance(part.array(row, "logits"), frame) for _, row in part.rows.iterrows()
    )
    gap = float((part.rows["gap"] / part.rows["objective"]).max())
    certified = bool((part.rows["status"] == "optimal").all())
    return verdict(
        worst < 1e-6 and certified,
        criterion="with one layer the certified minimiser's logits are within 1e-6 of a simplex "
        "ETF's",
        claimed="with cross-entropy and one layer the minimiser is a simplex ETF",
        predicted=0.0,
        measured=worst,
        tolerance=1e-6,
        sentence=f"With one layer the minimiser (relative gap {gap:.1g}) is within {worst:.1g} of "
        "a simplex ETF.",
    )


def _judge_ce_descent(results: Results, losses: pd.DataFrame) -> list[Verdict]:
    rows = results.select(what="UFM").rows
    etf = rows["point"].map(losses.groupby("point")["etf"].min())  # a bias does not change it
    below = etf - rows["objective"]
    deep = rows["layers"] > 1
    many = int((below[deep] > LOSS_TOLERANCE).sum())
    near = int((below[deep].abs() <= LOSS_TOLERANCE).sum())
    single = float(rows.loc[~deep, "logits_to_etf"].max())
    return [
        verdict(
            many == 0,
            criterion="no run of gradient descent with M >= 2 ends with a loss more than "
            f"{LOSS_TOLERANCE:g} below the best simplex ETF's",
            claimed="training ends in a simplex ETF, the global minimiser",
            predicted=0.0,
            measured=float(below[deep].max()),
            tolerance=LOSS_TOLERANCE,
            sentence=f"UFM, M >= 2: {many} of {int(deep.sum())} runs end below the best simplex "
            f"ETF, by up to {float(below[deep].max()):.5f}; {near} end at its loss.",
        ),
        verdict(
            _unfinished(single < _UFM_LIMIT, results.scale, rows[~deep]),
            criterion="with one layer the logits of every run end within "
            f"{_UFM_LIMIT:g} of a simplex ETF's",
            claimed="with one layer training ends in a simplex ETF",
            predicted=0.0,
            measured=single,
            tolerance=_UFM_LIMIT,
            sentence=f"UFM, M = 1: the logits end at most {single:.1g} from a simplex ETF's.",
        ),
    ]


def _point_name(index: int) -> str:
    classes, depth, weight_decay, feature_decay = _CE_POINTS[index]
    decays = f"λ = {weight_decay:g}"
    if weight_decay != feature_decay:
        decays = f"λ_W = {weight_decay:g}, λ_H = {feature_decay:g}"
    return f"K = {classes}, M = {depth}, {decays}"


def _draw_ce(results: Results) -> list[Panel]:
    losses = _losses(results)
    ufm = results.select(what="UFM")
    lines: list[list[Any]] = [
        [
            *_CE_POINTS[line["point"]],
            _BIAS_NAMES[line["bias"]],
            f"{line['etf']:.6f}",
            f"{line['best']:.6f}",
            line["rank"],
            line["winner"],
            f"{max(line['drop'], 0.0):.6f}",
        ]
        for _, line in losses.iterrows()
    ]
    panels: list[Panel] = [
        Table(
            "Losses of the best simplex ETF and of the best point that was found",
            ["K", "M", "λ_W", "λ_H", "bias", "ETF", "best", "rank", "winner", "ETF - best"],
            lines,
            "Both evaluated as layers and features in the objective; rank and winner are those of "
            "the best point. It is an upper bound of the minimum: nothing certifies it for M > 1.",
        )
    ]
    panels.append(_descent_chart(losses, ufm.rows))
    panels.append(_spectrum_chart(results))
    theory = results.select(what="theory", bias="none")
    maps = [
        Matrix(f"{_point_name(int(row['point']))}, rank {int(row['rank'])}", found)
        for _, row in theory.rows.iterrows()
        for found in [theory.array(row, "logits")]
        if row["point"] in (3, 5)
    ]
    panels.append(HeatMaps("Mean logits of two low-rank points", maps))
    return panels


def _descent_chart(losses: pd.DataFrame, rows: pd.DataFrame) -> Chart:
    """Draw every run's loss over the ETF's, beside the best point found."""
    plain = losses[losses["bias"] == "none"]
    curves = [
        Curve(
            "best found by the search",
            [float(p) for p in plain["point"]],
            list(plain["best"] / plain["etf"]),
            "predicted",
            "line+points",
        )
    ]
    if len(rows):
        etf = rows["point"].map(plain.set_index("point")["etf"])
        share = rows["objective"] / etf
        x = [float(p) for p in rows["point"]]
        curves.append(Curve("UFM by gradient descent", x, list(share), "measured", "points"))
    names = "; ".join(f"{i}: {_point_name(i)}" for i in range(len(_CE_POINTS)))
    marks = [Mark(1.0, "best simplex ETF", "y", "etf")]
    title = "Loss of runs over the best simplex ETF's"
    return Chart(title, "setting", "loss / loss of the best ETF", curves, marks, note=names)


def _spectrum_chart(results: Results) -> Chart:
    """Draw the rank of every run beside that of the best point and of the ETF."""
    theory = results.select(what="theory", bias="none").rows.sort_values("point")
    ufm = results.select(what="UFM").rows
    x = [float(p) for p in theory["point"]]
    curves = [
        Curve("best found by the search", x, list(theory["rank"]), "predicted", "line+points"),
        Curve("simplex ETF, K - 1", x, list(theory["num_classes"] - 1), "etf", "dashed"),
    ]
    if len(ufm):
        points = [float(p) for p in ufm["point"]]
        curves.append(
            Curve("UFM by gradient descent", points, list(ufm["rank"]), "measured", "points")
        )
    return Chart("Rank of the mean logits", "setting", "rank", curves)


# -- the paper -------------------------------------------------------------------------------------

_DESCENT_NOTE = (
    "At scales cpu and paper the UFM is trained with the paper's settings (d = 64, N(0, 0.1²), "
    "lr 0.1, momentum 0.9, 30,000 steps, here with three seeds); at scale smoke with d = 16, the "
    "same lengths at the start and larger steps. The partial products of layers are not shown."
)
_NETWORK_NOTE = (
    "At scales smoke and cpu: MLPs on digits with two hidden layers, the decays of the paper's "
    "code converted and moved to the number of samples, and at cpu no decay in the first half of "
    "the training. Heads start with PyTorch's layers, the paper's with orthogonal ones: with the "
    "decays on from the start, six and nine of PyTorch's layers collapse to zero."
)

PAPER = Paper(
    "dang-2023",
    "H. Dang, T. Tran, S. Osher, H. Tran-The, N. Ho and T. Nguyen, Neural Collapse in Deep Linear "
    "Networks: From Balanced to Imbalanced Data, ICML 2023, arXiv 2301.00437",
    "https://arxiv.org/abs/2301.00437",
    [
        Figure(
            "balanced-ufm",
            "Balanced classes, deep linear UFM with MSE",
            "direct optimisation experiment, balanced",
            claim="For any number of linear layers features collapse, and W, H̄ and W H̄ form an "
            "orthogonal frame without bias and a simplex ETF with a last-layer bias.",
            caption="All four metrics fall to numerical zero, for one to nine linear layers, "
            "without bias (solid) and with (dashed).",
            tasks=_balanced_ufm_tasks,
            judge=_judge_balanced_ufm,
            draw=_draw_balanced_ufm,
            note=_DESCENT_NOTE,
        ),
        Figure(
            "balanced-networks",
            "Balanced classes, networks with deep linear heads",
            "multilayer perceptron and deep learning experiments, balanced",
            claim="Networks with one to nine linear layers on top show the same geometry as the "
            "UFM: an orthogonal frame without bias, a simplex ETF with bias.",
            caption="The metrics of the networks over training.",
            tasks=_balanced_network_tasks,
            judge=_judge_balanced_networks,
            draw=_draw_balanced_networks,
            note=_NETWORK_NOTE + " At scale paper VGG13 stands for VGG16, and charts show the MLP "
            "of width 2048; ResNet18 and VGG decay all parameters, as the paper's do.",
        ),
        Figure(
            "imbalanced-ufm",
            "Imbalanced classes, deep linear UFM with MSE: general orthogonal frames",
            "direct optimisation experiment, imbalanced",
            claim="Without bias W Wᵀ, H̄ᵀH̄ and W H̄ are diagonal, with lengths that follow from the "
            "number of samples: larger classes have longer rows of W.",
            caption="The metrics against the general orthogonal frame fall to numerical zero, and "
            "the lengths are those of the paper's formula.",
            tasks=_imbalanced_ufm_tasks,
            judge=_judge_imbalanced_ufm,
            draw=_draw_imbalanced_ufm,
            note=_DESCENT_NOTE,
        ),
        Figure(
            "imbalanced-networks",
            "Imbalanced classes, networks with deep linear heads",
            "multilayer perceptron experiment, imbalanced",
            claim="Networks on imbalanced data converge to the general orthogonal frame of their "
            "counts.",
            caption="The metrics of the networks over training; the table compares lengths.",
            tasks=_imbalanced_network_tasks,
            judge=_judge_imbalanced_networks,
            draw=_draw_imbalanced_networks,
            note=_NETWORK_NOTE + " Counts are a fifth of the paper's.",
        ),
        Figure(
            "thresholds",
            "Which classes vanish",
            "follows from the imbalanced theorems (no figure)",
            claim="A class has zero features and classifier rows when its number of samples is too "
            "small for the decays; with several layers its length jumps to zero.",
            caption="Own logits of the classes over the decays: with one layer they go to zero "
            "continuously, with more they jump at the vertical line.",
            tasks=_threshold_tasks,
            judge=_judge_thresholds,
            draw=_draw_thresholds,
            note="Points beside a jump are runs in a local minimum: zero is one for every class "
            "when M > 1, and the other one outlasts the threshold. The paper's theorem is about "
            "global minimisers.",
        ),
        Figure(
            "rank-deficient",
            "Fewer dimensions than classes",
            "follows from the theorems with d < K (no figure)",
            claim="With d < K the smallest classes are dropped; with balanced classes the geometry "
            "is a best rank-d approximation of the frame.",
            caption="Own logits of the classes: as many of the largest classes as dimensions are "
            "left. The maps show projectors, another one in every run.",
            tasks=_rank_tasks,
            judge=_judge_rank,
            draw=_draw_rank,
            note="Networks: one and three linear layers on four features of an MLP on digits.",
        ),
        Figure(
            "deep-ce",
            "Deep linear networks with cross-entropy: the simplex ETF against low rank",
            "theorem on cross-entropy (no figure)",
            claim="With cross-entropy too, global minimisers of deep linear networks are simplex "
            "ETFs across the layers, according to the abstract.",
            caption="Below the horizontal line lie points with a lower loss than every simplex "
            "ETF; gradient descent finds such points by itself.",
            tasks=_ce_tasks,
            judge=_judge_ce,
            draw=_draw_ce,
            note="Ten samples a class. The counter-examples are low-rank: softmax codes. The paper "
            "itself was not read for this figure, only its abstract and code. The UFM is trained "
            "with equal decays of the same geometric mean, which has the same logits and losses.",
        ),
    ],
)
