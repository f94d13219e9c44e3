"""The self-contained HTML page of a reproduction: verdicts first, then figure by figure."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from markupsafe import Markup

from tightframe.figures.formats import to_html
from tightframe.figures.model import HeatMaps, Panel, Table, single_maps
from tightframe.figures.plotly import Options, draw
from tightframe.figures.words import in_words
from tightframe.files import format_json
from tightframe.pages.page import flatten, render_page, write_page
from tightframe.reproduce.folder import FigureRecord, Reproduction, load_reproduction
from tightframe.reproduce.spec import NOT_REPRODUCED, OUTCOMES, REPRODUCED, UNDECIDED, Verdict
from tightframe.runs.folder import using_record

#: With more maps than this, one at a time is shown and a slider chooses.
_MAX_MAPS = 4

_DIGITS = 5  # of a number in a plot; the Parquet tables hold all of them
_TEXT = 160  # characters of a setting

_BADGES = {
    REPRODUCED: ("agrees", "✓"),
    NOT_REPRODUCED: ("differs", "✗"),
    UNDECIDED: ("open", "!"),
}
_OPEN = ("open", "?")


def write_reproduction(
    folder: str | os.PathLike[str], out: str | os.PathLike[str] | None = None
) -> Path:
    """Write the page of a reproduction, finished or not, as one HTML file.

    The file holds its scripts and styles and asks nothing of the network; it has no time stamp, so
    the same record gives the same bytes.

    Parameters
    ----------
    folder : path-like
        As written by `tightframe.reproduce.folder.reproduce`; ``tasks`` may be missing.
    out : path-like, optional
        The file to write, atomically; ``report.html`` in the folder by default.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ValueError
        If the folder holds no reproduction or a damaged one.
    """
    path = Path(folder) / "report.html" if out is None else Path(out)
    with using_record(folder, "reproduction"):
        page = render(load_reproduction(folder))
    return write_page(path, page)


def render(reproduction: Reproduction) -> str:
    """Return the page as HTML text."""
    plots: dict[str, Any] = {}
    figures = [
        _figure_view(record, f"f{i}", plots) for i, record in enumerate(reproduction.figures)
    ]
    papers: dict[str, dict[str, Any]] = {}
    for view in figures:
        paper = papers.setdefault(
            view["paper"], {"citation": view["citation"], "url": view["url"], "figures": []}
        )
        paper["figures"].append(view)
    return render_page(
        "reproduction.html",
        plots,
        outcome=_outcome(reproduction),
        rows=_rows(figures),
        overview=_overview(reproduction),
        scale=reproduction.config["scale"],
        papers=list(papers.values()),
        counts=_outcome_counts(reproduction),
        config_hash=reproduction.config_hash,
        environment=flatten({**reproduction.config, **reproduction.environment}, _shortened),
    )


# -- text ------------------------------------------------------------------------------------------


def _outcome_counts(reproduction: Reproduction) -> list[tuple[str, str, int]]:
    """Return the badge, name and number of every outcome."""
    found = Counter(v.outcome for record in reproduction.figures for v in record.verdicts)
    return [(_badge(outcome)[0], outcome, found[outcome]) for outcome in OUTCOMES]


def _outcome(reproduction: Reproduction) -> str:
    """Return how many claims hold, and how many do not."""
    found = Counter(v.outcome for record in reproduction.figures for v in record.verdicts)
    total = found.total()
    if not total:
        return "Neural collapse: no claim is judged yet"
    rest = [f"{found[name]} {name}" for name in OUTCOMES if name != REPRODUCED and found[name]]
    claims = "claim" if total == 1 else "claims"
    text = f"Neural collapse: {found[REPRODUCED]} of {total} {claims} reproduced"
    return f"{text}; {', '.join(rest)}" if rest else text


def _rows(
    figures: Sequence[Mapping[str, Any]],
) -> list[tuple[Mapping[str, Any], Mapping[str, Any] | None]]:
    """Return figures with their verdicts, what is not reproduced first; None: there is none yet."""
    order = {NOT_REPRODUCED: 0, UNDECIDED: 1, REPRODUCED: 4}
    rows = [(figure, verdict) for figure in figures for verdict in figure["verdicts"] or [None]]
    return sorted(rows, key=lambda row: 3 if row[1] is None else order.get(row[1]["outcome"], 2))


def _overview(reproduction: Reproduction) -> str:
    figures = reproduction.figures
    papers = len({record.name.partition("/")[0] for record in figures})
    text = (
        f"{len(figures)} {'figure' if len(figures) == 1 else 'figures'} of {papers} "
        f"{'paper' if papers == 1 else 'papers'}, run at scale {reproduction.config['scale']}. For "
        "every claim: what the paper says, what the theory predicts (computed, not quoted), what "
        "was measured, and the rule with its number that decides between them."
    )
    open_ = sum(not record.finished for record in figures)
    if open_:
        text += f" {open_} of the figures {'is' if open_ == 1 else 'are'} unfinished."
    failed = sum(len(record.failed) for record in figures)
    if failed:
        text += f" {failed} {'run' if failed == 1 else 'runs'} failed, listed with the reasons."
    return text


def _badge(outcome: str) -> tuple[str, str]:
    return _BADGES.get(outcome, _OPEN)


def _figure_view(record: FigureRecord, anchor: str, plots: dict[str, Any]) -> dict[str, Any]:
    """Return what the template shows of a figure; its plots are added to ``plots``."""
    return {
        **record.about,
        "anchor": anchor,
        "name": record.name,
        "paper": record.name.partition("/")[0],
        "short": record.name.partition("/")[2],
        "finished": record.finished,
        "progress": f"{record.num_done} of {record.num_tasks} tasks have ended",
        "verdicts": [_verdict_view(verdict) for verdict in record.verdicts],
        "panels": [
            _panel_view(panel, f"{anchor}-{i}", plots) for i, panel in enumerate(record.panels)
        ],
        "failed": list(record.failed),
        "not_converged": list(record.not_converged),
        "error": record.error,
        "settings": _settings(record.tasks),
    }


def _verdict_view(verdict: Verdict) -> dict[str, Any]:
    kind, mark = _badge(verdict.outcome)
    return {**verdict.to_dict(), "kind": kind, "mark": mark}


def _settings(tasks: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return what the tasks of each kind share, and what they differ in."""
    views = []
    for kind in dict.fromkeys(task["kind"] for task in tasks):
        own = [task for task in tasks if task["kind"] == kind]
        flat = [dict(flatten(_compact(task["arguments"]), _shortened)) for task in own]
        names = list(dict.fromkeys(name for values in flat for name in values))
        shared, varied = [], []
        for name in names:
            values = [values.get(name, "default") for values in flat]
            if len(set(values)) == 1:
                shared.append((name, values[0]))
            else:
                varied.append((name, _shortened(", ".join(dict.fromkeys(values)))))
        seconds = [task["seconds"] for task in own if task["seconds"] is not None]
        views.append(
            {
                "kind": kind,
                "count": len(own),
                "seconds": math.fsum(seconds),
                "shared": shared,
                "varied": varied,
            }
        )
    return views


