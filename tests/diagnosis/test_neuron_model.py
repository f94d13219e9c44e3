"""The network scaled neuron by neuron: against real networks, finite differences, closed forms."""

import itertools

import numpy as np
import pytest
from scipy.special import log_softmax

from tightframe.diagnosis.neuron_model import NeuronModel, Scales
from tightframe.heads import fit_head
from tightframe.heads.ridge import RidgeProblem

DECAY = 0.02
FACTORS = ("neurons", "head", "below")


def relu(x):
    return np.maximum(x, 0.0)


def cross_entropy(logits, labels):
    return -log_softmax(logits, axis=1)[np.arange(len(labels)), labels].mean()


def loss_on(features, labels, num_classes, weights=None, adjustment=None, bias=True):
    ones, zeros = np.ones(num_classes), np.zeros(num_classes)
    weights = ones if weights is None else weights
    adjustment = zeros if adjustment is None else adjustment
    return RidgeProblem(features, labels, weights, adjustment, 0.0, bias)


def some_model(rng, layers, directions=False, bias=True):
    labels = np.repeat(range(4), [9, 7, 5, 2])
    features = relu(rng.normal(size=(23, 6)))
    terms = {"weights": np.array([0.5, 1.0, 2.0, 3.0]), "adjustment": rng.normal(size=4)}
    loss = loss_on(features, labels, 4, **terms, bias=bias)
    return NeuronModel(loss, rng.normal(size=(4, 6)), DECAY, layers, directions)


def some_scales(rng, model):
    below = model.start(None).below
    moved = below + 0.2 * rng.normal(size=below.shape)
    return Scales(
        rng.uniform(0.5, 1.5, 6),
        rng.normal(size=(4, 6)),
        rng.normal(size=4) if model.loss.bias else np.zeros(4),
        (moved + moved.T) / 2,
    )


def balanced_network(rng, widths, inputs, bias=True):
    """Layers, first to last, with every neuron's incoming and outgoing weights of one length."""
    sizes = [inputs.shape[1], *widths]
    layers = [
        (rng.normal(size=(b, a)), 0.5 * rng.normal(size=b) * bias)
        for a, b in itertools.pairwise(sizes)
    ]
    for _ in range(500):
        for number in range(len(layers) - 1):
            (v, c), (w, d) = layers[number : number + 2]
            incoming = np.sqrt((v**2).sum(axis=1) + c**2)
            factor = np.sqrt(np.linalg.norm(w, axis=0) / incoming)
            layers[number] = (v * factor[:, None], c * factor)
            layers[number + 1] = (w / factor, d)
    return layers


def forward(layers, inputs):
    """Return the features and the logits."""
    features = inputs
    for weight, bias in layers[:-1]:
        features = relu(features @ weight.T + bias)
    weight, bias = layers[-1]
    return features, features @ weight.T + bias


def objective(layers, inputs, labels):
    squares = sum((w**2).sum() + (b**2).sum() for w, b in layers)
    return cross_entropy(forward(layers, inputs)[1], labels) + DECAY / 2 * squares


def shrunk(layers, scales):
    """Return a network's layers as `Scales` with one number below say, biases so that it is one."""
    factor = 1.0 if not len(scales.below) else float(scales.below[0, 0])
    lower = [
        (factor * w, factor ** (i + 1) * b) for i, (w, b) in enumerate(layers[: len(layers) - 2])
    ]
    v, c = layers[-2]
    passed = factor ** len(lower)
    last = (v * scales.neurons[:, None], passed * c * scales.neurons)
    return [*lower, last, (scales.head, scales.bias)]


@pytest.mark.parametrize(
    ("layers", "directions"), [(2, False), (3, False), (3, True), (4, False), (5, False)]
)
@pytest.mark.parametrize("bias", [True, False])
def test_gradients_are_those_of_finite_differences(layers, directions, bias):
    rng = np.random.default_rng(layers)
    model = some_model(rng, layers, directions, bias)
    scales = some_scales(rng, model)
    _, gradient = model.evaluate(scales)
    step = some_scales(rng, model)

    def value(t):
        parts = vars(scales)
        return model.evaluate(
            Scales(**{name: parts[name] + t * vars(step)[name] for name in parts})
        )[0]

    numeric = (value(1e-5) - value(-1e-5)) / 2e-5
    exact = sum(np.vdot(vars(gradient)[name], vars(step)[name]) for name in vars(scales))
    assert numeric == pytest.approx(exact, rel=1e-6, abs=1e-8)


