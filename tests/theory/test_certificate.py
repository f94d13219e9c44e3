import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tightframe as tf
from tests.reference import ufm
from tests.strategies import convex_problems
from tightframe.geometry.blocks import Partition
from tightframe.losses.registry import LOSSES
from tightframe.theory import certificate
from tightframe.theory.certificate import factored_objective


def _candidate(problem, seed, scale=1.0):
    rng = np.random.default_rng(seed)
    k = problem.num_classes
    bias = None if problem.bias == "none" else scale * rng.normal(size=k)
    return scale * rng.normal(size=(k, k)), bias


@given(convex_problems(), st.integers(0, 10**6), st.sampled_from([0.01, 1.0, 50.0]))
def test_gap_bounds_the_distance_to_the_minimum(problem, seed, scale):
    """P(Z) - P(best) <= gap(Z), and no lower bound exceeds any objective."""
    best = tf.solve(problem)
    certificate = tf.certify(problem, *_candidate(problem, seed, scale))
    assert certificate.gap >= 0
    assert certificate.gap >= certificate.primal - best.objective - 1e-12
    assert certificate.dual <= best.objective + 1e-12
    assert best.gap <= 1e-8 * best.objective
    improved = tf.certify(problem, *_candidate(problem, seed, scale), lower_bound=best.lower_bound)
    assert improved.gap <= certificate.gap + 1e-15
    assert improved.gap >= improved.primal - best.objective - 1e-12


@pytest.mark.parametrize("bias", ["none", "free", "decayed"])
@pytest.mark.parametrize("decay", [1e-3, 1e-2, 3e-2])
def test_gap_falls_with_the_square_of_the_distance(bias, decay):
    problem = tf.Problem(
        "40,30,20,9,4",
        weight_decay=decay,
        feature_decay=decay,
        bias=bias,
        bias_decay=0.05 if bias == "decayed" else None,
    )
    best = tf.solve(problem, 1e-13)
    rng = np.random.default_rng(0)
    # Of the same rank, as candidates near the optimum of a factored solver are.
    u, s, vt = np.linalg.svd(best.logits)
    u, s, vt = u[:, : best.rank], s[: best.rank], vt[: best.rank]
    du, dv = rng.normal(size=u.shape), rng.normal(size=vt.shape)
    du -= du.mean(axis=0)
    gaps = []
    for size in (1e-2, 1e-3, 1e-4):
        logits = ((u + size * du) * s) @ (vt + size * dv)
        gaps.append(tf.certify(problem, logits, best.bias if bias != "none" else None).gap)
    assert gaps[1] < 0.03 * gaps[0]
    assert gaps[2] < 0.03 * gaps[1]


@given(convex_problems(), st.integers(0, 10**6))
def test_primal_is_the_objective_of_the_cheapest_factors(problem, seed):
    logits, bias = _candidate(problem, seed)
    k = problem.num_classes
    certificate = tf.certify(problem, logits, bias)
    u, s, vt = np.linalg.svd(logits * np.sqrt(problem.counts))
    tilt = (problem.feature_decay / problem.weight_decay) ** 0.25
    w, h = tilt * u * np.sqrt(s), (np.sqrt(s)[:, None] * vt) / tilt / np.sqrt(problem.counts)
    labels = np.repeat(np.arange(k), problem.counts)
    value = factored_objective(problem, [w], h.T[labels], labels, bias)
    assert certificate.primal == pytest.approx(value, rel=1e-10)
    assert value == pytest.approx(ufm.objective(problem, [w], h, bias), rel=1e-10)


