import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax

import tightframe as tf
from tests.reference.ufm import label_terms
from tests.strategies import GROUPS, random_blocks
from tightframe.geometry.blocks import BlockMatrix, Partition
from tightframe.losses.registry import LOSSES as KNOWN_LOSSES

LOSSES = st.sampled_from(list(KNOWN_LOSSES))
SEEDS = st.integers(0, 10**6)


def _random_blocks(loss, groups, seed):
    """Draw blocks; every other loss has class weights and, if it may, what changes its labels."""
    rng, options = np.random.default_rng(seed + 2), {}
    if seed % 2:
        sizes = [classes for _, classes in groups]
        options["class_weights"] = np.repeat(10 ** rng.uniform(-1, 1, len(groups)), sizes)
        if KNOWN_LOSSES[loss].takes_adjustment:
            options["logit_adjustment"] = np.repeat(rng.normal(size=len(groups)), sizes)
            options["label_smoothing"] = (seed % 3) * 0.3
            options["smoothing_weights"] = ["own", "labels"][seed % 4 // 2]
            least = 0.0 if seed % 3 else -1.0
            options["class_margins"] = np.repeat(rng.uniform(least, 2, len(groups)), sizes)
            if seed % 5 < 2:
                options["logit_scale"] = np.repeat(rng.uniform(0.4, 2, len(groups)), sizes)
    return random_blocks(groups, seed, loss=loss, **options)


def _cross_entropy(scores, problem):
    terms, shifts = label_terms(problem)
    scores = problem.logit_scale[:, None] * scores + shifts
    residual = softmax(scores, axis=0) * terms.sum(axis=0) - terms
    losses = -(terms * log_softmax(scores, axis=0)).sum(axis=0)
    return losses, problem.logit_scale[:, None] * residual


def _mse(scores, problem):
    residual = scores - np.eye(len(scores))
    weights = problem.class_weights
    return 0.5 * weights * (residual**2).sum(axis=0), weights * residual


#: Loss of one sample of every class, weights included, and its derivatives, from the definition.
DENSE = {"cross_entropy": _cross_entropy, "mse": _mse}


def _dense(problem, loss, scores):
    """Return the mean loss and the residual of K x K scores."""
    losses, residual = DENSE[loss](scores, problem)
    return problem.counts / problem.num_samples @ losses, residual


def _probabilities(problem, residual):
    """Return Q of ``R = diag(scales) (Q - P) diag(a)``."""
    terms, _ = label_terms(problem)
    return (residual.to_dense() / problem.logit_scale[:, None] + terms) / terms.sum(axis=0)


@given(LOSSES, GROUPS, SEEDS, st.sampled_from([0.1, 1.0, 30.0]))
def test_value_and_residual_are_those_of_the_dense_loss(loss, groups, seed, scale):
    problem, blocks = _random_blocks(loss, groups, seed)
    blocks = blocks * scale
    fit = KNOWN_LOSSES[loss].datafit(blocks.partition)
    dense = blocks.to_dense()
    value, expected = _dense(problem, loss, dense)
    assert fit.value(blocks.within, blocks.mean) == pytest.approx(value, rel=1e-11, abs=1e-14)
    residual = fit.residual(blocks.within, blocks.mean).to_dense()
    assert np.allclose(residual, expected, atol=1e-12 * scale)


@given(LOSSES, GROUPS, SEEDS, st.sampled_from([0.1, 1.0, 30.0]))
def test_batches_of_a_search_are_dense_losses(loss, groups, seed, scale):
    problem, blocks = _random_blocks(loss, groups, seed)
    scores = scale * blocks.to_dense()
    fit = KNOWN_LOSSES[loss].datafit(Partition.singletons(problem))
    values, residuals = fit.values_and_residuals(np.stack([scores, 0 * scores]))
    for i, expected in enumerate(_dense(problem, loss, part * scores) for part in (1, 0)):
        assert values[i] == pytest.approx(expected[0], rel=1e-11, abs=1e-14)
        assert np.allclose(residuals[i], expected[1], atol=1e-12 * scale)


@given(LOSSES, GROUPS, SEEDS)
def test_samples_at_their_class_means_have_the_dense_loss(loss, groups, seed):
    problem, blocks = _random_blocks(loss, groups, seed)
    fit = KNOWN_LOSSES[loss].datafit(blocks.partition)
    labels = np.repeat(np.arange(problem.num_classes), problem.counts)
    value, residual = _dense(problem, loss, blocks.to_dense())
    logits = blocks.to_dense().T[labels]
    total = fit.sample_sum(logits.copy(), labels)
    assert total / problem.num_samples == pytest.approx(value, rel=1e-11)
    assert np.allclose(fit.sample_residuals(logits, labels), residual.T[labels], atol=1e-12)


@given(LOSSES, GROUPS, SEEDS)
def test_tensors_give_the_dense_loss(loss, groups, seed):
    problem, blocks = _random_blocks(loss, groups, seed)
    known, k = KNOWN_LOSSES[loss], problem.num_classes
    dense = torch.tensor(blocks.to_dense())
    adjustment, weights = map(torch.tensor, (problem.logit_adjustment, problem.class_weights))
    one_hot = tf.Problem(problem.counts, weight_decay=1e-3, feature_decay=1e-3)
    losses, residual = DENSE[loss]((dense + adjustment[:, None]).numpy(), one_hot)
    scores, targets = (dense + adjustment[:, None])[None], torch.eye(k, dtype=torch.float64)
    assert np.allclose(known.column_values(scores.clone(), targets)[0], losses, atol=1e-12)
    assert np.allclose(known.column_residuals(scores.clone(), targets)[0], residual, atol=1e-12)
    terms = (weights, adjustment if known.takes_adjustment else None)
    mean = known.batch_mean(dense.T, torch.arange(k), *terms)
    assert mean.item() == pytest.approx(problem.class_weights @ losses / k, rel=1e-11)


@given(LOSSES, GROUPS, SEEDS)
def test_siblings_are_torn_apart_by_their_class_weight(loss, groups, seed):
    """Where siblings agree: what thresholds of merging, `Partition.pull`, rest on."""
    _, blocks = _random_blocks(loss, groups, seed)
    p = blocks.partition
    residual = KNOWN_LOSSES[loss].datafit(p).residual(0 * blocks.within, blocks.mean)
    pulls = np.array(p.pull_range) / np.sqrt(p.counts)
    low, high = np.where(p.sizes > 1, pulls, 0.0)
    assert (low - 1e-12 <= -residual.within).all()
    assert (-residual.within <= high + 1e-12).all()
    if not (p.labels and p.labels.margins.any()):
        assert np.allclose(low, high, atol=1e-12)


@given(LOSSES, GROUPS, SEEDS)
def test_constants_are_ignored_where_that_is_said(loss, groups, seed):
    _, blocks = _random_blocks(loss, groups, seed)
    fit = KNOWN_LOSSES[loss].datafit(blocks.partition)
    shift = np.random.default_rng(seed).uniform(1, 2, size=len(blocks.within))
    moved = fit.value(blocks.within, blocks.mean + shift / blocks.partition.scales[:, None])
    same = moved == pytest.approx(fit.value(blocks.within, blocks.mean), rel=1e-12)
    assert same == KNOWN_LOSSES[loss].ignores_constants


@given(LOSSES, GROUPS, SEEDS)
def test_gradient_and_curvature_are_finite_differences(loss, groups, seed):
    _, blocks = _random_blocks(loss, groups, seed)
    fit = KNOWN_LOSSES[loss].datafit(blocks.partition)
    rng = np.random.default_rng(seed + 1)
    d_within = np.where(blocks.partition.sizes > 1, rng.normal(size=len(blocks.within)), 0.0)
    d_mean = rng.normal(size=blocks.mean.shape)
    step = 1e-5

    def at(t):
        return blocks.within + t * d_within, blocks.mean + t * d_mean

    exactly = fit.derivatives(*at(0))
    slope = exactly.by_margin @ d_within + np.vdot(exactly.by_score, d_mean)
    difference = (fit.value(*at(step)) - fit.value(*at(-step))) / (2 * step)
    assert slope == pytest.approx(difference, rel=1e-6, abs=1e-8)

    curved = exactly.curvature(d_within, d_mean)
    up, down = fit.derivatives(*at(step))[:2], fit.derivatives(*at(-step))[:2]
    for exact, plus, minus in zip(curved, up, down, strict=True):
        assert np.allclose(exact, (plus - minus) / (2 * step), rtol=1e-5, atol=1e-8)


@given(LOSSES, GROUPS, SEEDS)
def test_bias_derivatives_are_those_along_the_bias(loss, groups, seed):
    _, blocks = _random_blocks(loss, groups, seed)
    fit = KNOWN_LOSSES[loss].datafit(blocks.partition)
    derivatives = fit.derivatives(blocks.within, blocks.mean)
    g = blocks.partition.num_groups
    # A batch of directions: one unit of bias a group.
    directions = np.repeat(np.eye(g)[:, :, None], g, axis=2)
    columns = derivatives.curvature(np.zeros((g, g)), directions)[1].sum(axis=-1)
    gradient, hessian = fit.bias_derivatives(blocks.within, blocks.mean)
    assert np.allclose(gradient, derivatives.by_score.sum(axis=1), atol=1e-12)
    assert np.allclose(hessian, columns.T, atol=1e-12)
    assert np.allclose(derivatives.score_diagonal.sum(axis=1), np.diagonal(hessian), atol=1e-12)
    units = np.zeros((g * g, g, g))
    units[np.arange(g * g), *np.divmod(np.arange(g * g), g)] = 1
    entries = (derivatives.curvature(np.zeros((g * g, g)), units)[1] * units).sum(axis=(1, 2))
    assert np.allclose(derivatives.score_diagonal.ravel(), entries, atol=1e-12)
    margins = derivatives.curvature(np.eye(g), np.zeros((g, g, g)))[0]
    assert np.allclose(derivatives.margin_diagonal, np.diagonal(margins), atol=1e-12)


@given(LOSSES, GROUPS, SEEDS)
def test_smoothness_bounds_the_curvature(loss, groups, seed):
    _, blocks = _random_blocks(loss, groups, seed)
    p = blocks.partition
    fit = KNOWN_LOSSES[loss].datafit(p)
    curvature = fit.derivatives(blocks.within, blocks.mean).curvature
    step = np.random.default_rng(seed).normal(size=blocks.mean.shape)  # in X = Z D^{1/2}
    change = curvature(np.zeros(p.num_groups), step / p.scale)[1] / p.scale
    assert np.vdot(step, change) <= fit.smoothness * np.vdot(step, step) * (1 + 1e-12)


@given(LOSSES, GROUPS, SEEDS, SEEDS)
def test_fenchel_young(loss, groups, seed, other_seed):
    """f(Z) + f*(G) >= <G, Z> for any Z and dual G, with equality where G is the gradient."""
    problem, blocks = _random_blocks(loss, groups, seed)
    _, other = _random_blocks(loss, groups, other_seed)
    fit = KNOWN_LOSSES[loss].datafit(blocks.partition)
    residual = fit.residual(blocks.within, blocks.mean)

    def excess(z):
        product = np.vdot(residual.to_dense() * problem.counts, z.to_dense())
        value = fit.value(z.within, z.mean) - fit.dual_value(residual)
        return value - product / problem.num_samples

    assert excess(other) >= -1e-12
    assert excess(blocks) == pytest.approx(0, abs=1e-12)


@given(GROUPS, SEEDS)
def test_entropy_is_minus_infinity_outside_the_simplex(groups, seed):
    _, blocks = _random_blocks("cross_entropy", groups, seed)
    fit = KNOWN_LOSSES["cross_entropy"].datafit(blocks.partition)
    residual = fit.residual(blocks.within, blocks.mean)
    outside = BlockMatrix(residual.partition, residual.within, residual.mean.copy())
    outside.mean[0, 1] -= 2 * blocks.partition.weights[1]
    assert fit.dual_value(outside) == -np.inf


@given(LOSSES, GROUPS, SEEDS)
def test_repair_makes_the_dual_point_feasible_for_a_free_bias(loss, groups, seed):
    problem, blocks = _random_blocks(loss, groups, seed)
    fit = KNOWN_LOSSES[loss].datafit(blocks.partition)
    repaired = fit.repair(fit.residual(blocks.within, blocks.mean))
    assert np.allclose(repaired.to_dense() @ problem.counts, 0, atol=1e-12 * problem.num_samples)
    if loss == "cross_entropy":
        probabilities = _probabilities(problem, repaired)
        assert np.allclose(probabilities.sum(axis=0), 1)
        assert probabilities.min() >= -1e-15


def test_losses_near_zero_keep_their_digits():
    problem = tf.Problem("3x2,5", weight_decay=1e-3, feature_decay=1e-3)
    blocks = BlockMatrix.from_dense(problem, 60 * np.eye(3))
    fit = KNOWN_LOSSES["cross_entropy"].datafit(blocks.partition)
    assert fit.value(blocks.within, blocks.mean) == pytest.approx(2 * np.exp(-60), rel=1e-12)


@given(GROUPS, SEEDS)
def test_restrict_returns_to_the_simplex(groups, seed):
    problem, blocks = _random_blocks(
        "cross_entropy", groups, seed
    )  # any matrix: entries of both signs
    restricted = KNOWN_LOSSES["cross_entropy"].datafit(blocks.partition).restrict(blocks)
    probabilities = _probabilities(problem, restricted)
    others = ~np.eye(problem.num_classes, dtype=bool)
    assert probabilities[others].min() >= -1e-15
    assert np.allclose(probabilities.sum(axis=0), 1)
    kept = others & (blocks.to_dense() > 0)  # what was above a label's share, at any rate
    assert np.allclose(restricted.to_dense()[kept], blocks.to_dense()[kept])
