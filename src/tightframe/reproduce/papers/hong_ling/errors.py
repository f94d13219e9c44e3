"""Fig. 3-4 of Hong & Ling: logits and bias of networks against the prediction, sizes included."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from tightframe.figures.model import Chart, Curve, Panel, Table
from tightframe.reproduce.judging import below, largest
from tightframe.reproduce.papers.hong_ling import shared
from tightframe.reproduce.papers.hong_ling.block_structure import (
    cells,
    network_name,
    network_tasks,
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


def collapsed(history: pd.DataFrame) -> pd.DataFrame:
    """Return the rows from the first one on after which NC1 stays below `_NC1`."""
    above = np.flatnonzero(~(history["nc1"].to_numpy(dtype=np.float64) < _NC1))
    return history.iloc[above[-1] + 1 if len(above) else 0 :]


def _ends(places: Sequence[int], run: Run) -> list[float]:
    """Return the errors of some places at the end; NaN if the features never collapsed."""
    rows = collapsed(run.history)
    names = [ERRORS[place] for place in places]
    return [float(rows[name].iloc[-1]) if len(rows) else math.nan for name in names]


def _judge(results: Results) -> list[Verdict]:
    networks = results.select(what="network")
    smoke = results.scale == "smoke"
    verdicts = []
    for part, places in (("mean logits Z", (0, 1)), ("bias b", (2, 3))):
        worst = largest(networks, partial(_ends, places))
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
                sentence=f"{shared.NETWORKS[results.scale]}: the largest relative error of the "
                f"{part} at the end is {worst:.2g}" + (shared.SHORT if smoke else "."),
            )
        )
    return verdicts


def _draw(results: Results) -> list[Panel]:
    panels: list[Panel] = []
    table: list[list[Any]] = []
    runs = results.select(what="network").done
    for run in runs:
        rows = collapsed(run.history)
        name = network_name(run)
        curves = [
            Curve(words, list(rows["epoch"]), list(rows[key]), color)
            for color, (key, words) in enumerate(_WORDS.items())
        ]
        first = f"From epoch {int(rows['epoch'].iloc[0])} on." if len(rows) else "Never collapsed."
        note = f"{first} Relative to the prediction's size."
        title = f"Errors, {name}"
        panels.append(Chart(title, "epoch", "relative error", curves, log_y=True, note=note))
        table.append([name, run.measured("nc1"), *_ends(range(len(ERRORS)), run)])
    for name, _, part in cells(results):
        panels.append(standardised_maps(f"Min-max standardised Z* and Z, {name}", part))
    columns = ["network", "NC1", *_WORDS.values()]
    panels.append(Table("Errors at the end", columns, table))
    return panels


FIGURE = Figure(
    "errors",
    "Networks' mean logits and bias against the prediction, sizes included",
    "Fig. 3-4",
    claim="Once features have collapsed, mean logits Z and bias b of a network converge to the "
    "minimiser (Z*, b*) of the convex problem, not only up to scale.",
    caption="All four relative errors fall; every row of maps is one map several times.",
    tasks=network_tasks,
    judge=_judge,
    draw=_draw,
    note="The paper draws VGG13 and VGG11 on CIFAR10, from epochs 400 and 200 on; here it is every "
    "network of the block structure, from where NC1 stays below 0.01 on. Logits are W H̄ without "
    "the bias. " + shared.NARROW,
    place=2,
)
