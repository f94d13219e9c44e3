import itertools
import math
import warnings
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

import tightframe as tf
from tests.reference import ufm as reference
from tightframe.geometry.dense import PARTS
from tightframe.metrics import ClassMoments, group_angles, measured_geometry, nc1, nc1_quotient
from tightframe.theory import thresholds as closed
from tightframe.theory.certificate import factored_objective
from tightframe.training.margins import group_margins
from tightframe.training.ufm import svm_direction, train_ufm
from tightframe.training.ufm import train as ufm_module
from tightframe.training.ufm.descent import Descent, log_spaced
from tightframe.training.ufm.records import Recorder, row_columns

DECAYS = {"weight_decay": 1e-2, "feature_decay": 1e-2}
SMALL = tf.Problem("6x2,2x3", **DECAYS)
OPTIONS = {"init_std": 0.5, "per_sample": True, "nonnegative": "projection", "normalized": False}
OPTIONS |= {"dtype": torch.float64, "device": torch.device("cpu")}


def descent(problem, seeds=(0,), dim=4, **changes):
    return Descent([problem] * len(seeds), seeds, dim, **(OPTIONS | changes))


def factors(d, run=0):
    """Layers, features as rows, labels and bias of a run, per sample, as NumPy arrays."""
    samples = torch.arange(len(d.labels)).repeat_interleave(d.weights.long())
    bias = None if d.bias is None else d.bias[run, :, 0].numpy()
    features = d.features[run].T[samples].numpy()
    return [w[run].numpy() for w in d.layers], features, d.labels[samples].numpy(), bias


def parameters(d):
    return [*d.layers, d.columns, *([] if d.bias is None else [d.bias])]


def objective(problem, d, run=0):
    layers, features, labels, bias = factors(d, run)
    return factored_objective(problem, layers, features, labels, bias)


#: For counts of four classes; two of equal count differ in what is said of them.
REWEIGHTED = {"class_weights": [1, 0.3, 4, 2], "logit_adjustment": [0, -2, 0.5, 1]}

KINDS = list(
    itertools.product(
        ("cross_entropy", "mse"),
        (("none", None), ("free", None), ("decayed", 0.3)),
        (("real", "projection"), ("nonnegative", "projection"), ("nonnegative", "relu")),
        (1, 3),
        (True, False),
    )
)


def kind_of(kind):
    loss, (bias, bias_decay), (features, nonnegative), depth, per_sample = kind
    problem = tf.Problem(
        "3,1x2,2",
        loss=loss,
        weight_decay=[0.03 * (m + 1) for m in range(depth)],
        feature_decay=0.02,
        bias=bias,
        bias_decay=bias_decay,
        features=features,
        depth=depth,
    )
    return problem, {"nonnegative": nonnegative, "per_sample": per_sample}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(map(str, kind)))
def test_gradient_is_that_of_the_written_out_objective(kind):
    problem, changes = kind_of(kind)
    d = descent(problem, (3, 4), **changes)
    now = d.evaluate()
    for run in range(2):
        assert now.objective[run] == pytest.approx(objective(problem, d, run), rel=1e-13)
    gradients = d.gradients()
    rng = np.random.default_rng(0)
    step = 1e-6
    for which, (tensor, gradient) in enumerate(zip(parameters(d), gradients, strict=True)):
        # A column that stands for n samples moves as each of them: 1/n of its derivative.
        share = d.weights if which == problem.depth else torch.ones(tensor.shape[2])
        for _ in range(4):
            place = tuple(int(rng.integers(size)) for size in tensor.shape)
            start = float(tensor[place])
            values = []
            for sign in (1, -1):
                tensor[place] = start + sign * step
                values.append(objective(problem, d, place[0]))
            tensor[place] = start
            slope = (values[0] - values[1]) / (2 * step) / float(share[place[2]])
            assert float(gradient[place]) == pytest.approx(slope, abs=1e-8, rel=1e-6)


def autograd_objective(problem, layers, columns, bias):
    """Return the objective of one run, from torch's own losses."""
    labels = torch.arange(problem.num_classes).repeat_interleave(torch.as_tensor(problem.counts))
    z = columns
    for layer in layers:
        z = layer @ z
    z = (z if bias is None else z + bias).T
    if problem.loss == "mse":
        targets = functional.one_hot(labels, problem.num_classes).double()
        value = 0.5 * functional.mse_loss(z, targets, reduction="sum") / len(labels)
    else:
        losses = functional.cross_entropy(
            z + torch.tensor(problem.logit_adjustment), labels, reduction="none"
        )
        value = losses @ torch.tensor(problem.class_weights)[labels] / len(labels)
    for decay, layer in zip(problem.weight_decays, layers, strict=True):
        value = value + decay / 2 * layer.square().sum()
    if bias is not None:
        value = value + problem.bias_decay / 2 * bias.square().sum()
    return value + problem.feature_decay / 2 * columns.square().sum()


