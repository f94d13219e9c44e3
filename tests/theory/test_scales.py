"""Logit scales (CDT, VS) and feature weights (LDT): solver, certificate, thresholds, refusals."""

import cvxpy as cp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

import tightframe as tf
from tests.problems import at, make
from tests.strategies import per_class
from tightframe.geometry.blocks import BlockMatrix, Partition
from tightframe.geometry.states import measured_states
from tightframe.landscape import Landscape
from tightframe.solvers.newton import minimise as newton
from tightframe.theory.certificate import certify_blocks, factored_objective

SCALED = {
    "logit_scale": "1x2,.7x3,.5",
    "feature_weights": "60x2,8x3,4",
}


@st.composite
def scaled_problems(draw, max_classes=6):
    """Draw a small problem with scales, feature weights or both, and whatever goes with them."""
    counts = draw(st.lists(st.sampled_from([1, 4, 20, 60]), min_size=2, max_size=max_classes))
    loss = draw(st.sampled_from(["cross_entropy", "cross_entropy", "mse"]))
    options = {
        "loss": loss,
        "class_weights": per_class(draw, [0.3, 1.0, 4.0], counts),
        "feature_weights": draw(
            st.sampled_from(["samples", "contexts"])
            | st.lists(st.sampled_from([0.3, 5.0]), min_size=len(counts), max_size=len(counts))
        ),
    }
    if loss == "cross_entropy":
        options["logit_scale"] = per_class(draw, [0.4, 1.0, 2.0], counts)
        options["logit_adjustment"] = per_class(draw, [-1.0, 0.0, 0.5], counts)
        options["label_smoothing"] = draw(st.sampled_from([0.0, 0.0, 0.2]))
        options["class_margins"] = per_class(draw, [0.0, 0.5], counts)
    bias = draw(st.sampled_from(["none", "free", "decayed"]))
    if bias == "decayed":
        options["bias_decay"] = 10 ** draw(st.floats(-3, 0))
    decays = {name: 10 ** draw(st.floats(-3.5, -0.5)) for name in ("weight_decay", "feature_decay")}
    return tf.Problem(counts, bias=bias, **options, **decays)


def label_terms(problem):
    """Return what ``-log q_v`` of a sample of class i counts (K, K), and the logits' shifts."""
    k, share, weights = problem.num_classes, problem.label_smoothing, problem.class_weights
    spread = np.broadcast_to(share / k * weights, (k, k))
    terms = (1 - share) * np.diag(weights) + spread
    return terms, problem.logit_adjustment[:, None] - np.diag(problem.class_margins)


def softmax_loss(problem, scores, log_sum_exp):
    """Return the mean cross-entropy of columns of scores before the scale, by the definition."""
    terms, shifts = label_terms(problem)
    parts = []
    for column, label, shift in zip(scores, terms.T, shifts.T, strict=True):
        seen = np.diag(problem.logit_scale) @ column + shift
        parts.append(label.sum() * log_sum_exp(seen) - label @ seen)
    return sum(share * part for share, part in zip(problem.counts, parts, strict=True)) / (
        problem.num_samples
    )


def convex_minimum(problem):
    """Return the minimum over Z = W H and b by CVXPY, with Z and b."""
    k = problem.num_classes
    z, b = cp.Variable((k, k)), cp.Variable(k)
    scores = [z[:, i] + b for i in range(k)]
    if problem.loss == "mse":
        shares = problem.counts / problem.num_samples * problem.class_weights / 2
        columns = zip(shares, scores, np.eye(k), strict=True)
        loss = sum(share * cp.sum_squares(column - one) for share, column, one in columns)
    else:
        loss = softmax_loss(problem, scores, cp.log_sum_exp)
    root = np.sqrt(problem.feature_weights)
    cost = loss + problem.logit_decay * cp.normNuc(z @ np.diag(root))
    cost += problem.bias_decay / 2 * cp.sum_squares(b)
    task = cp.Problem(cp.Minimize(cost), [b == 0] if problem.bias == "none" else [])
    task.solve(solver="CLARABEL")
    return task.value, z.value, b.value


