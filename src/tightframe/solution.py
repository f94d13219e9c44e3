"""Solution: a minimiser in compact form, its certificate, and everything derived from it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tightframe.geometry.blocks import RANK_TOLERANCE, Array, BlockMatrix, svd, without_rounding
from tightframe.geometry.dense import Geometry
from tightframe.problem.problem import MAX_DENSE_CLASSES, Problem, require_dense


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
        How many starts ended within 1e-4 (relatively) of this objective; None for closed forms.
    """

    name: str
    rank: int
    objective: float
    found: int | None


@dataclass(frozen=True)
class Search:
    """What a multi-start search did and found; none of it is a certificate.

    Attributes
    ----------
    starts : int
        Starts run in all, over all widths.
    seed : int
    widths : tuple of int
        Widths of the factors that were started from.
    candidates : tuple of Candidate
        The winner first, then by objective; of every rank the best that was found.
    winner : {"ETF", "low-rank", "full-rank", "zero"}
        A closed form wins where no found point beats it by more than 1e-9 (relatively).
        ``"full-rank"`` is the rank that classes and ``dim`` allow, K - 1 for cross-entropy.
    converged : bool
        Whether the best point found reached the accuracy of the local solver.
    relaxed_bound : float or None
        With one layer: certified lower bound of the problem without ``dim``. It holds here too,
        but the gap to it need not close.
    """

    starts: int
    seed: int
    widths: tuple[int, ...]
    candidates: tuple[Candidate, ...]
    winner: str
    converged: bool
    relaxed_bound: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return everything JSON-ready."""
        return asdict(self) | {
            "widths": list(self.widths),
            "candidates": [asdict(candidate) for candidate in self.candidates],
        }


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
    status : {"optimal", "local", "not_converged"}
        ``"optimal"`` iff the gap is within the tolerance asked for. ``"local"``: the best point of
        a multi-start search, converged to a local minimum; nothing certifies it.
    note : str
        How the gap is certified, or why there is none.
    seconds : float
        Wall time of the solve.
    search : Search or None
        What was searched and found, where nothing is certified.
    """

    problem: Problem
    blocks: BlockMatrix
    group_bias: Array
    objective: float
    lower_bound: float | None
    method: str
    status: str
    note: str
    seconds: float
    search: Search | None = None

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
        require_dense(self.problem.num_classes, "weights, class_means")
        if (self.problem.dim or 0) > MAX_DENSE_CLASSES:
            raise ValueError(
                f"weights, class_means: dim is {self.problem.dim}; "
                f"factors are written out up to {MAX_DENSE_CLASSES}"
            )
        nonnegative = self.problem.features == "nonnegative"
        return (orthant_factors if nonnegative else balanced_factors)(self.problem, self.logits)

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
            "status": self.status,
            "method": self.method,
            "note": self.note,
            "groups": groups,
            "rank": self.rank,
            "bias": self.group_bias.tolist(),
            "seconds": self.seconds,
            "search": None if self.search is None else self.search.to_dict(),
            "problem": self.problem.to_dict(),
        }


def balanced_factors(problem: Problem, logits: Array) -> tuple[list[Array], Array]:
    """Return the cheapest layers and class means with given logits (real features).

    From the SVD of ``Z D^{1/2}``: every layer carries the same decay cost in every direction
    (docs/theory.md section 2; several layers by the same balance).
    """
    root = np.sqrt(problem.counts)
    left, values, right = svd(logits * root)
    values = without_rounding(values)
    width = problem.dim or problem.num_classes
    kept = min(width, len(values))
    to_layer, to_features = _layer_lengths(problem, values[:kept])
    means = np.zeros((width, problem.num_classes))
    means[:kept] = to_features[:, None] * right[:kept] / root
    weights = []
    for m, lengths in enumerate(to_layer, start=1):
        if m == problem.depth:
            layer = np.zeros((problem.num_classes, width))
            layer[:, :kept] = left[:, :kept] * lengths
        else:
            layer = np.zeros((width, width))
            layer[np.arange(kept), np.arange(kept)] = lengths
        weights.append(layer)
    return weights, means


def orthant_factors(problem: Problem, logits: Array) -> tuple[list[Array], Array]:
    """Return layers and non-negative, orthogonal class means with given logits.

    One axis a class: the columns of ``Z D^{1/2}`` take the place of its singular vectors.
    """
    root = np.sqrt(problem.counts)
    scaled = logits * root
    values = without_rounding(np.linalg.norm(scaled, axis=0))
    active = np.flatnonzero(values > 0)
    width = problem.dim or problem.num_classes
    to_layer, to_features = _layer_lengths(problem, values[active])
    axes = np.arange(len(active))
    means = np.zeros((width, problem.num_classes))
    means[axes, active] = to_features / root[active]
    weights = []
    for m, lengths in enumerate(to_layer, start=1):
        if m == problem.depth:
            layer = np.zeros((problem.num_classes, width))
            layer[:, axes] = scaled[:, active] / values[active] * lengths
        else:
            layer = np.zeros((width, width))
            layer[axes, axes] = lengths
        weights.append(layer)
    return weights, means


def _layer_lengths(problem: Problem, values: Array) -> tuple[list[Array], Array]:
    """Split singular values over layers and features so that all carry equal decay cost."""
    decays = problem.weight_decays
    cost = problem.mean_decay * values ** (2 / (problem.depth + 1))
    return [np.sqrt(cost / decay) for decay in decays], np.sqrt(cost / problem.feature_decay)
