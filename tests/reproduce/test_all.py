"""The whole of `tightframe reproduce all --scale smoke` and its page."""

import json

import pytest

from tightframe.data import load
from tightframe.reproduce import spec


@pytest.mark.slow
def test_all_figures_of_all_papers_have_verdicts_and_a_place_on_the_page(command, tmp_path):
    try:
        load("fashion_mnist")
    except ValueError as error:
        pytest.skip(str(error))
    folder = tmp_path / "out"
    code, out, err = command("reproduce", "all", "--out", folder, "--jobs", "2", "--json")
    assert (code, err) == (0, "")
    found = {figure["name"]: figure for figure in json.loads(out)["figures"]}
    papers = spec.papers()
    wanted = [
        f"{paper.name}/{figure.name}" for paper in papers.values() for figure in paper.figures
    ]
    assert list(found) == wanted
    assert len(papers) == 5
    (folder / "report.html").unlink()
    assert command("report", folder)[0] == 0
    page = (folder / "report.html").read_text()
    for name, figure in found.items():
        assert figure["verdicts"]
        assert {verdict["outcome"] for verdict in figure["verdicts"]} <= set(spec.OUTCOMES)
        assert name in page
        assert (folder / "figures" / name / f"{name.split('/')[1]}.png").exists()
    assert page.count('<td class="claim"') >= sum(len(f["verdicts"]) for f in found.values())
