"""Non-negative features, classes in groups: the same as with every class alone, at any number."""

import cvxpy as cp
import numpy as np
import pytest
from scipy.optimize import check_grad

import tightframe as tf
from tests.reference import ufm
from tightframe.geometry.blocks import BlockMatrix, Partition
from tightframe.solvers.search import axes
from tightframe.solvers.search.orthant_factors import OrthantFactors
from tightframe.theory.axes import Axes, axes_geometry, written_out, written_width
from tightframe.theory.orthant import orthant_norm, orthant_reach, steepest_axes
from tightframe.theory.thresholds import ends


def make(counts, decay=1e-2, bias="free", **options):
    if bias == "decayed":
        options.setdefault("bias_decay", 0.01)
    return tf.Problem(
        counts,
        weight_decay=decay,
        feature_decay=decay / 2,
        bias=bias,
        features="nonnegative",
        **options,
    )


#: Own axes only; siblings that share axes, or merge; axes that several groups are on.
PROBLEMS = (
    make("100x2,10x3", 5e-3),
    make("9x3,8x3,2", 2e-2, bias="decayed"),
    make("30x2,6x2,2x3", 3e-4, loss="mse"),
    make("30x3,5x4,2x2", 4e-3, class_weights="1x3,2x4,.5x2"),
    make("12x2,11x3", 2e-2, bias="none", logit_adjustment="-1x2,1x3"),
)


@pytest.mark.parametrize("problem", PROBLEMS)
def test_groups_have_the_minimum_of_single_classes(problem):
    alone, groups = (
        axes.minimise(problem, partition(problem), max_iterations=5000)
        for partition in (Partition.singletons, Partition.coarsest)
    )
    assert groups.objective == pytest.approx(alone.objective, rel=1e-9)
    assert groups.objective * (1 - 1e-8) <= groups.lower_bound <= alone.objective
    (z, bias), (dense, dense_bias) = groups.blocks(problem), alone.blocks(problem)
    scale = np.abs(dense.to_dense()).max()
    assert np.allclose(z.to_dense(), dense.to_dense(), atol=1e-4 * scale)
    own, other = z.partition.class_groups, dense.partition.class_groups
    assert np.allclose(bias[own], dense_bias[other], atol=1e-4 * scale)


@pytest.mark.parametrize("problem", PROBLEMS)
def test_axes_written_out_are_factors_with_that_objective_and_geometry(problem):
    p = Partition.coarsest(problem)
    found = axes.minimise(problem, p, max_iterations=5000)
    weights, means = written_out(problem, p, found.axes)
    assert means.shape[0] == max(problem.num_classes, written_width(p, found.axes))
    assert means.min() >= 0
    blocks, bias = found.blocks(problem)
    b = None if problem.bias == "none" else bias[p.class_groups]
    value = ufm.objective(problem, weights, means, b)
    assert value == pytest.approx(found.objective, rel=1e-12)
    geometry = axes_geometry(problem, blocks, found.axes).to_geometry()
    for found_part, part in (
        (means.T @ means, geometry.means),
        (weights[0] @ weights[0].T, geometry.classifier),
        (weights[0] @ means, geometry.logits),
    ):
        assert np.allclose(found_part, part, atol=1e-6 * np.abs(part).max())


def test_axes_that_several_groups_are_on_stand_for_every_choice_of_classes():
    """Whose part within a group lies where few others do: on all axes or one, turned or not."""
    problem = make("9x4,5x3,2", 1e-2)
    p = Partition.coarsest(problem)
    left = np.array([[1.0, -0.5, 0.2], [-0.4, 1.0, 0.1], [0.1, 0.3, -0.6]])
    overlap = np.array([[1.0, 0.3, 0.0], [0.4, 1.0, 0.0], [0.2, 0.2, 1.0]])
    bias = np.zeros(3)
    for spread, width in (([1.2, 1.1], 12 + 3 + 1), ([1.2, 0.4], 4 + 3 + 1), ([0.0, 0.4], 5)):
        found = Axes(left, overlap, np.array([*spread, 1.0]), bias)
        assert written_width(p, found) == width
        (weights,), means = written_out(problem, p, found)
        assert means.min() >= 0
        reduced = left @ overlap.T
        within = found.spread * np.square(overlap).sum(axis=1) * (p.sizes > 1)
        blocks = BlockMatrix(p, within / np.sqrt(p.counts), reduced / p.scale)
        geometry = axes_geometry(problem, blocks, found).to_geometry()
        assert np.allclose(means.T @ means, geometry.means)
        assert np.allclose(weights @ means, geometry.logits)
        assert np.allclose(weights @ weights.T, geometry.classifier)


def test_cvxpy_has_the_same_minimum_for_up_to_four_groups():
    """Doubly non-negative matrices of all classes: a relaxation, which few groups make exact."""
    problem = make("20x3,6x3", 1e-2, loss="mse")
    k, root, n = problem.num_classes, np.sqrt(problem.counts), problem.num_samples
    z, b = cp.Variable((k, k)), cp.Variable(k)
    whole = cp.Variable((2 * k, 2 * k), PSD=True)
    scores = z + cp.reshape(b, (k, 1), order="C") @ np.ones((1, k))
    loss = cp.sum_squares((scores - np.eye(k)) @ np.diag(root)) / (2 * n)
    decay = problem.logit_decay / 2 * cp.trace(whole)
    held = [whole[:k, k:] == z @ np.diag(root), whole[k:, k:] >= 0]
    value = cp.Problem(cp.Minimize(loss + decay), held).solve(solver=cp.CLARABEL)
    p = Partition.coarsest(problem)
    assert axes.minimise(problem, p, max_iterations=5000).objective == pytest.approx(
        value, rel=1e-6
    )


