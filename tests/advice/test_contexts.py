"""Advice on label distributions against dense softmaxes, factored descents and solves beside it."""

import json

import numpy as np
import pytest
from scipy.optimize import minimize

import tightframe as tf

TARGETS = np.array(
    [
        [0.7, 0.1, 0.0, 0.25, 0.0],
        [0.2, 0.6, 0.5, 0.25, 0.0],
        [0.1, 0.3, 0.5, 0.25, 0.0],
        [0.0, 0.0, 0.0, 0.25, 1.0],
    ]
)
COUNTS = np.array([40, 30, 20, 10, 5])


def make(decay=0.02, targets=TARGETS, counts=COUNTS, **options):
    return tf.Problem(counts, targets=targets, weight_decay=decay, feature_decay=decay, **options)


def best_of(problem, width, starts=6):
    """Minimise over factors of a width directly, from several random starts."""
    v, m = TARGETS.shape
    a = problem.counts / problem.num_samples
    p = TARGETS

    def value(x):
        w, h = x[: v * width].reshape(v, width), x[v * width :].reshape(width, m)
        z = w @ h
        top = z.max(axis=0)
        e = np.exp(z - top)
        loss = a @ (top + np.log(e.sum(axis=0)) - (p * z).sum(axis=0))
        decay = problem.logit_decay
        g = (e / e.sum(axis=0) - p) * a
        gw, gh = g @ h.T + decay * w, w.T @ g + decay * problem.counts * h
        cost = decay / 2 * ((w**2).sum() + (problem.counts * h**2).sum())
        return loss + cost, np.concatenate([gw.ravel(), gh.ravel()])

    rng = np.random.default_rng(0)
    return min(
        minimize(value, rng.normal(size=(v + m) * width), jac=True, tol=1e-13).fun
        for _ in range(starts)
    )


@pytest.mark.parametrize("options", [{}, {"bias": "free"}, {"bias": "decayed", "bias_decay": 0.02}])
def test_losses_are_those_of_the_dense_softmax(options):
    advice = tf.advise(make(**options))
    scores = advice.solution.logits + advice.solution.bias[:, None]
    logs = scores - np.log(np.exp(scores).sum(axis=0))
    shares = COUNTS / COUNTS.sum()
    assert advice.loss == pytest.approx(-shares @ (TARGETS * logs).sum(axis=0), abs=1e-9)
    own = -(TARGETS * np.log(np.where(TARGETS > 0, TARGETS, 1))).sum(axis=0)
    assert advice.entropy == pytest.approx(shares @ own, abs=1e-12)
    likeliest = TARGETS[scores.argmax(axis=0), np.arange(5)] == TARGETS.max(axis=0)
    assert advice.answered == pytest.approx(shares @ likeliest)
    json.dumps(advice.to_dict(), allow_nan=False)


def test_all_logits_are_zero_from_total_collapse_on():
    advice = tf.advise(make())
    assert advice.safety > 1
    below, above = (tf.advise(make(advice.total_collapse * f)) for f in (0.999, 1.001))
    assert below.width >= 1
    assert above.width == 0
    assert above.warnings[0].startswith("all logits are zero: no context is told from another")
    assert above.answered == pytest.approx(10 / 105)  # where all labels are as likely
    assert above.safety == pytest.approx(1 / 1.001)


def test_features_of_the_width_are_enough_and_of_one_less_are_not():
    problem = make(0.01)
    advice = tf.advise(problem)
    assert best_of(problem, advice.width) == pytest.approx(advice.solution.objective, rel=1e-7)
    assert best_of(problem, advice.width - 1) > advice.solution.objective * (1 + 1e-4)


def test_equal_contexts_and_equal_labels_are_one():
    targets = np.vstack([TARGETS[:3], TARGETS[3:] / 2, TARGETS[3:] / 2])
    targets = np.hstack([targets, targets[:, :1]])
    problem = make(targets=targets, counts=[*COUNTS, 7])
    advice = tf.advise(problem)
    assert (advice.distinct_labels, advice.distinct_contexts) == (4, 5)
    logits = advice.solution.logits
    assert np.array_equal(logits[:, 0], logits[:, 5])
    assert np.array_equal(logits[3], logits[4])
    assert str(advice).startswith("4 of 5 labels and 5 of 6 contexts are told apart")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"margin": 1}, "margin: got 1 with targets"),
        ({"angle": 30}, "angle: got 30 with targets"),
        ({"feature_decay_of": "mean"}, "feature_decay_of: got 'mean' with targets"),
        ({"tol": 0}, "tol: got 0"),
    ],
)
def test_what_label_distributions_do_not_have_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        tf.advise(make(), **options)
