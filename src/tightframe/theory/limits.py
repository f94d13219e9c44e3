"""Both ends of the regularisation path: vanishing decays, and decays just below total collapse."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tightframe.geometry.blocks import Array, BlockMatrix, Partition, svd
from tightframe.geometry.dense import Geometry, orthogonal_frame, seli
from tightframe.problem.problem import Problem, at_most
from tightframe.theory.coverage import given_scales, require_convex
from tightframe.theory.factors import balanced_factors
from tightframe.theory.thresholds import residual_at_zero

#: Singular values this close, relatively, count as the same.
TIE = 1e-9

#: Rounds that `_shared_bias` needs at most, a few beside equality of its two cases.
_MAX_ROUNDS = 1000


@dataclass(frozen=True, eq=False)
class PathLimits:
    """Geometry at both ends of the regularisation path, up to scale.

    Attributes
    ----------
    vanishing : Geometry or None
        As the decays of weights and features vanish, and that of a decayed bias is held: SELI for
        cross-entropy, orthogonal class means and classifier rows for MSE. With a free bias
        ``tightframe.seli(counts, bias="free")`` for both. Smoothed labels have finite logits in the
        limit, whose softmax is the label (less adjustment and margins). None where it is not known:
        smoothed labels with a free bias, others with a logit scale or feature weights.
    vanishing_in_proportion : Geometry or None
        As all decays vanish in proportion, that of a decayed bias too: another geometry than
        `vanishing` for MSE with a decayed bias only.
    collapse : Geometry
        Just below `total_collapse`: what is left last.
    total_collapse : float
        From this ``sqrt(weight_decay feature_decay)`` on everything is zero.
    """

    vanishing: Geometry | None
    collapse: Geometry
    total_collapse: float
    vanishing_in_proportion: Geometry | None


def path_limits(problem: Problem) -> PathLimits:
    """Return the geometry at both ends of the regularisation path.

    Small decays: Thrampoulidis et al. (2022) for cross-entropy without bias. A decayed bias of
    cross-entropy vanishes beside the logits, slowly, even if its decay shrinks in proportion: its
    cost grows with the square of the logits' size and the saving does not. With MSE the logits
    keep their size, so the bias vanishes if its decay is held; in proportion it stays, and takes
    the more out of the logits the smaller bias_decay / sqrt(weight_decay feature_decay) is
    (docs/theory.md section 4). Near total collapse the logits lie in the top singular space of the
    gradient at zero: the contrasts among the classes with most samples, or the top pair if there
    is one such class.

    Raises
    ------
    ValueError
        If the problem has no convex form.

    Examples
    --------
    >>> problem = Problem("100x2,10x2", weight_decay=1e-3, feature_decay=1e-3, bias="free")
    >>> path_limits(problem).vanishing.name
    'free-bias SELI'
    """
    require_convex(problem, "path_limits")
    residual = residual_at_zero(problem)
    p = residual.partition
    norm = residual.operator_norm
    left, values, right = svd(residual.reduced)
    top = at_most(norm, values * (1 + TIE)).astype(np.float64)
    reduced = (left * -top) @ right
    contrasts = np.where(
        (p.sizes > 1) & at_most(norm, np.sqrt(p.counts) * np.abs(residual.within) * (1 + TIE)),
        1 / np.sqrt(p.counts),
        0.0,
    )
    vanishing = _vanishing(problem)
    in_proportion = vanishing
    if problem.bias == "decayed" and problem.loss_object.vanishing_frame == "orthogonal":
        bias = _shared_bias(p, problem.bias_decay / problem.logit_decay)
        labels = BlockMatrix(
            p, np.where(p.sizes > 1, 1.0, 0.0), np.diag(1 / p.sizes) - bias[:, None]
        )
        in_proportion = _realised(problem, labels, "labels less a decayed bias")
    return PathLimits(
        vanishing,
        _realised(problem, BlockMatrix(p, contrasts, reduced / p.scale), "total collapse"),
        norm / p.num_samples,
        in_proportion,
    )


def _realised(problem: Problem, logits: BlockMatrix, name: str) -> Geometry:
    """Return the geometry of the cheapest factors of logits."""
    layers, means = balanced_factors(problem.replace(dim=None), logits.to_dense())
    return Geometry.from_vectors(layers[0], means, name=name)


def _vanishing(problem: Problem) -> Geometry | None:
    """Return the limit of vanishing decays, that of a decayed bias held."""
    frame = problem.loss_object.vanishing_frame
    if problem.label_smoothing:
        return None if problem.bias == "free" else _fitted_labels(problem)
    if frame is None or given_scales(problem):
        return None
    if problem.bias == "free":
        # The limit of cross-entropy, centred by the shares, is what MSE interpolates as well.
        return seli(problem.compact_counts, bias="free")
    if frame == "seli":
        return seli(problem.compact_counts)
    root = np.sqrt(problem.counts)
    eye = orthogonal_frame(problem.num_classes)
    return Geometry("general orthogonal frame", eye.classifier * root, eye.means / root, eye.logits)


def _fitted_labels(problem: Problem) -> Geometry:
    """Return the geometry of the logits whose predictions inside the loss are smoothed labels."""
    p = Partition.coarsest(problem)
    exact = p.matrix(np.zeros(p.num_groups), np.zeros((p.num_groups, p.num_groups)))
    logits = p.matrix(*problem.loss_object.datafit(p).scores(exact))
    return _realised(problem, logits, "log odds of the labels")


def _shared_bias(partition: Partition, ratio: float) -> Array:
    """Return the bias b of a class of each group that minimises the cost of interpolation.

    That is ``||D^{1/2} - b sqrt(n)^T||_* + (ratio / 2) ||b||^2``, the cost of ``Z + b 1^T = I``
    over lambda. If ``ratio >= sum sqrt(n_k)`` the matrix stays positive semi-definite and
    ``b = sqrt(n) / ratio``. Otherwise ``sum b_k = 1``, and the matrix times its transpose is
    ``D - n n^T/N + N c c^T``, ``c = b - n/N``. Its square root's trace is concave in ``c c^T``;
    each round minimises the quadratic in c that touches it from above.
    """
    n, root = partition.counts, np.sqrt(partition.sizes)
    if partition.sizes @ np.sqrt(n) <= ratio:
        return np.sqrt(n) / ratio
    total = partition.num_samples
    ones = root / np.linalg.norm(root)  # on group indicators, as everything below
    center = np.eye(len(n)) - np.outer(ones, ones)
    laplacian = np.diag(n) - np.outer(root * n, root * n) / total
    goal = center @ (root * n / total)
    c = -goal
    for _ in range(_MAX_ROUNDS):
        values, vectors = np.linalg.eigh(laplacian + total * np.outer(c, c))
        values[0] = np.inf  # the constants, which stay out
        weights = center @ (vectors / np.sqrt(values)) @ vectors.T @ center
        new = -np.linalg.solve(total * weights + ratio * np.eye(len(n)), ratio * goal)
        change, c = np.linalg.norm(new - c), new
        if change <= 1e-14 * np.linalg.norm(goal):
            break
    return n / total + c / root
