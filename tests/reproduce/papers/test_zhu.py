"""Zhu et al.'s figures: settings valid at every scale, verdicts that follow the measurements."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tightframe as tf
from tests.reproduce.papers.minimisers import MINIMISERS
from tightframe.figures.model import Chart
from tightframe.problem.problem import Problem
from tightframe.reproduce.papers.zhu import fixed_etf, landscape, shared
from tightframe.reproduce.spec import SCALES
from tightframe.runs.config import RunConfig

OWN = MINIMISERS["zhu"]
FIGURES, ideal, judged = OWN.figures, OWN.ideal, OWN.judged


# -- settings --------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", FIGURES)
def test_all_problems_are_balanced(name, scale):
    tasks = FIGURES[name].tasks(scale)
    assert len({task.hash for task in tasks}) == len(tasks)
    for task in tasks:
        if task.kind == "network":
            config = RunConfig.from_dict(task.arguments["config"])
            (problem,) = config.problems
            assert len(problem.groups) == 1
            assert problem.num_classes == 10
            # The prediction that stands beside it is an ETF, not total collapse.
            assert problem.logit_decay < 0.2 / math.sqrt(10 * problem.num_samples)
        else:
            problems = [Problem(**values) for values in task.arguments["problems"]]
            assert all(len(problem.groups) == 1 for problem in problems)


def test_the_paper_scale_has_the_settings_of_the_code():
    optimizers = {
        (task.labels["data"], task.labels["optimizer"]): task.arguments["config"]
        for task in FIGURES["optimizers"].tasks("paper")
    }
    assert len(optimizers) == 6
    for (data, name), config in optimizers.items():
        assert config["data"] == data
        assert config["network"] == "resnet18"
        assert config["settings"][0][0] == 5e-4
        assert config["decay_on"] == "all"
        assert config["epochs"] == 200
        assert config["bias"] == "free"
        expected = {
            "SGD": ("sgd", 0.05, 128, [40, 80, 120, 160]),
            "Adam": ("adam", 1e-4, 64, [40, 80, 120, 160]),
            "L-BFGS": ("lbfgs", 0.1, None, None),
        }[name]
        got = tuple(config.get(key) for key in ("optimizer", "lr", "batch_size", "milestones"))
        assert got == expected
    fixed = [task for task in FIGURES["fixed-etf"].tasks("paper") if task.kind == "network"]
    shapes = {
        (c["network"], c["head"], c["feature_dim"])
        for c in (task.arguments["config"] for task in fixed)
    }
    assert shapes == {
        (network, head, width)
        for network, own in (("resnet18", 512), ("resnet50", 2048))
        for head in ("linear", "fixed_etf")
        for width in (own, 10)
    }
    on_features = [t for t in FIGURES["decay"].tasks("paper") if t.labels["place"] == "features"]
    assert on_features
    for task in on_features:
        assert task.arguments["config"]["settings"][0] == [5e-4, 1.28e-7]


# -- computations ----------------------------------------------------------------------------------


@given(seed=st.integers(0, 10**6), d=st.integers(3, 8), offset=st.floats(-3, 3))
def test_collapse_metrics_are_the_papers(seed, d, offset):
    rng = np.random.default_rng(seed)
    k = 4
    weight, means = rng.normal(size=(k, d)), rng.normal(size=(d, k)) + offset
    bias = rng.normal(size=k)
    mu = sum(means[:, c] for c in range(k)) / k
    alignment = math.sqrt(sum(v**2 for v in bias + weight @ mu))
    row = {"nc1": 0.3, "classifier_to_etf": 0.2, "bias_alignment": alignment}
    nc1, nc2, nc3, nc4 = shared.collapse_metrics(row, weight @ means)
    product = weight @ np.stack([means[:, c] - mu for c in range(k)], axis=1)
    norm = math.sqrt((product**2).sum())
    target = (np.eye(k) - np.ones((k, k)) / k) / math.sqrt(k - 1)
    assert (nc1, nc2) == (0.3, 0.2)
    assert nc3 == pytest.approx(math.sqrt(((product / norm - target) ** 2).sum()), abs=1e-9)
    lengths = [float(np.linalg.norm(product[:, c])) for c in range(k)]
    assert nc4 == pytest.approx(alignment / math.sqrt(sum(x**2 for x in lengths) / k))


def test_a_dead_network_has_no_metric():
    row = {"nc1": 1.0, "classifier_to_etf": 0.1, "bias_alignment": 0.0}
    with pytest.warns(RuntimeWarning):
        values = shared.collapse_metrics(row, np.zeros((3, 3)))
    assert math.isnan(values[2])
    assert math.isnan(values[3])


def test_the_drawn_threshold_is_where_the_solver_finds_zero():
    panels = FIGURES["landscape"].draw(ideal("landscape", "smoke"))
    charts = [panel for panel in panels if isinstance(panel, Chart)]
    (threshold,) = {m.value for c in charts for m in c.marks if m.label == "1/(K√n)"}
    for factor, zero in ((1 - 1e-6, False), (1 + 1e-6, True)):
        solution = tf.solve(Problem(**shared.problem_of(decay=factor * threshold)))
        assert (np.abs(solution.logits).max() == 0) == zero


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "parameters", "saved"),
    [("resnet18", 11_181_642, 2_314_100), ("resnet50", 23_528_522, 1_047_412)],
)
def test_built_networks_have_the_parameters_of_the_papers_code(network, parameters, saved):
    assert fixed_etf.built_parameters(network, 10) == parameters
    assert fixed_etf.built_parameters(network, 10, 10) == parameters - saved


def naive_objective(weight, scaled):
    """The UFM's objective at ``scaled = sqrt(n) H``, written out."""
    n, k = 20, 10
    logits = weight @ scaled / math.sqrt(n)
    loss = np.mean([np.log(np.exp(z - z[c]).sum()) for c, z in enumerate(logits.T)])
    assert len(logits) == k
    return loss + 5e-3 / 2 * ((weight**2).sum() + (scaled**2).sum())


