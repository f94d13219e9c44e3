"""Thresholds of problems with targets: solves on both sides, brute force over exchanges."""

import itertools
import json

import numpy as np
import pytest

import tightframe as tf
from tests.test_contexts import COUNTS, TARGETS
from tightframe.theory.contexts.thresholds import ALONE

DECAYS = {"weight_decay": 1.0, "feature_decay": 1.0}


def at(problem, decay):
    return problem.replace(weight_decay=decay, feature_decay=decay)


def spread(problem, labels, decay):
    """How far apart the logits of labels are at a decay."""
    found = tf.solve(at(problem, decay), 1e-12)
    logits = found.logits[list(labels)]
    return float((logits.max(axis=0) - logits.min(axis=0)).max())


def block(k, own, other, rest):
    """k contexts, each with a label of its own, and what is left for two more labels."""
    top = np.full((k, k), other) + (own - other) * np.eye(k)
    return np.vstack(
        [top, np.full((1, k), rest), np.full((1, k), 1 - rest - own - (k - 1) * other)]
    )


def several():
    """Problems and their sets of labels, with what the block form predicts."""
    shared = np.array([[0.1] * 3 + [0.5, 0.2]]).T
    blocks = np.hstack([block(3, 0.5, 0.1, 0.2), shared])
    counts = [20, 20, 20, 50]
    total = sum(counts)
    yield "block", tf.Problem(counts, targets=blocks, **DECAYS), (0, 1, 2), 0.4 * 20**0.5 / total
    # Decay of contexts, not of occurrences; with a weight a context.
    by_context = tf.Problem(
        counts,
        targets=blocks,
        feature_weights="contexts",
        class_weights=[2, 2, 2, 1],
        bias="free",
        **DECAYS,
    )
    yield "by context", by_context, (0, 1, 2), 0.4 * 2 * 20 / total
    # Every label has two kinds of contexts: both tell it apart.
    two = np.hstack([block(3, 0.85, 0.05, 0.02), block(3, 0.4, 0.2, 0.1)[:, [1, 2, 0]]])
    weight = np.sqrt(0.8**2 * 10 + 0.2**2 * 30) / 120
    yield "two kinds", tf.Problem("10x3,30x3", targets=two, **DECAYS), (0, 1, 2), weight
    # All pairs of four labels, and single ones.
    sets = [*itertools.combinations(range(4), 1), *itertools.combinations(range(4), 2)]
    rows = np.zeros((10, 4), dtype=int)
    for row, members in zip(rows, sets, strict=True):
        row[list(members)] = 1
    pairs = tf.Problem.from_label_matrix(np.repeat(rows, [9] * 4 + [2] * 6, axis=0), **DECAYS)
    # Two labels differ in their own contexts and in two pairs each.
    apart = np.sqrt(2 * 9 + 4 * 2) / np.sqrt(2) / 48
    yield "pairs", pairs, (0, 1, 2, 3), apart


CASES = list(several())


@pytest.mark.parametrize(
    ("problem", "labels", "predicted"),
    [case[1:] for case in CASES],
    ids=[case[0] for case in CASES],
)
def test_exchangeable_labels_merge_at_their_threshold(problem, labels, predicted):
    found = tf.thresholds(problem)
    (own,) = found.sets
    assert own.labels == labels
    assert own.logit_decay == pytest.approx(predicted, rel=1e-12)
    assert spread(problem, labels, 0.99 * predicted) > 1e-3
    assert spread(problem, labels, 1.01 * predicted) < 1e-6
    assert tf.thresholds(at(problem, 0.99 * predicted)).sets[0].collapsed is False
    assert tf.thresholds(at(problem, 1.01 * predicted)).sets[0].collapsed is True


@pytest.mark.parametrize(("bias", "decay"), [("none", None), ("free", None), ("decayed", 0.02)])
def test_all_logits_vanish_from_total_collapse_on(bias, decay):
    problem = tf.Problem(COUNTS, targets=TARGETS, bias=bias, bias_decay=decay, **DECAYS)
    top = tf.thresholds(problem).total_collapse
    assert tf.solve(at(problem, 0.99 * top), 1e-11).nuclear_norm > 1e-2
    assert tf.solve(at(problem, 1.01 * top), 1e-11).nuclear_norm == 0


