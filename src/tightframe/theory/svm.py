"""The UFM-SVM, whose solution is SELI: a certificate for any candidate.

    min ||Z D^{1/2}||_*   subject to   z_kk - z_jk >= 1  for all j != k

is the least ``(||W||^2 + ||H||^2) / 2`` of a classifier and free features that separate all samples
with margin one (Thrampoulidis et al. 2022). Its solution, ``I - 11^T/K`` for ANY counts, is where
unbiased cross-entropy points as the decays vanish. docs/theory.md section 5 derives the dual.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from tightframe.geometry.blocks import RANK_TOLERANCE, Array, BlockMatrix, Partition, svd
from tightframe.problem.counts import CountsLike
from tightframe.problem.problem import Problem
from tightframe.rounding import FUNCTION, gamma
from tightframe.theory.certificate import Certificate, finite_array, penalty_with_error, settled
from tightframe.theory.closed_form import relu


@dataclass(frozen=True)
class SvmCertificate(Certificate):
    """Certificate of a candidate of the UFM-SVM.

    Attributes
    ----------
    primal : float
        Nuclear norm of ``Z D^{1/2}``, the logits scaled to a least margin of one.
    dual : float
        Lower bound of the minimum.
    largest_off_diagonal : float
        Largest off-diagonal entry of ``V U^T``, where ``V L U^T`` is the singular value
        decomposition of the centred logits times ``D^{1/2}``. Minus these entries are the dual's
        multipliers; they are all negative for SELI, at any counts.
    """

    largest_off_diagonal: float


def certify_svm(counts: CountsLike, logits: ArrayLike | None = None) -> SvmCertificate:
    """Certify logits as a solution of the UFM-SVM.

    Parameters
    ----------
    counts : str or iterable of int
        Samples per class.
    logits : array_like, shape (K, K), optional
        Mean logits of any scale, column k for the samples of class k; every class must beat the
        others. By default those of SELI, ``I - 11^T/K``, in block form: then a million classes in
        a few groups cost no more than a few.

    Returns
    -------
    SvmCertificate
        ``gap`` bounds the distance from the minimum; for SELI it is zero up to rounding.

    Raises
    ------
    ValueError
        If shapes or values are off, or the least margin is not positive.

    Examples
    --------
    >>> certificate = certify_svm("1000x500000,10x500000")
    >>> certificate.gap < 1e-9 * certificate.primal, certificate.largest_off_diagonal < 0
    (True, True)
    """
    problem = Problem(counts, weight_decay=1.0, feature_decay=1.0)  # for its groups only
    k = problem.num_classes
    if logits is None:
        partition = Partition.coarsest(problem)
        blocks = relu.logits(partition, np.ones(partition.num_groups))
    else:
        blocks = BlockMatrix.from_dense(problem, finite_array("logits", logits, (k, k)))
    margin = _least_margin(blocks)
    if not margin > 0:
        raise ValueError(
            f"logits: the least margin is {margin:.3g}; every class must beat all others"
        )
    blocks = blocks * (1 / margin)
    primal, rounding = map(float, penalty_with_error(problem, blocks, 1.0))
    # Scaled to a least margin of one but for rounding.
    size = float(np.abs(blocks.mean).max() + np.abs(blocks.within).max())
    rounding += gamma(4 * FUNCTION) * size * primal
    polar = _polar(blocks)
    siblings, others = _off_diagonal(polar)
    dual = _dual(blocks.partition, np.maximum(-siblings, 0.0), np.maximum(-others, 0.0))
    return SvmCertificate(
        primal=primal,
        dual=settled(primal, dual, rounding, problem.compact_counts),
        rounding=rounding,
        largest_off_diagonal=float(max(siblings.max(), others.max())),
    )


def _off_diagonal(matrix: BlockMatrix) -> tuple[Array, Array]:
    """Return sibling entries (G,) and other groups' entries (G, G); -inf where there are none."""
    p = matrix.partition
    siblings = np.where(p.sizes > 1, np.diagonal(matrix.mean) - matrix.within / p.sizes, -np.inf)
    others = matrix.mean.copy()
    np.fill_diagonal(others, -np.inf)
    return siblings, others


def _least_margin(logits: BlockMatrix) -> float:
    p = logits.partition
    siblings, others = _off_diagonal(logits)
    own = np.diagonal(logits.mean) + logits.within * (p.sizes - 1) / p.sizes
    return float((own - np.maximum(siblings, others.max(axis=0))).min())


def _polar(logits: BlockMatrix) -> BlockMatrix:
    """Return ``V U^T`` of the centred ``Z D^{1/2} = V L U^T``, over the positive values of L."""
    p = logits.partition
    # Centring costs nothing and gives V^T 1 = 0, which the dual needs: multipliers sum to zero.
    center = p.sizes @ logits.mean / p.num_classes
    left, values, right = svd((logits.mean - center) * p.scale)
    within = np.sqrt(p.counts) * np.abs(logits.within)
    limit = RANK_TOLERANCE * max(values.max(), within.max())
    reduced = (left * (values > limit)) @ right
    root = np.sqrt(p.sizes)
    signs = np.where(within > limit, np.sign(logits.within), 0.0)
    return BlockMatrix(p, signs, reduced / np.outer(root, root))


def _dual(partition: Partition, siblings: Array, others: Array) -> float:
    """Return the bound of multipliers proportional to ``siblings`` and ``others``, at least 0.

    The multipliers are these times ``sqrt(n_k)``. ``A_jk = -alpha_jk``, A_kk balances its column;
    the sum of all alpha is a bound once ``||A D^{-1/2}||_op <= 1``.
    """
    p = partition
    root = np.sqrt(p.counts)
    siblings, others = siblings * root, others * root
    np.fill_diagonal(others, 0.0)
    siblings = np.where(p.sizes > 1, siblings, 0.0)
    elsewhere = p.sizes @ others
    total = elsewhere + (p.sizes - 1) * siblings
    mean = np.diag(elsewhere / p.sizes) - others
    within = np.where(p.sizes > 1, total + siblings, 0.0)
    norm = float(BlockMatrix(p, within / p.counts, mean / p.counts).norm_bound)
    bound = float(p.sizes @ total) * (1 - gamma(2 * p.num_groups + 4 * FUNCTION))
    return bound / norm if norm > 0 else 0.0