@pytest.mark.parametrize(
    ("kind", "schedule", "factor"),
    [
        (KINDS[0], "constant", lambda i: 1.0),
        (KINDS[16], "linear", lambda i: 1 - i / 40),
        (KINDS[26], "cosine", lambda i: (1 + math.cos(math.pi * i / 40)) / 2),
        (KINDS[50], [(10, 0.5), (25, 0.1)], lambda i: 1.0 if i < 10 else 0.5 if i < 25 else 0.1),
        (KINDS[36], lambda share: 1 / (1 + share), lambda i: 1 / (1 + i / 40)),
    ],
)
def test_training_is_torch_sgd(kind, schedule, factor):
    problem, _ = kind_of(kind)
    nonnegative = problem.features == "nonnegative"
    reweighted = REWEIGHTED if problem.loss == "cross_entropy" else {}
    problem = problem.replace(**reweighted)
    d = descent(problem, (7,), dim=4, init_std=0.5)
    layers, columns = [w[0].clone() for w in d.layers], d.columns[0].clone()
    bias = None if d.bias is None else d.bias[0].clone()
    trained = [*layers, columns, *([] if bias is None else [bias])]
    for tensor in trained:
        tensor.requires_grad_(True)
    optimizer = torch.optim.SGD(trained, lr=0.2, momentum=0.8)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    for _ in range(40):
        optimizer.zero_grad()
        autograd_objective(problem, layers, columns, bias).backward()
        optimizer.step()
        scheduler.step()
        if nonnegative:
            columns.data.clamp_(min=0)
    run = train_ufm(
        problem, seeds=[7], dim=4, lr=0.2, momentum=0.8, iterations=40, init_std=0.5,
        schedule=schedule, tol=0, records=5,
    )[0]  # fmt: skip
    for ours, theirs in zip(run.weights, layers, strict=True):
        np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-10, atol=1e-12)
    ends = np.cumsum(problem.counts)
    means = [c.mean(axis=1) for c in np.split(columns.detach().numpy(), ends[:-1], axis=1)]
    np.testing.assert_allclose(run.class_means, np.stack(means, axis=1), rtol=1e-10, atol=1e-12)
    if bias is not None:
        np.testing.assert_allclose(run.bias, bias.detach()[:, 0].numpy(), rtol=1e-10, atol=1e-12)
    assert run.history[0]["lr"] == pytest.approx(0.2 * factor(0))


@pytest.mark.parametrize("bias", ["none", "free", "decayed"])
@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("per_sample", [True, False])
@pytest.mark.parametrize("name", [*REWEIGHTED, "both"])
def test_reweighted_gradients_are_autograds(bias, depth, per_sample, name):
    problem = tf.Problem(
        "3,1x2,2",
        weight_decay=[0.03, 0.06][:depth],
        feature_decay=0.02,
        bias=bias,
        bias_decay=0.3 if bias == "decayed" else None,
        depth=depth,
        **(REWEIGHTED if name == "both" else {name: REWEIGHTED[name]}),
    )
    d = descent(problem, (3, 4), per_sample=per_sample)
    now = d.evaluate()
    for run in range(2):
        values = [tensor[run].clone().requires_grad_() for tensor in parameters(d)]
        columns, offset = values[depth], values[-1] if d.bias is not None else None
        samples = torch.arange(len(d.labels)).repeat_interleave(d.weights.long())
        value = autograd_objective(problem, values[:depth], columns[:, samples], offset)
        assert now.objective[run] == pytest.approx(value.item(), rel=1e-13)
        assert value.item() == pytest.approx(objective(problem, d, run), rel=1e-13)
        value.backward()
        for which, (ours, theirs) in enumerate(zip(d.gradients(), values, strict=True)):
            # A column that stands for n samples moves as each of them.
            share = d.weights if which == depth else 1.0
            torch.testing.assert_close(ours[run] * share, theirs.grad, rtol=1e-10, atol=1e-14)


def test_accuracy_is_that_of_plain_scores():
    problem = tf.Problem("3,1x2,2", **DECAYS, bias="free")
    adjusted = problem.replace(logit_adjustment=[0, 50, 0, 0])
    plain, moved = (descent(p, range(8)).evaluate() for p in (problem, adjusted))
    assert torch.equal(plain.accuracy, moved.accuracy)
    assert bool((moved.loss > plain.loss).all())
    d = descent(adjusted, range(8))
    scores = torch.bmm(d.product, d.features) + d.bias
    right = (scores.argmax(dim=1) == d.labels).double().mean(dim=1)
    torch.testing.assert_close(moved.accuracy, right)


def test_relu_features_train_as_autograd_says():
    problem = tf.Problem("3,2x2", **DECAYS, features="nonnegative")
    d = descent(problem, nonnegative="relu")
    weight, hidden = (t[0].clone().requires_grad_(True) for t in (d.layers[0], d.columns))
    optimizer = torch.optim.SGD([weight, hidden], lr=0.3, momentum=0.5)
    for _ in range(30):
        optimizer.zero_grad()
        autograd_objective(problem, [weight], hidden.relu(), None).backward()
        optimizer.step()
        d.step(0.3, 0.5)
    torch.testing.assert_close(d.layers[0][0], weight.detach(), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(d.columns[0], hidden.detach(), rtol=1e-10, atol=1e-12)
    assert bool((hidden < 0).any())  # some have died


def test_a_column_a_class_moves_as_its_samples_do():
    whole, single = descent(SMALL), descent(SMALL, per_sample=False)
    whole.columns = single.columns[:, :, whole.labels].clone()
    whole.layers = [w.clone() for w in single.layers]
    for _ in range(50):
        whole.step(0.3, 0.9)
        single.step(0.3, 0.9)
    torch.testing.assert_close(whole.columns, single.columns[:, :, whole.labels])
    torch.testing.assert_close(whole.evaluate().objective, single.evaluate().objective)
    torch.testing.assert_close(whole.evaluate().gradient_norm, single.evaluate().gradient_norm)


# -- the minimum -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"bias": "free"},
        {"bias": "decayed", "bias_decay": 0.01},
        {"loss": "mse"},
        {"loss": "mse", "depth": 2, "seed": 1},
        {"loss": "mse", "bias": "free"},
        {"loss": "mse", "bias": "free", "depth": 2},
        {"loss": "mse", "bias": "decayed", "bias_decay": 0.1},
        {"features": "nonnegative", "dim": 40},
    ],
    ids=str,
)
@pytest.mark.parametrize("per_sample", [True, False])
def test_the_minimum_is_the_certified_one(arguments, per_sample):
    arguments = dict(arguments)
    dim, seed = arguments.pop("dim", None), arguments.pop("seed", 0)
    problem = tf.Problem("6x2,3x2", **DECAYS, **arguments)
    solution = tf.solve(problem)
    run = train_ufm(problem, seeds=[seed], dim=dim, lr=0.4, per_sample=per_sample, iterations=4000)[
        0
    ]
    assert run.status == "converged"
    assert run.iterations < 4000
    scale = solution.objective
    assert run.history[-1]["objective"] == pytest.approx(scale, rel=1e-8)
    assert abs(run.excess) < 1e-8 * scale
    assert 0 <= run.gap <= run.excess + 1e-12
    assert run.distance < 1e-4
    assert run.history[-1]["spectrum_to_predicted"] < 1e-4
    np.testing.assert_allclose(run.logits, solution.logits, atol=1e-3)
    predicted = solution.group_margins
    for i, margin in enumerate(predicted):
        assert run.history[-1][f"group{i}_margin"] == pytest.approx(margin, abs=1e-3)


