"""Non-negative features, one layer: axes of groups of classes, and what they are written out.

Any ``V >= 0`` with the right ``V^T V`` is the class means times the roots of their counts. Averaged
over permutations inside the groups ``V^T V`` is ``right @ right.T`` on group indicators, and one
number on what sums to zero within a group (docs/theory.md section 5).
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np

from tightframe.checks import MAX_DENSE_CLASSES
from tightframe.geometry.blocks import Array, BlockMatrix, Partition
from tightframe.geometry.grouped import GroupedGeometry, GroupedMatrix
from tightframe.problem.problem import Problem
from tightframe.saved import kept
from tightframe.shown import record

#: Entries of an axis below this share of its length are none.
VANISHING = 1e-7


@kept
@record
class Axes(NamedTuple):
    """Balanced factors of X, and a bias: both factors carry the geometric mean of the decays.

    Attributes
    ----------
    left, right : ndarray, shapes (G, r)
        Columns of both are an axis: ``X = left @ right.T`` on group indicators, ``right >= 0``.
    spread : ndarray, shape (G,)
        On what sums to zero within group i, X is ``spread_i q_i`` and ``V^T V`` is
        ``min(spread_i, 1) q_i``, with q the diagonal of ``right @ right.T``. Without meaning for a
        class alone.
    bias : ndarray, shape (G,)
    """

    left: Array
    right: Array
    spread: Array
    bias: Array


class _Parted(NamedTuple):
    """Axes of groups, and which part of an axis single classes have; both of shape (G, r).

    An axis with a share above zero in a group stands for one of every class of it.
    """

    left: Array
    right: Array
    share: Array

    def counts(self, sizes: Array) -> Array:
        """Return for how many axes of single classes each one stands, shape (r,)."""
        counts: Array = np.where(self.share > 0, sizes[:, None], 1.0).prod(axis=0)
        return counts


def written_width(partition: Partition, axes: Axes) -> int:
    """Return the number of axes of single classes that `written_out` has, before any ``dim``."""
    return int(_parted(partition, axes).counts(partition.sizes).sum())


def _parted(partition: Partition, axes: Axes) -> _Parted:
    """Return axes that stand for few of single classes: as they are, or turned into a triangle."""
    p, g = partition, partition.num_groups
    found = [_shared(p, axes.spread, axes.left, axes.right)]
    order = np.lexsort((-np.square(axes.right).sum(axis=1), -np.where(p.sizes > 1, axes.spread, 0)))
    turn, triangle = np.linalg.qr(axes.right[order].T)
    turn, triangle = turn * _signs(triangle), triangle * _signs(triangle)[:, None]
    least = VANISHING * np.linalg.norm(triangle, axis=0)
    if (p.sizes > 1).any() and (triangle >= -least).all():
        right = np.zeros((g, len(triangle)))
        right[order] = np.where(triangle > least, triangle, 0.0).T
        found.append(_shared(p, axes.spread, axes.left @ turn, right))
    return min(found, key=lambda parted: float(parted.counts(p.sizes).sum()))


def _signs(triangle: Array) -> Array:
    """Return the signs that make a diagonal non-negative."""
    return np.where(np.diagonal(triangle) < 0, -1.0, 1.0)


def _shared(partition: Partition, spread: Array, left: Array, right: Array) -> _Parted:
    """Give every group's part within it to the axes with fewest single classes as yet."""
    p, share = partition, np.zeros_like(right)
    squares = np.square(right)
    squares = np.where(squares > VANISHING**2 * squares.sum(axis=0), squares, 0.0)
    for group in np.argsort(-spread, kind="stable"):
        if p.sizes[group] == 1 or spread[group] == 0:
            continue
        counts = np.where(share > 0, p.sizes[:, None], 1.0).prod(axis=0)
        wanted = min(spread[group], 1.0) * squares[group].sum()
        for axis in np.lexsort((-squares[group], counts)):
            part = min(wanted, squares[group, axis])
            if part > VANISHING**2 * squares[group].sum():
                share[group, axis] = part / squares[group, axis]
            wanted -= part
    return _Parted(left, right, share)


def written_out(problem: Problem, partition: Partition, axes: Axes) -> tuple[list[Array], Array]:
    """Return the classifier and the class means, with axes that are zero up to ``dim``.

    An axis of groups becomes one for every choice of a class from each of the groups on it.

    Raises
    ------
    ValueError
        If there are too many to be written out.
    """
    k, p = problem.num_classes, partition
    parted = _parted(p, axes)
    counts = parted.counts(p.sizes)
    width = max(problem.width or k, int(counts.sum()))
    if max(k, width) > MAX_DENSE_CLASSES:
        raise ValueError(
            f"weights, class_means: {width} axes of {k} classes; factors are written out up to "
            f"{MAX_DENSE_CLASSES} (use grouped_geometry instead)"
        )
    left, right = np.zeros((k, width)), np.zeros((width, k))
    members = [np.flatnonzero(p.class_groups == group) for group in range(p.num_groups)]
    root, stretch = np.sqrt(p.sizes), np.maximum(axes.spread, 1.0)
    at = 0
    for u, v, share, count in zip(*(part.T for part in parted), counts, strict=True):
        u, v = u / root, v / root
        groups = np.flatnonzero(share)
        same = (v * (1 - np.sqrt(share)))[p.class_groups]
        for choice in itertools.product(*(members[group] for group in groups)):
            row, mean = u[p.class_groups], same.copy()
            for group, own in zip(groups, choice, strict=True):
                # One class has what the others lack: none of it in the mean of all choices.
                single = v[group] * np.sqrt(share[group])
                mean[own] += single * p.sizes[group]
                row[members[group]] -= stretch[group] * single
                row[own] += stretch[group] * single * p.sizes[group]
            left[:, at], right[at] = row / np.sqrt(count), mean / np.sqrt(count)
            at += 1
    decay = problem.mean_decay
    weights = left * np.sqrt(decay / problem.weight_decays[0])
    return [weights], right * np.sqrt(decay / (problem.feature_decay * problem.counts))


def axes_geometry(problem: Problem, logits: BlockMatrix, axes: Axes) -> GroupedGeometry:
    """Return the geometry in compact form, at any number of classes."""
    p = logits.partition
    many = p.sizes > 1
    squares = np.square(axes.right).sum(axis=1)
    share, stretch = np.minimum(axes.spread, 1.0), np.maximum(axes.spread, 1.0)
    ratio = np.sqrt(problem.feature_decay / problem.weight_decays[0])
    root = np.sqrt(p.sizes)

    def gram(factor: Array, inner: Array, scale: Array) -> GroupedMatrix:
        inner = np.where(many, inner, 0.0)
        blocks = factor @ factor.T / np.outer(root, root) - np.diag(inner / p.sizes)
        return GroupedMatrix(p, inner * scale**2, blocks * np.outer(scale, scale))

    return GroupedGeometry(
        "predicted",
        gram(axes.left, squares * share * stretch**2, np.full(p.num_groups, np.sqrt(ratio))),
        gram(axes.right, squares * share, 1 / np.sqrt(p.counts * ratio)),
        GroupedMatrix(p, logits.within, logits.mean - np.diag(logits.within / p.sizes)),
    )
