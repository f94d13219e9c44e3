"""Thrampoulidis et al.'s figures: settings valid at every scale, verdicts that follow the runs."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

import tightframe as tf
from tests.reproduce.papers.minimisers import MINIMISERS, failed, of, outcomes
from tightframe.figures.model import Table
from tightframe.figures.storage import panel_to_dict
from tightframe.problem.problem import Problem
from tightframe.reproduce.papers.thrampoulidis import (
    certificate,
    norms_angles,
    paths,
    regularisation_path,
    shared,
    ufm_step,
)
from tightframe.reproduce.results import Results, TaskResult
from tightframe.reproduce.spec import SCALES, Task
from tightframe.reproduce.tasks import run_task
from tightframe.runs.config import RunConfig

OWN = MINIMISERS["thrampoulidis"]
FIGURES, ideal, judged = OWN.figures, OWN.ideal, OWN.judged
YES, NO, OPEN = "reproduced", "not reproduced", "not at this scale"


# -- the settings ----------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", FIGURES)
def test_problems_have_the_papers_ridges(name, scale):
    for task in FIGURES[name].tasks(scale):
        if task.kind == "network":
            config = RunConfig.from_dict(task.arguments["config"])
            (problem,) = config.problems
            ridge = 1e-6 if scale == "paper" else 0.1
            assert problem.num_samples * problem.logit_decay == pytest.approx(ridge)
            if scale == "paper":
                assert (config.decay_on, problem.weight_decay) == ("all", 5e-4)
            else:
                decay_ratio = 100 if task.labels["data"] == "digits" else 1000
                assert problem.weight_decay / problem.feature_decay == pytest.approx(decay_ratio)
            largest, smallest = problem.counts.max(), problem.counts.min()
            assert largest == task.labels["ratio"] * smallest
            assert (problem.counts == largest).sum() in (5, 10)
        elif task.kind == "path":
            sweep = task.arguments["sweep"]
            problem = Problem(**task.arguments["problem"])
            total = problem.num_samples
            assert [d * total for d in sweep["weight_decay"]] == pytest.approx(paths.PATH_RIDGES)
            assert sweep["weight_decay"] == sweep["feature_decay"]
        else:
            assert all(Problem(**values).num_classes == 10 for values in task.arguments["problems"])


def test_figures_share_their_runs():
    """Norms, paths and certificates look at the UFM runs of the first figure."""
    own = {t.hash for t in FIGURES["ufm-step"].tasks("cpu") if t.labels["what"] == "UFM"}
    assert own
    for name in ("norms-angles", "regularisation-path", "certificate", "minority-angles"):
        assert own <= {task.hash for task in FIGURES[name].tasks("cpu")}


# -- the verdicts ----------------------------------------------------------------------------------


def test_the_paper_scale_judges_networks_against_seli_only():
    """All parameters decay there: what the UFM's minimiser would be is unknown."""
    assert judged("networks-step", "paper") == [YES] * 12
    assert all(panel_to_dict(p) for p in FIGURES["networks-step"].draw(ideal("networks-step")))


def test_networks_with_a_relu_are_centred():
    """At scale paper a common mean of all features must not change any distance."""

    def lift(task, rows, arrays, history):
        if task.kind == "network":
            arrays["means_0"] = arrays["means_0"] + 50.0
            size = 1000.0 if task.labels["ratio"] == 1 else 1.0
            arrays["logits_0"] = arrays["logits_0"] + size * np.arange(10.0)[:, None]

    assert judged("networks-step", "paper", lift) == [YES] * 12
    assert NO in judged("networks-step", "cpu", lift)


def as_etf(task, rows, arrays, history):
    """The runs have ended in the simplex ETF instead."""
    if task.kind in ("solve", "path"):
        return
    for name in arrays:
        arrays[name] = np.eye(10) - 0.1
    if task.labels["ratio"] > 1:
        history["classifier_to_predicted"] = 0.5


def test_runs_that_end_in_the_etf_do_not_pass_for_seli():
    # Where only distances that rise with R are asked for, they do: the ETF is ever farther off.
    assert judged("ufm-step", change=as_etf) == [NO, NO, NO, NO, YES, YES]
    assert judged("networks-step", change=as_etf) == [NO, YES, NO] * 4
    assert judged("norms-angles", change=as_etf) == [YES, NO, NO, NO, NO]
    assert judged("minority-angles", change=as_etf) == [YES, YES, NO, NO]
    assert judged("regularisation-path", change=as_etf) == [YES, YES, YES, NO, YES]
    assert judged("certificate", change=as_etf) == [YES, YES, NO]


