"""Tables as files: the numbers of the page, and nothing that LaTeX takes for something else."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.pages.conftest import FINISHED
from tightframe.figures.table import format_number
from tightframe.pages.tables import write_tables
from tightframe.runs.store import load_run
from tightframe.runs.tables import group_rows, metric_rows

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
        plain = re.sub(r" \\cdot 10\^\{(-?\d+)\}", r"e\1", found[2]).strip("$")
        assert plain == end.replace("∞", r"\infty") or float(plain) == float(end)
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


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdfLaTeX")
@pytest.mark.skipif(not GALLERY.exists(), reason="needs the sources' records")
def test_tables_are_set_by_pdflatex(tmp_path, run_folder):
    paths = []
    for source in (run_folder, GALLERY / "cpu-dang-2023"):
        shutil.copytree(source, tmp_path / source.name)
        paths += write_tables(tmp_path / source.name)
    inputs = "\n".join(rf"\input{{{path.relative_to(tmp_path)}}}\clearpage" for path in paths)
    (tmp_path / "all.tex").write_text(
        rf"""\documentclass{{article}}
\usepackage{{booktabs,graphicx,longtable}}
\begin{{document}}
{inputs}
\end{{document}}
"""
    )
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "all.tex"],
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    log = (tmp_path / "all.log").read_text(encoding="latin-1")
    assert done.returncode == 0, log[-2000:]
    assert "Overfull" not in log
    assert "Missing" not in log


def test_other_formats(tmp_path, run_folder):
    folder = tmp_path / "run"
    shutil.copytree(run_folder, folder)
    markdown = {path.name: path.read_text() for path in write_tables(folder, "markdown")}
    setting = next(s for s in load_run(folder).settings if s.name == FINISHED)
    _title, _, *lines = markdown[f"{FINISHED}-groups.md"].splitlines()
    head, _, *lines = [[cell.strip() for cell in line.split("|")] for line in lines]
    assert {"merges from λ", "vanishes from λ"} <= set(head)
    for line, row in zip(lines, group_rows(setting), strict=True):
        cells = dict(zip(head, line, strict=True))
        assert cells["predicted sibling margin"] == format_number(row["margin"])
        assert cells["vanishes from λ"] == format_number(row["places"]["vanished"])
    with pytest.raises(ValueError, match="format: got 'pdf', allowed are console, html, latex"):
        write_tables(folder, "pdf")


def test_other_folders_are_refused(tmp_path):
    with pytest.raises(ValueError, match="run"):
        write_tables(tmp_path)
