"""Solution: a minimiser in compact form, its certificate, and everything derived from it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tightframe.checks import MAX_DENSE_CLASSES, require_dense
from tightframe.geometry.blocks import Array, BlockMatrix, svd, without_rounding
from tightframe.geometry.dense import Geometry
from tightframe.geometry.grouped import GroupedGeometry, GroupedMatrix
from tightframe.geometry.states import States, block_states
from tightframe.problem.problem import Problem
from tightframe.solvers.search.record import Search
from tightframe.theory.certificate import is_convex


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
    def group_states(self) -> States:
        """States of the classes of each group of ``blocks.partition``, one entry a group."""
        p, problem = self.blocks.partition, self.problem
        # Too narrow features may treat classes of equal count differently: each is a group then.
        whole = p.num_groups == len(problem.groups)
        kinds = None if whole else problem.class_groups
        exact = whole and self.search is None
        return block_states(self.blocks, self.group_bias, kinds, exact=exact)

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
        """State, margins and rival of every class, one entry a class."""
        return self.group_states.of_classes(self.blocks.partition.class_groups)

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

    @cached_property
    def grouped_geometry(self) -> GroupedGeometry:
        """The predicted geometry in compact form, at any number of classes.

        As `GroupedGeometry.from_solution` says; a ValueError where there is no such form.
        """
        problem, blocks = self.problem, self.blocks
        nonnegative = problem.features == "nonnegative"
        if problem.depth > 1 or not (nonnegative or is_convex(problem)):
            raise ValueError(
                f"solution: one of {problem.num_classes} classes has a compact form for one linear "
                "layer and a wide enough dim only"
            )
        p = blocks.partition
        ratio = np.sqrt(problem.feature_decay / problem.weight_decays[0])
        groups = p.class_groups
        logits = GroupedMatrix(
            groups, blocks.within, blocks.mean - np.diag(blocks.within / p.sizes)
        )
        if nonnegative:
            lengths = blocks.column_norms
            shares = np.divide(p.counts, lengths, out=np.zeros_like(lengths), where=lengths > 0)
            across = logits.blocks * shares
            inner = logits.diagonal * across
            classifier = GroupedMatrix(
                groups,
                ratio * logits.diagonal**2 * shares,
                ratio * (inner + inner.T + (across * p.sizes) @ logits.blocks.T),
            )
            axes = np.zeros((p.num_groups, p.num_groups))
            means = GroupedMatrix(groups, lengths / p.counts / ratio, axes)
            return GroupedGeometry("predicted", classifier, means, logits)
        left, values, right = blocks.decomposition
        values = without_rounding(values)
        # Sqrt of Sigma goes to either side; the ratio of the decays shares it out.
        within = np.where(p.sizes > 1, np.sqrt(p.counts) * np.abs(blocks.within), 0.0)
        root = np.sqrt(p.sizes)

        def gram(frame: Array, inner: Array, scale: Array) -> GroupedMatrix:
            mean = (frame * values) @ frame.T / np.outer(root * scale, root * scale)
            inner = inner / scale**2
            return GroupedMatrix(groups, inner, mean - np.diag(inner / p.sizes))

        return GroupedGeometry(
            "predicted",
            gram(left, within, np.full(p.num_groups, 1 / np.sqrt(ratio))),
            gram(right.T, within, np.sqrt(p.counts * ratio)),
            logits,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the summary that the command prints, JSON-ready."""
        p, states = self.blocks.partition, self.group_states
        groups = [
            {
                "count": int(p.counts[i]),
                "classes": int(p.sizes[i]),
                "state": states[i].state,
                "decision_margin": states[i].decision_margin,
                "sibling_margin": states[i].sibling_margin,
                "rival": states[i].rival,
                "with": list(states[i].shares_with),
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
