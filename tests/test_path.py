"""Paths against separate solves, rank changes against solves beside them, limits against both."""

import functools
import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tightframe as tf
from tests.problems import at, changing, make
from tests.reference import ufm
from tightframe.changes import known_thresholds
from tightframe.geometry.blocks import BlockMatrix, Partition
from tightframe.problem.problem import BIASES, LOSSES
from tightframe.solvers import newton as factored
from tightframe.solvers import sweep as sweep_module
from tightframe.solvers.continuation import Continuation
from tightframe.theory import thresholds as closed

#: Many sweeps have points in common.
solve = functools.cache(tf.solve)
rank_changes = functools.cache(tf.rank_changes)


def assert_as_alone(problem, sweep, tol=1e-9):
    """Solve along the sweep and every point alone; they agree as far as both are certified."""
    found = tf.path(problem, **sweep, tol=tol)
    points = [dict(zip(sweep, values, strict=True)) for values in zip(*sweep.values(), strict=True)]
    assert len(found.solutions) == len(points)
    for point, changes in zip(found.solutions, points, strict=True):
        alone = solve(problem.replace(**changes), tol)
        assert point.problem == alone.problem
        assert point.status == alone.status == "optimal"
        assert point.gap <= tol * point.objective
        # Each bound holds for the other's point.
        assert point.lower_bound <= alone.objective * (1 + 1e-13)
        assert alone.lower_bound <= point.objective * (1 + 1e-13)
        assert point.rank == alone.rank
        assert point.group_collapsed.tolist() == alone.group_collapsed.tolist()
        assert np.allclose(point.margins, alone.margins, atol=2e-3)
        assert np.allclose(point.bias, alone.bias, atol=2e-3)
    return found


# -- the path is what separate solves give ---------------------------------------------------------

SMOOTH = [
    make(),
    make(bias="free"),
    make(bias="decayed"),
    make(loss="mse", bias="decayed"),
]
CLOSED = [
    make("12x4"),
    make(loss="mse"),
    make(loss="mse", bias="free"),
    make(features="nonnegative"),
    make(loss="mse", features="nonnegative"),
]
DOWN = np.geomspace(6e-2, 4e-4, 14)  # from total collapse, over merging groups and rank changes
SWEEPS = {
    "down": DOWN,
    "up": DOWN[::-1],
    "there and back": np.r_[DOWN, DOWN[::-1]],
    "repeated": np.repeat(DOWN[4:9], 3),
    "uneven": [0.02, 0.0199, 0.0198, 0.011, 0.01, 0.0099, 5e-3, 4.9e-3, 4.8e-3, 3e-5, 4e-5, 1e-2],
    "one point": [3e-3],
}


def name(problem):
    return f"{problem.loss}-{problem.bias}-{problem.features}-{problem.depth}"


@pytest.mark.parametrize("sweep", SWEEPS.values(), ids=SWEEPS)
@pytest.mark.parametrize("problem", SMOOTH, ids=name)
def test_decays(problem, sweep):
    assert_as_alone(problem, {"weight_decay": sweep, "feature_decay": sweep})


@pytest.mark.parametrize("problem", CLOSED, ids=name)
def test_decays_of_closed_forms(problem):
    found = assert_as_alone(problem, {"weight_decay": DOWN, "feature_decay": DOWN})
    assert all(point.method.startswith("closed form") for point in found.solutions)


def test_decays_a_layer():
    problem = tf.Problem("30x2,8", "mse", weight_decay=1, feature_decay=1e-3, bias="free", depth=2)
    sweep = [(decay, 2 * decay) for decay in (3e-3, 1e-2, 1e-1, 1.0)]
    found = assert_as_alone(problem, {"weight_decay": sweep})
    assert found.sweep == {"weight_decay": tuple(sweep)}
    assert found.rank[0] > found.rank[-1] == 0


@pytest.mark.parametrize("loss", LOSSES)
def test_bias_decays(loss):
    sweep = np.geomspace(1e-5, 1e2, 12)
    assert_as_alone(make(loss=loss, bias="decayed"), {"bias_decay": sweep})
    together = {"weight_decay": np.geomspace(3e-2, 3e-3, 8), "bias_decay": np.geomspace(1, 1e-3, 8)}
    assert_as_alone(make(loss=loss, bias="decayed"), together)


