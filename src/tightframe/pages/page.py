"""What all self-contained HTML pages have in common; `page.html` is their common template."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from tightframe.figures.formats import entry_html
from tightframe.figures.plotly import DARKER, ground, script
from tightframe.figures.style import DARK, LIGHT, state_variables
from tightframe.figures.table import format_number
from tightframe.files import replacing, to_plain


def render_page(
    template: str,
    plots: Mapping[str, Any],
    **values: Any,
) -> str:
    """Return a page as HTML text; every value that it shows is escaped.

    Parameters
    ----------
    template : str
        Name of a template that extends ``page.html``.
    plots : mapping
        Plotly's data and layout, by the names that the template gives to ``data-plot``.
    values
        What the template shows.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tightframe.pages", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = _number
    return environment.get_template(template).render(
        values,
        plots=to_plain(plots),
        ink={"light": vars(LIGHT), "dark": vars(DARK)},
        states={"light": state_variables(LIGHT), "dark": state_variables(DARK)},
        grounds={"light": ground(LIGHT), "dark": ground(DARK)},
        darker=DARKER,
        # A local file of the Plotly package, not of the record: the only text not escaped.
        plotly_js=Markup(script()),
    )


def _number(value: Any) -> str:
    """Return a number for reading, with all its digits for machines; text as it is."""
    if isinstance(value, (str, int)):
        return str(value)
    return Markup(entry_html(value, format_number(value)))  # which escapes


def write_page(path: Path, page: str) -> Path:
    """Write a page, atomically, and return its path."""
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path


def flatten(
    values: Mapping[str, Any], show: Callable[[Any], str] = str, prefix: str = ""
) -> list[tuple[str, str]]:
    """Return a nested dict as dotted names and texts."""
    rows: list[tuple[str, str]] = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            rows += flatten(value, show, f"{prefix}{key}.")
        else:
            rows.append((f"{prefix}{key}", "not set" if value is None else show(value)))
    return rows
