"""What the reports of all runs show alike: plots, heat maps, verdicts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tightframe.figures.model import HeatMaps, Panel, single_maps
from tightframe.figures.plotly import Options, draw
from tightframe.figures.words import in_words

#: All numbers of the plots together; with Plotly's 4.8 MB and wheels the file stays under 6 MB.
MAX_POINTS = 20_000

_LINES = 24  # of a setting, about

#: Heights of a chart and of a heat map, in pixels.
CHART, MAP = 290, 330


def points_per_line(budget: int) -> int:
    """Return how many points a line has, at most, of the numbers that a setting may show."""
    return max(budget // (2 * _LINES), 20)


def figures(
    panels: Mapping[str, Panel], anchor: str, plots: dict[str, Any], options: Options
) -> list[dict[str, str]]:
    """Return what the template shows of panels; their plots are added to ``plots``."""
    views = []
    for key, panel in panels.items():
        name = "" if panel.empty else f"{anchor}-{key}"
        if name:
            plots[name] = draw(panel, options)
        views.append({"name": name, "title": panel.title, "alt": in_words(panel)})
    return views


def maps_of(panel: HeatMaps | None) -> dict[str, Panel]:
    """Return every matrix as a panel of its own, by the key of its picture."""
    if panel is None:
        return {}
    names = ("predicted", "measured", "difference")[: len(panel.maps)]
    return {f"heat-{n}": p for n, p in zip(names, single_maps(panel), strict=True)}


def verdict_view(verdict: Mapping[str, Any]) -> dict[str, str]:
    """Return a verdict with its mark."""
    agrees = verdict.get("agrees")
    if agrees is None:
        kind, mark = "open", "? too close to tell"
    else:
        kind, mark = ("agrees", "✓ agrees") if agrees else ("differs", "✗ differs")
    return {"kind": kind, "mark": mark, "sentence": str(verdict.get("sentence", ""))}


def bias_text(bias: str, decay: float) -> str:
    """Return in words what bias a head has."""
    return {"none": "no bias", "free": "free, not decayed"}.get(bias, f"decayed, {decay:g}")
