"""Fitted heads: scikit-learn's and CVXPY's minimisers, and finite differences of the objective."""

import cvxpy as cp
import numpy as np
import pytest
import torch
from scipy.optimize import check_grad
from sklearn.linear_model import LogisticRegression

from tightframe.heads import fit_head
from tightframe.heads.last_layer import loss_terms
from tightframe.heads.ridge import RidgeProblem
from tightframe.heads.terms import LossTerms
from tightframe.solve import NotConvergedWarning

COUNTS = (60, 25, 8, 3)
WEIGHTS = np.array([0.5, 1.0, 2.0, 4.0])
ADJUSTMENT = np.array([0.0, -1.0, -2.0, 1.5])


def samples(seed=0, counts=COUNTS, dim=6, spread=1.5):
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(counts)), counts)
    means = rng.standard_normal((len(counts), dim))
    return means[labels] + spread * rng.standard_normal((len(labels), dim)), labels


def objective(v, x, y, decay, weights, adjustment):
    """Compute the objective as it is written down, sample by sample."""
    total = 0.0
    for row, label in zip(x, y, strict=True):
        z = v @ row + adjustment
        total += weights[label] * (np.log(np.exp(z).sum()) - z[label])
    scale = sum(weights[label] for label in y)
    return total / scale + decay / 2 * (v**2).sum()


@pytest.mark.parametrize("decay", [1e-1, 1e-2, 1e-4])
@pytest.mark.parametrize("bias", [True, False])
def test_scikit_learn_finds_the_same_head(decay, bias):
    x, y = samples()
    ours = fit_head(x, y, weight_decay=decay, bias=bias, tol=1e-12)
    # A column of ones: scikit-learn's own intercept has no ridge.
    columns = np.column_stack([x, np.ones(len(x))]) if bias else x
    peer = LogisticRegression(
        C=1 / (decay * len(y)), fit_intercept=False, tol=1e-10, max_iter=10_000
    ).fit(columns, y)
    mine = ours.weight if ours.bias is None else np.column_stack([ours.weight, ours.bias])
    assert mine == pytest.approx(peer.coef_, abs=1e-4)
    assert ours.accuracy == peer.score(columns, y)


def test_scikit_learn_weighs_classes_alike():
    x, y = samples(seed=1)
    ours = fit_head(x, y, weight_decay=1e-2, class_weights="balanced", bias=False, tol=1e-12)
    peer = LogisticRegression(
        C=1 / (1e-2 * len(y)),
        class_weight="balanced",
        fit_intercept=False,
        tol=1e-10,
        max_iter=10_000,
    ).fit(x, y)
    assert ours.weight == pytest.approx(peer.coef_, abs=1e-4)


@pytest.mark.parametrize("terms", [(None, None), (WEIGHTS, ADJUSTMENT)])
def test_cvxpy_has_the_same_minimum_between_the_bounds(terms):
    weights, adjustment = terms
    x, y = samples(counts=(12, 6, 4, 2), dim=3)
    ours = fit_head(
        x, y, weight_decay=3e-2, class_weights=weights, logit_adjustment=adjustment, tol=1e-8
    )
    w = np.ones(4) if weights is None else weights
    a = np.zeros(4) if adjustment is None else adjustment
    columns = np.column_stack([x, np.ones(len(x))])
    v = cp.Variable((4, 4))
    z = columns @ v.T + np.tile(a, (len(y), 1))
    losses = cp.log_sum_exp(z, axis=1) - cp.sum(cp.multiply(z, np.eye(4)[y]), axis=1)
    loss = cp.sum(cp.multiply(w[y] / w[y].sum(), losses))
    minimum = cp.Problem(cp.Minimize(loss + 3e-2 / 2 * cp.sum_squares(v))).solve(
        solver="CLARABEL", tol_gap_abs=1e-11, tol_gap_rel=1e-11, tol_feas=1e-11
    )
    assert ours.lower_bound <= minimum + 1e-9
    assert ours.objective >= minimum - 1e-9
    own = np.column_stack([ours.weight, ours.bias])
    assert ours.objective == pytest.approx(objective(own, columns, y, 3e-2, w, a), rel=1e-12)


#: Terms of the loss that keep it convex.
TERMS = [
    {"label_smoothing": 0.2},
    {"class_margins": [0.0, 0.3, 0.6, 1.0]},
    {"logit_scale": [1.0, 0.8, 0.6, 1.5]},
    {
        "label_smoothing": 0.1,
        "class_margins": [0.1, 0.3, 0.6, 1.0],
        "logit_scale": [1.0, 0.8, 0.6, 1.5],
        "class_weights": WEIGHTS,
        "logit_adjustment": ADJUSTMENT,
    },
]