@pytest.mark.parametrize("seed", range(8))
def test_the_norm_of_groups_is_that_of_the_matrix_written_out(seed):
    rng = np.random.default_rng(seed)
    problem = make("40x3,20x1,7x4,3x2")
    p = Partition.coarsest(problem)
    blocks = BlockMatrix(p, rng.normal(size=4) * (p.sizes > 1), rng.normal(size=(4, 4)))
    within = blocks.within * np.sqrt(p.counts)
    top = steepest_axes(blocks.to_dense() * np.sqrt(problem.counts))[0].max()
    assert orthant_reach(blocks.reduced, within, p.sizes) == pytest.approx(top, rel=1e-9)
    for level in (0.7, 1.0, 1.3):
        scale = top * level
        bound = orthant_norm(blocks.reduced / scale, within / scale, p.sizes) * level
        assert bound >= 1 - 1e-12
        whole = orthant_norm(blocks.to_dense() * np.sqrt(problem.counts) / scale) * level
        assert bound <= max(whole, level) * (1 + 1e-3)


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_derivatives_of_factors_of_groups(loss):
    rng = np.random.default_rng(0)
    problem = make("40x3,20,7x4", bias="decayed", loss=loss)
    f = OrthantFactors(problem, Partition.coarsest(problem), 3)
    x = np.abs(rng.normal(size=f.cuts[-1]))
    # On either side of where the cost bends.
    x[f.cuts[1] : f.cuts[2]] = np.array([0.6, 1.4]) / f.spread_scale
    error = check_grad(lambda y: f(y[None])[0][0], lambda y: f(y[None])[1][0], x)
    assert error < 1e-5 * np.linalg.norm(f(x[None])[1])
    product, step = f.curvature(x), 1e-6
    for d in rng.normal(size=(4, len(x))):
        slopes = [f((x + side * step * d)[None])[1][0] for side in (1, -1)]
        numeric = (slopes[0] - slopes[1]) / (2 * step)
        assert np.allclose(product(d), numeric, atol=1e-6 * np.linalg.norm(numeric))


def test_many_classes_are_certified():
    problem = make("200x80,20x60,2x60", 1e-4)
    solution = tf.solve(problem)
    assert solution.status == "optimal"
    assert 0 <= solution.gap <= 1e-8 * solution.objective
    assert solution.factors is None
    (weights,), means = solution.weights, solution.class_means
    value = ufm.objective(problem, [weights], means, solution.bias)
    assert value == pytest.approx(solution.objective, rel=1e-12)
    rng = np.random.default_rng(0)
    moved = weights * (1 + 1e-3 * rng.normal(size=weights.shape))
    assert ufm.objective(problem, [moved], means, solution.bias) > solution.objective
    assert np.allclose(solution.geometry.means, means.T @ means, atol=1e-6)


def test_a_minimiser_of_many_classes_has_its_own_decays():
    problem = make("9x60,3x41", 4e-3)
    solution = tf.solve(problem)
    y = np.repeat(np.arange(101), problem.counts)
    given = solution.weights[0], solution.class_means.T[y], y, solution.bias
    fit = tf.calibrate(problem.replace(weight_decay=1.0, feature_decay=1.0), *given)
    assert fit.weight_decay == pytest.approx(problem.weight_decays[0], rel=1e-6)
    assert fit.feature_decay == pytest.approx(problem.feature_decay, rel=1e-6)
    assert max(fit.weight_error, fit.feature_error, fit.logits_distance) < 1e-5


def test_many_classes_vanish_where_no_axis_pulls_more_than_the_decay():
    problem = make("9x80,4x40")
    total = ends(problem).total_collapse
    for side, zero in ((1 - 1e-4, False), (1 + 1e-4, True)):
        at = problem.replace(weight_decay=total * side, feature_decay=total * side)
        solution = tf.solve(at)
        assert solution.status == "optimal"
        assert (solution.group_states.state == "vanished").all() == zero


def test_a_dim_that_many_classes_do_not_need_and_one_that_they_do():
    problem = make("9x80,4x40", 2e-3)
    wide = tf.solve(problem)
    assert tf.solve(problem.replace(dim=200)).objective == wide.objective
    with pytest.raises(ValueError, match=r"dim: got 50, and the minimiser without has \d+ axes"):
        tf.solve(problem.replace(dim=50))


def test_too_many_groups_are_refused():
    problem = make([k + 1 for k in range(101)])
    with pytest.raises(ValueError, match="counts: got 101 classes in 101 groups of equal ones"):
        tf.solve(problem)
    for function in (tf.thresholds, tf.state_changes, tf.advise):
        with pytest.raises(ValueError, match="counts: got 101 groups of equal classes; the states"):
            function(problem)