@pytest.mark.parametrize("per_sample", [True, False])
@pytest.mark.parametrize("bias", ["none", "free"])
def test_the_reweighted_minimum_is_the_certified_one(bias, per_sample):
    problem = tf.Problem(
        "4x4",
        **DECAYS,
        bias=bias,
        class_weights="1x2,3x2",
        logit_adjustment="0,0.5x3",
    )
    solution = tf.solve(problem)
    assert len(problem.groups) == 3
    run = train_ufm(problem, lr=0.4, per_sample=per_sample, iterations=4000)[0]
    assert run.status == "converged"
    assert abs(run.excess) < 1e-8 * solution.objective
    assert 0 <= run.gap <= run.excess + 1e-12
    np.testing.assert_allclose(run.logits, solution.logits, atol=2e-3)
    # Cross-entropy leaves a free bias's mean open.
    np.testing.assert_allclose(run.bias - run.bias.mean(), solution.bias, atol=2e-3)
    for i, margin in enumerate(solution.group_margins):
        assert run.history[-1][f"group{i}_margin"] == pytest.approx(margin, abs=2e-3)
    assert run.final["class_weights"] == "1.0x2,3.0x2"


def test_nonnegative_features_vanish_where_their_weighted_threshold_says():
    problem = tf.Problem(
        "6x4", weight_decay=0.06, feature_decay=0.06, features="nonnegative",
        class_weights="0.5x2,2x2",
    )  # fmt: skip
    limits = [group.logit_decay for group in closed.ends(problem).groups]
    assert limits[0] < problem.logit_decay < limits[1]
    run = train_ufm(problem, dim=40, lr=0.4, iterations=4000)[0]
    lengths = np.linalg.norm(run.class_means, axis=0)
    assert lengths[:2].max() < 1e-4
    assert lengths[2:].min() > 0.1
    assert abs(run.excess) < 1e-8


def test_nonnegative_mse_comes_close_slowly():
    """The features that vanish do so sublinearly: not converged, and so reported."""
    problem = tf.Problem("6x2,3x2", **DECAYS, loss="mse", features="nonnegative")
    solution = tf.solve(problem)
    run = train_ufm(problem, dim=40, lr=0.4, iterations=2000)[0]
    assert run.status == "stopped"
    assert 0 < run.excess < 1e-4 * solution.objective
    np.testing.assert_allclose(run.logits, solution.logits, atol=1e-2)


@pytest.mark.slow
def test_relu_features_may_reach_the_minimum_and_may_die():
    problem = tf.Problem("6x2,3x2", **DECAYS, features="nonnegative")
    best = tf.solve(problem).objective
    options = {"dim": 40, "lr": 0.4, "nonnegative": "relu", "iterations": 3000}
    fine = train_ufm(problem, seeds=[1], per_sample=False, **options)[0]
    assert fine.status == "converged"
    assert abs(fine.excess) < 1e-8 * best
    dead = train_ufm(problem, seeds=[1], **options)[0]
    assert dead.excess > 1e-2
    assert "a saddle or a local minimum" in dead.reason


def test_the_minimum_is_cvxpys():
    problem = tf.Problem("9x2,2x3", **DECAYS, bias="decayed", bias_decay=0.02)
    value, logits, _ = reference.convex_minimum(problem)
    run = train_ufm(problem, lr=0.4, iterations=3000)[0]
    assert run.history[-1]["objective"] == pytest.approx(value, rel=1e-6)
    np.testing.assert_allclose(run.logits, logits, atol=1e-3)


def test_nonnegative_cross_entropy_is_dang_2024():
    """Orthogonal class means, margins log((K-1)(1/t_k - 1)), collapse by the theorem."""
    counts = np.array([8, 8, 4, 1])
    decay = 2e-2
    problem = tf.Problem(counts, weight_decay=decay, feature_decay=decay, features="nonnegative")
    t = counts.sum() * decay * np.sqrt(3 / 4 / counts)
    margins = np.where(t < 3 / 4, np.log(3 * (1 / t - 1)), 0.0)
    run = train_ufm(problem, dim=40, lr=0.4, iterations=3000, init_std=1.0)[0]
    assert run.status == "converged"
    expected = margins * (np.eye(4) - 1 / 4)
    np.testing.assert_allclose(run.logits, expected, atol=2e-4)
    gram = run.class_means.T @ run.class_means
    np.testing.assert_allclose(gram, np.diag(np.diag(gram)), atol=1e-4)
    assert run.class_means.min() >= 0


def test_deep_cross_entropy_reports_what_it_found():
    problem = tf.Problem("10x4", weight_decay=2e-3, feature_decay=2e-3, depth=3)
    runs = train_ufm(problem, seeds=range(3), lr=0.4, iterations=2000, per_sample=False)
    best = tf.solve(problem)
    for run in runs:
        assert run.gap is None
        assert "depth 3" in run.gap_note
        assert run.final["reference"] == "local"
        assert run.excess == run.history[-1]["objective"] - run.final["reference_objective"]
        assert run.history[-1]["rank"] == np.linalg.matrix_rank(run.logits, tol=1e-2)
        low_rank = run.history[-1]["spectrum_to_predicted"] < 1e-3
        assert low_rank == (abs(run.excess) < 1e-6 * best.objective)