@pytest.mark.parametrize("terms", TERMS)
def test_cvxpy_has_the_same_minimum_with_every_term(terms):
    x, y = samples(counts=(12, 6, 4, 2), dim=3)
    ours = fit_head(x, y, weight_decay=3e-2, tol=1e-8, **terms)
    plain = {"label_smoothing": 0.0, "class_margins": np.zeros(4), "logit_scale": np.ones(4)}
    known = plain | {"class_weights": np.ones(4), "logit_adjustment": np.zeros(4)} | terms
    columns, eye = np.column_stack([x, np.ones(len(x))]), np.eye(4)[y]
    v = cp.Variable((4, 4))
    scales = np.tile(known["logit_scale"], (len(y), 1))
    shift = np.asarray(known["logit_adjustment"]) - eye * known["class_margins"]
    z = cp.multiply(columns @ v.T, scales) + shift
    share = known["label_smoothing"]
    targets = (1 - share) * eye + share / 4
    losses = cp.log_sum_exp(z, axis=1) - cp.sum(cp.multiply(z, targets), axis=1)
    weights = np.asarray(known["class_weights"])[y]
    loss = cp.sum(cp.multiply(weights / weights.sum(), losses))
    minimum = cp.Problem(cp.Minimize(loss + 3e-2 / 2 * cp.sum_squares(v))).solve(
        solver="CLARABEL", tol_gap_abs=1e-11, tol_gap_rel=1e-11, tol_feas=1e-11
    )
    assert ours.lower_bound <= minimum + 1e-9
    assert ours.objective >= minimum - 1e-9
    assert ours.objective == pytest.approx(minimum, rel=1e-7)


def test_smoothed_labels_with_weights_are_those_of_pytorch():
    """At the optimum torch's own loss and the ridge pull alike."""
    x, y = samples()
    known = {"class_weights": WEIGHTS, "label_smoothing": 0.2, "smoothing_weights": "labels"}
    found = fit_head(x, y, weight_decay=1e-2, tol=1e-12, **known)
    head = [torch.tensor(part, requires_grad=True) for part in (found.weight, found.bias)]
    criterion = torch.nn.CrossEntropyLoss(weight=torch.tensor(WEIGHTS), label_smoothing=0.2)
    loss = criterion(torch.tensor(x) @ head[0].T + head[1], torch.tensor(y))
    squares = sum(part.square().sum() for part in head)
    total = loss + 1e-2 / 2 * squares
    assert found.objective == pytest.approx(total.item(), rel=1e-12)
    total.backward()
    assert max(part.grad.abs().max().item() for part in head) < 1e-6


@pytest.mark.parametrize("terms", TERMS)
def test_what_no_head_at_all_costs_is_the_objective_at_zero(terms):
    x, y = samples()
    loss = loss_terms(np.bincount(y), **terms)
    soft = LossTerms.of(loss)
    weights = loss.class_weights if soft.weights is None else soft.weights
    problem = RidgeProblem(x, y, weights, loss.logit_adjustment, 1e-2, True, terms=soft)
    value, gradient = problem.value_and_gradient(np.zeros(problem.shape))
    assert problem.value_at_zero == pytest.approx(value, rel=1e-12)
    best = fit_head(x, y, weight_decay=1e-2, tol=1e-10, **terms)
    scale = loss.class_weights[y].mean()
    if scale == 1:
        assert problem.gap(gradient) >= value - best.objective > 0


def test_the_gradient_is_that_of_the_objective():
    x, y = samples(dim=3)
    problem = RidgeProblem(x, y, WEIGHTS / WEIGHTS[y].mean(), ADJUSTMENT, 0.1, True)
    v = np.random.default_rng(2).standard_normal(problem.shape)

    def value(flat):
        return problem.value_and_gradient(flat.reshape(problem.shape))[0]

    def gradient(flat):
        return problem.value_and_gradient(flat.reshape(problem.shape))[1].ravel()

    assert check_grad(value, gradient, v.ravel()) < 1e-5


def test_the_bound_holds_at_any_point():
    """P(V) - D(softmax) is no less than what there is to gain, and not zero at a bad point."""
    x, y = samples()
    best = fit_head(x, y, weight_decay=1e-2, tol=1e-12)
    problem = RidgeProblem(x, y, np.ones(4), np.zeros(4), 1e-2, True)
    for seed in range(5):
        v = np.random.default_rng(seed).standard_normal(problem.shape)
        value, gradient = problem.value_and_gradient(v)
        assert problem.gap(gradient) >= value - best.objective > 0


