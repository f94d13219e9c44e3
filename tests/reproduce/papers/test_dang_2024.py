"""Dang et al. 2024's figures: settings valid at every scale, verdicts that follow measurements."""

import math
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tightframe as tf
from tests.reproduce.papers.minimisers import MINIMISERS, of, outcomes
from tightframe.problem.problem import Problem
from tightframe.reproduce.papers.dang_2024 import collapse_threshold, norms_angles, shared, ufm
from tightframe.reproduce.results import Results
from tightframe.reproduce.spec import SCALES
from tightframe.reproduce.tasks import run_task
from tightframe.runs.config import RunConfig

COUNTS = "10x2,20x2,30x2,40x2,50x2"
DISTANCES = [
    "means_to_predicted",
    "classifier_to_predicted",
    "logits_to_predicted",
    "classifier_to_etf",
    "means_to_orthogonal_frame",
]
GEOMETRY = ("classifier", "means")
OWN = MINIMISERS["dang-2024"]
FIGURES, ideal, judged = OWN.figures, OWN.ideal, OWN.judged


def problem_of(counts=COUNTS, decay=0.01, **more):
    return Problem(
        counts, **{"weight_decay": decay, "feature_decay": decay, "features": "nonnegative"} | more
    )


# -- settings --------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", FIGURES)
def test_settings_are_the_papers(name, scale):
    for task in FIGURES[name].tasks(scale):
        if task.kind != "network":
            assert {p["features"] for p in task.arguments["problems"]} == {"nonnegative"}
            continue
        config = RunConfig.from_dict(task.arguments["config"])
        (problem,) = config.problems
        variant = task.labels.get("variant", "")
        features = "real" if "no last ReLU" in variant else "nonnegative"
        bias = "free" if variant.startswith("bias") else "none"
        assert (problem.features, problem.bias, problem.depth) == (features, bias, 1)
        assert problem.dim >= problem.num_classes
        if "lambda" in task.labels:
            assert problem.logit_decay == pytest.approx(task.labels["lambda"])
        elif scale == "paper":
            # CE/2 + 1e-4/2 ||W||^2 + 1e-5/2 (features of 256 samples), doubled and over N.
            assert problem.weight_decay == pytest.approx(2e-4)
            expected = 2e-5 * 256 / problem.num_samples
            assert problem.feature_decay == pytest.approx(expected)


def test_the_paper_scale_has_the_papers_training():
    configs = [
        RunConfig.from_dict(task.arguments["config"]) for task in FIGURES["networks"].tasks("paper")
    ]
    assert {(c.data, c.network) for c in configs} == {
        (data, network)
        for data in ("cifar10", "cifar100", "mnist", "fashion_mnist", "svhn")
        for network in ("mlp", "resnet18", "vgg11", "densenet_cifar")
    }
    for config in configs:
        assert (config.optimizer, config.lr, config.epochs) == ("adam", 1e-4, 4000)
        assert (config.schedule, config.milestones) == ("milestones", (2000,))
        assert (config.batch_size, config.seed) == (256, 1)
        total = config.problems[0].num_samples
        assert total == (30_000 if config.data.startswith("cifar") else 3000)


def test_the_networks_of_the_paper_scale_are_told_apart_in_the_chart():
    chart = FIGURES["networks"].draw(ideal("networks", "paper"))[0]
    looks = [(curve.color, curve.style) for curve in chart.curves]
    assert len(set(looks)) == len(looks) == 5 * 4


def test_figures_share_their_runs():
    """The samples' UFM and the networks run once for all figures that ask for them."""
    hashes = {name: {t.hash for t in FIGURES[name].tasks("smoke")} for name in FIGURES}
    assert hashes["networks"] <= hashes["norms-angles"]
    assert len(hashes["norms-angles"] & hashes["ufm"]) == 1
    for scale in SCALES:
        known = {task.hash for task in FIGURES["networks"].tasks(scale)}
        within = FIGURES["relaxed"].tasks(scale)[::4]
        assert {task.labels["variant"] for task in within} == {"as in the theorem"}
        assert {task.hash for task in within} <= known


# -- verdicts --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_drawn_of_what_there_is(name):
    """Also where only the theory has run."""
    results = ideal(name)
    theory = Results("cpu", tuple(t for t in results.tasks if t.task.kind == "solve"))
    if theory.tasks:
        assert FIGURES[name].draw(theory)


@pytest.mark.parametrize("column", ["nc1", *DISTANCES[:3]])
def test_each_metric_of_the_ufm_counts(column):
    @of("UFM")
    def worse(rows, arrays):
        rows.loc[rows.index[-1], column] = 2e-3

    assert judged("ufm", change=worse) == [
        "reproduced",
        "not reproduced",
        "reproduced",
    ]


