"""LaTeX tables (booktabs) of a run or a reproduction."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from tightframe.experiments.charts import Table
from tightframe.experiments.reproduce import load_reproduction, reproduction_file
from tightframe.experiments.store import load_run
from tightframe.files import replacing
from tightframe.report.html import group_rows
from tightframe.report.reproduction_plots import table_text
from tightframe.report.summary import format_number, metric_rows, setting_title

#: What pdfLaTeX cannot set as text.
_SIGNS = {
    "λ": r"$\lambda$",
    "μ": r"$\mu$",
    "ρ": r"$\rho$",
    "σ": r"$\sigma$",
    "Σ": r"$\Sigma$",
    "Θ": r"$\Theta$",
    "√": r"$\surd$",
    "‖": r"$\|$",
    "·": r"$\cdot$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "→": r"$\to$",
    "∞": r"$\infty$",
    "−": r"$-$",
    "°": r"$^\circ$",
    "²": r"$^2$",
    "⁺": r"$^+$",
    "ᵀ": r"$^\top$",
    "₀": r"$_0$",
    "…": r"\dots{}",
    "H̄": r"$\bar H$",
}


def write_tables(folder: str | os.PathLike[str]) -> list[Path]:
    r"""Write a folder's tables as LaTeX, each file atomically.

    They need ``\usepackage{booktabs}``.

    Parameters
    ----------
    folder : path-like
        What ``tightframe run`` or ``tightframe reproduce`` wrote; may be unfinished.

    Returns
    -------
    list of Path
        Of a run ``tables/<setting>-metrics.tex`` and ``tables/<setting>-groups.tex``; of a
        reproduction ``tables/<paper>-verdicts.tex`` and the tables of the figures,
        ``tables/<paper>-<figure>-<number>.tex``.

    Raises
    ------
    ValueError
        If the folder holds neither.
    """
    home = Path(folder)
    tables = _of_reproduction(home) if reproduction_file(home).exists() else _of_run(home)
    paths = []
    for name, caption, table in tables:
        path = home / "tables" / f"{name}.tex"
        with replacing(path) as temporary:
            temporary.write_text(to_latex(table, caption, name), encoding="utf-8")
        paths.append(path)
    return paths


def to_latex(table: pd.DataFrame, caption: str, label: str) -> str:
    r"""Return a table of texts as a LaTeX ``table`` that pdfLaTeX can set.

    Parameters
    ----------
    table : DataFrame
    caption : str
    label : str
        Behind ``tab:``.
    """
    text = (
        table.map(_escaped)
        .rename(columns=_escaped)
        .to_latex(
            index=False,
            escape=False,
            caption=_escaped(caption),
            label=f"tab:{label}",
            column_format="l" + "r" * (table.shape[1] - 1),
            position="htbp",
        )
    )
    return str(text)


def _escaped(text: Any) -> str:
    """Escape what is special to LaTeX, then write signs as mathematics."""
    special = {c: f"\\{c}" for c in "&%$#_{}"} | {"~": r"\textasciitilde{}"}
    special |= {"\\": r"\textbackslash{}", "^": r"\textasciicircum{}"}
    plain = "".join(special.get(c, c) for c in str(text))
    for sign, command in _SIGNS.items():
        plain = plain.replace(sign, command)
    return plain


def _of_run(folder: Path) -> Iterator[tuple[str, str, pd.DataFrame]]:
    for setting in load_run(folder).settings:
        if setting.prediction is None:
            continue
        title = setting_title(setting)
        rows = [
            [row.label, *map(_number, (row.start, row.end, row.to_predicted, row.to_etf))]
            for row in metric_rows(setting)
        ]
        columns = ["", "start", "end", "to predicted", "to ETF"]
        yield f"{setting.name}-metrics", title, pd.DataFrame(rows, columns=columns)
        rows = [
            [
                group["name"],
                *map(_number, (group["threshold"], group["margin"], group["measured_margin"])),
                group["predicted"],
                group["measured"] or "",
            ]
            for group in group_rows(setting)
        ]
        columns = ["classes", "threshold", "margin", "measured", "predicted", "found"]
        yield f"{setting.name}-groups", title, pd.DataFrame(rows, columns=columns)


def _of_reproduction(folder: Path) -> Iterator[tuple[str, str, pd.DataFrame]]:
    figures = load_reproduction(folder).figures
    for paper in dict.fromkeys(figure.name.partition("/")[0] for figure in figures):
        own = [figure for figure in figures if figure.name.startswith(f"{paper}/")]
        rows = [
            [figure.name.partition("/")[2], *map(_cell, (v.predicted, v.measured)), v.outcome]
            for figure in own
            for v in figure.verdicts
        ]
        columns = ["figure", "predicted", "measured", "verdict"]
        citation = own[0].about["citation"]
        yield f"{paper}-verdicts", citation, pd.DataFrame(rows, columns=columns)
        for figure in own:
            panels = [panel for panel in figure.panels if isinstance(panel, Table)]
            for i, panel in enumerate(panels, start=1):
                name = f"{figure.name.replace('/', '-')}-{i}"
                yield name, panel.title, _frame(panel)


def _frame(panel: Table) -> pd.DataFrame:
    rows: Sequence[Sequence[str]] = [[_cell(value) for value in row] for row in panel.rows]
    return pd.DataFrame(rows, columns=list(panel.columns))


def _number(value: Any) -> str:
    return "" if value is None else format_number(value)


def _cell(value: Any) -> str:
    return "" if value is None else table_text(value)
