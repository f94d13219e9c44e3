"""Vanishing decays for any label distributions: CVXPY, descent of the factors, real text."""

import itertools
import re
from collections import Counter
from pathlib import Path

import cvxpy as cp
import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

import tightframe as tf

BIASES = ("none", "free")
LICENCES = Path("/usr/share/common-licenses")


def _random(seed, labels=None, contexts=None):
    """Return random targets in which every label has a context, counts, weights and scales."""
    rng = np.random.default_rng(seed)
    v, m = labels or rng.integers(2, 6), contexts or rng.integers(2, 8)
    targets = np.zeros((v, m))
    for j in range(m):
        targets[rng.choice(v, rng.integers(1, v + 1), replace=False), j] = 1
    targets[np.arange(v), np.arange(v) % m] = 1
    targets *= rng.uniform(0.1, 1, (v, m))
    weights = np.exp(rng.uniform(-1, 3, m))
    return targets / targets.sum(axis=0), rng.integers(1, 90, m), weights, rng.uniform(0.4, 2, v)


def _cheapest(targets, weights, scale, bias):
    """Return the minimum of the max-margin problem, and its logits W h, by CVXPY."""
    v, m = targets.shape
    z = cp.Variable((v, m))
    shift = cp.Variable((v, 1)) if bias == "free" else np.zeros((v, 1))
    scaled = cp.multiply(scale[:, None] * np.ones((v, m)), z + shift @ np.ones((1, m)))
    asked = []
    for j in range(m):
        own, others = np.flatnonzero(targets[:, j]), np.flatnonzero(targets[:, j] == 0)
        asked += [scaled[i, j] == scaled[own[0], j] for i in own[1:]]
        asked += [scaled[own[0], j] - scaled[i, j] >= 1 for i in others]
    task = cp.Problem(cp.Minimize(cp.normNuc(z @ np.diag(np.sqrt(weights)))), asked)
    task.solve(solver="CLARABEL")
    return task.value, z.value


def _least_margin(limits, bias):
    """Return the least margin of the direction, and how unequal logits of one support are.

    With a free bias, of the best one: the constraints are linear in it.
    """
    scaled = limits.direction * limits.logit_scale[:, None]
    v, m = scaled.shape
    shift = cp.Variable(v) if bias == "free" else np.zeros(v)
    least, spread = cp.Variable(), cp.Variable()
    asked = [spread >= 0]
    for j in range(m):
        own, others = np.flatnonzero(limits.supports[:, j]), np.flatnonzero(~limits.supports[:, j])
        own_logits = scaled[own, j] + shift[own]
        asked += [cp.abs(own_logits - own_logits[0]) <= spread]
        asked += [own_logits[0] - scaled[i, j] - shift[i] >= least for i in others]
    cp.Problem(cp.Maximize(least - 100 * spread), asked).solve(solver="CLARABEL")
    return least.value, spread.value


@pytest.mark.parametrize("bias", BIASES)
@given(st.integers(0, 10**6), st.booleans())
@settings(max_examples=8, deadline=None)
def test_the_direction_is_cvxpys(bias, seed, scaled):
    targets, counts, weights, scale = _random(seed)
    scale = scale if scaled else np.ones_like(scale)
    limits = tf.label_limits(targets, counts, feature_weights=weights, logit_scale=scale, bias=bias)
    if limits.stays_finite:
        return
    least, logits = _cheapest(targets, weights, scale, bias)
    assert limits.status == "optimal"
    assert limits.norm == pytest.approx(least, rel=2e-7)
    assert limits.lower_bound <= least * (1 + 1e-7)
    root = np.sqrt(weights)
    assert np.linalg.norm(limits.direction * root, "nuc") == pytest.approx(limits.norm, rel=1e-9)
    # The norm is flat at its minimum: it is known to more digits than the logits.
    assert tf.normalized_distance(limits.direction * root, logits * root) < 1e-2
    margin, spread = _least_margin(limits, bias)
    assert margin == pytest.approx(1, abs=1e-5)
    assert spread < 1e-6


