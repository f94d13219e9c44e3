import warnings
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.sparse.linalg import LinearOperator

import tightframe as tf
from tests.reference import ufm
from tests.strategies import convex_problems
from tightframe.landscape import (
    DescentOptions,
    Landscape,
    Point,
    critical_point,
    curvature,
    descend,
    descent_direction,
    gauss_newton,
    gradient,
    hessian,
    objective,
    saddle,
    smallest_eigenpair,
)
from tightframe.theory import thresholds as closed

DECAYED = {"bias": "decayed", "bias_decay": 0.02}


def problems(low=-3.0):
    return convex_problems(max_classes=5, low=low)


def _random_point(problem, dim, seed):
    rng = np.random.default_rng(seed)
    k = problem.num_classes
    bias = None if problem.bias == "none" else rng.normal(size=k)
    return Point(rng.normal(size=(k, dim)), rng.normal(size=(dim, k)), bias)


def _at_fraction(fraction, counts="30x2,5x2", dim=None, **options):
    """Return a problem whose logit decay is that fraction of the one of total collapse."""
    unit = tf.Problem(counts, weight_decay=1, feature_decay=1, **options)
    decay = fraction * closed.ends(unit).total_collapse
    return unit.replace(weight_decay=4 * decay, feature_decay=decay / 4, dim=dim)


# -- naive twins -----------------------------------------------------------------------------------


def _naive_matrices(problem, point):
    """Return the Hessian and the Gauss-Newton matrix, class by class, from their definitions."""
    counts = problem.counts
    k, d, n = len(counts), point.weights.shape[1], counts.sum()
    v = point.class_means * np.sqrt(counts)
    bias = np.zeros(k) if point.bias is None else point.bias
    size = 2 * k * d + (0 if problem.bias == "none" else k)
    gauss = np.zeros((size, size))
    rest = np.zeros((size, size))
    terms, shifts = ufm.label_terms(problem)
    for c in range(k):
        z = point.weights @ point.class_means[:, c] + bias + shifts[:, c]
        weight = problem.class_weights[c]
        if problem.loss == "mse":
            slope, curvature = weight * (z - np.eye(k)[c]), weight * np.eye(k)
        else:
            p = np.exp(z - z.max())
            p /= p.sum()
            slope = terms[:, c].sum() * p - terms[:, c]
            curvature = terms[:, c].sum() * (np.diag(p) - np.outer(p, p))
        root = np.sqrt(counts[c])
        jacobian = np.zeros((k, size))
        for j in range(k):
            for i in range(d):
                jacobian[j, j * d + i] = v[i, c] / root
                jacobian[j, k * d + i * k + c] = point.weights[j, i] / root
                # z_j holds the product W_ji V_ic / sqrt(n_c): the one mixed second derivative.
                w_index, v_index = j * d + i, k * d + i * k + c
                rest[w_index, v_index] += counts[c] / n * slope[j] / root
                rest[v_index, w_index] += counts[c] / n * slope[j] / root
            if problem.bias != "none":
                jacobian[j, 2 * k * d + j] = 1
        gauss += counts[c] / n * jacobian.T @ curvature @ jacobian
    decays = [problem.weight_decays[0]] * (k * d) + [problem.feature_decay] * (k * d)
    gauss += np.diag(decays + [problem.bias_decay] * (size - 2 * k * d))
    return gauss + rest, gauss


def _per_sample_value(problem, dim, x):
    """Return the objective with every sample's features free, from the definition."""
    k, n = problem.num_classes, problem.num_samples
    labels = np.repeat(np.arange(k), problem.counts)
    w, h = x[: k * dim].reshape(k, dim), x[k * dim : k * dim + n * dim].reshape(n, dim)
    bias = x[k * dim + n * dim :] if problem.bias != "none" else np.zeros(k)
    z = h @ w.T + bias
    if problem.loss == "mse":
        loss = 0.5 * ((z - np.eye(k)[labels]) ** 2).sum()
    else:
        loss = (np.log(np.exp(z).sum(axis=1)) - z[np.arange(n), labels]).sum()
    decays = (problem.weight_decays[0], problem.feature_decay, problem.bias_decay)
    return loss / n + sum(
        c / 2 * (part**2).sum() for c, part in zip(decays, (w, h, bias), strict=True)
    )


def _written_out(operator):
    return operator @ np.eye(operator.shape[0])


# -- gradient and operators ------------------------------------------------------------------------


@settings(max_examples=25)
@given(problems(), st.integers(1, 6), st.integers(0, 10**6))
def test_value_and_gradient_agree_with_the_definition(problem, dim, seed):
    point = _random_point(problem, dim, seed)
    value, by_weights, by_means, by_bias = ufm.value_and_gradients(
        problem, [point.weights], point.class_means, point.bias
    )
    parts = [by_weights[0], by_means / np.sqrt(problem.counts)]
    parts += [] if by_bias is None else [by_bias]
    expected = np.concatenate([part.ravel() for part in parts])
    assert objective(problem, *point) == pytest.approx(value, rel=1e-12)
    assert gradient(problem, *point) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@settings(max_examples=25)
