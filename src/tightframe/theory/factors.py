"""Factors that realise logits: layers and class means, dense or as a geometry of groups."""

from __future__ import annotations

import numpy as np

from tightframe.checks import MAX_DENSE_CLASSES, require_dense
from tightframe.geometry.blocks import Array, BlockMatrix, svd, without_rounding
from tightframe.geometry.grouped import GroupedGeometry, GroupedMatrix
from tightframe.problem.problem import Problem
from tightframe.theory.coverage import has_compact_form


def cheapest_factors(problem: Problem, logits: Array) -> tuple[list[Array], Array]:
    """Return the cheapest layers and class means with given logits, (K, K) without bias.

    Raises
    ------
    ValueError
        If there are too many classes, or too wide features, to be written out.
    """
    require_dense(problem.num_classes, "weights, class_means")
    if max(problem.dims or (0,)) > MAX_DENSE_CLASSES:
        raise ValueError(
            f"weights, class_means: dim is {problem.dim}; "
            f"factors are written out up to {MAX_DENSE_CLASSES}"
        )
    nonnegative = problem.features == "nonnegative"
    return (orthant_factors if nonnegative else balanced_factors)(problem, logits)


def balanced_factors(problem: Problem, logits: Array) -> tuple[list[Array], Array]:
    """Return the cheapest layers and class means with given logits (real features).

    From the SVD of ``Z D^{1/2}``: every layer carries the same decay cost in every direction
    (docs/theory.md section 2; several layers by the same balance).
    """
    root = np.sqrt(problem.feature_weights)
    left, values, right = svd(logits * root)
    values = without_rounding(values)
    widths = _widths(problem)
    kept = min(*widths, len(values))
    to_layer, to_features = _layer_lengths(problem, values[:kept])
    means = np.zeros((widths[0], problem.num_classes))
    means[:kept] = to_features[:, None] * right[:kept] / root
    return _layers(left[:, :kept], to_layer, widths), means


def orthant_factors(problem: Problem, logits: Array) -> tuple[list[Array], Array]:
    """Return layers and non-negative, orthogonal class means with given logits.

    One axis a class: the columns of ``Z D^{1/2}`` take the place of its singular vectors.
    """
    root = np.sqrt(problem.counts)
    scaled = logits * root
    values = without_rounding(np.linalg.norm(scaled, axis=0))
    active = np.flatnonzero(values > 0)
    widths = _widths(problem)
    to_layer, to_features = _layer_lengths(problem, values[active])
    means = np.zeros((widths[0], problem.num_classes))
    means[np.arange(len(active)), active] = to_features / root[active]
    return _layers(scaled[:, active] / values[active], to_layer, widths), means


def _widths(problem: Problem) -> tuple[int, ...]:
    return problem.dims or (problem.num_classes,) * problem.depth


def _layer_lengths(problem: Problem, values: Array) -> tuple[list[Array], Array]:
    """Split singular values over layers and features so that all carry equal decay cost."""
    decays = problem.weight_decays
    cost = problem.mean_decay * values ** (2 / (problem.depth + 1))
    return [np.sqrt(cost / decay) for decay in decays], np.sqrt(cost / problem.feature_decay)


def _layers(directions: Array, to_layer: list[Array], widths: tuple[int, ...]) -> list[Array]:
    """Return the layers: diagonal, but for the last, whose columns have these directions (K, r)."""
    used = directions.shape[1]
    layers = [np.zeros(shape) for shape in zip(widths[1:], widths, strict=False)]
    for layer, lengths in zip(layers, to_layer[:-1], strict=True):
        layer[np.arange(used), np.arange(used)] = lengths
    last = np.zeros((len(directions), widths[-1]))
    last[:, :used] = directions * to_layer[-1]
    return [*layers, last]


def grouped_geometry(problem: Problem, blocks: BlockMatrix) -> GroupedGeometry:
    """Return the geometry of the cheapest factors in compact form, at any number of classes.

    As `GroupedGeometry.from_solution` says; a ValueError where there is no such form.
    """
    nonnegative = problem.features == "nonnegative"
    if not has_compact_form(problem):
        raise ValueError(
            f"solution: one of {problem.num_classes} classes has a compact form for one linear "
            "layer and a wide enough dim only"
        )
    p = blocks.partition
    ratio = np.sqrt(problem.feature_decay / problem.weight_decays[0])
    logits = GroupedMatrix(p, blocks.within, blocks.mean - np.diag(blocks.within / p.sizes))
    if nonnegative:
        lengths = blocks.column_norms
        shares = np.divide(p.counts, lengths, out=np.zeros_like(lengths), where=lengths > 0)
        across = logits.blocks * shares
        inner = logits.diagonal * across
        classifier = GroupedMatrix(
            p,
            ratio * logits.diagonal**2 * shares,
            ratio * (inner + inner.T + (across * p.sizes) @ logits.blocks.T),
        )
        axes = np.zeros((p.num_groups, p.num_groups))
        means = GroupedMatrix(p, lengths / p.counts / ratio, axes)
        return GroupedGeometry("predicted", classifier, means, logits)
    return balanced_geometry(blocks, ratio, "predicted")


def balanced_geometry(blocks: BlockMatrix, ratio: float, name: str) -> GroupedGeometry:
    """Return the geometry of `balanced_factors` of one layer in compact form.

    Parameters
    ----------
    blocks : BlockMatrix
        Mean logits without bias. Classes without samples get a mean of zero.
    ratio : float
        ``sqrt(feature_decay / weight_decay)``.
    name : str
    """
    p = blocks.partition
    logits = GroupedMatrix(p, blocks.within, blocks.mean - np.diag(blocks.within / p.sizes))
    left, values, right = blocks.decomposition
    values = without_rounding(values)
    # Sqrt of Sigma goes to either side; the ratio of the decays shares it out.
    within = np.where(p.sizes > 1, np.sqrt(p.counts) * np.abs(blocks.within), 0.0)
    root = np.sqrt(p.sizes)

    def gram(frame: Array, inner: Array, scale: Array) -> GroupedMatrix:
        share = np.divide(1.0, scale, out=np.zeros_like(scale), where=scale > 0)
        mean = (frame * values) @ frame.T * np.outer(share / root, share / root)
        inner = inner * share**2
        return GroupedMatrix(p, inner, mean - np.diag(inner / p.sizes))

    return GroupedGeometry(
        name,
        gram(left, within, np.full(p.num_groups, 1 / np.sqrt(ratio))),
        gram(right.T, within, np.sqrt(p.counts * ratio)),
        logits,
    )
