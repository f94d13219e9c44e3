"""Dang et al. 2023: settings valid at every scale, verdicts that follow the measurements."""

import functools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tightframe as tf
from tests.reproduce.papers.minimisers import MINIMISERS, outcomes, trained
from tightframe.figures.model import Table
from tightframe.figures.storage import panel_to_dict
from tightframe.problem.problem import Problem
from tightframe.reproduce.papers.dang_2023 import (
    deep_ce,
    frames,
    imbalanced_networks,
    rank_deficient,
    shared,
    thresholds,
)
from tightframe.reproduce.spec import SCALES
from tightframe.reproduce.tasks import run_task
from tightframe.runs.config import RunConfig
from tightframe.runs.store import load_run
from tightframe.theory import thresholds as closed
from tightframe.training.ufm.train import train_ufm

OWN = MINIMISERS["dang-2023"]
FIGURES, ideal, judged = OWN.figures, OWN.ideal, OWN.judged
REPRODUCED, NOT, EARLY = "reproduced", "not reproduced", "not at this scale"


# -- settings --------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", FIGURES)
def test_figures_have_the_tasks_they_need(name, scale):
    tasks = FIGURES[name].tasks(scale)
    kinds = {task.kind for task in tasks}
    assert kinds == {"solve", "network" if "networks" in name else "ufm"} | (
        {"network"} if name in ("thresholds", "rank-deficient") else set()
    )
    for task in tasks:
        if task.kind == "network":
            config = RunConfig.from_dict(task.arguments["config"])
            assert config.loss == "mse"
            assert config.depth == task.labels["layers"]


def test_the_ufm_has_the_papers_settings():
    for name in ("balanced-ufm", "imbalanced-ufm"):
        for scale in ("cpu", "paper"):
            (given,) = {
                tuple(task.arguments[key] for key in ("dim", "init_std", "lr", "iterations"))
                for task in FIGURES[name].tasks(scale)
                if task.labels["what"] == "UFM"
            }
            assert given == (64, 0.1, 0.1, 30_000)
            tapered = [t for t in FIGURES[name].tasks(scale) if t.labels["what"] == "widths"]
            assert len(tapered) == (2 if name == "balanced-ufm" else 0)
            for task in tapered:
                # Nothing but the widths, and they are the prediction's.
                options = {"dim": [64, 32, 16], "init_std": 0.1, "lr": 0.1, "iterations": 30_000}
                assert {key: task.arguments[key] for key in options} == options
                (problem,) = [Problem(**given) for given in task.arguments["problems"]]
                assert problem.dims == (64, 32, 16)
    # The same lengths at the start at any width: all entries have variance init_std^2.
    for scale, dim in (("smoke", None), ("smoke", 4), ("cpu", 4)):
        options = shared.descent(scale, dim)
        assert options["init_std"] ** 2 * options["dim"] == pytest.approx(0.1**2 * 64, rel=1e-4)


def test_deep_heads_start_orthogonal_and_decay_from_the_first_step():
    for name in ("balanced-networks", "imbalanced-networks"):
        for scale in SCALES:
            starts = {
                (config.head_init, config.warmup_epochs)
                for task in FIGURES[name].tasks(scale)
                if task.kind == "network"
                for config in [RunConfig.from_dict(task.arguments["config"])]
            }
            assert starts == {("orthogonal", 0)}


def test_network_decays_are_those_of_the_papers_code():
    # By hand: mse_loss / 2 is our loss over K, the features are summed over batches of 128.
    assert shared.paper_setting("5000x10", 1e-4, 128, 50_000) == pytest.approx(
        [1e-4 * 10, 1e-4 * 10 * 128 / 50_000]
    )
    counts = imbalanced_networks.IMBALANCED_CIFAR
    assert shared.paper_setting(counts, 1e-5, 3000, 3000) == pytest.approx([1e-4, 1e-4])


@pytest.mark.parametrize("depth", [1, 3, 9])
def test_networks_stand_where_the_paper_stands_relative_to_the_thresholds(depth):
    ratios = []
    for counts in ("5000x10", "100x10", "30x10"):
        setting = shared.paper_setting(counts, 1e-4, 128, 50_000)
        problem = Problem(**shared.network_problem(counts, setting, depth))
        known = closed.ends(problem)
        ratios.append(known.logit_decay / known.groups[0].logit_decay)
    assert ratios[1:] == pytest.approx(2 * ratios[:1], rel=1e-6)


