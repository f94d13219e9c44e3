"""What remedies do to merging and margins, and warnings of those that let classes merge earlier."""

import numpy as np
import pytest
import torch

import tightframe as tf
from tests.problems import at, make
from tightframe.advice.remedies import remedies


def test_remedies_are_compared_in_merging_and_in_margins():
    problem = make("500x5,100x5", decay=1.4e-3)
    found = {(remedy.kind, remedy.factors[1] > 1): remedy for remedy in remedies(problem)}
    scale = 0.2**0.3
    expected = {
        ("class_weights", True): 3,
        ("logit_adjustment", False): 1,
        ("label_smoothing", False): 0.9,
        ("logit_scale", False): scale,
        ("logit_scale", True): 1 / scale,
        ("feature_weights", True): 1 / scale,
    }
    for key, factor in expected.items():
        assert found[key].factors[1] == pytest.approx(factor)
    assert found["class_margins", True].factors[1] == pytest.approx(1.0496, abs=1e-3)
    for remedy in found.values():
        solution = tf.solve(remedy.problem)
        margins = [group.decision_margin for group in remedy.after.groups]
        if remedy.kind != "feature_weights":
            assert np.allclose(margins, solution.group_states.decision_margin, atol=1e-6)
        place = remedy.merges[1]
        below, above = (tf.solve(at(remedy.problem, place * f)) for f in (0.999, 1.001))
        assert below.group_margins[1] > 1e-5
        assert above.group_margins[1] == 0
    assert tf.advise(problem).remedies[0].kind == "class_weights"


def test_ldt_has_the_margins_of_the_network_that_its_loss_trains():
    """Its loss sees kappa times the logits that decide at test time."""
    problem = make("50x2,10x2", decay=4e-3)
    (remedy,) = (found for found in remedies(problem) if found.kind == "feature_weights")
    counts = torch.tensor(problem.counts, dtype=torch.float64)
    kappa = (50 / counts) ** 0.3
    generator = torch.Generator().manual_seed(0)
    w, h = (torch.randn(4, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    for part in (w, h):
        part.requires_grad_()
    optimizer = torch.optim.LBFGS([w, h], max_iter=3000, line_search_fn="strong_wolfe")
    optimizer.param_groups[0] |= {"tolerance_grad": 1e-12, "tolerance_change": 1e-15}

    def objective():
        optimizer.zero_grad()
        losses = torch.nn.functional.cross_entropy(
            kappa[:, None] * (h @ w.T), torch.arange(4), reduction="none"
        )
        decay = w.square().sum() + counts @ h.square().sum(dim=1)
        total = counts @ losses / counts.sum() + 4e-3 / 2 * decay
        total.backward()
        return total

    optimizer.step(objective)
    z = (h @ w.T).detach()
    others = z.clone().fill_diagonal_(-np.inf).amax(dim=1)
    margins = (z.diagonal() - others)[[0, 2]].tolist()
    found = [group.decision_margin for group in remedy.after.groups]
    assert found == pytest.approx(margins, rel=1e-4)
    lengths = h.detach().norm(dim=1)[[0, 2]].tolist()
    assert [group.mean_norm for group in remedy.after.groups] == pytest.approx(lengths, rel=1e-4)


def test_groups_that_only_another_term_tells_apart_are_compared_too():
    """CDT takes the place of scales that tell classes of one count apart: each has its factor."""
    problem = make("500x3,100x6", decay=1e-3, logit_scale="1x3,.6x3,1x3")
    remedy = next(found for found in remedies(problem) if "CDT:" in found.text)
    assert len(remedy.problem.groups) == len(remedy.after.groups) == 2
    assert remedy.factors == pytest.approx((1, 0.2**0.3 / 0.6, 0.2**0.3))
    for group, place in ((0, remedy.merges[0]), (1, remedy.merges[1])):
        below, above = (tf.solve(at(remedy.problem, place * f)) for f in (0.999, 1.001))
        assert below.group_margins[group] > 1e-5
        assert above.group_margins[group] == 0
    assert remedy.merges[1] == remedy.merges[2]


def test_many_groups_are_compared_but_for_where_margins_merge_them():
    counts = ",".join(f"{10 * k}x2" for k in range(1, 33))
    found = {remedy.text: remedy for remedy in remedies(make(counts, decay=1e-6))}
    cdt = next(remedy for text, remedy in found.items() if "CDT:" in text)
    assert cdt.factors == pytest.approx([(k / 32) ** 0.3 for k in range(1, 33)])
    (ldam,) = (remedy for text, remedy in found.items() if "LDAM" in text)
    assert set(ldam.factors) == {None}
    assert ldam.after.gap is not None


def test_what_is_out_of_range_is_not_compared():
    problem = make("2000000000x2,1000x2", decay=1e-9)
    kinds = {remedy.kind for remedy in remedies(problem)}
    assert {"class_weights", "class_margins"} < kinds
    assert "feature_weights" not in kinds


@pytest.mark.parametrize(
    "options", [{"loss": "mse"}, {"counts": "9x3"}, {"features": "nonnegative"}]
)
def test_nothing_is_compared_where_nothing_is_known(options):
    assert remedies(make(**options)) == ()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"label_smoothing": 0.1}, "label_smoothing 0.1: all classes merge at 0.9 of the decay"),
        (
            {"logit_scale": "1x5,.6x5"},
            "logit_scale 0.6: 5 classes of 100 samples merge at 0.6 of the decay",
        ),
        (
            {"feature_weights": "500x5,400x5"},
            "feature_weights 400: 5 classes of 100 samples merge at 0.5 of the decay",
        ),
        (
            {"class_margins": "0x5,-.5x5"},
            "class_margins -0.5: 5 classes of 100 samples merge at a smaller decay",
        ),
        (
            {"class_weights": "1x5,.5x5"},
            "class_weights 0.5: 5 classes of 100 samples merge at 0.5 of the decay",
        ),
    ],
)
def test_a_remedy_that_lets_classes_merge_earlier_is_warned_of(options, said):
    problem = make("500x5,100x5", decay=1e-3, **options)
    found = tf.advise(problem).warnings
    assert said in found
    plain = tf.thresholds(make("500x5,100x5")).groups[1].merges
    assert tf.thresholds(problem).groups[1].merges < plain * (1 - 1e-6)