def test_blocks_and_a_metric_of_few_samples_change_nothing(monkeypatch):
    x, y = samples(counts=(3000, 500, 60, 20), dim=5)
    whole = fit_head(x, y, weight_decay=1e-3, tol=1e-12)
    monkeypatch.setattr("tightframe.heads.ridge.BLOCK", 700)
    monkeypatch.setattr("tightframe.heads.ridge.METRIC_SAMPLES", 2)
    blocks = fit_head(x, y, weight_decay=1e-3, tol=1e-12)
    monkeypatch.setattr("tightframe.heads.ridge.MAX_METRIC_WIDTH", 1)
    plain = fit_head(x, y, weight_decay=1e-3, tol=1e-12)
    assert blocks.weight == pytest.approx(whole.weight, abs=1e-4)
    assert plain.weight == pytest.approx(whole.weight, abs=1e-4)


def test_tensors_and_held_out_samples_are_scored():
    x, y = samples()
    other = samples(seed=3)
    tensor = torch.tensor(x, dtype=torch.float32, requires_grad=True)
    found = fit_head(tensor, torch.tensor(y), weight_decay=1e-2, held_out=other)
    logits = other[0] @ found.weight.T + found.bias
    recalls = [(logits[other[1] == k].argmax(1) == k).mean() for k in range(4)]
    assert found.held_out.recalls == pytest.approx(recalls)
    assert found.held_out_balanced_accuracy == pytest.approx(np.mean(recalls))
    assert found.held_out_accuracy == pytest.approx((logits.argmax(1) == other[1]).mean())
    assert found.logits(other[0]) == pytest.approx(logits)


def test_classes_without_samples_are_never_predicted_and_not_scored():
    x, y = samples()
    found = fit_head(
        x,
        y,
        weight_decay=1e-2,
        num_classes=6,
        class_weights="balanced",
        logit_adjustment="prior",
    )
    assert found.weight.shape == (6, 6)
    assert not np.isin(found.logits(x).argmax(1), [4, 5]).any()
    assert np.isnan(found.training.recalls[4:]).all()
    assert found.to_dict()["training"]["recalls"][4] is None


def test_logit_adjustment_by_the_prior_helps_rare_classes():
    x, y = samples(counts=(300, 100, 10, 5))
    plain = fit_head(x, y, weight_decay=1e-2)
    adjusted = fit_head(x, y, weight_decay=1e-2, logit_adjustment="prior")
    by_hand = np.log(np.bincount(y) / len(y))
    same = fit_head(x, y, weight_decay=1e-2, logit_adjustment=by_hand)
    assert adjusted.weight == pytest.approx(same.weight)
    assert adjusted.balanced_accuracy > plain.balanced_accuracy


def test_a_near_start_saves_evaluations_and_changes_nothing():
    x, y = samples(counts=(90, 40, 20, 10, 5), dim=12)
    near = fit_head(x, y, weight_decay=1.1e-3, tol=1e-8)
    start = near.weight, near.bias
    with pytest.warns(NotConvergedWarning):
        fit_head(x, y, weight_decay=1e-3, tol=1e-5, max_evaluations=40)
    warm = fit_head(x, y, weight_decay=1e-3, tol=1e-5, max_evaluations=40, start=start)
    assert warm.status == "optimal"
    cold = fit_head(x, y, weight_decay=1e-3, tol=1e-8)
    assert warm.objective == pytest.approx(cold.objective, rel=2e-5)
    unbiased = fit_head(x, y, weight_decay=1e-3, bias=False, start=start)
    without = fit_head(x, y, weight_decay=1e-3, bias=False)
    assert unbiased.objective == pytest.approx(without.objective, rel=2e-6)


