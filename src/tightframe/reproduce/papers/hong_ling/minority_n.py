"""Fig. 7-8 of Hong & Ling: minority collapse over the number of majority samples."""

from __future__ import annotations

import math
from collections.abc import Iterable

from tightframe.reproduce.papers.hong_ling import shared
from tightframe.reproduce.papers.hong_ling.sweep import Sweep
from tightframe.reproduce.results import Run
from tightframe.reproduce.spec import Figure

#: The paper's majority counts, with 100 samples of each minority class and lambda = 0.005.
_MAJORITIES = {
    5: (100, 200, 300, 400, 600, 800, 1000, 1100, 1200, 1400),
    3: (100, 400, 450, 500, 700, 1000, 1600, 2200, 2500, 2800),
}
_DECAY = 0.005

#: Samples of a minority class, and the most of a majority class that there are data for.
_MINORITY = {"smoke": 10, "cpu": 5, "paper": 100}
_MOST = {"smoke": 140, "cpu": 5000, "paper": 5000}


def count_threshold(classes: int, minority: int, decay: float) -> float:
    """Return the majority's count from which on the minority merges: ``N = sqrt(n_B) / lambda``."""
    return (math.sqrt(minority) / decay - (10 - classes) * minority) / classes


class CountSweep(Sweep):
    """The majority grows, the minority and lambda stay."""

    unit = symbol = "n_A"
    x_label = "samples of each majority class, n_A"
    claimed = "more majority samples make the minority classes merge, once N ≥ √n_B / λ"

    def at(self, run: Run) -> float:
        """Return the majority's count."""
        return shared.majority(run)

    def _fixed(self, scale: str, what: str) -> tuple[int, float]:
        """Return the minority's count and lambda; lambda keeps the threshold's ratio of counts."""
        minority = 100 if what == "UFM" else _MINORITY[scale]
        return minority, round(_DECAY * math.sqrt(minority / 100) * 100 / minority, 8)

    def grid(self, scale: str, what: str, classes: int) -> list[int]:
        """Return the paper's ratios, as far as there are data."""
        minority, _ = self._fixed(scale, what)
        counts = [n * minority // 100 for n in _MAJORITIES[classes]]
        return counts if what == "UFM" else [n for n in counts if n <= _MOST[scale]]

    def dense(self, scale: str, what: str, classes: int) -> Iterable[int]:
        """Return more counts in the same range."""
        grid = self.grid(scale, what, classes)
        if what == "UFM":
            return sorted({*range(100, grid[-1], 50), *grid})
        return range(grid[0], grid[-1] + 1, max(self._fixed(scale, what)[0] // 5, 1))

    def setting(self, scale: str, what: str, classes: int, value: int) -> tuple[str, float]:
        """Return the counts and lambda."""
        minority, decay = self._fixed(scale, what)
        return shared.step(classes, value, minority), decay

    def thresholds(self, scale: str, what: str, classes: int) -> dict[str, float]:
        """Return where the minority merges."""
        return {"minority merges": count_threshold(classes, *self._fixed(scale, what))}

    def described(self, scale: str, what: str, classes: int) -> str:
        """Return what is fixed."""
        minority, decay = self._fixed(scale, what)
        return f"k_A = {classes}, n_B = {minority}, λ = {decay:.4g}"


SWEEP = CountSweep()

FIGURE = Figure(
    "minority-n",
    "Minority collapse over the number of majority samples",
    "Fig. 7-8",
    claim="At fixed λ and n_B, more majority samples make the minority classes collapse, "
    "from N = √n_B / λ on.",
    caption="The minority's margin falls to zero at the vertical line although nothing but "
    "the majority's count has changed; on the maps of UFM and networks the diagonal of its block "
    "fades.",
    tasks=SWEEP.tasks,
    judge=SWEEP.judge,
    draw=SWEEP.draw,
    note=shared.SCALED + shared.WARMED,
    place=4,
)
