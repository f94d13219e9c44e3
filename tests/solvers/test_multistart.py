"""The multi-start search against known counter-examples, direct minimisation and its own claims."""

import functools
import json
import warnings
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import approx_fprime

import tightframe as tf
from tests.reference import ufm
from tightframe.solvers.search import multistart
from tightframe.solvers.search.candidates import etf_margin
from tightframe.solvers.search.factors import Factors, FixedRank


def _deep(classes, depth, decay, feature_decay=None, **rest):
    return tf.Problem(
        [10] * classes,
        weight_decay=decay,
        feature_decay=decay if feature_decay is None else feature_decay,
        depth=depth,
        **rest,
    )


def _candidate(solution, name, rank):
    (found,) = [c for c in solution.search.candidates if (c.name, c.rank) == (name, rank)]
    return found.objective


def _check_factors(solution):
    """The factors that the solution gives out have its objective."""
    bias = None if solution.problem.bias == "none" else solution.bias
    value = ufm.objective(solution.problem, solution.weights, solution.class_means, bias)
    assert value == pytest.approx(solution.objective, rel=1e-9)


# -- ETF or low rank -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("problem", "etf", "rank", "low"),
    [
        (_deep(6, 3, 1e-3, dim=8), 0.051418, 3, 0.043466),
        (_deep(4, 3, 3e-3, 3e-4, dim=10), 0.050272, 2, 0.046253),
        (_deep(6, 2, 3e-3, 3e-4, dim=12), 0.085831, 3, 0.080408),
        (_deep(10, 2, 3e-3, 3e-4, dim=16), 0.154449, 5, 0.136322),
    ],
)
def test_low_rank_beats_the_etf(problem, etf, rank, low):
    """docs/theory.md section 5: the counter-examples to a global ETF."""
    solution = tf.solve(problem, starts=4)
    assert solution.search.winner == "low-rank"
    assert solution.method == "multi-start search: low-rank"
    assert solution.rank == rank
    assert solution.objective == pytest.approx(low, abs=1e-6)
    assert _candidate(solution, "ETF", problem.num_classes - 1) == pytest.approx(etf, abs=1e-6)
    _check_factors(solution)


@pytest.mark.slow
def test_ten_classes_three_layers():
    """The rank-4 solution known before is found, and one of rank 3 that is better."""
    solution = tf.solve(_deep(10, 3, 5e-4, dim=12))
    assert _candidate(solution, "ETF", 9) == pytest.approx(0.048276, abs=1e-6)
    assert _candidate(solution, "search", 4) == pytest.approx(0.036851, abs=1e-6)
    assert solution.objective == pytest.approx(0.036461, abs=1e-6)
    assert solution.rank == 3
    _check_factors(solution)


@pytest.mark.parametrize(
    ("problem", "etf"),
    [(_deep(4, 2, 2e-3, dim=6), 0.071428), (_deep(4, 2, 3e-3, 3e-4, dim=10), 0.051507)],
)
def test_the_etf_wins_where_the_search_finds_nothing_better(problem, etf):
    solution = tf.solve(problem)
    assert solution.search.winner == "ETF"
    assert solution.objective == pytest.approx(etf, abs=1e-6)
    assert solution.geometry.distance(tf.simplex_etf(4), "logits") < 1e-12
    assert solution.blocks.partition.num_groups == 1
    _check_factors(solution)


def test_nothing_is_claimed_that_is_not_certified():
    solution = tf.solve(_deep(4, 2, 2e-3))
    assert (solution.status, solution.gap, solution.lower_bound) == ("local", None, None)
    assert solution.note.startswith("no certificate: depth 2 is certified for MSE")
    found = solution.search
    said = f"best found by {found.agreed} of {found.chains} independent chains"
    assert solution.note.endswith(said)
    summary = json.loads(json.dumps(solution.to_dict(), allow_nan=False))
    assert summary["search"]["winner"] == "ETF"
    assert summary["search"]["widths"] == [1, 2, 3]
    assert summary["search"]["candidates"][0]["objective"] == solution.objective
    assert "global" not in json.dumps(summary)
    assert tf.solve(tf.Problem("5x3", weight_decay=1, feature_decay=1)).search is None


