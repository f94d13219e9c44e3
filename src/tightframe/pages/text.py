"""The report of a run on text: tokens and contexts have names."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from tightframe.figures.formats import to_html
from tightframe.figures.plotly import Options
from tightframe.figures.table import Table
from tightframe.pages.page import flatten, render_page
from tightframe.pages.run_views import (
    CHART,
    MAX_POINTS,
    bias_text,
    figures,
    maps_of,
    points_per_line,
    verdict_view,
)
from tightframe.runs.panels import loss_charts
from tightframe.runs.store import RunRecord, SettingRecord
from tightframe.runs.tables import certified, setting_title, verdicts
from tightframe.runs.text_pictures import (
    law_charts,
    spectrum_chart,
    text_distance_charts,
    token_maps,
)
from tightframe.runs.text_tables import (
    TextSetting,
    context_table,
    limit_sentences,
    merged_table,
    pair_table,
    text_headline,
    text_metric_table,
    text_overview,
    text_sentence,
    token_table,
)
from tightframe.runs.text_verdicts import CRITERIA

#: Height of a heat map in pixels, and how many tokens it names: on a phone there is room for these.
_MAP, _NAMED = 390, 14


def render_text(run: RunRecord) -> str:
    """Return the report of a run on text as HTML text."""
    plots: dict[str, Any] = {}
    budget = MAX_POINTS // max(len(run.settings), 1)
    settings = [
        _setting_view(setting, f"s{i}", plots, budget) for i, setting in enumerate(run.settings)
    ]
    config = run.config
    return render_page(
        "text.html",
        plots,
        title=f"Next {config.get('tokens', 'tokens')}: neural collapse on "
        f"{config.get('data', 'text')}",
        overview=text_overview(run),
        criteria=CRITERIA,
        settings=settings,
        configuration=flatten(config),
        environment=flatten(run.environment),
        seed=config.get("seed"),
        config_hash=run.config_hash,
    )


def _setting_view(
    setting: SettingRecord, anchor: str, plots: dict[str, Any], budget: int
) -> dict[str, Any]:
    """Return what the template shows of a setting; its plots are added to ``plots``."""
    per_line = points_per_line(budget)

    def section(panels: dict[str, Any], height: int = CHART) -> list[dict[str, str]]:
        return figures(panels, anchor, plots, Options(most_points=per_line, height=height))

    history, prediction = setting.history, setting.prediction or {}
    view = TextSetting.of(setting)
    names = [] if view is None else [*view.tokens, *view.contexts]
    most = max(int((budget // 6) ** 0.5), 8)
    return {
        "anchor": anchor,
        "title": setting_title(setting),
        "headline": text_headline(setting),
        "text": text_sentence(setting),
        "finished": setting.finished,
        "certified": certified(setting),
        "predicted": setting.prediction is not None,
        "prediction": _facts(setting),
        "rank": prediction.get("rank"),
        "verdicts": [verdict_view(verdict) for verdict in verdicts(setting)],
        "metrics": _html(text_metric_table(setting)),
        "loss": section(loss_charts(setting)),
        "distances": section(text_distance_charts(setting)),
        "laws": section(law_charts(setting) | {"spectrum": spectrum_chart(setting)}),
        "maps": section(maps_of(token_maps(setting, most, _NAMED)), _MAP),
        "unseen": any("␣" in name or "⏎" in name for name in names),
        "tokens": _html(token_table(setting)),
        "contexts": _html(context_table(setting)),
        "pairs": _html(pair_table(setting)),
        "merged": _html(merged_table(setting)),
        "limits": limit_sentences(setting),
        "thinned": history is not None and len(history) > per_line,
        "seconds": (setting.result or {}).get("seconds"),
    }


def _html(table: Table | None) -> Markup:
    return Markup("" if table is None or table.empty else to_html(table))


def _facts(setting: SettingRecord) -> list[tuple[str, Any]]:
    """Return names and values of the prediction."""
    prediction, problem = setting.prediction, setting.problem
    if prediction is None or problem is None:
        return []
    once = bool(problem.feature_runs)
    return [
        ("tokens that follow", problem.num_classes),
        ("contexts", problem.num_contexts),
        ("places in the text", problem.num_samples),
        ("different logits, tokens", prediction.get("distinct_labels")),
        ("different logits, contexts", prediction.get("distinct_contexts")),
        ("bias", bias_text(problem.bias, problem.bias_decay)),
        ("weight decay", problem.weight_decays[0]),
        ("feature decay", problem.feature_decay),
        ("features decay", "once a context" if once else "at every place"),
        ("λ, √(weight decay · feature decay)", problem.logit_decay),
        ("rank of the logits", prediction.get("rank")),
        ("rank in the limit", (prediction.get("limit") or {}).get("rank")),
        ("objective", prediction.get("objective")),
        ("certified lower bound", prediction.get("lower_bound")),
        ("certified gap", prediction.get("gap")),
        ("status", str(prediction.get("status", "n/a")).replace("_", " ")),
        ("seconds to solve", prediction.get("seconds")),
    ]