@pytest.mark.parametrize("problem", SMOOTH, ids=name)
@pytest.mark.parametrize(
    "counts",
    [
        [f"60x2,{n}x3,9" for n in range(12, 40, 3)],
        [[60 + n, 20, 20, 9, 60 + n] for n in range(8)],
        ["60x5", "60x2,59x3", "60x2,58x3", "60x3,58x2", "60x2,57x3", "60x2,57x2,9", "9,60"],
        ["60,20,9,4", "4,60,20,9", "9,4,60,20", "20,9,4,60"],
    ],
    ids=["same groups", "reordered groups", "other groups", "relabelled"],
)
def test_counts(problem, counts):
    assert_as_alone(problem, {"counts": counts})


@st.composite
def walks(draw):
    """A problem and a walk of decays with steps of any size and direction."""
    runs = draw(st.lists(st.tuples(st.integers(1, 99), st.integers(1, 3)), min_size=1, max_size=4))
    counts = [n for n, k in runs for _ in range(k)]
    if len(counts) < 2:
        counts *= 2
    loss = draw(st.sampled_from(LOSSES))
    problem = make(counts, loss, bias=draw(st.sampled_from(BIASES)))
    top = closed.ends(problem).total_collapse
    steps = st.one_of(st.floats(-0.3, 0.3), st.just(0.0), st.just(-0.1))
    logs = np.cumsum(draw(st.lists(steps, min_size=3, max_size=10)))
    return problem, 0.4 * top * np.exp(logs)


@settings(max_examples=30)
@given(walks())
def test_any_walk_of_decays(drawn):
    problem, sweep = drawn
    found = tf.path(problem, weight_decay=sweep, feature_decay=sweep)
    for point, decay in zip(found.solutions, sweep, strict=True):
        alone = tf.solve(at(problem, decay))
        assert point.status == alone.status == "optimal"
        assert point.lower_bound <= alone.objective * (1 + 1e-13)
        assert alone.lower_bound <= point.objective * (1 + 1e-13)
        assert point.group_collapsed.tolist() == alone.group_collapsed.tolist()


@pytest.mark.parametrize("problem", SMOOTH, ids=name)
def test_the_order_of_the_classes_does_not_matter(problem):
    order = np.array([4, 0, 5, 2, 1, 3])
    sweep = np.geomspace(3e-2, 1e-3, 10)
    decays = {"weight_decay": sweep, "feature_decay": sweep}
    one = tf.path(problem, **decays, tol=1e-12)
    other = tf.path(problem.reordered(order), **decays, tol=1e-12)
    assert other.rank.tolist() == one.rank.tolist()
    assert np.allclose(other.objective, one.objective, rtol=1e-11)
    assert np.allclose(other.margins, one.margins[:, order], atol=1e-4)
    for a, b in zip(one.solutions, other.solutions, strict=True):
        assert np.allclose(b.logits, a.logits[np.ix_(order, order)], atol=1e-4)


def test_what_nothing_certifies_is_searched_at_every_point():
    problem = tf.Problem("9x4", weight_decay=3e-3, feature_decay=3e-4, depth=2)
    found = tf.path(problem, weight_decay=[3e-3, 4e-3], starts=2, seed=3)
    for point, decay in zip(found.solutions, (3e-3, 4e-3), strict=True):
        alone = tf.solve(problem.replace(weight_decay=decay), starts=2, seed=3)
        assert point.status == "local"
        assert point.gap is None
        assert point.objective == alone.objective
        assert point.search == alone.search


def test_points_that_do_not_converge_say_so():
    sweep = [1e-2, 9e-3]
    with pytest.warns(tf.NotConvergedWarning, match="relative gap"):
        found = tf.path(make(), weight_decay=sweep, feature_decay=sweep, max_iterations=1)
    assert [point.status for point in found.solutions] == ["not_converged"] * 2


