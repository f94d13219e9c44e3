"""Regression collapse against direct minimisation, CVXPY and its own thresholds; NRC1 to NRC3."""

import cvxpy as cp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm
from scipy.optimize import minimize, minimize_scalar

import tightframe as tf


def targets(count=3, samples=24, seed=0, mean=1.0):
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(count, count))
    scales = np.array([2.0, 1.0, 0.5, 0.2])[:count]
    return (rng.normal(size=(samples, count)) * scales) @ mixing + mean * rng.normal(size=count)


def minimum(y, width, weight_decay, feature_decay, bias, depth, starts=4):
    """Minimise over actual layers, features and bias from random starts."""
    n, q = y.shape
    shapes = [(width, width)] * (depth - 1) + [(q, width), (n, width), (q,)]
    cuts = np.cumsum([np.prod(shape) for shape in shapes])

    def unpack(x):
        parts = np.split(x, cuts[:-1])
        return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]

    def value(x):
        *layers, features, b = unpack(x)
        acts = [features]
        for layer in layers:
            acts.append(acts[-1] @ layer.T)
        free = bias == "free"
        slope = (acts[-1] + b * free - y) / n
        total = n / 2 * (slope**2).sum() + feature_decay / 2 * (features**2).sum()
        total += weight_decay / 2 * sum((layer**2).sum() for layer in layers)
        by_bias, by_layers = slope.sum(axis=0) * free, []
        for layer, act in zip(layers[::-1], acts[-2::-1], strict=True):
            by_layers.insert(0, slope.T @ act + weight_decay * layer)
            slope = slope @ layer
        gradients = [*by_layers, slope + feature_decay * features, by_bias]
        return total, np.concatenate([gradient.ravel() for gradient in gradients])

    rng = np.random.default_rng(1)
    options = {"maxiter": 20000, "maxfun": 50000, "ftol": 1e-16, "gtol": 1e-10}
    found = [
        minimize(value, rng.normal(size=cuts[-1]), jac=True, method="L-BFGS-B", options=options)
        for _ in range(starts)
    ]
    best = min(found, key=lambda result: result.fun)
    return best.fun, unpack(best.x)


@pytest.mark.parametrize(
    ("bias", "depth", "width"),
    [("free", 1, 4), ("none", 1, 4), ("free", 2, 4), ("none", 3, 4), ("free", 2, 2)],
)
def test_is_what_direct_minimisation_finds(bias, depth, width):
    y = targets()
    decays = {"weight_decay": 0.04, "feature_decay": 0.03, "bias": bias, "depth": depth}
    found = tf.regression_collapse(y, dim=width, **decays)
    value, (*layers, features, b) = minimum(y, width, **decays)
    assert found.objective == pytest.approx(value, rel=1e-9)
    assert np.abs(layers[-1] @ layers[-1].T - found.gram).max() < 1e-5
    assert found.distance(layers[-1]) < 1e-5
    network = found.certify(y, features, layers, b if bias == "free" else None)
    assert 0 <= network.gap < 1e-8
    answers = features
    for layer in layers:
        answers = answers @ layer.T
    assert np.abs(answers + (b if bias == "free" else 0) - found.predictions).max() < 1e-4


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_own_factors_have_its_objective(depth):
    y = targets(4, mean=30.0)
    found = tf.regression_collapse(y, weight_decay=0.02, feature_decay=0.01, depth=depth)
    own = found.certify(y, found.features, found.weights, found.bias)
    assert own.primal == pytest.approx(found.objective, rel=1e-12)
    assert 0 <= found.gap < 1e-12
    assert own.dual <= found.lower_bound


@settings(max_examples=10, deadline=None)
@given(
    st.integers(1, 4), st.integers(2, 9), st.floats(-3, 0), st.sampled_from(["free", "none"]),
    st.integers(0, 99),
)  # fmt: skip
def test_one_layer_is_what_cvxpy_finds(count, samples, exponent, bias, seed):
    y = targets(count, samples, seed)
    decay = 10**exponent
    found = tf.regression_collapse(y, weight_decay=decay, feature_decay=decay / 4, bias=bias)
    z, b = cp.Variable((samples, count)), cp.Variable((1, count))
    answers = z + np.ones((samples, 1)) @ b if bias == "free" else z
    cost = cp.sum_squares(answers - y) / (2 * samples) + decay / 2 * cp.normNuc(z)
    value = cp.Problem(cp.Minimize(cost)).solve(solver=cp.CLARABEL)
    assert found.objective == pytest.approx(value, rel=1e-6, abs=1e-7)
    assert found.lower_bound <= found.objective


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_directions_vanish_at_their_thresholds(depth):
    y = targets()
    thresholds = tf.regression_collapse(
        y, weight_decay=1e-3, feature_decay=1e-3, depth=depth
    ).thresholds
    for i, threshold in enumerate(thresholds):
        below, above = (
            tf.regression_collapse(
                y, weight_decay=factor * threshold, feature_decay=factor * threshold, depth=depth
            )
            for factor in (0.999, 1.001)
        )
        assert (below.rank, above.rank) == (i + 1, i)
        # Deep networks jump: no small share is ever the best.
        assert below.shares[i] > (0 if depth == 1 else 0.3)