def test_what_cannot_be_reached_is_said():
    x, y = samples()
    with pytest.warns(NotConvergedWarning, match="gap .* of the objective, wanted 1.0e-30"):
        found = fit_head(x, y, weight_decay=1e-2, tol=1e-30)
    assert found.status == "not_converged"
    assert found.gap < 1e-12


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight_decay": 0}, "weight_decay: got 0, need a finite number above 0"),
        ({"tol": -1}, "tol: got -1"),
        ({"num_classes": 3}, "labels: got 0 to 3, need 0 to 2"),
        ({"num_classes": 1}, "num_classes: got 1, need a whole number, at least 2"),
        ({"labels": [0, 1]}, r"labels: got shape \(2,\), need \(96,\)"),
        ({"start": (np.ones((4, 5)), None)}, r"start: got shapes \(4, 5\) .* need \(4, 6\)"),
        ({"start": (np.full((4, 6), np.inf), None)}, "start: got an entry that is not finite"),
        ({"start": (np.full((4, 6), 1e200), None)}, "start: got an entry above"),
        ({"start": (np.full((4, 6), 1j), None)}, "start: got complex128, need real numbers"),
        ({"start": ("a", None)}, "start: got <U1, need real numbers"),
        ({"start": (np.ones((4, 6)), None, 1)}, "start: got tuple of 3, need a pair"),
        ({"start": 3}, "start: got int, need a pair of weight and bias"),
        ({"features": np.ones(4)}, "features: got float64 of shape"),
        ({"class_weights": [1, 2]}, "class_weights: got 2 numbers for 4 classes"),
        ({"logit_adjustment": "prio"}, "logit_adjustment: cannot read 'prio'"),
        ({"label_smoothing": 1}, "label_smoothing: got 1, need a number from 0 to below 1"),
        ({"class_margins": [1, 2]}, "class_margins: got 2 numbers for 4 classes"),
        ({"logit_scale": [1, 2, 3, 0]}, "logit_scale: "),
        ({"smoothing_weights": "all"}, "smoothing_weights: got 'all'"),
        ({"held_out": (np.ones((3, 2)), [0, 1, 2])}, "held_out features: got shape"),
        ({"held_out": np.ones((3, 6))}, "held_out: got ndarray, need a pair"),
        ({"bias": np.zeros(4)}, "bias: got ndarray, need True or False"),
        ({"held_out": (1, 2, 3)}, "held_out: got tuple of 3, need a pair"),
        ({"features": np.ones((96, 0))}, r"features: got float64 of shape \(96, 0\)"),
        ({"features": [[1.0, 2.0], [3.0]]}, "features: got entries of several lengths"),
        ({"labels": np.full(96, np.nan)}, "labels: got float64 entries, need whole numbers"),
        ({"labels": np.full(96, 1e300)}, r"labels: got 1e\+300, need whole numbers up to 10000000"),
    ],
)
def test_bad_input_is_named(change, message):
    x, y = samples()
    given = {"features": x, "labels": y, "weight_decay": 1e-2} | change
    with pytest.raises(ValueError, match=message):
        fit_head(given.pop("features"), given.pop("labels"), **given)


@pytest.mark.parametrize("scale", [1e-2, 1e-4, 1e-9])
def test_small_features_are_told_apart(scale):
    """To first order a minimiser is minus the gradient at 0 over the ridge: no head of zeros."""
    x, y = samples(spread=0.5)
    found = fit_head(
        scale * x, y, weight_decay=10.0, class_weights="balanced", bias=False, tol=1e-4
    )
    shares = 1 / np.bincount(y)[y]
    first = ((np.eye(4)[y] - 1 / 4) * shares[:, None]).T @ x
    answers = (x @ first.T).argmax(axis=1)
    assert found.status == "optimal"
    assert found.training.recalls == pytest.approx(
        [(answers[y == k] == k).mean() for k in range(4)], abs=0.02
    )


@pytest.mark.parametrize("scale", [1e-2, 1e-3, 1e-5, 1e-7])
def test_of_small_features_too_the_head_does_not_depend_on_its_start(scale):
    """Twin classes, large and small: the least error of a bias decides between them."""
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(10), [100] * 5 + [10] * 5)
    means = np.tile(rng.normal(size=(5, 16)), (2, 1))
    x = scale * np.maximum(means[y] + 0.7 * rng.normal(size=(len(y), 16)), 0)
    known = {"weight_decay": 5e-4, "class_weights": "balanced", "tol": 1e-4}
    cold = fit_head(x, y, **known)
    for terms in ({}, {"logit_adjustment": "prior"}):
        near = fit_head(x, y, weight_decay=5e-3, tol=1e-4, **terms)
        warm = fit_head(x, y, **known, start=(near.weight, near.bias))
        assert warm.training.recalls == pytest.approx(cold.training.recalls, abs=0.02)


def test_no_bound_is_below_zero():
    x, y = samples()
    with pytest.warns(NotConvergedWarning):
        found = fit_head(1e6 * x, y, weight_decay=1e-9, max_evaluations=2)
    assert found.lower_bound == 0
    assert found.gap == found.objective


def test_tensors_of_types_that_numpy_lacks_are_features():
    x, y = samples()
    given = torch.tensor(x).bfloat16()
    found = fit_head(given, torch.tensor(y), weight_decay=1e-2)
    same = fit_head(given.double().numpy(), y, weight_decay=1e-2)
    assert found.weight == pytest.approx(same.weight)
    assert found.logits(given) == pytest.approx(same.logits(given.double()))
    with pytest.raises(ValueError, match=r"features: got float64 of shape \(96, 2\), need"):
        found.logits(x[:, :2])