def _compact(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments with a list of problems as what they share and what varies."""
    values = dict(arguments)
    problems = values.pop("problems", None)
    if problems:
        values["problems"] = len(problems)
        for name in problems[0]:
            found = list(dict.fromkeys(format_json(p[name]).strip('"') for p in problems))
            values[f"problem.{name}"] = ", ".join(found)
    return values


def _shortened(value: Any) -> str:
    text = str(value)
    return text if len(text) <= _TEXT else f"{text[: _TEXT - 12]} … {text[-9:]}"


# -- panels ----------------------------------------------------------------------------------------


def _panel_view(panel: Panel, name: str, plots: dict[str, Any]) -> dict[str, Any]:
    view: dict[str, Any] = {"title": panel.title, "note": panel.note, "kind": "plots", "plots": []}
    if panel.empty:
        return view | {"kind": "empty"}
    if isinstance(panel, Table):
        return view | {"kind": "table", "table": Markup(to_html(panel)), "note": ""}
    parts: Sequence[Panel] = [panel]
    options = Options(digits=_DIGITS, height=400)
    if isinstance(panel, HeatMaps):
        few = len(panel.maps) <= _MAX_MAPS
        parts = single_maps(panel) if few else [panel]
        options = replace(options, height=340 if few else 450)
    for i, part in enumerate(parts):
        plots[f"{name}-{i}"] = draw(part, options)
        title = part.title if part is not panel else ""
        view["plots"].append({"name": f"{name}-{i}", "title": title, "alt": in_words(part)})
    return view
