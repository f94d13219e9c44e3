"""Solution: a minimiser in compact form, its certificate, and everything derived from it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tightframe.geometry.blocks import Array, BlockMatrix, Partition
from tightframe.geometry.dense import Geometry, product_of
from tightframe.geometry.grouped import GroupedGeometry
from tightframe.geometry.states import States, block_states
from tightframe.problem.problem import Problem
from tightframe.saved import Saved, kept
from tightframe.shown import Block, Shown, frame, plot
from tightframe.solvers.search.record import Search
from tightframe.solvers.stats import Stats
from tightframe.theory.axes import Axes, axes_geometry, written_out
from tightframe.theory.factors import cheapest_factors, grouped_geometry

if TYPE_CHECKING:
    import pandas as pd


@kept
class Status(StrEnum):
    """How a solve ended: equal to its word, and with a sentence in `message`."""

    OPTIMAL = "optimal", "a global minimum, certified to the tolerance asked for"
    LOCAL = "local", "a local minimum, the best that a search found; nothing certifies it"
    NOT_CONVERGED = "not_converged", "stopped before the tolerance or a local minimum was reached"

    message: str

    def __new__(cls, value: str, message: str) -> Status:
        """Make a member out of its word and its sentence."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.message = message
        return member

    def __repr__(self) -> str:
        return repr(self.value)


