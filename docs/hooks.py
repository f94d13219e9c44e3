"""MkDocs hooks: pages that are kept elsewhere in the repository, and mathematics as MathML."""

import html
import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
RECORDS = ROOT / "reproductions"

#: How the gallery marks its verdicts.
VERDICTS = {
    "✓": "reproduced",
    "✗": "not reproduced",
    "?": "not at this scale",
    "!": "undecided",
}

#: How the bars of norms and absolute values stand.
BAR = 'stretchy="false" lspace="0" rspace="0"'

#: Formulas with more characters than this scroll on narrow screens.
LONG = 28


def on_files(files: Files, config: Any) -> Files:
    """Add changelog, example scripts and the gallery: an overview, a page a paper, pictures."""
    path = str(ROOT / "CHANGELOG.md")
    files.append(File.generated(config, "changelog.md", abs_src_path=path))
    files.append(
        File.generated(config, "guide/examples.md", content=examples_page())
    )
    for name, text in gallery_pages(
        (RECORDS / "README.md").read_text(encoding="utf-8")
    ).items():
        files.append(File.generated(config, f"gallery/{name}.md", content=text))
    for picture in sorted(RECORDS.rglob("*.png")):
        uri = f"gallery/{picture.relative_to(RECORDS).as_posix()}"
        files.append(File.generated(config, uri, abs_src_path=str(picture)))
    return files


def examples_page() -> str:
    """Return the list of examples, and every script."""
    text = (ROOT / "examples" / "README.md").read_text(encoding="utf-8")
    for name in re.findall(r"`(\w+\.py)` \|", text):
        script = (ROOT / "examples" / name).read_text(encoding="utf-8")
        text += f"\n## {name}\n\n```python\n{script}```\n"
    return text


def gallery_pages(text: str) -> dict[str, str]:
    """Cut the gallery into an overview, ``index``, and a page a paper."""
    overview, *papers = re.split(r"^## ", text, flags=re.MULTILINE)
    rows = [
        "| paper | figures | " + " | ".join(VERDICTS.values()) + " |",
        "|---" * (2 + len(VERDICTS)) + "|",
    ]
    pages = {}
    for paper in papers:
        title = paper.partition("\n")[0]
        figures = re.findall(r"^`([\w-]+)/[\w-]+`", paper, flags=re.MULTILINE)
        name = figures[0]
        pages[name] = "# " + re.sub(r"^### ", "## ", paper, flags=re.MULTILINE)
        found = [
            len(
                re.findall(rf"^- {re.escape(mark)} ", paper, flags=re.MULTILINE)
            )
            for mark in VERDICTS
        ]
        cells = [f"[{title}]({name}.md)", len(figures), *found]
        rows.append("| " + " | ".join(map(str, cells)) + " |")
    return {
        "index": f"{overview}\n## Papers\n\n" + "\n".join(rows) + "\n"
    } | pages


def on_page_content(content: str, page: Any, **_: Any) -> str:
    """Replace what Arithmatex marked by MathML, which browsers show without any script."""

    def formula(match: re.Match[str]) -> str:
        tag, latex = match["tag"], html.unescape(match["latex"])
        mathml = to_mathml(latex, block=tag == "div")
        if "\\" in mathml:
            raise PluginError(f"{page.file.src_uri}: cannot convert {latex!r}")
        shown = html.unescape(re.sub("<[^>]*>", "", mathml))
        size = "formula long" if len(shown) > LONG else "formula"
        return f'<{tag} class="{size}">{mathml}</{tag}>'

    pattern = r'<(?P<tag>div|span) class="arithmatex">\\[\[(](?P<latex>.*?)\\[\])]</(?P=tag)>'
    return re.sub(pattern, formula, content, flags=re.DOTALL)


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
