"""Fig. 3-4 of Hong & Ling: logits and bias of networks against the prediction, sizes included."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import numpy as np
import pandas as pd

from tightframe.figures.model import Chart, Curve, Panel, Table
from tightframe.reproduce.judging import below, largest
from tightframe.reproduce.papers.hong_ling import shared
from tightframe.reproduce.papers.hong_ling.block_structure import (
    cells,
    network_name,
    network_tasks,
    short_name,
    standardised_maps,
)
from tightframe.reproduce.results import Results, Run
from tightframe.reproduce.spec import Figure, Verdict
from tightframe.training.callbacks import ERRORS

#: Errors count from here on: the prediction is about features that have collapsed.
_NC1 = 0.01

#: What the errors of a network must end below.
_LIMIT = 0.05

_WORDS = {
    "logits_error": "Z, Frobenius norm",
    "logits_largest_error": "Z, largest entry",
    "bias_error": "b, Euclidean norm",
    "bias_largest_error": "b, largest entry",
}

#: Errors of a part, by its name.
_PARTS = {"mean logits Z": ERRORS[:2], "bias b": ERRORS[2:]}


def collapsed(history: pd.DataFrame) -> pd.DataFrame:
    """Return the rows from the first one on after which NC1 stays below `_NC1`."""
    above = np.flatnonzero(~(history["nc1"].to_numpy(dtype=np.float64) < _NC1))
    return history.iloc[above[-1] + 1 if len(above) else 0 :]


def _ends(keys: Sequence[str], run: Run) -> list[float]:
    """Return errors at the end; NaN if the features never collapsed."""
    rows = collapsed(run.history)
    return [float(rows[key].iloc[-1]) if len(rows) else math.nan for key in keys]


def _worst(networks: Results, keys: Sequence[str]) -> str:
    """Return the name of the network with the largest error; NaN is the largest."""
    errors = [np.max(_ends(keys, run)) for run in networks.done]
    return network_name(networks.done[int(np.argmax(errors))]) if errors else "none"


def _judge(results: Results) -> list[Verdict]:
    networks = results.select(what="network")
    smoke = results.scale == "smoke"
    verdicts = []
    for part, keys in _PARTS.items():
        worst = largest(networks, partial(_ends, keys))
        verdicts.append(
            below(
                worst,
                _LIMIT,
                networks,
                decidable=not smoke,
                criterion=f"once NC1 stays below {_NC1:g}, the relative errors of the {part} "
                "(norm and largest entry) of every network end below "
                f"{_LIMIT:g}; a network that never collapses fails",
                claimed=f"the {part} of networks converge to the minimiser of the convex problem, "
                "sizes included",
                sentence=f"{len(networks.done)} networks: the largest relative error of the {part} "
                f"at the end is {worst:.2g}, of {_worst(networks, keys)}"
                + (shared.SHORT if smoke else "."),
            )
        )
    return verdicts


def _draw(results: Results) -> list[Panel]:
    panels: list[Panel] = []
    for cell in cells(results):
        panels += [
            _chart(f"Errors of the {what}, {cell.name}", cell.networks.done, keys)
            for what, keys in _PARTS.items()
        ]
    for cell in cells(results):
        title = f"Min-max standardised Z* and Z, {cell.name}"
        panels.append(standardised_maps(title, cell.networks))
    table = [
        [short_name(run), cell.data, cell.structure, run.measured("nc1"), *_ends(ERRORS, run)]
        for cell in cells(results)
        for run in cell.networks.done
    ]
    columns = ["network", "data", "structure", "NC1", *_WORDS.values()]
    panels.append(Table("Errors at the end", columns, table))
    return panels


def _chart(title: str, runs: Sequence[Run], keys: Sequence[str]) -> Chart:
    """Draw the errors of several networks; the norm is solid, the largest entry dashed."""
    curves = []
    for color, run in enumerate(runs):
        rows = collapsed(run.history)
        for key, style in zip(keys, ("solid", "dashed"), strict=True):
            label = f"{short_name(run)}, {_WORDS[key].partition(', ')[2]}"
            curves.append(Curve(label, list(rows["epoch"]), list(rows[key]), color, style))
    note = f"From where NC1 stays below {_NC1:g} on, relative to the prediction's size."
    return Chart(title, "epoch", "relative error", curves, log_y=True, note=note)


FIGURE = Figure(
    "errors",
    "Networks' mean logits and bias against the prediction, sizes included",
    "Fig. 3-4",
    claim="Once features have collapsed, mean logits Z and bias b of a network converge to the "
    "minimiser (Z*, b*) of the convex problem, not only up to scale.",
    caption="All four relative errors fall, then level off at some hundredths or below; every row "
    "of maps is one map several times.",
    tasks=network_tasks,
    judge=_judge,
    draw=_draw,
    note="The paper draws VGG13 and VGG11 on CIFAR10, from epochs 400 and 200 on; here it is every "
    "network of the block structure, from where NC1 stays below 0.01 on. Logits are W H̄ without "
    "the bias. "
    + shared.NARROW
    + "VGGs had 400 epochs at first, as ResNet18 has; on Fashion-MNIST the errors of b then were "
    "up to 0.17 (VGG13, structure 1) and still falling, so all VGGs have 600. ",
    place=2,
)