def test_candidates_are_sorted_and_of_distinct_rank():
    search = tf.solve(_deep(6, 2, 3e-3, 3e-4)).search
    objectives = [candidate.objective for candidate in search.candidates]
    assert objectives == sorted(objectives)
    ranks = [candidate.rank for candidate in search.candidates]
    assert len(set(ranks)) == len(ranks)
    for candidate in search.candidates:
        assert (candidate.found is None) == (candidate.name != "search")
    assert search.candidates[0].found > 1


@pytest.mark.parametrize("decay", [0.3, 10.0])
def test_zero_wins_under_strong_decay(decay):
    solution = tf.solve(_deep(4, 2, decay, bias="free"))
    assert solution.search.winner == "zero"
    assert solution.objective == pytest.approx(np.log(4), rel=1e-12)
    assert solution.collapsed.all()
    assert not solution.class_means.any()


# -- the best objective ----------------------------------------------------------------------------

SMALL = {
    "depth 2": {"counts": "60,20,9,4", "depth": 2, "feature_decay": 2e-3},
    "depth 3, twins": {"counts": "30x2,6x3", "depth": 3, "feature_decay": 1e-4},
    "depth 2, free bias": {"counts": "40,30,2x2", "depth": 2, "bias": "free"},
    "depth 3, decayed bias": {"counts": "9,7,5", "depth": 3, "bias": "decayed", "bias_decay": 0.05},
    "depth 4, dim 2": {"counts": "25,20,6,5", "depth": 4, "dim": 2},
    "unequal decays": {"counts": "25,20,6", "depth": 2, "weight_decay": (1e-3, 5e-2)},
    "dim 1": {"counts": "12,5,5", "dim": 1},
    "dim 2": {"counts": "40x3,5x2", "dim": 2},
    "dim 3, free bias": {"counts": "40x3,5x4", "dim": 3, "bias": "free"},
    "MSE, dim 2": {"counts": "25,20,6,5", "loss": "mse", "dim": 2},
    "MSE, depth 2": {"counts": "25,20,6", "loss": "mse", "depth": 2},
    "MSE, depth 3, dim 2": {"counts": "25,20,6", "loss": "mse", "depth": 3, "dim": 2},
}


#: For the problems that several tests start from.
solve = functools.cache(tf.solve)


def _small(name):
    spec = {"weight_decay": 8e-3, "feature_decay": 6e-4} | SMALL[name]
    if spec.get("loss") == "mse":
        spec |= {"bias": "decayed", "bias_decay": 0.1}
    return tf.Problem(**spec)


@pytest.mark.parametrize("name", SMALL)
def test_direct_minimisation_finds_nothing_better(name):
    problem = _small(name)
    solution = solve(problem)
    assert solution.status == "local"
    _check_factors(solution)
    value, *_ = ufm.multistart(problem, problem.dim or problem.num_classes, starts=5)
    assert solution.objective <= value + 1e-8


@pytest.mark.slow
@settings(max_examples=25)
@given(st.data())
def test_direct_minimisation_finds_nothing_better_anywhere(data):
    loss = data.draw(st.sampled_from(["cross_entropy", "cross_entropy", "mse"]))
    bias = data.draw(st.sampled_from(["none", "free", "decayed"])) if loss != "mse" else "decayed"
    counts = data.draw(st.lists(st.integers(1, 60), min_size=3, max_size=6))
    depth = data.draw(st.integers(1, 4))
    problem = tf.Problem(
        counts,
        loss,
        weight_decay=data.draw(st.floats(-4, -1).map(lambda e: 10**e)),
        feature_decay=data.draw(st.floats(-5, -2).map(lambda e: 10**e)),
        bias=bias,
        bias_decay=data.draw(st.floats(0.01, 1)) if bias == "decayed" else None,
        depth=depth,
        dim=data.draw(st.integers(1, len(counts) - 2)) if depth == 1 else None,
    )
    solution = tf.solve(problem)
    value, *_ = ufm.multistart(problem, problem.dim or problem.num_classes, starts=5)
    # Where the solution is certified it is so to a relative gap of 1e-8.
    assert solution.objective <= value + 1e-8
    _check_factors(solution)