@given(st.integers(0, 10**6), st.sampled_from(BIASES))
@settings(deadline=None)
def test_the_certificate_of_the_support_matrix_agrees_with_the_least_norm(seed, bias):
    targets, counts, weights, scale = _random(seed)
    limits = tf.label_limits(targets, counts, feature_weights=weights, logit_scale=scale, bias=bias)
    assert 0 <= limits.lower_bound <= limits.norm * (1 + 1e-12)
    assert limits.norm <= limits.support_norm * (1 + 1e-12)
    proxy = np.linalg.norm(limits.support_matrix * np.sqrt(weights), "nuc")
    assert limits.support_norm == pytest.approx(proxy, rel=1e-9, abs=1e-12)
    if limits.is_max_margin:
        assert limits.support_norm - limits.lower_bound <= 1e-8 * limits.norm
        assert limits.direction == pytest.approx(limits.support_matrix, abs=1e-12)
    elif limits.is_max_margin is False:
        assert limits.wrong_signs > 0
        assert limits.largest_off_support > 0
        # A candidate cheaper than the support matrix, unless by less than the gap.
        assert limits.norm < limits.support_norm or limits.test.excluded


def _signs(matrix, inside):
    """Return the entries off the supports of the polar factor, by an SVD of its own."""
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    kept = values > 1e-9 * values[0]
    return (left[:, kept] @ right[kept])[~inside]


PAIRS = np.array([[i in pair for pair in itertools.combinations(range(6), 2)] for i in range(6)])
WITH_SINGLES = np.hstack([np.eye(6, dtype=bool), PAIRS])


@pytest.mark.parametrize(
    ("inside", "weights"),
    [
        (PAIRS, [1] * 15),
        (WITH_SINGLES, [1] * 21),
        (WITH_SINGLES, [100] * 6 + [1] * 15),
        (WITH_SINGLES, [1] * 6 + [100] * 15),
    ],
    ids=["pairs", "1:1", "100:1", "1:100"],
)
def test_supports_of_which_the_literatures_matrix_is_the_direction(inside, weights):
    targets = inside / inside.sum(axis=0)
    limits = tf.label_limits(targets, weights)
    assert limits.is_max_margin is True
    assert limits.steps == 0
    assert limits.wrong_signs == 0
    assert limits.gap <= 1e-12 * limits.norm
    centered = inside - inside.mean(axis=0)
    assert limits.direction == pytest.approx(centered, abs=1e-12)
    assert limits.largest_off_support == pytest.approx(
        _signs(centered * np.sqrt(weights), inside).max(), abs=1e-12
    )


def test_random_supports_of_which_it_is_not():
    """contexts.md: V = 8, m = 12; the proxy's norm is 1.0002 to 1.005 times the least."""
    ratios = []
    for seed in range(3):
        targets, counts, _, _ = _random(seed, 8, 12)
        limits = tf.label_limits(targets, counts)
        assert limits.is_max_margin is False
        assert limits.gap <= 1e-8 * limits.norm
        ratios.append(limits.support_norm / limits.norm)
    assert 1.00001 < min(ratios) < max(ratios) < 1.1


@given(st.lists(st.integers(1, 10**6), min_size=2, max_size=9))
@settings(deadline=None)
def test_one_label_a_context_is_seli(counts):
    k = len(counts)
    for bias in BIASES:
        limits, frame = tf.label_limits(np.eye(k), counts, bias=bias), tf.seli(counts, bias)
        assert limits.is_max_margin is True
        assert limits.norm == pytest.approx(tf.certify_svm(counts, bias=bias).primal, rel=1e-9)
        assert limits.direction == pytest.approx(frame.logits, abs=1e-9)
        assert tf.normalized_distance(limits.classifier, frame.classifier) < 1e-7
        assert tf.normalized_distance(limits.means, frame.means) < 1e-7


@given(st.integers(2, 11), st.integers(0, 10**6))
@settings(deadline=None)
def test_seli_of_scaled_logits_is_certified_for_any_counts_and_scales(k, seed):
    rng = np.random.default_rng(seed)
    counts = np.exp(rng.uniform(0, 7, k)).round().astype(int)
    scale = np.exp(rng.uniform(-1.5, 1.5, k))
    limits = tf.label_limits(np.eye(k), counts, logit_scale=scale)
    frame = tf.seli(counts, logit_scale=scale)
    assert limits.largest_off_support < 0
    assert limits.gap <= 1e-9 * limits.norm
    assert limits.direction == pytest.approx(frame.logits, rel=1e-9, abs=1e-9)
    assert tf.normalized_distance(limits.classifier, frame.classifier) < 1e-6
    assert tf.normalized_distance(limits.means, frame.means) < 1e-6
    scaled = scale[:, None] * frame.logits
    margins = np.diagonal(scaled) - scaled
    assert margins[~np.eye(k, dtype=bool)] == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_seli_of_scaled_logits_is_cvxpys(seed):
    rng = np.random.default_rng(seed)
    counts, scale = rng.integers(1, 200, 5), rng.uniform(0.3, 2, 5)
    least, logits = _cheapest(np.eye(5), counts, scale, "none")
    frame = tf.seli(counts, logit_scale=scale)
    norm = np.linalg.norm(frame.logits * np.sqrt(counts), "nuc")
    assert norm == pytest.approx(least, rel=1e-7)
    assert frame.logits == pytest.approx(logits, abs=1e-3)


