"""`train_ufm` of problems with label distributions."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

import tightframe as tf
from tightframe.geometry.dense import normalized_distance, simplex_etf
from tightframe.training import train_ufm
from tightframe.training.ufm.context_records import COLUMNS

# shared/contexts.md section 9, R1.
LAWS = np.array(
    [[0.7, 0.2, 0.1, 0], [0.1, 0.6, 0.3, 0], [0, 0.5, 0.5, 0], [0.25] * 4, [0, 0, 0, 1]]
).T
COUNTS = [40, 30, 20, 10, 5]
KINDS = [
    {},
    {"bias": "free"},
    {"bias": "decayed", "bias_decay": 0.02, "feature_weights": "contexts"},
    {"class_weights": [1, 2, 0.5, 3, 1], "feature_weights": [40, 5, 20, 1, 5]},
]


def make(**rest):
    decays = {"weight_decay": 0.02, "feature_decay": 0.02}
    return tf.Problem(COUNTS, targets=LAWS, **decays | rest)


def objective(problem, run):
    """Return the objective of a run whose features are its context means, by PyTorch's losses."""
    w, h, b = (torch.from_numpy(a) for a in (run.weights[0], run.class_means, run.bias))
    losses = functional.cross_entropy(
        (w @ h + b[:, None]).T, torch.from_numpy(LAWS.T), reduction="none"
    )
    weights = torch.tensor(problem.class_weights * problem.counts / problem.num_samples)
    decayed = torch.tensor(problem.feature_weights) @ h.square().sum(dim=0)
    decays = problem.weight_decays[0] * w.square().sum() + problem.feature_decay * decayed
    return float(weights @ losses + (decays + problem.bias_decay * b.square().sum()) / 2)


@pytest.mark.parametrize("per_sample", [True, False])
def test_descent_ends_at_the_certified_minimum(per_sample):
    for kind in KINDS:
        problem = make(**kind)
        (run,) = train_ufm(problem, iterations=3000, lr=1.0, per_sample=per_sample)
        assert run.status == "converged"
        assert -1e-12 < run.excess < 1e-7
        assert run.gap < 1e-7
        assert run.distance < 1e-3
        assert run.final["rank"] == tf.solve(problem).rank


def test_the_reference_value_is_reached():
    (run,) = train_ufm(make(), iterations=2000, lr=0.5, per_sample=False, tol=1e-8)
    assert run.history[-1]["objective"] == pytest.approx(1.305938429406, abs=1e-11)


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_is_what_numpy_says(kind):
    problem = make(**kind)
    solution = tf.solve(problem)
    (run,) = train_ufm(problem, iterations=7, records=2, per_sample=False, dim=6)
    w, h, z = run.weights[0], run.class_means, run.logits
    scores = z + run.bias[:, None]
    root = np.sqrt(problem.feature_weights)
    spectra = [np.linalg.svd(m * root, compute_uv=False) for m in (z, solution.logits)]
    value = objective(problem, run)
    share = LAWS[scores.argmax(axis=0), range(5)] @ COUNTS / sum(COUNTS)
    row = run.history[-1]
    want = {
        "objective": value,
        "excess": value - solution.lower_bound,
        "train_accuracy": share,
        "logits_to_predicted": normalized_distance(z, solution.logits),
        "classifier_to_predicted": normalized_distance(
            w @ w.T, solution.weights[0] @ solution.weights[0].T
        ),
        "classifier_to_etf": normalized_distance(w @ w.T, simplex_etf(4).classifier),
        "means_to_predicted": normalized_distance(
            h.T @ h, solution.class_means.T @ solution.class_means
        ),
        "spectrum_to_predicted": normalized_distance(*spectra),
        "bias_norm": np.linalg.norm(run.bias),
    }
    assert {name: row[name] for name in want} == pytest.approx(want, rel=1e-9, abs=1e-9)
    assert set(COLUMNS) <= set(row)
    assert math.isnan(row["nc1_quotient"])


def test_samples_of_a_context_collapse():
    (run,) = train_ufm(make(), iterations=300, lr=0.5, tol=0)
    quotients = [row["nc1_quotient"] for row in run.history]
    assert quotients[0] > 1
    assert quotients[-1] < 1e-6
    assert run.class_means.shape == (8, 5)
    assert run.logits.shape == (4, 5)


def test_a_run_that_diverges_says_so():
    with pytest.warns(RuntimeWarning, match="1 of 1 runs diverged"):
        (run,) = train_ufm(make(), iterations=400, lr=1e4, per_sample=False)
    assert run.status == "diverged"
    assert set(COLUMNS) <= set(run.history[-1])


def test_several_decays_are_one_batch():
    problems = [make(weight_decay=decay) for decay in (0.01, 0.05)]
    runs = train_ufm(problems, seeds=range(2), iterations=1500, lr=0.5, per_sample=False)
    alone = train_ufm(problems[1], seeds=[1], iterations=1500, lr=0.5, per_sample=False)
    assert [run.seed for run in runs] == [0, 1, 0, 1]
    assert runs[3].logits == pytest.approx(alone[0].logits, rel=1e-9, abs=1e-9)
    assert "targets" not in runs.final[0]


def test_too_narrow_features_are_refused():
    with pytest.raises(ValueError, match="dim: got 1, and the minimiser has rank 2"):
        train_ufm(make(), dim=1)
