"""Verdicts on a network that was trained on text, against what the theory predicted."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

#: The objective must come this near to the certified bound, relative to it.
OBJECTIVE_TOLERANCE = 1e-5

#: Normalised distance of logits, classifier and features to the predicted ones, at most.
GEOMETRY_TOLERANCE = 0.01

CRITERIA = (
    f"As predicted: objective within {OBJECTIVE_TOLERANCE:g} of the certified bound, relative to "
    "it; logits, and the Gram matrices of classifier and context features, within normalised "
    f"distance {GEOMETRY_TOLERANCE:g} of the predicted; no more than that share of the logits "
    "outside of as many directions as the predicted rank."
)

_PARTS = {
    "logits": "logits",
    "classifier": "classifier's Gram matrix",
    "means": "context features' Gram matrix",
}


def text_verdicts(rank: int, row: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return the verdicts on a last measurement: objective, geometry, width.

    Parameters
    ----------
    rank : int
        Of the predicted logits.
    row : mapping
        With the columns of `tightframe.training.contexts.COLUMNS`.

    Returns
    -------
    list of dict
        ``name``, ``value``, ``tolerance``, ``agrees`` (None where nothing can be compared) and
        ``sentence`` of each.
    """
    excess = row["relative_excess"]
    found = [
        {
            "name": "objective",
            "value": excess,
            "tolerance": OBJECTIVE_TOLERANCE,
            "agrees": excess <= OBJECTIVE_TOLERANCE,
            "sentence": f"The objective is above the certified bound by {excess:.2g} of it.",
        }
    ]
    for part, name in _PARTS.items():
        value = row[f"{part}_to_predicted"]
        known = math.isfinite(value)
        sentence = f"The {name} cannot be compared: every context collapses."
        if known:
            verb = "are" if part == "logits" else "is"
            sentence = f"The {name} {verb} at distance {value:.2g} from the predicted"
            if part == "classifier":
                sentence += f", {row['classifier_to_etf']:.2g} from the ETF's"
            sentence += "."
        found.append(
            {
                "name": part,
                "value": value,
                "tolerance": GEOMETRY_TOLERANCE,
                "agrees": value <= GEOMETRY_TOLERANCE if known else None,
                "sentence": sentence,
            }
        )
    beyond = row["beyond_rank"]
    found.append(
        {
            "name": "width",
            "value": beyond,
            "tolerance": GEOMETRY_TOLERANCE,
            "agrees": beyond <= GEOMETRY_TOLERANCE if rank else None,
            "sentence": f"The predicted logits have rank {rank}; outside of as many directions "
            f"there is {beyond:.2g} of the network's.",
        }
    )
    return found