@settings(max_examples=15)
@given(scaled_problems(), st.integers(0, 10**6))
def test_the_minimum_is_that_of_cvxpy(problem, seed):
    solution = tf.solve(problem)
    value, z, b = convex_minimum(problem)
    assert solution.status == "optimal"
    assert solution.objective == pytest.approx(value, rel=1e-7, abs=1e-8)
    has_bias = problem.bias != "none"
    # A candidate of somebody else, and poor ones: no bound is above the minimum.
    rng = np.random.default_rng(seed)
    for size in (0.0, 0.1, 3.0):
        poor = z + size * rng.normal(size=z.shape)
        found = tf.certify(problem, poor, b + size * rng.normal(size=b.shape) if has_bias else None)
        assert found.dual <= solution.objective <= found.primal * (1 + 1e-9)
        assert found.dual <= value * (1 + 1e-7) + 1e-8
    assert tf.certify(problem, z, b if has_bias else None).gap <= 1e-3 * value + 1e-6


@settings(max_examples=15)
@given(scaled_problems())
def test_the_reduced_problem_is_the_full_one(problem):
    solution = tf.solve(problem, tol=1e-10)
    full = newton(problem, Partition.singletons(problem), tol=1e-10)
    assert full.certificate.primal == pytest.approx(solution.objective, rel=3e-10)
    again = certify_blocks(problem, BlockMatrix.from_dense(problem, solution.logits), solution.bias)
    assert again.primal == pytest.approx(solution.objective, rel=1e-12)
    assert again.gap <= 1e-9 * solution.objective


@settings(max_examples=15)
@given(scaled_problems(max_classes=4))
def test_factors_have_the_objective_and_are_critical(problem):
    """W and H as they come out, in the objective that `Problem` states, sample by sample."""
    solution = tf.solve(problem, tol=1e-11)
    w, h, b = solution.weights[0], solution.class_means, solution.bias
    labels = np.repeat(np.arange(problem.num_classes), problem.counts)
    value = factored_objective(problem, [w], h.T[labels], labels, b)
    assert value == pytest.approx(solution.objective, rel=1e-9)
    # Their decay costs balance, and no scaling of either lowers the objective.
    cost_w = problem.weight_decay * (w**2).sum()
    cost_h = problem.feature_decay * (problem.feature_weights * h**2).sum()
    assert cost_w == pytest.approx(cost_h, rel=1e-6, abs=1e-15)
    assert np.allclose(w @ h, solution.logits, atol=1e-9 * (1 + abs(solution.logits).max()))
    grouped = solution.grouped_geometry.to_geometry()
    assert grouped.distance(solution.geometry, "classifier") < 1e-6 or not solution.rank


@pytest.mark.parametrize("bias", ["none", "free", "decayed"])
def test_direct_minimisation_of_the_factors_finds_nothing_better(bias):
    problem = make(
        "6,4x2", decay=2e-2, bias=bias, logit_scale=[1, 0.5, 2], feature_weights="contexts"
    )
    k, d = 3, 3

    def value(x):
        w, h, b = np.split(x, [k * d, 2 * k * d])
        w, h = w.reshape(k, d), h.reshape(d, k)
        scores = (w @ h + b[:, None] * (bias != "none")).T
        loss = softmax_loss(problem, list(scores), np.logaddexp.reduce)
        cost = problem.weight_decay * (w**2).sum()
        cost += problem.feature_decay * (problem.feature_weights * h**2).sum()
        return loss + cost / 2 + problem.bias_decay / 2 * b @ b

    rng = np.random.default_rng(0)
    start = rng.normal(size=2 * k * d + k)
    best = minimize(value, start, options={"gtol": 1e-7}).fun
    assert best == pytest.approx(tf.solve(problem).objective, rel=1e-8)


def test_reference_values_of_feature_weights_and_class_weights():
    """shared/contexts.md: LDT is feature weights n / kappa^2, and not class weights kappa."""
    ldt = make("50x2,10x2", decay=3e-3, feature_weights=[50, 50, 10 / 2.25, 10 / 2.25])
    assert tf.solve(ldt).objective == pytest.approx(0.22277, abs=1e-5)
    weighted = make("50x2,10x2", decay=3e-3, class_weights="1x2,1.5x2")
    assert tf.solve(weighted).objective == pytest.approx(0.24375, abs=1e-5)


def test_one_scale_of_all_classes_divides_the_decay():
    scaled = make("50x3,10x2", logit_scale="0.5x5")
    plain = at(make("50x3,10x2"), 2e-2)
    one, other = tf.solve(scaled, tol=1e-12), tf.solve(plain, tol=1e-12)
    assert one.objective == pytest.approx(other.objective, rel=1e-11)
    assert np.allclose(0.5 * one.logits, other.logits, atol=1e-5)


