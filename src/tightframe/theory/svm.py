"""The UFM-SVM, whose solution is SELI: a certificate for any candidate.

    min ||Z D^{1/2}||_*   subject to   z_kk - z_jk >= 1  for all j != k

is the least ``(||W||^2 + ||H||^2) / 2`` of a classifier and free features that separate all samples
with margin one (Thrampoulidis et al. 2022). Its solution, ``I - 11^T/K`` for ANY counts, is where
unbiased cross-entropy points as the decays vanish. With a free bias, margins are those of
``Z + b 1^T`` for any b, and the solution is ``I - n 1^T/N``, again for any counts. docs/theory.md
section 5 derives both duals.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from tightframe.checks import choice
from tightframe.geometry.blocks import RANK_TOLERANCE, Array, BlockMatrix, Partition, svd
from tightframe.geometry.dense import SELI_NAMES
from tightframe.problem.counts import CountsLike
from tightframe.problem.problem import Problem
from tightframe.rounding import FUNCTION, gamma
from tightframe.saved import filed
from tightframe.theory.certificate import Certificate, finite_array, penalty_with_error, settled
from tightframe.theory.closed_form import relu


@filed
@dataclass(frozen=True, repr=False)
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
        multipliers; they are all negative for SELI, at any counts and with either bias.
    """

    largest_off_diagonal: float


def certify_svm(
    counts: CountsLike, logits: ArrayLike | None = None, *, bias: str = "none"
) -> SvmCertificate:
    """Certify logits as a solution of the UFM-SVM.

    Parameters
    ----------
    counts : str or iterable of int
        Samples per class.
    logits : array_like, shape (K, K), optional
        Mean logits of any scale, without bias, column k for the samples of class k; every class
        must beat the others. By default those of `seli`, in block form: then a million classes in a
        few groups cost no more than a few.
    bias : {"none", "free"}
        Bias of the head. With a free one the logits get the bias that makes their least margin
        largest.

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
    >>> free = certify_svm("1000x500000,10x500000", bias="free")
    >>> free.gap < 1e-9 * free.primal, free.primal < certificate.primal
    (True, True)
    """
    choice("bias", bias, SELI_NAMES)
    free = bias == "free"
    problem = Problem(counts, weight_decay=1.0, feature_decay=1.0)  # for its groups only
    k = problem.num_classes
    if logits is not None:
        blocks = BlockMatrix.from_dense(problem, finite_array("logits", logits, (k, k)))
        margin = least_margin(blocks, bias)
    else:
        blocks, margin = seli_blocks(Partition.coarsest(problem), bias), 1.0
    if not margin > 0:
        raise ValueError(
            f"logits: the least margin is {margin:.3g}; every class must beat all others"
        )
    blocks = blocks * (1 / margin)
    primal, rounding = map(float, penalty_with_error(problem, blocks, 1.0))
    # Scaled to a least margin of one but for rounding.
    size = float(np.abs(blocks.mean).max() + np.abs(blocks.within).max())
    rounding += gamma(4 * FUNCTION) * size * primal
    polar = _polar(blocks, free)
    siblings, others = _off_diagonal(polar)
    multipliers = np.maximum(-siblings, 0.0), np.maximum(-others, 0.0)
    dual = _dual(blocks.partition, *multipliers, free)
    return SvmCertificate(
        primal=primal,
        dual=settled(primal, dual, rounding, problem.compact_counts),
        rounding=rounding,
        largest_off_diagonal=float(max(siblings.max(), others.max())),
    )


def seli_blocks(partition: Partition, bias: str) -> BlockMatrix:
    """Return the logits of `seli` in block form; classes may have no samples."""
    if bias == "none":
        return relu.logits(partition, np.ones(partition.num_groups))
    p = partition
    shares = p.counts / p.num_samples
    mean = np.diag(1 / p.sizes) - shares[:, None]
    return BlockMatrix(p, np.where(p.sizes > 1, 1.0, 0.0), mean)


def _off_diagonal(matrix: BlockMatrix) -> tuple[Array, Array]:
    """Return sibling entries (G,) and other groups' entries (G, G); -inf where there are none."""
    p = matrix.partition
    siblings = np.where(p.sizes > 1, np.diagonal(matrix.mean) - matrix.within / p.sizes, -np.inf)
    others = matrix.mean.copy()
    np.fill_diagonal(others, -np.inf)
    return siblings, others


def least_margin(logits: BlockMatrix, bias: str) -> float:
    """Return the least margin of a class over another; with a free bias the largest there can be.

    ``z_kk + b_k - z_jk - b_j >= m`` for all pairs has a solution b iff no cycle of classes has a
    mean gap ``z_kk - z_jk`` below m. The least one is found by Karp's dynamic programme.
    """
    p = logits.partition
    siblings, others = _off_diagonal(logits)
    own = np.diagonal(logits.mean) + logits.within * (p.sizes - 1) / p.sizes
    if bias == "none":
        return float((own - np.maximum(siblings, others.max(axis=0))).min())
    gaps = own - others  # [j, k]: infinite for j = k, but for siblings
    np.fill_diagonal(gaps, own - siblings)
    walks = [np.zeros(p.num_groups)]  # the cheapest of every length that end in each group
    for _ in range(p.num_groups):
        walks.append((gaps + walks[-1]).min(axis=1))
    lengths = p.num_groups - np.arange(p.num_groups)
    means = (walks[-1] - np.array(walks[:-1])) / lengths[:, None]
    return float(means.max(axis=0).min())


def _polar(logits: BlockMatrix, free: bool) -> BlockMatrix:
    """Return ``V U^T`` of the centred ``Z D^{1/2} = V L U^T``, over the positive values of L."""
    p = logits.partition
    # Centring costs nothing and gives V^T 1 = 0, which the dual needs: multipliers sum to zero.
    mean = logits.mean - p.sizes @ logits.mean / p.num_classes
    if free:
        # Nor does taking the bias's part out, U^T sqrt(n) = 0: no bias changes the dual.
        mean = mean - (mean @ p.shares)[:, None]
    left, values, right = svd(mean * p.scale)
    within = np.sqrt(p.counts) * np.abs(logits.within)
    limit = RANK_TOLERANCE * max(values.max(), within.max())
    reduced = (left * (values > limit)) @ right
    root = np.sqrt(p.sizes)
    signs = np.where(within > limit, np.sign(logits.within), 0.0)
    return BlockMatrix(p, signs, reduced / np.outer(root, root))


def _dual(partition: Partition, siblings: Array, others: Array, free: bool) -> float:
    """Return the bound of multipliers proportional to ``siblings`` and ``others``, at least 0.

    The multipliers are these times ``sqrt(n_k)``. ``A_jk = -alpha_jk``, A_kk balances its column;
    the sum of all alpha is a bound once ``||A D^{-1/2}||_op <= 1``. With a free bias the rows must
    sum to zero as well, as those of a symmetric A do.
    """
    p = partition
    root = np.sqrt(p.counts)
    siblings, others = siblings * root, others * root
    np.fill_diagonal(others, 0.0)
    if free:
        others = (others + others.T) / 2
    siblings = np.where(p.sizes > 1, siblings, 0.0)
    elsewhere = p.sizes @ others
    total = elsewhere + (p.sizes - 1) * siblings
    mean = np.diag(elsewhere / p.sizes) - others
    within = np.where(p.sizes > 1, total + siblings, 0.0)
    norm = float(BlockMatrix(p, within / p.counts, mean / p.counts).norm_bound)
    bound = float(p.sizes @ total) * (1 - gamma(2 * p.num_groups + 4 * FUNCTION))
    return bound / norm if norm > 0 else 0.0