def test_one_hot_targets_have_the_thresholds_of_classes():
    classes = tf.thresholds(counts="100x3,10x4")
    contexts = tf.thresholds(counts="100x3,10x4", targets=np.eye(7))
    places = {own.labels: own.logit_decay for own in contexts.sets}
    assert places == {
        (0, 1, 2): pytest.approx(classes.groups[0].logit_decay, rel=1e-12),
        (3, 4, 5, 6): pytest.approx(classes.groups[1].logit_decay, rel=1e-12),
    }
    assert contexts.total_collapse == pytest.approx(classes.total_collapse, rel=1e-9)
    assert contexts.logit_decay is None
    assert contexts.sets[0].collapsed is None


def brute_force(problem):
    """Pairs of labels whose exchange gives the same columns, with counts, in another order."""
    p = problem.targets.by_context.toarray()
    columns = [(*row, n) for row, n in zip(p.tolist(), problem.counts.tolist(), strict=True)]
    pairs = set()
    for i, k in itertools.combinations(range(p.shape[1]), 2):
        order = list(range(p.shape[1]))
        order[i], order[k] = k, i
        if sorted((*(column[v] for v in order), column[-1]) for column in columns) == sorted(
            columns
        ):
            pairs.add((i, k))
    return pairs


@pytest.mark.parametrize("seed", range(12))
def test_sets_are_those_of_brute_force(seed):
    """Small numbers, so that there are many symmetries, in any order of labels and contexts."""
    rng = np.random.default_rng(seed)
    labels, others = np.split(rng.permutation(5), [3])
    base = rng.integers(0, 2, (5, 6)) / 4
    base[labels, :3] = np.eye(3) / 2 if seed % 2 else np.eye(3) / 4 + 0.25
    base[others, :3] = rng.integers(0, 2, (2, 1)) / 4
    if seed % 3:
        base[labels, 3:] = rng.integers(0, 2, 3) / 4
    counts = rng.integers(1, 3, 6)
    counts[:3] = 2 if seed % 4 else [1, 2, 2]
    base[:, base.sum(axis=0) == 0] = 0.25
    targets = (base / base.sum(axis=0))[:, (order := rng.permutation(6))]
    problem = tf.Problem(counts[order], targets=targets, **DECAYS)
    found = tf.thresholds(problem)
    pairs = {pair for own in found.sets for pair in itertools.combinations(own.labels, 2)}
    pairs |= {pair for own in found.equal_labels for pair in itertools.combinations(own, 2)}
    assert pairs == brute_force(problem)


def test_what_is_equal_at_every_decay_is_listed():
    targets = np.vstack([np.column_stack([TARGETS[:3, :4], TARGETS[:3, 0]]), np.zeros((2, 5))])
    targets /= targets.sum(axis=0)
    problem = tf.Problem(COUNTS, targets=targets, **DECAYS)
    found = tf.thresholds(problem)
    assert found.equal_labels == ((3, 4),)
    assert found.equal_contexts == ((0, 4),)
    assert [found.of_label(v) for v in range(5)] == [None, None, None, 0.0, 0.0]
    assert found.reason(0) == ALONE
    assert "equals that of another label" in found.reason(4)
    assert found.alone == (0, 1, 2)
    assert json.loads(json.dumps(found.to_dict()))["equal_contexts"] == [[0, 4]]
    html = found._repr_html_()
    assert "always" in html
    assert "not known" in html
    frame = found.to_frame()
    assert frame["merges"].isna().tolist() == [True] * 3 + [False] * 2
    assert frame["with"][3] == (3, 4)
    # Decay a context: those of different counts are two.
    by_context = tf.thresholds(problem.replace(feature_weights="contexts"))
    assert by_context.equal_contexts == ()
    with pytest.raises(ValueError, match="label: got 5, need 0 to 4"):
        found.of_label(5)
