"""What holds for every figure of every paper, with minimisers in the place of trained models."""

import functools
import json

import pytest

from tests.reproduce.papers.minimisers import (
    ALL,
    MINIMISERS,
    failed,
    last_failed,
    last_spoilt,
    outcomes,
    spoilt,
)
from tightframe.figures.storage import panel_to_dict
from tightframe.problem.problem import Problem
from tightframe.reproduce.results import Results
from tightframe.reproduce.spec import NOT_AT_THIS_SCALE, NOT_REPRODUCED, SCALES, UNDECIDED, papers
from tightframe.runs.config import RunConfig

YES, NO = "reproduced", NOT_REPRODUCED

#: Figures with claims that the minimisers refute.
REFUTED = {("dang-2023", "deep-ce"): [NO, YES, YES, NO, YES]}

figures = pytest.mark.parametrize(("paper", "name"), ALL)

pytestmark = pytest.mark.usefixtures("few_points")


def drawn(figure, results):
    """The panels of a figure, that they can be stored."""
    panels = figure.draw(results)
    json.dumps([panel_to_dict(panel) for panel in panels], allow_nan=False)
    return panels


def test_every_paper_is_covered():
    assert [(paper.name, f.name) for paper in papers().values() for f in paper.figures] == ALL
    assert len(papers()) == 5


@figures
def test_tasks_are_valid_at_every_scale(paper, name):
    for scale in SCALES:
        for task in MINIMISERS[paper].figures[name].tasks(scale):
            if task.kind == "network":
                assert RunConfig.from_dict(task.arguments["config"]).problems
            else:
                given = task.arguments.get("problems") or [task.arguments["problem"]]
                assert [Problem(**values) for values in given]


@functools.cache
def ideally(paper, name):
    """A figure's results and verdicts if everything ends in the minimiser."""
    results = MINIMISERS[paper].ideal(name)
    return results, tuple(MINIMISERS[paper].figures[name].judge(results))


@figures
def test_minimisers_reproduce_every_claim(paper, name):
    figure, (results, verdicts) = MINIMISERS[paper].figures[name], ideally(paper, name)
    assert outcomes(verdicts) == REFUTED.get((paper, name), [YES] * len(verdicts))
    for verdict in verdicts:
        json.dumps(verdict.to_dict(), allow_nan=False)
        assert verdict.sentence.endswith(".")
    panels = drawn(figure, results)
    assert panels
    if (paper, name) not in REFUTED:  # whose maps are of points that are left out here
        assert not any(panel.empty for panel in panels)


@figures
def test_rows_compare_one_quantity_and_say_which_part_they_judge(paper, name):
    _, verdicts = ideally(paper, name)
    claims = [verdict.claimed for verdict in verdicts]
    assert len(set(claims)) == len(claims)
    for verdict in verdicts:
        given = [value for value in (verdict.predicted, verdict.measured) if value is not None]
        assert len({isinstance(value, str) for value in given}) == 1, verdict
        if len(given) == 2 and verdict.outcome == YES:
            predicted, measured = given
            if isinstance(measured, str):
                # Places on a grid, which minimisers hit.
                assert measured == predicted
            else:
                assert measured == pytest.approx(predicted, abs=tolerated(verdict))


def tolerated(verdict):
    """By how much a measured number may differ from the predicted one."""
    if isinstance(verdict.tolerance, str):
        percent, unit = verdict.tolerance.split(" ", 1)
        assert unit in ("%", "grid step")
        return abs(verdict.predicted) * float(percent) / 100 if unit == "%" else 0.0
    return verdict.tolerance


@figures
def test_smoke_decides_nothing_about_networks(paper, name):
    own = MINIMISERS[paper]
    for verdict in own.figures[name].judge(own.ideal(name, "smoke")):
        says_so = "training" in verdict.sentence.partition("; training accuracy")[0]
        says_so = says_so or "short training" in verdict.sentence
        assert (verdict.outcome == NOT_AT_THIS_SCALE) == says_so


def kinds_of_tasks(results):
    """The tasks of every kind, by kind and what they are for."""
    found = {}
    for result in results.tasks:
        found.setdefault((result.task.kind, result.task.labels["what"]), []).append(result)
    return found.values()


@figures
def test_a_failed_run_is_no_evidence(paper, name):
    """Verdicts that rest on a task, told by what they say to nonsense from it, are undecided.

    Nothing disappears, no other verdict changes, and what is there is drawn.
    """
    own = MINIMISERS[paper]
    figure, results = own.figures[name], own.ideal(name)
    before = figure.judge(results)
    for tasks in kinds_of_tasks(results):
        for chosen, lose, spoil in (
            (tasks[:1], failed, spoilt),
            (tasks[-1:], failed, spoilt),
            (tasks, failed, spoilt),
            (tasks[-1:], last_failed, last_spoilt),
        ):
            lost = replaced(results, {result: lose(result) for result in chosen})
            nonsense = {result: own.result(result.task, spoil) for result in chosen}
            told = figure.judge(replaced(results, nonsense))
            verdicts = figure.judge(lost)
            assert [v.criterion for v in verdicts] == [v.criterion for v in before]
            assert [v.claimed for v in verdicts] == [v.claimed for v in before]
            for verdict, was, spoiled in zip(verdicts, before, told, strict=True):
                if spoiled.outcome != was.outcome:
                    assert verdict.outcome in {UNDECIDED, was.outcome} - {YES}
                if verdict.outcome == UNDECIDED:
                    assert "diverged: a reason" in verdict.sentence
                    assert any(result.task.name in verdict.sentence for result in chosen)
                    assert "nan" not in verdict.sentence
                else:
                    assert verdict.outcome == was.outcome
            drawn(figure, lost)


def replaced(results, new):
    """The results with other ones of some tasks."""
    return Results(results.scale, tuple(new.get(result, result) for result in results.tasks))
