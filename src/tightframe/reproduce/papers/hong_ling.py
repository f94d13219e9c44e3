"""Hong & Ling 2023: neural collapse under imbalance with cross-entropy, its blocks and collapses.

Every prediction is computed: the minimiser by `tightframe.solve` with its certificate, the
thresholds ``n_B <= N^2 lambda^2`` by `tightframe.thresholds`. In the paper's code the decays carry
no one half and are in the ratio ``lambda_W : lambda_H = 100``; networks keep that ratio. The UFM is
trained with equal decays, which has the same logits and trains faster.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

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
from tightframe.problem.problem import Problem
from tightframe.reproduce.spec import Figure, Paper, Results, Task, Verdict, verdict
from tightframe.runs.verdicts import COLLAPSE_TOLERANCE as COLLAPSED

#: Bias decay of the paper (0.01 without the one half), in our convention.
_BIAS: dict[str, Any] = {"bias": "decayed", "bias_decay": 0.02}

#: The paper's lambda grids, for 5 and for 3 majority classes of 500, the others of 100.
_LAMBDAS = {
    5: (0.0027, 0.0030, 0.0033, 0.0039, 0.0045, 0.0051, 0.0057, 0.0063, 0.0069, 0.0075),
    3: (0.0037, 0.0041, 0.0045, 0.0053, 0.0062, 0.0070, 0.0078, 0.0086, 0.0094, 0.0102),
}

#: Its grids of majority counts, with 100 samples of each minority class and lambda = 0.005.
_MAJORITIES = {
    5: (100, 200, 300, 400, 600, 800, 1000, 1100, 1200, 1400),
    3: (100, 400, 450, 500, 700, 1000, 1600, 2200, 2500, 2800),
}

#: Grids of the limit, and counts that only the theory can reach.
_LIMIT_COUNTS = (500, 1000, 1500, 2000, 2500, 3000, 3500, 4000, 4500, 5000)
_LIMIT_FAR = (10**5, 10**7, 10**9, 10**11, 10**14)
_LIMIT_SHARE = 0.1  # N lambda

_LAMBDA = "λ = √(weight decay · feature decay)"
_NETWORKS = {"smoke": "MLP on digits", "cpu": "MLP on digits", "paper": "ResNet18 on CIFAR10"}

#: Points of the grids at which a smoke run trains a network.
_SMOKE_POINTS = (1, 5)


# -- problems and tasks ----------------------------------------------------------------------------


def _problem(counts: str, decay: float) -> dict[str, Any]:
    return Problem(counts, weight_decay=decay, feature_decay=decay, **_BIAS).to_dict()


def _step(classes: int, majority: int, minority: int) -> str:
    """Return counts of 10 classes, ``classes`` of them in the majority."""
    return f"{majority}x{classes},{minority}x{10 - classes}"


def _theory(problems: Sequence[Mapping[str, Any]], **labels: Any) -> Task:
    return Task("solve", {"problems": list(problems)}, {"what": "theory", **labels})


def _ufm(
    scale: str, problems: Sequence[Mapping[str, Any]], *, lr: float = 10.0, **labels: Any
) -> Task:
    iterations = {"smoke": 2_500, "cpu": 30_000, "paper": 100_000}[scale]
    options = {
        "problems": list(problems),
        "seeds": [0] if scale == "smoke" else [0, 1, 2],
        "dim": 12,
        "lr": lr,
        "momentum": 0.9,
        "iterations": iterations,
        "per_sample": False,
        "arrays": True,
    }
    return Task("ufm", options, {"what": "UFM", **labels})


def _network(
    scale: str, counts: str, decay: float, more: Mapping[str, Any] | None = None, **labels: Any
) -> Task:
    config: dict[str, Any] = {
        "counts": counts,
        "settings": [[10 * decay, decay / 10]],
        **_BIAS,
        **_TRAINING[scale],
        **(more or {}),
    }
    own = {"what": "network", **labels, "counts": counts, "lambda": decay}
    return Task("network", {"config": config, "arrays": True}, own)


_TRAINING: dict[str, dict[str, Any]] = {
    "smoke": {"data": "digits", "hidden": [64], "epochs": 150, "measure_every": 50},
    "cpu": {"data": "digits", "hidden": [256, 256], "epochs": 1200, "measure_every": 60},
    "paper": {
        "data": "cifar10",
        "network": "resnet18",
        "network_options": {"stem": "cifar"},
        "feature_dim": 512,
        "optimizer": "sgd",
        "momentum": 0.9,
        # The code's first two phases have the same rate.
        "lr": 0.01,
        "schedule": "milestones",
        "milestones": [1333],
        "warmup_epochs": 333,
        "warmup_decay_factor": 0.1,
        "batch_size": 128,
        "epochs": 2000,
        "measure_every": 20,
    },
}


def _grid_points(scale: str, values: Sequence[Any]) -> list[Any]:
    """Return where networks are trained."""
    return [values[i] for i in _SMOKE_POINTS] if scale == "smoke" else list(values)


# -- what several figures share --------------------------------------------------------------------


def _switch(values: Sequence[float], collapsed: Sequence[bool]) -> int:
    """Return the first grid point from which on all are collapsed; their number if none is."""
    for i in range(len(values), 0, -1):
        if not collapsed[i - 1]:
            return i
    return 0


def _judge_switch(
    rows: pd.DataFrame,
    threshold: float,
    column: str,
    what: str,
    *,
    claimed: str,
    unit: str,
    decidable: bool = True,
) -> Verdict:
    """Judge whether the minority's margin vanishes where predicted, within one step of the grid."""
    table = rows.groupby(column)["group_b_margin"].max().reset_index().sort_values(column)
    values = [float(v) for v in table[column]]
    found = _switch(values, [bool(m < COLLAPSED) for m in table["group_b_margin"]])
    # At the threshold itself the classes have merged.
    expected = sum(v < threshold * (1 - 1e-12) for v in values)
    interval = _interval(values, found)
    holds = abs(found - expected) <= 1 and 0 < expected < len(values) if decidable else None
    sentence = (
        f"{what}: the minority's margin falls below {COLLAPSED} nats for good {interval}; the "
        f"theory's threshold is {unit} = {threshold:.6g}, {_interval(values, expected)} on this "
        "grid."
    )
    if not decidable:
        sentence += " Too few points and too short a training to decide."
    return verdict(
        holds,
        criterion="the measured switch lies within one grid step of the predicted threshold "
        f"(switch: from there on the minority's margin is below {COLLAPSED} nats)",
        claimed=claimed,
        predicted=threshold,
        measured=interval,
        tolerance="1 grid step",
        sentence=sentence,
    )