def test_properties_are_those_of_the_points():
    found = tf.path(make(), weight_decay=DOWN, feature_decay=iter(DOWN / 2))
    assert found.logit_decay == pytest.approx(DOWN / math.sqrt(2))
    assert found.objective.tolist() == [point.objective for point in found.solutions]
    assert found.rank.tolist() == [point.rank for point in found.solutions]
    assert found.margins.shape == (14, 6)
    assert np.array_equal(found.margins, [point.margins for point in found.solutions])
    assert np.diff(found.objective).max() < 0  # smaller decays cost less
    plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert plain["sweep"] == {"weight_decay": DOWN.tolist(), "feature_decay": (DOWN / 2).tolist()}
    assert [point["objective"] for point in plain["points"]] == found.objective.tolist()
    assert tf.Problem(**plain["points"][3]["problem"]) == found.solutions[3].problem
    counts = tf.path(make(), counts=[np.array([5, 5, 3]), "5x2,2"])
    assert json.loads(json.dumps(counts.to_dict()))["sweep"] == {"counts": ["5x2,3", "5x2,2"]}


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        ({}, "give at least one, with at least one value"),
        ({"weight_decay": []}, "give at least one, with at least one value"),
        ({"weight_decay": [1e-2, 1e-3], "feature_decay": [1e-2]}, "all of one length"),
        ({"weight_decay": "1e-2"}, "weight_decay: got '1e-2', need a sequence"),
        ({"feature_decay": 1e-2}, "feature_decay: got 0.01, need a sequence"),
        ({"counts": "5x2"}, "counts: got '5x2', need a sequence with one entry a point"),
        ({"counts": [5, 5]}, "counts: got 5"),
        ({"counts": ["5x2", "5"]}, "counts: got 1 class"),
        ({"weight_decay": [1e-2, math.nan]}, "weight_decay: got nan"),
        ({"weight_decay": [1e-2], "tol": 0}, "tol: got 0"),
        ({"weight_decay": [1e-2], "max_iterations": 0}, "max_iterations: got 0"),
        ({"weight_decay": [1e-2], "starts": 0}, "starts: got 0"),
        ({"weight_decay": [1e-2], "seed": -1}, "seed: got -1"),
    ],
)
def test_bad_sweeps(sweep, message):
    with pytest.raises(ValueError, match=message):
        tf.path(make(), **sweep)


def test_a_problem_is_needed():
    for function in (tf.rank_changes, tf.path_limits):
        with pytest.raises(ValueError, match="problem: got str"):
            function("5x2")
    with pytest.raises(ValueError, match="problem: got str"):
        tf.path("5x2", weight_decay=[1])


# -- sweeps of decays: interpolation ---------------------------------------------------------------

INTERPOLATED = "interpolation along the sweep"


@pytest.mark.parametrize(
    ("counts", "loss", "bias", "low", "nodes"),
    [
        ("60,20,9,4", "cross_entropy", "none", 0.003, 20),
        ("60,20,9,4", "cross_entropy", "free", 0.003, 12),
        ("60,20,9,4", "cross_entropy", "decayed", 0.003, 20),
        ("60,20,9,4", "mse", "decayed", 0.05, 12),
        ("60,20,9,4", "mse", "decayed", 1e-4, 20),
        ("30x3,20x2,11,5x2", "cross_entropy", "none", 0.003, 20),
        ("30x3,20x2,11,5x2", "cross_entropy", "free", 0.003, 12),
    ],
)
def test_few_points_of_a_smooth_stretch_are_solved(counts, loss, bias, low, nodes):
    problem = make(counts, loss, bias=bias)
    high = 0.3 if low > 1e-3 else 0.03
    sweep = np.geomspace(high, low, 60) * closed.ends(problem).total_collapse
    found = assert_as_alone(problem, {"weight_decay": sweep, "feature_decay": sweep}, 1e-8)
    assert len(set(found.rank)) == 1  # smooth: no kink
    solved = [point for point in found.solutions if point.method != INTERPOLATED]
    assert 2 <= len(solved) <= nodes


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_interpolated_points_are_certified_by_the_public_certificate(loss):
    problem = make("60,20,9,4", loss, bias="decayed")
    sweep = np.geomspace(0.2, 0.02, 30) * closed.ends(problem).total_collapse
    found = tf.path(problem, weight_decay=sweep, feature_decay=sweep)
    points = [point for point in found.solutions if point.method == INTERPOLATED]
    assert points
    for point in points:
        again = tf.certify(point.problem, point.logits, point.bias)
        assert again.primal == pytest.approx(point.objective, rel=1e-12)
        assert again.gap <= 1e-8 * point.objective