def test_one_seed_that_is_off_decides():
    def spoil(task, rows, arrays, history):
        if task.labels["what"] == "UFM" and task.labels["ratio"] == 10:
            (i,) = np.flatnonzero(np.isclose(rows["lambda"] * rows["num_samples"], 0.01))[-1:]
            arrays[f"classifier_{i}"] = np.eye(10) - 0.1

    assert judged("ufm-step", change=spoil)[:2] == [NO, NO]
    assert judged("norms-angles", change=spoil)[2] == NO
    assert judged("regularisation-path", change=spoil)[3] == NO


def test_convergence_must_slow_down_with_the_imbalance():
    def slow(task, rows, arrays, history):
        if task.labels["ratio"] == 1:
            history["iteration"] *= 50

    def late(task, rows, arrays, history):
        if task.labels["ratio"] == 10:
            history["logits_to_predicted"] = 0.2

    assert judged("ufm-step", change=slow) == [YES, YES, NO, YES, YES, YES]
    assert judged("ufm-step", change=late) == [YES, YES, NO, YES, YES, YES]


def test_without_a_ridge_nothing_is_decided_before_the_balanced_run_arrives():
    def away(task, rows, arrays, history):
        for i in rows.index if task.labels["what"] == "UFM without ridge" else ():
            arrays[f"classifier_{i}"] = np.eye(10)

    def far(task, rows, arrays, history):
        if task.labels["ratio"] == 10:
            away(task, rows, arrays, history)

    assert judged("ufm-step", change=away) == [YES, YES, YES, NO, OPEN, YES]
    assert judged("ufm-step", change=far) == [YES, YES, YES, NO, NO, YES]


def test_a_free_bias_must_not_count_without_a_ridge():
    @of("UFM without ridge")
    def as_ridges_tend(rows, arrays):
        """The runs have ended in SELI of a free bias instead."""
        for i in rows.index:
            arrays[f"logits_{i}"] = tf.seli(rows["counts"][i], "free").logits

    assert judged("ufm-step", change=as_ridges_tend)[-1] == NO


def test_a_free_bias_has_a_seli_of_its_own_where_the_ridge_vanishes():
    results = ideal("regularisation-path")
    runs = paths.paths_of(results, "free")["R = 10"]
    assert (shared.from_own_seli(runs[-1]) < 0.05).all()
    assert shared.from_seli(runs[-1])[2] > 0.2


def test_networks_must_get_worse_with_the_imbalance():
    def worse(task, rows, arrays, history):
        if task.labels["ratio"] == 1:
            arrays["logits_0"] = np.diag(np.arange(1.0, 11.0))

    assert judged("networks-step", change=worse) == [YES, NO, NO] * 4


def test_a_missing_data_set_leaves_the_others_judged():
    results = ideal("networks-step")

    lost = [r for r in results.tasks if r.task.labels["data"] == "fashion_mnist"]
    tasks = [failed(r, "fashion_mnist: not found") if r in lost else r for r in results.tasks]
    results = Results("cpu", tuple(tasks))
    verdicts = FIGURES["networks-step"].judge(results)
    assert outcomes(verdicts) == [YES] * 3 + ["undecided"] * 9
    assert "not found" in verdicts[-1].sentence
    assert len(FIGURES["networks-step"].draw(results)) == 4


def test_a_missing_imbalance_is_an_error():
    results = ideal("networks-step")
    results = Results("cpu", results.tasks[1:])
    with pytest.raises(ValueError, match="missing"):
        FIGURES["networks-step"].judge(results)
    results = ideal("minority-angles")
    kept = [r for r in results.tasks if r.task.labels.get("ratio") != 20]
    with pytest.raises(ValueError, match="missing"):
        FIGURES["minority-angles"].judge(Results("cpu", tuple(kept)))