@dataclass(frozen=True, eq=False)
class Solution(Shown, Saved):
    """A minimiser of a `Problem` and how well that is certified.

    Attributes
    ----------
    problem : Problem
    blocks : BlockMatrix
        Mean logits (without bias) in block form; ``blocks.partition`` says which classes share.
    group_bias : ndarray, shape (G,)
        Bias of a class of each group.
    objective : float
        Objective at the returned point (nats for cross-entropy).
    lower_bound : float or None
        Certified lower bound of the global minimum, by duality or by a theorem.
    method : str
        What produced the point, for example ``"closed form: balanced cross-entropy"``.
    status : Status
        ``"optimal"``, ``"local"`` or ``"not_converged"``; ``status.message`` says what it means.
        ``"optimal"`` iff the gap is within the tolerance asked for. ``"local"``: the best point of
        a multi-start search, converged to a local minimum; nothing certifies it.
    note : str
        How the gap is certified, or why there is none.
    seconds : float
        Wall time of the solve.
    search : Search or None
        What was searched and found, where nothing is certified.
    stats : Stats
        What the solver did on its way.
    factors : tuple of list of ndarray and ndarray, or None
        Layers and class means where logits alone do not tell them: of non-negative features whose
        class means are not orthogonal, up to 100 classes.
    axes : Axes or None
        The same of more classes, of the size of the groups.
    """

    problem: Problem
    blocks: BlockMatrix
    group_bias: Array
    objective: float
    lower_bound: float | None
    method: str
    status: Status
    note: str
    seconds: float
    search: Search | None = None
    stats: Stats = field(default_factory=Stats)
    factors: tuple[list[Array], Array] | None = None
    axes: Axes | None = None

    @property
    def gap(self) -> float | None:
        """Certified absolute gap to the global minimum, or None (the reason is in `note`)."""
        return None if self.lower_bound is None else self.objective - self.lower_bound

    # -- per group ----------------------------------------------------------------------------

    @cached_property
    def group_states(self) -> States:
        """States of the classes of each group of ``blocks.partition``, one entry a group."""
        return self.states_with(self.blocks)

    def states_with(self, logits: BlockMatrix) -> States:
        """Return `group_states` of other logits of the same zeros, such as scaled columns."""
        p, problem = logits.partition, self.problem
        # Too narrow features may treat classes of equal count differently: each is a group then.
        whole = p.num_groups == len(problem.groups)
        kinds = None if whole else problem.class_groups
        exact = whole and self.search is None
        return block_states(logits, self.group_bias, kinds, exact=exact)

    @cached_property
    def group_margins(self) -> Array:
        """Sibling margin of each group, and the decision margin of classes alone, shape (G,).

        Own logit minus the logit of a sibling class, a class of the same group. For a class alone
        in its group: own logit minus the largest other one, bias included (it cancels between
        siblings). `group_states` has either margin of every group, under its name.
        """
        p, states = self.blocks.partition, self.group_states
        return np.where(p.sizes > 1, states.sibling_margin, states.decision_margin)

    @cached_property
    def group_collapsed(self) -> NDArray[np.bool_]:
        """Whether the classes of each group share one prediction or vanish, shape (G,).

        They may be *lost* at that, taken for another group; see `group_states`.
        """
        return self.group_states.collapsed

    # -- per class ----------------------------------------------------------------------------

    @cached_property
    def states(self) -> States:
        """State, margins and rival of every class, one entry a class.

        Whether siblings merge is exact. Where class means shrink to zero, or another class takes
        over, a state is as exact as the solve: at the default tolerance within some 1e-5 of that
        decay (1e-4 at a million classes) it may be the other side's; `tightframe.state_changes`
        tells the decay to 1e-9. With ``dim`` too narrow, minimisers may differ in states; these are
        of one of them.
        """
        return self.group_states.of_classes(
            self.blocks.partition.class_groups, self.problem.class_names
        )

    @property
    def margins(self) -> Array:
        """`group_margins` of every class, shape (K,)."""
        return self.group_margins[self.blocks.partition.class_groups]

    @property
    def collapsed(self) -> NDArray[np.bool_]:
        """`group_collapsed` of every class, shape (K,)."""
        return self.group_collapsed[self.blocks.partition.class_groups]

    @property
    def bias(self) -> Array:
        """Bias of every class, shape (K,); zeros without bias."""
        return self.group_bias[self.blocks.partition.class_groups]

    @property
    def rank(self) -> int:
        """Rank of the logits: the width the features need."""
        return self.blocks.rank

    @property
    def nuclear_norm(self) -> float:
        """Nuclear norm of the logits times the roots of the counts; one layer's decay cost.

        ``logit_decay`` times this is the decay of classifier and features together. With logit
        scales or feature weights the logits are scaled by these, and the latter take the counts'
        place.
        """
        values, times = self.blocks.spectrum
        return float(values @ times)

    # -- dense arrays, built on request -------------------------------------------------------

    @cached_property
    def logits(self) -> Array:
        """Mean logits without bias, shape (K, K); column k holds the samples of class k."""
        return self.blocks.to_dense()

    @cached_property
    def _factors(self) -> tuple[list[Array], Array]:
        if self.axes is not None:
            return written_out(self.problem, self.blocks.partition, self.axes)
        return self.factors or cheapest_factors(self.problem, self.logits)

    @property
    def weights(self) -> list[Array]:
        """The linear layers, W_1 (next to the features) first; the last has shape (K, d).

        One representative: any rotation of the features gives another (of the same geometry), with
        non-negative features any that keeps them non-negative.
        """
        return self._factors[0]

    @property
    def class_means(self) -> Array:
        """Class means as columns, shape (d, K), matching `weights`."""
        return self._factors[1]

    @cached_property
    def geometry(self) -> Geometry:
        """The predicted geometry; the classifier is the product of the layers."""
        if self.axes is not None:
            return self.grouped_geometry.to_geometry()
        product = product_of(self.weights)
        return Geometry.from_vectors(product, self.class_means, name="predicted")

    @cached_property
    def grouped_geometry(self) -> GroupedGeometry:
        """The predicted geometry in compact form, at any number of classes.

        As `GroupedGeometry.from_solution` says; a ValueError where there is no such form.
        """
        if self.axes is not None:
            return axes_geometry(self.problem, self.blocks, self.axes)
        return grouped_geometry(self.problem, self.blocks)

    def averaged(self) -> Solution:
        """Return it with logits and bias averaged over the classes of each of the problem's groups.

        Without ``dim`` one layer's problem is convex in them, so that this costs no more. Only a
        descent that stopped early, where nothing else is found, tells such classes apart.
        """
        p, partition = self.blocks.partition, Partition.coarsest(self.problem)
        if p.num_groups == partition.num_groups:
            return self
        blocks = BlockMatrix.averaged(partition, self.blocks.to_dense())
        bias = np.bincount(partition.class_groups, self.bias) / partition.sizes
        return replace(self, blocks=blocks, group_bias=bias)

    def __repr__(self) -> str:
        gap = "no gap" if self.gap is None else f"gap {self.gap:.1e}"
        states = ", ".join(
            f"{number} {state}" for state, number in self.group_states.counts.items()
        )
        return (
            f"<Solution: {self.problem.num_classes} classes ({states}), objective "
            f"{self.objective:.10g}, {gap}, rank {self.rank}, {self.status.value}>"
        )

    def _blocks(self) -> Iterator[Block]:
        from tightframe.views.solutions import solution_table

        yield repr(self)[1:-1]
        yield solution_table(self)
        yield f"{self.method}; {self.note}."

    def to_frame(self) -> pd.DataFrame:
        """Return one row a group of classes that are alike: count, state and margins.

        `states` has the same of every class. See `tightframe.shown.frame`.
        """
        from tightframe.views.solutions import solution_rows

        return frame(solution_rows(self))

    def plot(self, ax: Any = None, *, what: str = "wheel") -> tuple[Any, Any]:
        """Draw where every class is sent.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
        what : {"wheel", "logits", "margins"}
            The wheel of `tightframe.report.wheel`; the mean logits, bias included, of at most 100
            classes; or the decision margins.

        Returns
        -------
        fig, ax
            See `tightframe.shown.plot`.

        Raises
        ------
        ValueError
            If ``what`` is something else, or there are too many classes for their logits.
        """
        from tightframe.views.solutions import solution_panels

        return plot(solution_panels(self, what), ax)

    def to_dict(self) -> dict[str, Any]:
        """Return the summary that the command prints, JSON-ready."""
        p, states = self.blocks.partition, self.group_states
        names, terms = self.problem.group_names(p), self.problem.group_terms
        if p.num_groups != len(terms):  # every class is a group of its own
            terms = [terms[kind] for kind in self.problem.class_groups.tolist()]
        groups = [
            {
                "count": int(p.samples[i]),
                "classes": int(p.sizes[i]),
                "state": states[i].state,
                "decision_margin": states[i].decision_margin,
                "sibling_margin": states[i].sibling_margin,
                "rival": states[i].rival,
                "with": list(states[i].shares_with),
                "margin": float(self.group_margins[i]),
                "collapsed": bool(self.group_collapsed[i]),
                **terms[i],
                **({"names": names[i]} if names[i] else {}),
            }
            for i in range(p.num_groups)
        ]
        return {
            "objective": self.objective,
            "gap": self.gap,
            "lower_bound": self.lower_bound,
            "status": self.status.value,
            "method": self.method,
            "note": self.note,
            "groups": groups,
            "rank": self.rank,
            "bias": self.group_bias.tolist(),
            "seconds": self.seconds,
            "search": None if self.search is None else self.search.to_dict(),
            "problem": self.problem.to_dict(),
        }