@pytest.mark.parametrize("depth", [1, 2])
def test_more_width_never_costs_more(depth):
    problem = tf.Problem("30x2,6x3", weight_decay=5e-3, feature_decay=5e-4, depth=depth)
    values = [tf.solve(problem.replace(dim=dim)).objective for dim in (1, 2, 3, 4)]
    # Beyond the rank, width changes nothing: there the local solver's accuracy is all that differs.
    assert all(wider <= value * (1 + 1e-9) for value, wider in pairwise(values))
    assert values[0] > values[1] > values[2]


@pytest.mark.parametrize("name", ["depth 2", "depth 3, twins", "dim 2", "MSE, depth 2"])
def test_renaming_the_classes_changes_nothing(name):
    problem = _small(name)
    order = np.random.default_rng(0).permutation(problem.num_classes)
    one, two = solve(problem), tf.solve(problem.reordered(order))
    assert two.objective == pytest.approx(one.objective, rel=1e-12)
    assert sorted(two.margins) == pytest.approx(sorted(one.margins), abs=1e-5)
    assert two.collapsed.sum() == one.collapsed.sum()
    _check_factors(two)


def test_the_seed_decides():
    problem = _small("depth 2")
    one, two = tf.solve(problem, seed=3), tf.solve(problem, seed=3)
    assert np.array_equal(one.logits, two.logits)
    assert one.search == two.search
    other = tf.solve(problem, seed=4)
    assert other.search.seed == 4
    assert other.objective == pytest.approx(one.objective, rel=1e-10)
    assert not np.array_equal(one.logits, other.logits)


def test_more_starts_are_run_where_asked_for():
    problem = _small("depth 2")
    few, many = tf.solve(problem, starts=1).search, tf.solve(problem, starts=5).search
    assert many.starts - few.starts == 4 * len(many.widths)


# -- too narrow features ---------------------------------------------------------------------------


def test_a_solution_that_fits_is_certified():
    problem = tf.Problem("500x5,100x5", weight_decay=0.02, feature_decay=0.001, dim=6)
    wide = tf.solve(problem.replace(dim=None))
    solution = tf.solve(problem)
    assert (wide.rank, solution.rank) == (5, 5)
    assert solution.status == "optimal"
    assert solution.search is None
    assert solution.method == "grouped Newton; rank 5 fits dim 6"
    assert solution.gap <= 1e-8 * solution.objective
    assert solution.class_means.shape == (6, 10)
    _check_factors(solution)


def test_many_classes_that_collapse_fit_too():
    problem = tf.Problem("1000x5,3x100000", weight_decay=1e-4, feature_decay=1e-4, dim=5)
    assert tf.solve(problem).status == "optimal"
    with pytest.raises(ValueError, match=r"counts: got 100005 classes; .* at most 100"):
        tf.solve(problem.replace(dim=4))


def test_a_solution_that_does_not_fit_is_bounded():
    problem = _small("dim 2")
    solution, wide = solve(problem), tf.solve(problem.replace(dim=None))
    assert solution.search.relaxed_bound == wide.lower_bound < solution.objective
    assert solution.rank == 2
    assert solution.class_means.shape == (2, 5)
    assert solution.search.widths == (2,)
    assert tf.solve(_deep(3, 2, 1e-3)).search.relaxed_bound is None


