"""The pages of ``gallery/``: the record of the reproductions, an overview and a page a paper."""

import re
from pathlib import Path

from sphinx.application import Sphinx

RECORDS = Path(__file__).parents[2] / "reproductions"

#: How the gallery marks its verdicts.
VERDICTS = {
    "✓": "reproduced",
    "✗": "not reproduced",
    "?": "not at this scale",
    "!": "undecided",
}


def setup(app: Sphinx) -> dict[str, bool]:
    """Fill the pages when they are read."""
    app.connect("source-read", fill)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def fill(app: Sphinx, name: str, source: list[str]) -> None:
    """Put a page's part of the record in place of its text."""
    folder, _, paper = name.partition("/")
    if folder == "gallery":
        record = RECORDS / "README.md"
        app.env.note_dependency(record)
        source[0] = gallery_pages(record.read_text(encoding="utf-8"))[paper]


def gallery_pages(text: str) -> dict[str, str]:
    """Cut the gallery into an overview, ``index``, and a page a paper."""
    text = re.sub(r"\]\((?=[\w-]+/)", "](../../reproductions/", text)
    overview, *papers = re.split(r"^## ", text, flags=re.MULTILINE)
    rows = [
        "| paper | figures | " + " | ".join(VERDICTS.values()) + " |",
        "|---" * (2 + len(VERDICTS)) + "|",
    ]
    pages, listed = {}, []
    for paper in papers:
        title = paper.partition("\n")[0]
        figures = re.findall(r"^`([\w-]+)/[\w-]+`", paper, flags=re.MULTILINE)
        name = figures[0]
        pages[name] = "# " + re.sub(r"^### ", "## ", paper, flags=re.MULTILINE)
        listed.append(f"{short_title(title)} <{name}>")
        found = [
            len(
                re.findall(rf"^- {re.escape(mark)} ", paper, flags=re.MULTILINE)
            )
            for mark in VERDICTS
        ]
        cells = [f"[{short_title(title)}]({name}.md)", len(figures), *found]
        rows.append("| " + " | ".join(map(str, cells)) + " |")
    contents = ["```{toctree}", ":hidden:", "", *listed, "```"]
    text = "\n".join([overview, "## Papers", "", *rows, "", *contents])
    return {"index": text} | pages


def short_title(title: str) -> str:
    """Return ``"Zhu et al. 2021"``, or both names of two, of a citation."""
    first, *more = re.findall(r"(?:\w\. )+([\w-]+)(?=,| and)", title)
    year = re.findall(r"\b(20\d\d)\b", title)[0]
    names = f"{first} & {more[0]}" if len(more) == 1 else f"{first} et al."
    return f"{names} {year}"
