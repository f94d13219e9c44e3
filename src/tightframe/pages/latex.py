"""LaTeX tables (booktabs) of a run or a reproduction."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from tightframe.figures.model import Table
from tightframe.files import replacing
from tightframe.pages.run import group_rows
from tightframe.reproduce.folder import load_reproduction, reproduction_file
from tightframe.reproduce.plots import table_text
from tightframe.runs.store import load_run
from tightframe.runs.tables import format_number, metric_rows, setting_title

#: What pdfLaTeX cannot set as text.
_SIGNS = {
    ">=": r"$\geq$",
    "<=": r"$\leq$",
    ">": r"$>$",
    "<": r"$<$",
    "|": r"$|$",
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

    They need ``\usepackage{booktabs,graphicx,longtable}``.

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
    for name, text in tables:
        path = home / "tables" / f"{name}.tex"
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
        paths.append(path)
    return paths


def to_latex(table: pd.DataFrame, caption: str, label: str) -> str:
    r"""Return a table of texts as a LaTeX ``table``, made smaller where it is wider than the page.

    Parameters
    ----------
    table : DataFrame
        Columns that hold only numbers are set flush right.
    caption : str
    label : str
        Behind ``tab:``.
    """
    columns = "".join("r" if _are_numbers(table[name]) else "l" for name in table)
    tabular = _ready(table).to_latex(index=False, escape=False, column_format=columns).rstrip()
    return "\n".join(
        [
            r"\begin{table}[htbp]",
            r"\centering",
            rf"\caption{{{_escaped(caption)}}}",
            rf"\label{{tab:{label}}}",
            r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{" + tabular + "}",
            r"\end{table}",
            "",
        ]
    )


def to_long_latex(table: pd.DataFrame, caption: str, label: str) -> str:
    """Return a table whose last column but one holds sentences, over as many pages as it needs.

    Parameters
    ----------
    table : DataFrame
    caption : str
    label : str
        Behind ``tab:``.
    """
    text = _ready(table).to_latex(
        index=False,
        escape=False,
        longtable=True,
        caption=_escaped(caption),
        label=f"tab:{label}",
        column_format="l" * (table.shape[1] - 2) + r"p{0.48\linewidth}l",
    )
    return f"{{\\footnotesize\n{text}}}\n"


#: As in NC2_WW; longer ones are names, as test_accuracy.
_SUBSCRIPT = re.compile(r"\\_([A-Za-z]{1,2})(?![A-Za-z_])")

_NUMBER = re.compile(r"([-−]?)(\d[\d.]*)(?:e([-+]\d+))?")


def _are_numbers(cells: pd.Series[str]) -> bool:
    texts = [text for text in cells if text not in ("", "n/a", "∞", "-∞")]
    return all(_NUMBER.fullmatch(text) for text in texts)


def _ready(table: pd.DataFrame) -> pd.DataFrame:
    return table.map(_cell_latex).rename(columns=_escaped)


def _cell_latex(text: str) -> str:
    match = _NUMBER.fullmatch(text)
    if match is None:
        return _escaped(text)
    sign, digits, exponent = match.groups()
    power = "" if exponent is None else rf" \cdot 10^{{{int(exponent)}}}"
    return f"${'-' if sign else ''}{digits}{power}$" if sign or power else digits


def _escaped(text: Any) -> str:
    """Escape what is special to LaTeX, then write signs and subscripts as mathematics."""
    special = {c: f"\\{c}" for c in "&%$#_{}"} | {"~": r"\textasciitilde{}"}
    special |= {"\\": r"\textbackslash{}", "^": r"\textasciicircum{}"}
    plain = "".join(special.get(c, c) for c in str(text))
    for sign, command in _SIGNS.items():
        plain = plain.replace(sign, command)
    return _SUBSCRIPT.sub(r"$_{\1}$", plain)


def _of_run(folder: Path) -> Iterator[tuple[str, str]]:
    for setting in load_run(folder).settings:
        if setting.prediction is None:
            continue
        title = setting_title(setting)
        rows = [
            [row.label, *map(_number, (row.start, row.end, row.to_predicted, row.to_etf))]
            for row in metric_rows(setting)
        ]
        columns = ["", "start", "end", "to predicted", "to ETF"]
        name = f"{setting.name}-metrics"
        yield name, to_latex(pd.DataFrame(rows, columns=columns), title, name)
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
        name = f"{setting.name}-groups"
        yield name, to_latex(pd.DataFrame(rows, columns=columns), title, name)


def _of_reproduction(folder: Path) -> Iterator[tuple[str, str]]:
    figures = load_reproduction(folder).figures
    for paper in dict.fromkeys(figure.name.partition("/")[0] for figure in figures):
        own = [figure for figure in figures if figure.name.startswith(f"{paper}/")]
        rows = [
            ["" if i else figure.name.partition("/")[2], verdict.sentence, verdict.outcome]
            for figure in own
            for i, verdict in enumerate(figure.verdicts)
        ]
        table = pd.DataFrame(rows, columns=["figure", "finding", "verdict"])
        name = f"{paper}-verdicts"
        yield name, to_long_latex(table, own[0].about["citation"], name)
        for figure in own:
            panels = [panel for panel in figure.panels if isinstance(panel, Table)]
            for i, panel in enumerate(panels, start=1):
                name = f"{figure.name.replace('/', '-')}-{i}"
                yield name, to_latex(_frame(panel), panel.title, name)


def _frame(panel: Table) -> pd.DataFrame:
    rows: Sequence[Sequence[str]] = [
        ["" if value is None else table_text(value) for value in row] for row in panel.rows
    ]
    return pd.DataFrame(rows, columns=list(panel.columns))


def _number(value: Any) -> str:
    return "" if value is None else format_number(value)
