import collections
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tightframe as tf
from tightframe.problem import conventions
from tightframe.problem.counts import Group, format_runs, parse_counts
from tightframe.theory.certificate import factored_objective

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
        ("500,-3", "cannot read '-3'"),
        ("500,2.5", "cannot read '2.5'"),
        ("500x5;100", "cannot read '500x5;100'"),
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
        ({"weight_decay": 0}, r"weight_decay: got 0, .*tf\.path_limits .*normalized=True"),
        ({"weight_decay": [1e-3, 0.0], "depth": 2}, r"weight_decay: got 0\.0, .*tf\.seli"),
        ({"weight_decay": -1e-3}, "weight_decay"),
        ({"weight_decay": math.nan}, "weight_decay: got nan"),
        ({"weight_decay": math.inf}, "weight_decay"),
        ({"weight_decay": "5e-3"}, "weight_decay: got '5e-3'"),
        ({"feature_decay": "much"}, "feature_decay: got 'much'"),
        ({"weight_decay": None}, "weight_decay: got None"),
        ({"weight_decay": True}, "weight_decay: got True"),
        ({"weight_decay": [1e-3, 1e-3]}, "2 numbers for depth 1"),
        ({"weight_decay": [1e-3, 1e-3], "depth": 3}, "weight_decay: got 2 numbers for depth 3"),
        ({"weight_decay": [1e-3, -1], "depth": 2}, "weight_decay: got -1"),
        ({"feature_decay": math.nan}, "feature_decay: got nan"),
        ({"feature_decay": math.inf}, "feature_decay: got inf"),
        ({"feature_decay": -1.0}, "feature_decay: got -1.0, need a finite number above 0"),
        ({"feature_decay": 1j}, "feature_decay"),
        ({"loss": "hinge"}, "loss: got 'hinge', allowed are cross_entropy, mse"),
        ({"loss": ["mse"]}, "loss"),
        ({"bias": "yes"}, "bias: got 'yes'"),
        ({"bias": "decayed"}, "bias_decay: missing"),
        ({"bias": "decayed", "bias_decay": 0}, "bias_decay: got 0, .*; bias='free' does not decay"),
        ({"bias_decay": 0.1}, "bias_decay: got 0.1 with bias='none'"),
        ({"features": "relu"}, "features: got 'relu', allowed are real, nonnegative"),
        ({"weight_decay": 1e-200}, "weight_decay: got 1e-200, need a number from 1e-100"),
        ({"weight_decay": 10**400}, "weight_decay: got 1000"),
        ({"depth": 10**9}, "depth: got 1000000000, need at most 1000"),
        ({"depth": 0}, "depth: got 0"),
        ({"depth": 1.0}, r"depth: got 1\.0"),
        ({"dim": 0}, "dim: got 0"),
        ({"dim": 2.5}, r"dim: got 2\.5"),
        ({"dim": [2, 3]}, "dim: got 2 numbers for depth 1; give one, or one a layer"),
        ({"dim": [0]}, "dim: got 0"),
        ({"dim": "2,3"}, "dim: got '2,3'"),
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


def test_one_width_a_layer():
    deep = {"depth": 3, **DECAYS}
    problem = tf.Problem("5x2", dim=np.array([4, 2, 7]), **deep)
    assert (problem.dim, problem.dims, problem.width) == ((4, 2, 7), (4, 2, 7), 2)
    assert tf.Problem(**json.loads(json.dumps(problem.to_dict()))) == problem == problem.replace()
    same = tf.Problem("5x2", dim=(3, 3, 3), **deep)
    assert same == tf.Problem("5x2", dim=3, **deep)
    assert (same.dim, same.dims, same.width) == (3, (3, 3, 3), 3)
    none = tf.Problem("5x2", **deep)
    assert (none.dims, none.width) == (None, None)
    assert tf.Problem("5x2", dim=[3], **DECAYS).dim == 3


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
    assert format_runs([Group(5, 1), Group(3, 2)]) == "5,3x2"


# -- class weights and logit adjustment ------------------------------------------------------------


