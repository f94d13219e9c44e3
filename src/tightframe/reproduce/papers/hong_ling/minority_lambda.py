"""Fig. 5-6 of Hong & Ling: minority collapse over the decays."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from tightframe.problem.problem import Problem
from tightframe.reproduce.papers.hong_ling import shared
from tightframe.reproduce.papers.hong_ling.sweep import Sweep
from tightframe.reproduce.results import Run
from tightframe.reproduce.spec import Figure
from tightframe.theory.thresholds import thresholds

#: The paper's grids, for 5 and for 3 majority classes of 500, the others of 100.
LAMBDAS = {
    5: (0.0027, 0.0030, 0.0033, 0.0039, 0.0045, 0.0051, 0.0057, 0.0063, 0.0069, 0.0075),
    3: (0.0037, 0.0041, 0.0045, 0.0053, 0.0062, 0.0070, 0.0078, 0.0086, 0.0094, 0.0102),
}


class LambdaSweep(Sweep):
    """Lambda grows, the counts stay."""

    unit = symbol = "λ"
    x_label = "λ = √(weight decay · feature decay)"
    claimed = "the minority classes share one mean once λ ≥ √n_B / N"

    def at(self, run: Run) -> float:
        """Return lambda."""
        return run.decay

    def grid(self, scale: str, what: str, classes: int) -> list[float]:
        """Return the paper's grid; of networks moved to be equal in units of the threshold."""
        if what == "UFM":
            return list(LAMBDAS[classes])
        majority, minority = shared.small(scale)
        factor = math.sqrt(minority / 100) * shared.total(classes, 500, 100)
        factor /= shared.total(classes, majority, minority)
        return [round(decay * factor, 8) for decay in LAMBDAS[classes]]

    def dense(self, scale: str, what: str, classes: int) -> Iterable[float]:
        """Return 40 values, and those of the UFM."""
        grid = self.grid(scale, what, classes)
        line: list[float] = np.linspace(grid[0], grid[-1], 40).round(9).tolist()
        return sorted({*line, *grid}) if what == "UFM" else line

    def setting(self, scale: str, what: str, classes: int, value: float) -> tuple[str, float]:
        """Return the counts and lambda."""
        counts = (500, 100) if what == "UFM" else shared.small(scale)
        return shared.step(classes, *counts), value

    def thresholds(self, scale: str, what: str, classes: int) -> dict[str, float]:
        """Return where minority and majority merge."""
        counts, decay = self.setting(scale, what, classes, 1.0)
        found = thresholds(Problem(counts, weight_decay=decay, feature_decay=decay)).groups
        places = {"minority merges": found[1], "majority merges": found[0]}
        return {name: float(group.logit_decay or math.nan) for name, group in places.items()}

    def described(self, scale: str, what: str, classes: int) -> str:
        """Return the counts."""
        return self.setting(scale, what, classes, 1.0)[0]


SWEEP = LambdaSweep()

FIGURE = Figure(
    "minority-lambda",
    "Minority collapse over the decays",
    "Fig. 5-6",
    claim="With two groups of classes the minority classes get one common mean prediction "
    "exactly when λ ≥ √n_B / N, and the majority classes when λ ≥ √n_A / N.",
    caption="The margin between minority classes falls to zero where the vertical line "
    "predicts it, that between majority classes at the second line; on the maps of UFM and "
    "networks the diagonal of their block fades.",
    tasks=SWEEP.tasks,
    judge=SWEEP.judge,
    draw=SWEEP.draw,
    note=shared.SCALED + shared.WARMED,
    place=3,
)
