"""Pictures for light and for dark pages, and the colours of states on both."""

import re
from typing import Any

from sphinx.application import Sphinx

from tightframe.figures.style import DARK, LIGHT, state_variables


def setup(app: Sphinx) -> dict[str, bool]:
    """Read ``#only-light`` behind a picture's name, which leaves no trace where it is unknown."""
    app.connect("source-read", mark_grounds)
    app.connect("html-page-context", add_colors)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def mark_grounds(_: Sphinx, __: str, source: list[str]) -> None:
    """Make the class of a picture of its ``#only-light``, in MyST's way."""
    source[0] = re.sub(
        r"(\.svg)#only-(light|dark)\)", r"\1){.only-\2}", source[0]
    )


def add_colors(
    _: Sphinx, __: str, ___: str, context: dict[str, Any], ____: Any
) -> None:
    """Add the colours of states to a page, which tables of results name."""
    context["metatags"] = context.get("metatags", "") + (
        f"<style>html{{{state_variables(LIGHT)}}}"
        f'html[data-theme="dark"]{{{state_variables(DARK)}}}</style>'
    )