def test_with_a_free_bias_scaled_logits_have_another_limit():
    targets, counts, scale = np.eye(4), [100, 100, 10, 10], [1, 2, 0.5, 0.2]
    limits = tf.label_limits(targets, counts, logit_scale=scale, bias="free")
    assert limits.is_max_margin is False
    assert limits.norm == pytest.approx(
        _cheapest(targets, np.array(counts), np.array(scale), "free")[0], rel=1e-7
    )
    with pytest.raises(ValueError, match="logit_scale: got different scales with bias='free'"):
        tf.seli(counts, bias="free", logit_scale=scale)


def test_equal_scales_only_shrink_the_logits():
    for bias in BIASES:
        one, half = tf.seli("9x2,3", bias), tf.seli("9x2,3", bias, logit_scale=[2, 2, 2])
        assert half.logits == pytest.approx(one.logits / 2, abs=1e-15)
        assert half.name == one.name


# -- merging -------------------------------------------------------------------------------------


@given(st.integers(0, 10**6), st.sampled_from(BIASES))
@settings(deadline=None, max_examples=30)
def test_equal_supports_and_equal_labels_merge(seed, bias):
    targets, counts, weights, scale = _random(seed, 4, 6)
    rng = np.random.default_rng(seed)
    # Every context comes twice, with other probabilities; every label twice, in the same contexts.
    again = np.where(targets > 0, rng.uniform(0.1, 1, targets.shape), 0)
    twice = np.hstack([targets, again / again.sum(axis=0)])
    twice = np.vstack([twice * 0.25, twice * 0.75])
    parts = rng.uniform(0.2, 0.8, 6)
    shares = rng.uniform(0.2, 0.8, 4)
    # 1 / scale^2 of both parts of a label sums to what it was.
    scales = np.r_[scale / np.sqrt(shares), scale / np.sqrt(1 - shares)]
    found = tf.label_limits(
        twice,
        np.r_[counts, counts],
        feature_weights=np.r_[weights * parts, weights * (1 - parts)],
        logit_scale=scales,
        bias=bias,
    )
    single = tf.label_limits(targets, counts, feature_weights=weights, logit_scale=scale, bias=bias)
    assert found.merged.inside.shape == single.merged.inside.shape
    assert found.norm == pytest.approx(single.norm, rel=3e-8)
    assert found.support_norm == pytest.approx(single.support_norm, rel=1e-9, abs=1e-12)
    assert found.is_max_margin == single.is_max_margin
    # Written out, the proxy is that of the large matrices themselves.
    x = (twice > 0) / scales[:, None] * np.sqrt(found.feature_weights)
    left, right = 1 / scales, np.sqrt(found.feature_weights)
    x -= np.outer(left, left @ x) / (left @ left)
    if bias == "free":
        x -= np.outer(x @ right, right) / (right @ right)
    assert found.support_matrix * right == pytest.approx(x, abs=1e-9)


@given(st.integers(0, 10**6), st.sampled_from(BIASES))
@settings(deadline=None, max_examples=30)
def test_grams_are_those_of_the_cheapest_factors(seed, bias):
    targets, counts, weights, scale = _random(seed)
    limits = tf.label_limits(targets, counts, feature_weights=weights, logit_scale=scale, bias=bias)
    logits = limits.finite_logits if limits.stays_finite else limits.direction
    left, values, right = np.linalg.svd(logits * np.sqrt(weights), full_matrices=False)
    classifier = left * np.sqrt(values)
    features = (np.sqrt(values)[:, None] * right) / np.sqrt(weights)
    assert classifier @ features == pytest.approx(logits, abs=1e-9)
    assert limits.classifier == pytest.approx(classifier @ classifier.T, abs=1e-7 * values[0])
    assert limits.means == pytest.approx(features.T @ features, abs=1e-6 * values[0])