def _interval(values: Sequence[float], index: int) -> str:
    if index == 0:
        return f"from {values[0]:g} on"
    if index == len(values):
        return f"nowhere up to {values[-1]:g}"
    return f"between {values[index - 1]:g} and {values[index]:g}"


def _with_minority(rows: pd.DataFrame, majority: int | None = None) -> pd.DataFrame:
    """Add ``group_b_*``: the margins of the classes with the fewest samples.

    With balanced counts all classes are one group.
    """
    rows = rows.copy()
    balanced = (
        rows["group1_count"].isna() if "group1_count" in rows else pd.Series(True, rows.index)
    )
    for name in ("margin", "predicted_margin", "threshold"):
        second = rows[f"group1_{name}"] if f"group1_{name}" in rows else rows[f"group0_{name}"]
        rows[f"group_b_{name}"] = rows[f"group0_{name}"].where(balanced, second)
        rows[f"group_a_{name}"] = rows[f"group0_{name}"]
    rows["majority"] = rows["group0_count"]
    return rows


def _margin_chart(
    title: str,
    column: str,
    x_label: str,
    theory: pd.DataFrame,
    measured: pd.DataFrame,
    label: str,
    marks: Sequence[Mark],
) -> Chart:
    """Draw predicted (dashed) and measured margins of minority (blue) and majority (orange)."""
    curves = []
    for key, name, color in (("b", "minority", 0), ("a", "majority", 1)):
        line = theory.sort_values(column)
        curves.append(
            Curve(
                f"{name}, predicted",
                list(line[column]),
                list(line[f"group_{key}_margin"]),
                color,
                "dashed",
            )
        )
        if len(measured):
            found = measured.groupby(column)[f"group_{key}_margin"].agg(["mean", "min", "max"])
            spread = len(measured) > len(found)
            curves.append(
                Curve(
                    f"{name}, {label}",
                    list(found.index),
                    list(found["mean"]),
                    color,
                    "line+points",
                    list(found["min"]) if spread else None,
                    list(found["max"]) if spread else None,
                )
            )
    return Chart(title, x_label, "margin (nats)", curves, marks)


def _logit_maps(
    results: Results, title: str, name: str, column: str, symbol: str, limit: int = 10
) -> HeatMaps:
    """Draw the mean logits of the first seed over a sweep."""
    rows = results.rows
    borders: list[float] = []
    maps: list[Matrix] = []
    if len(rows):
        rows = rows.drop_duplicates(column).sort_values(column)
        for _, row in rows.head(limit).iterrows():
            maps.append(Matrix(f"{symbol} = {row[column]:g}", results.array(row, name)))
        borders = block_borders(Problem(rows["counts"].iloc[-1], **_ANY).counts)
    return HeatMaps(title, maps, borders=borders)