def test_merged_classes_count_as_collapsed():
    """Every class stands alone in the blocks of a search, and still those that agree are found."""
    problem = tf.Problem("60,2x3", weight_decay=2e-2, feature_decay=1e-3, dim=1)
    solution = tf.solve(problem)
    assert solution.blocks.partition.num_groups == 4
    merged = np.flatnonzero(solution.collapsed)
    assert len(merged) == 2
    assert merged.min() >= 1
    first, second = solution.class_means[:, merged].T
    assert np.allclose(first, second, rtol=1e-12)
    one, two = solution.margins[merged]
    assert one == pytest.approx(two, rel=1e-12)  # as far as the means agree
    means = solution.class_means[0]
    for k in np.flatnonzero(~solution.collapsed):
        assert np.abs(np.delete(means, k) - means[k]).min() > 0.1


def test_vanished_classes_count_as_collapsed():
    problem = tf.Problem(
        "60x3,2x3", "mse", weight_decay=2e-2, feature_decay=1e-3, depth=2, bias="decayed",
        bias_decay=0.1,
    )  # fmt: skip
    solution = tf.solve(problem)
    assert solution.collapsed.tolist() == [False] * 3 + [True] * 3
    assert not solution.logits[:, 3:].any()


# -- the parts -------------------------------------------------------------------------------------


def _points(problem, width, batch=3, seed=0):
    f = Factors(problem, width)
    return f, np.random.default_rng(seed).normal(size=(batch, f.cuts[-1]))


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
@pytest.mark.parametrize("depth", [1, 2, 4])
@pytest.mark.parametrize("bias", ["none", "free", "decayed"])
def test_gradients_against_finite_differences(loss, depth, bias):
    bias_decay = 0.3 if bias == "decayed" else None
    problem = tf.Problem(
        "9,5,3", loss, weight_decay=0.1, feature_decay=0.02, bias=bias, bias_decay=bias_decay,
        depth=depth,
    )  # fmt: skip
    f, x = _points(problem, 2)
    fixed = FixedRank(f, 3.0)
    y = fixed.enter(x)
    for function, points in ((f, x), (fixed, y)):
        values, gradients = function(points)
        for point, value, gradient in zip(points, values, gradients, strict=True):
            assert function(point[None])[0][0] == pytest.approx(value, rel=1e-12)
            numeric = approx_fprime(point, lambda p, g=function: g(p[None])[0][0], 1e-7)
            assert np.allclose(gradient, numeric, atol=1e-5)
    # Balancing lowers the cost of a random point, and both forms agree on balanced ones.
    balanced = fixed.leave(y)
    assert (f(balanced)[0] <= f(x)[0]).all()
    assert np.allclose(f(balanced)[0], fixed(y)[0], rtol=1e-12)
    assert np.allclose(f.products(balanced), f.products(x), atol=1e-10)


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_values_are_those_of_the_definition(depth):
    """Diagonal layers in between, everything scaled from the common decay to the layers' own."""
    decays = np.array([0.1, 0.03, 0.2, 0.05])[:depth]
    problem = tf.Problem(
        "9,5,3", weight_decay=tuple(decays) if depth > 1 else 0.1, feature_decay=0.02, bias="free",
        depth=depth,
    )  # fmt: skip
    f, x = _points(problem, 2)
    u, v, c, bias = f.split(x)
    tilt = np.sqrt(problem.mean_decay / decays)
    for i, value in enumerate(f(x)[0]):
        layers = [np.diag(c[i]) * t for t in tilt[:-1]] + [u[i] * tilt[-1]]
        means = v[i].T / np.sqrt(problem.counts) * np.sqrt(problem.mean_decay / 0.02)
        assert ufm.objective(problem, layers, means, bias[i]) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize(("classes", "depth"), [(2, 2), (4, 2), (6, 3), (10, 5)])
