"""Solution: a minimiser in compact form, its certificate, and everything derived from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tightframe.geometry.blocks import RANK_TOLERANCE, Array, BlockMatrix
from tightframe.geometry.dense import Geometry
from tightframe.geometry.grouped import GroupedGeometry
from tightframe.problem.problem import Problem
from tightframe.solvers.search.record import Search
from tightframe.solvers.stats import Stats
from tightframe.theory.factors import cheapest_factors, grouped_geometry


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
class Solution:
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

    @property
    def gap(self) -> float | None:
        """Certified absolute gap to the global minimum, or None (the reason is in `note`)."""
        return None if self.lower_bound is None else max(self.objective - self.lower_bound, 0.0)

    # -- per group ----------------------------------------------------------------------------

    @cached_property
    def group_margins(self) -> Array:
        """Margin of each group, shape (G,): own logit minus the logit of a sibling class.

        For a class alone in its group: own logit minus the largest other one, bias included (it
        cancels between siblings).
        """
        p = self.blocks.partition
        scores = self.blocks.mean + self.group_bias[:, None]
        rivals = scores.copy()
        np.fill_diagonal(rivals, -np.inf)
        alone = np.diagonal(scores) - rivals.max(axis=0)
        return np.where(p.sizes > 1, self.blocks.within, alone) + 0.0  # no negative zeros

    @cached_property
    def group_collapsed(self) -> NDArray[np.bool_]:
        """Whether the classes of each group share one mean, or vanish to zero, shape (G,)."""
        # Zeros are exact: closed forms and solver know beforehand which margins vanish.
        p, norms = self.blocks.partition, self.blocks.column_norms
        collapsed: NDArray[np.bool_] = (norms == 0) | ((p.sizes > 1) & (self.blocks.within == 0))
        # Classes of equal count that the solver kept apart (too narrow features) may still agree.
        for i in np.flatnonzero((p.sizes == 1) & ~collapsed):
            same = [part == part[i] for part in (p.sizes, p.counts, p.weights, p.adjustment)]
            twins = np.flatnonzero(np.all(same, axis=0))
            if len(twins) > 1:
                differences = self.blocks.mean[:, twins] - self.blocks.mean[:, [i]]
                distances = np.sqrt(p.counts[i]) * np.linalg.norm(differences, axis=0)
                collapsed[i] = (distances <= RANK_TOLERANCE * norms[i]).sum() > 1
        return collapsed

    # -- per class ----------------------------------------------------------------------------

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

    # -- dense arrays, built on request -------------------------------------------------------

    @cached_property
    def logits(self) -> Array:
        """Mean logits without bias, shape (K, K); column k holds the samples of class k."""
        return self.blocks.to_dense()

    @cached_property
    def _factors(self) -> tuple[list[Array], Array]:
        return cheapest_factors(self.problem, self.logits)

    @property
    def weights(self) -> list[Array]:
        """The linear layers, W_1 (next to the features) first; the last has shape (K, d).

        One representative: any rotation of the features gives another (of the same geometry).
        """
        return self._factors[0]

    @property
    def class_means(self) -> Array:
        """Class means as columns, shape (d, K), matching `weights`."""
        return self._factors[1]

    @cached_property
    def geometry(self) -> Geometry:
        """The predicted geometry; the classifier is the product of the layers."""
        layers = self.weights
        product = layers[0]
        for layer in layers[1:]:
            product = layer @ product
        return Geometry.from_vectors(product, self.class_means, name="predicted")

    @cached_property
    def grouped_geometry(self) -> GroupedGeometry:
        """The predicted geometry in compact form, at any number of classes.

        As `GroupedGeometry.from_solution` says; a ValueError where there is no such form.
        """
        return grouped_geometry(self.problem, self.blocks)

    def to_dict(self) -> dict[str, Any]:
        """Return the summary that the command prints, JSON-ready."""
        p = self.blocks.partition
        groups = [
            {
                "count": int(p.counts[i]),
                "classes": int(p.sizes[i]),
                "margin": float(self.group_margins[i]),
                "collapsed": bool(self.group_collapsed[i]),
                "class_weight": float(p.weights[i]),
                "logit_adjustment": float(p.adjustment[i]),
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