def test_many_contexts_of_few_kinds():
    """Sparse contexts, each with two of six labels, cost no more than fifteen once merged."""
    m = 10**5
    rng = np.random.default_rng(0)
    pairs = np.array(list(itertools.combinations(range(6), 2)))[rng.integers(15, size=m)]
    chance = rng.uniform(0.1, 0.9, m)
    entries = np.stack([chance, 1 - chance], axis=1).ravel()
    targets = scipy.sparse.csc_array((entries, pairs.ravel(), 2 * np.arange(m + 1)), shape=(6, m))
    limits = tf.label_limits(targets, f"3x{m}", feature_weights="contexts")
    assert limits.merged.inside.shape == (6, 15)
    sizes = np.bincount(pairs @ [6, 1], minlength=36)
    centered = np.array([np.isin(range(6), divmod(i, 6)) for i in np.flatnonzero(sizes)]).T - 1 / 3
    least = np.linalg.norm(centered * np.sqrt(sizes[sizes > 0]), "nuc")
    assert limits.support_norm == pytest.approx(least, rel=1e-9)
    assert limits.is_max_margin is True
    with pytest.raises(ValueError, match="targets: 100000 x 100000 entries are too many"):
        _ = limits.means


def test_sparse_targets_are_the_dense_ones():
    targets, counts, _, _ = _random(3, 5, 7)
    dense = tf.label_limits(targets, counts)
    for kind in (scipy.sparse.csr_matrix, scipy.sparse.csc_array, scipy.sparse.coo_array):
        sparse = tf.label_limits(kind(targets), counts)
        assert sparse.to_dict() == dense.to_dict()
        assert np.array_equal(sparse.log_ratios, dense.log_ratios)
        assert np.array_equal(sparse.direction, dense.direction)


# -- the limit itself ----------------------------------------------------------------------------


def _descended(targets, counts, weights, scale, decay, bias, start):
    """Return objective, logits W H and bias by L-BFGS on the factors: the definition itself."""
    v, m = targets.shape
    shares = counts / counts.sum()

    def value(flat):
        w, h, b = np.split(flat, [v * v, v * v + v * m])
        w, h = w.reshape(v, v), h.reshape(v, m)
        z = scale[:, None] * (w @ h + (b[:, None] if bias == "free" else 0))
        top = z.max(axis=0)
        total = np.log(np.exp(z - top).sum(axis=0)) + top
        fit = shares @ (total - (targets * z).sum(axis=0))
        slope = scale[:, None] * (np.exp(z - total) - targets) * shares
        cost = decay / 2 * ((w**2).sum() + (weights * h**2).sum())
        grads = slope @ h.T + decay * w, w.T @ slope + decay * weights * h, slope.sum(axis=1)
        return fit + cost, np.concatenate([g.ravel() for g in grads])

    options = {"maxiter": 20000, "maxfun": 40000, "ftol": 1e-16, "gtol": 1e-11, "maxcor": 40}
    for _ in range(20):  # line searches may end early, near the end of the digits
        found = minimize(value, start, jac=True, method="L-BFGS-B", options=options)
        start = found.x
        if np.abs(found.jac).max() < 1e-10:
            break
    w, h, b = np.split(found.x, [v * v, v * v + v * m])
    return found.fun, w.reshape(v, v) @ h.reshape(v, m), b, found.x


@pytest.mark.parametrize("bias", BIASES)
def test_minimisers_tend_to_both_parts(bias):
    targets, counts, weights, scale = _random(5, 4, 5)
    limits = tf.label_limits(targets, counts, feature_weights=weights, logit_scale=scale, bias=bias)
    start = np.random.default_rng(0).normal(size=4 * 4 + 4 * 5 + 4)
    ratios, errors, directions = [], [], []
    for decay in (1e-2, 1e-3, 1e-4):
        objective, logits, b, start = _descended(
            targets, counts, weights, scale, decay, bias, start
        )
        shift = b[:, None] if bias == "free" else 0
        scaled = scale[:, None] * (logits + shift)
        inside = limits.supports
        means = (np.where(inside, scaled, 0)).sum(axis=0) / inside.sum(axis=0)
        errors.append(np.abs((scaled - means - limits.log_ratios)[inside]).max())
        root = np.sqrt(weights)
        directions.append(tf.normalized_distance(logits * root, limits.direction * root))
        ratios.append((objective - limits.entropy) / (limits.objective(decay) - limits.entropy))
    # The finite part is off by a multiple of the decay, the direction by one over its logarithm.
    assert all(b < 0.2 * a for a, b in itertools.pairwise(errors))
    assert all(b < a for a, b in itertools.pairwise(directions))
    steps = [abs(r - 1) for r in ratios]
    assert all(b < a for a, b in itertools.pairwise(steps))


