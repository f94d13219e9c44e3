"""Typed runs: every run that a task was to give, with its problem, whatever became of it."""

import math

import numpy as np
import pandas as pd
import pytest

import tightframe as tf
from tests.reproduce.toy_paper import DECAYS, SHARED, problem
from tightframe.problem.problem import Problem
from tightframe.reproduce.results import Results, TaskResult
from tightframe.reproduce.spec import Task
from tightframe.reproduce.tasks import failed_row, run_task


def given(task, rows=None, history=None, arrays=None):
    """Results of a task as they are read from disk, without running it."""
    rows = pd.DataFrame(rows or [])
    history = pd.DataFrame(history or {"row": []})
    return TaskResult(task, rows, history, lambda: arrays or {})


def row(number, status="optimal", **values):
    return {"row": number, "status": status, "reason": None, **values}


def ran(task):
    output = run_task(task.kind, task.arguments, "")
    return given(task, output.rows, output.history, output.arrays)


def test_a_run_is_what_the_library_says_of_its_problem():
    result = ran(SHARED)
    assert len(result.runs) == len(DECAYS)
    for run, decay in zip(result.runs, DECAYS, strict=True):
        solution = tf.solve(Problem(**problem(decay)))
        assert run.problem == Problem(**problem(decay))
        assert run.decay == pytest.approx(decay)
        assert run.objective == pytest.approx(solution.objective, rel=1e-12)
        assert run.margins == pytest.approx(solution.group_margins)
        assert run.predicted_margins == pytest.approx(solution.group_margins)
        assert (run.geometry.means == solution.geometry.means).all()
        assert run.cosine(0, 1) == run.predicted_cosine(0, 1)
        assert (run.status, run.failed, run.reason) == ("optimal", False, None)
    assert (run.labels, run.task) == ({"what": "all"}, SHARED)
    assert math.isnan(run.measured("no such column"))
    assert run.text("method") == tf.solve(run.problem).method
    assert run.text("rank") is None
    with pytest.raises(KeyError):
        run.array("no such array")


def test_every_seed_of_every_problem_is_a_run_and_so_is_the_one_that_diverged():
    problems = [problem(1e-3), problem(5e-3)]
    task = Task("ufm", {"problems": problems, "seeds": [3, 4]}, {"what": "UFM"})
    rows = [row(i, "converged", objective=float(i)) for i in range(3)]
    rows.append({**row(3, "failed"), "reason": "diverged: NaN", "objective": 1.0})
    history = [{"row": i, "loss": float(i)} for i in (0, 1, 1)]
    runs = given(task, rows, history).runs
    assert [run.seed for run in runs] == [3, 4, 3, 4]
    assert [run.decay for run in runs] == pytest.approx([1e-3, 1e-3, 5e-3, 5e-3])
    assert [run.failed for run in runs] == [False] * 3 + [True]
    assert [len(run.history) for run in runs] == [1, 2, 0, 0]
    assert (runs[3].status, runs[3].reason) == ("failed", "diverged: NaN")
    assert math.isnan(runs[3].objective)
    assert np.isnan(runs[3].margins).all()


@pytest.mark.parametrize(
    "task",
    [
        SHARED,
        Task("ufm", {"problems": [problem(1e-3)], "seeds": [0, 1, 2, 3, 4, 5]}),
        Task("path", {"problem": problem(1e-3), "sweep": {"weight_decay": list(DECAYS)}}),
    ],
)
def test_a_task_that_failed_as_a_whole_is_all_its_runs(task):
    result = given(task, [failed_row("MemoryError: no room")])
    assert len(result.runs) == 6
    assert {run.reason for run in result.runs} == {"MemoryError: no room"}
    assert all(run.problem.num_classes == 5 for run in result.runs)


def test_a_network_has_the_problem_of_its_configuration():
    config = {"counts": "12x5,4x5", "settings": [[2e-2, 2e-4], [1e-2, 1e-4]], "seed": 7}
    runs = given(Task("network", {"config": config}), [failed_row("why")]).runs
    assert [run.problem.weight_decay for run in runs] == [2e-2, 1e-2]
    assert {run.seed for run in runs} == {7}
    assert runs[0].problem.compact_counts == "12x5,4x5"


def test_a_row_that_is_not_there_is_a_failed_run():
    runs = given(SHARED, [row(i) for i in (0, 2, 3, 4, 5)]).runs
    assert [run.reason for run in runs] == [None, "its row is missing", None, None, None, None]


def test_a_problem_that_cannot_be_is_the_reason_itself():
    bad = {**problem(1e-3), "feature_decay": -1.0}
    (run,) = given(Task("solve", {"problems": [bad]}), [failed_row("feature_decay: got")]).runs
    assert run.failed
    with pytest.raises(ValueError, match="feature_decay: got -1"):
        run.problem  # noqa: B018


def test_results_select_tasks_and_join_their_tables():
    one = Task("solve", {"problems": [problem(1e-3)] * 2}, {"what": "a"})
    other = Task("path", {"problem": problem(1e-3), "sweep": {"weight_decay": [1e-3]}}, {"n": 4})
    a = given(one, [row(0, x=1.5), row(1, x=2.5)])
    b = given(other, [row(0, y="text")])
    bad = given(one, [failed_row("why")])
    results = Results("smoke", (b, a, bad))
    table = results.table
    assert table["task"].tolist() == [0, 1, 1, 2]
    assert table["x"].dropna().tolist() == [1.5, 2.5]
    assert table["reason"].dropna().tolist() == ["why"]
    assert len(results.runs) == 5
    assert [run.measured("x") for run in results.done[1:]] == [1.5, 2.5]
    assert [run.reason for run in results.failed] == ["why", "why"]
    assert results.select("path", n=4).runs[0].text("y") == "text"
    assert len(results.select(what="a").runs) == 4
    assert results.select(what="c").runs == ()
    assert len(results.select(what="c").table) == 0