def test_whitened_targets_vanish_together():
    y = targets()
    centred = y - y.mean(axis=0)
    left, _, right = np.linalg.svd(centred, full_matrices=False)
    white = np.sqrt(len(y)) * left @ right
    for depth in (1, 2):
        decays = {"weight_decay": 0.01, "feature_decay": 0.01, "depth": depth}
        assert np.ptp(tf.regression_collapse(white, **decays).thresholds) < 1e-12
    found = tf.regression_collapse(white, weight_decay=0.01, feature_decay=0.01)
    assert found.thresholds == pytest.approx([len(y) ** -0.5] * 3)


def test_gram_is_the_papers_formula_and_gamma_that_of_nrc3():
    y = targets(samples=50)
    found = tf.regression_collapse(y, weight_decay=4e-3, feature_decay=1e-3)
    centred = y - y.mean(axis=0)
    root = np.real(sqrtm(centred.T @ centred))
    assert np.abs(found.gram - 0.5 * (root - 50 * 2e-3 * np.eye(3))).max() < 1e-10
    fitted = tf.metrics.nrc3_details(found.weights[0], y)
    assert fitted.distance < 1e-20
    assert fitted.gamma == pytest.approx(found.gamma, rel=1e-6)
    assert fitted.largest_gamma == pytest.approx(np.linalg.eigvalsh(np.cov(y.T, ddof=0))[0])
    # Features lie in as many dimensions as there are targets, those of the classifier's rows.
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(7, 7)))[0][:, :3]
    features, weight = found.features @ turn.T, found.weights[0] @ turn.T
    assert tf.metrics.nrc1(features, 3) < 1e-25
    assert tf.metrics.nrc2(features, weight) < 1e-25
    assert tf.metrics.nrc1(features, 2) > 1e-3


def test_layers_come_in_any_form():
    y = targets(1)
    found = tf.regression_collapse(y, weight_decay=0.01, feature_decay=0.01)
    (layer,) = found.weights
    for form in (layer, layer.tolist(), layer[0], layer[0].tolist(), [layer], [layer[0]]):
        assert found.certify(y, found.features, form, found.bias).gap < 1e-12
    two = tf.regression_collapse(y, weight_decay=0.01, feature_decay=0.01, depth=2)
    own = two.certify(y, two.features, [layer.tolist() for layer in two.weights], two.bias)
    assert own.gap < 1e-12
    assert found.distance(layer[0]) == pytest.approx(0, abs=1e-12)


def test_constant_and_dependent_targets():
    y = np.full((9, 2), 0.1)
    found = tf.regression_collapse(y, weight_decay=1e-9, feature_decay=1e-9)
    assert (found.rank, found.objective) == (0, 0)
    assert found.thresholds.tolist() == [0, 0]
    assert np.allclose(found.predictions, 0.1)
    first = targets(1)
    both = tf.regression_collapse(np.hstack([first, first]), weight_decay=1e-6, feature_decay=1e-6)
    assert both.rank == 1
    assert both.thresholds[1] == 0
    wide = tf.regression_collapse(targets(4, 3), weight_decay=1e-4, feature_decay=1e-4, bias="none")
    assert wide.rank == 3
    assert wide.gram.shape == (4, 4)