def test_a_local_minimum_is_named():
    """A class whose features vanish stays so: W^T (p - y) points out of the orthant."""
    problem = tf.Problem("6x2,2x2", **DECAYS, features="nonnegative")
    runs = train_ufm(problem, seeds=range(4), dim=8, iterations=3000)
    above = [run for run in runs if run.excess > 1e-3]
    assert above
    assert len(above) < 4
    for run in above:
        assert run.status == "converged"
        assert "a saddle or a local minimum" in run.reason
        assert run.gap > 1e-3


def test_nothing_is_compared_where_nothing_is_known():
    problem = tf.Problem("6x2,2x2", **DECAYS, features="nonnegative", depth=2)
    run = train_ufm(problem, iterations=200)[0]
    assert math.isnan(run.excess)
    assert math.isnan(run.distance)
    assert run.gap is None
    assert "depth 1" in run.gap_note
    assert run.final["reference"] == "none"
    assert run.final["reference_objective"] is None
    assert math.isfinite(run.history[-1]["logits_to_etf"])


def test_relu_features_with_a_bias_reach_the_certified_minimum():
    problem = tf.Problem("20x2,5x2", **DECAYS, features="nonnegative", bias="free")
    run = train_ufm(problem, dim=20, lr=0.4, iterations=6000)[0]
    assert run.final["reference"] == "optimal"
    assert 0 <= run.gap <= 1e-5 * run.reference.objective
    assert run.gap == pytest.approx(run.excess, abs=1e-8)
    assert run.distance < 1e-2


def test_too_narrow_features_are_searched_for():
    run = train_ufm(tf.Problem("6x4", **DECAYS), dim=2, iterations=3000)[0]
    assert run.problem.dim == 2
    assert run.final["reference"] == "local"
    assert run.gap is None
    assert abs(run.excess) < 1e-9


def test_zero_prediction_has_no_distance():
    problem = tf.Problem("6x4", weight_decay=1.0, feature_decay=1.0)
    with pytest.warns(RuntimeWarning, match="predicted logits"):
        run = train_ufm(problem, iterations=2000)[0]
    assert run.status == "converged"
    assert math.isnan(run.distance)
    assert run.excess == pytest.approx(0, abs=1e-10)
    assert run.history[-1]["logits_to_etf"] <= 2


# -- what is recorded ------------------------------------------------------------------------------


@settings(max_examples=15)
@given(
    counts=st.lists(st.sampled_from([1, 2, 5]), min_size=3, max_size=6),
    seed=st.integers(0, 1000),
    depth=st.sampled_from([1, 2]),
)
def test_records_are_the_metrics(counts, seed, depth):
    problem = tf.Problem(counts, **DECAYS, depth=depth, bias="free", loss="mse")
    solution = tf.solve(problem)
    d = descent(problem, (seed, seed + 1), dim=7)
    now = d.evaluate()
    rows = Recorder([problem] * 2, [solution] * 2).rows(d, now, np.arange(2))
    for run, row in enumerate(rows):
        layers, features, labels, bias = factors(d, run)
        classifier = np.linalg.multi_dot(layers[::-1]) if depth > 1 else layers[0]
        moments = ClassMoments(problem.num_classes).update(features, labels)
        geometry = measured_geometry(moments, classifier)
        logits = geometry.logits
        expected = {
            "objective": objective(problem, d, run),
            "excess": objective(problem, d, run) - solution.lower_bound,
            "nc1": nc1(moments),
            "nc1_quotient": nc1_quotient(moments),
            "bias_norm": np.linalg.norm(bias),
            "train_accuracy": np.mean((features @ classifier.T + bias).argmax(axis=1) == labels),
        }
        targets = {
            "predicted": solution.geometry,
            "etf": tf.simplex_etf(problem.num_classes),
            "seli": tf.seli(counts, bias="free"),
            "orthogonal_frame": tf.orthogonal_frame(problem.num_classes),
        }
        for part, (name, target) in itertools.product(PARTS, targets.items()):
            expected[f"{part}_to_{name}"] = geometry.distance(target, part)
        root = np.sqrt(problem.counts)
        spectra = [np.linalg.svd(z * root)[1] for z in (logits, solution.logits)]
        spectra = [s / np.linalg.norm(s) for s in spectra]
        expected["spectrum_to_predicted"] = np.linalg.norm(spectra[0] - spectra[1])
        expected["rank"] = (spectra[0] > 1e-3 * spectra[0].max()).sum()
        margins = group_margins(problem, logits + bias[:, None])
        sizes = [group.count for group in problem.groups]
        order = np.argsort(np.argsort(-np.array(sizes)))  # group_angles: largest count first
        vectors = {"classifier": classifier, "means": np.asarray(moments.means), "logits": logits.T}
        for i in range(len(sizes)):
            expected[f"group{i}_margin"] = margins[i]
        for what, rows_of in vectors.items():
            angles = group_angles(rows_of, problem.counts)
            for i in range(len(sizes)):
                expected[f"group{i}_{what}_norm"] = angles.norms[order[i]]
                for j in range(i, len(sizes)):
                    cosine = angles.mean[order[i], order[j]]
                    expected[f"group{i}_group{j}_{what}_cosine"] = cosine
        assert set(row) == set(row_columns(len(sizes)))
        assert set(row) - set(expected) == {"loss", "gradient_norm"}
        for name, value in expected.items():
            assert row[name] == pytest.approx(value, rel=1e-9, abs=1e-12, nan_ok=True), name


def test_gradient_norm_is_relative_to_the_objective():
    problem = tf.Problem("3,1x2", weight_decay=0.03, feature_decay=0.02, bias="free")
    d = descent(problem)
    by_weight, by_features, by_bias = (g[0].numpy() for g in d.gradients())
    total = (by_weight**2).sum() / 0.03 + (by_features**2).sum() / 0.02 + (by_bias**2).sum()
    expected = math.sqrt(total / (2 * objective(problem, d)))
    assert float(d.evaluate().gradient_norm[0]) == pytest.approx(expected, rel=1e-12)


