import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tightframe as tf
from tightframe.problem import Group, format_counts, parse_counts

DECAYS = {"weight_decay": 5e-3, "feature_decay": 1e-3}


@given(st.lists(st.integers(1, 50), min_size=2, max_size=30))
def test_compact_counts_are_the_list(counts):
    problem = tf.Problem(counts, **DECAYS)
    assert problem.counts.tolist() == counts
    assert parse_counts(problem.compact_counts) == problem.runs
    assert tf.Problem(problem.compact_counts, **DECAYS) == problem
    assert problem.num_samples == sum(counts)
    assert problem.num_classes == len(counts)


@given(st.lists(st.integers(1, 5), min_size=2, max_size=30))
def test_groups_collect_equal_counts_in_order(counts):
    problem = tf.Problem(np.array(counts), **DECAYS)
    assert problem.groups == tuple(Group(c, counts.count(c)) for c in dict.fromkeys(counts))
    assert [problem.groups[g].count for g in problem.class_groups] == counts


def test_a_million_classes_stay_compact():
    problem = tf.Problem("1000x400000,10x600000", **DECAYS)
    assert problem.runs == (Group(1000, 400000), Group(10, 600000))
    assert problem.num_classes == 1_000_000


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ([500, -1], "class 1 has count -1"),
        ([500, 0], "class 1 has count 0"),
        ([2.5, 3], r"class 0 has count 2\.5"),
        ([3, math.nan], "class 1 has count nan"),
        ([3, math.inf], "class 1 has count inf"),
        ([7], "got 1 class, need at least 2"),
        ("7", "got 1 class"),
        ([], "shape"),
        ("", "cannot read ''"),
        ("5x", "cannot read '5x'"),
        ("5x2,", "cannot read ''"),
        ("-5x2", "cannot read '-5x2'"),
        ("5.5x2", "cannot read"),
        ("0x2,5", "zero"),
        ("5x0,5", "zero"),
        (None, "got None"),
        (b"5x5", "got bytes"),
        (5, "got 5"),
        ([True, False], "bool"),
        (["a", "b"], "not positive integers"),
        ([[1, 2], [3, 4]], "shape"),
        ([1, [2]], "one positive integer a class"),
        ([10**30, 1], "not positive integers"),
        ("9" * 18 + "x" + "9" * 18, "float64"),
    ],
)
def test_bad_counts_are_named(counts, message):
    with pytest.raises(ValueError, match=f"counts: .*{message}"):
        tf.Problem(counts, **DECAYS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weight_decay": 0}, "weight_decay: got 0"),
        ({"weight_decay": -1e-3}, "weight_decay"),
        ({"weight_decay": math.nan}, "weight_decay: got nan"),
        ({"weight_decay": math.inf}, "weight_decay"),
        ({"weight_decay": "5e-3"}, "weight_decay: got '5e-3'"),
        ({"weight_decay": None}, "weight_decay: got None"),
        ({"weight_decay": True}, "weight_decay: got True"),
        ({"weight_decay": [1e-3, 1e-3]}, "2 numbers for depth 1"),
        ({"weight_decay": [1e-3, -1], "depth": 2}, "weight_decay: got -1"),
        ({"feature_decay": math.nan}, "feature_decay: got nan"),
        ({"feature_decay": 1j}, "feature_decay"),
        ({"loss": "hinge"}, "loss: got 'hinge', allowed are cross_entropy, mse"),
        ({"loss": ["mse"]}, "loss"),
        ({"bias": "yes"}, "bias: got 'yes'"),
        ({"bias": "decayed"}, "bias_decay: missing"),
        ({"bias": "decayed", "bias_decay": 0}, "bias_decay: got 0"),
        ({"bias_decay": 0.1}, "bias_decay: got 0.1 with bias='none'"),
        ({"features": "relu"}, "features: got 'relu', allowed are real, nonnegative"),
        ({"weight_decay": 1e-200}, "weight_decay: got 1e-200, need a number from 1e-100"),
        ({"weight_decay": 10**400}, "weight_decay: got 1000"),
        ({"depth": 10**9}, "depth: got 1000000000, need at most 1000"),
        ({"depth": 0}, "depth: got 0"),
        ({"depth": 1.0}, r"depth: got 1\.0"),
        ({"dim": 0}, "dim: got 0"),
        ({"dim": 2.5}, r"dim: got 2\.5"),
    ],
)
def test_bad_arguments_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        tf.Problem("5x2", **(DECAYS | changes))


def test_replace_keeps_the_rest():
    problem = tf.Problem("5x2,3", "mse", bias="decayed", bias_decay=0.1, dim=4, **DECAYS)
    assert problem.replace() == problem
    assert tf.Problem(**problem.to_dict()) == problem
    deep = problem.replace(depth=2, weight_decay=(1e-3, 2e-3), bias="none", bias_decay=None)
    assert deep.weight_decays == (1e-3, 2e-3)
    assert deep.runs == problem.runs
    with pytest.raises(ValueError, match="lambda: not an argument"):
        problem.replace(**{"lambda": 1})