# -- verdicts --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("nc1", 0.2),
        ("nc1", np.nan),
        ("classifier_to_predicted", 0.2),
        ("logits_to_predicted", np.nan),
        ("centered_means_to_predicted", 0.2),
        ("means_to_predicted", 0.2),
        ("partial_to_predicted", 0.2),
        ("partial_to_predicted", np.nan),
    ],
)
def test_every_metric_of_collapse_counts(column, value):
    @trained
    def spoil(rows, arrays):
        rows.loc[rows.index[-1], column] = value

    for name in ("balanced-ufm", "balanced-networks"):
        found = judged(name, change=spoil)
        # The MLP, ResNet18, and VGG16, whose one layer has no partial products.
        parts = [found[:3], found[3:6], found[6:]]
        if name == "balanced-ufm":
            assert found.pop(3) == (REPRODUCED if column == "partial_to_predicted" else NOT)
            parts = [found[1:]]
        for without, biased, *partial in parts:
            if column == "partial_to_predicted":
                assert [without, biased] == [REPRODUCED, REPRODUCED]
                assert set(partial) <= {NOT}
                continue
            assert set(partial) <= {REPRODUCED}
            # Without bias the means are compared as they are, with a bias centred.
            spoilt = {"means_to_predicted": [NOT, REPRODUCED]}.get(column, [NOT, NOT])
            spoilt = {"centered_means_to_predicted": [REPRODUCED, NOT]}.get(column, spoilt)
            assert [without, biased] == spoilt
        assert [len(part) for part in parts] == ([3] if name == "balanced-ufm" else [3, 3, 2])


def test_a_frame_of_other_lengths_is_not_the_papers():
    @trained
    def equal(rows, arrays):
        for i in range(len(rows)):
            arrays[f"classifier_{i}"] = np.eye(len(arrays[f"classifier_{i}"]))
        rows["classifier_to_predicted"] = 0.09  # below the limit of networks

    assert judged("imbalanced-ufm", change=equal) == [
        REPRODUCED,
        NOT,
        NOT,
        REPRODUCED,
    ]
    with np.errstate(divide="ignore"):  # the distance to the frame of equal lengths is zero
        found = judged("imbalanced-networks", change=equal)
        assert found == [REPRODUCED, NOT, REPRODUCED] * 2  # two data sets


def test_an_unfinished_smoke_run_decides_nothing_but_never_passes():
    @trained
    def early(rows, arrays):
        rows["status"] = "stopped"
        rows["nc1"] = rows["partial_to_predicted"] = 1.0

    for scale, outcome in (("smoke", EARLY), ("cpu", NOT)):
        assert judged("balanced-ufm", scale, early)[1:] == [outcome] * 4


def test_a_late_or_early_switch_is_not_reproduced():
    def moved(steps):
        @trained
        def change(rows, arrays):
            if len(rows) > 1:
                logits = [arrays[f"logits_{i}"] for i in range(len(rows))]
                for i in range(len(rows)):
                    arrays[f"logits_{i}"] = logits[min(max(i - steps, 0), len(rows) - 1)]

        return change

    for steps in (-2, 2):
        found = judged("thresholds", change=moved(steps))
        assert found == [REPRODUCED, NOT, NOT, NOT, REPRODUCED]
    for steps in (-1, 1):
        found = judged("thresholds", change=moved(steps))
        assert set(found) == {REPRODUCED}


@pytest.mark.parametrize(("figure", "places"), [("thresholds", (2, 3)), ("rank-deficient", (2, 5))])
def test_starts_that_are_stuck_do_not_count_and_the_best_one_does(figure, places):
    def stuck(first, cost):
        def change(task, rows, arrays, history):
            """From a start on, every class of the UFM is lost, at some cost."""
            if task.labels["what"] == "UFM" and task.labels["start"] >= shared.STARTS[first]:
                for i in rows.index:
                    arrays[f"logits_{i}"] = np.zeros_like(arrays[f"logits_{i}"])
                    arrays[f"classifier_{i}"] = np.eye(len(arrays[f"logits_{i}"]))
                rows["objective"] += cost

        return change

    found = judged(figure, change=stuck(1, 0.1))
    assert set(found) == {REPRODUCED}
    found = judged(figure, change=stuck(11, -0.1))
    assert [found[place] for place in places] == [NOT, NOT]