@given(problems(), st.integers(1, 6), st.integers(0, 10**6))
def test_finite_differences(problem, dim, seed):
    point = _random_point(problem, dim, seed)
    x = point.to_vector(problem)
    d = np.random.default_rng(seed + 1).normal(size=len(x))
    d /= np.linalg.norm(d)

    def at(t):
        return Point.from_vector(problem, x + t * d)

    t = 1e-5
    slope = (objective(problem, *at(t)) - objective(problem, *at(-t))) / (2 * t)
    assert d @ gradient(problem, *point) == pytest.approx(slope, rel=1e-6, abs=1e-8)
    change = (gradient(problem, *at(t)) - gradient(problem, *at(-t))) / (2 * t)
    product = hessian(problem, *point) @ d
    assert np.linalg.norm(product - change) <= 1e-6 * (1 + np.linalg.norm(change))


@settings(max_examples=20)
@given(problems(), st.integers(1, 5), st.integers(0, 10**6))
def test_operators_equal_their_dense_twins(problem, dim, seed):
    point = _random_point(problem, dim, seed)
    rng = np.random.default_rng(seed)
    for operator, matrix in zip(
        (hessian(problem, *point), gauss_newton(problem, *point)),
        _naive_matrices(problem, point),
        strict=True,
    ):
        assert isinstance(operator, LinearOperator)
        assert operator.dtype == np.float64
        assert np.allclose(_written_out(operator), matrix, rtol=1e-10, atol=1e-12)
        # Symmetric, also by name: <A x, y> = <x, A y> = <A^T x, y>.
        x, y = rng.normal(size=(2, operator.shape[0]))
        assert (operator @ x) @ y == pytest.approx(x @ (operator @ y), rel=1e-10, abs=1e-10)
        assert np.allclose(operator.H @ x, operator @ x)
        assert operator.matvec(x[:, None]).shape == (len(x), 1)


@settings(max_examples=20)
@given(problems(), st.integers(1, 5), st.integers(0, 10**6))
def test_gauss_newton_is_positive_and_differs_by_the_residual_only(problem, dim, seed):
    point = _random_point(problem, dim, seed)
    gauss, full = (_written_out(f(problem, *point)) for f in (gauss_newton, hessian))
    decays = [problem.weight_decays[0], problem.feature_decay, problem.bias_decay]
    least = min(decays[: 2 if problem.bias == "none" else 3])
    assert np.linalg.eigvalsh(gauss)[0] >= least - 1e-12
    size = problem.num_classes * dim
    rest = full - gauss
    assert np.allclose(rest[:size, :size], 0, atol=1e-13)
    assert np.allclose(rest[size:, size:], 0, atol=1e-13)
    assert np.allclose(rest[2 * size :], 0, atol=1e-13)


@pytest.mark.parametrize("bias", ["none", "free"])
def test_gauss_newton_is_the_hessian_where_the_labels_are_interpolated(bias):
    problem = tf.Problem([7, 4, 2], "mse", weight_decay=0.1, feature_decay=0.02, bias=bias)
    w = np.random.default_rng(0).normal(size=(3, 3))
    b = None if bias == "none" else np.array([0.3, -0.2, 0.1])
    targets = np.eye(3) if b is None else np.eye(3) - b[:, None]
    point = Point(w, np.linalg.solve(w, targets), b)
    full, gauss = (_written_out(f(problem, *point)) for f in (hessian, gauss_newton))
    assert np.allclose(full, gauss, atol=1e-14)
    moved = Point(w, 2 * point.class_means, b)
    full, gauss = (_written_out(f(problem, *moved)) for f in (hessian, gauss_newton))
    assert np.abs(full - gauss).max() > 0.1


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
@pytest.mark.parametrize("bias", ["none", "free"])
def test_spectrum_is_that_of_the_problem_over_all_samples(loss, bias):
    """The full Hessian's eigenvalues: the operator's, and W^T C_k W / N + feature_decay's."""
    problem = tf.Problem([3, 2, 1], loss, weight_decay=0.1, feature_decay=0.03, bias=bias)
    k, dim, n = 3, 2, 6
    point = _random_point(problem, dim, 3)
    labels = np.repeat(np.arange(k), problem.counts)
    tail = np.zeros(0) if point.bias is None else point.bias
    x = np.concatenate([point.weights.ravel(), point.class_means.T[labels].ravel(), tail])
    assert _per_sample_value(problem, dim, x) == pytest.approx(objective(problem, *point))
    t, eye = 1e-4, np.eye(len(x))
    f = {
        (i, j, s, u): _per_sample_value(problem, dim, x + t * (s * eye[i] + u * eye[j]))
        for i in range(len(x))
        for j in range(i + 1)
        for s in (1, -1)
        for u in (1, -1)
    }
    full = np.zeros((len(x), len(x)))
    for i in range(len(x)):
        for j in range(i + 1):
            second = f[i, j, 1, 1] - f[i, j, 1, -1] - f[i, j, -1, 1] + f[i, j, -1, -1]
            full[i, j] = full[j, i] = second / (4 * t * t)
    expected = [np.linalg.eigvalsh(_written_out(hessian(problem, *point)))]
    z = point.weights @ point.class_means + (0 if point.bias is None else point.bias[:, None])
    for c in range(k):
        p = np.exp(z[:, c]) / np.exp(z[:, c]).sum()
        curvature = np.eye(k) if loss == "mse" else np.diag(p) - np.outer(p, p)
        block = point.weights.T @ curvature @ point.weights / n + 0.03 * np.eye(dim)
        expected += [np.linalg.eigvalsh(block)] * (problem.counts[c] - 1)
    assert np.allclose(np.linalg.eigvalsh(full), np.sort(np.concatenate(expected)), atol=1e-6)


