"""Problems with targets through the public names: reference values, geometry, refusals, records."""

import json

import numpy as np
import pytest
import torch
from scipy.sparse import csc_array, dia_array, dok_array, lil_array

import tightframe as tf
from tightframe.context_solution import ContextSolution
from tightframe.problem.targets import read_targets
from tightframe.sweeps.grid import Grid

#: Columns are contexts. Values of shared/contexts.md section 9, found and certified elsewhere.
TARGETS = np.array(
    [
        [0.7, 0.1, 0.0, 0.25, 0],
        [0.2, 0.6, 0.5, 0.25, 0],
        [0.1, 0.3, 0.5, 0.25, 0],
        [0, 0, 0, 0.25, 1],
    ]
)
COUNTS = [40, 30, 20, 10, 5]
DECAYS = {"weight_decay": 0.04, "feature_decay": 0.01}


def make(**changes):
    return tf.Problem(COUNTS, **({"targets": TARGETS} | DECAYS | changes))


@pytest.mark.parametrize(
    ("bias", "bias_decay", "objective", "nuclear_norm"),
    [
        ("none", None, 1.305938429406, 11.18547172),
        ("free", None, 1.215246535370, 8.56804859),
        ("decayed", 0.02, 1.229282814132, 8.33841368),
    ],
)
@pytest.mark.parametrize("kind", [np.array, csc_array, torch.tensor])
def test_reference_values(bias, bias_decay, objective, nuclear_norm, kind):
    s = tf.solve(make(bias=bias, bias_decay=bias_decay, targets=kind(TARGETS)), 1e-12)
    assert s.objective == pytest.approx(objective, abs=2e-12)
    assert s.nuclear_norm == pytest.approx(nuclear_norm, rel=1e-5)
    assert 0 <= s.gap <= 1e-12 * s.objective
    assert (s.rank, s.status) == (2, "optimal")


def test_all_labels_picked():
    sets = [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)]
    targets = np.zeros((3, 7))
    for j, members in enumerate(sets):
        targets[list(members), j] = 1 / len(members)
    counts = np.array([50, 40, 30, 10, 8, 6, 2])
    # |S| n / 146: a loss of every label, over all samples.
    sizes = [len(members) for members in sets]
    problem = tf.Problem(
        counts, targets=targets, class_weights=sizes, weight_decay=0.01, feature_decay=0.01
    )
    assert tf.solve(problem, 1e-12).objective == pytest.approx(0.754415311308, abs=2e-12)


@pytest.mark.parametrize(
    ("targets", "objective"),
    [
        (0.9 * np.eye(4) + 0.025, 0.655568939446),
        (0.8 * np.eye(4) + 0.1 * np.kron(np.eye(2), np.ones((2, 2))), 0.684576054801),
    ],
    ids=["label smoothing", "noise within pairs"],
)
def test_square_targets(targets, objective):
    targets = targets / targets.sum(axis=0)
    problem = tf.Problem(
        [100, 100, 10, 10], targets=targets, weight_decay=0.005, feature_decay=0.005
    )
    assert tf.solve(problem, 1e-12).objective == pytest.approx(objective, abs=2e-12)


@pytest.mark.parametrize("bias", ["none", "free"])
def test_one_hot_targets_are_the_problem_without(bias):
    plain = tf.Problem("50x2,10x3", bias=bias, **DECAYS)
    soft = tf.Problem("50x2,10x3", bias=bias, targets=np.eye(5), **DECAYS)
    a, b = tf.solve(plain, 1e-11), tf.solve(soft, 1e-11)
    assert b.objective == pytest.approx(a.objective, rel=2e-11)
    np.testing.assert_allclose(b.logits, a.logits, atol=1e-4)
    np.testing.assert_allclose(b.bias, a.bias, atol=1e-4)
    at = tf.certify(soft, a.logits, a.bias)
    assert at.primal == pytest.approx(a.objective, rel=1e-12)
    assert at.gap < 1e-9


