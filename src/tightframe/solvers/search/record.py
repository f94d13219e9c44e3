"""What a multi-start search did and found."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from tightframe.saved import kept
from tightframe.shown import record

#: So many chains, and this share of all, have to end at one point for a search to be sure of it.
#: Of 200 random problems, two chains that agreed were wrong in 11 to 17, three and more in 2: so a
#: search that can only afford two, that of more than 24 classes, is never sure.
ENOUGH, MAJORITY = 3, 0.5


@kept
@record
@dataclass(frozen=True)
class Candidate:
    """A critical point that a multi-start search compares.

    Attributes
    ----------
    name : {"ETF", "zero", "search"}
        The simplex ETF and the zero solution are closed forms, the others were found.
    rank : int
        Rank of the logits.
    objective : float
    found : int or None
        How many starts and chains ended within 1e-4 (relatively) of this objective; None for
        closed forms.
    """

    name: str
    rank: int
    objective: float
    found: int | None


@kept
@record
@dataclass(frozen=True)
class Search:
    """What a multi-start search did and found; none of it is a certificate.

    Attributes
    ----------
    starts : int
        Starts run to explore, over all widths; chains that are added later start anew.
    seed : int
    widths : tuple of int
        Widths of the factors that were started from.
    candidates : tuple of Candidate
        The winner first, then by objective; of every rank the best that was found.
    chains : int
        Independent chains of local search run at the winner's width.
    agreed : int
        How many of them ended within 1e-6 (relatively) of the winner's objective.
    stopped : {None, "time limit", "interrupted"}
        What ended the search before it was done.
    winner : {"ETF", "low-rank", "full-rank", "zero"}
        A closed form wins where no found point beats it by more than 1e-9 (relatively).
        ``"full-rank"`` is the rank that classes and ``dim`` allow, K - 1 for cross-entropy.
    converged : bool
        Whether the best point found reached the accuracy of the local solver.
    relaxed_bound : float or None
        With one layer: certified lower bound of the problem without ``dim``. It holds here too,
        but the gap to it need not close. In one dimension without bias, the bound of
        `tightframe.theory.rank_one` where that is larger.
    """

    starts: int
    seed: int
    widths: tuple[int, ...]
    candidates: tuple[Candidate, ...]
    winner: str
    chains: int
    agreed: int
    stopped: str | None
    converged: bool
    relaxed_bound: float | None

    @property
    def unsure(self) -> bool:
        """Whether too few chains agree to trust the answer, or the search ended early.

        Three have to, and half of all. Of more than 24 classes only two chains run, which are too
        few to trust whatever they say.
        """
        enough = max(ENOUGH, MAJORITY * self.chains)
        return self.agreed < enough or self.stopped is not None

    @property
    def verdict(self) -> str:
        """How often the best was found, in words."""
        found = f"best found by {self.agreed} of {self.chains} independent chains"
        return f"{found}, unsure" if self.unsure else found

    def to_dict(self) -> dict[str, Any]:
        """Return everything JSON-ready."""
        return asdict(self) | {
            "unsure": self.unsure,
            "widths": list(self.widths),
            "candidates": [asdict(candidate) for candidate in self.candidates],
        }