@given(problems(), st.integers(1, 4), st.integers(0, 10**6))
@settings(max_examples=15)
def test_vectors_and_points_are_inverse(problem, dim, seed):
    point = _random_point(problem, dim, seed)
    back = Point.from_vector(problem, point.to_vector(problem))
    for one, two in zip(point, back, strict=True):
        assert (one is None and two is None) or np.allclose(one, two, rtol=1e-14)
    lengths = (point.weights**2).sum() + (problem.counts * point.class_means**2).sum()
    lengths += 0 if point.bias is None else (point.bias**2).sum()
    assert (point.to_vector(problem) ** 2).sum() == pytest.approx(lengths)


# -- eigenvalues -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["random", "minimum", "saddle", "gauss_newton"])
def test_lanczos_agrees_with_dense(monkeypatch, kind):
    problem = tf.Problem("20x2,9,4x2", weight_decay=1e-2, feature_decay=3e-3, bias="free")
    if kind == "minimum":
        solution = tf.solve(problem, tol=1e-12)
        point = Point(solution.weights[0], solution.class_means, solution.bias)
    elif kind == "saddle":
        point = saddle(problem, 2)
    else:
        point = _random_point(problem, 5, 1)
    operator = (gauss_newton if kind == "gauss_newton" else hessian)(problem, *point)
    values = np.linalg.eigvalsh(_written_out(operator))
    dense = smallest_eigenpair(operator)
    monkeypatch.setattr(curvature, "DENSE_SIZE", 0)
    lanczos = smallest_eigenpair(operator, seed=4)
    again = smallest_eigenpair(operator, seed=4)
    for pair in (dense, lanczos):
        assert abs(pair.value - values[0]) <= 1e-9 * values[-1]
        assert np.linalg.norm(pair.vector) == pytest.approx(1)
        assert np.linalg.norm(operator @ pair.vector - pair.value * pair.vector) <= pair.error
        assert pair.error <= 1e-8 * values[-1]
    assert np.array_equal(lanczos.vector, again.vector)


def test_lanczos_of_nothing():
    zero = LinearOperator((700, 700), matvec=np.zeros_like, dtype=np.float64)
    pair = smallest_eigenpair(zero)
    assert (pair.value, pair.error) == (0, 0)


# -- critical points -------------------------------------------------------------------------------


@settings(max_examples=25)
@given(problems())
def test_certified_solutions_are_global_minima(problem):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", tf.NotConvergedWarning)  # 1e-14 asks for too much
        solution = tf.solve(problem, tol=1e-14)
    point = Point(solution.weights[0], solution.class_means, solution.bias)
    found = critical_point(problem, *point)
    assert found.verdict == "global minimum"
    assert found.objective == pytest.approx(solution.objective, rel=1e-12)
    assert found.rank == solution.rank
    assert found.residual_norm <= problem.logit_decay * (1 + 1e-6)
    assert 0 <= found.gap <= 1e-8 * found.objective
    assert found.direction is None
    assert smallest_eigenpair(hessian(problem, *point)).value >= -1e-9


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
@pytest.mark.parametrize("bias", ["none", "free", "decayed"])
def test_the_origin_switches_at_total_collapse(loss, bias):
    options = {"loss": loss} | (DECAYED if bias == "decayed" else {"bias": bias})
    verdicts = []
    for fraction in (0.9, 0.9999, 1.0001, 1.1):
        problem = _at_fraction(fraction, **options)
        found = critical_point(problem, *saddle(problem, 0))
        assert found.rank == 0
        verdicts.append(found.verdict)
        smallest = smallest_eigenpair(hessian(problem, *saddle(problem, 0))).value
        if bias == "free" and loss == "cross_entropy":
            assert smallest <= 1e-15  # a constant added to the bias costs nothing
        assert (smallest < -1e-12) == (fraction < 1)
    assert verdicts == ["strict saddle"] * 2 + ["global minimum"] * 2