@pytest.mark.parametrize(
    "factor",
    [
        pytest.param(-1.0, marks=pytest.mark.slow),
        0.0,
        pytest.param(1e3, marks=pytest.mark.slow),
        np.nan,
    ],
)
def test_a_wild_interpolation_does_no_harm(monkeypatch, factor):
    predict, calls = sweep_module.Sweep._predict, []

    def wild(self, places, nodes):
        calls.append(places)
        logits, bias = predict(self, places, nodes)
        left, values, right = logits.decomposition
        values = np.abs(np.nan_to_num(factor * values, nan=7.0))
        return BlockMatrix.from_svd(self.partition, logits.within, -left, values, right), bias

    monkeypatch.setattr(sweep_module.Sweep, "_predict", wild)
    for problem in SMOOTH:
        calls.clear()
        found = assert_as_alone(
            problem,
            {"weight_decay": np.geomspace(8e-3, 1e-3, 8), "feature_decay": [8e-3] * 8},
        )
        assert calls
        if factor != 0.0:
            assert all(point.method != INTERPOLATED for point in found.solutions)


def test_points_that_share_a_decay_are_told_apart():
    problem = make(bias="decayed")
    sweep = {"weight_decay": [1e-2] * 4 + [2e-3] * 4, "bias_decay": [1e-3, 1e-2, 0.1, 1.0] * 2}
    assert_as_alone(problem, sweep)


# -- sweeps of counts: continuation ----------------------------------------------------------------


@pytest.fixture
def runs(monkeypatch):
    """Every run of the solver inside a path: whether from a prediction, and its result."""
    found, original = [], factored.minimise

    def minimise(problem, partition, **options):
        result = original(problem, partition, **options)
        found.append((options.get("start") is not None, result))
        return result

    monkeypatch.setattr(factored, "minimise", minimise)
    return found


@pytest.mark.parametrize(
    ("loss", "bias"),
    [
        ("cross_entropy", "none"),
        ("cross_entropy", "free"),
        ("cross_entropy", "decayed"),
        ("mse", "decayed"),
    ],
)
def test_predictions_are_good_on_a_smooth_stretch(runs, loss, bias):
    problem = make("60,20,9,4", loss, 2e-3, bias=bias)
    counts = [f"{n},200,90,40" for n in range(600, 900, 10)]
    found = tf.path(problem, counts=counts)
    assert len(set(found.rank)) == 1  # smooth: no kink
    assert [warm for warm, _ in runs] == [False] * 2 + [True] * 28  # none was a bad one
    assert all(result.converged for _, result in runs)
    steps = [result.stats.iterations for _, result in runs]
    problems = [problem.replace(counts=entry) for entry in counts]
    alone = [
        factored.minimise(p, Partition.coarsest(p), tol=1e-8).stats.iterations for p in problems
    ]
    assert sum(steps) < 0.7 * sum(alone)
    assert max(steps[10:]) <= 2  # and they stay good


@pytest.mark.parametrize("factor", [-1.0, 1e3, 1e6])
def test_a_wild_prediction_does_no_harm(runs, monkeypatch, factor):
    predict = Continuation._predict

    def wild(self, problem, partition):
        found = predict(self, problem, partition)
        if found is None:
            return None
        noise = np.random.default_rng(len(runs)).normal(size=found.left.shape)
        return found._replace(left=factor * noise, right=factor * found.right)

    monkeypatch.setattr(Continuation, "_predict", wild)
    counts = [f"{n}x2,200x3,90" for n in range(600, 680, 10)]
    for problem in SMOOTH:
        runs.clear()
        assert_as_alone(at(problem, 2e-3), {"counts": counts})
        assert sum(warm for warm, _ in runs) >= 4  # all were tried
        failed = [i for i, (warm, result) in enumerate(runs) if warm and not result.converged]
        assert all(not runs[i + 1][0] and runs[i + 1][1].converged for i in failed)
        assert all(
            result.stats.iterations <= factored.DEFAULTS.max_warm_iterations
            for warm, result in runs
        )
        assert failed or factor < 1e6


