"""Non-negative features without a closed form: the lower bound, and minima that it certifies."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

import tightframe as tf
from tests.reference import ufm
from tightframe.theory.orthant import orthant_norm, steepest_axes
from tightframe.theory.thresholds import ends

RELU = {"features": "nonnegative"}


def make(counts, decay=1e-2, **options):
    if options.get("bias") == "decayed":
        options.setdefault("bias_decay", 0.01)
    return tf.Problem(counts, weight_decay=decay, feature_decay=decay / 2, **(RELU | options))


def assert_solved(problem, dim, **options):
    """Compare a certified solution, its factors and its logits with direct minimisation."""
    solution = tf.solve(problem)
    assert solution.status == "optimal"
    assert 0 <= solution.gap <= 1e-8 * solution.objective
    assert solution.search is None
    bias = None if problem.bias == "none" else solution.bias
    assert solution.class_means.min() >= 0
    found = ufm.objective(problem, solution.weights, solution.class_means, bias)
    assert found == pytest.approx(solution.objective, rel=1e-10)
    product = solution.weights[0] @ solution.class_means
    assert np.allclose(product, solution.logits, atol=1e-6 * np.abs(product).max())
    value = ufm.multistart(problem, dim, **options)[0]
    assert solution.objective == pytest.approx(value, rel=1e-7)
    return solution


@pytest.mark.parametrize("bias", ["free", "decayed"])
@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
@pytest.mark.parametrize("decay", [1e-3, 1e-2])
def test_a_bias(loss, bias, decay):
    assert_solved(make("100x2,10x2", decay, loss=loss, bias=bias), 6, starts=12)


@pytest.mark.parametrize("counts", ["100x2,10x2", "28x4,2x2,2x3"])
def test_newton_steps_that_climb_are_not_kept(counts):
    found = tf.solve(
        tf.Problem(
            counts,
            weight_decay=2.680637526810923e-05,
            feature_decay=3.8450549300136007e-07,
            loss="mse",
            bias="free",
            features="nonnegative",
        )
    )
    assert found.status == "optimal"


@pytest.mark.parametrize("bias", ["none", "free"])
def test_a_logit_adjustment_and_class_weights(bias):
    problem = make("60,30,12,3", bias=bias, logit_adjustment="prior", class_weights=[1, 2, 1, 4])
    assert_solved(problem, 6, starts=12)


def test_class_means_with_a_bias_are_not_orthogonal():
    """The measured figure: a largest cosine of .22."""
    problem = tf.Problem(
        [100, 100, 10, 10],
        weight_decay=1e-2,
        feature_decay=1e-2,
        bias="decayed",
        bias_decay=1e-2,
        **RELU,
    )
    means = assert_solved(problem, 6, starts=12).class_means
    cosines = means.T @ means / np.outer(*[np.linalg.norm(means, axis=0)] * 2)
    assert cosines[2, 3] == pytest.approx(0.22, abs=0.006)
    cosines[[0, 1, 2, 3], [0, 1, 2, 3]] = cosines[2, 3] = cosines[3, 2] = 0
    assert np.abs(cosines).max() < 1e-9


@pytest.mark.parametrize("bias", ["free", "decayed"])
@pytest.mark.parametrize("decay", [2e-3, 3e-2])
def test_equal_counts_keep_the_closed_form_without_bias(bias, decay):
    problem = make("20x4", decay, bias=bias)
    solution = tf.solve(problem)
    assert solution.method.startswith("closed form")
    assert solution.gap <= 1e-12
    assert solution.objective == tf.solve(problem.replace(bias="none", bias_decay=None)).objective
    assert solution.objective == pytest.approx(ufm.multistart(problem, 5, starts=8)[0], rel=1e-8)


@settings(max_examples=25)
@given(
    st.lists(st.integers(1, 60), min_size=2, max_size=4),
    st.sampled_from(["cross_entropy", "mse"]),
    st.sampled_from(["none", "free", "decayed"]),
    st.floats(-3.5, -0.5),
    st.integers(0, 10**6),
)
def test_up_to_four_classes_are_certified_and_no_factors_are_below(counts, loss, bias, at, seed):
    rng = np.random.default_rng(seed)
    adjustment = rng.normal(size=len(counts)) if loss == "cross_entropy" else None
    problem = make(counts, 10**at, loss=loss, bias=bias, logit_adjustment=adjustment)
    solution = tf.solve(problem)
    assert solution.status == "optimal"
    k = len(counts)
    for scale in (0.1, 1.0):
        w, h = scale * rng.normal(size=(k, k + 1)), scale * np.abs(rng.normal(size=(k + 1, k)))
        b = None if bias == "none" else rng.normal(size=k)
        assert ufm.objective(problem, [w], h, b) >= solution.lower_bound
        certificate = tf.certify(problem, w @ h, b)
        assert certificate.dual <= solution.objective * (1 + 1e-12)
        assert certificate.primal >= solution.lower_bound


@settings(max_examples=30)
@given(st.integers(2, 7), st.integers(0, 10**6))
def test_the_norm_over_the_orthant_is_between_what_is_found_and_what_is_proven(k, seed):
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(k, k)) / np.sqrt(k)
    lengths, axes = steepest_axes(matrix)
    assert np.allclose(np.linalg.norm(matrix @ axes.T, axis=0), lengths)
    assert axes.min() >= 0
    tried = np.abs(rng.normal(size=(k, 2000)))
    reached = np.linalg.norm(matrix @ (tried / np.linalg.norm(tried, axis=0)), axis=0).max()
    bound = orthant_norm(matrix / lengths.max()) * lengths.max()
    assert reached <= bound * (1 + 1e-12)
    assert lengths.max() <= bound * (1 + 1e-12)
    assert bound <= np.linalg.norm(matrix, 2) * (1 + 1e-9)
    if k <= 4:  # copositive matrices are sums of a positive and a non-negative one
        assert bound <= lengths.max() * (1 + 1e-5)


@pytest.mark.parametrize("bias", ["free", "decayed"])
def test_everything_collapses_where_no_axis_pulls_more_than_the_decay(bias):
    """Z = 0 iff max |G v| <= lambda over unit v >= 0, G the gradient at the best bias alone."""
    problem = make("40,20,20,4", bias=bias)
    none = np.zeros((4, 4))
    counts, n = problem.counts, problem.num_samples
    b = tf.solve(problem.replace(weight_decay=10.0, feature_decay=10.0)).bias
    p = np.exp(b) / np.exp(b).sum()
    gradient = (p[:, None] - np.eye(4)) * np.sqrt(counts) / n
    top = steepest_axes(gradient)[0].max()
    for factor, vanishes in ((0.995, False), (1.005, True)):
        decay = top * factor
        solution = tf.solve(problem.replace(weight_decay=decay, feature_decay=decay))
        assert (solution.logits == none).all() == vanishes


def test_a_width_that_suffices_and_one_that_does_not():
    wide = tf.solve(make("100x2,10x2", bias="free"))
    assert tf.solve(make("100x2,10x2", bias="free", dim=4)).gap is not None
    problem = make("100x2,10x2", bias="free", dim=3)
    solution = tf.solve(problem)
    assert (solution.status, solution.gap) == ("local", None)
    assert solution.search.relaxed_bound == pytest.approx(wide.objective, rel=1e-8)
    assert solution.class_means.shape == (3, 4)
    assert solution.class_means.min() >= 0
    value = ufm.multistart(problem, 3, starts=20)[0]
    assert solution.objective <= value * (1 + 1e-8)
    found = ufm.objective(problem, solution.weights, solution.class_means, solution.bias)
    assert found == pytest.approx(solution.objective, rel=1e-10)


def test_a_time_limit_and_progress_end_a_descent():
    problem = make([1000 - 9 * k for k in range(40)], 1e-4, bias="free")
    told = []
    with pytest.warns(tf.NotConvergedWarning, match="early"):
        solution = tf.solve(problem, progress=lambda *step: told.append(step) or True)
    assert (solution.status, solution.search.stopped) == ("not_converged", "interrupted")
    assert told[0][2] == "descent in the orthant"


def test_several_layers_are_refused():
    with pytest.raises(ValueError, match="problem: non-negative features with 'cross_entropy'"):
        tf.solve(make("9,5", depth=2))
    with pytest.raises(ValueError, match="problem: non-negative features with MSE and several"):
        tf.solve(make("9,5", loss="mse", bias="free", depth=2))


def test_every_class_has_vanished_from_total_collapse_on():
    """A descent may stop 1e-18 from zero; and a class that vanished may be back before."""
    problem = make("60,50,40,30,20,10", bias="free")
    found = tf.state_changes(problem, takers=False)
    last = found.of_group(0)[-1]
    assert (last.before, last.after) == ("distinct", "vanished")
    assert last.logit_decay == pytest.approx(ends(problem).total_collapse, rel=1e-6)
    states = [change.after for change in found.of_group(5)]
    assert states == ["lost", "vanished", "lost", "vanished"]
    gone, back = (change.logit_decay for change in found.of_group(5)[1:3])
    for decay, zero in (((gone * back) ** 0.5, True), (1.1 * back, False)):
        exact = problem.replace(weight_decay=decay, feature_decay=decay)
        means = ufm.multistart(exact, 7, starts=4)[2]
        assert (np.abs(means[:, 5]).max() < 1e-6) == zero


def test_with_a_bias_that_costs_all_states_change_as_without():
    problem = make("40x2,9x3", bias="decayed", bias_decay=1e9)
    found, known = tf.thresholds(problem), tf.thresholds(make("40x2,9x3"))
    assert found.total_collapse == pytest.approx(known.total_collapse, rel=1e-6)
    for own, other in zip(found.groups, known.groups, strict=True):
        assert own.vanishes == pytest.approx(other.vanishes, rel=1e-5)
        assert (own.merges, own.lost, own.logit_decay) == (None, None, None)


@pytest.mark.parametrize("bias", ["none", "free"])
def test_equal_counts_vanish_where_the_theorem_says_for_any_bias(bias):
    (change,) = tf.state_changes(make("9x4", bias=bias))
    assert (change.before, change.after) == ("distinct", "vanished")
    assert change.logit_decay == pytest.approx(math.sqrt(9 * 3 / 4) / 36, rel=1e-6)


@pytest.mark.filterwarnings("ignore:state_changes.*nothing certifies")
@pytest.mark.parametrize(
    "options",
    [
        {"bias": "free"},
        {"bias": "decayed", "bias_decay": 1e-3},
        {"logit_adjustment": "prior"},
    ],
)
def test_states_differ_as_said_on_both_sides_of_a_change(options):
    changes = tf.state_changes(make("100,40,10x2", **options))
    assert len(changes) >= 2
    for change in changes:
        for side, state in ((1 - 1e-4, change.before), (1 + 1e-4, change.after)):
            decay = change.logit_decay * side
            at = changes.problem.replace(weight_decay=decay, feature_decay=decay)
            states = tf.solve(at).group_states
            assert {str(states.state[group]) for group in change.groups} == {state}


def test_total_collapse_is_where_plain_descents_leave_zero():
    """From points near zero: beyond it all of them fall back, a little below one gets away."""
    problem = make("100,40,10x2", bias="free")
    total = ends(problem).total_collapse
    lengths = []
    for side in (0.97, 1.03):
        at = problem.replace(weight_decay=total * side, feature_decay=total * side)
        reached = [_plain_descent(at, seed) for seed in range(6)]
        lengths.append(max(reached))
    assert lengths[0] > 0.05
    assert lengths[1] < 1e-3


def _plain_descent(problem, seed, width=4):
    """Return the largest class mean after projected descent from a small random start."""
    rng = np.random.default_rng(seed)
    k = problem.num_classes
    shares = problem.counts / problem.counts.sum()
    size = 2 * k * width
    start = np.concatenate([0.3 * np.abs(rng.normal(size=size)), np.log(shares)])
    start[: k * width] *= rng.choice([-1, 1], k * width)

    def value(x):
        w, h, b = x[: k * width].reshape(k, width), x[k * width : size].reshape(width, k), x[size:]
        total, by_w, by_h, by_b = ufm.value_and_gradients(problem, [w], h, b)
        return total, np.concatenate([by_w[0].ravel(), by_h.ravel(), by_b])

    bounds = [(None, None)] * (k * width) + [(0, None)] * (k * width) + [(None, None)] * k
    end = minimize(value, start, jac=True, method="L-BFGS-B", bounds=bounds,
                   options={"maxiter": 5000, "ftol": 1e-15, "gtol": 1e-10}).x  # fmt: skip
    return float(np.abs(end[k * width : size]).max())