def test_feature_weights_are_other_counts():
    """n, w and o have the minimiser of counts o with weights w n / o, times a constant."""
    n, o = np.array([50, 50, 10, 10]), np.array([8, 8, 30, 30])
    one = make(n, feature_weights=o, decay=4e-3)
    weights = (n / n.sum()) / (o / o.sum())
    other = make(o, class_weights=weights, decay=4e-3)
    assert tf.solve(one, tol=1e-12).objective == pytest.approx(
        tf.solve(other, tol=1e-12).objective, rel=1e-11
    )
    assert make(n, feature_weights=n) == make(n)  # nothing new, and kept as nothing


def test_states_decide_by_the_logits_before_the_scale():
    problem = make("100x2,10x2", decay=1e-2, bias="free", logit_scale="1x2,.3x2")
    solution = tf.solve(problem)
    raw = solution.logits + solution.bias[:, None]
    others = raw - np.where(np.eye(4, dtype=bool), np.inf, 0)
    margins = np.diagonal(raw) - others.max(axis=0)
    assert np.allclose(solution.states.decision_margin, margins, atol=1e-9)
    measured = measured_states(problem, solution.logits, solution.bias)
    assert measured.state.tolist() == solution.states.state.tolist()


@pytest.mark.parametrize("bias", ["none", "free", "decayed"])
@pytest.mark.parametrize(
    "options",
    [
        {"logit_scale": "1x2,.6x3,.4x2"},
        {"feature_weights": "contexts"},
        {"feature_weights": "60x2,20x3,1x2", "logit_scale": "2x2,.6x3,.4x2"},
    ],
)
def test_groups_merge_where_the_thresholds_say(bias, options):
    problem = make("60x2,20x3,9x2", bias=bias, class_weights="1x2,3x3,2x2", **options)
    found = tf.path_limits(problem).total_collapse
    for i, group in enumerate(tf.theory.thresholds.thresholds(problem).groups):
        n, w = group.count, problem.group_weights[i]
        o, scale = problem.group_feature_weights[i], problem.group_scales[i]
        place = group.logit_decay
        assert place == pytest.approx(w * scale * n / np.sqrt(o) / problem.num_samples)
        below, above = (tf.solve(at(problem, place * f)) for f in (0.999, 1.001))
        assert below.group_margins[i] > 1e-5
        assert above.group_margins[i] == 0
        assert below.status == above.status == "optimal"
    near, beyond = (tf.solve(at(problem, found * f)).logits for f in (0.99, 1.01))
    assert abs(near).max() > 1e-6
    assert abs(beyond).max() == 0


def test_a_cdt_of_minorities_merges_them_earlier():
    plain, scaled = make("100x3,10x3"), make("100x3,10x3", logit_scale="1x3,.6x3")
    places = [tf.thresholds(problem).groups[1].merges for problem in (plain, scaled)]
    assert places[1] == pytest.approx(0.6 * places[0])


def test_totals_at_which_classes_merge():
    problem = make("100x3,10x3", decay=4e-3, logit_scale="1x3,.6x3", feature_weights="100x3,4x3")
    group = tf.theory.thresholds.thresholds(problem).groups[1]
    assert group.distinct_counts is None
    # Other samples join, of a class of their own: only N changes.
    grown = 10 * round((group.total_samples - problem.num_samples) / 10)
    for extra, merged in ((grown - 10, False), (grown + 10, True)):
        more = make(
            [100] * 3 + [10] * 3 + [extra],
            decay=4e-3,
            logit_scale=[1] * 3 + [0.6] * 3 + [1],
            feature_weights=[100] * 3 + [4] * 3 + [extra],
        )
        assert bool(tf.solve(more).collapsed[3]) == merged


@pytest.mark.parametrize("bias", ["none", "free", "decayed"])
def test_many_groups_are_split(bias):
    rng = np.random.default_rng(3)
    k = 70
    problem = make(
        rng.integers(2, 400, k),
        decay=3e-4,
        bias=bias,
        logit_scale=rng.uniform(0.4, 1.5, k),
        feature_weights=rng.uniform(1, 60, k),
    )
    solution = tf.solve(problem)
    assert solution.method == "operator splitting"
    assert solution.status == "optimal"