@settings(max_examples=25)
@given(problems(), st.integers(0, 3), st.integers(0, 2), st.integers(0, 100))
def test_explicit_direction_has_its_curvature(problem, rank, spare, seed):
    """At saddles, with d = K and d > K; -2 (sigma_max - lambda), and v^T H v from the operator."""
    dim = problem.num_classes + spare
    point = saddle(problem, min(rank, dim), dim, seed=seed)
    found = critical_point(problem, *point)
    assert found.verdict in ("global minimum", "strict saddle")
    direction = descent_direction(problem, *point)
    if found.verdict == "global minimum":
        assert found.residual_norm <= found.logit_decay * (1 + 1e-6)
        return
    assert direction.kind == "explicit"
    sigma = found.residual_norm
    assert direction.predicted == pytest.approx(-2 * (sigma - problem.logit_decay), abs=1e-12)
    assert direction.curvature == pytest.approx(direction.predicted, abs=1e-9, rel=1e-9)
    assert direction.curvature < 0
    v = direction.step.to_vector(problem)
    operator = hessian(problem, *point)
    assert v @ (operator @ v) == pytest.approx(direction.predicted, abs=1e-9)
    tilt = (problem.feature_decay / problem.weight_decays[0]) ** 0.25
    assert v @ v == pytest.approx(tilt**2 + tilt**-2)
    # The Hessian's smallest eigenvalue is at most this Rayleigh quotient.
    assert smallest_eigenpair(operator).value <= direction.predicted / (v @ v) + 1e-12


def test_the_curvature_is_seen_by_finite_differences():
    problem = tf.Problem("60,20,9,4", weight_decay=1e-2, feature_decay=2e-3)
    point = saddle(problem, 1, 5)
    direction = descent_direction(problem, *point)
    x, v = point.to_vector(problem), direction.step.to_vector(problem)
    values = [
        ufm.objective(problem, [p.weights], p.class_means, None)
        for p in (Point.from_vector(problem, x + t * v) for t in (-1e-3, 0, 1e-3))
    ]
    second = (values[0] - 2 * values[1] + values[2]) / 1e-6
    assert second == pytest.approx(direction.predicted, rel=1e-4)


def test_without_a_null_direction_the_eigenvector_is_used():
    """MSE at width 1 is principal component analysis: every class's axis is critical."""
    problem = tf.Problem([40, 20, 10], "mse", weight_decay=1e-3, feature_decay=1e-3)
    points = []
    for k in range(3):
        weight = np.zeros((3, 1))
        size = np.sqrt(problem.counts[k]) - 70 * 1e-3  # theory.md section 5
        weight[k] = np.sqrt(size)
        points.append(Point(weight, weight.T / np.sqrt(problem.counts)))
    found = [critical_point(problem, *point) for point in points]
    assert [f.rank for f in found] == [1, 1, 1]
    # The largest class's axis is the best of width 1, but above the wide problem's minimum.
    assert [f.verdict for f in found] == ["local minimum", "strict saddle", "strict saddle"]
    for point, f in zip(points[1:], found[1:], strict=True):
        assert f.direction.kind == "eigenvector"
        assert f.direction.predicted is None
        smallest = np.linalg.eigvalsh(_written_out(hessian(problem, *point)))[0]
        assert f.direction.curvature == pytest.approx(smallest, rel=1e-9)
        with pytest.warns(tf.NotConvergedWarning, match="local minimum"):
            result = descend(problem, point)
        assert result.stages[-1].objective == pytest.approx(found[0].objective, rel=1e-12)
        assert not result.converged
        assert result.certificate is None
    # One spare direction, and the explicit formula serves.
    weights, means = points[1][:2]
    wide = Point(np.pad(weights, ((0, 0), (0, 1))), np.pad(means, ((0, 1), (0, 0))))
    assert critical_point(problem, *wide).direction.kind == "explicit"


def _narrow_problem(rng):
    """Return a narrow problem with counts, decays and bias at random."""
    k = int(rng.integers(3, 7))
    counts = rng.integers(2, 300, k).tolist()
    options = [{"bias": "none"}, {"bias": "free"}, DECAYED][int(rng.integers(3))]
    unit = tf.Problem(counts, weight_decay=1, feature_decay=1, **options)
    decay = closed.ends(unit).total_collapse * 10 ** rng.uniform(-3, -0.1)
    tilt = 10 ** rng.uniform(-2, 2)
    dim = int(rng.integers(1, k - 1))
    return unit.replace(weight_decay=decay * tilt, feature_decay=decay / tilt, dim=dim)