@pytest.mark.parametrize("bias", BIASES)
def test_where_every_context_has_every_label_logits_stay_finite(bias):
    rng = np.random.default_rng(0)
    targets, counts = 0.6 * rng.dirichlet(np.ones(4), 6).T + 0.1, rng.integers(5, 50, 6)
    weights, scale = rng.uniform(1, 9, 6), rng.uniform(0.5, 2, 4)
    limits = tf.label_limits(targets, counts, feature_weights=weights, logit_scale=scale, bias=bias)
    assert limits.stays_finite
    assert limits.is_max_margin is True
    assert not limits.direction.any()
    start = rng.normal(size=4 * 4 + 4 * 6 + 4)
    errors, rests = [], []
    for decay in (1e-2, 1e-3, 1e-4):
        objective, logits, _, start = _descended(
            targets, counts, weights, scale, decay, bias, start
        )
        errors.append(np.abs(logits - limits.finite_logits).max())
        rests.append(abs(objective - limits.objective(decay)))
    assert all(b < 0.2 * a for a, b in itertools.pairwise(errors))
    assert all(b < 0.05 * a for a, b in itertools.pairwise(rests))
    plain = tf.label_limits(targets, counts)
    logs = np.log(targets)
    assert plain.finite_logits == pytest.approx(logs - logs.mean(axis=0), abs=1e-12)


# -- real text -----------------------------------------------------------------------------------


def _pairs_of_letters(text, least):
    """Return counts of the next letter (V = 27) after every pair of letters seen often enough."""
    letters = re.sub("[^a-z]+", " ", text.lower())
    seen = Counter(letters[i - 2 : i + 1] for i in range(2, len(letters)))
    totals = Counter()
    for triple, count in seen.items():
        totals[triple[:2]] += count
    contexts = sorted(pair for pair, count in totals.items() if count >= least)
    alphabet = " abcdefghijklmnopqrstuvwxyz"
    return np.array([[seen[pair + letter] for pair in contexts] for letter in alphabet])


@pytest.mark.skipif(not LICENCES.is_dir(), reason="the licence texts of Debian are not here")
@pytest.mark.parametrize(("weights", "wrong"), [("samples", 0.13), ("contexts", 0.09)])
def test_real_text_is_not_what_the_literature_takes_it_for(weights, wrong):
    names = ("Apache-2.0", "GPL-2", "GPL-3", "LGPL-2.1", "MPL-2.0")
    text = "".join((LICENCES / name).read_text(encoding="utf-8") for name in names)
    seen = _pairs_of_letters(text, 100)
    assert seen.shape == (27, 190)
    counts = seen.sum(axis=0)
    limits = tf.label_limits(seen / counts, counts, feature_weights=weights)
    assert limits.is_max_margin is False
    assert limits.test.rank == 26
    assert limits.wrong_signs == pytest.approx(wrong, abs=0.005)
    inside = seen > 0
    root = np.sqrt(limits.feature_weights)
    entries = _signs((inside - inside.mean(axis=0)) * root, inside)
    assert limits.wrong_signs == pytest.approx(np.mean(entries > 1e-9), abs=1e-12)
    assert limits.gap <= 1e-8 * limits.norm
    assert 1.0005 < limits.support_norm / limits.norm < 1.002


def test_text_that_comes_with_python():
    from pydoc_data.topics import topics

    seen = _pairs_of_letters(" ".join(topics.values()), 300)
    counts = seen.sum(axis=0)
    limits = tf.label_limits(seen / counts, counts)
    assert limits.is_max_margin is False
    assert limits.wrong_signs > 0.05
    assert limits.gap <= 1e-8 * limits.norm


# -- what is said of it, and bad input -----------------------------------------------------------


def test_the_record_says_what_it_is():
    targets, counts, _, _ = _random(0, 8, 12)
    limits = tf.label_limits(targets, counts)
    summary = limits.to_dict()
    assert summary["is_max_margin"] is False
    assert summary["gap"] == limits.gap
    assert "is not the max-margin direction" in limits.note
    assert f"{limits.wrong_signs:.1%}" in limits.note
    frame = limits.to_frame()
    assert len(frame) == 12
    assert frame["count"].tolist() == counts.tolist()
    assert frame["labels"].tolist() == (targets > 0).sum(axis=0).tolist()
    assert repr(limits).startswith("LabelLimits(8 labels, 12 contexts, norm ")