def test_a_million_classes():
    problem = make(
        "1000x200000,100x300000,10x500000",
        decay=2e-8,
        logit_scale="1x200000,.8x300000,.5x500000",
        feature_weights="contexts",
    )
    solution = tf.solve(problem)
    assert solution.status == "optimal"
    assert len(solution.blocks.within) == 3


def test_paths_interpolate_and_agree_with_single_solves():
    problem = make(logit_scale="1x2,.8x3,.5", feature_weights="contexts", bias="free")
    path = tf.path(problem, weight_decay=np.geomspace(1e-5, 1e-1, 24))
    assert max(s.gap / s.objective for s in path.solutions) <= 1e-8
    middle = path.solutions[11]
    assert tf.solve(middle.problem).objective == pytest.approx(middle.objective, rel=2e-8)


def test_narrow_features_are_searched():
    problem = make(
        "20,10,5", decay=2e-3, dim=1, logit_scale=[1, 0.5, 2], feature_weights="contexts"
    )
    found = tf.solve(problem, starts=4)
    wide = tf.solve(problem.replace(dim=None))
    assert found.gap is None
    assert found.objective > wide.lower_bound
    assert found.rank == 1


@pytest.mark.parametrize("name", ["logit_scale", "feature_weights"])
@pytest.mark.parametrize("options", [{"depth": 2}, {"features": "nonnegative"}])
def test_what_nothing_covers_is_refused_by_name(name, options):
    problem = make(**options, **{name: SCALED[name]})
    for ask in (tf.solve, tf.thresholds):
        with pytest.raises(ValueError, match=name):
            ask(problem)


@pytest.mark.parametrize("name", ["logit_scale", "feature_weights"])
def test_what_does_not_know_them_says_so(name):
    problem = make(**{name: SCALED[name]})
    with pytest.raises(ValueError, match=f"^{name}: "):
        Landscape(problem)


@pytest.mark.parametrize(
    "options",
    [
        {"class_margins": "0.5x4,1x4"},
        {"class_margins": "0x4,-.7x4", "bias": "free"},
        {"class_margins": "0.2x4,1x4", "logit_scale": "1x4,.6x4", "label_smoothing": 0.1},
    ],
)
def test_margins_move_merging_by_the_probability_of_siblings(options):
    """c sqrt(n) / N with c = 1 - smoothing + q (1 - e^-m), q read off the merged solution."""
    problem = make("500x4,100x4", decay=1e-3, **options)
    group = tf.thresholds(problem).groups[1]
    assert group.total_samples is group.distinct_counts is None
    place = group.logit_decay
    below, above = (tf.solve(at(problem, place * f), tol=1e-11) for f in (0.999, 1.001))
    assert below.group_margins[1] > 1e-4
    assert above.group_margins[1] == 0
    at_place = tf.solve(at(problem, place * (1 + 1e-7)), tol=1e-12)
    seen = problem.logit_scale * (at_place.logits[:, -1] + at_place.bias)
    seen[-1] -= problem.class_margins[-1]
    sibling = np.exp(seen[-2]) / np.exp(seen).sum()
    gain = sibling * -np.expm1(-problem.class_margins[-1])
    factor = problem.logit_scale[-1] * (1 - problem.label_smoothing + gain)
    assert place == pytest.approx(factor * 10 / problem.num_samples, rel=1e-6)
    if group.merges is not None:  # they may be lost before
        assert group.merges == place


@pytest.mark.parametrize(
    "options",
    [
        {"counts": "2x40", "decay": 6.388472130040032e-05, "logit_scale": "1.26246x40"}
        | {"class_margins": "6.18957x40", "class_weights": "0.0201208x40", "label_smoothing": 0.3}
        | {"bias": "decayed", "bias_decay": 2.2596802001603735e-07},
        {"counts": "11x40", "decay": 0.0026444547076993835, "logit_scale": "1.08893x40"}
        | {"class_margins": "21.2168x40", "class_weights": "0.616505x40", "bias": "free"}
        | {"feature_weights": "0.0376375x40"},
    ],
)
def test_candidates_of_equal_classes_are_certified(options):
    """Their Gram matrices have one eigenvalue many times: LAPACK's driver for a few failed."""
    problem = make(**options)
    found = tf.certify(problem, np.zeros((40, 40)))
    assert found.dual <= tf.solve(problem).objective <= found.primal