def test_projected_gradient_ignores_what_points_out():
    problem = tf.Problem("3,1x2", **DECAYS, features="nonnegative")
    d = descent(problem)
    d.columns.zero_()
    d.layers[0].zero_()
    assert float(d.evaluate().gradient_norm[0]) == 0  # the zero solution is critical
    d.layers[0].copy_(torch.eye(3, 4, dtype=torch.float64))
    outward = d.gradients()[1]
    inward = outward.clamp(max=0).square().sum() / 1e-2
    by_weight = d.gradients()[0].square().sum() / 1e-2
    expected = math.sqrt(float(inward + by_weight) / (2 * objective(problem, d)))
    assert bool((outward > 0).any())
    assert float(d.evaluate().gradient_norm[0]) == pytest.approx(expected, rel=1e-12)


def test_collapsed_features_have_no_nc1_and_equal_means_an_infinite_one():
    run = train_ufm(SMALL, iterations=10, per_sample=False)[0]
    assert all(math.isnan(row["nc1"]) and math.isnan(row["nc1_quotient"]) for row in run.history)
    d = descent(SMALL)
    d.columns.copy_(torch.ones_like(d.columns))
    row = Recorder([SMALL], [None]).rows(d, d.evaluate(), np.arange(1))[0]
    assert row["nc1"] == math.inf
    assert row["nc1_quotient"] == math.inf


def test_zero_vectors_are_left_out_of_cosines():
    problem = tf.Problem("4x2,2x2", **DECAYS)
    d = descent(problem)
    d.columns[:, :, :4] = 0
    row = Recorder([problem], [None]).rows(d, d.evaluate(), np.arange(1))[0]
    assert math.isnan(row["group0_group0_means_cosine"])
    assert math.isfinite(row["group0_group1_means_cosine"])
    assert row["group0_means_norm"] == pytest.approx(
        float(d.columns[0, :, 4:8].mean(dim=1).norm()) / 2
    )


@given(iterations=st.integers(0, 100_000), records=st.integers(2, 200))
def test_records_are_spread_from_the_first_iteration_to_the_last(iterations, records):
    places = log_spaced(iterations, records)
    assert places[0] == 0
    assert places[-1] == iterations
    assert places == sorted(set(places))
    assert len(places) <= max(records, 3)
    ratios = np.diff(np.log(np.maximum(places[1:], 1)))
    if records > 3 and iterations > 1:
        assert ratios.max() <= math.log(2) + math.log(iterations) / (records - 2) + 1e-9


# -- batches ---------------------------------------------------------------------------------------


def test_a_run_is_the_same_alone_and_in_a_batch():
    decays = ((2e-2, 3e-2, 0.5), (1e-2, 4e-3, 0.05))  # the first converge sooner
    problems = [
        SMALL.replace(weight_decay=w, feature_decay=h, bias="decayed", bias_decay=b)
        for w, h, b in decays
    ]
    other = tf.Problem("4x3", **DECAYS, loss="mse")
    options = {"lr": 0.4, "iterations": 450, "records": 20}
    together = train_ufm([problems[0], other, *problems[1:]], seeds=(5, 2), **options)
    assert [run.seed for run in together] == [5, 2] * 3
    ends = [run.iterations for run in together if run.problem.loss == "cross_entropy"]
    assert max(ends[:2]) < min(ends[2:])  # the others' places in the batch have changed
    assert [run.problem.loss for run in together][2:4] == ["mse"] * 2
    for i, problem in enumerate([problems[0], other, *problems[1:]]):
        for j, seed in enumerate((5, 2)):
            alone, batched = (
                train_ufm(problem, seeds=[seed], **options)[0],
                together[2 * i + j],
            )
            assert alone.status == batched.status
            assert alone.iterations == batched.iterations
            np.testing.assert_allclose(alone.logits, batched.logits, rtol=0, atol=1e-9)
            np.testing.assert_allclose(alone.class_means, batched.class_means, rtol=0, atol=1e-9)
            frames = [pd.DataFrame(run.history) for run in (alone, batched)]
            assert frames[1]["run"].unique().tolist() == [2 * i + j]
            names = ["iteration", "objective", "excess", "nc1", "logits_to_etf"]
            names += ["means_to_predicted", "spectrum_to_predicted"]
            frames = [frame[names] for frame in frames]
            pd.testing.assert_frame_equal(*frames, rtol=1e-9, atol=1e-9)


def test_only_decays_may_differ_in_a_batch():
    problems = [SMALL, *(SMALL.replace(**changes) for changes in (
        {"class_weights": "1x2,3x3"}, {"logit_adjustment": "prior"}, {"feature_decay": 0.02},
    ))]  # fmt: skip
    together = train_ufm(problems, iterations=30, lr=0.4)
    for problem, batched in zip(problems, together, strict=True):
        alone = train_ufm(problem, iterations=30, lr=0.4)[0]
        np.testing.assert_allclose(alone.logits, batched.logits, rtol=0, atol=1e-12)
    assert len({run.logits.tobytes() for run in together}) == 4
    Descent([problems[0], problems[3]], (0, 1), 4, **OPTIONS)
    for other, name in zip(problems[1:3], REWEIGHTED, strict=True):
        with pytest.raises(ValueError, match=f"problems: got {name} None and '.*only decays may"):
            Descent([problems[0], other], (0, 1), 4, **OPTIONS)