@pytest.mark.parametrize("decay", [1e-100, 1e-12, 1e-3])
def test_the_etf_candidate_is_stationary(classes, depth, decay):
    problem = _deep(classes, depth, decay)
    margin = etf_margin(problem)
    f = Factors(problem, classes - 1)
    left, values, right = np.linalg.svd((np.eye(classes) - 1 / classes) * f.root)
    point = f.join(
        *(a[None] for a in (left[:, :-1], margin * values[:-1], right[:-1].T, np.zeros(classes)))
    )
    value, gradient = f(point)
    assert np.linalg.norm(gradient) <= 1e-10 * np.linalg.norm(f.decay * point)
    for factor in (0.5, 0.999, 1.001, 2.0):
        scaled = f.join(
            *(a[None] for a in (left[:, :-1], factor * margin * values[:-1])),
            right[:-1].T[None],
            np.zeros((1, classes)),
        )
        assert f(scaled)[0][0] > value[0]


def test_no_etf_where_the_decay_leaves_none():
    assert etf_margin(_deep(4, 2, 1.0)) is None
    assert etf_margin(_deep(4, 2, 1e100)) is None
    names = [c.name for c in tf.solve(_deep(4, 2, 1.0)).search.candidates]
    assert "ETF" not in names
    narrow = [c.name for c in tf.solve(_deep(4, 2, 1e-3, dim=2)).search.candidates]
    assert "ETF" not in narrow


@pytest.mark.parametrize("decay", [1e-30, 1e-12, 10.0, 1e100])
@pytest.mark.parametrize("depth", [2, 3])
def test_extreme_decays_leave_finite_numbers(decay, depth):
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        solution = tf.solve(_deep(4, depth, decay), starts=2)
        assert solution.status == "local"
        assert np.isfinite(solution.objective)
        assert np.isfinite(solution.geometry.classifier).all()
    _check_factors(solution)


def test_the_width_is_bracketed_for_many_classes():
    def widths(problem):
        return multistart.search(problem, starts=1, max_iterations=30).search.widths

    many = widths(_deep(30, 2, 1e-3))
    assert many[0] == 1
    assert many[-1] < 29
    values = {c.rank: c.objective for c in tf.solve(_deep(30, 2, 1e-3), starts=1).search.candidates}
    best = min(values, key=values.get)
    assert {best - 1, best + 1} <= set(values)  # next to the best width nothing was left out
    assert widths(_deep(6, 2, 1e-3, dim=3)) == (1, 2, 3)


def test_singular_values_where_lapack_gives_up(monkeypatch):
    f, x = _points(_small("depth 2"), 2)
    expected = f.decompose(x)

    def fail(*_):
        raise np.linalg.LinAlgError("SVD did not converge")

    monkeypatch.setattr(np.linalg, "svd", fail)
    left, values, right, _ = f.decompose(x)
    assert np.allclose(values, expected[1], rtol=1e-12)
    product = (left * values[:, None]) @ right.transpose(0, 2, 1)
    assert np.allclose(product, f.products(x), atol=1e-12)


# -- what goes wrong -------------------------------------------------------------------------------


def test_non_convergence_is_said():
    with pytest.warns(tf.NotConvergedWarning, match="before a local minimum, after 2 iterations"):
        solution = tf.solve(_small("depth 2"), max_iterations=2)
    assert solution.status == "not_converged"
    assert solution.gap is None
    assert not solution.search.converged


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"starts": 0}, "starts: got 0, need a whole number, at least 1"),
        ({"starts": 2.5}, "starts: got 2.5"),
        ({"seed": -1}, "seed: got -1, need a whole number, at least 0"),
        ({"seed": None}, "seed: got None"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    for problem in (_deep(3, 2, 1e-3), _deep(3, 1, 1e-3)):
        with pytest.raises(ValueError, match=message):
            tf.solve(problem, **arguments)


def test_too_many_classes_are_refused():
    with pytest.raises(ValueError, match=r"counts: got 101 classes; .* at most 100"):
        tf.solve(_deep(101, 2, 1e-3))