def test_too_few_steps_are_said_and_bounded():
    targets, counts, _, _ = _random(0, 8, 12)
    best = tf.label_limits(targets, counts)
    with pytest.warns(tf.NotConvergedWarning, match="label_limits: the gap is"):
        poor = tf.label_limits(targets, counts, max_iterations=3, tol=1e-12)
    assert poor.status == "not_converged"
    assert poor.lower_bound <= best.norm <= poor.norm * (1 + 1e-12)


GOOD = np.array([[0.5, 1, 0, 0.2], [0.5, 0, 0.3, 0.2], [0, 0, 0.7, 0.6]])


def _with(value, place=(0, 0)):
    targets = GOOD.copy()
    targets[place] = value
    return targets


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"targets": 3 * GOOD}, "targets: column 0 has the sum 3; a distribution"),
        ({"targets": GOOD * [1, 0, 1, 1]}, "targets: column 1 is all zero"),
        ({"targets": np.array([[0.5, 0.5], [0.9, 0.1], [0, 1]])}, "its rows do: transpose it"),
        ({"targets": _with(-0.5)}, "targets: column 0 has the entry -0.5"),
        ({"targets": _with(np.nan, (2, 3))}, "targets: column 3 has the entry nan"),
        ({"targets": GOOD[:1]}, "targets: got 1 label, need at least 2 of both"),
        ({"targets": GOOD[:, :1]}, "targets: got 1 context, need at least 2 of both"),
        ({"targets": np.ones(3)}, r"targets: got shape \(3,\)"),
        ({"targets": [[1, 0], [1]]}, "targets: got entries of several lengths"),
        ({"targets": GOOD * 1j}, "targets: got complex128, need an array"),
        (
            {"targets": np.broadcast_to(0.25, (4, 10**7))},
            "targets: got a dense array of 4 x 10000000",
        ),
        ({"counts": "5x3"}, r"counts: got 3 numbers for the 4 contexts \(columns\) of targets"),
        ({"counts": [5, 5, 0, 5]}, "counts:"),
        ({"feature_weights": "sample"}, "feature_weights:"),
        ({"feature_weights": None}, "feature_weights: got None, need one of samples, contexts"),
        ({"feature_weights": [1, 2, 3]}, "feature_weights: got 3 numbers for 4"),
        ({"feature_weights": [1, 2, 3, 0]}, "feature_weights: got 0, need 'samples', 'contexts'"),
        ({"logit_scale": [1, 2, 0]}, "logit_scale: got 0, need numbers from 0.001 to 1000"),
        ({"logit_scale": [1, 2]}, "logit_scale: got 2 numbers for 3"),
        ({"bias": "decayed"}, "bias: got 'decayed', allowed are none, free"),
        ({"tol": 0}, "tol: got 0, need a finite number above 0"),
        ({"max_iterations": 0}, "max_iterations: got 0, need a whole number"),
        (
            {"targets": np.vstack([GOOD, np.zeros(4)]), "bias": "free"},
            "targets: no context has label 3, whose bias then falls without bound",
        ),
    ],
)
def test_bad_input_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        tf.label_limits(**({"targets": GOOD, "counts": "5x4"} | changes))


def test_explicit_zeros_are_refused():
    sparse = scipy.sparse.csc_array(GOOD)
    sparse.data[0] = 0
    with pytest.raises(ValueError, match="targets: got 1 explicit zero in a sparse matrix"):
        tf.label_limits(sparse, "5x4")
    assert sparse.data[0] == 0


def test_labels_that_no_context_has_are_one_to_all_others():
    alone = tf.label_limits(GOOD, "5x4")
    more = tf.label_limits(np.vstack([GOOD, np.zeros((3, 4))]), "5x4")
    assert len(more.merged.inside) == len(alone.merged.inside) + 1
    assert more.direction[3:] == pytest.approx(more.direction[[3, 3, 3]], abs=1e-12)
    least, _ = _cheapest(np.vstack([GOOD, np.zeros((3, 4))]), np.full(4, 5.0), np.ones(6), "none")
    assert more.norm == pytest.approx(least, rel=1e-7)


def test_a_small_decay_is_asked_for():
    limits = tf.label_limits(GOOD, "5x4")
    for decay, message in ((0, "above 0"), (1, "need a small decay, below 1")):
        with pytest.raises(ValueError, match=f"logit_decay: .*{message}"):
            limits.objective(decay)
