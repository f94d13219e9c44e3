"""`tightframe reproduce` and `report` on what it wrote: output, exit codes, hints."""

import dataclasses
import json

import pytest

from tests.reproduce.toy_paper import BAD, GOOD, figure, judge_both
from tightframe.reproduce import spec
from tightframe.reproduce.spec import Task


@pytest.fixture(autouse=True)
def toy(monkeypatch):
    monkeypatch.setattr(spec, "papers", lambda: GOOD)
    monkeypatch.setenv("COLUMNS", "200")


def test_list_names_papers_and_figures(command, monkeypatch):
    code, out, err = command("reproduce", "--list")
    assert (code, err) == (0, "")
    assert "toy/rank" in out
    assert "T. Oy, On toys, 2020" in out
    code, out, err = command("reproduce", "--list", "--json")
    (paper,) = json.loads(out)["papers"]
    assert [figure["name"] for figure in paper["figures"]] == ["rank", "again"]
    monkeypatch.undo()
    code, out, err = command("reproduce", "--list")
    assert (code, err) == (0, "")
    assert "hong-ling/minority-lambda" in out
    monkeypatch.setenv("COLUMNS", "80")
    code, out, err = command("reproduce", "--list")
    assert "thrampoulidis/regularisation-path" in out  # the longest, in a narrow terminal


def test_a_run_prints_verdicts_and_writes_page_and_pictures(command, tmp_path, request):
    folder = tmp_path / "out"
    code, out, err = command("reproduce", "toy/rank", "--out", folder)
    assert (code, err) == (0, "")
    assert "The rank is right." in " ".join(out.replace("│", " ").split())
    assert f"report: {folder / 'report.html'}" in out
    page = (folder / "report.html").read_bytes()
    picture = folder / "figures/toy/rank/rank.png"
    assert picture.stat().st_size > 10_000
    picture.unlink()
    request.getfixturevalue("unrendered")
    (folder / "report.html").unlink()
    code, out, err = command("report", folder)
    assert (code, out.strip(), err) == (0, str(folder / "report.html"), "")
    assert (folder / "report.html").read_bytes() == page
    assert picture.exists()


def test_json_is_one_object(command, tmp_path, unrendered):
    code, out, err = command("reproduce", "toy/again", "--out", tmp_path / "out", "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert [figure["name"] for figure in found["figures"]] == ["toy/again"]
    assert found["figures"][0]["verdicts"][0]["outcome"] == "reproduced"
    again = command("reproduce", "toy/again", "--out", tmp_path / "out", "--json", "--resume")
    assert json.loads(again[1]) == found


def test_failed_runs_give_exit_code_three_and_are_named(command, tmp_path, monkeypatch):
    monkeypatch.setattr(spec, "papers", lambda: BAD)
    code, out, err = command("reproduce", "toy/broken", "--out", tmp_path / "out")
    assert code == 3
    assert err.startswith("tightframe: toy/broken: solve (what bad) failed: feature_decay: got -1")
    assert "It ran." in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "PAPER[/FIGURE]|all: need a paper, PAPER/FIGURE or all; --list"),
        (["toy/none", "--out", "x"], "figures of toy are rank, again"),
        (["toy"], "--out: name a folder"),
        (["toy", "--out", "x", "--scale", "big"], "--scale: got 'big', allowed are smoke, cpu"),
    ],
)
def test_bad_input_is_one_line(fails, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert message in fails("reproduce", *arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_second_run_needs_resume(command, fails, tmp_path):
    command("reproduce", "toy/again", "--out", tmp_path / "out")
    message = fails("reproduce", "toy/again", "--out", tmp_path / "out")
    assert "already holds a reproduction; resume it or name another folder" in message


def test_interrupted_it_says_how_to_go_on(command, tmp_path, monkeypatch):
    from tightframe.reproduce import folder as module

    def stop(**task):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "run_task", stop)
    code, out, err = command("reproduce", "toy", "--out", tmp_path / "out")
    assert (code, out) == (130, "")
    assert "the same command and --resume" in err


def test_a_limit_says_what_is_left_and_how_to_go_on(command, fails, tmp_path, monkeypatch):
    from tightframe.reproduce import folder as module

    line = ["reproduce", "toy/rank", "--out", tmp_path / "out"]
    assert "--limit: got '15', need a positive time such as 90s" in fails(*line, "--limit", "15")
    answers = iter([False, True])
    monkeypatch.setattr(module, "is_over", lambda until: next(answers))
    code, out, err = command(*line, "--limit", "15m")
    assert code == 130
    assert "stopped at the limit; tasks left: 1 of 2 of toy/rank; kept; go on with" in err
    assert "Verdicts" not in out
    assert (tmp_path / "out/report.html").exists()
    monkeypatch.undo()
    monkeypatch.setattr(spec, "papers", lambda: GOOD)
    code, _, err = command(*line, "--resume", "--limit", "15m")
    assert (code, err) == (0, "")


@pytest.fixture
def network(monkeypatch):
    """A figure of one small network, the same at every scale."""
    config = {"counts": "6x10", "epochs": 2, "measure_every": 2, "settings": [[1e-2, 1e-3]]}
    task = Task("network", {"config": config}, {"what": "one"})
    made = figure("rank", lambda scale: [task], judge_both, lambda results: [])
    paper = dataclasses.replace(GOOD["toy"], figures=(made,))
    monkeypatch.setattr(spec, "papers", lambda: {"toy": paper})
    monkeypatch.setattr("tightframe.reproduce.estimate.throughput", lambda *network: 1e9)


def test_estimate_runs_nothing(command, network):
    code, out, err = command("reproduce", "toy", "--estimate")
    assert (code, err) == (0, "")
    assert "toy/rank" in out
    assert "as fast as in a step of each that was timed here" in " ".join(out.split())
    code, out, err = command("reproduce", "toy", "--estimate", "--json", "--device", "cpu")
    found = json.loads(out)
    assert [figure["name"] for figure in found["figures"]] == ["toy/rank", "all"]
    assert (found["devices"], found["measured"]) == (1, True)


def test_without_networks_there_is_nothing_to_estimate(command):
    code, out, err = command("reproduce", "toy", "--estimate", "--scale", "paper")
    assert (code, err) == (0, "")
    assert out.startswith("No network is trained for these figures")


def test_at_scale_paper_the_estimate_of_what_is_left_comes_first(
    command, network, tmp_path, unrendered
):
    line = ["reproduce", "toy", "--out", tmp_path / "out", "--scale", "paper", "--device", "cpu"]
    code, out, _ = command(*line, "--limit", "1h")
    assert code == 0
    assert out.index("What the networks will take, estimated") < out.index("Verdicts")
    code, out, _ = command(*line, "--resume")
    assert code == 0
    assert "estimated" not in out