def test_factors_have_the_logits_and_cost_what_they_must():
    s = tf.solve(make(dim=3), 1e-12)
    (w,), h = s.weights, s.class_means
    assert (w.shape, h.shape, s.logits.shape) == ((4, 3), (3, 5), (4, 5))
    np.testing.assert_allclose(w @ h, s.logits, atol=1e-12)
    cost = 0.04 / 2 * (w**2).sum() + 0.01 / 2 * (COUNTS * h**2).sum()
    q = np.exp(s.logits)
    q /= q.sum(axis=0)
    loss = -(np.array(COUNTS) / 105 * TARGETS * np.log(q)).sum()
    assert loss + cost == pytest.approx(s.objective, rel=1e-12)


def test_equal_contexts_and_labels_are_solved_once():
    # Labels 3 and 4 are never seen; contexts 0 and 5 are one.
    targets = np.vstack([np.column_stack([TARGETS[:3, :4], TARGETS[:3, 0]]), np.zeros((2, 5))])
    targets /= targets.sum(axis=0)
    problem = tf.Problem(COUNTS, targets=targets, **DECAYS)
    s = tf.solve(problem, 1e-11)
    summary = s.to_dict()
    assert (summary["distinct_labels"], summary["distinct_contexts"]) == (4, 4)
    np.testing.assert_array_equal(s.logits[3], s.logits[4])
    np.testing.assert_array_equal(s.logits[:, 0], s.logits[:, 4])
    # The certificate merges nothing.
    assert tf.certify(problem, s.logits).gap <= 1e-9
    by_context = tf.solve(problem.replace(feature_weights="contexts"), 1e-11)
    assert np.abs(by_context.logits[:, 0] - by_context.logits[:, 4]).max() > 0.01


def test_from_a_large_decay_on_only_the_bias_speaks():
    s = tf.solve(make(weight_decay=1.0, feature_decay=1.0, bias="free"))
    q = np.exp(s.bias) / np.exp(s.bias).sum()
    np.testing.assert_allclose(q, TARGETS @ COUNTS / 105, atol=1e-12)
    assert s.rank == 0
    assert not s.logits.any()
    assert s.gap <= 1e-12


def test_problem_and_solution_are_kept(tmp_path):
    problem = make(targets=np.random.default_rng(0).dirichlet(np.ones(7), 5).T)
    again = tf.Problem(**json.loads(json.dumps(problem.to_dict())))
    assert again == problem == problem.replace()
    assert hash(again) == hash(problem)
    assert problem != make()
    s = tf.solve(problem)
    s.save(tmp_path / "solution.npz")
    loaded = ContextSolution.load(tmp_path / "solution.npz")
    assert loaded.problem == problem
    assert loaded.to_dict() == s.to_dict() == json.loads(json.dumps(s.to_dict()))
    np.testing.assert_array_equal(loaded.logits, s.logits)
    (tmp_path / "other.npz").write_bytes(b"no")
    with pytest.raises(ValueError, match=r"other\.npz"):
        ContextSolution.load(tmp_path / "other.npz")