def test_large_batches_are_split(monkeypatch):
    whole = train_ufm(SMALL, seeds=range(3), iterations=50)
    sizes = []

    def counting(problems, *arguments, **options):
        sizes.append(len(problems))
        return Descent(problems, *arguments, **options)

    monkeypatch.setattr(ufm_module, "Descent", counting)
    monkeypatch.setattr(ufm_module, "BATCH_ENTRIES", 2 * 10 * SMALL.num_samples)
    split = train_ufm(SMALL, seeds=range(3), iterations=50)
    assert sizes == [2, 1]
    np.testing.assert_allclose(whole.logits, split.logits, rtol=0, atol=1e-9)


def test_only_the_diverging_run_diverges():
    problems = [SMALL.replace(weight_decay=1e3, feature_decay=1e-3), SMALL]
    with pytest.warns(RuntimeWarning, match="1 of 2 runs diverged") as caught:
        runs = train_ufm(problems, iterations=2000, records=500)  # one where it is noticed
    expected = ("diverged", "predicted logits")  # of the first problem all is zero
    assert all(any(text in str(w.message) for text in expected) for w in caught)
    bad, fine = runs
    assert bad.status == "diverged"
    assert "not finite" in bad.reason
    assert bad.gap is None
    assert bad.iterations < 2000
    assert math.isnan(bad.history[-1]["objective"])
    assert math.isfinite(bad.history[0]["objective"])
    assert fine.status == "converged"
    alone = train_ufm(SMALL, iterations=2000, records=500)[0]
    np.testing.assert_allclose(fine.logits, alone.logits, rtol=0, atol=1e-9)
    for row, other in zip(fine.history, alone.history, strict=True):
        assert row["objective"] == pytest.approx(other["objective"], rel=1e-9)
    assert runs.final_frame()["status"].tolist() == ["diverged", "converged"]


def test_weights_do_not_depend_on_default_dtype_or_modes():
    expected = train_ufm(SMALL, iterations=30)
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float16)
        with torch.inference_mode():
            found = train_ufm(SMALL, iterations=30)
    finally:
        torch.set_default_dtype(before)
    assert np.array_equal(expected.weights[0], found.weights[0])
    assert found.weights[0].dtype == np.float64


def test_seeds_decide_and_global_state_does_not():
    torch.manual_seed(1)
    first = train_ufm(SMALL, seeds=(0, 1), iterations=20)
    state = torch.get_rng_state()
    torch.manual_seed(2)
    second = train_ufm(SMALL, seeds=(0, 1), iterations=20)
    assert np.array_equal(first.logits, second.logits)
    assert not np.allclose(first.logits[0], first.logits[1])
    torch.manual_seed(1)
    assert torch.equal(state, torch.get_rng_state())


def test_starts_have_the_given_spread():
    problem = tf.Problem("500x2", **DECAYS, depth=2, bias="free")
    d = descent(problem, dim=60, init_std=0.3)
    for tensor in (*d.layers, d.columns):
        assert float(tensor.std()) == pytest.approx(0.3, rel=0.15)
    assert float(d.bias.abs().max()) > 0


def test_single_precision_comes_close():
    run = train_ufm(SMALL, iterations=2000, dtype=torch.float32, tol=1e-4)[0]
    assert run.status == "converged"
    assert abs(run.excess) < 1e-5


# -- ending ----------------------------------------------------------------------------------------


def test_the_gap_is_that_of_the_class_means():
    solution = tf.solve(SMALL)
    run = train_ufm(SMALL, iterations=20)[0]
    z, counts = run.logits, SMALL.counts
    shares = counts / counts.sum()
    loss = shares @ (np.log(np.exp(z).sum(axis=0)) - np.diagonal(z))
    cheapest = loss + 1e-2 * np.linalg.svd(z * np.sqrt(counts))[1].sum()
    assert run.gap == pytest.approx(cheapest - solution.lower_bound, rel=1e-9)
    assert run.gap < run.excess


def test_iterations_used_up_are_reported():
    run = train_ufm(SMALL, iterations=150, tol=0)[0]
    assert run.status == "stopped"
    assert run.reason == "all iterations used"
    assert run.iterations == 150
    assert run.history[-1]["iteration"] == 150
    assert run.excess > 1e-6


def test_no_iterations_measure_the_start():
    run = train_ufm(SMALL, iterations=0)[0]
    assert [row["iteration"] for row in run.history] == [0]
    assert run.status == "stopped"


def test_time_is_shared_among_batches(monkeypatch):
    ticks = itertools.count(0.0, 0.01)
    clock = SimpleNamespace(perf_counter=lambda: next(ticks))
    monkeypatch.setattr(ufm_module, "time", clock)  # a look at it takes 10 ms
    problems = [SMALL, tf.Problem("4x3", **DECAYS)]
    runs = train_ufm(problems, iterations=1000, tol=0, max_seconds=6)
    for run in runs:
        assert run.status == "stopped"
        assert run.reason == "max_seconds reached"
        assert 290 < run.iterations < 300
        assert run.iterations == run.history[-1]["iteration"]
    assert not runs.interrupted


def test_interrupted_training_keeps_what_it_has(monkeypatch):
    step, done = Descent.step, []

    def interrupting(self, *arguments):
        done.append(1)
        if len(done) == 130:
            raise KeyboardInterrupt
        step(self, *arguments)

    monkeypatch.setattr(Descent, "step", interrupting)
    problems = [tf.Problem("4x3", **DECAYS), SMALL]
    runs = train_ufm(problems, iterations=1000)
    assert runs.interrupted
    assert [run.iterations for run in runs] == [129, 0]
    assert {run.reason for run in runs} == {"interrupted"}
    assert runs[0].history[-1]["iteration"] == 129


