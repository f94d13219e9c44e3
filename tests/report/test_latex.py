"""LaTeX tables: the numbers of the page, and nothing that LaTeX takes for something else."""

import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

from tests.report.conftest import FINISHED
from tightframe.experiments.store import load_run
from tightframe.report.html import group_rows
from tightframe.report.latex import to_latex, write_tables
from tightframe.report.summary import format_number, metric_rows

GALLERY = Path(__file__).parents[2] / "reproductions"


def cells(path):
    """Return the rows of a table's body, as texts."""
    body = path.read_text().partition("\\midrule\n")[2].partition("\\bottomrule")[0]
    return [[cell.strip() for cell in row.split(" & ")] for row in body.split(" \\\\\n") if row]


def test_tables_of_a_run(tmp_path, run_folder):
    folder = tmp_path / "run"  # others read the shared one
    shutil.copytree(run_folder, folder)
    paths = write_tables(folder)
    assert all(path.parent == folder / "tables" and path.is_file() for path in paths)
    setting = next(s for s in load_run(folder).settings if s.name == FINISHED)
    metrics = cells(folder / "tables" / f"{FINISHED}-metrics.tex")
    rows = metric_rows(setting)
    assert len(metrics) == len(rows)
    for found, row in zip(metrics, rows, strict=True):
        end = "" if row.end is None else format_number(row.end)
        assert found[2] == end.replace("∞", r"$\infty$")
    groups = cells(folder / "tables" / f"{FINISHED}-groups.tex")
    assert [row[0] for row in groups] == [group["name"] for group in group_rows(setting)]


@pytest.mark.skipif(not GALLERY.exists(), reason="needs the sources' records")
@pytest.mark.parametrize("name", ["cpu-hong-ling", "cpu-dang-2023"])
def test_tables_of_a_reproduction_can_be_set(tmp_path, name):
    shutil.copytree(GALLERY / name, tmp_path / "record")
    paths = write_tables(tmp_path / "record")
    verdicts = next(path for path in paths if path.name.endswith("-verdicts.tex"))
    assert "reproduced" in verdicts.read_text()
    for path in paths:
        text = path.read_text()
        assert text.isascii(), sorted({c for c in text if ord(c) > 127})
        plain = re.sub(r"\\[\\{}%$#_&]", "", text)
        assert plain.count("{") == plain.count("}")
        assert plain.count("$") % 2 == 0
        assert not set("%#") & set(plain)


def test_what_is_special_to_latex_is_escaped():
    table = pd.DataFrame({"a_b": ["50 %", "x & y", r"\alpha^{2} ~ #1 $"], "λ": ["‖W‖²", "-", "±1"]})
    text = to_latex(table, "100 % of _all_", "t")
    assert r"\caption{100 \% of \_all\_}" in text
    assert r"a\_b & $\lambda$" in text
    assert r"50 \% & $\|$W$\|$$^2$" in text
    assert r"\textbackslash{}alpha\textasciicircum{}\{2\} \textasciitilde{} \#1 \$" in text


def test_other_folders_are_refused(tmp_path):
    with pytest.raises(ValueError, match="run"):
        write_tables(tmp_path)