def with_explicit_zero():
    targets = csc_array(TARGETS)
    targets.data[0] = 0
    return targets


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"targets": 2 * TARGETS}, "targets: column 0 has the sum 2"),
        ({"targets": TARGETS - 0.1}, "targets: column 0 has the entry -0.1"),
        ({"targets": TARGETS * np.nan}, "targets: column 0 has the entry nan"),
        ({"targets": TARGETS * [1, 1, 0, 1, 1]}, "targets: column 2 is all zero"),
        ({"targets": TARGETS.T}, "targets: got 4 columns, counts are of 5"),
        ({"targets": np.ones((1, 5))}, "targets: got 1 label"),
        ({"targets": [0.5, 0.5]}, "targets: got shape"),
        ({"targets": "abc"}, "targets: "),
        ({"targets": {"shares": [1]}}, "targets: got a mapping"),
        ({"targets": with_explicit_zero()}, "targets: got 1 explicit zero"),
        ({"targets": np.broadcast_to(0.5, (10**8, 5))}, "targets: got a dense array"),
        ({"targets": np.vstack([TARGETS, np.zeros(5)]), "bias": "free"}, "targets: no context has"),
        ({"loss": "mse"}, "loss: "),
        ({"features": "nonnegative"}, "features: "),
        ({"depth": 2}, "depth: "),
        ({"label_smoothing": 0.1}, "label_smoothing: "),
        ({"class_margins": [1, 0, 0, 0, 0]}, "class_margins: "),
        ({"logit_scale": [2, 1, 1, 1, 1]}, "logit_scale: "),
        ({"logit_adjustment": "prior"}, "logit_adjustment: "),
        ({"class_names": ["a", "b"]}, "class_names: "),
        ({"feature_weights": [1, 2]}, "feature_weights: "),
        ({"class_weights": [1, 2, 3, 4]}, "class_weights: "),
    ],
)
def test_bad_arguments(changes, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        make(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"labels": [0, 1, 2, 9]},
        {"labels": [0, 1, 2, -1]},
        {"labels": [0, 1, 2, 1.5]},
        {"starts": [0, 9, 2, 4]},
        {"starts": [0, 1, 2, 5]},
        {"starts": [1, 1, 2, 4]},
        {"starts": []},
        {"num_labels": 3.5},
        {"shares": [1, 1, 0.5]},
    ],
)
def test_records_of_targets_that_do_not_fit_are_refused(changes):
    """A record may have been changed by hand; SciPy reads beyond its arrays then."""
    record = {"num_labels": 3, "starts": [0, 1, 2, 4], "labels": [0, 1, 1, 2]}
    record |= {"shares": [1, 1, 0.5, 0.5]}
    assert tf.Problem("9,8,7", targets=record, **DECAYS).targets.num_labels == 3
    with pytest.raises(ValueError, match=r"^targets: got a mapping without num_labels"):
        tf.Problem("9,8,7", targets=record | changes, **DECAYS)


@pytest.mark.parametrize("kind", [np.float16, np.longdouble, dok_array, lil_array, dia_array])
def test_targets_of_any_type(kind):
    targets = np.array([[0.5, 0.25, 0], [0.5, 0.75, 1]])
    given = (
        kind(targets)
        if issubclass(kind, dok_array | lil_array | dia_array)
        else (targets.astype(kind))
    )
    assert tf.Problem("9,8,7", targets=given, **DECAYS).targets == read_targets(targets)


@pytest.mark.parametrize(
    "use",
    [
        tf.state_changes,
        tf.path_limits,
        tf.rank_changes,
        lambda p: tf.path(p, weight_decay=[0.01, 0.1]).margins,
        lambda p: tf.landscape.Landscape(p, 3),
        lambda p: Grid(p, {"weight_decay": [0.01, 0.1]}),
        lambda p: tf.training.group_margins(p, np.zeros((4, 4))),
        lambda p: p.reordered([1, 0, 2, 3, 4]),
        lambda p: tf.solve(p).states,
        lambda p: tf.solve(p).geometry,
    ],
)
def test_what_needs_one_class_a_context_refuses_targets(use):
    with pytest.raises(ValueError, match=r"targets: "):
        use(make())


@pytest.mark.parametrize(
    ("use", "name"),
    [
        (tf.state_changes, "state_changes"),
        (tf.rank_changes, "rank_changes"),
        (tf.path_limits, "path_limits"),
        (lambda p: tf.landscape.Landscape(p, 3), "a landscape"),
        (lambda p: Grid(p, {"weight_decay": [0.01]}), "a grid"),
    ],
)
def test_refusals_say_what_needs_it_and_what_there_is(use, name):
    with pytest.raises(ValueError, match=f"targets: {name} needs one class a context; .* path, "):
        use(make())


@pytest.mark.parametrize("name", ["counts", "targets", "class_names"])
def test_tokens_say_what_else_is_given(name):
    with pytest.raises(ValueError, match=f"{name}: the tokens say it, got {name} too"):
        tf.Problem.from_tokens("abab aba", context=1, **DECAYS, **{name: "1,2"})


def test_too_narrow_features_are_refused_with_the_rank():
    with pytest.raises(ValueError, match="dim: got 1, and the minimiser has rank 2"):
        tf.solve(make(dim=1))
    logits = np.ones((4, 5))
    assert tf.certify(make(dim=1), logits).gap == tf.certify(make(), logits).gap
    logits[0, 0] = 2
    with pytest.raises(ValueError, match="logits: rank 2, which features of dim 1 cannot have"):
        tf.certify(make(dim=1), logits)