@pytest.mark.parametrize(("what", "place"), [("UFM", 1), ("paper", 2)])
def test_the_classifier_is_compared_with_the_scaled_means(what, place):
    @of(what)
    def turned(rows, arrays):
        # Reversing the classes changes W H, which no column of this row says.
        arrays["logits_0"] = arrays["logits_0"][::-1]

    found = judged("ufm", change=turned)
    assert found == ["not reproduced" if i == place else "reproduced" for i in range(3)]


def test_margins_and_certificates_of_the_paper_counts_are_judged():
    @of("paper")
    def off(rows, arrays):
        rows["group3_margin"] += 0.02

    assert judged("ufm", change=off)[2] == "not reproduced"

    @of("theory")
    def uncertified(rows, arrays):
        rows.loc[1, "gap"] = 1e-6

    assert judged("ufm", change=uncertified)[0] == "not reproduced"


def test_runs_that_end_above_the_minimum_are_told():
    @of("UFM")
    def stuck(rows, arrays):
        rows["excess"] = 0.1
        arrays["means_0"] = np.diag([0.0, 0.0, *np.ones(8)])

    results = ideal("ufm", change=stuck)
    assert "12 of 12 runs from the other" in FIGURES["ufm"].judge(results)[1].sentence
    table = next(p for p in FIGURES["ufm"].draw(results) if "by start" in p.title)
    assert [row[1:4] for row in table.rows] == [[4, 0, 2]] * 4


@pytest.mark.parametrize("value", [0.11, math.nan])
@pytest.mark.parametrize("column", DISTANCES[:3])
def test_each_metric_of_a_network_counts(column, value):
    @of("network")
    def worse(rows, arrays):
        rows[column] = value

    found = judged("networks", change=worse)
    assert set(found) == {"not reproduced"}


def test_one_network_says_nothing_about_another():
    def one(task, rows, arrays, history):
        if task.labels.get("network") == "VGG11, digits":
            rows["nc1"] = 0.02

    found = judged("networks", change=one)
    assert found == ["reproduced"] * 5 + ["not reproduced"]


def test_networks_beyond_the_theorem_have_minimisers_of_their_own():
    verdicts = FIGURES["relaxed"].judge(ideal("relaxed"))
    assert outcomes(verdicts) == ["reproduced"] * 3
    for verdict, off in zip(verdicts, [0.15, 0.31, 0.3], strict=True):
        (theorem,) = re.findall(r"prediction is ([0-9.]+) off", verdict.sentence)
        assert float(theorem) == pytest.approx(off, abs=0.006)


def test_networks_that_end_in_the_theorems_minimiser_do_not_pass_beyond_it():
    @of("network")
    def as_in_the_theorem(rows, arrays):
        problem = problem_of(rows["counts"].iloc[0], rows["lambda"].iloc[0])
        geometry = tf.solve(problem).geometry
        for name in ("classifier", "means", "logits"):
            arrays[f"{name}_0"] = getattr(geometry, name)

    assert judged("relaxed", change=as_in_the_theorem) == ["not reproduced"] * 3


@pytest.mark.parametrize("name", GEOMETRY)
@pytest.mark.parametrize(("size", "outcome"), [(0.02, "reproduced"), (0.2, "not reproduced")])
def test_networks_beyond_the_theorem_must_come_near_their_minimisers(name, size, outcome):
    @of("network")
    def off(rows, arrays):
        gram = arrays[f"{name}_0"]
        arrays[f"{name}_0"] = gram + size * np.linalg.norm(gram) * np.diag([1.0] + [0.0] * 9)

    assert set(judged("relaxed", change=off)) == {outcome}


@pytest.mark.parametrize("name", GEOMETRY)
def test_lengths_and_angles_are_judged(name):
    def longer(task, rows, arrays, history):
        arrays[f"{name}_0"] = arrays[f"{name}_0"] * 1.25  # lengths by a factor of 1.118

    assert set(judged("norms-angles", change=longer)) == {"not reproduced"}

    def tilted(task, rows, arrays, history):
        lengths = np.sqrt(np.diagonal(arrays[f"{name}_0"]))
        arrays[f"{name}_0"] = arrays[f"{name}_0"].copy()
        arrays[f"{name}_0"][0, 1] += 0.15 * lengths[0] * lengths[1]

    assert set(judged("norms-angles", change=tilted)) == {"not reproduced"}


