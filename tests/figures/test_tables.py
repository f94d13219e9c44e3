"""A table is written in every format, whatever its texts hold."""

import html
import io
import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from rich.console import Console

from tightframe.figures.formats import (
    FORMATS,
    table_format,
    to_console,
    to_html,
    to_latex,
    to_markdown,
    to_rich,
)
from tightframe.figures.storage import panel_from_dict, panel_to_dict
from tightframe.figures.style import DARK, STATES, state_variables
from tightframe.figures.table import Column, Table

HOSTILE = "<script>alert('x')</script> & | \\ 50 % of #1_a {b} ^~ $x$ [red]*bold*[/red]"

TABLE = Table(
    "All of it",
    [
        "name",
        Column("memory", "MiB", format=".1f"),
        Column("share", format=".2f", suffix=" %"),
        "n",
    ],
    [
        ["plain", 12345678.5, -1.5, 1_000_000],
        [HOSTILE, math.inf, math.nan, None],
        ["tiny", -0.0, 1e-300, np.int64(7)],
    ],
    note="A note with 100 %.",
)


class Cells(HTMLParser):
    """Texts of a table's cells with the attributes of their tags."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.cells, self.values, self.inside = [], [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag in ("th", "td"):
            self.cells.append(["", dict(attributes)])
            self.inside = True
        if tag == "data":
            self.values.append(float(dict(attributes)["value"]))

    def handle_endtag(self, tag):
        self.inside = self.inside and tag not in ("th", "td")

    def handle_data(self, data):
        if self.inside:
            self.cells[-1][0] += data


def test_entries_as_text():
    assert TABLE.texts == [
        ["plain", "12345678.5", "-1.50 %", "1000000"],
        [HOSTILE, "∞", "n/a", "n/a"],
        ["tiny", "0.0", "0.00 %", "7"],
    ]
    assert [head.head for head in TABLE.heads] == ["name", "memory (MiB)", "share", "n"]
    assert [head.align for head in TABLE.heads] == ["left", "right", "right", "right"]


@pytest.mark.parametrize(
    ("format", "value", "text"),
    [
        ("", 12.0, "12"),
        ("", 1_234_567, "1234567"),
        ("", 10**20, "1" + 20 * "0"),
        ("", 0.614031234, "0.61403"),
        (",d", 1_234_567, "1,234,567"),
        (",d", 1_234_567.0, "1,234,567"),
        (",d", 0.5, "0.5"),
        (".3g", 1234567, "1.23e+06"),
        ("", True, "True"),
        ("", np.bool_(False), "False"),
        ("", -math.inf, "-∞"),
        ("", np.float32("nan"), "none"),
    ],
)
def test_how_a_number_is_written(format, value, text):
    assert Column("a", format=format).text(value, "none") == text


def test_numbers_that_were_written_before_are_numbers():
    table = Table("", ["a", "b", "c"], [["-1.5e-07", "5x", "n/a"], ["20.70 %", "6", ""]])
    assert [head.align for head in table.heads] == ["right", "left", "left"]


def test_html_shows_hostile_text_and_keeps_every_digit():
    page = Cells(to_html(TABLE))
    assert "script" not in page.tags
    texts = [text for text, _ in page.cells]
    assert texts[4:] == [entry for row in TABLE.texts for entry in row]
    assert page.values == [12345678.5, -1.5, 1e6, -0.0, 1e-300, 7]
    assert [attributes.get("scope") for _, attributes in page.cells[:5]] == [*["col"] * 4, "row"]
    assert page.cells[1][1]["class"] == "n"
    assert '<p class="note">A note with 100 %.</p>' in to_html(TABLE)
    hostile = to_html(Table('"><img src=x>', ["<b>"], [["</td>"]]))
    assert "<img" not in hostile
    assert "<b>" not in hostile
    assert hostile.count("</td>") == 0


def test_markdown_keeps_its_columns():
    title, _, *lines, _, note = to_markdown(TABLE).splitlines()
    assert (title, note) == ("**All of it**", "A note with 100 %.")
    assert len(lines) == 2 + len(TABLE.rows)
    assert len({len(line) for line in lines}) == 1
    for line, row in zip(lines[2:], TABLE.texts, strict=True):
        cells = re.split(r"(?<!\\)\|", line)[1:-1]
        assert len(cells) == 4
        plain = re.sub(r"\\(.)", r"\1", cells[0].strip())
        assert plain.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&") == row[0]
        assert [cell.strip() for cell in cells[1:]] == row[1:]
    assert "<script>" not in lines[3]
    assert lines[1].split("|")[1:-1][1].endswith(":")
    assert not lines[1].split("|")[1:-1][0].endswith(":")


def test_the_console_shows_brackets_as_they_are():
    text = to_console(TABLE, width=200)
    for row in TABLE.texts:
        for entry in row:
            assert entry in text
    assert "All of it" in text
    assert "A note with 100 %." in text
    sections = to_rich(Table("t", ["a"], [["x"], ["y"], ["z"]], sections=[1]))
    assert [row.end_section for row in sections.rows] == [True, False, False]


MARKED = Table(
    "Classes",
    ["name", Column("margin", align="right", states=True), Column("state", states=True), "word"],
    [
        ["a", 1.5, "distinct", "lost"],
        ["b", "vanished", "lost", "lost"],
        ["c", math.inf, "gone", ""],
    ],
    strong=[1],
)


def drawn(table, width=80, encoding="utf-8", **options):
    """What a console of some encoding shows of a table."""
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    console = Console(file=file, width=width, _environ={}, **options)
    console.print(to_rich(table, ascii_only=console.options.ascii_only))
    file.flush()
    return file.buffer.getvalue().decode(encoding)


def cells_of(text):
    return [re.split(r" *[│|] *", line)[1:-1] for line in text.splitlines() if line[0] in "│|"]


def test_a_row_is_a_block_in_a_narrow_console_without_room():
    table = Table(
        "Class groups of a problem with a title",
        ["classes", Column("samples each", align="right"), "margin", "note", "state"],
        [["5 of them", 100, 1.25, "not merged yet", "distinct"], ["b", 7, None, "", "lost"]],
        "A sentence below.",
        missing="-",
    )
    lines = [line.rstrip() for line in to_console(table, 40).splitlines()]
    assert lines == [
        "Class groups of a problem with a title",
        "classes       5 of them",
        "samples each  100",
        "margin        1.25",
        "note          not merged yet",
        "state         distinct",
        "",
        "classes       b",
        "samples each  7",
        "margin        -",
        "state         lost",
        "A sentence below.",
    ]
    assert "│" in to_console(table, 80)
    assert "│" in to_console(Table("t", ["a", "b"], [[1, 2]]), 40)  # which has room


def test_states_have_their_marks_in_a_console():
    rows = cells_of(drawn(MARKED))
    assert rows == [
        ["a", "1.5", "● distinct", "lost"],
        ["b", "✕ vanished", "▶ lost", "lost"],
        ["c", "∞", "gone", ""],
    ]
    assert "●" in to_console(MARKED)


def test_marks_are_ascii_where_nothing_else_can_be_shown():
    for encoding in ("ascii", "latin-1", "cp1252"):
        rows = cells_of(drawn(MARKED, encoding=encoding))
        assert rows[-3:] == [
            ["a", "1.5", "o distinct", "lost"],
            ["b", "x vanished", "> lost", "lost"],
            ["c", "inf", "gone", ""],
        ]


def test_colours_go_and_marks_stay_without_colour():
    terminal = {"force_terminal": True, "color_system": "256"}
    coloured = drawn(MARKED, **terminal)
    for state in ("distinct", "vanished", "lost"):
        assert f"38;5;{STATES[state].terminal}m{STATES[state].sign} {state}" in coloured
    plain = drawn(MARKED, no_color=True, **terminal)
    assert "38;5" not in plain
    assert "▶ lost" in plain
    bold = [line for line in coloured.splitlines() if "\x1b[1" in line and "━" not in line]
    assert [("vanished" in line) for line in bold if "name" not in line] == [True]


def test_a_mark_stays_beside_its_word_in_a_narrow_console():
    long = Table("", ["what", Column("state", states=True)], [["many words " * 9, "vanished"]])
    assert "✕ vanished" in drawn(long, width=30)


def test_names_stay_whole_in_a_narrow_console_and_sentences_are_broken():
    names = Table("", ["metric", "text"], [["group_cosine_minimum", "many words " * 9]])
    assert "group_cosine_minimum" in to_console(names, width=40)
    sentences = Table("", ["what", "n"], [["a long description of a number", 1.23456]])
    assert "1.2346" in to_console(sentences, width=30)


@pytest.mark.parametrize("width", range(30, 100, 5))
def test_no_number_is_cut_and_what_has_no_room_is_named(width):
    shares = [Column(f"{kind} balanced accuracy", align="right", format=".3f") for kind in "abc"]
    columns = [
        Column("class", align="left", names=True),
        Column("samples", align="right", spare=True),
        *shares,
        Column("at 0.05", align="right"),
        Column("state", states=True),
    ]
    rows = [
        [
            f"a class with a long name, number {i}",
            1000 + i,
            0.125,
            0.25,
            0.5,
            f"-0.{i} ± 0.6",
            "lost",
        ]
        for i in range(3)
    ]
    drawn = to_console(Table("", columns, rows), width).rstrip()
    assert max(map(len, drawn.splitlines())) <= width
    if width < 60:  # a block a row, with everything
        blocks = [block.splitlines() for block in re.split(r"\n *\n", drawn)]
        assert len(blocks) == len(rows)
        for block, row in zip(blocks, rows, strict=True):
            ends = [line.rstrip() for line in block]
            for text in (str(row[1]), "0.125", "0.250", "0.500", row[5], "▶ lost"):
                assert any(end.endswith(f"  {text}") for end in ends)
        return
    lines = [line for line in drawn.splitlines() if "lost" in line]
    assert len(lines) == len(rows)
    note = " ".join(drawn[drawn.rindex("┘") + 1 :].split())
    for line, row in zip(lines, rows, strict=True):
        cells = [cell.strip() for cell in line.strip("│").split("│")]
        named = ["samples", "a bal", "b bal", "c bal", "at 0.05"]
        texts = [str(row[1]), "0.125", "0.250", "0.500", row[5]]
        assert cells[1:-1] == [t for n, t in zip(named, texts, strict=True) if n not in note]
    assert ("No room" in note) == (len(cells) < len(columns))


def test_what_is_special_to_latex_is_escaped():
    table = Table(
        "100 % of _all_",
        ["a_bcd", "λ"],
        [["50 %", "‖W‖²"], ["x & y", "-"], [r"\alpha^{2} ~ #1 $", "±1"]],
        name="t",
    )
    text = to_latex(table)
    assert r"\caption{100 \% of \_all\_}" in text
    assert r"\label{tab:t}" in text
    assert r"a\_bcd & $\lambda$" in text
    assert r"50 \% & $\|$W$\|$$^2$" in text
    assert r"\textbackslash{}alpha\textasciicircum{}\{2\} \textasciitilde{} \#1 \$" in text


def test_mathematics_is_set_as_such():
    table = Table("", ["number", "text"], [[-0.5, "Σ_W"], [1.5e-07, "NC2_WWᵀ"], [None, "M >= 2"]])
    rows = to_latex(table).partition("\\midrule\n")[2].splitlines()
    assert rows[:3] == [
        r"$-0.5$ & $\Sigma$$_{W}$ \\",
        r"$1.5 \cdot 10^{-7}$ & NC2$_{WW}$$^\top$ \\",
        r"n/a & M $\geq$ 2 \\",
    ]
    assert r"\begin{tabular}{rl}" in to_latex(table)


def test_latex_of_hostile_text_is_balanced():
    text = to_latex(Table("t", ["a", "b"], [[HOSTILE, 1_234_567.0], ["∞", -1e-9]], note=HOSTILE))
    plain = re.sub(r"\\[\\{}%$#_&]", "", text)
    assert plain.count("{") == plain.count("}")
    assert plain.count("$") % 2 == 0
    assert not set("%#") & set(plain)
    assert text.isascii()


def test_sentences_are_broken_over_pages():
    table = Table("t", ["a", Column("finding", wrapped=True), "c"], [["x", "y " * 90, "z"]])
    text = to_latex(table)
    assert r"\begin{longtable}{lp{0.48\linewidth}l}" in text
    assert text.count("a & finding & c") == 2  # on the first page and on every other


def test_every_format_is_found_by_its_name():
    for name, (ending, write) in FORMATS.items():
        assert table_format(name).ending == ending
        assert "plain" in write(TABLE)
    with pytest.raises(ValueError, match="format: got 'pdf', allowed are console, html, latex"):
        table_format("pdf")


def test_tables_survive_storage():
    table = replace(TABLE, rows=[TABLE.rows[0], ["b", math.nan, None, 3]], sections=[1], name="n")
    again = panel_from_dict(json.loads(json.dumps(panel_to_dict(table), allow_nan=False)))
    assert again.texts == table.texts
    assert (again.heads, again.sections, again.name) == (table.heads, [1], "n")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Column("a", align="middle"), "align: got 'middle', allowed are left, right"),
        (lambda: Column("a", format="x"), "format: got 'x', need one of a number"),
        (lambda: Table("t", ["a"], [[1, 2]]), "rows: got 2 entries for 1 columns"),
    ],
)
def test_what_is_no_table_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("state", STATES)
def test_a_state_has_its_mark_and_colour_in_html(state):
    table = Table("", ["class", Column("state", states=True), "word"], [["a", state, state]])
    look = STATES[state]
    own, plain = re.findall(r"<td.*?>(.*?)</td>", to_html(table))
    assert plain == state
    assert f"color:var(--tf-{state},{look.light})" in own
    assert re.sub(r"<.*?>|\ufe0e", "", own) == f"{look.sign} {state}"
    assert f"--tf-{state}:{look.dark};" in state_variables(DARK)
    style = re.search(r"<style>(.*?)</style>", to_html(table, alone=True)).group(1)
    assert '[data-jp-theme-light="false"]' in style
    assert f"--tf-{state}:{look.dark};" in style
    assert "<style>" not in to_html(Table("", ["word"], [[state]]), alone=True)


def test_very_long_names_in_html_are_short_different_and_told_by_pointing():
    names = ["<b>" * 60 + str(i) + '"' * 9 for i in range(3)]
    columns = [Column("class", align="left", names=True), Column("rival", names=True)]
    shown = to_html(Table("t", columns, [[name, names[0]] for name in names]))
    cells = re.findall(r'<t[hd][^>]*><span title="(.*?)">(.*?)</span>', shown)
    assert [html.unescape(title) for title, _ in cells[::2]] == names
    texts = [html.unescape(text) for _, text in cells]
    assert len(set(texts)) == 3
    assert max(map(len, texts)) <= 100
    assert "<b>" not in shown
