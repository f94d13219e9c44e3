"""NC2 and NC3: how far means, classifier and mean logits are from a frame or a predicted geometry.

Distances are ``||A/||A||_F - T/||T||_F||_F``, from 0 to 2, NaN with a RuntimeWarning where either
side is zero. Against frames and other targets in compact form no K x K matrix is held.

Two things no implementation can mend: with K = 2 the centred class means are a simplex frame
whatever they are, so their distance to it is 0; and with D < K - 1 no simplex frame fits, so that
distance has a floor above 0, `tightframe.geometry.dense.etf_distance_floor`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tightframe.checks import choice, require_dense
from tightframe.geometry.dense import Geometry, normalized_distance, product_of
from tightframe.geometry.grouped import GroupedGeometry, GroupedMatrix
from tightframe.metrics.inputs import (
    Array,
    as_array,
    classifier,
    classifier_rows,
    layer_list,
    real_rows,
    require_complete,
    usable,
    warn,
)
from tightframe.metrics.moments import EPS, WEIGHTINGS
from tightframe.metrics.plain import plain_tensors
from tightframe.metrics.readings import Readings
from tightframe.metrics.rows import Rows
from tightframe.metrics.snapshot import Snapshot
from tightframe.metrics.tall import Matrix, dense, row_blocks, row_products, select, triangle
from tightframe.metrics.targets import (
    TARGET_PARTS,
    Target,
    as_target,
    restrict,
)
from tightframe.shown import record
from tightframe.solution import Solution

#: Above this squared distance the formula by inner products is exact to 1e-14; below it cancels,
#: and the difference of the two matrices is formed in blocks of rows.
_SAFE_SQUARE = 0.1

#: The inner product of two Gram matrices above this share of their sizes is exact to 1e-12.
_SAFE_PRODUCT = 1e-4

#: Targets of as many classes are kept written out, 128 KiB at most.
_FEW_CLASSES = 128

#: A QR decomposition takes as long as a product of this many times its operations.
_QR_WORK = 4


@plain_tensors()
def measured_geometry(moments: Readings, weight: Any) -> Geometry:
    """Return the network's geometry: Grams of classifier and class means, mean logits W H.

    Parameters
    ----------
    moments : ClassMoments
        Every class must have samples.
    weight : tensor or array_like, shape (K, D)
        Classifier, the product of the layers where there are several.

    Raises
    ------
    ValueError
        If a class has no samples (it is named: no Gram matrix is complete without it), K < 2,
        K > 4096, or the classifier's shape or entries are wrong.
    """
    w, _ = classifier(moments, weight)
    require_complete(moments)
    own = Snapshot.of(moments)
    centered = as_array(own.resolved_means.given).T
    means = as_array(own.means).T
    return Geometry.from_vectors(as_array(w), means, centered=centered)


@plain_tensors()
def margins(moments: Readings, weight: Any) -> NDArray[np.float64]:
    """Return the margins without bias, shape (K, K).

    Entry (j, k) is the mean over the samples of class k of logit k less logit j; it is 0 on the
    diagonal, and class k is told from j when it is positive.

    Parameters and errors are those of `measured_geometry`.
    """
    w, _ = classifier(moments, weight)
    require_complete(moments)
    logits = w @ moments.means.T
    return as_array(logits.diagonal() - logits)


@plain_tensors()
def nc2(
    vectors: Any,
    target: Target = "etf",
    *,
    part: str | None = None,
    weighting: str = "class",
) -> float:
    """Return NC2: the distance of a Gram matrix to that of a frame or predicted geometry.

    ``||G/||G||_F - T/||T||_F||_F`` (Zhu et al. 2021 and Dang et al. 2023 for the classifier,
    Thrampoulidis et al. 2022 and Dang et al. 2024 for both).

    Parameters
    ----------
    vectors : ClassMoments or array_like, shape (K, D)
        Class means; classes without samples are left out, of the target too, with a
        RuntimeWarning. Or the rows of a classifier.
    target : str, Geometry, GroupedGeometry or Solution
        ``"etf"``; ``"orthogonal_frame"``; ``"general_orthogonal_frame"``, the nearest orthogonal
        vectors of any lengths; or anything that is predicted, for example ``tf.seli(counts)`` or
        ``tf.solve(problem)``.
    part : {"classifier", "means", "centered_means"}, optional
        Which Gram of the target. By default ``"centered_means"`` for moments, ``"classifier"`` for
        a matrix. With moments it also says whether the measured means are centred.
    weighting : {"class", "sample"}
        Of the global mean that centred class means are less: of the classes alike, or of all
        samples, as in the code of Papyan et al. (2020) and Zhu et al. (2021).

    Returns
    -------
    float
        From 0 to 2. NaN, with a RuntimeWarning, if all vectors are zero, all class means are
        equal, or the target is zero. With K = 2 the centred means are a simplex frame, whatever
        they are; with D < K - 1 `tightframe.geometry.dense.etf_distance_floor` is the least value.

    Raises
    ------
    ValueError
        If an argument has a wrong shape, type or name, or fewer than two classes are left.
    """
    allowed = TARGET_PARTS[1:3] if isinstance(vectors, Readings) else TARGET_PARTS[:3]
    if part is None:
        part = allowed[-1] if isinstance(vectors, Readings) else "classifier"
    choice("part", part, allowed)
    if isinstance(vectors, Readings):
        goal = as_target(target, vectors.num_classes)
        own = usable(vectors, "nc2")
        rows = Rows(own.means) if part == "means" else _centered(own, weighting)
        if own.num_classes < vectors.num_classes:
            kept = torch.nonzero(vectors.counts)[:, 0]
            goal = restrict(goal, as_array(kept).astype(np.intp))
    else:
        rows = real_rows("vectors", vectors)
        if len(rows.given) < 2:
            raise ValueError("nc2: got 1 vector, need at least 2")
        goal = as_target(target, len(rows.given))
    return distance(rows, rows, goal, part)


@plain_tensors()
def nc3(
    moments: Readings,
    weight: Any,
    target: Target = "etf",
    *,
    centered: bool = True,
    weighting: str = "class",
) -> float:
    """Return NC3: the distance of the mean logits ``W H`` to those of a frame or prediction.

    Zhu et al. (2021) centre the class means by their class average, ``W (H - mu 1^T)``; Dang et
    al. (2023, 2024) and Thrampoulidis et al. (2022) do not where the prediction has no bias.

    Parameters
    ----------
    moments : ClassMoments
        Classes without samples are left out, of classifier and target too, with a RuntimeWarning.
    weight : array_like, shape (K, D)
        Classifier, the product of the layers where there are several.
    target : str, Geometry, GroupedGeometry or Solution
        As for `nc2`.
    centered : bool
        Whether the class means, and the target's, are centred.
    weighting : {"class", "sample"}
        Of the global mean of the measured means, as for `nc2`.

    Returns
    -------
    float
        From 0 to 2; NaN, with a RuntimeWarning, where either side is zero.

    Raises
    ------
    ValueError
        As `nc2`; there is no centred general orthogonal frame.
    """
    w = classifier_rows(moments, weight)
    goal = as_target(target, moments.num_classes)
    own = usable(moments, "nc3")
    rows = _centered(own, weighting) if centered else Rows(own.means)
    if own.num_classes < moments.num_classes:
        kept = torch.nonzero(moments.counts)[:, 0]
        w, goal = Rows(select(w.given, kept)), restrict(goal, as_array(kept).astype(np.intp))
    return distance(w, rows, goal, "centered_logits" if centered else "logits")


@plain_tensors()
def self_duality(
    moments: Readings, weight: Any, target: Target | None = None, *, weighting: str = "class"
) -> float:
    """Return the classical NC3, ``|| W/||W|| - M/||M|| ||_F`` with M the centred class means.

    M holds the class means less their global mean as rows, shape (K, D) (Papyan et al. 2020).

    With a target, M is what the classifier should be given the measured class means H (K x D):
    ``M = A H`` with ``A = Z (H* H*^T)^+`` from the target's mean logits Z and Gram of the means,
    so that the target's own classifier is ``A H*``. That is ``diag(s_k^2M + N lambda_H) H`` for
    Dang et al. (2023) and ``sqrt(n_k) K h_k - sum_m sqrt(n_m) h_m`` for Dang et al. (2024), both up
    to scale, and the centred means for the simplex ETF.

    Parameters
    ----------
    moments : ClassMoments
        Every class must have samples.
    weight : tensor or array_like, shape (K, D)
        Classifier, the product of the layers where there are several.
    target : Geometry, GroupedGeometry, Solution or str, optional
        As for `nc2`; K at most 4096. Without it, any K.
    weighting : {"class", "sample"}
        Of the global mean, without a target; as for `nc2`.

    Returns
    -------
    float
        NaN, with a RuntimeWarning, for a zero classifier or equal class means.

    Raises
    ------
    ValueError
        If a class has no samples, K < 2, or a shape, entry or target is wrong.
    """
    w, _ = classifier(moments, weight)
    require_complete(moments, dense=target is not None)
    if target is None:
        centered = _centered(Snapshot.of(moments), weighting)
        return _distance_of_rows(Rows(w), centered)
    goal = as_target(target, moments.num_classes)
    if isinstance(goal, str):
        raise ValueError("target: the nearest general orthogonal frame predicts no classifier")
    predicted = _predicted_classifier(goal, Snapshot.of(moments))
    return normalized_distance(as_array(w), predicted)


def _centered(moments: Snapshot, weighting: str) -> Rows:
    """Return the class means less the global mean of a weighting."""
    choice("weighting", weighting, WEIGHTINGS)
    return moments.resolved_means if weighting == "class" else moments.resolved(weighting)


def _distance_of_rows(left: Rows, right: Rows) -> float:
    """Return `normalized_distance` of K x D matrices, without another such matrix."""
    if not (left.norm and right.norm):
        warn("distance to a zero matrix is undefined")
        return math.nan
    total = 0.0
    for block in row_blocks(*left.scaled.shape):
        difference = left.scaled[block] / left.norm - right.scaled[block] / right.norm
        total += float(difference.square_().sum())
    return math.sqrt(total)


def _predicted_classifier(goal: Geometry | GroupedGeometry, moments: Snapshot) -> Array:
    dense = goal.to_geometry() if isinstance(goal, GroupedGeometry) else goal
    combine: Array = dense.logits @ np.linalg.pinv(dense.means, 1e-12, hermitian=True)
    # A common shift of the means is taken apart, so that rows that sum to zero do not see it.
    middle = as_array(moments.global_mean())
    ones = combine.sum(axis=1)
    ones[np.abs(ones) <= 1e-10 * np.abs(combine).sum(axis=1)] = 0.0
    return combine @ as_array(moments.resolved_means.given) + np.outer(ones, middle)


@record
class LayerMetrics(NamedTuple):
    """NC2 and NC3 at one cut through a deep linear head; see `layer_metrics`.

    Attributes
    ----------
    layer : int
        m, from 1 to M.
    classifier : float
        Gram of ``W_M...W_m`` to the target's.
    means, centered_means : float
        Gram of ``W_{m-1}...W_1 H``, and of the same centred, to the target's.
    logits, centered_logits : float
        ``W_M...W_1 H`` to the target's; up to rounding the same for all m.
    self_duality : float
        ``||V/||V|| - M/||M||||_F``, V = ``W_M...W_m`` and M its centred means.
    """

    layer: int
    classifier: float
    means: float
    centered_means: float
    logits: float
    centered_logits: float
    self_duality: float


@plain_tensors()
def layer_metrics(
    moments: Readings,
    weights: Sequence[Any],
    target: Target = "etf",
    *,
    weighting: str = "class",
) -> list[LayerMetrics]:
    """Return NC2 and NC3 for every partial product of a deep linear head.

    Cut before layer m, the head is the classifier ``W_M...W_m`` on the features
    ``W_{m-1}...W_1 h``; m = 1 is the whole head on the backbone's features, m = M the last layer on
    what enters it (Dang et al. 2023, https://arxiv.org/abs/2301.00437; 2024,
    https://arxiv.org/abs/2401.02058).

    Parameters
    ----------
    moments : ClassMoments
        Of the features that enter the first linear layer; every class must have samples.
    weights : list of array_like
        ``[W_1, ..., W_M]``, the layer next to the features first, as in `Solution.weights`; W_m has
        shape (d_m, d_{m-1}), with d_0 = D and d_M = K.
    target : str, Geometry, GroupedGeometry or Solution
        A solution of as many layers is compared layer by layer. Anything else is compared as it
        is at every cut, which is what the theorems say for the ETF and the orthogonal frame.
    weighting : {"class", "sample"}
        Of the global mean that is taken off centred means.

    Returns
    -------
    list of LayerMetrics
        One a layer, the first layer first.

    Raises
    ------
    ValueError
        If a class has no samples, the layers do not fit together, or a solution has another depth.
    """
    require_complete(moments, dense=False)
    layers = layer_list(moments, weights)
    goals = _layer_targets(target, moments.num_classes, len(layers))
    out = []
    means, centered = moments.means, _centered(Snapshot.of(moments), weighting).given
    for m, goal in enumerate(goals, start=1):
        head = product_of(layers[m - 1 :])
        general = isinstance(goal, str)
        v, h, c = Rows(head), Rows(means), Rows(centered)
        out.append(
            LayerMetrics(
                m,
                distance(v, v, goal, "classifier"),
                distance(h, h, goal, "means"),
                math.nan if general else distance(c, c, goal, "centered_means"),
                distance(v, h, goal, "logits"),
                math.nan if general else distance(v, c, goal, "centered_logits"),
                normalized_distance(as_array(head), as_array(centered)),
            )
        )
        means, centered = means @ layers[m - 1].T, centered @ layers[m - 1].T
    return out


def _layer_targets(
    target: Target, num_classes: int, depth: int
) -> list[Geometry | GroupedGeometry | str]:
    goal = as_target(target, num_classes)
    if not isinstance(target, Solution):
        return [goal] * depth
    if target.problem.depth != depth:
        raise ValueError(
            f"target: got a solution of {target.problem.depth} layers, the head has {depth}"
        )
    if depth == 1:
        return [goal]
    goals: list[Geometry | GroupedGeometry | str] = []
    means = target.class_means
    for m in range(depth):
        head = product_of(target.weights[m:])
        goals.append(Geometry.from_vectors(head, means, name="predicted"))
        means = target.weights[m] @ means
    return goals


# -- distances without K x K arrays ----------------------------------------------------------------


def distance(left: Rows, right: Rows, target: Geometry | GroupedGeometry | str, part: str) -> float:
    """Return the normalised distance of ``left @ right.T`` to a part of a target.

    Parameters
    ----------
    left, right : Rows
        The same object for a Gram matrix.
    target : Geometry, GroupedGeometry or "general_orthogonal_frame"
    part : str
        One of `TARGET_PARTS`.
    """
    same = left is right
    x, y = left.scaled, right.scaled
    k, d = x.shape
    if isinstance(target, Geometry):
        require_dense(k, "target")
        goal = getattr(target, part) if part != "centered_logits" else target.logits
        if part == "centered_logits":
            goal = goal - goal.mean(axis=1, keepdims=True)
        return normalized_distance(as_array(dense(x) @ dense(y).T), goal)
    if isinstance(target, str) and part.startswith("centered"):
        raise ValueError(f"part: {part} has no general orthogonal frame, need the uncentred one")
    blocks = list(row_blocks(k, k))
    product = None
    if k <= d and len(blocks) == 1:  # written out at once
        product = left.gram if same else dense(x) @ dense(y).T
    matrix = None
    if isinstance(target, str):
        # The nearest one has the diagonal of the matrix itself.
        own = row_products(x, y).clamp(min=0.0)
        norm = float(torch.linalg.vector_norm(own))
        own /= norm or 1.0
    else:
        compact = target.part(part)
        matrix = _Grouped.of(compact, x.device)
        own, norm = matrix.diagonal, compact.norm
    length = (
        _product_norm(left, right) if product is None else float(torch.linalg.matrix_norm(product))
    )
    if length <= 4 * EPS * left.norm * right.norm or norm == 0:  # orthogonal up to rounding
        warn("distance to a zero matrix is undefined")
        return math.nan
    if product is None:
        inner = norm if matrix is None else _inner(x, y, matrix)
        square = 2 - 2 * inner / length
        if square > _SAFE_SQUARE:
            return min(math.sqrt(square), 2.0)
    if product is not None and matrix is not None and matrix.dense is not None:
        difference = torch.sub(product, matrix.dense, alpha=length)
        return min(float(torch.linalg.matrix_norm(difference)) / length, 2.0)
    total, y = 0.0, dense(y)
    for block in blocks:
        difference = (x[block] @ y.T if product is None else product) / length
        if matrix is not None:
            difference -= matrix.rows(block)
        difference.diagonal(block.start).sub_(own[block])
        total += float(torch.linalg.matrix_norm(difference)) ** 2
    return min(math.sqrt(total), 2.0)


def _product_norm(left: Rows, right: Rows) -> float:
    """Return ``||left right^T||_F``, through D x D matrices where they are less work."""
    x, y = left.scaled, right.scaled
    k, d = x.shape
    if d < k:
        if left is right:
            return left.gram_norm
        square = float(torch.dot(left.gram.view(-1), right.gram.view(-1)))
        if square > _SAFE_PRODUCT * left.gram_norm * right.gram_norm:
            return math.sqrt(square)
    if _QR_WORK * d < k:
        # The R factors carry the product's norm without squaring it.
        first, second = triangle(x), triangle(y)
        return float(torch.linalg.matrix_norm(first @ second.T))
    total, y = 0.0, dense(y)
    for block in row_blocks(k, k):
        total += float((x[block] @ y.T).square().sum())
    return math.sqrt(total)


class _Grouped(NamedTuple):
    """A `GroupedMatrix` over its norm, on the measured matrices' device."""

    groups: Tensor  # (K,)
    diagonal: Tensor  # (K,), its part beside the blocks
    blocks: Tensor  # (G, G)
    dense: Tensor | None  # (K, K), of few classes

    @classmethod
    @lru_cache(maxsize=8)
    def of(cls, matrix: GroupedMatrix, device: torch.device) -> _Grouped:
        norm = matrix.norm or 1.0
        groups = torch.as_tensor(matrix.groups, device=device)
        diagonal = torch.as_tensor(matrix.diagonal / norm, device=device)
        blocks, dense = torch.as_tensor(matrix.blocks / norm, device=device), None
        if matrix.num_classes <= _FEW_CLASSES:
            dense = torch.as_tensor(matrix.to_dense() / norm, device=device)
        return cls(groups, diagonal[groups], blocks, dense)

    def rows(self, block: slice) -> Tensor:
        """Return a block of rows without the diagonal; one number where there is one group."""
        if len(self.blocks) == 1:
            return self.blocks
        return self.blocks[self.groups[block]][:, self.groups]


def _inner(left: Matrix, right: Matrix, matrix: _Grouped) -> float:
    """Return ``<left right^T, T>``: the blocks need the sums of the groups' rows only."""

    def sums(rows: Matrix) -> Tensor:
        if isinstance(rows, Tensor) and len(matrix.blocks) == 1:
            return rows.sum(dim=0, keepdim=True)
        out = rows.new_zeros(len(matrix.blocks), rows.shape[1])
        whole = [slice(0, len(rows))] if isinstance(rows, Tensor) else row_blocks(*rows.shape)
        for block in whole:
            out.index_add_(0, matrix.groups[block], rows[block])
        return out

    first = sums(left)
    second = first if left is right else sums(right)
    if len(matrix.blocks) == 1:
        own = matrix.diagonal[0] * _dot(left, right)
    else:
        own = matrix.diagonal @ row_products(left, right)
    return float(own + (matrix.blocks * (first @ second.T)).sum())


def _dot(left: Matrix, right: Matrix) -> Tensor:
    """Return the inner product of two matrices."""
    if isinstance(left, Tensor) and isinstance(right, Tensor):
        return torch.dot(left.reshape(-1), right.reshape(-1))
    return row_products(left, right).sum()