def test_narrow_minimisers_are_saddles_with_the_curvature_that_finite_differences_show():
    part = ideal("landscape", "smoke").select(what="narrow")
    (run,) = [run for run in part.runs if run.problem.dim == 8]
    logits = run.array("logits")
    stages, converged = landscape._descent(logits.tobytes())
    first, direction = stages[0], stages[0].direction
    assert converged
    assert first.verdict == "strict saddle"
    assert first.rank == 8
    left, values, right = np.linalg.svd(logits * math.sqrt(20))
    weight, scaled = np.zeros((10, 11)), np.zeros((11, 10))
    weight[:, :8] = (left * np.sqrt(values))[:, :8]
    scaled[:8] = (np.sqrt(values)[:, None] * right)[:8]
    at = naive_objective(weight, scaled)
    assert first.objective == pytest.approx(at, abs=1e-9)
    d_weight, d_scaled = direction.step.weights, math.sqrt(20) * direction.step.class_means
    t = 1e-3
    ends = [naive_objective(weight + s * d_weight, scaled + s * d_scaled) for s in (t, -t)]
    assert (sum(ends) - 2 * at) / t**2 == pytest.approx(direction.curvature, rel=1e-3)
    # The end is the ETF's objective, by the closed form of the margin.
    margin = math.log(1 / (5e-3 * math.sqrt(20)) - 9)
    lowest = math.log(1 + 9 * math.exp(-margin)) + 5e-3 * math.sqrt(20) * 9 * margin
    assert stages[-1].objective == pytest.approx(lowest, abs=1e-9)


# -- verdicts --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in FIGURES if name != "landscape"])
def test_the_paper_scale_is_judged_by_the_same_rules(name):
    assert set(judged(name, "paper")) == {"reproduced"}
    assert 2 <= len(FIGURES[name].draw(ideal(name, "paper"))) <= 6


@pytest.mark.parametrize(
    ("name", "count"), [("optimizers", 3), ("random-labels", 2), ("decay", 4), ("fixed-etf", 2)]
)
def test_smoke_networks_decide_nothing_about_collapse(name, count):
    results = ideal(name, "smoke")
    verdicts = FIGURES[name].judge(results)
    undecided = [v for v in verdicts if v.outcome == "not at this scale"]
    assert len(undecided) == count
    assert all("short training" in v.sentence for v in undecided)
    assert {v.outcome for v in verdicts if v not in undecided} <= {"reproduced"}
    # The criteria are those of the other scales.
    assert {v.criterion for v in verdicts} == {
        v.criterion for v in FIGURES[name].judge(ideal(name, "cpu"))
    }
    assert FIGURES[name].draw(results)


def changing(what, column=None, value=None, array=None, **labels):
    """Return a change of the rows or arrays of the tasks with these labels."""

    def change(task, rows, arrays, history):
        chosen = {"what": what, **labels}
        if any(task.labels.get(name) != wanted for name, wanted in chosen.items()):
            return
        if column is not None:
            rows.loc[rows.index[-1], column] = value
        if array is not None:
            last = f"{array}_{len(rows) - 1}"
            arrays[last] = value(arrays[last])

    return change


def skewed(matrix):
    return matrix + 0.3 * np.abs(matrix).max() * np.eye(len(matrix))[::-1]


ADAM_OF_THE_MLP = {"optimizer": "Adam", "network": "MLP"}
LBFGS_OF_THE_MLP = {"optimizer": "L-BFGS", "network": "MLP", "place": "all"}

