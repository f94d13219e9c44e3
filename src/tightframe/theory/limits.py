"""Both ends of the regularisation path: vanishing decays, and decays just below total collapse."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tightframe.geometry.blocks import BlockMatrix, svd
from tightframe.geometry.dense import Geometry, orthogonal_frame, seli
from tightframe.problem.problem import Problem, at_most
from tightframe.theory.coverage import require_convex
from tightframe.theory.factors import balanced_factors
from tightframe.theory.thresholds import residual_at_zero

#: Singular values this close, relatively, count as the same.
TIE = 1e-9


@dataclass(frozen=True, eq=False)
class PathLimits:
    """Geometry at both ends of the regularisation path, up to scale.

    Attributes
    ----------
    vanishing : Geometry or None
        As the decays vanish: SELI for cross-entropy; orthogonal class means and classifier rows for
        MSE. None where it is not known: with a free bias.
    collapse : Geometry
        Just below `total_collapse`: what is left last.
    total_collapse : float
        From this ``sqrt(weight_decay feature_decay)`` on everything is zero.
    """

    vanishing: Geometry | None
    collapse: Geometry
    total_collapse: float


def path_limits(problem: Problem) -> PathLimits:
    """Return the geometry at both ends of the regularisation path.

    Small decays: Thrampoulidis et al. (2022) for cross-entropy; a decayed bias vanishes, because
    its cost grows with the square of the logits' size and the saving does not. Near total collapse
    the logits lie in the top singular space of the gradient at zero: the contrasts among the
    classes with most samples, or the top pair if there is one such class.

    Raises
    ------
    ValueError
        If the problem has no convex form.
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
    logits = BlockMatrix(p, contrasts, reduced / p.scale).to_dense()
    layers, means = balanced_factors(problem.replace(dim=None), logits)
    vanishing = None
    if problem.bias != "free":
        frame = problem.loss_object.vanishing_frame
        if frame == "seli":
            vanishing = seli(problem.compact_counts)
        elif frame == "orthogonal":
            vanishing = _orthogonal(problem)
    return PathLimits(
        vanishing,
        Geometry.from_vectors(layers[0], means, name="total collapse"),
        norm / problem.num_samples,
    )


def _orthogonal(problem: Problem) -> Geometry:
    """Return the orthogonal frame with the lengths of vanishing decay (Dang et al. 2023)."""
    root = np.sqrt(problem.counts)
    frame = orthogonal_frame(problem.num_classes)
    return Geometry(
        "general orthogonal frame", frame.classifier * root, frame.means / root, frame.logits
    )