def test_numbers_per_class_may_be_a_list_text_or_a_rule():
    problem = tf.Problem("9x2,3x2", class_weights="1x2,3x2", **DECAYS)
    assert problem.class_weights.tolist() == [1, 1, 3, 3]
    assert problem == tf.Problem("9x2,3x2", class_weights=[1, 1, 3, 3], **DECAYS)
    assert problem == tf.Problem("9x2,3x2", class_weights=np.array([1, 1, 3, 3]), **DECAYS)
    balanced = tf.Problem("9x2,3x2", class_weights="balanced", **DECAYS)
    assert balanced.class_weights == pytest.approx(24 / (4 * balanced.counts), rel=1e-15)
    for text, factor in (("prior", 1), ("0.5*prior", 0.5), (" -2 * prior ", -2)):
        adjusted = tf.Problem("9x2,3x2", logit_adjustment=text, **DECAYS)
        expected = factor * np.log(adjusted.counts / 24)
        assert adjusted.logit_adjustment == pytest.approx(expected, rel=1e-15)


def test_what_changes_nothing_is_not_kept():
    plain = tf.Problem("9x2,3x2", **DECAYS)
    assert plain == tf.Problem("9x2,3x2", class_weights=[1] * 4, logit_adjustment="7x4", **DECAYS)
    assert plain.is_plain
    assert plain.class_weights.tolist() == [1.0] * 4
    assert not tf.Problem("9x2,3x2", class_weights="2x4", **DECAYS).is_plain
    # The prior of balanced classes, and MSE, which has neither.
    assert tf.Problem("9x4", logit_adjustment="prior", **DECAYS).is_plain
    assert tf.Problem("9x4", "mse", class_weights="balanced", **DECAYS).is_plain


PER_CLASS = st.lists(
    st.tuples(st.integers(1, 3), st.sampled_from([1.0, 0.1, 3.0]), st.sampled_from([0.0, -1.5])),
    min_size=2,
    max_size=12,
)


@given(PER_CLASS)
def test_groups_are_the_classes_that_agree_in_everything(classes):
    counts, weights, adjustment = zip(*classes, strict=True)
    problem = tf.Problem(
        list(counts), class_weights=list(weights), logit_adjustment=list(adjustment), **DECAYS
    )
    assert problem.class_weights.tolist() == list(weights)
    kinds = list(
        zip(*(problem.counts, problem.class_weights, problem.logit_adjustment), strict=True)
    )
    kinds = [tuple(map(float, kind)) for kind in kinds]
    assert problem.groups == tuple(
        Group(int(kind[0]), kinds.count(kind)) for kind in dict.fromkeys(kinds)
    )
    groups = [
        (float(count), weight, adjustment)
        for (count, _), weight, adjustment in zip(
            problem.groups, problem.group_weights, problem.group_adjustment, strict=True
        )
    ]
    assert [groups[g] for g in problem.class_groups] == kinds
    assert tf.Problem(**problem.to_dict()) == problem
    assert problem.replace(feature_decay=1e-3) == problem