FLIPS = [
    ("landscape", 0, changing("theory", "gap", 1e-6)),
    ("landscape", 0, changing("theory", "status", "local")),
    ("landscape", 0, changing("theory", array="classifier", value=skewed)),
    ("landscape", 1, changing("starts", "excess", 1e-3)),
    ("landscape", 1, changing("starts", "nc1", 0.1)),
    ("landscape", 1, changing("starts", "centered_means_to_etf", 0.1)),
    ("landscape", 2, changing("starts", array="means", value=lambda gram: 1.01 * gram)),
    # The last problem has no bias; one that appears is not zero.
    ("landscape", 3, changing("starts", array="bias", value=lambda b: b + np.arange(10.0))),
    ("landscape", 4, changing("sweep", "group0_margin", 0.1)),
    ("landscape", 5, changing("narrow", array="logits", value=skewed)),
    ("optimizers", 0, changing("network", "nc1", 0.2, optimizer="SGD", network="MLP")),
    ("optimizers", 1, changing("network", "classifier_to_etf", 0.2, **ADAM_OF_THE_MLP)),
    ("optimizers", 2, changing("network", "bias_alignment", 100.0, **LBFGS_OF_THE_MLP)),
    ("optimizers", 2, changing("network", array="logits", value=skewed, **LBFGS_OF_THE_MLP)),
    ("optimizers", 0, changing("network", "nc1", math.nan, optimizer="SGD", network="MLP")),
    ("optimizers", 5, changing("network", "nc1", 0.2, optimizer="L-BFGS", network="ResNet18")),
    ("random-labels", 0, changing("network", "nc1", 0.2, width=256)),
    ("random-labels", 1, changing("network", "nc1", 20.0, width=64)),
    ("random-labels", 2, changing("network", "nc1", 0.2, width=8)),
    ("random-labels", 3, changing("network", "nc1", 1e-4, width=2)),
    ("random-labels", 4, changing("network", "test_accuracy", 0.2, width=16)),
    ("decay", 0, changing("network", "nc1", 0.2, place="all")),
    ("decay", 1, changing("network", "nc1", 0.2, place="features")),
    ("decay", 2, changing("network", "test_accuracy", 0.93, place="features")),
    ("decay", 3, changing("network", "group0_margin", 3.0, place="features", seed=1)),
    ("fixed-etf", 2, changing("theory", "objective", 0.0)),
    ("fixed-etf", 5, changing("network", "nc1", 0.2, variant="fixed, d = K", network="MLP")),
    (
        "fixed-etf",
        4,
        changing("network", "test_accuracy", 0.9, variant="fixed, d = K", network="ResNet18"),
    ),
    (
        "fixed-etf",
        6,
        changing(
            "network",
            "test_accuracy",
            math.nan,
            variant="fixed, d = K",
            network="MLP",
            seed=1,
        ),
    ),
]


@pytest.mark.parametrize(("name", "index", "change"), FLIPS)
def test_a_wrong_measurement_flips_its_verdict_only(name, index, change):
    found = judged(name, change=change)
    assert found[index] == "not reproduced"
    others = found[:index] + found[index + 1 :]
    assert set(others) <= {"reproduced"}


@pytest.mark.parametrize(("kind", "outcome"), [("free", "reproduced"), ("decayed", "not")])
def test_a_constant_in_the_bias_matters_only_where_it_costs(kind, outcome):
    def change(task, rows, arrays, history):
        if task.labels["what"] == "starts":
            for row in rows.index[rows["bias"] == kind]:
                arrays[f"bias_{row}"] = arrays[f"bias_{row}"] + 1.0

    assert judged("landscape", change=change)[3].startswith(outcome)


def test_what_has_not_collapsed_is_named_with_its_trend():
    change = changing("network", "classifier_to_etf", 0.2, **ADAM_OF_THE_MLP)
    verdict = FIGURES["optimizers"].judge(ideal("optimizers", change=change))[1]
    # The history that is made up for all: 1, 0.1, 0.01.
    assert verdict.sentence.endswith(
        "0 of 1 networks collapse; the farthest is Fashion-MNIST. Over the last quarter of its "
        "training its NC2 went from 0.01 to 0.01."
    )


@pytest.mark.parametrize(("network", "count"), [("MLP", 1), ("ResNet18", 0)])
def test_the_cause_stands_beside_what_it_explains_and_decides_nothing(network, count):
    change = changing("network", "nc1", 0.7, optimizer="L-BFGS", place="features")
    verdicts = FIGURES["optimizers"].judge(ideal("optimizers", change=change))
    assert {verdict.outcome for verdict in verdicts} == {"reproduced"}
    (lbfgs,) = [v for v in verdicts if v.claimed == f"{network}: all metrics tend to 0 with L-BFGS"]
    told = (
        "With decay on W, H and b alone its largest metric on Fashion-MNIST is 0.7 after 2 epochs."
    )
    assert lbfgs.sentence.count(told) == count