def test_one_class_that_is_left_counts_for_its_group():
    @trained
    def one(rows, arrays):
        for i in range(len(rows)):
            if len(rows) > 1:
                logits = arrays[f"logits_{i}"].copy()
                logits[-1, -1] = 0.5
                arrays[f"logits_{i}"] = logits

    assert judged("thresholds", change=one)[1:4] == [NOT] * 3


def test_dropping_another_class_is_not_reproduced():
    @trained
    def reversed_(rows, arrays):
        for i in range(len(rows)):
            arrays[f"logits_{i}"] = arrays[f"logits_{i}"][::-1, ::-1]

    found = judged("rank-deficient", change=reversed_)
    # Balanced classes are alike, so their order changes nothing.
    assert found == [REPRODUCED, NOT, NOT, REPRODUCED, REPRODUCED, REPRODUCED, NOT]


def test_unequal_singular_values_are_no_best_approximation():
    @trained
    def stretched(rows, arrays):
        for i in range(len(rows)):
            scale = np.diag(np.arange(1.0, 1 + len(arrays[f"logits_{i}"])))
            arrays[f"logits_{i}"] = scale @ arrays[f"logits_{i}"] @ scale

    found = judged("rank-deficient", change=stretched)
    assert found[3:6] == [REPRODUCED, NOT, NOT]


# -- formulas --------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 500), min_size=2, max_size=6),
    st.integers(1, 6),
    st.floats(-4, -1),
    st.floats(-4, -1),
)
def test_the_papers_lengths_are_the_certified_minimisers(counts, depth, log_w, log_h):
    weight_decay, feature_decay = 10**log_w, 10**log_h
    problem = Problem(
        counts, "mse", weight_decay=weight_decay, feature_decay=feature_decay, depth=depth
    )
    ratios = [problem.mean_decay / group.logit_decay for group in closed.ends(problem).groups]
    if min(abs(np.log(ratios))) < 1e-6:
        return  # both branches are minimisers
    solution = tf.solve(problem)
    found = frames.gof_lengths(counts, depth, weight_decay, feature_decay)
    for name, diagonal in zip(("classifier", "means", "logits"), found, strict=True):
        expected = getattr(solution.geometry, name)
        assert np.diag(diagonal) == pytest.approx(expected, rel=1e-6, abs=1e-9 * expected.max())


def test_the_papers_lengths_at_its_synthetic_setting():
    """Worked values of the notes on the paper; M = 1 by hand: sqrt(n) - N decay."""
    counts = [200, 100, 50, 50]
    w, _, z = frames.gof_lengths(counts, 1, 5e-4, 5e-4)
    assert w == pytest.approx(np.sqrt(counts) - 0.2, abs=1e-12)
    assert z == pytest.approx([0.9859, 0.9800, 0.9717, 0.9717], abs=5e-5)
    for depth, expected in ((2, [33.9326, 21.277, 13.305]), (3, [52.883, 31.322, 18.502])):
        assert frames.gof_lengths(counts, depth, 5e-4, 5e-4)[0][:3] == pytest.approx(
            expected, abs=5e-4
        )


def partial_distance(layers, means, problem):
    """The largest distance by the paper's formula: layer by layer, and a root of it for each."""
    m = problem.depth
    classifier, features, _ = frames.gof_lengths(
        problem.counts, m, problem.weight_decays[0], problem.feature_decay
    )
    found = []
    for j in range(m):
        passed = functools.reduce(lambda h, layer: layer @ h, layers[:j], means)
        rest = functools.reduce(lambda w, layer: layer @ w, layers[j:])
        pairs = (
            (rest @ rest.T, np.diag(classifier ** ((m - j) / m))),
            (passed.T @ passed, np.diag(features * classifier ** (j / m))),
        )
        found += [np.linalg.norm(a / np.linalg.norm(a) - b / np.linalg.norm(b)) for a, b in pairs]
    return max(found)


@pytest.mark.parametrize("depth", [2, 3])
def test_partial_products_are_compared_with_powers_of_the_papers_lengths(depth):
    problem = Problem(**shared.mse(shared.IMBALANCED, shared.SYNTHETIC_DECAY, depth))
    options = shared.descent("smoke") | {"iterations": 200}
    output = run_task("ufm", {"problems": [problem.to_dict()], **options}, "")
    options["schedule"] = [tuple(step) for step in options["schedule"]]
    (run,) = train_ufm(problem, **options)
    expected = partial_distance(run.weights, run.class_means, problem)
    assert output.rows[0]["partial_to_predicted"] == pytest.approx(expected, rel=1e-6)
    assert expected > 1e-2
    single = shared.mse(shared.IMBALANCED, shared.SYNTHETIC_DECAY, 1)
    one = run_task("ufm", {"problems": [single], **options}, "")
    assert "partial_to_predicted" not in one.rows[0]