@pytest.mark.parametrize("seed", range(15))
def test_what_the_search_returns_is_a_minimum_or_descend_falls_from_it(seed):
    problem = _narrow_problem(np.random.default_rng(seed))
    solution = tf.solve(problem)
    bias = None if problem.bias == "none" else solution.bias
    point = Point(solution.weights[0], solution.class_means, bias)
    found = critical_point(problem, *point)
    if found.verdict in ("strict saddle", "not critical"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", tf.NotConvergedWarning)
            lowest = descend(problem, point).stages[-1].objective
        assert lowest < found.objective
        return
    assert found.verdict in ("global minimum", "local minimum")
    assert found.direction is None
    assert descent_direction(problem, *point) is None
    # Independently: from points around it, plain minimisation comes back.
    x, rng = point.to_vector(problem), np.random.default_rng(seed)
    for _ in range(3):
        start = x * (1 + 0.01 * rng.normal(size=len(x)))
        back = minimize(
            lambda y: objective(problem, *Point.from_vector(problem, y)),
            start,
            jac=lambda y: gradient(problem, *Point.from_vector(problem, y)),
        )
        assert back.fun >= found.objective * (1 - 1e-10)


def _deep_problem(rng, depth):
    """Return a problem of several layers with counts, decays, bias and widths at random."""
    k = int(rng.integers(3, 7))
    options = [{"bias": "none"}, {"bias": "free"}, DECAYED][int(rng.integers(3))]
    dim = [None, int(rng.integers(2, k + 1)), tuple(rng.integers(2, k + 1, depth).tolist())]
    return tf.Problem(
        rng.integers(2, 300, k).tolist(),
        weight_decay=[float(10 ** rng.uniform(-4, -3)) for _ in range(depth)],
        feature_decay=float(10 ** rng.uniform(-4, -3)),
        depth=depth,
        dim=dim[int(rng.integers(3))],
        **options,
    )


def _deep_point(problem, seed, size=1.0):
    """Return a random point of a deep problem; where it has no width, of width three."""
    rng = np.random.default_rng(seed)
    k, widths = problem.num_classes, problem.dims or (3,) * problem.depth
    layers = [size * rng.normal(size=pair[::-1]) for pair in pairwise((*widths, k))]
    bias = None if problem.bias == "none" else rng.normal(size=k)
    return Point(layers, size * rng.normal(size=(widths[0], k)), bias)


@pytest.mark.parametrize("depth", [2, 3, 4])
@pytest.mark.parametrize("seed", range(3))
def test_derivatives_of_several_layers(depth, seed):
    problem = _deep_problem(np.random.default_rng(seed), depth)
    point = _deep_point(problem, seed)
    value, by_layers, by_means, by_bias = ufm.value_and_gradients(problem, *point)
    parts = [*by_layers[::-1], by_means / np.sqrt(problem.counts)]
    parts += [] if by_bias is None else [by_bias]
    expected = np.concatenate([part.ravel() for part in parts])
    assert objective(problem, *point) == pytest.approx(value, rel=1e-12)
    assert gradient(problem, *point) == pytest.approx(expected, rel=1e-9, abs=1e-12)
    x = point.to_vector(problem)
    np.testing.assert_allclose(Point.from_vector(problem, x).to_vector(problem), x, rtol=1e-15)
    steps = 1e-6 * np.eye(len(x))
    slopes = [
        [gradient(problem, *Point.from_vector(problem, x + side * step)) for step in steps]
        for side in (1, -1)
    ]
    numeric = (np.array(slopes[0]) - slopes[1]) / 2e-6
    np.testing.assert_allclose(_written_out(hessian(problem, *point)), numeric, atol=1e-7)


@pytest.mark.parametrize("depth", [2, 3])
@pytest.mark.parametrize("seed", range(8))
def test_what_a_deep_search_returns_is_a_minimum_or_descend_falls_from_it(depth, seed):
    problem = _deep_problem(np.random.default_rng(seed), depth)
    solution = tf.solve(problem)
    assert solution.status == "local"
    bias = None if problem.bias == "none" else solution.bias
    point = Point(solution.weights, solution.class_means, bias)
    found = critical_point(problem, *point)
    assert found.objective == pytest.approx(solution.objective, rel=1e-12)
    if found.verdict in ("strict saddle", "not critical"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", tf.NotConvergedWarning)
            lowest = descend(problem, point).stages[-1].objective
        assert lowest < found.objective
        return
    assert found.verdict == "local minimum"
    assert descent_direction(problem, *point) is None
    # Independently: the written-out Hessian is positive but for what rotations leave as it is.
    values = np.linalg.eigvalsh(_written_out(hessian(problem, *point)))
    rank = solution.rank
    widths = problem.dims or tuple(len(layer.T) for layer in solution.weights)
    turns = sum(rank * (rank - 1) // 2 + rank * (width - rank) for width in widths)
    turns += problem.bias == "free"
    assert (abs(values) < 1e-6 * values[-1]).sum() <= turns + (values < 0).sum()
    assert values[0] > -1e-7 * values[-1]


def test_deep_saddles_are_told_and_left():
    """Classes that are kept together hide a direction in which they part."""
    problem = tf.Problem("60x2,10x2", weight_decay=1e-3, feature_decay=1e-3, depth=2)
    point = saddle(problem, [0])
    tied = critical_point(problem, *point)
    assert np.allclose(point.class_means[:, 2], point.class_means[:, 3])
    assert (tied.verdict, tied.direction.kind) == ("strict saddle", "eigenvector")
    end = descend(problem, point)
    assert end.converged
    assert [stage.verdict for stage in end.stages] == ["strict saddle", "local minimum"]
    assert end.stages[-1].objective < tied.objective


@pytest.mark.parametrize("depth", [2, 3])
def test_the_origin_of_several_layers_is_a_local_minimum(depth):
    problem = tf.Problem("60x2,10x2", weight_decay=1e-3, feature_decay=1e-3, depth=depth)
    found = critical_point(problem, *saddle(problem, 0))
    assert (found.verdict, found.rank) == ("local minimum", 0)
    assert found.curvature == pytest.approx(1e-3)
    assert tf.solve(problem).objective < found.objective


def test_a_deep_minimum_that_is_certified_is_global():
    problem = tf.Problem("60,10,5", "mse", weight_decay=1e-3, feature_decay=1e-3, depth=2)
    solution = tf.solve(problem)
    assert solution.status == "optimal"
    found = critical_point(problem, solution.weights, solution.class_means)
    assert found.verdict == "global minimum"
    assert found.certificate.gap <= 1e-6 * found.objective
    zero = critical_point(problem, *saddle(problem, 0))
    assert zero.verdict == "local minimum"


@pytest.mark.parametrize("bias", ["none", "free", "decayed"])
@pytest.mark.parametrize("keep", [[], [0], [1]])
def test_narrow_saddles_without_a_null_direction_are_left(keep, bias):
    """Classes that share everything though their counts would have them apart."""
    options = DECAYED if bias == "decayed" else {"bias": bias}
    decays = {"weight_decay": 1e-2, "feature_decay": 1e-3}
    dim = 2 if keep else 1
    problem = tf.Problem("30x2,8x3", dim=dim, **decays, **options)
    point = saddle(problem, keep)
    found = critical_point(problem, *point)
    assert found.rank == dim
    assert (found.verdict, found.direction.kind) == ("strict saddle", "eigenvector")
    assert found.curvature < -found.curvature_error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", tf.NotConvergedWarning)
        stages = descend(problem, point).stages
    assert stages[-1].objective < 0.999 * found.objective
    assert stages[-1].verdict in ("global minimum", "local minimum")


@pytest.mark.parametrize("bias", ["none", "free", "decayed"])
@pytest.mark.parametrize("seed", range(3))
def test_curvature_is_judged_across_the_symmetries(bias, seed):
    """The Hessian's nearly zero eigenvalues are the symmetries, the next one is reported."""
    options = DECAYED if bias == "decayed" else {"bias": bias}
    decays = {"weight_decay": 2e-3, "feature_decay": 2e-3}
    problem = tf.Problem([200, 90, 33, 12, 5], dim=3, **decays, **options)
    solution = tf.solve(problem, seed=seed)
    point = (solution.weights[0], solution.class_means, None if bias == "none" else solution.bias)
    found = critical_point(problem, *point)
    values = np.linalg.eigvalsh(_written_out(hessian(problem, *point)))
    flat = 3 + (bias == "free")  # rotations of three directions; a constant in the bias
    assert np.abs(values[:flat]).max() < 1e-9
    assert found.verdict == "local minimum"
    assert found.curvature == pytest.approx(values[flat], rel=1e-6)
    assert 0 < found.curvature_error < 1e-8


def test_a_flat_direction_beyond_the_symmetries_is_undecided():
    """MSE at width 1 with two largest classes: all mixtures of their axes cost the same."""
    problem = tf.Problem([40, 40, 10], "mse", weight_decay=1e-3, feature_decay=1e-3, dim=1)
    solution = tf.solve(problem)
    found = critical_point(problem, solution.weights[0], solution.class_means)
    assert found.verdict == "undecided"
    assert abs(found.curvature) <= found.curvature_error
    assert found.direction is None


def test_a_random_point_is_not_critical():
    problem = tf.Problem("30x2,5x2", weight_decay=1e-2, feature_decay=1e-3)
    point = _random_point(problem, 4, 0)
    found = critical_point(problem, *point)
    assert found.verdict == "not critical"
    assert found.gradient_norm == pytest.approx(np.linalg.norm(gradient(problem, *point)))
    assert found.stationarity > 1
    assert found.gap is None


def test_no_direction_where_the_residual_is_small():
    """||G|| <= lambda makes the Hessian positive semi-definite, at points that are not critical."""
    problem = tf.Problem("30x2,5x2", weight_decay=0.5, feature_decay=0.5)
    point = _random_point(problem, 4, 0)
    assert critical_point(problem, *point).residual_norm <= 0.5
    assert descent_direction(problem, *point) is None
    assert smallest_eigenpair(hessian(problem, *point)).value >= -1e-12


# -- saddles and descent ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keep", "rank", "verdict"),
    [
        (0, 0, "strict saddle"),
        (2, 2, "strict saddle"),
        (5, 4, "global minimum"),
        ([], 1, "strict saddle"),
        ([0], 2, "strict saddle"),
        ([1], 3, "strict saddle"),
        ([0, 1], 4, "global minimum"),
    ],
)
def test_saddles(keep, rank, verdict):
    problem = tf.Problem("30x2,8x3", weight_decay=1e-2, feature_decay=1e-3)
    point = saddle(problem, keep, 6)
    # Critical by the independent gradient.
    _, by_weights, by_means, _ = ufm.value_and_gradients(
        problem, [point.weights], point.class_means, None
    )
    assert np.abs(by_weights[0]).max() < 1e-9
    assert np.abs(by_means).max() < 1e-9
    found = critical_point(problem, *point)
    assert (found.rank, found.verdict) == (rank, verdict)
    if isinstance(keep, list):
        for group, classes in ((0, slice(0, 2)), (1, slice(2, 5))):
            rows = point.weights[classes]
            assert np.allclose(rows, rows[0], atol=1e-12) == (group not in keep)
    if keep == [0]:
        # The merged group's members pull apart with strength sqrt(n) / N (theory.md section 6).
        assert found.residual_norm == pytest.approx(np.sqrt(8) / 84, rel=1e-9)


def test_saddles_repeat():
    problem = tf.Problem("30x2,8x3", weight_decay=1e-2, feature_decay=1e-3)
    assert np.array_equal(saddle(problem, 2).weights, saddle(problem, 2).weights)
    assert not np.array_equal(saddle(problem, 2).weights, saddle(problem, 2, seed=1).weights)


@pytest.mark.parametrize("spare", [0, 2])
@pytest.mark.parametrize("bias", ["none", "free", "decayed"])
@pytest.mark.parametrize(
    ("loss", "counts", "keep"),
    [
        ("cross_entropy", "30x2,5x2", 0),
        ("cross_entropy", "60,20,9,4", 1),
        ("cross_entropy", "50x2,8x3", [0]),
        ("mse", "60,20,9,4", 1),
        ("mse", "8x4", 0),
    ],
)
def test_descends_to_the_certified_minimum(loss, counts, keep, bias, spare):
    options = DECAYED if bias == "decayed" else {"bias": bias}
    problem = tf.Problem(counts, loss, weight_decay=1e-2, feature_decay=2e-3, **options)
    start = saddle(problem, keep, problem.num_classes + spare)
    result = descend(problem, start)
    best = tf.solve(problem, tol=1e-10)
    assert result.stages[0].verdict == "strict saddle"
    assert result.converged
    assert result.stages[-1].objective == pytest.approx(best.objective, rel=1e-8)
    assert result.certificate.gap <= 1e-8 * best.objective
    values = [stage.objective for stage in result.stages]
    assert all(two < one for one, two in pairwise(values))
    ranks = [stage.rank for stage in result.stages]
    assert ranks == sorted(ranks)
    assert ranks[-1] == best.rank
    found = ufm.objective(
        problem, [result.point.weights], result.point.class_means, result.point.bias
    )
    assert found == pytest.approx(result.stages[-1].objective, rel=1e-12)


@settings(max_examples=10)
@given(problems(low=-2), st.integers(0, 3), st.sampled_from([0, 2]), st.integers(0, 100))
def test_descends_from_random_saddles(problem, rank, spare, seed):
    dim = problem.num_classes + spare
    result = descend(problem, saddle(problem, min(rank, dim), dim, seed=seed))
    best = tf.solve(problem, tol=1e-10)
    assert result.converged
    assert result.stages[-1].objective == pytest.approx(best.objective, rel=1e-8)


def test_descends_from_anywhere():
    problem = tf.Problem("30x2,5x2", weight_decay=1e-2, feature_decay=1e-3, bias="free")
    result = descend(problem, _random_point(problem, 4, 0))
    assert [stage.verdict for stage in result.stages] == ["not critical", "global minimum"]
    at_rest = descend(problem, result.point)
    assert len(at_rest.stages) == 1
    assert at_rest.converged


def test_large_operators_take_the_iterative_way():
    problem = tf.Problem("30x2,5x2", weight_decay=1e-2, feature_decay=1e-3, bias="free")
    expected = descend(problem, saddle(problem, 1, 6))
    landscape = Landscape(problem, 6, DescentOptions(dense_size=1))
    result = landscape.descend(landscape.saddle(1))
    assert result.converged
    assert result.stages[-1].objective == pytest.approx(expected.stages[-1].objective, rel=1e-10)


def test_too_few_stages_is_said():
    problem = tf.Problem("60,20,9,4", weight_decay=1e-2, feature_decay=2e-3)
    with pytest.warns(tf.NotConvergedWarning, match="'strict saddle' after 1 stages"):
        result = descend(problem, saddle(problem, 0), max_stages=1)
    assert not result.converged
    assert result.certificate is None
    assert len(result.stages) == 2


def test_an_unfinished_saddle_is_said():
    problem = tf.Problem("60,20,9,4", weight_decay=1e-2, feature_decay=2e-3)
    with pytest.warns(tf.NotConvergedWarning, match="saddle stopped at a gradient"):
        Landscape(problem, options=DescentOptions(max_trust_steps=1, max_newton_steps=1)).saddle(2)


def test_a_bound_landscape_checks_shapes_in_and_out():
    problem = tf.Problem("9,4,3", bias="free", weight_decay=1e-2, feature_decay=2e-3)
    landscape = Landscape(problem, 2)
    point = _random_point(problem, 2, 0)
    assert (landscape.dim, landscape.size) == (2, 15)
    assert landscape.gradient(point).shape == (15,)
    assert np.array_equal(landscape.gradient(tuple(point)), gradient(problem, *point))
    for operator in (landscape.hessian(point), landscape.gauss_newton(point)):
        assert operator.shape == (15, 15)
        with pytest.raises(ValueError, match="dimension mismatch"):
            operator @ np.zeros(14)
    wide = _random_point(problem, 3, 0)
    for method in (landscape.objective, landscape.gradient, landscape.hessian, landscape.descend):
        with pytest.raises(ValueError, match=r"weights: got shape \(3, 3\), need .* \(3, 2\)"):
            method(wide)
    with pytest.raises(ValueError, match="dim: got 3, but the problem's is 2"):
        Landscape(problem.replace(dim=2), 3)
    with pytest.raises(ValueError, match="accuracy: got 0, need"):
        DescentOptions(accuracy=0)


# -- bad input -------------------------------------------------------------------------------------

GOOD = tf.Problem([5, 3, 2], weight_decay=0.1, feature_decay=0.1)


@pytest.mark.parametrize(
    "function", [objective, gradient, hessian, gauss_newton, critical_point, descent_direction]
)
@pytest.mark.parametrize(
    ("problem", "point", "message"),
    [
        ("x", (np.zeros((3, 2)), np.zeros((2, 3))), "problem: got str"),
        (GOOD.replace(depth=2), (np.zeros((3, 2)), np.zeros((2, 3))), "weights: need a list of 2"),
        (
            GOOD.replace(depth=2),
            ([np.zeros((3, 2)), np.zeros((3, 2))], np.zeros((2, 3))),
            r"weights: got shape \(3, 2\), need \(2, 2\)",
        ),
        (
            GOOD.replace(features="nonnegative"),
            (np.zeros((3, 2)), np.zeros((2, 3))),
            "problem: got features='nonnegative'",
        ),
        (GOOD.replace(dim=3), (np.zeros((3, 2)), np.zeros((2, 3))), "weights: got width 2, but"),
        (GOOD, (np.zeros((4, 2)), np.zeros((2, 3))), r"weights: got shape \(4, 2\), need"),
        (GOOD, (np.zeros(3), np.zeros((2, 3))), r"weights: got shape \(3,\), need a matrix"),
        (GOOD, (np.zeros((3, 0)), np.zeros((0, 3))), r"weights: got shape \(3, 0\)"),
        (GOOD, (np.zeros((3, 2)), np.zeros((3, 3))), r"class_means: got shape \(3, 3\), need"),
        (GOOD, (np.full((3, 2), np.nan), np.zeros((2, 3))), "weights: entries must be finite"),
        (GOOD, ("x", np.zeros((2, 3))), "weights: need an array of numbers"),
        (GOOD, (np.zeros((3, 2)), np.zeros((2, 3)), np.ones(3)), "bias: got a non-zero bias"),
        (GOOD, (np.zeros((3, 2)), np.zeros((2, 3)), np.zeros(2)), r"bias: got shape \(2,\)"),
    ],
)
def test_bad_points(function, problem, point, message):
    with pytest.raises(ValueError, match=message):
        function(problem, *point)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: saddle(GOOD, -1), "keep: got -1, need 0 to 3"),
        (lambda: saddle(GOOD, 4), "keep: got 4, need 0 to 3"),
        (lambda: saddle(GOOD, True), "keep: got True"),
        (lambda: saddle(GOOD, 1.5), "keep: got 1.5"),
        (lambda: saddle(GOOD, "a"), "keep: got group 'a'"),
        (lambda: saddle(GOOD, [3]), "keep: got group 3; the 3 groups"),
        (lambda: saddle(GOOD, 1, 0), "dim: got 0, need a positive"),
        (lambda: saddle(GOOD, 1, 2.0), "dim: got 2.0, need a positive"),
        (lambda: saddle(GOOD.replace(dim=4), 1, 5), "dim: got 5, but the problem's is 4"),
        (lambda: Landscape(GOOD.replace(depth=2, dim=200)), "dim: got 200; the symmetries of 2"),
        (lambda: descend(GOOD, (1, 2)), "start: got tuple, need a landscape.Point"),
        (lambda: descend(GOOD, saddle(GOOD, 0), tol=0), "tol: got 0"),
        (lambda: descend(GOOD, saddle(GOOD, 0), max_stages=0), "max_stages: got 0"),
        (lambda: critical_point(GOOD, *saddle(GOOD, 0), tol=-1), "tol: got -1"),
        (lambda: Point.from_vector(GOOD, np.zeros(7)), r"vector: got shape \(7,\)"),
        (lambda: Point.from_vector(GOOD, np.zeros((6, 2))), r"vector: got shape \(6, 2\)"),
        (
            lambda: smallest_eigenpair(LinearOperator((2, 3), lambda x: x, dtype=float)),
            r"operator: got shape \(2, 3\)",
        ),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()
