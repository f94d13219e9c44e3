"""Exchangeable labels: what is found, and that the reduced problem is the whole one."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from tests.reference.contexts import convex_minimum, objective
from tightframe.solvers.contexts import minimise_contexts
from tightframe.theory.contexts.certificate import certify_logits, certify_with
from tightframe.theory.contexts.form import ContextForm, merged
from tightframe.theory.contexts.symmetry import symmetry


def form_of(targets, counts, decay, bias="none", omega=None):
    counts = np.asarray(counts, dtype=float)
    v = np.shape(targets)[1]
    return ContextForm(
        csr_array(np.asarray(targets, dtype=float)),
        counts / counts.sum(),
        counts if omega is None else omega,
        decay,
        np.ones(v),
        np.zeros(v),
        bias,
        0.02 if bias == "decayed" else 0.0,
    )


def in_groups(sizes, counts, between, own, decay, **settings):
    """Classes in groups: noise that is even over every group, and an own share a group."""
    groups = np.repeat(np.arange(len(sizes)), sizes)
    even = np.asarray(between)[groups][:, groups] / np.asarray(sizes)[groups]
    own = np.asarray(own)[groups]
    targets = (1 - own)[:, None] * even + np.diag(own)
    return form_of(targets, np.asarray(counts)[groups], decay, **settings)


def pairs_of(labels, single, pair, decay, **settings):
    """Every label alone, and every pair of labels."""
    pairs = list(itertools.combinations(range(labels), 2))
    targets = np.zeros((labels + len(pairs), labels))
    targets[:labels] = np.eye(labels)
    for row, both in enumerate(pairs, start=labels):
        targets[row, both] = 0.5
    return form_of(targets, [single] * labels + [pair] * len(pairs), decay, **settings)


def mixed_up(classes, shares, decay):
    """Mixup between balanced classes, by a quadrature."""
    rows, counts = [], []
    for (i, j), share in itertools.product(itertools.permutations(range(classes), 2), shares):
        row = np.zeros(classes)
        row[i], row[j] = share, 1 - share
        rows.append(row)
        counts.append(10 + round(10 * share))
    return form_of(rows, counts, decay)


NOISE = [[0.5, 0.3, 0.2], [0.1, 0.8, 0.1], [0.25, 0.25, 0.5]]

FORMS = {
    "classes": in_groups([5, 4], [500, 100], np.eye(2), [1, 1], 2e-3),
    "classes, free": in_groups([5, 4], [500, 100], np.eye(2), [1, 1], 2e-3, bias="free"),
    "smoothed": in_groups([7, 5], [300, 50], [[7 / 12, 5 / 12]] * 2, [0.9, 0.9], 2e-3),
    "noise": in_groups([3, 4, 2], [60, 200, 20], NOISE, [0.3, 0.4, 0], 3e-3),
    "noise, decayed": in_groups(
        [3, 4, 2], [60, 200, 20], NOISE, [0.3, 0.4, 0], 3e-3, bias="decayed"
    ),
    "noise, per context": in_groups(
        [3, 4, 2], [60, 200, 20], NOISE, [0.3, 0.4, 0], 2e-2, omega=np.ones(9)
    ),
    "pairs": pairs_of(6, 40, 7, 3e-3),
    "pairs, free": pairs_of(6, 40, 7, 3e-3, bias="free"),
    "mixup": mixed_up(5, [0.15, 0.4], 4e-3),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_the_reduced_minimum_is_the_whole_one(form):
    whole = merged(form).form
    found = symmetry(whole)
    full = minimise_contexts(whole, 1e-11, 3000)
    small = minimise_contexts(found.form, 1e-11, 3000)
    assert found.form.shape[0] < whole.shape[0]
    assert small.bounds.primal + found.constant == pytest.approx(full.bounds.primal, rel=2e-11)
    x, bias = found.expanded(small.x), small.bias[found.label_group]
    assert x.rank == small.x.rank == full.x.rank
    np.testing.assert_allclose(x.left.T @ x.left, np.eye(x.rank), atol=1e-12)
    np.testing.assert_allclose(x.right.T @ x.right, np.eye(x.rank), atol=1e-12)
    logits = x.rows(slice(None)) * whole.context_scale[:, None] * whole.label_scale
    assert objective(whole, logits, bias) == pytest.approx(
        small.bounds.primal + found.constant, rel=1e-12
    )
    primal, dual, _ = certify_logits(whole, logits.T, bias)
    assert primal - dual <= 1e-8 * primal
    np.testing.assert_allclose(
        x.rows(slice(None)), full.x.rows(slice(None)), atol=1e-4 * x.values[0]
    )


def test_the_order_of_labels_and_contexts_does_not_matter():
    form = FORMS["noise"]
    rng = np.random.default_rng(0)
    labels, contexts = rng.permutation(9), rng.permutation(9)
    targets = form.targets.toarray()[contexts][:, labels]
    shuffled = merged(form_of(targets, form.feature_weights[contexts], form.decay)).form
    found, ordered = symmetry(shuffled), symmetry(merged(form).form)
    assert found.form.shape == ordered.form.shape
    assert sorted(found.form.group_sizes) == sorted(ordered.form.group_sizes)
    one, other = (minimise_contexts(s.form, 1e-11, 3000) for s in (found, ordered))
    assert one.bounds.primal + found.constant == pytest.approx(
        other.bounds.primal + ordered.constant, rel=2e-11
    )


@settings(max_examples=4)
@given(st.integers(0, 10**6), st.sampled_from(["none", "free", "decayed"]))
def test_random_members_have_the_minimum_of_cvxpy(seed, bias):
    rng = np.random.default_rng(seed)
    sizes = [3, 3]
    form = in_groups(
        sizes,
        rng.integers(1, 60, 2),
        rng.dirichlet(np.ones(2), 2),
        rng.uniform(0.1, 0.9, 2),
        10 ** rng.uniform(-3, -1.5),
        bias=bias,
        omega=np.repeat(rng.integers(1, 9, 2).astype(float), sizes),
    )
    small = merged(form)
    found = symmetry(small.form)
    reached = minimise_contexts(found.form, 1e-9, 3000).bounds
    assert reached.primal - reached.dual <= 1e-9 * reached.primal
    minimum = convex_minimum(form)
    assert reached.primal + found.constant + small.constant == pytest.approx(minimum, rel=1e-6)


@pytest.mark.parametrize("name", ["noise", "pairs, free", "noise, decayed"])
def test_no_bound_is_above_the_minimum(name):
    whole = merged(FORMS[name]).form
    found = symmetry(whole)
    best = minimise_contexts(whole, 1e-11, 3000).bounds.primal
    small = minimise_contexts(found.form, 1e-6, 3000)
    rng = np.random.default_rng(0)
    for size in (1e-6, 1e-3, 1.0):
        residual = size * rng.normal(size=found.form.shape) * (found.form.cell_sizes > 0)
        bounds = certify_with(found.form, small.x, small.bias, residual, enough=1e-9)
        assert bounds.dual + found.constant <= best * (1 + 1e-12)


def test_one_changed_entry_leaves_that_label_alone():
    form = FORMS["classes"]
    targets = form.targets.toarray()
    targets[3] = 0.99 * np.eye(9)[3] + 0.01 * np.eye(9)[8]
    found = symmetry(form_of(targets, form.feature_weights, form.decay))
    assert sorted(found.form.group_sizes) == [1, 1, 3, 4]


def test_labels_that_only_look_alike_are_not_exchanged():
    """Every label of a circle has the same neighbours, yet no two may be swapped."""
    circle = 0.6 * np.eye(9) + 0.4 * np.roll(np.eye(9), 1, axis=1)
    assert symmetry(form_of(circle, [10] * 9, 1e-3)) is None


def test_random_targets_have_no_symmetry():
    rng = np.random.default_rng(0)
    assert symmetry(form_of(rng.dirichlet(np.ones(6), 9), rng.integers(1, 9, 9), 1e-3)) is None


def test_all_collapsed():
    noise = [[0.6, 0.4], [0.1, 0.9]]
    found = symmetry(merged(in_groups([3, 4], [60, 20], noise, [0.3, 0.4], 1.0)).form)
    reached = minimise_contexts(found.form, 1e-12, 10)
    assert reached.collapsed
    assert reached.x.rank == 0
    assert found.expanded(reached.x).rank == 0
