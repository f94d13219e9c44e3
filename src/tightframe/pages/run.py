"""The self-contained HTML report: one file, no request to anywhere."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from markupsafe import Markup

from tightframe.figures.formats import to_html
from tightframe.figures.model import Panel
from tightframe.figures.plotly import Options
from tightframe.figures.table import Table
from tightframe.pages.hero import hero_view
from tightframe.pages.page import flatten, render_page, write_page
from tightframe.pages.run_views import (
    CHART,
    MAP,
    MAX_POINTS,
    bias_text,
    figures,
    maps_of,
    points_per_line,
    verdict_view,
)
from tightframe.pages.text import render_text
from tightframe.problem.problem import LOSS_ARGUMENTS, Problem
from tightframe.runs.answer import answer
from tightframe.runs.folder import using_record
from tightframe.runs.panels import loss_charts
from tightframe.runs.pictures import (
    collapse_charts,
    distance_charts,
    heat_maps,
    margin_charts,
)
from tightframe.runs.store import RunRecord, SettingRecord, load_run
from tightframe.runs.tables import (
    as_predicted,
    certified,
    class_table_of,
    group_table,
    headline,
    overview,
    page_tables,
    setting_thresholds,
    setting_title,
    verdicts,
)


def write_report(
    run_folder: str | os.PathLike[str], out: str | os.PathLike[str] | None = None
) -> Path:
    """Write the report of a run, finished or not, as one HTML file.

    The file holds its scripts and styles and asks nothing of the network; it has no time stamp, so
    the same record gives the same bytes.

    Parameters
    ----------
    run_folder : path-like
        As written by `tightframe.runs.train.run`.
    out : path-like, optional
        The file to write, atomically; ``report.html`` in the run folder by default.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ValueError
        If the folder holds no run or a damaged one.
    """
    path = Path(run_folder) / "report.html" if out is None else Path(out)
    with using_record(run_folder, "run"):
        page = render(load_run(run_folder))
    return write_page(path, page)


def render(run: RunRecord) -> str:
    """Return the report of a run as HTML text."""
    if run.on_text:
        return render_text(run)
    plots: dict[str, Any] = {}
    budget = MAX_POINTS // max(len(run.settings), 1)
    settings = [
        _setting_view(setting, f"s{i}", plots, budget) for i, setting in enumerate(run.settings)
    ]
    return render_page(
        "report.html",
        plots,
        title=f"Neural collapse on {run.config.get('data', 'data')}, "
        f"counts {run.config.get('counts', 'unknown')}",
        hero=hero_view(run),
        overview=overview(run),
        settings=settings,
        configuration=flatten(run.config),
        environment=flatten(run.environment),
        seed=run.config.get("seed"),
        config_hash=run.config_hash,
    )


# -- one setting -----------------------------------------------------------------------------------


def _setting_view(
    setting: SettingRecord, anchor: str, plots: dict[str, Any], budget: int
) -> dict[str, Any]:
    """Return what the template shows of a setting; its plots are added to ``plots``."""
    per_line = points_per_line(budget)
    per_map = max(math.isqrt(budget // 6), 8)

    def section(panels: Mapping[str, Panel], height: int = CHART) -> list[dict[str, str]]:
        return figures(panels, anchor, plots, Options(most_points=per_line, height=height))

    classes = class_table_of(setting)
    maps = maps_of(heat_maps(setting, per_map))
    problem = setting.problem
    history = setting.history
    return {
        "anchor": anchor,
        "name": setting.name,
        "title": setting_title(setting),
        "headline": headline(setting),
        "finished": setting.finished,
        "certified": certified(setting),
        "as_predicted": as_predicted(setting),
        "classes": classes and Markup(to_html(classes.to_table(remarks=False))),
        "remarks": classes and classes.remarks,
        "answer": answer(setting),
        "prediction": _prediction_facts(setting),
        "predicted": setting.prediction is not None,
        "note": (setting.prediction or {}).get("note"),
        "groups": Markup(
            to_html(_without_gaps(replace(group_table(setting), title="Class groups")))
        ),
        "verdicts": [verdict_view(verdict) for verdict in verdicts(setting)],
        "metrics": [Markup(to_html(table)) for table in page_tables(setting)],
        "loss": section(loss_charts(setting)),
        "distances": section(distance_charts(setting)),
        "margins": section(margin_charts(setting)),
        "collapse": section(collapse_charts(setting)),
        "maps": section(maps, MAP),
        "thinned": history is not None and len(history) > per_line,
        "sampled": problem is not None and problem.num_classes > per_map,
        "seconds": (setting.result or {}).get("seconds"),
    }


def _without_gaps(table: Table) -> Table:
    """Return the groups without columns of gaps alone; other gaps are said in words."""
    heads = table.heads
    kept = [i for i in range(len(heads)) if any(row[i] is not None for row in table.rows)]
    limits = [i for i in kept if heads[i].name.endswith("from λ")]
    rows = []
    for row in table.rows:
        # Of a group whose changes are known, all are.
        known = any(row[i] is not None for i in limits)
        gap = {i: "never" for i in limits if known and row[i] is None}
        rows.append([gap.get(i, row[i]) for i in kept])
    return replace(table, columns=[heads[i] for i in kept], rows=rows, missing="not known")


def _prediction_facts(setting: SettingRecord) -> list[tuple[str, Any]]:
    """Return names and values of the prediction."""
    prediction, problem = setting.prediction, setting.problem
    if prediction is None or problem is None:
        return []
    facts: list[tuple[str, Any]] = [
        ("samples per class", problem.compact_counts),
        ("samples, classes", f"{problem.num_samples}, {problem.num_classes}"),
        ("loss", problem.loss.replace("_", "-")),
        *_loss_facts(problem),
        ("bias", bias_text(problem.bias, problem.bias_decay)),
        ("features", problem.features),
        ("linear layers", problem.depth),
        ("weight decay", _decay_text(problem.weight_decays)),
        ("feature decay", problem.feature_decay),
    ]
    if problem.depth == 1:
        facts.append(("λ, √(weight decay · feature decay)", problem.logit_decay))
    else:
        facts.append(("λ, geometric mean of all decays", problem.mean_decay))
    limits = setting_thresholds(setting)
    if limits is not None:
        facts.append(("everything collapses from λ", limits.total_collapse))
    facts += [
        ("rank of the logits", prediction.get("rank")),
        ("objective", prediction.get("objective")),
        ("certified lower bound", prediction.get("lower_bound")),
        ("certified gap", prediction.get("gap")),
        ("status", str(prediction.get("status", "unknown")).replace("_", " ")),
        ("method", prediction.get("method")),
        ("seconds to solve", prediction.get("seconds")),
    ]
    return [(name, value) for name, value in facts if value is not None]


def _loss_facts(problem: Problem) -> list[tuple[str, Any]]:
    given = problem.to_dict()
    names = [name for name in LOSS_ARGUMENTS if name in given]
    return [(name.replace("_", " "), given[name]) for name in names]


def _decay_text(decays: tuple[float, ...]) -> Any:
    return decays[0] if len(set(decays)) == 1 else ", ".join(f"{decay:g}" for decay in decays)