@pytest.mark.parametrize("shift", [-2, 2])
@pytest.mark.parametrize("group", [0, 3])
def test_a_switch_two_steps_off_is_not_reproduced(group, shift):
    tables = []

    def collect(task, rows, arrays, history):
        if task.labels["what"] != "theory":
            tables.append(rows)

    results = ideal("collapse-threshold", change=collect)
    for what in ("UFM", "network"):
        rows = pd.concat([r.rows for r in results.select(what=what).tasks])
        values = np.unique(rows["lambda"])
        expected = int((values < rows[f"group{group}_threshold"].iloc[0]).sum())
        last = values[expected - 1 + shift]
        for table in results.select(what=what).tasks:
            alive = table.rows["lambda"] <= last
            table.rows[f"group{group}_margin"] = np.where(alive, 1.0, 0.0)
    assert outcomes(FIGURES["collapse-threshold"].judge(results)) == ["not reproduced"] * 2


def test_the_run_with_the_least_objective_counts():
    for better, expected in ((1.0, "reproduced"), (-1.0, "not reproduced")):

        @of("UFM")
        def dead(rows, arrays, better=better):
            for i in rows.index[1::2]:
                rows.loc[i, "objective"] += better
                rows.loc[i, [f"group{g}_margin" for g in range(5)]] = 0.0

        results = ideal("collapse-threshold", change=dead)
        assert outcomes(FIGURES["collapse-threshold"].judge(results))[0] == expected


def test_a_grid_that_misses_a_threshold_reproduces_nothing(monkeypatch):
    monkeypatch.setattr(collapse_threshold, "_GRID", collapse_threshold._GRID[3:])
    assert judged("collapse-threshold") == ["not reproduced"] * 2


@pytest.mark.parametrize("name", GEOMETRY)
@pytest.mark.parametrize("what", ["UFM", "network"])
def test_balanced_frames_are_judged(what, name):
    @of(what)
    def off(rows, arrays):
        arrays[f"{name}_0"] = arrays[f"{name}_0"] + 0.3 * np.outer(*[np.arange(10.0)] * 2)

    for verdict in FIGURES["balanced"].judge(ideal("balanced", change=off))[1:]:
        own = verdict.sentence.startswith("UFM") == (what == "UFM")
        assert verdict.outcome == ("not reproduced" if own else "reproduced")


# -- helpers against something independent ---------------------------------------------------------


def code_targets(problem):
    """The targets of the paper's code, entry by entry, with the margins of the theorem."""
    n, k, total = problem.counts, problem.num_classes, problem.num_samples
    decays = problem.weight_decay, problem.feature_decay
    margins = np.zeros(k)
    for i in range(k):
        t = total * math.sqrt(decays[0] * decays[1] * (k - 1) / k) / math.sqrt(n[i])
        inside = (k - 1) * (1 / t - 1)
        margins[i] = math.log(inside) if inside > 1 else 0.0
    means = np.diag(np.sqrt((k - 1) / k * decays[0] / decays[1] / n) * margins)
    root = np.sqrt(n) * margins
    classifier = np.zeros((k, k))
    for i in range(k):
        for j in range(k):
            if i == j:
                classifier[i, i] = (k - 1) ** 2 * root[i]
            else:
                classifier[i, j] = -(k - 1) * (root[i] + root[j])
            classifier[i, j] += sum(root[m] for m in range(k) if m not in (i, j))
    logits = (np.eye(k) - 1 / k) * margins
    return margins, means, classifier, logits


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1, 400), min_size=3, max_size=8),
    st.floats(1e-4, 3e-2),
    st.floats(0.1, 10),
)
def test_the_prediction_is_the_papers_target(counts, decay, ratio):
    """NC2_H, NC2_WW and NC3_WH are the columns ``<part>_to_predicted``."""
    problem = problem_of(counts, weight_decay=decay * ratio, feature_decay=decay / ratio)
    solution = tf.solve(problem)
    margins, means, classifier, logits = code_targets(problem)
    assert solution.margins == pytest.approx(margins, abs=1e-9)
    if not margins.any():
        return
    geometry = solution.geometry
    assert geometry.means == pytest.approx(means, abs=1e-9 * means.max())
    assert geometry.logits == pytest.approx(logits, abs=1e-9)
    assert tf.normalized_distance(geometry.classifier, classifier) < 1e-9
    # W is the scaled, centred means, also where classes have vanished.
    found = shared.nc2_w(problem.counts, geometry.logits, geometry.classifier, geometry.means)
    assert found < 1e-6