def test_a_path_that_is_seli_itself_contradicts_the_claim():
    """No ridge may have SELI as its minimiser: an objective as good as SELI's flips the verdict."""
    results = ideal("regularisation-path")
    tasks = []
    for result in results.tasks:
        rows = result.rows.copy()
        if result.task.labels.get("imbalance") == "R = 10":
            problem = Problem(rows["counts"].iloc[3], weight_decay=1.0, feature_decay=1.0)
            ridge = paths.PATH_RIDGES[3]
            rows.loc[3, "objective"] *= 1 + regularisation_path.seli_excess(
                problem.compact_counts, ridge, rows["objective"].iloc[3]
            )
        tasks.append(TaskResult(result.task, rows, result.history, result.read_arrays))
    found = FIGURES["regularisation-path"].judge(Results("cpu", tuple(tasks)))
    assert outcomes(found) == [YES, NO, YES, YES, YES]


def test_a_path_that_turns_back_or_is_uncertified_is_not_reproduced():
    results = ideal("regularisation-path")

    def changed(change):
        return Results("cpu", tuple(change(r) for r in results.tasks))

    def turned(result):
        if result.task.labels.get("imbalance") != "R = 100":
            return result
        arrays = dict(result.arrays)
        arrays["logits_9"], arrays["logits_10"] = arrays["logits_10"], arrays["logits_9"]
        return TaskResult(result.task, result.rows, result.history, lambda: arrays)

    def open_(result):
        rows = result.rows.copy()
        if result.task.labels.get("imbalance") == "R = 1":
            rows.loc[0, "status"] = "not_converged"
        return TaskResult(result.task, rows, result.history, result.read_arrays)

    judge = FIGURES["regularisation-path"].judge
    assert outcomes(judge(changed(turned))) == [NO, YES, YES, YES, NO]
    assert outcomes(judge(changed(open_))) == [NO, YES, NO, YES, NO]
    judge = FIGURES["certificate"].judge
    assert outcomes(judge(changed(turned))) == [YES, NO, YES]


def test_order_counts_also_among_runs_that_are_all_near_their_minimisers():
    def ridges(task, rows, arrays, history):
        """The runs of two neighbouring ridges at R = 10 have changed places."""
        if task.kind == "ufm" and task.labels["ratio"] == 10:
            found = rows["lambda"] * rows["num_samples"]
            for i, j in zip(
                np.flatnonzero(np.isclose(found, 0.03)),
                np.flatnonzero(np.isclose(found, 0.01)),
                strict=True,
            ):
                for name in ("classifier", "means", "logits"):
                    a, b = f"{name}_{i}", f"{name}_{j}"
                    arrays[a], arrays[b] = arrays[b], arrays[a]

    def imbalances(task, rows, arrays, history):
        """The network at R = 1 has minority classifiers as close as those at R = 2."""
        if task.kind == "network" and task.labels["ratio"] == 1:
            step = tf.solve(
                Problem.from_summed_loss("2x5,1x5", weight_decay=0.1, feature_decay=0.1)
            )
            arrays["classifier_0"] = (
                step.geometry.classifier + 0.01 * step.geometry.classifier.max()
            )

    assert judged("regularisation-path", change=ridges) == [YES, YES, YES, NO, YES]
    assert judged("certificate", change=ridges) == [YES, YES, NO]
    assert judged("minority-angles", change=imbalances) == [YES, YES, YES, NO]


@pytest.mark.parametrize(
    ("key", "value"), [("w_ratio", 0.9), ("h_ratio", 1.1), ("w_minor", -0.2), ("wh_minor", 0.999)]
)
def test_each_of_the_four_orders_counts(key, value):
    values = shared.step_values(10, 10)
    assert (norms_angles.order_margins(values) > 0.03).all()
    assert (norms_angles.order_margins(values | {key: value}) < 0).sum() == 1


@pytest.mark.parametrize(("share", "outcome"), [(0.4, NO), (0.6, YES)])
def test_orders_hold_by_more_than_half_of_the_minimisers(share, outcome, monkeypatch):
    """A model that is this share of the way from the ETF to its minimiser, in every value."""
    original = shared.values_of
    etf = original(tf.simplex_etf(10))

    def between(geometry):
        found = original(geometry)
        if geometry.name not in ("ufm", "network"):
            return found
        return {key: etf[key] + share * (found[key] - etf[key]) for key in found}

    monkeypatch.setattr(shared, "values_of", between)
    verdicts = FIGURES["norms-angles"].judge(ideal("norms-angles"))
    for found in (verdicts[1], verdicts[3]):
        assert found.outcome == outcome
        assert found.measured == pytest.approx(share, rel=0.02)