@settings(max_examples=20)
@given(convex_problems(), st.integers(0, 10**6))
def test_gap_is_equivariant(problem, seed):
    """Renaming the classes changes nothing."""
    logits, bias = _candidate(problem, seed)
    order = np.random.default_rng(seed).permutation(problem.num_classes)
    renamed = problem.reordered(order)
    one = tf.certify(problem, logits, bias)
    two = tf.certify(renamed, logits[np.ix_(order, order)], None if bias is None else bias[order])
    assert two.primal == pytest.approx(one.primal, rel=1e-10)
    assert two.dual == pytest.approx(one.dual, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_a_free_bias_that_is_off_still_gives_a_valid_bound(loss):
    problem = tf.Problem("30x2,5x3", loss, weight_decay=1e-2, feature_decay=1e-3, bias="free")
    best = tf.solve(problem)
    off = tf.certify(problem, best.logits, best.bias + np.linspace(-3, 3, 5))
    assert off.primal > best.objective + 1e-3
    # The bound comes from the best bias for these logits, so only the primal suffers.
    assert off.dual == pytest.approx(best.objective, rel=1e-6)


@pytest.mark.parametrize(
    ("logits", "bias", "message"),
    [
        (np.zeros((2, 3)), None, r"logits: got shape \(2, 3\), need \(3, 3\)"),
        (np.full((3, 3), np.nan), None, "logits: entries must be finite"),
        ("abc", None, "logits: need numbers"),
        (np.zeros((3, 3)), np.ones(3), "bias: got a non-zero bias for a problem with bias='none'"),
        (np.zeros((3, 3)), np.ones(2), r"bias: got shape \(2,\), need \(3,\)"),
    ],
)
def test_bad_candidates_are_named(logits, bias, message):
    problem = tf.Problem("3x3", weight_decay=1e-2, feature_decay=1e-3)
    with pytest.raises(ValueError, match=message):
        tf.certify(problem, logits, bias)


def test_bad_bounds_and_uncovered_problems_are_named():
    problem = tf.Problem("3x3", weight_decay=1e-2, feature_decay=1e-3)
    with pytest.raises(ValueError, match="lower_bound: entries must be finite"):
        tf.certify(problem, np.zeros((3, 3)), lower_bound=np.nan)
    with pytest.raises(ValueError, match="depth 2"):
        tf.certify(problem.replace(depth=2), np.zeros((3, 3)))
    with pytest.raises(ValueError, match="dim is 1, but"):
        tf.certify(problem.replace(dim=1), np.zeros((3, 3)))
    with pytest.raises(ValueError, match="weights: got 1 layer for depth 2"):
        factored_objective(
            problem.replace(depth=2), [np.eye(3)], np.zeros((9, 3)), np.zeros(9, int)
        )
    with pytest.raises(ValueError, match="need 9 samples"):
        factored_objective(problem, [np.eye(3)], np.zeros((8, 3)), np.zeros(8, int))


def test_clipping_tightens_the_bound_near_the_optimum():
    """Scaling all singular values for the sake of one wastes most of the bound."""
    counts = np.unique(np.geomspace(5, 210, 40).round().astype(int))
    decay = np.sqrt(5) / counts.sum() / 2
    problem = tf.Problem(counts, weight_decay=decay, feature_decay=decay)
    best = tf.solve(problem, tol=1e-12)
    noise = np.random.default_rng(0).normal(size=best.logits.shape)
    logits = best.logits + 1e-3 * (noise - noise.mean(axis=0))
    fit = LOSSES["cross_entropy"].datafit(Partition.singletons(problem))
    residual = fit.residual(np.zeros(len(counts)), logits)
    scaled = residual * (decay * counts.sum() / residual.operator_norm)
    lost_by_scaling = best.objective - fit.dual_value(scaled)
    lost = best.objective - tf.certify(problem, logits).dual
    assert 0 <= lost < lost_by_scaling / 4


def test_logits_that_no_factors_have_are_refused():
    problem = tf.Problem("10x4", "mse", weight_decay=1e-3, feature_decay=1e-3, dim=2)
    wide = tf.solve(problem.replace(dim=None))
    with pytest.raises(ValueError, match="logits: rank 4, which features of dim 2 cannot have"):
        tf.certify(problem, wide.logits)
    orthant = problem.replace(features="nonnegative")
    with pytest.raises(ValueError, match="4 classes with non-zero logits"):
        tf.certify(orthant, wide.logits)
    assert tf.certify(problem, tf.solve(problem).logits).gap < 1e-12


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_logits_that_overflow_are_refused(loss):
    problem = tf.Problem([5] * 5, loss, weight_decay=1e-3, feature_decay=1e-3)
    with pytest.raises(ValueError, match="so large that the objective overflows"):
        tf.certify(problem, np.eye(5) * 1e308)


def test_bounds_are_never_negative_nor_infinite():
    counts = np.arange(1, 101)
    problem = tf.Problem(counts, weight_decay=0.05, feature_decay=0.01)
    for seed in range(20):
        noise = np.random.default_rng(seed).normal(size=(100, 100))
        assert 0 <= tf.certify(problem, 5 * np.eye(100) + 30 * noise).dual < np.inf


def test_a_bound_above_the_candidate_is_no_bound():
    problem = tf.Problem("3x3", weight_decay=1e-2, feature_decay=1e-3)
    with pytest.raises(ValueError, match="not a lower bound of this problem"):
        tf.certify(problem, tf.solve(problem).logits, lower_bound=5.0)


def test_large_matrices_are_clipped_as_small_ones():
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(40, 40)) * np.geomspace(1e-3, 1, 40)
    left, values, right = np.linalg.svd(matrix)
    for limit in (0.1 * values[0], 0.9 * values[0], values[0]):
        clipped = certificate._clip(matrix, np.asarray(limit))
        np.testing.assert_allclose(
            clipped, (left * np.minimum(values, limit)) @ right, atol=1e-12 * values[0]
        )