@pytest.mark.parametrize(
    ("problems", "kinks"),
    [
        # Merging at sqrt(20)/189 = 0.0237.
        ([at(make(), decay) for decay in np.linspace(0.026, 0.021, 11)], [5]),
        # The rank grows to 2 at 0.0412.
        ([at(make("60,20,9,4"), decay) for decay in np.linspace(0.0435, 0.0385, 11)], [5]),
        ([make(f"60x2,{n}x3,9") for n in (30, 29, 28)] + [make("60x2,28x3,9x2")], [3]),
        ([make(f"60x2,{n}x3") for n in (57, 58, 59)] + [make("60x5,59"), make("60x5,58")], [3]),
    ],
    ids=["merging", "rank", "class added", "group resized"],
)
def test_what_lies_before_a_kink_is_forgotten(problems, kinks):
    memory, lengths = Continuation(), []
    for problem in problems:
        result = memory.minimise(problem, Partition.coarsest(problem), 1e-10, 1000)
        assert result.converged
        lengths.append(len(memory.points))
        for point in memory.points:
            assert point.left.shape == result.factors.left.shape
            assert ((point.within > 0) == (result.factors.within > 0)).all()
    assert [i for i in range(1, len(problems)) if lengths[i] == 1] == kinks
    assert max(lengths) <= memory.options.max_points


# -- where the rank changes ------------------------------------------------------------------------

CHANGING = [
    make("60,20,9,4"),
    make("60,20,9,4", bias="free"),
    make("60,20,9,4", bias="decayed"),
    make("50x3,10x2"),
    make("50x3,10x2", bias="free"),
    make("40,7x3", "mse", bias="decayed"),
    make("40x2,7x3", "mse"),
    make("40x2,7,9", "mse", bias="free"),
    make("8x4"),
    make("8x4", bias="decayed"),
    make("8x3", "mse"),
    make("9,4", dim=1),
    make("1000,1", bias="decayed"),
]


@pytest.mark.parametrize("problem", CHANGING, ids=changing)
def test_rank_beside_every_change(problem):
    changes = rank_changes(problem)
    assert changes[0].rank_above == 0
    assert changes[0].logit_decay == pytest.approx(closed.ends(problem).total_collapse, rel=1e-12)
    decays = [change.logit_decay for change in changes]
    assert decays == sorted(set(decays), reverse=True)
    for change, after in itertools.pairwise(changes):
        assert change.rank_below == after.rank_above
    for change in changes:
        assert type(change.logit_decay) is float
        above, below = (tf.solve(at(problem, change.logit_decay * f)) for f in (1 + 1e-5, 1 - 1e-5))
        assert (above.rank, below.rank) == (change.rank_above, change.rank_below)
    for change, end in zip(changes, [*decays[1:], decays[-1] / 2], strict=True):
        middle = math.sqrt(change.logit_decay * end)
        assert tf.solve(at(problem, middle)).rank == change.rank_below


@pytest.mark.parametrize(
    ("counts", "terms"),
    [
        ("30x3", {"class_margins": "0.5x3"}),
        ("30x4", {"class_margins": "0x2,.5x2", "label_smoothing": 0.1}),
        ("30x2,10x2", {"class_margins": "-.3x2,.8x2", "logit_scale": "1x2,.6x2"}),
        ("20x4", {"feature_weights": "20x2,5x2", "bias": "free"}),
    ],
)
def test_ranks_change_where_classes_merge_whatever_the_loss_has(counts, terms):
    """Beside every place the rank is what another call, for one decay, has."""
    problem = make(counts, **terms)
    changes = tf.rank_changes(problem, points=30)
    for change in changes:
        above, below = (tf.solve(at(problem, change.logit_decay * f)) for f in (1.001, 0.999))
        assert (above.rank, below.rank) == (change.rank_above, change.rank_below)
    assert changes[-1].rank_below == problem.num_classes - 1
    for group in known_thresholds(problem).groups:
        assert min(abs(c.logit_decay / group.logit_decay - 1) for c in changes) < 1e-8