def test_arrays_and_frames():
    runs = train_ufm([SMALL, SMALL.replace(weight_decay=2e-2)], seeds=(0, 1), iterations=30)
    k, dim = 5, 10
    assert len(runs) == 4
    assert runs.logits.shape == (4, k, k)
    assert runs.class_means.shape == (4, dim, k)
    assert [w.shape for w in runs.weights] == [(4, k, dim)]
    assert runs.bias.shape == (4, k)
    np.testing.assert_allclose(runs.weights[0] @ runs.class_means, runs.logits, atol=1e-12)
    frame = runs.to_frame()
    assert frame.groupby("run").size().tolist() == [len(run.history) for run in runs]
    final = runs.final_frame()
    assert final["problem"].tolist() == [0, 0, 1, 1]
    assert final["weight_decay"].tolist() == [1e-2, 1e-2, 2e-2, 2e-2]
    assert final["counts"].unique().tolist() == ["6x2,2x3"]
    mixed = train_ufm([SMALL, tf.Problem("4x3", **DECAYS, depth=2)], iterations=1)
    with pytest.raises(ValueError, match="logits: the runs have shapes"):
        _ = mixed.logits
    with pytest.raises(ValueError, match="weights: runs of depths"):
        _ = mixed.weights


def test_missing_pandas_is_named(monkeypatch):
    runs = train_ufm(SMALL, iterations=1)
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    with pytest.raises(ImportError, match=r"tightframe\[report\]"):
        runs.to_frame()


# -- arguments -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seeds", []),
        ("seeds", [1.5]),
        ("seeds", [-1]),
        ("seeds", [1, 1]),
        ("seeds", [2**63]),
        ("seeds", 3),
        ("dim", 0),
        ("dim", 2.0),
        ("lr", 0),
        ("lr", math.nan),
        ("momentum", 1),
        ("momentum", -0.1),
        ("momentum", "0.9"),
        ("momentum", math.nan),
        ("iterations", -1),
        ("iterations", 1.5),
        ("init_std", 0),
        ("schedule", "step"),
        ("schedule", 0.1),
        ("schedule", [(5, 0.1), (5, 0.2)]),
        ("schedule", [(5,)]),
        ("schedule", [5]),
        ("schedule", [(5, -1)]),
        ("schedule", lambda share: -1),
        ("schedule", lambda share: None),
        ("records", 1),
        ("dtype", torch.int64),
        ("device", "nowhere"),
        ("device", "meta:x"),
        ("per_sample", 1),
        ("normalized", 1),
        ("nonnegative", "abs"),
        ("tol", -1),
        ("tol", math.nan),
        ("tol", False),
        ("max_seconds", 0),
    ],
)
def test_bad_arguments_are_named(name, value):
    with pytest.raises(ValueError, match=rf"^{name}: "):
        train_ufm(SMALL, **{"iterations": 3, name: value})


@pytest.mark.parametrize("problems", ["5x2", None, [], [SMALL, "x"]])
def test_bad_problems_are_named(problems):
    with pytest.raises(ValueError, match=r"^problems: "):
        train_ufm(problems)


def test_a_width_is_not_overruled():
    with pytest.raises(ValueError, match=r"^dim: got 8, but a problem has dim 6"):
        train_ufm(SMALL.replace(dim=6), dim=8)
    assert train_ufm(SMALL.replace(dim=6), iterations=0)[0].class_means.shape == (6, 5)


def test_one_width_a_layer():
    """Two layers with a narrow middle reach the best known minimum."""
    problem = tf.Problem("9,5x2,3", depth=2, **DECAYS)
    run = train_ufm(problem, dim=(6, 2), lr=0.3, iterations=4000, init_std=0.5, seeds=[1])[0]
    assert run.problem.dim == (6, 2)
    assert [w.shape for w in run.weights] == [(2, 6), (4, 2)]
    assert run.class_means.shape == (6, 4)
    assert run.history[-1]["objective"] == pytest.approx(run.reference.objective, rel=0.02)
    assert run.history[-1]["rank"] <= 2
    with pytest.raises(ValueError, match="dim: got 3 numbers for depth 2"):
        train_ufm(problem, dim=(6, 2, 2))


# -- the direction of the UFM-SVM ------------------------------------------------------------------


def test_svm_direction_of_seli_and_of_others():
    counts = [50, 50, 5, 5]
    exact = svm_direction(counts, 3 * tf.seli(counts).logits)
    assert exact.distance < 1e-12
    assert exact.margin == pytest.approx(3)
    assert exact.gap == pytest.approx(0, abs=1e-9)
    lengths = np.array([1.0, 2.0, 1.0, 3.0])
    diagonal = svm_direction(counts, np.diag(lengths))
    root = np.sqrt(counts)
    z, frame = np.diag(lengths * root), (np.eye(4) - 1 / 4) * root
    expected = np.linalg.norm(z / np.linalg.norm(z) - frame / np.linalg.norm(frame))
    assert diagonal.distance == pytest.approx(expected, rel=1e-12)
    nuclear = np.linalg.svd(z)[1].sum() / np.linalg.svd(frame)[1].sum() - 1
    assert 0 < nuclear <= diagonal.gap + 1e-9
    certificate = tf.certify_svm(counts, np.diag(lengths))
    assert diagonal.gap == pytest.approx(certificate.primal / certificate.dual - 1, rel=1e-12)
    assert svm_direction(counts, -np.eye(4)).gap is None
    with pytest.warns(RuntimeWarning, match="zero"):
        zero = svm_direction(counts, np.zeros((4, 4)))
    assert math.isnan(zero.distance)
    with pytest.raises(ValueError, match="logits"):
        svm_direction(counts, np.eye(3))


def test_svm_direction_with_a_free_bias():
    counts = [50, 50, 5, 5]
    frame = tf.seli(counts, bias="free").logits
    # The bias that the margins need is not part of the logits: the best one is meant.
    exact = svm_direction(counts, 3 * frame, bias="free")
    assert exact.distance < 1e-12
    assert exact.margin == pytest.approx(3)
    assert exact.gap == pytest.approx(0, abs=1e-9)
    other = svm_direction(counts, frame)
    assert other.distance > 0.3
    assert other.margin == pytest.approx(1 - 45 / 110)
    assert svm_direction(counts, -np.eye(4), bias="free").gap is None