def test_logit_decay_is_for_one_layer():
    assert tf.Problem("5x2", weight_decay=4.0, feature_decay=9.0).logit_decay == pytest.approx(6)
    with pytest.raises(ValueError, match="depth 1 only"):
        _ = tf.Problem("5x2", depth=2, **DECAYS).logit_decay


# -- conventions: the other objective is a constant times ours, at any point -----------------------


def _objective(counts, w, h, b, *, loss, decay_w, decay_h, decay_b):
    """Value of an objective with the loss and the decay terms weighted as given, sample by sample.

    h has one row a sample; the three decays multiply plain squared norms.
    """
    labels = np.repeat(np.arange(len(counts)), counts)
    logits = h @ w.T + b
    losses = np.log(np.exp(logits).sum(1)) - logits[np.arange(len(labels)), labels]
    return loss * losses.sum() + decay_w * (w**2).sum() + decay_h * (h**2).sum() + decay_b * b @ b


def _ours(problem, w, h, b):
    n = problem.num_samples
    return _objective(
        problem.counts,
        w,
        h,
        b,
        loss=1 / n,
        decay_w=problem.weight_decay / 2,
        decay_h=problem.feature_decay / 2,
        decay_b=problem.bias_decay / 2,
    )


@pytest.mark.parametrize("convention", ["no_half", "summed_loss", "batch_features"])
def test_conventions_differ_by_a_constant_factor(convention):
    counts, n = [4, 2, 2], 8
    theirs = {"weight_decay": 3e-2, "feature_decay": 5e-2, "bias_decay": 7e-2}
    if convention == "no_half":
        problem = tf.Problem.from_no_half(counts, bias="decayed", **theirs)
        factor, terms = 1.0, (1 / n, 3e-2, 5e-2, 7e-2)
    elif convention == "summed_loss":
        problem = tf.Problem.from_summed_loss(counts, bias="decayed", **theirs)
        factor, terms = n, (1.0, 1.5e-2, 2.5e-2, 3.5e-2)
    else:
        # Half a mean loss; the features are summed over batches of 2 of the 8 samples, so the
        # average over the 4 batches carries 1/4 of their sum over all.
        problem = tf.Problem.from_batch_features(
            counts, bias="decayed", batch_size=2, loss_scale=0.5, **theirs
        )
        factor, terms = 0.5, (0.5 / n, 1.5e-2, 2.5e-2 / 4, 3.5e-2)
    names = ("loss", "decay_w", "decay_h", "decay_b")
    rng = np.random.default_rng(0)
    for _ in range(3):
        w, h, b = rng.normal(size=(3, 5)), rng.normal(size=(8, 5)), rng.normal(size=3)
        their_value = _objective(counts, w, h, b, **dict(zip(names, terms, strict=True)))
        assert their_value == pytest.approx(factor * _ours(problem, w, h, b), rel=1e-13)


def test_batch_convention_matches_the_dang_2024_note():
    problem = tf.Problem.from_batch_features(
        "1000x2", weight_decay=1e-4, feature_decay=1e-5, batch_size=256, loss_scale=0.5
    )
    assert problem.weight_decay == pytest.approx(2e-4)
    assert problem.feature_decay == pytest.approx(2e-5 * 256 / 2000)


def test_conventions_take_an_iterator_of_counts():
    made = tf.Problem.from_summed_loss(iter([4, 2]), **DECAYS)
    assert made == tf.Problem.from_summed_loss([4, 2], **DECAYS)
    made = tf.Problem.from_batch_features(iter([4, 2]), batch_size=2, **DECAYS)
    assert made == tf.Problem.from_batch_features([4, 2], batch_size=2, **DECAYS)


def test_conventions_check_their_arguments():
    with pytest.raises(ValueError, match="batch_size: got 9, more than the 8 samples"):
        tf.Problem.from_batch_features("4x2", batch_size=9, **DECAYS)
    with pytest.raises(ValueError, match="loss_scale: got 0"):
        tf.Problem.from_batch_features("4x2", batch_size=2, loss_scale=0, **DECAYS)
    with pytest.raises(ValueError, match="weight_decay: got -1"):
        tf.Problem.from_no_half("4x2", weight_decay=-1, feature_decay=1e-3)
    with pytest.raises(ValueError, match="bias_decay: got 0"):
        tf.Problem.from_summed_loss("4x2", bias="decayed", bias_decay=0, **DECAYS)


def test_counts_are_written_compactly():
    assert format_counts([Group(5, 1), Group(3, 2)]) == "5,3x2"
