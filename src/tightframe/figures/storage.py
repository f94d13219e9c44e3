"""Panels as JSON-ready values and back."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any

import numpy as np

from tightframe.figures.diagrams import (
    Callout,
    Change,
    Lane,
    MergeTree,
    Moment,
    Network,
    Run,
    Wheel,
)
from tightframe.figures.model import (
    Area,
    Bars,
    Cells,
    Chart,
    Curve,
    HeatMaps,
    Mark,
    Matrix,
    Mesh,
    Note,
    Panel,
    Shades,
    Stack,
    Table,
)

_KINDS: dict[str, Any] = {
    "chart": Chart,
    "stack": Stack,
    "heat_maps": HeatMaps,
    "table": Table,
    "wheel": Wheel,
    "merge_tree": MergeTree,
}
_PARTS: dict[str, Any] = {
    "charts": Chart,
    "curves": Curve,
    "marks": Mark,
    "bars": Bars,
    "areas": Area,
    "notes": Note,
    "maps": Matrix,
    "moments": Moment,
    "callouts": Callout,
    "lanes": Lane,
    "runs": Run,
    "changes": Change,
    "networks": Network,
}
_PART: dict[str, Any] = {"cells": Cells, "shades": Shades, "mesh": Mesh}


def panel_to_dict(panel: Panel) -> dict[str, Any]:
    """Return a panel as JSON-ready values; `panel_from_dict` is the inverse."""
    kind = next(name for name, cls in _KINDS.items() if isinstance(panel, cls))
    return {"kind": kind, **_plain(panel)}


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return dict(_stored(value))
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return _number(float(value)) if isinstance(value, (float, np.floating)) else value


#: Fields that were there first; records hold them even where they say nothing.
_ALWAYS = {
    *("title", "label", "x", "y", "x_label", "y_label", "color", "style", "low", "high", "note"),
    *("curves", "marks", "log_x", "log_y", "value", "axis", "values", "maps", "borders", "limit"),
    *("columns", "rows"),
}


def _stored(part: Any) -> Iterator[tuple[str, Any]]:
    """Yield the fields of a panel that a record needs."""
    for own in fields(part):
        value = getattr(part, own.name)
        default = () if own.default is MISSING else own.default
        if own.name in _ALWAYS or _plain(value) != _plain(default):
            yield own.name, _plain(value)


def panel_from_dict(values: Mapping[str, Any]) -> Panel:
    """Make a panel from what `panel_to_dict` returned.

    Raises
    ------
    ValueError
        If that is not a panel.
    """
    try:
        panel: Panel = _from_dict(_KINDS[values["kind"]], values)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"panel: not one of a figure ({error})") from None
    return panel


def _from_dict(kind: Any, values: Mapping[str, Any]) -> Any:
    rest = {name: value for name, value in values.items() if name != "kind"}
    for name, part in _PARTS.items():
        if name in rest:
            rest[name] = [_from_dict(part, own) for own in rest[name]]
    for name, part in _PART.items():
        if rest.get(name) is not None:
            rest[name] = _from_dict(part, rest[name])
    return kind(**rest)


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