@pytest.mark.parametrize("wrong", ["entry", "gap"])
def test_one_imbalance_without_certificate_is_a_counter_example(wrong, monkeypatch):
    table = certificate._random_certificates().copy()
    table.loc[17, "largest" if wrong == "entry" else "gap"] = 1e-3
    monkeypatch.setattr(certificate, "_random_certificates", lambda: table)
    assert judged("certificate")[0] == NO


def test_where_the_minority_merges_is_judged_within_one_step():
    tasks = FIGURES["minority-angles"].tasks("cpu")
    (task,) = (task for task in tasks if task.labels.get("of") == "fixed decay")
    solved = OWN.result(task)
    last = len(solved.rows) - 1

    def moved(steps):
        def change(other, rows, arrays, history):
            for i in range(last + 1 if other == task else 0):
                name = f"classifier_{min(max(i - steps, 0), last)}"
                arrays[f"classifier_{i}"] = solved.arrays[name]

        return judged("minority-angles", change=change)[1]

    assert [moved(steps) for steps in (-2, -1, 0, 1, 2)] == [NO, YES, YES, YES, NO]


# -- the formulas ----------------------------------------------------------------------------------


def seli_by_svd(num_classes, ratio):
    """Factors of the label matrix, one column a sample, as in the paper."""
    half = num_classes // 2
    labels = np.repeat(np.arange(num_classes), [ratio] * half + [1] * half)
    encoded = (np.eye(num_classes) - 1 / num_classes)[:, labels]
    v, length, ut = np.linalg.svd(encoded, full_matrices=False)
    length[-1] = 0
    w = v * np.sqrt(length)
    h = np.sqrt(length)[:, None] * ut
    means = np.stack([h[:, labels == k].mean(axis=1) for k in range(num_classes)], axis=1)
    return w, means


def naive_values(w, h):
    """Every length and angle by loops over classes."""
    half = len(w) // 2

    def cosine(a, b):
        return a @ b / np.linalg.norm(a) / np.linalg.norm(b)

    found = {}
    for name, vectors in (("w", list(w)), ("h", list(h.T))):
        major, minor = vectors[:half], vectors[half:]
        lengths = [np.mean([np.linalg.norm(x) for x in group]) for group in (major, minor)]
        found[f"{name}_ratio"] = lengths[0] / lengths[1]
        for key, group in (("major", major), ("minor", minor)):
            pairs = [cosine(a, b) for i, a in enumerate(group) for b in group[:i]]
            found[f"{name}_{key}"] = np.mean(pairs)
        found[f"{name}_mixed"] = np.mean([cosine(a, b) for a in major for b in minor])
    own = [cosine(w[k], h[:, k]) for k in range(len(w))]
    return found | {"wh_major": np.mean(own[:half]), "wh_minor": np.mean(own[half:])}


@given(st.integers(2, 6), st.integers(1, 60))
@settings(max_examples=30, deadline=None)
def test_closed_forms_are_the_factors_of_the_label_matrix(half, ratio):
    expected = naive_values(*seli_by_svd(2 * half, ratio))
    assert shared.step_values(2 * half, ratio) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("num_classes", [2, 5, 0])
def test_closed_forms_need_pairs_in_both_halves(num_classes):
    with pytest.raises(ValueError, match="num_classes"):
        shared.step_values(num_classes, 10)


@given(st.integers(2, 5), st.integers(0, 10**6))
@settings(max_examples=25, deadline=None)
def test_gram_values_are_those_of_the_vectors(half, seed):
    rng = np.random.default_rng(seed)
    w, h = rng.normal(size=(2 * half, 7)), rng.normal(size=(7, 2 * half))
    found = shared.gram_values(w @ w.T, h.T @ h, w @ h)
    assert found == pytest.approx(naive_values(w, h), abs=1e-12)
    assert set(found) == set(shared.VALUES)


