"""Networks on contexts: what the callback measures, written out in NumPy."""

import math

import lightning
import numpy as np
import pytest
import torch

from tests.problems import SMALL_TEXT
from tightframe.geometry.dense import gram_distance, normalized_distance, simplex_etf
from tightframe.problem.problem import Problem
from tightframe.problem.tokens import next_tokens
from tightframe.solve import solve
from tightframe.training import CollapseModule, ContextCallback, TokenMLP, linear_head
from tightframe.training.contexts import COLUMNS

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:lightning")

FOUND = next_tokens(SMALL_TEXT, 2, 5)
DECAYS = {"weight_decay": 2e-2, "feature_decay": 2e-4}
TOKENS = sorted({token for context in FOUND.contexts for token in context})
INPUTS = torch.tensor([[TOKENS.index(token) for token in context] for context in FOUND.contexts])


def problem(**rest):
    counts = FOUND.counts.toarray()
    totals = counts.sum(axis=0)
    return Problem(totals, targets=counts / totals, **DECAYS | rest)


def trained(solution, epochs, every=2):
    torch.manual_seed(0)
    own = solution.problem
    backbone = TokenMLP(len(TOKENS), 2, solution.rank + 3, (64,), embedding_dim=16)
    head = linear_head(solution.rank + 3, own.num_classes, bias=own.bias != "none")
    module = CollapseModule(backbone, head, own, lr=1e-2)
    callback = ContextCallback(solution, INPUTS, every=every)
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        callbacks=[callback],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    batch = (INPUTS, torch.arange(len(INPUTS)), torch.from_numpy(own.counts))
    trainer.fit(module, torch.utils.data.DataLoader([batch], batch_size=None))
    return module, callback


@pytest.mark.parametrize(
    "rest",
    [
        {},
        {"bias": "decayed", "bias_decay": 0.01, "feature_weights": "contexts"},
        {"class_weights": np.linspace(0.5, 2, len(INPUTS)), "bias": "free"},
    ],
)
def test_a_row_is_what_numpy_says(rest):
    solution = solve(problem(**rest))
    module, callback = trained(solution, 3)
    own = solution.problem
    with torch.no_grad():
        h = module.backbone(INPUTS).double().numpy().T
        weight = module.head[-1].weight.double().numpy()
        bias = module.head[-1].bias
    b = np.zeros(len(weight)) if bias is None else bias.detach().double().numpy()
    z, p = weight @ h, own.targets.by_context.toarray().T
    scores = z + b[:, None]
    log_q = scores - np.log(np.exp(scores).sum(axis=0))
    share = own.class_weights * own.counts / own.num_samples
    loss = -(p * log_q).sum(axis=0) @ share
    decays = 2e-2 * (weight**2).sum() + 2e-4 * ((h**2).sum(axis=0) @ own.feature_weights)
    objective = loss + (decays + own.bias_decay * (b @ b)) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        entropy = -np.nansum(p * np.log(p), axis=0) @ share
    k, m = scores.shape
    values = np.linalg.svd(z * np.sqrt(own.feature_weights), compute_uv=False)
    best = np.linalg.svd(solution.logits * np.sqrt(own.feature_weights), compute_uv=False)
    right = p[scores.argmax(axis=0), range(m)] @ own.counts / own.num_samples
    want = {
        "loss": loss,
        "objective": objective,
        "excess": objective - solution.lower_bound,
        "relative_excess": objective / solution.lower_bound - 1,
        "divergence": loss - entropy,
        "train_accuracy": right,
        "logits_to_predicted": normalized_distance(z, solution.logits),
        "classifier_to_predicted": normalized_distance(
            weight @ weight.T, solution.weights[0] @ solution.weights[0].T
        ),
        "classifier_to_etf": normalized_distance(weight @ weight.T, simplex_etf(k).classifier),
        "means_to_predicted": normalized_distance(
            h.T @ h, solution.class_means.T @ solution.class_means
        ),
        "directions": (values > best[solution.rank - 1] / 2).sum(),
        "beyond_rank": math.sqrt((values[solution.rank :] ** 2).sum() / (values**2).sum()),
    }
    row = callback.history[-1]
    assert list(row) == list(COLUMNS)
    assert [r["epoch"] for r in callback.history] == [0, 2, 3]
    assert {name: row[name] for name in want} == pytest.approx(want, rel=1e-6, abs=1e-9)
    assert row["excess"] > 0
    assert torch.equal(callback.final.features.double(), torch.from_numpy(h.T.copy()))


def test_training_descends_to_the_certified_minimum():
    solution = solve(problem())
    module, callback = trained(solution, 1)
    module.double()
    optimizer = torch.optim.LBFGS(
        module.parameters(), max_iter=200, history_size=20, line_search_fn="strong_wolfe"
    )
    every, repeats = torch.arange(len(INPUTS)), torch.from_numpy(solution.problem.counts)

    def objective():
        optimizer.zero_grad()
        loss = module.loss(module.backbone(INPUTS), every, module.head, repeats=repeats)
        loss.backward()
        return loss

    optimizer.step(objective)
    last = callback.measure(module).row
    assert 0 < last["relative_excess"] < 1e-3
    assert last["classifier_to_predicted"] < 0.1 < last["classifier_to_etf"]
    assert last["directions"] == solution.rank


def test_what_collapses_has_no_distance():
    solution = solve(problem(weight_decay=10.0, feature_decay=10.0))
    assert solution.rank == 0
    row = trained(solution, 1)[1].history[-1]
    assert math.isnan(row["logits_to_predicted"])
    assert math.isnan(row["means_to_predicted"])


def test_other_inputs_are_refused():
    with pytest.raises(ValueError, match=f"inputs: got 3, the problem has {len(INPUTS)} contexts"):
        ContextCallback(solve(problem()), INPUTS[:3])
    with pytest.raises(ValueError, match="every: got 0, need at least 1"):
        ContextCallback(solve(problem()), INPUTS, every=0)
    with pytest.raises(ValueError, match="embedding_dim: got 0"):
        TokenMLP(3, 2, 4, embedding_dim=0)


def test_gram_distance_is_that_of_the_matrices():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(3, 7)), rng.normal(size=(5, 7))
    assert gram_distance(a, b) == pytest.approx(normalized_distance(a.T @ a, b.T @ b), abs=1e-12)
    assert gram_distance(1e200 * a, a) < 1e-7
    with pytest.warns(RuntimeWarning, match="zero matrix"):
        assert math.isnan(gram_distance(a, 0 * a))
    with pytest.raises(ValueError, match="b: got shape"):
        gram_distance(a, b[:, :4])