@pytest.mark.parametrize(("widths", "bias"), [((8, 3), True), ((7, 8, 3), False)])
def test_every_point_is_a_real_network(widths, bias):
    # One hidden layer with biases, or several without: the model's value is the objective itself.
    rng = np.random.default_rng(1)
    inputs, labels = rng.normal(size=(40, 5)), rng.integers(0, 3, 40)
    layers = balanced_network(rng, widths, inputs, bias)
    # Balance gives the layers of a bias-free network one norm, the price of those below.
    features, _ = forward(layers, inputs)
    model = NeuronModel(loss_on(features, labels, 3), layers[-1][0], DECAY, len(layers))
    for factor in (0.6, 1.0, 1.7):
        scales = Scales(
            rng.uniform(0.2, 2.0, 8),
            rng.normal(size=(3, 8)),
            rng.normal(size=3),
            np.full_like(model.start(None).below, factor),
        )
        real = objective(shrunk(layers, scales), inputs, labels)
        assert model.evaluate(scales)[0] == pytest.approx(real, rel=1e-9)


@pytest.mark.parametrize("widths", [(7, 8, 3), (6, 7, 8, 3)])
def test_with_biases_below_the_value_bounds_that_of_a_smaller_real_network(widths):
    rng = np.random.default_rng(2)
    inputs, labels = rng.normal(size=(40, 5)), rng.integers(0, 3, 40)
    layers = balanced_network(rng, widths, inputs)
    features, _ = forward(layers, inputs)
    model = NeuronModel(loss_on(features, labels, 3), layers[-1][0], DECAY, len(layers))
    for factor in (0.3, 0.7, 1.0):
        scales = Scales(
            rng.uniform(0.2, 2.0, 8), rng.normal(size=(3, 8)), rng.normal(size=3),
            np.full((1, 1), factor),
        )  # fmt: skip
        assert objective(shrunk(layers, scales), inputs, labels) < model.evaluate(scales)[0]


@pytest.mark.parametrize("layers", [2, 3, 4, 5])
def test_formula_is_the_least_over_scales(layers):
    rng = np.random.default_rng(layers)
    model = some_model(rng, layers)
    weight, bias = rng.normal(size=(4, 6)), rng.normal(size=4)
    lengths, prices = np.linalg.norm(weight, axis=0), np.linalg.norm(model.weight, axis=0)
    least = model.least(weight, bias)

    def value(neurons, factor):
        below = np.full_like(model.start(None).below, factor)
        head = weight / (neurons * (factor ** (layers - 2) if layers > 2 else 1.0))
        return model.evaluate(Scales(neurons, head, bias, below))[0]

    # The derivative of the price by the factor and by each neuron vanishes here.
    share = (prices @ lengths) / (prices @ prices)
    factor = share ** (1 / layers)
    neurons = np.sqrt(lengths / prices / (factor ** (layers - 2)))
    assert value(neurons, factor) == pytest.approx(least, rel=1e-12)
    for _ in range(20):
        other = neurons * rng.uniform(0.8, 1.25, 6)
        assert value(other, factor * rng.uniform(0.9, 1.1)) >= least


def test_matrix_of_one_number_gives_the_formula():
    rng = np.random.default_rng(3)
    model = some_model(rng, 3, directions=True)
    alike = some_model(np.random.default_rng(3), 3)
    # No direction of this head is small enough to have the least price.
    assert np.linalg.cond(model.weight) < 50
    scales = some_scales(rng, alike)
    matrix = Scales(scales.neurons, scales.head, scales.bias, scales.below[0, 0] * np.eye(4))
    assert model.evaluate(matrix)[0] == pytest.approx(alike.evaluate(scales)[0], rel=1e-12)


