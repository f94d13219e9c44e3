"""Losses that were not told: found where the last layer has them, and said where it cannot."""

import warnings

import numpy as np
import pytest

import tightframe as tf
from tightframe.advice.calibrate import fitted
from tightframe.diagnosis.diagnose import diagnose
from tightframe.heads import LastLayer

STEP = tf.Problem("60x4,8x4", weight_decay=1e-2, feature_decay=1e-3)
TERMS = {
    "label_smoothing": 0.1,
    "class_margins": 0.5 * (8 / STEP.counts) ** 0.25,
    "logit_scale": (STEP.counts / 60) ** 0.2,
    "feature_weights": STEP.counts * (STEP.counts / 60) ** 0.5,
    "class_weights": "balanced",
    "logit_adjustment": "prior",
}


def network(problem, scatter=0.0):
    """Return the last layer at the optimum, its features scattered by a share of their size."""
    rng = np.random.default_rng(0)
    solution = tf.solve(problem, 1e-12)
    labels = np.repeat(np.arange(problem.num_classes), problem.counts)
    features = solution.class_means.T[labels]
    features = features + scatter * np.std(features) * rng.normal(size=features.shape)
    bias = None if problem.bias == "none" else solution.bias
    return solution.weights[0], features, labels, bias


def plain(problem):
    return tf.Problem(problem.compact_counts, weight_decay=1, feature_decay=1, bias=problem.bias)


@pytest.mark.parametrize("bias", ["none", "free"])
@pytest.mark.parametrize("name", TERMS)
def test_a_term_that_was_not_told_is_found_with_its_decays(name, bias):
    if (name, bias) == ("logit_adjustment", "free"):
        pytest.skip("a free bias takes it up: nothing was left out")
    trained = STEP.replace(bias=bias, **{name: TERMS[name]})
    with pytest.warns(RuntimeWarning, match="calibrate: another loss explains this network better"):
        found = tf.calibrate(plain(trained), *network(trained))
    own = next(one for one in found.alternatives if one.term == name)
    assert own.better
    assert own.weight_decay == pytest.approx(1e-2, rel=0.01)
    assert own.feature_decay == pytest.approx(1e-3, rel=0.01)
    term = np.asarray(getattr(own.problem, name))
    assert term == pytest.approx(np.asarray(getattr(trained, name)), rel=0.05, abs=2e-3)


@pytest.mark.parametrize("scatter", [0, 0.01])
@pytest.mark.parametrize("terms", [{}, {"label_smoothing": 0.1}, {"bias": "free"}])
def test_nothing_is_said_of_a_loss_that_was_told(terms, scatter):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        problem = STEP.replace(**terms)
        found = tf.calibrate(problem.replace(weight_decay=1.0), *network(problem, scatter))
    assert found.alternatives == ()
    assert found.to_dict()["warnings"] == []


@pytest.mark.parametrize("decay", [1e-2, 1e-3])
def test_of_balanced_classes_smoothing_is_extra_decay_and_said_so(decay):
    """The closed form: smoothing e is a decay that is larger by e / (K sqrt(n))."""
    trained = tf.Problem("25x4", weight_decay=decay, feature_decay=decay, label_smoothing=0.1)
    with pytest.warns(
        RuntimeWarning, match=r"cannot be told apart here: label smoothing 0\.1 with"
    ):
        found = tf.calibrate(plain(trained), *network(trained))
    assert found.problem.logit_decay == pytest.approx(decay + 0.1 / (4 * 25**0.5), rel=1e-6)
    assert max(found.weight_error, found.feature_error) < 1e-6
    own = found.alternatives[0]
    assert not own.better
    assert own.problem.label_smoothing == 0.1
    assert own.problem.logit_decay == pytest.approx(decay, rel=1e-6)
    low, high = own.weight_decays
    assert low <= own.weight_decay
    assert high >= found.weight_decay
    # Who says that there was some is told of the other case.
    with pytest.warns(RuntimeWarning, match="label smoothing 0 with"):
        tf.calibrate(trained, *network(trained))