def ratio_of_decays(tasks):
    """Decay of all parameters over that of W and of features of a batch, by its place."""
    found = {}
    for task in tasks:
        config = task.arguments["config"]
        ((weight, feature),) = config["settings"]
        per_class, classes = map(int, config["counts"].split("x"))
        found[task.labels["place"]] = weight, feature * per_class * classes / 64
    return found


@pytest.mark.parametrize("scale", SCALES)
def test_the_two_decays_have_the_ratio_of_the_papers_code(scale):
    found = ratio_of_decays(FIGURES["decay"].tasks(scale))
    everywhere, (weight, of_a_batch) = found["all"][0], found["features"]
    # 5e-4 for all, 5e-4 for W and 1e-4 for the features of a batch of 64.
    assert weight == everywhere
    assert of_a_batch == pytest.approx(everywhere / 5)


@pytest.mark.parametrize(
    ("differences", "outcome"),
    [
        # Means 0.02, 0.02, 0.005, 0.005; standard errors 0.0006, 0.012, 0.0006, 0.006.
        ((0.019, 0.020, 0.021), "not reproduced"),
        ((0.0, 0.02, 0.04), "undecided"),
        ((0.004, 0.005, 0.006), "reproduced"),
        ((-0.005, 0.005, 0.015), "undecided"),
    ],
)
@pytest.mark.parametrize("place", ["all", "features"])
def test_accuracies_of_the_two_decays_are_compared_by_their_seeds(place, differences, outcome):
    def change(task, rows, arrays, history):
        if task.labels["place"] == place:
            rows["test_accuracy"] -= differences[task.labels["seed"]]

    verdict = FIGURES["decay"].judge(ideal("decay", change=change))[2]
    assert verdict.outcome == outcome
    assert verdict.measured == pytest.approx(np.mean(differences))
    assert ("does not decide" in verdict.sentence) == (outcome == "undecided")


@pytest.mark.parametrize(
    ("losses", "outcome"),
    [
        # Means 0.02, 0.02 and 0.005, 0.005; standard errors 0.0004, 0.009, 0.0004, 0.005.
        ((0.019, 0.020, 0.020, 0.021), "not reproduced"),
        ((0.0, 0.01, 0.03, 0.04), "undecided"),
        ((0.004, 0.005, 0.005, 0.006), "reproduced"),
        ((-0.005, 0.0, 0.010, 0.015), "undecided"),
    ],
)
def test_accuracies_are_compared_by_the_errors_of_their_seeds(monkeypatch, losses, outcome):
    monkeypatch.setitem(fixed_etf._SEEDS, "ResNet18", len(losses))

    def change(task, rows, arrays, history):
        labels = task.labels
        if labels.get("variant") == "fixed, d = K" and labels["network"] == "ResNet18":
            rows["test_accuracy"] -= losses[labels["seed"]]

    verdict = FIGURES["fixed-etf"].judge(ideal("fixed-etf", change=change))[4]
    assert verdict.outcome == outcome
    assert verdict.measured == pytest.approx(np.mean(losses))


def test_a_variant_that_scatters_leaves_it_open_though_another_loses_most(monkeypatch):
    monkeypatch.setitem(fixed_etf._SEEDS, "ResNet18", 4)

    def change(task, rows, arrays, history):
        labels = task.labels
        if labels["what"] == "network" and labels["network"] == "ResNet18":
            if labels["variant"] == "learned, d = K":  # means -0.002 with an error of 0.013
                rows["test_accuracy"] += (-0.03, -0.01, 0.02, 0.028)[labels["seed"]]
            if labels["variant"] == "fixed, d = K":
                rows["test_accuracy"] -= 0.005

    verdict = FIGURES["fixed-etf"].judge(ideal("fixed-etf", change=change))[4]
    assert verdict.outcome == "undecided"
    assert verdict.measured == pytest.approx(0.005)
    assert "learned, d = K loses -0.002 ± 0.013" in verdict.sentence


def test_a_better_accuracy_of_the_fixed_classifier_is_no_loss():
    change = changing("network", "test_accuracy", 0.99, variant="fixed, d = K")
    assert set(judged("fixed-etf", change=change)) == {"reproduced"}


def test_widths_that_all_fit_compare_nothing():
    def change(task, rows, arrays, history):
        rows["train_accuracy"] = 1.0

    assert judged("random-labels", change=change)[1] == ("not at this scale")


def test_a_quoted_share_that_is_not_the_counted_one_is_not_reproduced(monkeypatch):
    monkeypatch.setitem(fixed_etf._QUOTED, "resnet18", 20.80)
    found = judged("fixed-etf")
    assert found[0] == "not reproduced"
    assert set(found[1:]) == {"reproduced"}