#: Decays where only the counts of a problem matter.
_ANY: dict[str, Any] = {"weight_decay": 1.0, "feature_decay": 1.0}


# -- blocks (Fig. 1-2) -----------------------------------------------------------------------------

_BLOCKS = {
    "paper": {"1": "5000x4,4000x3,3000x3", "2": "5000x4,3000x2,1000x4"},
    "cpu": {"1": "100x4,80x3,60x3", "2": "100x4,60x2,20x4"},
    "smoke": {"1": "100x4,80x3,60x3", "2": "100x4,60x2,20x4"},
}


def _block_tasks(scale: str) -> list[Task]:
    tasks = []
    for structure, counts in _BLOCKS[scale].items():
        # The paper's decays: lambda_W = 1e-3, lambda_H = 1e-6 without the one half.
        decay = math.sqrt(2e-3 * 2e-6) if scale == "paper" else 2e-3
        more = {
            "settings": [[2e-3, 2e-6]],
            "epochs": 1000,
            "milestones": [333],
            "warmup_epochs": 0,
            "backbone_weight_decay": 5e-4,
        }
        label: dict[str, Any] = {"structure": structure}
        tasks.append(_theory([_problem(counts, decay)], **label))
        tasks.append(_ufm(scale, [_problem(counts, decay)], **label))
        backbones: list[Mapping[str, Any]] = [{}]
        if scale == "paper":
            backbones = [{}, {"network": "vgg11"}, {"network": "vgg13", "data": "fashion_mnist"}]
        for i, backbone in enumerate(backbones):
            merged = {**more, **backbone} if scale == "paper" else backbone
            if "vgg" in merged.get("network", ""):
                merged = {**merged, "network_options": {}}
            tasks.append(_network(scale, counts, decay, merged, network=i, **label))
    return tasks


def block_deviation(logits: NDArray[Any], groups: NDArray[Any]) -> float:
    """Return how far a K x K matrix is from being constant on blocks, relative to its norm.

    A block's diagonal, for a group of classes with itself, may differ from its other entries
    (Hong & Ling 2023: ``a_j I + b_j J``).
    """
    z = np.asarray(logits, dtype=np.float64)
    fitted = z.copy()
    for i in np.unique(groups):
        for j in np.unique(groups):
            inside = np.ix_(groups == i, groups == j)
            block = z[inside]
            if i != j:
                fitted[inside] = block.mean()
                continue
            diagonal = np.eye(len(block), dtype=bool)
            filled = np.full_like(block, block[~diagonal].mean() if len(block) > 1 else 0.0)
            filled[diagonal] = block[diagonal].mean()
            fitted[inside] = filled
    return float(np.linalg.norm(z - fitted) / np.linalg.norm(z))


def _deviations(results: Results) -> list[float]:
    found = []
    for _, row in results.rows.iterrows():
        problem = Problem(row["counts"], **_ANY)
        found.append(block_deviation(results.array(row, "logits"), problem.class_groups))
    return found


def _judge_blocks(results: Results) -> list[Verdict]:
    networks, ufm = results.select(what="network"), results.select(what="UFM")
    claim = "the features of a class collapse to their mean (NC1 tends to 0)"
    nc1 = networks.rows["nc1"].max()
    smoke = results.scale == "smoke"
    verdicts = [
        verdict(
            None if smoke else bool(nc1 < 1e-2),
            criterion="NC1 of every network ends below 1e-2",
            claimed=claim,
            predicted=0.0,
            measured=float(nc1),
            tolerance=1e-2,
            sentence=f"The largest NC1 at the end of training is {nc1:.2g}"
            + (" after a short training." if smoke else "."),
        )
    ]
    for what, part, tolerance in (("UFM", ufm, 1e-2), ("networks", networks, 5e-2)):
        worst = float(np.max(_deviations(part)))
        short = smoke and what == "networks"
        verdicts.append(
            verdict(
                None if short else worst < tolerance,
                criterion=f"the mean logits of the {what} differ from block-constant ones by less "
                f"than {tolerance:g} of their norm",
                claimed="classes with as many samples form blocks in the mean logits",
                predicted=0.0,
                measured=worst,
                tolerance=tolerance,
                sentence=f"{what}: the mean logits differ from their own block averages by "
                f"{worst:.2g} of their norm" + (" after a short training." if short else "."),
            )
        )
    return verdicts