def test_partial_products_of_a_network_are_those_of_its_layers(tmp_path):
    config = {"counts": "12x5,8x5", "loss": "mse", "depth": 3, "settings": [[1e-3, 1e-4]]}
    config |= {"hidden": [8], "feature_dim": 12, "epochs": 4, "measure_every": 4}
    (row,) = run_task("network", {"config": config}, str(tmp_path)).rows
    (setting,) = load_run(tmp_path / "run").settings
    state = torch.load(setting.paths.checkpoint, weights_only=True)["state_dict"]
    layers = [state[f"head.{i}.weight"].double().numpy() for i in range(3)]
    expected = partial_distance(layers, setting.final["class_means"], setting.problem)
    assert row["partial_to_predicted"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("depth", [1, 2, 3, 6])
@pytest.mark.parametrize("count", [50, 200])
def test_local_minima_end_where_a_scan_finds_no_more(depth, count):
    """A class's cost over its singular value, on a fine grid, just before and just after."""
    total = 400
    end = thresholds.local_minimum_ends(count, depth, total)
    s = np.linspace(0, np.sqrt(count), 400_001)[1:]
    for factor, expected in ((0.998, True), (1.002, False)):
        decay = factor * end
        cost = (s - np.sqrt(count)) ** 2 / (2 * total)
        cost = cost + (depth + 1) / 2 * decay * s ** (2 / (depth + 1))
        inner = (cost[1:-1] < cost[:-2]) & (cost[1:-1] < cost[2:])
        assert inner.any() == expected
    if depth > 1:
        problem = Problem(f"{count},{total - count}", "mse", weight_decay=1e-3, feature_decay=1e-3)
        known = closed.ends(problem.replace(depth=depth)).groups[0].logit_decay
        assert end > known


@given(st.integers(0, 10**6), st.integers(1, 4), st.booleans())
def test_projectors_are_recognised(seed, dim, centred):
    k = 6
    rng = np.random.default_rng(seed)
    basis = rng.normal(size=(k, dim))
    if centred:
        basis -= basis.mean(axis=0)
    basis = np.linalg.qr(basis)[0]

    def distance(matrix):
        return rank_deficient.projector_distance(matrix, dim, centred=centred)

    assert distance(3 * basis @ basis.T) < 1e-10
    if dim > 1:
        assert distance((basis * np.arange(1, dim + 1)) @ basis.T) > 0.1
    assert distance(np.eye(k)) > 0.1


# -- deep cross-entropy ----------------------------------------------------------------------------


def naive(problem, weights, means, bias):
    """The objective as it is written, sample by sample."""
    product = functools.reduce(lambda done, layer: layer @ done, weights)
    loss = squares = 0.0
    for k, count in enumerate(problem.counts):
        z = product @ means[:, k] + bias
        loss += count * (np.log(np.exp(z - z.max()).sum()) + z.max() - z[k])
        squares += count * (means[:, k] @ means[:, k])
    decays = zip(problem.weight_decays, weights, strict=True)
    total = loss / problem.num_samples + problem.feature_decay / 2 * squares
    return total + sum(decay / 2 * (layer**2).sum() for decay, layer in decays)


@pytest.mark.parametrize(
    ("point", "etf", "best", "tolerance"),
    [
        # Best of many starts, found with other code (the notes on the theory and on the paper).
        ((4, 2, 2e-3, 2e-3), 0.071428, 0.071428, 1e-6),
        ((6, 3, 1e-3, 1e-3), 0.051418, 0.043466, 1e-6),
        ((4, 3, 3e-3, 3e-4), 0.050272, 0.046253, 1e-6),
        ((6, 2, 3e-3, 3e-4), 0.085831, 0.080408, 1e-6),
        ((4, 2, 3e-3, 3e-4), 0.051507, 0.051507, 1e-6),
    ],
)
def test_the_counter_examples_have_the_known_losses(point, etf, best, tolerance):
    problem = deep_ce._ce_problem(point)
    solution = tf.solve(problem, starts=1)
    found = deep_ce.explicit_losses(problem, solution.logits, solution.bias)
    assert found == pytest.approx((best, etf), abs=tolerance)
    weights, means = solution.weights, solution.class_means
    assert found[0] == pytest.approx(naive(problem, weights, means, solution.bias), abs=1e-12)
    # Equal decays leave the losses alone.
    equal = deep_ce._ce_problem(point, equal=True)
    again = deep_ce.explicit_losses(equal, solution.logits, solution.bias)
    assert again == pytest.approx(found, abs=1e-12)


def test_no_etf_has_a_lower_loss_than_the_best_one():
    problem = deep_ce._ce_problem((4, 3, 3e-3, 3e-4))
    frame = np.eye(4) - 1 / 4
    none = np.zeros(4)
    _, best = deep_ce.explicit_losses(problem, frame, none)
    losses = [deep_ce.explicit_losses(problem, m * frame, none)[0] for m in (4, 6, 7, 8, 9, 12)]
    assert min(losses) >= best
    assert min(losses) < 1.05 * best


def test_counter_examples_refute_the_claim(few_points):
    results = ideal("deep-ce", "smoke")
    verdicts = FIGURES["deep-ce"].judge(results)
    assert outcomes(verdicts) == [NOT, REPRODUCED, REPRODUCED, NOT, REPRODUCED]
    first, second, *_ = verdicts
    assert first.measured == pytest.approx(0.050272 - 0.045473, abs=2e-6)
    assert second.measured < 1e-8
    # The cause, and the control: nothing is beaten where the later theorem leaves the ETF alone.
    assert "2 of these 2 points have a rank below" in first.sentence
    assert first.sentence.endswith("it is beaten at 0 of 4 settings.")
    assert "3 of 3 runs of a rank below K - 1 end there and 0 of 3 others" in verdicts[3].sentence
    assert verdicts[3].sentence.endswith("0 of 3 do.")
    panels = FIGURES["deep-ce"].draw(results)
    assert all(panel_to_dict(panel) for panel in panels)
    table = next(panel for panel in panels if isinstance(panel, Table))
    losses = {(row[0], row[1], row[4]): (row[5], row[6], row[8]) for row in table.rows}
    assert losses[4, 3, "no bias"] == ("0.050272", "0.046253", "low-rank")
    assert losses[4, 2, "no bias"] == ("0.071428", "0.071428", "ETF")
    # A bias only adds points.
    assert float(losses[4, 3, "last-layer bias"][1]) <= 0.046253


def test_etfs_everywhere_would_reproduce_it(few_points):
    """As if the search had found nothing but the ETF, and descent had ended there."""

    @trained
    def change(rows, arrays):
        if "etf_objective" in rows:
            rows["objective"] = rows["etf_objective"]

    results = ideal("deep-ce", "smoke", change)
    for result in results.tasks:
        if result.task.kind == "solve" and result.task.labels["layers"] > 1:
            problem = Problem(**result.task.arguments["problems"][0])
            k = problem.num_classes
            margin = solve_margin(problem)
            result.arrays["logits_0"] = margin * (np.eye(k) - 1 / k)
            result.arrays["bias_0"] = np.zeros(k)
            result.rows["objective"] = result.rows["etf_objective"]
    assert outcomes(FIGURES["deep-ce"].judge(results)) == [
        REPRODUCED,
        NOT,
        REPRODUCED,
        REPRODUCED,
        REPRODUCED,
    ]


def solve_margin(problem):
    """The best length of an ETF, by a scan of the closed-form cost."""
    (n, k), m, mu = problem.groups[0], problem.depth, problem.mean_decay
    lengths = np.linspace(1e-3, 30, 300_001)
    cost = np.log1p((k - 1) * np.exp(-lengths))
    cost += (k - 1) * (m + 1) / 2 * mu * (np.sqrt(n) * lengths) ** (2 / (m + 1))
    return lengths[np.argmin(cost)]


def test_a_loss_that_the_factors_do_not_have_is_noticed(few_points):
    results = ideal("deep-ce", "smoke")
    solves = [r for r in results.tasks if r.task.kind == "solve"]
    solves[-1].rows["objective"] += 2e-5
    assert outcomes(FIGURES["deep-ce"].judge(results))[1] == NOT


@pytest.mark.slow
def test_the_smoke_scale_shows_the_counter_examples(tmp_path):
    from tightframe.reproduce.folder import reproduce

    (record,) = reproduce("dang-2023/deep-ce", tmp_path / "out")
    assert record.shortfalls == []
    found = [verdict.outcome for verdict in record.verdicts]
    assert found == [NOT, REPRODUCED, REPRODUCED, NOT, REPRODUCED]