def test_weaker_decay_points_closer_to_the_svm():
    problems = [
        tf.Problem("12x2,3x2", weight_decay=decay, feature_decay=decay)
        for decay in (1e-2, 1e-3, 1e-4)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        runs = train_ufm(problems, iterations=2000, per_sample=False, lr=0.5)
    distances = [svm_direction([12, 12, 3, 3], run.logits).distance for run in runs]
    assert distances[0] > distances[1] > distances[2]


MEMBERS = [
    {"label_smoothing": 0.1},
    {"class_margins": "0.2x2,0.5x2"},
    {"logit_scale": "1x2,0.6x2"},
    {"feature_weights": "10x2,2x2"},
    {
        "label_smoothing": 0.1,
        "smoothing_weights": "labels",
        "class_weights": "1x2,2x2",
        "class_margins": "0x2,0.3x2",
        "logit_scale": "1x2,0.8x2",
        "logit_adjustment": "prior",
        "bias": "decayed",
        "bias_decay": 0.1,
    },
]


@pytest.mark.parametrize("terms", MEMBERS)
@pytest.mark.parametrize("per_sample", [True, False])
def test_descent_ends_at_the_prediction_of_its_own_loss(terms, per_sample):
    problem = tf.Problem("10x2,4x2", weight_decay=2e-2, feature_decay=2e-2, **terms)
    [run] = train_ufm(problem, iterations=1500, dim=4, per_sample=per_sample, records=2, lr=0.3)
    assert abs(run.excess) < 1e-7
    assert run.distance < 2e-4
    # What the descent calls its objective is that of its arrays, as the theory writes it.
    labels = np.repeat(np.arange(4), problem.counts)
    features = run.class_means.T[labels]
    bias = None if problem.bias == "none" else run.bias
    written = factored_objective(problem, run.weights, features, labels, bias)
    assert run.history[-1]["objective"] == pytest.approx(written, rel=1e-6)


@pytest.mark.parametrize("terms", MEMBERS)
def test_gradients_are_differences_of_the_objective(terms):
    problem = tf.Problem("3x2,2x2", weight_decay=2e-2, feature_decay=3e-2, dim=3, **terms)
    d = descent(problem, dim=3)
    columns, moved = d.columns, d.gradients()[1][0]
    for place in ((0, 0), (2, 9), (1, 5)):
        ends = []
        for step in (1e-5, -1e-5):
            d.columns = columns.clone()
            d.columns[0, place[0], place[1]] += step
            ends.append(float(d.evaluate().objective))
        assert (ends[0] - ends[1]) / 2e-5 == pytest.approx(float(moved[place]), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("per_sample", [True, False])
def test_normalized_steps_divide_the_gradient_by_the_samples_mean_of_one_less_p(per_sample):
    problem = tf.Problem("3,2x2", bias="free", class_weights=[1, 2, 3], **DECAYS)
    d = descent(problem, normalized=True, per_sample=per_sample)
    layers = [torch.tensor(w, requires_grad=True) for w in factors(d)[0]]
    _, features, labels, bias = factors(d)
    features = torch.tensor(features, requires_grad=True)
    scores = features @ layers[0].T + torch.tensor(bias)
    labels = torch.as_tensor(labels)
    weight = torch.tensor(problem.class_weights)[labels]
    functional.cross_entropy(scores, labels, reduction="none").mul(weight).mean().backward()
    wrong = 1 - scores.softmax(dim=1)[torch.arange(len(labels)), labels].mean()
    by_layer, by_column, _ = d.gradients()
    torch.testing.assert_close(by_layer[0], layers[0].grad / wrong)
    for label in range(3):
        column = by_column[0][:, d.labels == label][:, 0]
        torch.testing.assert_close(column, features.grad[labels == label][0] / wrong)


def test_normalized_steps_survive_probabilities_below_every_float():
    d = descent(tf.Problem("2x3", **DECAYS), normalized=True, init_std=60.0, dim=3)
    d.layers[0] = d.layers[0] * 0 + 60 * torch.eye(3, dtype=torch.float64)
    d.columns = d.columns * 0 + 60 * (d.labels == torch.arange(3)[:, None]).double()
    assert float(d.evaluate().loss) == 0  # e^-3600
    for gradient in d.gradients():
        assert gradient.isfinite().all()
        assert gradient.abs().max() > 0.1


def test_normalized_descent_tends_to_seli_without_decays():
    problem = tf.Problem("10x2,1x2", weight_decay=1, feature_decay=1, dim=6)
    found = train_ufm(problem, normalized=True, lr=0.05, momentum=0.0, iterations=8000)[0]
    assert (found.status, found.reference, found.gap) == ("stopped", None, None)
    assert "svm_direction" in found.gap_note
    assert math.isnan(found.excess)
    assert svm_direction("10x2,1x2", found.logits).gap < 0.15
    assert found.final["classifier_to_seli"] < 0.06 < 0.2 < found.final["classifier_to_etf"]


def test_the_normalized_direction_with_a_free_bias_is_that_without():
    """The bias grows slower than the logits: its gradient is not multiplied by a factor."""
    problem = tf.Problem("10x2,1x2", weight_decay=1, feature_decay=1, bias="free", dim=6)
    found = train_ufm(problem, normalized=True, lr=0.05, momentum=0.0, iterations=8000)[0]
    without = svm_direction("10x2,1x2", found.logits).distance
    assert without < 0.08
    assert without < svm_direction("10x2,1x2", found.logits, bias="free").distance / 3


@pytest.mark.parametrize("terms", [{"loss": "mse"}, {"label_smoothing": 0.1}])
def test_normalized_descent_needs_a_loss_that_vanishes(terms):
    problem = tf.Problem("3x3", **DECAYS, **terms)
    with pytest.raises(ValueError, match=f"normalized: got True with {next(iter(terms))}"):
        train_ufm(problem, normalized=True)
