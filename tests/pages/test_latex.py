"""LaTeX tables: the numbers of the page, and nothing that LaTeX takes for something else."""

import re
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from tests.pages.conftest import FINISHED
from tightframe.pages.latex import to_latex, write_tables
from tightframe.pages.run import group_rows
from tightframe.runs.store import load_run
from tightframe.runs.tables import format_number, metric_rows

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


def test_what_is_special_to_latex_is_escaped():
    table = pd.DataFrame(
        {"a_bcd": ["50 %", "x & y", r"\alpha^{2} ~ #1 $"], "λ": ["‖W‖²", "-", "±1"]}
    )
    text = to_latex(table, "100 % of _all_", "t")
    assert r"\caption{100 \% of \_all\_}" in text
    assert r"a\_bcd & $\lambda$" in text
    assert r"50 \% & $\|$W$\|$$^2$" in text
    assert r"\textbackslash{}alpha\textasciicircum{}\{2\} \textasciitilde{} \#1 \$" in text


def test_mathematics_is_set_as_such():
    table = pd.DataFrame(
        {"number": ["-0.5", "1.5e-07", "n/a"], "text": ["Σ_W", "NC2_WWᵀ", "M >= 2"]}
    )
    rows = to_latex(table, "", "t").partition("\\midrule\n")[2].splitlines()
    assert rows[:3] == [
        r"$-0.5$ & $\Sigma$$_{W}$ \\",
        r"$1.5 \cdot 10^{-7}$ & NC2$_{WW}$$^\top$ \\",
        r"n/a & M $\geq$ 2 \\",
    ]
    assert r"\begin{tabular}{rl}" in to_latex(table, "", "t")


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


def test_other_folders_are_refused(tmp_path):
    with pytest.raises(ValueError, match="run"):
        write_tables(tmp_path)