def test_what_it_says_of_itself():
    y = targets()
    found = tf.regression_collapse(y, weight_decay=0.3, feature_decay=0.3)
    frame, plain = found.to_frame(), found.to_dict()
    assert frame.vanished.tolist() == [share == 0 for share in found.shares]
    assert np.allclose(frame.variance, np.linalg.eigvalsh(np.cov(y.T, ddof=0))[::-1])
    assert plain["rank"] == found.rank == (~frame.vanished).sum()
    assert [row["threshold"] for row in plain["directions"]] == frame.threshold.tolist()
    assert repr(found).startswith("RegressionCollapse(24 samples, 3 targets, rank ")
    assert found.shares_at(found.mean_decay) == pytest.approx(found.shares)
    assert found.shares_at(found.thresholds[1])[1:].tolist() == [0, 0]
    _, ax = found.plot()
    line = ax.lines[0]
    x, share = line.get_xdata(), line.get_ydata()
    assert np.allclose(share, np.maximum(1 - x / found.thresholds[0], 0), atol=1e-9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"targets": [[1.0, np.nan], [1, 2]]}, "targets: row 0 has an entry that is not finite"),
        ({"targets": [["a"], ["b"]]}, "targets: got <U1, need real numbers"),
        ({"targets": [1 + 1j, 2]}, "targets: got complex128, need real numbers"),
        ({"targets": [[1.0, 2.0]]}, "targets: got 1 sample, need at least 2"),
        ({"targets": np.ones((2, 2, 2))}, r"targets: got shape \(2, 2, 2\), need two axes"),
        ({"targets": np.ones((2, 5000))}, "targets: got 5000 columns, need at most 4096"),
        ({"targets": [1e200, 0]}, r"targets: largest entry is 1e\+200"),
        ({"targets": [[1.0], [1, 2]]}, "targets: got entries of several lengths"),
        ({"weight_decay": 0.0}, "weight_decay: got 0"),
        ({"weight_decay": [0.1, 0.1]}, "weight_decay: got 2 numbers for depth 1"),
        ({"feature_decay": -1.0}, "feature_decay: got -1"),
        ({"bias": "decayed"}, "bias: got 'decayed', which has no closed form"),
        ({"bias": "maybe"}, "bias: got 'maybe'"),
        ({"depth": 0}, "depth: got 0"),
        ({"dim": 0}, "dim: got 0"),
    ],
)
def test_bad_arguments_are_named(change, message):
    given = {"targets": targets(), "weight_decay": 0.1, "feature_decay": 0.1} | change
    with pytest.raises(ValueError, match=message):
        tf.regression_collapse(given.pop("targets"), **given)


def test_bad_networks_are_named():
    y = targets()
    found = tf.regression_collapse(y, weight_decay=0.01, feature_decay=0.01, bias="none")
    for arguments, message in [
        ((y[:-1], found.features, found.weights), r"targets: got shape \(23, 3\)"),
        ((y, found.features, [*found.weights] * 2), "weights: got 2 layers, need 1"),
        ((y, found.features[:, :2], found.weights), "weights: got a layer of shape"),
        ((y, found.features[:-1], found.weights), "features, weights, bias: make answers of"),
        ((y, found.features, found.weights, np.ones(3)), "bias: got a non-zero bias"),
        ((y + 1, found.features, found.weights), "targets: are not those that the minimum was"),
        ((y, found.features, None), "weights: got None, need one layer or a sequence of layers"),
    ]:
        with pytest.raises(ValueError, match=message):
            found.certify(*arguments)
    with pytest.raises(ValueError, match="weight: got 2 rows, need 3, one a target"):
        found.distance(np.ones((2, 3)))


# -- the metrics -----------------------------------------------------------------------------------


def test_nrc1_and_nrc2_are_mean_squared_residuals():
    rng = np.random.default_rng(3)
    features, weight = rng.normal(size=(40, 5)) + 1, rng.normal(size=(2, 5))
    _, axes = np.linalg.eigh(np.cov(features.T))
    for center in (False, True):
        vectors = features - center * features.mean(axis=0)
        expected = [
            np.mean([
                np.linalg.norm(basis @ np.linalg.lstsq(basis, v, rcond=None)[0] - v) ** 2 / (v @ v)
                for v in vectors
            ])
            for basis in (axes[:, -2:], weight.T)
        ]  # fmt: skip
        found = (
            tf.metrics.nrc1(features, 2, center=center),
            tf.metrics.nrc2(features, weight, center=center),
        )
        assert found == pytest.approx(expected, rel=1e-12)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 5), st.integers(0, 999))
def test_nrc3_has_the_best_gamma(count, seed):
    rng = np.random.default_rng(seed)
    y, weight = targets(min(count, 4), 30, seed), rng.normal(size=(min(count, 4), 6))
    covariance = np.cov(y.T, ddof=0)
    root = np.real(sqrtm(covariance))
    gram = weight @ weight.T / np.linalg.norm(weight @ weight.T)

    def distance(c):
        wanted = root - c * np.eye(len(root))
        return np.linalg.norm(gram - wanted / np.linalg.norm(wanted)) ** 2

    found = tf.metrics.nrc3_details(weight, y)
    top = np.sqrt(np.linalg.eigvalsh(covariance)[0])
    best = minimize_scalar(distance, bounds=(0, top), method="bounded", options={"xatol": 1e-12})
    least = min(best.fun, distance(0), distance(top))
    assert found.distance == pytest.approx(least, abs=1e-9)
    assert distance(np.sqrt(found.gamma)) == pytest.approx(least, abs=1e-7)
    assert tf.metrics.nrc3(weight, y) == found.distance


