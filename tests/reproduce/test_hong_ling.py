"""Hong & Ling's figures: settings valid at every scale, verdicts that follow the measurements."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tightframe as tf
from tests.reproduce.minimisers import Minimisers, trained
from tightframe.figures.model import panel_to_dict
from tightframe.problem.problem import Problem
from tightframe.reproduce.papers import hong_ling as module
from tightframe.reproduce.spec import SCALES
from tightframe.runs.config import RunConfig

ANY = {"weight_decay": 1.0, "feature_decay": 1.0}
TRAINED = {"nc1": 1e-4, "train_accuracy": 1.0, "test_accuracy": 0.9, "status": "converged"}
HISTORY = pd.DataFrame({"row": [0, 0], "epoch": [0, 9], "nc1": [1.0, 1e-4]})
MINIMISERS = Minimisers(module.PAPER, TRAINED, HISTORY)
FIGURES, ideal, outcomes = MINIMISERS.figures, MINIMISERS.ideal, MINIMISERS.outcomes


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", FIGURES)
def test_settings_are_valid_at_every_scale(name, scale):
    tasks = FIGURES[name].tasks(scale)
    assert {"solve", "ufm", "network"} == {task.kind for task in tasks}
    for task in tasks:
        if task.kind == "network":
            config = RunConfig.from_dict(task.arguments["config"])
            # The paper's decays have the ratio 100, and lambda is what the label says.
            (found,) = config.problems
            assert found.weight_decay / found.feature_decay == pytest.approx(
                1000 if (name, scale) == ("block-structure", "paper") else 100
            )
            if name != "block-structure":
                assert found.logit_decay == pytest.approx(task.labels["lambda"])
        else:
            assert all(Problem(**values) for values in task.arguments["problems"])


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name == "minority-n")) for name in FIGURES],
)
def test_minimisers_reproduce_every_claim(name):
    results = ideal(name)
    assert set(outcomes(name, results)) == {"reproduced"}
    panels = FIGURES[name].draw(results)
    assert panels
    assert not any(panel.empty for panel in panels)
    assert all(panel_to_dict(panel) for panel in panels)


def test_smoke_decides_nothing_about_networks():
    for name in FIGURES:
        found = FIGURES[name].judge(ideal(name, "smoke"))
        for verdict in found:
            network = "MLP" in verdict.sentence or "training" in verdict.sentence
            assert (verdict.outcome == "not at this scale") == network


@trained
def shifted(rows, arrays):
    # As if every decay acted two and a half grid steps later.
    for group in ("group0_margin", "group1_margin"):
        rows[group] += 0.9
        rows.loc[rows["lambda"] > 1.6 * rows["group1_threshold"], group] = 0.0


def test_a_late_switch_is_not_reproduced():
    assert set(outcomes("minority-lambda", ideal("minority-lambda", change=shifted))) == {
        "not reproduced"
    }


@pytest.mark.slow
def test_a_minority_that_never_merges_is_not_reproduced():
    @trained
    def distinct(rows, arrays):
        for name in ("group0_margin", "group1_margin"):
            if name in rows:
                rows[name] = 1.0

    for name in ("minority-lambda", "minority-n", "oversampling"):
        assert set(outcomes(name, ideal(name, change=distinct))) == {"not reproduced"}


def test_the_worst_seed_decides():
    @trained
    def one(rows, arrays):
        if len(rows) > 1:  # beyond the threshold, a second seed still distinct
            rows.loc[len(rows)] = rows.iloc[-2]
            rows.loc[len(rows) - 1, "group1_margin"] = 1.0

    assert outcomes("minority-lambda", ideal("minority-lambda", change=one))[0] == "not reproduced"


def test_blocks_and_cosines_are_judged_by_what_was_measured():
    @trained
    def noisy(rows, arrays):
        rows["nc1"] = 0.5
        rows[["cosine_0_0", "cosine_0_1", "cosine_1_1"]] = 0.0
        for i in range(len(rows)):
            arrays[f"logits_{i}"] = arrays[f"logits_{i}"] + np.diag(np.arange(10.0))

    assert set(outcomes("block-structure", ideal("block-structure", change=noisy))) == {
        "not reproduced"
    }
    assert outcomes("limit", ideal("limit", change=noisy)) == [
        "reproduced",  # of the minimisers, which are left alone
        "not reproduced",
        "not reproduced",
    ]


def test_an_unfinished_smoke_run_of_the_ufm_decides_nothing_but_never_passes():
    @trained
    def early(rows, arrays):
        rows["cosine_1_1"] = 0.0
        rows["status"] = "stopped"

    assert outcomes("limit", ideal("limit", "smoke", early))[1] == "not at this scale"
    assert outcomes("limit", ideal("limit", "cpu", early))[1] == "not reproduced"


@given(
    st.lists(st.booleans(), min_size=1, max_size=12),
)
def test_the_switch_is_where_collapse_stays(collapsed):
    values = list(range(len(collapsed)))
    found = module._switch(values, collapsed)
    assert all(collapsed[found:])
    assert found == 0 or not collapsed[found - 1]


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
    assert module.block_deviation(z, groups) == pytest.approx(expected, abs=1e-10)
    solution = tf.solve(Problem(counts, weight_decay=0.05, feature_decay=0.05))
    assert module.block_deviation(solution.logits, groups) < 1e-12


@pytest.mark.parametrize("classes", [5, 3])
def test_the_threshold_in_the_majority_count_is_where_the_minimiser_merges(classes):
    threshold = module._count_threshold(classes, 100, 0.005)
    for majority, merged in ((int(threshold) - 1, False), (int(threshold) + 2, True)):
        counts = module._step(classes, majority, 100)
        values = module._problem(counts, 0.005)
        assert tf.solve(Problem(**values)).group_collapsed[1] == merged


def test_networks_stand_where_the_paper_stands_relative_to_the_threshold():
    for classes, decays in module._LAMBDAS.items():
        own = Problem(module._step(classes, 100, 20), **ANY)
        paper = Problem(module._step(classes, 500, 100), **ANY)
        scaled = np.array(module._network_lambdas("cpu", classes))
        ratio = scaled / tf.thresholds(own).groups[1].logit_decay
        expected = np.array(decays) / tf.thresholds(paper).groups[1].logit_decay
        assert ratio == pytest.approx(expected, rel=1e-5)
        assert module._network_lambdas("paper", classes) == list(decays)


def test_specs_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        module.PAPER.name = "other"


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