def test_the_last_direction_between_groups_vanishes_where_the_states_change():
    for counts, bias in (("100x5,10x5", "none"), ("60x4,9x3", "free"), ("50x3,10x2", "decayed")):
        problem = make(counts, bias=bias)
        vanished = {c.logit_decay for c in tf.state_changes(problem) if c.after == "vanished"}
        ranks = [c.logit_decay for c in tf.rank_changes(problem)]
        for decay in vanished:
            assert min(abs(rank / decay - 1) for rank in ranks) < 2e-9


@pytest.mark.parametrize("problem", CHANGING, ids=changing)
def test_merging_thresholds_are_exact(problem):
    steps = {c.logit_decay: c.rank_below - c.rank_above for c in rank_changes(problem)}
    for count, classes in problem.groups:
        if classes > 1:
            # For MSE without bias the group's own mean vanishes there too.
            whole = problem.loss == "mse" and problem.bias == "none"
            assert steps.pop(math.sqrt(count) / problem.num_samples) == classes - (not whole)
    assert set(steps.values()) <= {1}


@pytest.mark.parametrize(
    "problem",
    [make("6,3,2"), make("6,3x2", bias="free"), make("6,3,2", "mse", bias="decayed")],
    ids=changing,
)
def test_an_interior_point_solver_agrees_on_the_ranks(problem):
    changes = tf.rank_changes(problem)
    decays = [change.logit_decay for change in changes]
    places = [(decays[0] * 1.1, 0)]
    for change, end in zip(changes, [*decays[1:], decays[-1] / 4], strict=True):
        ends = change.logit_decay * 0.9, end * 1.1  # 10 % off, values are far above the noise
        assert ends[0] > ends[1]
        places += [(decay, change.rank_below) for decay in (*ends, math.sqrt(ends[0] * ends[1]))]
    for decay, rank in places:
        _, logits, _ = ufm.convex_minimum(at(problem, decay))
        values = np.linalg.svd(logits * np.sqrt(problem.counts), compute_uv=False)
        assert (values > 1e-3).sum() == rank
        assert (values < 1e-5).sum() == problem.num_classes - rank


def test_rank_changes_of_an_unbiased_mse_are_known():
    """Each singular value is ``sqrt(n_k) - N lambda``, so the rank tells how many are above 0."""
    problem = make("50,20x3,8,3x2", "mse")
    expected, rank = [], 0
    for count, classes in ((50, 1), (20, 3), (8, 1), (3, 2)):
        expected.append((math.sqrt(count) / 124, rank, rank + classes))
        rank += classes
    for points in (2, 7, 100):
        found = tf.rank_changes(problem, points=points)
        assert np.allclose(found, expected, rtol=1e-8)


def test_only_changes_above_the_lowest_decay_are_returned():
    problem = make("50,20x3,8,3x2", "mse")
    everything = tf.rank_changes(problem)
    for i, change in enumerate(everything[1:], start=1):
        for lowest, count in ((change.logit_decay, i + 1), (change.logit_decay * 1.001, i)):
            found = tf.rank_changes(problem, lowest=lowest)
            assert [c.rank_below for c in found] == [c.rank_below for c in everything[:count]]
            assert np.allclose(found, everything[:count], rtol=1e-8)
    # The decays of the problem are not used.
    assert np.allclose(tf.rank_changes(at(problem, 0.3)), everything, rtol=1e-8)


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"features": "nonnegative"}, {}, "rank_changes needs one layer, real features and dim"),
        ({"loss": "mse", "depth": 2}, {}, "rank_changes needs one layer, real features and dim"),
        ({"dim": 4}, {}, "rank_changes needs .* dim of at least 5, or none"),
        ({"loss": "mse", "dim": 5}, {}, "rank_changes needs .* dim of at least 6, or none"),
        ({}, {"points": 1}, "points: got 1, need a whole number, at least 2"),
        ({}, {"points": 9.5}, "points: got 9.5, need a whole number"),
        ({}, {"lowest": 0}, "lowest: got 0, need a finite number above 0"),
        ({}, {"lowest": math.nan}, "lowest: got nan"),
        ({}, {"lowest": "low"}, "lowest: got 'low', need a positive number"),
        ({}, {"lowest": 1.0}, "lowest: got 1.0, need less than 0.04"),
    ],
)
def test_bad_arguments_of_rank_changes(changes, options, message):
    with pytest.raises(ValueError, match=message):
        tf.rank_changes(make(**changes), **options)