def _draw_blocks(results: Results) -> list[Panel]:
    panels: list[Panel] = []
    networks = results.select(what="network")
    curves = []
    for color, (task, history) in enumerate(networks.history.groupby("task")):
        result = networks.tasks[int(str(task))]
        label = f"structure {result.task.labels['structure']}"
        if results.scale == "paper":
            label += f", {result.task.arguments['config']['network']}"
        curves.append(Curve(label, list(history["epoch"]), list(history["nc1"]), color))
    panels.append(
        Chart(
            f"NC1 during training, {_NETWORKS[results.scale]}",
            "epoch",
            "NC1 = tr(Σ_W Σ_B⁺)/K",
            curves,
            log_y=True,
        )
    )
    for structure in _BLOCKS[results.scale]:
        maps: list[Matrix] = []
        borders: list[float] = []
        for what, name in (("UFM", "UFM"), ("network", _NETWORKS[results.scale])):
            part = results.select(what=what, structure=structure)
            for _, row in part.rows.head(1).iterrows():
                if not maps:
                    maps.append(Matrix("predicted", part.array(row, "predicted_logits")))
                maps.append(Matrix(name, part.array(row, "logits")))
                borders = block_borders(Problem(row["counts"], **_ANY).counts)
        counts = _BLOCKS[results.scale][structure]
        panels.append(HeatMaps(f"Mean logits, samples per class {counts}", maps, borders=borders))
    return panels


# -- minority collapse over lambda (Fig. 5-6) ------------------------------------------------------


def _small(scale: str) -> tuple[int, int]:
    """Return majority and minority counts of the networks."""
    return (500, 100) if scale == "paper" else (100, 20)


def _network_lambdas(scale: str, classes: int) -> list[float]:
    """Return the paper's grid moved to the networks' counts: equal in units of the threshold."""
    majority, minority = _small(scale)
    factor = math.sqrt(minority / 100) * _total(classes, 500, 100)
    factor /= _total(classes, majority, minority)
    return [round(decay * factor, 8) for decay in _LAMBDAS[classes]]


def _total(classes: int, majority: int, minority: int) -> int:
    return classes * majority + (10 - classes) * minority


def _lambda_tasks(scale: str) -> list[Task]:
    tasks = []
    for classes, decays in _LAMBDAS.items():
        counts = _step(classes, 500, 100)
        label: dict[str, Any] = {"majority_classes": classes}
        dense = sorted({*np.linspace(decays[0], decays[-1], 40).round(9).tolist(), *decays})
        tasks.append(_theory([_problem(counts, d) for d in dense], of="UFM", **label))
        tasks.append(_ufm(scale, [_problem(counts, d) for d in decays], **label))
        counts = _step(classes, *_small(scale))
        grid = _network_lambdas(scale, classes)
        dense = np.linspace(grid[0], grid[-1], 40).round(9).tolist()
        tasks.append(_theory([_problem(counts, d) for d in dense], of="network", **label))
        if scale == "smoke" and classes == 3:
            continue
        tasks += [_network(scale, counts, d, **label) for d in _grid_points(scale, grid)]
    return tasks


def _judge_lambda(results: Results) -> list[Verdict]:
    verdicts = []
    for classes in _LAMBDAS:
        for what in ("UFM", "network"):
            part = results.select(what=what, majority_classes=classes)
            if not part.tasks:
                continue
            rows = _with_minority(part.rows)
            smoke_network = what == "network" and results.scale == "smoke"
            name = "UFM" if what == "UFM" else _NETWORKS[results.scale]
            verdicts.append(
                _judge_switch(
                    rows,
                    float(rows["group1_threshold"].iloc[0]),
                    "lambda",
                    f"{name}, {classes} majority classes",
                    claimed="the minority classes share one mean once λ ≥ √n_B / N",
                    unit="λ",
                    decidable=not smoke_network,
                )
            )
    return verdicts


def _draw_lambda(results: Results) -> list[Panel]:
    panels: list[Panel] = []
    for classes in _LAMBDAS:
        for what in ("UFM", "network"):
            part = results.select(what=what, majority_classes=classes)
            theory = results.select(what="theory", of=what, majority_classes=classes).rows
            if not part.tasks:
                continue
            rows = _with_minority(part.rows) if len(part.rows) else part.rows
            name = "UFM by gradient descent" if what == "UFM" else _NETWORKS[results.scale]
            marks = [
                Mark(float(theory["group1_threshold"].iloc[0]), "minority merges", color=0),
                Mark(float(theory["group0_threshold"].iloc[0]), "majority merges", color=1),
            ]
            panels.append(
                _margin_chart(
                    f"{name}: {theory['counts'].iloc[0]}",
                    "lambda",
                    _LAMBDA,
                    _with_minority(theory),
                    rows,
                    "UFM" if what == "UFM" else "network",
                    marks,
                )
            )
    for classes in _LAMBDAS:
        part = results.select(what="UFM", majority_classes=classes)
        panels.append(
            _logit_maps(
                part,
                f"UFM, mean logits over λ, {_step(classes, 500, 100)}",
                "logits",
                "lambda",
                "λ",
            )
        )
    return panels