def test_a_weighted_mean_divides_by_the_weights():
    """The objective is PyTorch's, divided by no more than a factor that the decays keep."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    problem = tf.Problem.from_weighted_mean("9,5,2", class_weights=[1, 2, 7], **DECAYS)
    w, h = rng.normal(size=(3, 4)), rng.normal(size=(16, 4))
    labels = np.repeat(range(3), problem.counts)
    loss = torch.nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 7.0]).double())
    expected = loss(torch.tensor(h @ w.T), torch.tensor(labels)).item()
    expected += (w**2).sum() * DECAYS["weight_decay"] / 2
    expected += (h**2).sum() * DECAYS["feature_decay"] / 2
    assert factored_objective(problem, [w], h, labels) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("name", "neutral"),
    [
        ("class_weights", "1"),
        ("logit_adjustment", "0"),
        ("class_margins", "0"),
        ("logit_scale", " 1.0 "),
    ],
)
def test_a_text_of_one_number_is_every_class_s(name, neutral):
    """So a term can be said not to be there, for any number of classes."""
    plain = tf.Problem("9,3,2,1", **DECAYS)
    assert tf.Problem("9,3,2,1", **DECAYS, **{name: neutral}) == plain
    same = tf.Problem("9,3,2,1", **DECAYS, **{name: "0.5"})
    assert same == tf.Problem("9,3,2,1", **DECAYS, **{name: [0.5] * 4})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class_weights": "nan"}, "class_weights: got nan"),
        ({"class_weights": [1, 2, 3]}, "class_weights: got 3 numbers for 4 classes"),
        ({"class_weights": "1x5"}, "class_weights: got 5 numbers for 4 classes"),
        ({"class_weights": [1, 2, 3, 0]}, "class_weights: got 0, need numbers from 1e-09"),
        ({"class_weights": [1, 2, 3, math.nan]}, "class_weights: got nan"),
        ({"class_weights": [1, 2, 3, -1]}, "class_weights: got -1"),
        ({"class_weights": "balance"}, "class_weights: cannot read 'balance'"),
        ({"class_weights": "1x0,2x4"}, "class_weights: cannot read '1x0'"),
        ({"class_weights": "1x2.5"}, "class_weights: cannot read '1x2.5'"),
        ({"class_weights": b"1234"}, "class_weights: got b'1234', need one number a class"),
        ({"class_weights": 3.0}, "class_weights: got 3.0, need one number a class"),
        ({"class_weights": ["a"] * 4}, "class_weights: got .*need one number a class"),
        ({"class_weights": []}, "class_weights: got .*need one number a class"),
        ({"class_weights": [[1, 2], [3, 4]]}, "class_weights: got .*need one number a class"),
        ({"logit_adjustment": [0.0] * 5}, "logit_adjustment: got 5 numbers for 4 classes"),
        ({"logit_adjustment": [1, 2, 3, math.inf]}, "logit_adjustment: got inf"),
        ({"logit_adjustment": [1, 2, 3, 1e4]}, "logit_adjustment: got 10000"),
        ({"logit_adjustment": "priors"}, "logit_adjustment: cannot read 'priors'"),
        ({"logit_adjustment": "x*prior"}, "logit_adjustment: got 'x\\*prior'"),
        ({"logit_adjustment": "nan*prior"}, "logit_adjustment: got 'nan\\*prior'"),
        ({"logit_adjustment": "prior", "loss": "mse"}, "logit_adjustment: .*'cross_entropy'"),
    ],
)
def test_bad_numbers_per_class_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        tf.Problem("9x2,3x2", **DECAYS, **changes)


def test_a_million_weighted_classes_stay_compact():
    problem = tf.Problem("1000x400000,10x600000", class_weights="1x500000,4x500000", **DECAYS)
    assert problem.groups == (Group(1000, 400000), Group(10, 100000), Group(10, 500000))
    assert problem.group_weights.tolist() == [1, 1, 4]


# -- by label --------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 9), min_size=2, max_size=20), st.randoms())
def test_a_mapping_is_read_by_its_keys(counts, random):
    order = list(range(len(counts)))
    random.shuffle(order)
    weights = [1.0 + k for k in range(len(counts))]
    given_by_label = tf.Problem(
        {k: counts[k] for k in order},
        class_weights={np.int64(k): weights[k] for k in order[::-1]},
        logit_adjustment={k: -weights[k] for k in order},
        **DECAYS,
    )
    in_order = tf.Problem(
        counts, class_weights=weights, logit_adjustment=[-w for w in weights], **DECAYS
    )
    assert given_by_label == in_order
    assert tf.Problem({str(k): counts[k] for k in order}, **DECAYS) == in_order.replace(
        class_weights=None, logit_adjustment=None
    )


def test_other_mappings_of_counts():
    import pandas as pd

    labels = [1, 2, 2, 0, 2, 1]
    for counts in (pd.Series(labels).value_counts(), collections.Counter(labels)):
        assert tf.Problem(counts, **DECAYS).counts.tolist() == [1, 2, 3]
    by_text = {str(k): k + 1 for k in range(11)}  # as JSON writes them; "10" is not before "2"
    assert tf.Problem(by_text, **DECAYS).counts.tolist() == list(range(1, 12))
    assert parse_counts({1: 5, 0: 5}) == (Group(5, 2),)


def test_classes_with_names_are_in_the_order_of_the_alphabet():
    counts, weights = {"dog": 7, "cat": 9, "eel": 2}, {"eel": 3.0, "dog": 2.0, "cat": 1.0}
    problem = tf.Problem(counts, class_weights=weights, **DECAYS)
    assert problem == tf.Problem([9, 7, 2], class_weights=[1, 2, 3], **DECAYS)
    made = tf.Problem.from_weighted_mean(counts, class_weights=weights, **DECAYS)
    assert made == tf.Problem.from_weighted_mean([9, 7, 2], class_weights=[1, 2, 3], **DECAYS)
    made = tf.Problem.from_summed_loss(counts, class_weights=weights, **DECAYS)
    assert made == tf.Problem.from_summed_loss([9, 7, 2], class_weights=[1, 2, 3], **DECAYS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"counts": {0: 5, 2: 5}}, "counts: class 1 is missing; .* whole number from 0 to 1"),
        ({"counts": {1: 5, 2: 5}}, "counts: class 0 is missing"),
        ({"counts": {0: 5, -1: 5}}, "counts: class 1 is missing"),
        ({"counts": {"1": 5, "2": 5}}, "counts: class 0 is missing"),
        ({"counts": {"0": 5, "1": 5, "01": 5}}, "counts: class 2 is missing"),
        ({"counts": {0: 5, "1": 5}}, "counts: got int and str keys"),
        ({"counts": {0.0: 5, 1.0: 5}}, "counts: got float keys"),
        ({"counts": {False: 5, True: 5}}, "counts: got bool keys"),
        ({"counts": {}}, "counts: "),
        ({"counts": {0: 5, 1: -5}}, "counts: class 1 has count -5"),
        ({"counts": {0: 5, 1: "x"}}, "counts: "),
        ({"class_weights": {0: 1, 1: 2}}, "class_weights: class 2 is missing"),
        ({"class_weights": {0: 1, 1: 2, 2: 3, 3: 1}}, "class_weights: got the key 3"),
        ({"class_weights": {"a": 1, "b": 2, "c": 3}}, "class_weights: got str keys"),
        ({"class_weights": {0: 1, 1: 2, 2: 0}}, "class_weights: got 0, need numbers"),
        ({"logit_adjustment": {}}, "logit_adjustment: "),
        (
            {"counts": {"a": 5, "b": 5}, "class_weights": {"a": 1, "c": 5}},
            "class_weights: class 'b' is missing; .*the names a, b",
        ),
        ({"counts": {"a": 5, "b": 5}, "class_weights": {0: 1, 1: 5}}, "need the names a, b"),
    ],
)
def test_bad_mappings_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        tf.Problem(**({"counts": "5x3"} | DECAYS | changes))


def test_text_of_numbers_is_read_like_text_of_counts():
    """`1x` has no number of classes, in weights as in counts; blanks and * are allowed in both."""
    for text in ("1x", "1xx4", "x4", "1x4,", "1 2x4"):
        with pytest.raises(ValueError, match="class_weights: cannot read"):
            tf.Problem("5x4", class_weights=text, **DECAYS)
        with pytest.raises(ValueError, match="counts: cannot read"):
            tf.Problem(text, **DECAYS)
    problem = tf.Problem(" 5 * 2 , 7 x 2 ", class_weights=" 1e-1 x 2 , 2.5 * 2 ", **DECAYS)
    assert problem.compact_counts == "5x2,7x2"
    assert problem.to_dict()["class_weights"] == "0.1x2,2.5x2"


# -- conventions -----------------------------------------------------------------------------------


def test_conventions_are_functions_of_numbers():
    """Against the objective that each names, times what divides it, at a point."""
    w, h, loss, n, batch = 3.0, 5.0, 0.7, 12, 4  # ||W||^2, the mean of ||h_i||^2, the mean loss
    theirs = conventions.Decays.given(0.2, 0.6, 0.1)

    def ours(decays):
        return loss + decays.weight_decay / 2 * w + decays.feature_decay / 2 * n * h

    assert ours(conventions.no_half(theirs)) == pytest.approx(loss + 0.2 * w + 0.6 * n * h)
    summed = n * loss + 0.1 * w + 0.3 * n * h
    assert n * ours(conventions.summed_loss(theirs, n)) == pytest.approx(summed)
    step = 0.5 * loss + 0.1 * w + 0.3 * batch * h
    assert 0.5 * ours(conventions.batch_features(theirs, n, batch, 0.5)) == pytest.approx(step)
    assert conventions.summed_loss(theirs, n).bias_decay == pytest.approx(0.1 / 12)
    assert conventions.no_half(theirs._replace(bias_decay=None)).bias_decay is None