@pytest.mark.parametrize("counts", ["1x10", "10x5,1x5", "7,5,2,1", "300x2,4x3"])
@pytest.mark.parametrize("ridge", [3.0, 0.3, 1e-3, 1e-9])
def test_the_excess_of_seli_is_that_of_its_best_multiple(counts, ridge):
    problem = Problem.from_summed_loss(counts, weight_decay=ridge, feature_decay=ridge)
    k, n = problem.num_classes, problem.counts
    frame = np.eye(k) - 1 / k
    norm = np.linalg.svd(frame * np.sqrt(n), compute_uv=False).sum()

    def objective(m):
        others = (np.exp(m * (frame - np.diagonal(frame))) * (1 - np.eye(k))).sum(axis=0)
        return n @ np.log1p(others) / n.sum() + problem.logit_decay * m * norm

    best = minimize_scalar(objective, bounds=(0, 60), method="bounded", options={"xatol": 1e-9})
    best = min(best.fun, objective(0.0))
    solved = tf.solve(problem).objective
    found = regularisation_path.seli_excess(counts, ridge, solved)
    assert found == pytest.approx(best / solved - 1, abs=1e-7)
    assert found > -1e-9


def test_the_excess_is_zero_on_balanced_data_only():
    for counts, positive in (("1x10", False), ("2x5,1x5", True)):
        problem = Problem.from_summed_loss(counts, weight_decay=0.05, feature_decay=0.05)
        excess = regularisation_path.seli_excess(counts, 0.05, tf.solve(problem).objective)
        assert (excess > 1e-6) == positive


@given(st.lists(st.sampled_from([0.05, 0.5, math.nan]), min_size=1, max_size=8))
def test_arrival_is_when_the_distance_stays_small(distances):
    times = list(range(10, 10 + len(distances)))
    stays = [t for i, t in enumerate(times) if all(d < 0.1 for d in distances[i:])]
    assert ufm_step.arrival(times, distances) == (stays[0] if stays else math.inf)


def test_the_svm_gap_is_zero_at_seli_and_undefined_without_separation():
    assert certificate.svm_gap("5x2,1x2", 3.0 * (np.eye(4) - 0.25)) == pytest.approx(0, abs=1e-12)
    assert certificate.svm_gap("5x2,1x2", np.eye(4)) > 1e-3
    assert math.isnan(certificate.svm_gap("5x2,1x2", np.zeros((4, 4))))


def test_random_imbalances_span_what_they_say():
    table = certificate._random_certificates()
    assert len(table) == certificate._RANDOM
    assert table["imbalance"].between(1, 1000).all()
    assert table["imbalance"].max() > 300


# -- real runs -------------------------------------------------------------------------------------


def shortened(task):
    arguments = json.loads(json.dumps(dict(task.arguments)))
    if task.kind == "ufm":
        arguments["iterations"] = 40
    if task.kind == "network":
        arguments["config"] |= {"epochs": 2, "measure_every": 1, "hidden": [8]}
    return Task(task.kind, arguments, task.labels)


@pytest.mark.slow
def test_rows_of_real_runs_have_what_the_figures_read(tmp_path):
    """Runs of a few steps pass through every verdict and panel, and are not taken for trained."""
    done = {}

    def result(task):
        short = shortened(task)
        if short.hash not in done:
            output = run_task(short.kind, short.arguments, str(tmp_path / short.hash))
            done[short.hash] = (
                pd.DataFrame(output.rows),
                pd.DataFrame(output.history),
                output.arrays,
            )
        rows, history, arrays = done[short.hash]
        return TaskResult(short, rows, history, lambda: arrays)

    found, tables = {}, []
    for name, figure in FIGURES.items():
        results = Results("smoke", tuple(result(task) for task in figure.tasks("smoke")))
        found[name] = outcomes(figure.judge(results))
        panels = figure.draw(results)
        assert panels
        assert not any(panel.empty for panel in panels)
        tables += [panel for panel in panels if isinstance(panel, Table)]
    assert tables
    assert all(len(row) == len(t.columns) for t in tables for row in t.rows)
    assert found["ufm-step"] == [NO, NO, NO, NO, OPEN, OPEN]
    assert found["networks-step"] == [OPEN] * 3
    # The orders alone hold early on; the values do not.
    assert found["norms-angles"][2:] == [NO, OPEN, OPEN]
    assert found["regularisation-path"] == [YES, YES, YES, NO, YES]
    assert found["certificate"][:2] == [YES, YES]
    assert found["minority-angles"][2:] == [NO, OPEN]
