"""What a search spends its work on."""

from __future__ import annotations

from dataclasses import dataclass, replace

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
    most : tuple of int
        Of moves: how many of each neighbourhood run; of more, so many at random.
    least : int
        So many points of a chain go on whatever their share: of few, a share is soon too few.
    """

    lengths: tuple[int, ...]
    kept: tuple[float, ...]
    most: tuple[int, ...] = ()
    least: int = 1

    def within(self, iterations: int) -> Race:
        """Return the race with no more than so many iterations."""
        lengths = tuple(min(length, iterations) for length in self.lengths)
        return replace(self, lengths=lengths)


@dataclass(frozen=True)
class SearchOptions:
    """What a search spends its work on.

    Attributes
    ----------
    chains, max_chains : int
        Chains of local search that run together and have to agree; if they do not, as many more,
        at most so many in all.
    majority : float
        The share of all chains that have to agree.
    max_rounds : int
        How often a chain may try moves.
    starting, racing, patient : Race
        Of the starts of a chain, of its moves, and of those from where no move helped in the last.
    settling : int
        Iterations that bring the end of a chain so near its minimum that ends can be compared.
    max_patient : int
        Different points whose moves are given more time, the best ones.
    max_widths : int
        With several layers a singular value that is zero stays zero in a descent, so every width
        is tried; if there are more, the best one is bracketed.
    near : float
        Chains are run at the widths whose best start is, relatively, so near the best of all.
    refine_iterations : int
        Iterations allowed until the winner's rank is clear.
    max_dense, max_cheap : int
        Numbers of a point up to which the winner, and the best of other ranks, are polished by
        Newton's method with a dense Hessian.
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
    majority: float = 0.6
    max_rounds: int = 60
    starting: Race = Race((40, 150), (0.5,))
    racing: Race = Race((8, 25, 80), (0.12, 1 / 3), (100, 60))
    patient: Race = Race((30, 80, 250), (0.2, 0.4), (300, 300), least=16)
    settling: int = 300
    max_patient: int = 3
    max_widths: int = 16
    near: float = 0.03
    refine_iterations: int = 1000
    max_dense: int = 1200
    max_cheap: int = 400
    explore_accuracy: float = 1e-8
    refine_accuracy: float = 1e-13
    polish_accuracy: float = 1e-18
    improvement: float = 1e-6
    found_tolerance: float = 1e-4
    tie_tolerance: float = 1e-9
    batch_numbers: int = 10_000_000

    def __post_init__(self) -> None:
        require_positive_fields(self)


DEFAULTS = SearchOptions()

#: Of more classes than this a search tries a sample of the moves, in one batch of chains, at the
#: best width, and polishes nothing but the winner: it takes a second at 60 classes. What two chains
#: find is always called unsure (`tightframe.solvers.search.record`).
MANY = 24
FOR_MANY = SearchOptions(
    chains=2,
    max_chains=2,
    max_rounds=4,
    starting=Race((10, 40), (0.34,)),
    racing=Race((8, 25, 80), (0.12, 1 / 3), (40, 40)),
    patient=Race((8, 25), (0.12,), (40, 40)),
    settling=100,
    max_patient=1,
    near=1e-9,
)


def options_for(num_classes: int) -> SearchOptions:
    """Return what a search spends on so many classes."""
    return FOR_MANY if num_classes > MANY else DEFAULTS