@given(st.integers(0, 10**6), st.integers(2, 6))
def test_nc2_w_is_the_distance_of_the_vectors(seed, k):
    rng = np.random.default_rng(seed)
    w, h, n = rng.normal(size=(k, 7)), rng.normal(size=(7, k)), rng.integers(1, 99, k)
    target = np.stack(
        [k * math.sqrt(n[i]) * h[:, i] - (np.sqrt(n) * h).sum(axis=1) for i in range(k)]
    )
    expected = np.linalg.norm(w / np.linalg.norm(w) - target / np.linalg.norm(target))
    assert shared.nc2_w(n, w @ h, w @ w.T, h.T @ h) == pytest.approx(expected, abs=1e-7)


def test_nc2_w_of_nothing_is_undefined():
    zero, one = np.zeros((3, 3)), np.eye(3)
    assert math.isnan(shared.nc2_w([1, 2, 3], zero, zero, one))
    assert math.isnan(shared.nc2_w([1, 2, 3], zero, one, zero))


@pytest.mark.parametrize("counts", shared.COUNTS.values())
def test_the_published_margins_are_those_of_the_code(counts):
    problem = shared.paper_problem(counts)
    k, total = problem.num_classes, problem.num_samples
    expected = []
    for n in problem.counts:  # compute_M_array, literally
        lambda_h, lambda_w = 1e-5, 1e-4
        root = ((lambda_h / 2 * lambda_w / 2) ** (1 / 2)) * ((k - 1) / k * lambda_w / lambda_h) ** (
            1 / 2
        )
        expected.append(math.log((k - 1) * (n ** (1 / 2) / (total * root) - 1)))
    found = ufm.published_margins(problem.counts)
    assert found == pytest.approx(np.array(expected), rel=1e-12)
    # They are no minimiser's, by far more than any rounding.
    assert np.abs(found - tf.solve(problem).margins).min() > 0.5


@given(st.integers(0, 10**6))
def test_errors_of_lengths_and_angles_are_those_of_the_vectors(seed):
    rng = np.random.default_rng(seed)
    found, expected = rng.normal(size=(2, 5, 4))

    def angle(a, b):
        return a @ b / np.linalg.norm(a) / np.linalg.norm(b)

    lengths = np.abs(np.linalg.norm(found, axis=1) - np.linalg.norm(expected, axis=1))
    longest = max(np.linalg.norm(b) for b in expected)
    angles = [
        abs(angle(found[i], found[j]) - angle(expected[i], expected[j]))
        for i in range(5)
        for j in range(5)
    ]
    grams = found @ found.T, expected @ expected.T
    assert norms_angles.norm_error(*grams) == pytest.approx(lengths.max() / longest)
    assert norms_angles.angle_error(*grams) == pytest.approx(max(angles))


def test_vanished_vectors_have_angles_only_where_predicted():
    full, less = np.eye(3), np.diag([1.0, 1.0, 0.0])
    assert norms_angles.angle_error(less, full) == 1.0
    assert norms_angles.angle_error(full, less) == 0.0
    assert norms_angles.norm_error(less, full) == 1.0


@pytest.mark.parametrize("counts", [shared.DIGITS, COUNTS, "300x10"])
def test_the_unit_of_the_grid_is_where_the_smallest_class_vanishes(counts):
    unit = collapse_threshold._unit(counts)
    smallest = int(np.argmin(Problem(counts, weight_decay=1, feature_decay=1).counts))
    for factor, vanished in ((0.999, False), (1.001, True)):
        assert (tf.solve(problem_of(counts, unit * factor)).margins[smallest] == 0) == vanished


def test_the_grid_has_two_points_between_any_two_thresholds():
    edges = [0, *np.sqrt(np.arange(1, 6)), math.inf]
    inside = np.histogram(collapse_threshold._GRID, bins=edges)[0]
    assert inside.min() >= 2


def test_snapshots_are_earlier_iterates_of_the_same_descent():
    problem = problem_of("3x2,6x2", 0.05)
    task = shared.sampled("smoke", "3x2,6x2", {}, seeds=[0])
    arguments = {**task.arguments, "problems": [problem.to_dict()], "records": 100}
    long = pd.DataFrame(run_task("ufm", {**arguments, "iterations": 40}, "").history)
    short = run_task("ufm", {**arguments, "iterations": 30}, "").rows[0]
    at = long[long["iteration"] == 30].iloc[0]
    for column in ("objective", "nc1", *DISTANCES):
        assert short[column] == pytest.approx(at[column], rel=1e-12)


@pytest.mark.slow
def test_the_smoke_scale_shows_the_theorem(tmp_path):
    from tightframe.reproduce.folder import reproduce

    (record,) = reproduce("dang-2024/ufm", tmp_path / "out")
    assert record.shortfalls == []
    assert [v.outcome for v in record.verdicts] == ["reproduced"] * 3