def test_nrc3_of_a_gamma_that_is_given():
    y = targets(samples=50)
    found = tf.regression_collapse(y, weight_decay=4e-3, feature_decay=1e-3)
    (weight,) = found.weights
    assert tf.metrics.nrc3(weight, y, found.gamma) < 1e-20
    covariance = np.cov(y.T, ddof=0)
    least = np.linalg.eigvalsh(covariance)[0]
    for gamma in (0.0, 0.3 * least, least):
        wanted = np.real(sqrtm(covariance)) - gamma**0.5 * np.eye(3)
        gram = weight @ weight.T / np.linalg.norm(weight @ weight.T)
        apart = np.linalg.norm(gram - wanted / np.linalg.norm(wanted)) ** 2
        details = tf.metrics.nrc3_details(weight, y, gamma)
        assert details.distance == pytest.approx(apart, rel=1e-9)
        assert (details.gamma, details.largest_gamma) == (gamma, pytest.approx(least))
        assert details.distance >= tf.metrics.nrc3(weight, y)
    with pytest.raises(ValueError, match="gamma: got 1, need at most"):
        tf.metrics.nrc3(weight, y, 1.0)
    with pytest.raises(ValueError, match="gamma: got -1"):
        tf.metrics.nrc3(weight, y, -1)
    square = np.array([[1, 1], [1, -1], [-1, 1], [-1, -1.0]])
    with pytest.warns(RuntimeWarning, match="nrc3: this gamma leaves nothing of the targets"):
        assert np.isnan(tf.metrics.nrc3(np.eye(2), square, 1.0))


@pytest.mark.parametrize("size", [1e-300, 1e-170, 1e139])
def test_nrc_knows_no_scale(size):
    rng = np.random.default_rng(0)
    y, features, weight = targets(), rng.normal(size=(24, 5)), rng.normal(size=(3, 5))
    metrics = tf.metrics
    assert metrics.nrc1(size * features, 3) == pytest.approx(metrics.nrc1(features, 3))
    assert metrics.nrc2(size * features, size * weight) == pytest.approx(
        metrics.nrc2(features, weight)
    )
    assert metrics.nrc3(size * weight, size * y) == pytest.approx(metrics.nrc3(weight, y))


def test_nrc_where_nothing_can_be_said():
    features = np.ones((4, 3))
    with pytest.warns(RuntimeWarning, match="nrc1: all features are equal"):
        assert np.isnan(tf.metrics.nrc1(features, 1))
    with pytest.warns(RuntimeWarning, match="nrc2: all features are equal"):
        assert np.isnan(tf.metrics.nrc2(features, np.eye(3), center=True))
    with pytest.warns(RuntimeWarning, match="nrc2: the layer is zero"):
        assert np.isnan(tf.metrics.nrc2(features, np.zeros((1, 3))))
    with pytest.warns(RuntimeWarning, match="nrc3: the targets are constant"):
        assert np.isnan(tf.metrics.nrc3(np.ones((1, 3)), np.full(4, 0.1)))
    # One target: every gamma does.
    assert tf.metrics.nrc3_details(np.ones((1, 3)), np.arange(4.0))[0] == 0
    # Uncorrelated targets of equal variance ask for orthogonal rows of equal length.
    square = np.array([[1, 1], [1, -1], [-1, 1], [-1, -1.0]])
    assert tf.metrics.nrc3(np.eye(2), square) < 1e-20
    assert tf.metrics.nrc3(np.diag([1.0, 2.0]), square) > 0.1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: tf.metrics.nrc1(np.ones((4, 3)), 0), "num_targets: got 0"),
        (lambda: tf.metrics.nrc1(np.full((4, 3), np.inf), 1), "features: row 0"),
        (lambda: tf.metrics.nrc2(np.ones((4, 3)), np.ones((1, 2))), r"weight: got shape \(1, 2\)"),
        (lambda: tf.metrics.nrc3(np.ones((1, 2)), np.ones((4, 2))), "weight: got 1 row for 2 tar"),
        (lambda: tf.metrics.nrc3(np.ones((2, 2)), np.ones((1, 2))), "targets: got 1 sample"),
    ],
)
def test_bad_arrays_of_metrics_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