def test_matrix_is_exact_for_a_deep_linear_network():
    # Three balanced linear layers with singular values s^(1/3) and the head's directions Q: the
    # least half sum of squares of three matrices of product Z is 3/2 sum sigma(Z)^(2/3).
    rng = np.random.default_rng(4)
    turn, _ = np.linalg.qr(rng.normal(size=(4, 4)))
    present, wanted = np.array([3.0, 2.0, 1.0, 0.7]), np.array([2.0, 2.5, 0.3, 0.05])
    labels = np.arange(4)
    loss = loss_on(np.eye(4), labels, 4, bias=False)
    model = NeuronModel(loss, turn * present, DECAY, 3, directions=True)
    weight = turn * wanted  # it multiplies features that two layers of `present` made
    grow = (wanted / present) ** (1 / 3)
    scales = Scales(grow, turn * (present * grow), np.zeros(4), (turn * grow) @ turn.T)
    np.testing.assert_allclose(scales.weight(3), weight)
    expected = (
        cross_entropy(weight.T, labels) + DECAY * 1.5 * ((wanted * present**2) ** (2 / 3)).sum()
    )
    value, gradient = model.evaluate(scales)
    assert value == pytest.approx(expected, rel=1e-12)
    # Between the three factors of the product nothing is to be gained.
    between = [np.vdot(vars(gradient)[name], vars(scales)[name]) for name in FACTORS]
    np.testing.assert_allclose(between, between[0], rtol=1e-9)


def trained_head(rng, bias=True):
    labels = np.repeat(range(3), [30, 20, 6])
    features = relu(2 * np.eye(3)[labels] @ rng.normal(size=(3, 7)) + rng.normal(size=(56, 7)))
    head = fit_head(features, labels, weight_decay=DECAY, bias=bias, tol=1e-12)
    return features, labels, head


@pytest.mark.parametrize(("layers", "directions"), [(2, False), (3, False), (3, True), (4, False)])
def test_network_is_stationary_exactly_where_its_head_is(layers, directions):
    features, labels, head = trained_head(np.random.default_rng(5))
    loss = loss_on(features, labels, 3)

    def gradient_at(weight):
        model = NeuronModel(loss, weight, DECAY, layers, directions)
        _, gradient = model.evaluate(model.start(head.bias))
        below = gradient.below
        if directions:  # the sum of all logits has no price of its own, and no effect
            kept = np.eye(3) - 1 / 3
            below = kept @ below @ kept
        parts = (gradient.neurons, gradient.head, gradient.bias, below)
        return max(np.abs(part).max(initial=0.0) for part in parts)

    assert gradient_at(head.weight) < 1e-6
    assert gradient_at(1.05 * head.weight) > 1e-4


def test_one_hidden_layer_keeps_a_stationary_network_at_its_own_decay():
    # The price of its neurons is convex in the head, so the present one is the best.
    features, labels, head = trained_head(np.random.default_rng(6))
    found = NeuronModel(loss_on(features, labels, 3), head.weight, DECAY, 2).fit(head.bias)
    assert found.converged
    np.testing.assert_allclose(found.scales.weight(2), head.weight, atol=1e-2)


def test_fit_is_lower_than_the_start_and_repeats_itself():
    rng = np.random.default_rng(7)
    model = some_model(rng, 3, directions=True)
    first, second = model.fit(np.zeros(4)), model.fit(np.zeros(4))
    assert first.objective < model.evaluate(model.start(np.zeros(4)))[0]
    assert first.objective == second.objective
    np.testing.assert_array_equal(first.scales.weight(3), second.scales.weight(3))


def test_head_without_bias_gets_none():
    rng = np.random.default_rng(8)
    assert not some_model(rng, 2, bias=False).fit(None).scales.bias.any()


def test_neurons_that_are_off_stay_off():
    rng = np.random.default_rng(9)
    model = some_model(rng, 2)
    weight = model.weight.copy()
    weight[:, 2] = 0.0
    found = NeuronModel(model.loss, weight, DECAY, 2).fit(np.zeros(4))
    assert not found.scales.weight(2)[:, 2].any()


def test_directions_need_three_layers():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="directions: got 4 layers, need 3"):
        some_model(rng, 4, directions=True)
