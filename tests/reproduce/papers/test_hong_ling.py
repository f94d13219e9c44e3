"""Hong & Ling's figures: settings of the paper, verdicts that follow the measurements."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tightframe as tf
from tests.reproduce.papers.minimisers import MINIMISERS, trained
from tightframe.figures.model import HeatMaps
from tightframe.problem.problem import Problem
from tightframe.reproduce.papers.hong_ling import (
    block_structure,
    errors,
    minority_lambda,
    minority_n,
    rate,
    shared,
)
from tightframe.reproduce.papers.hong_ling.block_structure import block_deviation
from tightframe.reproduce.spec import SCALES
from tightframe.runs.config import RunConfig
from tightframe.theory import thresholds as closed

ANY = {"weight_decay": 1.0, "feature_decay": 1.0}
YES, NO = "reproduced", "not reproduced"
FIGURES, judged = MINIMISERS["hong-ling"].figures, MINIMISERS["hong-ling"].judged


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", [name for name in FIGURES if name != "rate"])
def test_networks_have_the_papers_decays(name, scale):
    tasks = FIGURES[name].tasks(scale)
    of_blocks = ("block-structure", "errors")
    more = set() if name == "errors" else {"solve", "ufm"}
    assert {"network", *more} == {task.kind for task in tasks}
    for task in tasks:
        if task.kind == "network":
            config = RunConfig.from_dict(task.arguments["config"])
            # The paper's decays have the ratio 100, and lambda is what the label says.
            (found,) = config.problems
            assert found.weight_decay / found.feature_decay == pytest.approx(
                1000 if name in of_blocks and scale != "smoke" else 100
            )
            if name not in of_blocks:
                assert found.logit_decay == pytest.approx(task.labels["lambda"])


@pytest.mark.parametrize("scale", ["cpu", "paper"])
def test_decays_are_a_tenth_in_the_first_sixth_of_the_sweeps_only(scale):
    for name in FIGURES:
        for task in FIGURES[name].tasks(scale):
            if task.kind == "network":
                config = RunConfig.from_dict(task.arguments["config"])
                warm = name in ("minority-lambda", "minority-n", "oversampling")
                assert config.warmup_epochs == (config.epochs // 6 if warm else 0)
                assert config.warmup_decay_factor == 0.1


@pytest.mark.parametrize("name", ["minority-lambda", "minority-n", "limit", "oversampling"])
def test_networks_are_those_that_sentences_name(name):
    images = {"resnet18": "ResNet18", "mlp": "MLP"}
    places = {"digits": "digits", "fashion_mnist": "Fashion-MNIST", "cifar10": "CIFAR10"}
    for scale in SCALES:
        for task in FIGURES[name].tasks(scale):
            if task.kind == "network":
                config = RunConfig.from_dict(task.arguments["config"])
                narrow = "narrow " if config.network_options.get("width", 64) < 64 else ""
                told = f"{narrow}{images[config.network]} on {places[config.data]}"
                assert told == shared.NETWORKS[scale]


@trained
def shifted(rows, arrays):
    # As if every decay acted two and a half grid steps later.
    for group in ("group0_margin", "group1_margin"):
        rows[group] += 0.9
        rows.loc[rows["lambda"] > 1.6 * rows["group1_threshold"], group] = 0.0


def test_a_late_switch_is_not_reproduced():
    assert set(judged("minority-lambda", change=shifted)) == {"not reproduced"}


@pytest.mark.slow
def test_a_minority_that_never_merges_is_not_reproduced():
    @trained
    def distinct(rows, arrays):
        for name in ("group0_margin", "group1_margin"):
            if name in rows:
                rows[name] = 1.0

    for name in ("minority-lambda", "minority-n", "oversampling"):
        assert set(judged(name, change=distinct)) == {"not reproduced"}


def test_the_worst_seed_decides():
    @trained
    def one(rows, arrays):
        if len(rows) > 1:  # one seed of the last but one point is still distinct
            rows.loc[len(rows) - 4, "group1_margin"] = 1.0

    assert judged("minority-lambda", change=one)[0] == "not reproduced"


def test_blocks_and_cosines_are_judged_by_what_was_measured():
    @trained
    def noisy(rows, arrays):
        rows["nc1"] = 0.5
        rows[["cosine_0_0", "cosine_0_1", "cosine_1_1"]] = 0.0
        for i in range(len(rows)):
            arrays[f"logits_{i}"] = arrays[f"logits_{i}"] + np.diag(np.arange(10.0))

    assert set(judged("block-structure", change=noisy)) == {"not reproduced"}
    assert judged("limit", change=noisy) == ["not reproduced", "not reproduced"]


def test_an_unfinished_smoke_run_of_the_ufm_decides_nothing_but_never_passes():
    @trained
    def early(rows, arrays):
        rows["cosine_1_1"] = 0.0
        rows["status"] = "stopped"

    assert judged("limit", "smoke", early)[0] == "not at this scale"
    assert judged("limit", "cpu", early)[0] == "not reproduced"


@given(st.integers(0, 10**6), st.sampled_from(["4x3,3x2,2x1", "5x2,2x4"]))
def test_block_deviation_is_the_distance_to_the_nearest_block_matrix(seed, counts):
    """Against least squares over a basis of block matrices."""
    groups = Problem(counts, **ANY).class_groups
    k = len(groups)
    z = np.random.default_rng(seed).normal(size=(k, k))
    basis = []
    for i in set(groups):
        for j in set(groups):
            block = np.outer(groups == i, groups == j).astype(float)
            parts = [block] if i != j else [block * np.eye(k), block * (1 - np.eye(k))]
            basis += [part.ravel() for part in parts if part.any()]
    columns = np.array(basis).T
    fitted = columns @ np.linalg.lstsq(columns, z.ravel(), rcond=None)[0]
    expected = np.linalg.norm(z.ravel() - fitted) / np.linalg.norm(z)
    assert block_deviation(z, groups) == pytest.approx(expected, abs=1e-10)
    solution = tf.solve(Problem(counts, weight_decay=0.05, feature_decay=0.05))
    assert block_deviation(solution.logits, groups) < 1e-12


@pytest.mark.parametrize("classes", [5, 3])
def test_the_threshold_in_the_majority_count_is_where_the_minimiser_merges(classes):
    threshold = minority_n.count_threshold(classes, 100, 0.005)
    for majority, merged in ((int(threshold) - 1, False), (int(threshold) + 2, True)):
        counts = shared.step(classes, majority, 100)
        values = shared.problem(counts, 0.005)
        assert tf.solve(Problem(**values)).group_collapsed[1] == merged


def test_networks_stand_where_the_paper_stands_relative_to_the_threshold():
    for classes, decays in minority_lambda.LAMBDAS.items():
        own = Problem(shared.step(classes, *shared.small("cpu")), **ANY)
        paper = Problem(shared.step(classes, 500, 100), **ANY)
        scaled = np.array(minority_lambda.SWEEP.grid("cpu", "network", classes))
        ratio = scaled / closed.ends(own).groups[1].logit_decay
        expected = np.array(decays) / closed.ends(paper).groups[1].logit_decay
        assert ratio == pytest.approx(expected, rel=1e-5)
        assert minority_lambda.SWEEP.grid("paper", "network", classes) == list(decays)


@pytest.mark.slow
def test_the_smoke_scale_shows_the_switch(tmp_path):
    from tightframe.reproduce.folder import reproduce

    (record,) = reproduce("hong-ling/minority-lambda", tmp_path / "out")
    assert record.shortfalls == []
    assert [v.outcome for v in record.verdicts] == [
        "reproduced",
        "not at this scale",
        "reproduced",
    ]


@pytest.mark.parametrize("name", ["minority-lambda", "minority-n"])
def test_maps_are_those_of_the_ufm_and_of_networks(name):
    @trained
    def marked(rows, arrays):
        for i in rows.index:
            arrays[f"logits_{i}"] = arrays[f"logits_{i}"] * 0 + len(rows)

    results = MINIMISERS["hong-ling"].ideal(name, change=marked)
    panels = [p for p in FIGURES[name].draw(results) if isinstance(p, HeatMaps)]
    assert [panel.title.split(",")[0] for panel in panels] == ["UFM", shared.NETWORKS["cpu"]] * 2
    for panel, points in zip(panels, (30, 1, 30, 1), strict=True):  # three seeds a point; one run
        assert len(panel.maps) > 3
        assert {np.unique(one.values).item() for one in panel.maps} == {points}


# -- the rate at which the imbalance loses its effect ----------------------------------------------


@pytest.mark.parametrize(("bias", "power"), [("decayed", 0.0), ("none", 0.5), ("free", 2.0)])
def test_another_rate_on_one_line_is_not_reproduced(bias, power):
    def change(task, rows, arrays, history):
        if (task.labels["bias"], task.labels["ratio"], task.labels["share"]) == (bias, 10, 1.0):
            for i in rows.index:
                # As if the distance fell like 1 / log(n_B)^power.
                etf = np.eye(10) - 0.1
                off = np.zeros((10, 10))
                off[0, 1] = 1 / np.log(rows["group1_count"][i]) ** power
                arrays[f"logits_{i}"] = etf + off
                arrays[f"bias_{i}"] = np.zeros(10)

    expected = {"decayed": [NO, YES, YES], "none": [YES, NO, YES], "free": [YES, YES, NO]}
    assert judged("rate", change=change) == expected[bias]


@pytest.mark.parametrize("free", [False, True])
@pytest.mark.parametrize("ratio", [2, 10, 100])
def test_the_rate_is_that_of_gradients_at_large_margins(free, ratio):
    """Against logits with residuals of N λ times the polar factor, n_B beyond what floats hold."""
    counts = np.repeat([float(ratio), 1.0], 5)
    etf = np.eye(10) - 0.1

    def inverse_distance(log_n):
        z = log_n * (etf - (etf @ counts / counts.sum())[:, None] if free else etf)
        root = np.sqrt(counts)
        for _ in range(100):  # the logits' direction settles as margins grow
            u, _, v = np.linalg.svd(z * root)
            polar = u[:, :9] @ v[:9]
            total = np.log(np.where(np.eye(10) > 0, 1.0, -polar / root))
            total -= (1 - np.eye(10)) * log_n / 2
            total -= total.mean(axis=0)
            # A free bias takes what is common to all samples.
            z = total - (total @ counts / counts.sum())[:, None] if free else total
        unit = total / np.linalg.norm(total, axis=0)
        found = unit.T @ unit + 1 / 9
        return 1 / max(abs(found[0, 1]), abs(found[0, 9]), abs(found[8, 9]))

    slope = (inverse_distance(1400.0) - inverse_distance(1300.0)) / 100
    assert rate.growth(ratio, free=free) == pytest.approx(slope, rel=3e-3)


# -- errors of networks ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("nc1", "first"), [([1, 0.1, 1e-3, 1e-4], 2), ([1e-3, 0.1, 1e-3], 2), ([1, 0.1], None)]
)
def test_errors_count_from_where_collapse_stays(nc1, first):
    rows = errors.collapsed(pd.DataFrame({"nc1": nc1, "epoch": range(len(nc1))}))
    assert list(rows["epoch"]) == ([] if first is None else list(range(first, len(nc1))))


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ("logits_error", [NO, YES]),
        ("logits_largest_error", [NO, YES]),
        ("bias_largest_error", [YES, NO]),
        ("nc1", [NO, NO]),
    ],
)
def test_each_error_of_one_network_decides(column, expected):
    def change(task, rows, arrays, history):
        if task.labels["structure"] == "2":
            history[column] = 0.1

    assert judged("errors", change=change) == expected
    assert judged("errors") == [YES, YES]


@pytest.mark.parametrize("value", [0.03, np.nan])
def test_the_network_with_the_largest_error_is_named(value):
    def change(task, rows, arrays, history):
        own = ("vgg11", "digits", "2")
        if tuple(task.labels[key] for key in ("network", "data", "structure")) == own:
            history["bias_largest_error"] = value

    logits, bias = FIGURES["errors"].judge(MINIMISERS["hong-ling"].ideal("errors", change=change))
    assert "12 networks" in bias.sentence
    assert "VGG11 on digits, structure 2" in bias.sentence
    assert "VGG11 on digits, structure 2" not in logits.sentence


@pytest.mark.parametrize("scale", SCALES)
def test_both_figures_share_twelve_networks(scale):
    tasks = [task for task in FIGURES["block-structure"].tasks(scale) if task.kind == "network"]
    kinds = {tuple(t.labels[key] for key in ("data", "network", "structure")) for t in tasks}
    assert len(kinds) == len(tasks) == (2 if scale == "smoke" else 12)
    assert [task.hash for task in FIGURES["errors"].tasks(scale)] == [t.hash for t in tasks]
    assert len({task.hash for task in tasks}) == len(tasks)


def test_networks_are_told_apart_in_every_panel():
    for name in ("block-structure", "errors"):
        panels = FIGURES[name].draw(MINIMISERS["hong-ling"].ideal(name))
        assert len({panel.title for panel in panels}) == len(panels)
        shown = {
            panel.title: [one.title for one in panel.maps]
            for panel in panels
            if isinstance(panel, HeatMaps)
        }
        ufm = ["UFM"] if name == "block-structure" else []
        assert list(shown.values()) == [["predicted", *ufm, "ResNet18", "VGG11", "VGG13"]] * 4


def test_maps_run_from_zero_to_one():
    found = block_structure.min_max(np.array([[3.0, -1.0], [0.0, 1.0]]))
    np.testing.assert_allclose(found, [[1, 0], [0.25, 0.5]])
    assert not block_structure.min_max(np.ones((2, 2))).any()
