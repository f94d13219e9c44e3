"""What a search spends its work on."""

from __future__ import annotations

from dataclasses import dataclass

from tightframe.checks import require_positive_fields


@dataclass(frozen=True)
class Race:
    """How many of many points go on, and how far.

    Attributes
    ----------
    lengths : tuple of int
        Iterations after which the points are compared, counted from the start.
    kept : tuple of float
        Shares of the points of a chain that go on after each comparison but the last.
    """

    lengths: tuple[int, ...]
    kept: tuple[float, ...]

    def within(self, iterations: int) -> Race:
        """Return the race with no more than so many iterations."""
        return Race(tuple(min(length, iterations) for length in self.lengths), self.kept)


@dataclass(frozen=True)
class SearchOptions:
    """What a search spends its work on.

    Attributes
    ----------
    chains, max_chains : int
        Chains of local search that run together and have to agree; if they do not, as many more,
        at most so many in all.
    max_many, chains_of_many : int
        Of more classes than the first, the second number of chains is run, once.
    max_moves : int
        Moves that a chain tries at once; of more, so many at random.
    max_rounds, rounds_of_many : int
        Times that a chain may try moves; the second with many classes.
    starting, racing, confirming : Race
        Of the starts of a chain, of its moves, and of all moves from the winner.
    max_widths : int
        With several layers a singular value that is zero stays zero in a descent, so every width
        is tried; if there are more, the best one is bracketed.
    near, nearest : float
        Chains are run at the widths whose best start is, relatively, so near the best of all;
        with many classes the second.
    max_polished : int
        Candidates of other ranks than the winner's that are polished.
    refine_iterations : int
        Iterations allowed until the winner's rank is clear.
    max_dense : int
        Numbers of a point up to which it is polished by Newton's method with a dense Hessian.
    explore_accuracy, refine_accuracy, polish_accuracy : float
        Converged: squared gradient at most this share of ``mu`` times the objective. As curvatures
        are of the order of mu, that is the order of the relative distance left to the minimum.
    improvement : float
        Relative difference of objectives by which a move has to improve on a point; chains agree
        that end within it.
    found_tolerance, tie_tolerance : float
        Relative difference below which two objectives are one: of explored points, of polished
        ones.
    batch_numbers : int
        Numbers held for one batch of points (10 million are 80 MB).

    Raises
    ------
    ValueError
        If one of them is not positive.
    """

    chains: int = 5
    max_chains: int = 15
    max_many: int = 24
    chains_of_many: int = 3
    max_moves: int = 200
    max_rounds: int = 60
    rounds_of_many: int = 6
    starting: Race = Race((40, 150), (0.5,))
    racing: Race = Race((8, 25, 80), (0.12, 1 / 3))
    confirming: Race = Race((30, 100, 300), (0.12, 1 / 3))
    max_widths: int = 16
    near: float = 0.03
    nearest: float = 0.005
    max_polished: int = 12
    refine_iterations: int = 1000
    max_dense: int = 1200
    explore_accuracy: float = 1e-10
    refine_accuracy: float = 1e-13
    polish_accuracy: float = 1e-18
    improvement: float = 1e-6
    found_tolerance: float = 1e-4
    tie_tolerance: float = 1e-9
    batch_numbers: int = 10_000_000

    def __post_init__(self) -> None:
        require_positive_fields(self)


DEFAULTS = SearchOptions()