def test_weights_that_let_large_classes_merge_before_all_others_are_warned_of():
    problem = make("20x2,10x8", decay=1e-2, class_weights="balanced")
    said = ["class_weights 0.6: 2 classes of 20 samples merge at 0.6 of the decay"]
    assert tf.advise(problem).warnings == said
    first = 0.6 * 20**0.5 / 120
    assert first < 10**0.5 / 120  # from where the first merge without weights
    below, above = (tf.solve(at(problem, first * f)).group_margins[0] for f in (0.999, 1.001))
    assert below > 0 == above


def test_many_groups_are_warned_of_in_one_sentence():
    scales = ",".join(f"{0.9 - 0.1 * k:.1f}x2" for k in range(6))
    problem = make("60x2,50x2,40x2,30x2,20x2,10x2", decay=1e-4, logit_scale=scales)
    said = "logit_scale: the classes of 6 groups merge at 0.4 to 0.9 of the decay"
    assert tf.advise(problem).warnings == [said]


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_feature_weights_are_warned_of_with_every_loss(loss):
    problem = make("500x5,100x5", loss, decay=1e-4, feature_weights="500x5,400x5")
    (said,) = tf.advise(problem, margin=0.1).warnings
    verb = "vanish" if loss == "mse" else "merge"
    assert said == f"feature_weights 400: 5 classes of 100 samples {verb} at 0.5 of the decay"


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"logit_scale": "1x5,2x5"},
        {"class_margins": "0x5,.5x5"},
        {"class_weights": "balanced"},
        {"class_weights": ".5x10"},
    ],
)
def test_others_are_not(options):
    assert tf.advise(make("500x5,100x5", decay=1e-3, **options)).warnings == []