@pytest.mark.parametrize("counts", [[60] * 4 + [8] * 4, [30] * 8])
def test_of_a_network_that_torch_trained(counts):
    """Free features and a classifier, by torch's own loss and its own L-BFGS."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    labels = torch.arange(8).repeat_interleave(torch.tensor(counts))
    shapes = ((8, 10), (len(labels), 10))
    w, h = (torch.randn(*shape, dtype=torch.float64).mul_(0.3).requires_grad_() for shape in shapes)
    optimizer = torch.optim.LBFGS([w, h], max_iter=120, line_search_fn="strong_wolfe")

    def objective():
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(h @ w.T, labels, label_smoothing=0.1)
        loss = loss + 1e-2 / 2 * w.square().sum() + 1e-3 / 2 * h.square().sum()
        loss.backward()
        return loss

    optimizer.step(objective)
    found = fitted(tf.Problem(counts, weight_decay=1, feature_decay=1), w, h, labels)
    own = found.alternatives[0]
    assert own.term == "label_smoothing"
    assert own.better == (counts[0] != counts[-1])
    assert own.strength == pytest.approx(0.1, rel=0.02)
    assert own.weight_decay == pytest.approx(1e-2, rel=0.03)
    assert own.feature_decay == pytest.approx(1e-3, rel=0.03)


def test_a_record_of_the_training_leaves_nothing_to_look_for():
    balanced = tf.Problem("25x4", weight_decay=1e-2, feature_decay=1e-2)
    assert fitted(balanced, *network(balanced), known=True).alternatives == ()


def test_many_samples_are_looked_at_in_part(monkeypatch):
    trained = STEP.replace(label_smoothing=0.1)
    monkeypatch.setattr("tightframe.advice.alternatives.MOST_WORK", 40 * 8 * 8)
    found = fitted(plain(trained), *network(trained)).alternatives
    assert found[0].term == "label_smoothing"
    assert found[0].weight_decay == pytest.approx(1e-2, rel=0.02)
    # Of many classes at a sample of each: usual strengths only, or none.
    monkeypatch.setattr("tightframe.advice.alternatives.MOST_WORK", 1)
    found = fitted(plain(trained), *network(trained)).alternatives
    assert found[0].term == "label_smoothing"
    assert found[0].strength == 0.1
    monkeypatch.setattr("tightframe.advice.alternatives.NO_LOOK", 1)
    silent = fitted(plain(trained), *network(trained))
    assert silent.alternatives is None
    assert "was not asked" in silent.to_dict()["warnings"][0]


def test_squares_know_weights_only():
    problem = tf.Problem("60x4,8x4", "mse", weight_decay=1e-3, feature_decay=1e-3)
    trained = problem.replace(class_weights="balanced")
    found = fitted(problem, *network(trained)).alternatives
    assert {one.term for one in found} <= {"class_weights", "feature_weights"}
    assert found[0].problem.class_weights == pytest.approx(trained.class_weights, rel=1e-2)


@pytest.mark.parametrize("recorded", [False, True])
def test_no_advice_by_a_loss_that_another_explains_better(recorded):
    trained = STEP.replace(class_margins=TERMS["class_margins"])
    weight, features, labels, _ = network(trained)
    layer = LastLayer.of(features, labels, weight)
    told = trained if recorded else plain(trained)
    theory = diagnose(layer, problem=told, recorded=recorded, margin=0.1).theory
    assert theory.describes == recorded
    assert recorded or theory.reason.startswith("another loss explains this network better")
    found = diagnose(layer, margin=0.1)
    assert any("another loss explains" in warning.lower() for warning in found.warnings)


def test_of_balanced_classes_advice_says_what_it_cannot_know():
    balanced = tf.Problem("25x4", weight_decay=1e-2, feature_decay=1e-2)
    weight, features, labels, _ = network(balanced)
    found = diagnose(LastLayer.of(features, labels, weight), margin=0.1)
    assert found.theory.describes
    said = [text for text in found.warnings if "cannot be told apart" in text]
    assert len(said) == 1
    assert said[0] in list(found.blocks())
