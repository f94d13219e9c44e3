"""Formulas as MathML, which browsers show without any script."""

import html
import re
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

#: How the bars of norms and absolute values stand.
BAR = 'stretchy="false" lspace="0" rspace="0"'

#: Formulas with more characters than this scroll on narrow screens.
LONG = 28


def setup(app: Sphinx) -> dict[str, bool]:
    """Offer this as ``html_math_renderer``."""
    app.add_html_math_renderer(
        "mathml", inline_renderers=(inline, None), block_renderers=(block, None)
    )
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def inline(writer: Any, node: nodes.math) -> None:
    """Write a formula in a line."""
    writer.body.append(formula(node, "span"))
    raise nodes.SkipNode


def block(writer: Any, node: nodes.math_block) -> None:
    """Write a formula on lines of its own."""
    writer.body.append(formula(node, "div"))
    raise nodes.SkipNode


def formula(node: nodes.Element, tag: str) -> str:
    """Return a formula as HTML."""
    latex = node.astext()
    mathml = to_mathml(latex, block=tag == "div")
    if "\\" in mathml:
        raise ExtensionError(f"{node.source}: cannot convert {latex!r}")
    shown = html.unescape(re.sub("<[^>]*>", "", mathml))
    size = "formula long" if len(shown) > LONG else "formula"
    return f'<{tag} class="{size}">{mathml}</{tag}>'


def to_mathml(latex: str, block: bool) -> str:
    """Convert a formula: bars are drawn, norms do not stretch, limits stand below in a block."""
    mathml = convert(latex, display="block" if block else "inline")
    mathml = mathml.replace(
        'stretchy="true">&#x000AF;', 'accent="true">&#x02015;'
    )
    mathml = re.sub(r"<mo>(&#x02016;|&#x0007C;)", rf"<mo {BAR}>\1", mathml)
    if block:
        limits = r"<msub>(<mo>(?:argmin|max|min)</mo>)(<mrow>.*?</mrow>|<mi>.</mi>)</msub>"
        mathml = re.sub(limits, r"<munder>\1\2</munder>", mathml)
    return mathml