# -- minority collapse over the majority's count (Fig. 7-8) ----------------------------------------

_COUNT_DECAY = 0.005


def _network_counts(scale: str, classes: int) -> tuple[list[int], int, float]:
    """Return majority counts, minority count and lambda of the networks.

    The ratios are the paper's; lambda puts the threshold at the same ratio.
    """
    if scale == "paper":
        return list(_MAJORITIES[classes]), 100, _COUNT_DECAY
    minority = 10
    decay = _COUNT_DECAY * math.sqrt(minority / 100) * 100 / minority
    most = 140  # of each class, digits has no more for training
    majorities = [n * minority // 100 for n in _MAJORITIES[classes]]
    return [n for n in majorities if n <= most], minority, round(decay, 8)


def _count_tasks(scale: str) -> list[Task]:
    tasks = []
    for classes, majorities in _MAJORITIES.items():
        label: dict[str, Any] = {"majority_classes": classes}
        dense = sorted({*range(100, majorities[-1], 50), *majorities})
        problems = [_problem(_step(classes, n, 100), _COUNT_DECAY) for n in dense]
        tasks.append(_theory(problems, of="UFM", **label))
        problems = [_problem(_step(classes, n, 100), _COUNT_DECAY) for n in majorities]
        tasks.append(_ufm(scale, problems, **label))
        counts, minority, decay = _network_counts(scale, classes)
        dense = list(range(counts[0], counts[-1] + 1, max(minority // 5, 1)))
        problems = [_problem(_step(classes, n, minority), decay) for n in dense]
        tasks.append(_theory(problems, of="network", **label))
        if scale == "smoke" and classes == 3:
            continue
        tasks += [
            _network(scale, _step(classes, n, minority), decay, **label)
            for n in _grid_points(scale, counts)
        ]
    return tasks


def _count_threshold(classes: int, minority: int, decay: float) -> float:
    """Return the majority's count from which on the minority merges: ``N = sqrt(n_B) / lambda``."""
    return (math.sqrt(minority) / decay - (10 - classes) * minority) / classes


def _judge_counts(results: Results) -> list[Verdict]:
    verdicts = []
    for classes in _MAJORITIES:
        for what in ("UFM", "network"):
            part = results.select(what=what, majority_classes=classes)
            if not part.tasks:
                continue
            _, minority, decay = _network_counts(results.scale, classes)
            threshold = _count_threshold(
                classes, *((100, _COUNT_DECAY) if what == "UFM" else (minority, decay))
            )
            name = "UFM" if what == "UFM" else _NETWORKS[results.scale]
            verdicts.append(
                _judge_switch(
                    _with_minority(part.rows),
                    threshold,
                    "majority",
                    f"{name}, {classes} majority classes",
                    claimed="more majority samples make the minority classes merge, once "
                    "N ≥ √n_B / λ",
                    unit="n_A",
                    decidable=not (what == "network" and results.scale == "smoke"),
                )
            )
    return verdicts


def _draw_counts(results: Results) -> list[Panel]:
    panels: list[Panel] = []
    for classes in _MAJORITIES:
        for what in ("UFM", "network"):
            part = results.select(what=what, majority_classes=classes)
            theory = results.select(what="theory", of=what, majority_classes=classes).rows
            if not part.tasks:
                continue
            rows = _with_minority(part.rows) if len(part.rows) else part.rows
            _, minority, decay = _network_counts(results.scale, classes)
            if what == "UFM":
                minority, decay = 100, _COUNT_DECAY
            name = "UFM by gradient descent" if what == "UFM" else _NETWORKS[results.scale]
            panels.append(
                _margin_chart(
                    f"{name}: {classes} majority classes, n_B = {minority}, λ = {decay:.4g}",
                    "majority",
                    "samples of each majority class, n_A",
                    _with_minority(theory),
                    rows,
                    "UFM" if what == "UFM" else "network",
                    [Mark(_count_threshold(classes, minority, decay), "minority merges", color=0)],
                )
            )
    for classes in _MAJORITIES:
        part = results.select(what="UFM", majority_classes=classes)
        part = Results(part.scale, part.tasks)
        panels.append(_count_maps(part, classes))
    return panels


def _count_maps(part: Results, classes: int) -> HeatMaps:
    maps: list[Matrix] = []
    rows = _with_minority(part.rows) if len(part.rows) else part.rows
    if len(rows):
        for _, row in rows.drop_duplicates("majority").sort_values("majority").iterrows():
            maps.append(Matrix(f"n_A = {row['majority']:g}", part.array(row, "logits")))
    title = f"UFM, mean logits over n_A, {classes} majority classes"
    return HeatMaps(title, maps, borders=[float(classes)])


# -- the limit of many samples (Fig. 9) ------------------------------------------------------------

_PAIRS = {
    "cosine_0_0": "two majority classes",
    "cosine_0_1": "one of each",
    "cosine_1_1": "two minority classes",
}
_ETF_COSINE = -1 / 9


def _limit_problem(majority: int) -> dict[str, Any]:
    counts = _step(5, majority, majority // 2)
    return _problem(counts, _LIMIT_SHARE / _total(5, majority, majority // 2))


def _limit_tasks(scale: str) -> list[Task]:
    problems = [_limit_problem(n) for n in _LIMIT_COUNTS]
    tasks = [
        _theory([*problems, *(_limit_problem(n) for n in _LIMIT_FAR)], of="UFM"),
        _ufm(scale, problems[::4] if scale == "smoke" else problems, lr=40.0),
    ]
    counts = _LIMIT_COUNTS if scale == "paper" else (20, 40, 60, 80, 100, 140)
    if scale != "paper":
        tasks.append(_theory([_limit_problem(n) for n in counts], of="network"))
    for majority in _grid_points(scale, counts):
        decay = _LIMIT_SHARE / _total(5, majority, majority // 2)
        paper = {"warmup_epochs": 0, "backbone_weight_decay": 5e-4} if scale == "paper" else {}
        tasks.append(_network(scale, _step(5, majority, majority // 2), decay, paper))
    return tasks


def _judge_limit(results: Results) -> list[Verdict]:
    theory = results.select(what="theory", of="UFM").rows.sort_values("group0_count")
    deviations = (theory[list(_PAIRS)] - _ETF_COSINE).abs().max(axis=1).to_numpy()
    certified = bool((theory["status"] == "optimal").all())
    first, last = float(deviations[0]), float(deviations[-1])
    falls = bool((np.diff(deviations) < 0).all()) and certified
    counts = theory["group0_count"].to_numpy()
    verdicts = [
        verdict(
            falls and last < first / 2,
            criterion="the largest distance of the three cosines to -1/9 falls at every step, and "
            "below half of its first value on the whole (certified minimisers)",
            claimed="with N λ fixed all mean cosines tend to -1/9 as the counts grow",
            predicted=_ETF_COSINE,
            measured=last,
            tolerance=first / 2,
            sentence=f"The largest distance to -1/9 falls from {first:.3g} at n_A = {counts[0]:g} "
            f"to {last:.3g} at n_A = {counts[-1]:.0e}: logarithmically slowly, so at the paper's "
            "counts the cosines are still visibly apart.",
        )
    ]
    ufm = results.select(what="UFM").rows
    worst = _cosine_error(ufm)
    verdicts.append(
        verdict(
            _undecided(ufm, worst < 0.02, results.scale),
            criterion="the cosines of the trained UFM are within 0.02 of the certified minimiser's",
            claimed="the trained model follows the curve of the theory",
            predicted=0.0,
            measured=worst,
            tolerance=0.02,
            sentence=f"UFM: the cosines differ by at most {worst:.2g} from the minimiser's; "
            f"{int((ufm['status'] == 'stopped').sum())} of {len(ufm)} runs had not converged.",
        )
    )
    networks = results.select(what="network").rows
    worst = _cosine_error(networks)
    smoke = results.scale == "smoke"
    verdicts.append(
        verdict(
            None if smoke else worst < 0.05,
            criterion="the cosines of the networks are within 0.05 of the certified minimiser's",
            claimed="the networks' cosines tend to -1/9",
            predicted=0.0,
            measured=worst,
            tolerance=0.05,
            sentence=f"{_NETWORKS[results.scale]}: the cosines differ by at most {worst:.2g} from "
            "the minimiser's" + (" after a short training." if smoke else "."),
        )
    )
    return verdicts


def _undecided(rows: pd.DataFrame, holds: bool, scale: str) -> bool | None:
    """Return None for a smoke run that fails a criterion because it was stopped early."""
    stopped = bool((rows["status"] == "stopped").any())
    return None if scale == "smoke" and stopped and not holds else holds


def _cosine_error(rows: pd.DataFrame) -> float:
    return float(max((rows[name] - rows[f"predicted_{name}"]).abs().max() for name in _PAIRS))


def _draw_limit(results: Results) -> list[Panel]:
    theory = results.select(what="theory", of="UFM").rows.sort_values("group0_count")
    ufm, networks = results.select(what="UFM").rows, results.select(what="network").rows
    near = theory[theory["group0_count"] <= _LIMIT_COUNTS[-1]]
    small = theory
    if results.scale != "paper":
        small = results.select(what="theory", of="network").rows
    marks = [Mark(_ETF_COSINE, "-1/9, simplex ETF", "y", "etf")]
    charts: list[Panel] = []
    for title, line, points, log_x in (
        ("UFM by gradient descent", near, ufm, False),
        (_NETWORKS[results.scale], small, networks, False),
        ("Certified minimisers, far beyond the paper", theory, theory.head(0), True),
    ):
        curves = []
        for color, (name, label) in enumerate(_PAIRS.items()):
            style = "solid" if log_x else "dashed"
            curves.append(Curve(label, list(line["group0_count"]), list(line[name]), color, style))
            if len(points):
                found = points.groupby("group0_count")[name].mean()
                curves.append(
                    Curve(f"{label}, measured", list(found.index), list(found), color, "points")
                )
        x_label = "samples of each majority class, n_A"
        charts.append(Chart(title, x_label, "mean cosine of logits", curves, marks, log_x=log_x))
    return charts


# -- oversampling ----------------------------------------------------------------------------------

_FACTORS = (1, 2, 3, 4, 5)
_OVERSAMPLED_DECAY = 0.004


def _oversample_tasks(scale: str) -> list[Task]:
    problems = [_problem(_step(5, 500, 100 * r), _OVERSAMPLED_DECAY) for r in _FACTORS]
    majority, minority = _small(scale)
    # Between the thresholds without and with oversampling, as 0.004 is for 500 and 100.
    decay = _OVERSAMPLED_DECAY * math.sqrt(minority / 100) * 3000 / _total(5, majority, minority)
    counts, decay = _step(5, majority, minority), round(decay, 8)
    tasks = [_theory(problems), _ufm(scale, problems)]
    for factor in (1, 5) if scale == "smoke" else _FACTORS:
        more = {"oversample": [1] * 5 + [factor] * 5} if factor > 1 else {}
        tasks.append(_network(scale, counts, decay, more, factor=factor))
    return tasks


def _judge_oversample(results: Results) -> list[Verdict]:
    verdicts = []
    for what in ("UFM", "network"):
        rows = _factor_rows(results.select(what=what))
        before = float(rows.loc[rows["factor"] == 1, "group_b_margin"].max())
        after = rows.loc[rows["factor"] > 1]
        least = float(after["group_b_margin"].min())
        off = float((after["group_b_margin"] - after["group_b_predicted_margin"]).abs().max())
        smoke_network = what == "network" and results.scale == "smoke"
        tolerance = 0.05 if what == "UFM" else 0.2
        name = "UFM" if what == "UFM" else _NETWORKS[results.scale]
        verdicts.append(
            verdict(
                None
                if smoke_network
                else before < COLLAPSED and least > COLLAPSED and off < tolerance,
                criterion=f"the minority's margin is below {COLLAPSED} nats without oversampling "
                f"and above with it, there within {tolerance:g} of the predicted margin",
                claimed="oversampling the minority lifts its collapse",
                predicted=float(after["group_b_predicted_margin"].min()),
                measured=least,
                tolerance=tolerance,
                sentence=f"{name}: the minority's margin is {before:.2g} as it is and at least "
                f"{least:.3g} when oversampled, at most {off:.2g} from the prediction"
                + (" (a short training)." if smoke_network else "."),
            )
        )
    return verdicts


def _factor_rows(part: Results) -> pd.DataFrame:
    rows = _with_minority(part.rows)
    if "factor" not in rows:
        rows["factor"] = [_FACTORS[i] for i in _index_of(rows)]
    return rows


def _index_of(rows: pd.DataFrame) -> list[int]:
    """Return which factor each row of a batch is of: its total says."""
    totals = [_total(5, 500, 100 * r) for r in _FACTORS]
    return [totals.index(int(total)) for total in rows["num_samples"]]


def _draw_oversample(results: Results) -> list[Panel]:
    panels: list[Panel] = []
    for what in ("UFM", "network"):
        part = results.select(what=what)
        if not len(part.rows):
            continue
        rows = _factor_rows(part)
        predicted = rows.copy()
        for key in "ab":
            predicted[f"group_{key}_margin"] = rows[f"group_{key}_predicted_margin"]
        name = "UFM by gradient descent" if what == "UFM" else _NETWORKS[results.scale]
        panels.append(
            _margin_chart(
                name,
                "factor",
                "how often each minority sample is repeated",
                predicted.drop_duplicates("factor"),
                rows,
                "UFM" if what == "UFM" else "network",
                [],
            )
        )
        if what == "network":
            chosen = rows.sort_values("factor")
            panels.append(
                Table(
                    f"{name}: accuracy",
                    ["repeated", "minority margin", "predicted", "training", "test"],
                    [
                        [
                            int(row["factor"]),
                            float(row["group_b_margin"]),
                            float(row["group_b_predicted_margin"]),
                            float(row["train_accuracy"]),
                            float(row["test_accuracy"]),
                        ]
                        for _, row in chosen.iterrows()
                    ],
                    "The training accuracy counts every repetition.",
                )
            )
    ufm = results.select(what="UFM")
    if len(ufm.rows):
        maps = [
            Matrix(f"repeated {_FACTORS[i]} times", ufm.array(row, "logits"))
            for i, (_, row) in sorted(
                zip(
                    _index_of(ufm.rows.drop_duplicates("num_samples")),
                    ufm.rows.drop_duplicates("num_samples").iterrows(),
                    strict=True,
                ),
                key=lambda pair: pair[0],
            )
        ]
        panels.append(HeatMaps("UFM, mean logits over the repetition", maps, borders=[5.0]))
    return panels


# -- the paper -------------------------------------------------------------------------------------

_SCALED = (
    "At scales smoke and cpu the networks are MLPs on digits with fewer samples; λ is moved so "
    "that it stands in the same ratio to the threshold as in the paper. The UFM has the paper's "
    "counts at every scale."
)

PAPER = Paper(
    "hong-ling",
    "W. Hong and S. Ling, Neural Collapse for Unconstrained Feature Model under Cross-entropy Loss "
    "with Imbalanced Data, 2023, arXiv 2309.09725",
    "https://arxiv.org/abs/2309.09725",
    [
        Figure(
            "block-structure",
            "Within-class collapse and the block structure of the predictions",
            "Fig. 1-2",
            claim="Features collapse to their class means (NC1 tends to 0), and the mean logits "
            "have a block structure: classes with equally many samples are interchangeable.",
            caption="NC1 falls over training; in the maps every block between two groups of "
            "classes has one colour, except for the diagonals of the blocks on the diagonal.",
            tasks=_block_tasks,
            judge=_judge_blocks,
            draw=_draw_blocks,
            note="At scales smoke and cpu: MLPs on digits with λ = 2e-3 and counts in the paper's "
            "proportions (structure 2: 100, 60, 20). At scale paper VGG11 on CIFAR10 and VGG13 on "
            "Fashion-MNIST stand for the paper's further networks, and the optimiser's decay of "
            "5e-4 is that of the backbone alone; the paper's acts on W and b besides λ_W and λ_b.",
        ),
        Figure(
            "minority-lambda",
            "Minority collapse over the decays",
            "Fig. 5-6",
            claim="With two groups of classes the minority classes get one common mean prediction "
            "exactly when λ ≥ √n_B / N, and the majority classes when λ ≥ √n_A / N.",
            caption="The margin between minority classes falls to zero where the vertical line "
            "predicts it, that between majority classes at the second line.",
            tasks=_lambda_tasks,
            judge=_judge_lambda,
            draw=_draw_lambda,
            note=_SCALED,
        ),
        Figure(
            "minority-n",
            "Minority collapse over the number of majority samples",
            "Fig. 7-8",
            claim="At fixed λ and n_B, more majority samples make the minority classes collapse, "
            "from N = √n_B / λ on.",
            caption="The minority's margin falls to zero at the vertical line although nothing but "
            "the majority's count has changed.",
            tasks=_count_tasks,
            judge=_judge_counts,
            draw=_draw_counts,
            note=_SCALED,
        ),
        Figure(
            "limit",
            "The imbalance loses its effect as the counts grow",
            "Fig. 9",
            claim="With class ratios and N λ fixed, the mean logits tend to a simplex ETF as the "
            "counts grow: all cosines tend to -1/9.",
            caption="The three mean cosines approach the horizontal line; on the last chart, up to "
            "1e14 samples a class, they still do.",
            tasks=_limit_tasks,
            judge=_judge_limit,
            draw=_draw_limit,
            note="The networks use small decays, N λ = 0.1, on the head only; at scale paper the "
            "optimiser's 5e-4 is that of the backbone alone, the paper's acts on W and b, too. "
            + _SCALED,
        ),
        Figure(
            "oversampling",
            "Oversampling lifts minority collapse",
            "follows from the threshold (no figure)",
            claim="A minority that has collapsed becomes distinct again when its samples are "
            "repeated, because the threshold √n_B / N of the repeated set is above λ.",
            caption="The minority's margin leaves zero as soon as its samples are repeated.",
            tasks=_oversample_tasks,
            judge=_judge_oversample,
            draw=_draw_oversample,
            note="λ = 0.004 lies between the thresholds without (0.00333) and with twofold "
            "repetition (0.00404). " + _SCALED,
        ),
    ],
)
