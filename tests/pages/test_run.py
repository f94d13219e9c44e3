from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import pytest

import tightframe as tf
from tests.pages.conftest import (
    DECAYS,
    FINISHED,
    HOSTILE,
    MISSING,
    write_run,
    write_setting,
)
from tightframe.figures.table import format_number
from tightframe.pages.run import write_report
from tightframe.runs.store import RunRecord, load_run
from tightframe.runs.tables import class_table_of, group_rows, metric_rows

VOID = {"meta", "img", "br", "link", "input", "hr"}
#: Attributes that make a browser ask for something.
FETCHING = ("src", "srcset", "href", "data", "action", "poster", "background", "xlink:href")


class Page(HTMLParser):
    """Tags with their attributes, table cells with their text, scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.cells: list[str] = []
        self.data: list[float] = []
        self.raw: list[tuple[dict[str, str | None], str]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open, f"unclosed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in ("td", "th", "dd"):
            self.cells.append("")
        if tag == "data":
            self.data.append(float(dict(attrs)["value"] or "nan"))
        if tag in ("script", "style"):
            self.raw.append((dict(attrs), ""))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open, f"</{tag}> without a start"
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] in ("script", "style"):
            attrs, text = self.raw[-1]
            self.raw[-1] = (attrs, text + data)
            return
        self.text += data
        if any(tag in ("td", "th", "dd") for tag in self._open):
            self.cells[-1] += data

    @property
    def plots(self) -> dict[str, Any]:
        (text,) = [text for attrs, text in self.raw if attrs.get("id") == "plots"]
        return json.loads(text)  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def path(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(run_folder, tmp_path_factory.mktemp("report") / "sub" / "r.html")


@pytest.fixture(scope="module")
def page(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


def test_it_is_one_small_file(path: Path) -> None:
    assert [entry.name for entry in path.parent.iterdir()] == ["r.html"]
    assert path.stat().st_size < 6e6


def test_same_record_same_bytes(run_folder: Path, path: Path, tmp_path: Path) -> None:
    assert write_report(run_folder, tmp_path / "again.html").read_bytes() == path.read_bytes()


def test_default_place_is_the_run_folder(tmp_path: Path, solutions: dict[str, tf.Solution]) -> None:
    write_run(tmp_path, [FINISHED])
    write_setting(tmp_path, FINISHED, solutions[FINISHED])
    assert write_report(tmp_path) == tmp_path / "report.html"
    assert (tmp_path / "report.html").is_file()


def test_nothing_is_fetched(page: Page) -> None:
    assert not [tag for tag, _ in page.tags if tag in ("link", "iframe", "object", "embed", "base")]
    for tag, attrs in page.tags:
        for name in FETCHING:
            if tag != "data" and name in attrs:
                assert (attrs[name] or "").startswith("#"), (tag, attrs)
    own = [text for attrs, text in page.raw if attrs.get("id") != "plotly"]
    assert own
    for text in own:
        assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|import\(", text)
        assert "evil.example" not in text.replace("\\u003c", "<") or "http:" not in text
    policies = [a["content"] for _, a in page.tags if "http-equiv" in a]
    assert len(policies) == 1
    assert "default-src 'none'" in (policies[0] or "")
    assert "http" not in (policies[0] or "")


def test_plotly_is_inlined_once(page: Page) -> None:
    assert sum(len(text) > 1e6 for _, text in page.raw) == 1
    assert [attrs.get("id") for attrs, _ in page.raw].count("plotly") == 1


def test_hostile_text_is_shown_not_run(page: Page) -> None:
    assert HOSTILE in page.text
    assert not [tag for tag, _ in page.tags if tag == "img"]
    data = ("application/json", "text/plain")
    assert sum(tag == "script" and attrs.get("type") not in data for tag, attrs in page.tags) == 3
    assert not [a for _, attrs in page.tags for a in attrs if a.startswith("on")]


def test_no_cell_shows_a_missing_number(page: Page) -> None:
    assert page.cells
    for cell in page.cells:
        assert cell.strip()
        assert cell.strip().lower() not in ("nan", "none", "null", "inf", "undefined")
    assert "n/a" not in page.text
    assert "∞" in [cell.strip() for cell in page.cells]
    assert not re.search(r"\bNaN\b|\bnan\b|\bNone\b|\bInfinity\b", page.text)


def test_every_setting_is_there(page: Page) -> None:
    titles = {f"weight decay {w:g}, feature decay {h:g}" for w, h in list(DECAYS.values())[:3]}
    for title in titles:
        assert title in page.text
    assert MISSING in page.text
    assert "This setting was not started." in page.text
    assert page.text.count("… unfinished") == 2
    assert page.text.count("✗ prediction not certified") == 1
    assert page.text.count("✓ prediction certified") == 2
    for i in (0, 1):
        assert f"Verdict {i} of {FINISHED}." in page.text
    assert page.text.count("There is no verdict before the training is finished.") == 2


def test_numbers_are_the_records(page: Page, run: RunRecord) -> None:
    shown, cells = set(page.data), [cell.strip() for cell in page.cells]
    for setting in run.settings:
        for row in metric_rows(setting):
            # Other differences are those of two numbers beside each other.
            for value in (row.start, row.end, row.to_etf):
                assert value is None or format_number(value) in cells
                assert value is None or value == float("inf") or value in shown
            gone = row.start is None and row.end is None
            assert not gone or setting.history is None or row.label in page.text
        if setting.prediction is not None:
            assert setting.prediction["objective"] in shown
            assert {group["margin"] for group in setting.prediction["groups"]} <= shown


def test_classes_come_first(page: Page, run: RunRecord) -> None:
    assert "The classes, worst first" in page.text
    assert page.text.index("The classes, worst first") < page.text.index("Verdict for every class")
    for setting in run.settings:
        table = class_table_of(setting)
        if table is not None:
            assert table.headline in page.text
            assert {row.median_margin for row in table} <= set(page.data)


def test_plots_are_the_records(page: Page, run: RunRecord) -> None:
    for i, setting in enumerate(run.settings):
        if setting.history is None:
            assert not [name for name in page.plots if name.startswith(f"s{i}-")]
            continue
        data = page.plots[f"s{i}-distance-logits"]["data"]
        assert data[0]["y"] == pytest.approx(setting.history["logits_to_predicted"].tolist(), 1e-6)
        assert data[1]["y"] == pytest.approx(setting.history["logits_to_etf"].tolist(), 1e-6)
        heat = page.plots[f"s{i}-heat-predicted"]["data"][0]["z"]
        assert setting.prediction_arrays is not None
        logits = setting.prediction_arrays["logits"].tolist()
        assert list(chain(*heat)) == pytest.approx(list(chain(*logits)), rel=1e-6)


def test_plots_are_valid_plotly(page: Page) -> None:
    for name, plot in page.plots.items():
        figure = go.Figure(plot)  # raises on an unknown property
        assert figure.layout.xaxis.title.text, name
        assert figure.data, name


def test_every_place_has_its_plot_and_its_words(page: Page) -> None:
    places = [attrs for _, attrs in page.tags if "data-plot" in attrs]
    assert places
    assert sorted(str(attrs["data-plot"]) for attrs in places) == sorted(page.plots)
    assert all(attrs["role"] == "img" and attrs["aria-label"] for attrs in places)
    # CDNV is infinite and bias alignment NaN throughout: an empty place, not an empty plot.
    assert "s0-cdnv" not in page.plots
    assert "s0-bias_alignment" not in page.plots


def test_headings_and_tables_are_semantic(page: Page) -> None:
    headings = [tag for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert headings.count("h1") == 1
    levels = [int(tag[1]) for tag in headings]
    assert all(after <= before + 1 for before, after in pairwise(levels))
    heads = [attrs for tag, attrs in page.tags if tag == "th"]
    assert heads
    assert all("scope" in attrs for attrs in heads)
    assert ("html", {"lang": "en"}) in page.tags
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))


def test_configuration_closes_the_page(page: Page, run: RunRecord) -> None:
    assert run.config_hash in page.text
    assert "versions.numpy" in page.cells
    assert "1.2.3" in page.cells
    assert "not set" in page.cells


def test_many_settings_and_classes_stay_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A few sentences a setting, which take two seconds each to be found.
    monkeypatch.setattr("tightframe.pages.run.answer", lambda setting: [])
    solution = tf.solve(tf.Problem("20x100,5x100", weight_decay=0.001, feature_decay=0.001))
    names = [f"s{i}" for i in range(8)]
    write_run(tmp_path, names)
    for name in names:
        write_setting(tmp_path, name, solution)
    report = write_report(tmp_path)
    assert report.stat().st_size < 6e6
    assert "Only some of the classes are shown" in Page(report.read_text(encoding="utf-8")).text


def test_an_interrupted_write_keeps_the_old_report(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "report.html"
    target.write_text("old")

    def fail(*_: object, **__: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_text", fail)
    with pytest.raises(KeyboardInterrupt):
        write_report(run_folder, target)
    monkeypatch.undo()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no run"):
        write_report(tmp_path)
    assert not list(tmp_path.iterdir())


def test_uncertified_prediction_says_so_next_to_its_numbers(page: Page) -> None:
    assert page.text.count("not certified as optimal") == 1
    section = page.text.split("weight decay 0.2, feature decay 0.02")[-1]
    assert "not certified as optimal" in section.split("weight decay 0.03")[0]


def test_several_layers_have_thresholds_in_the_mean_decay(tmp_path: Path) -> None:
    problem = tf.Problem("30x3,5x3", "mse", weight_decay=[1e-3, 4e-3], feature_decay=2e-3, depth=2)
    write_run(tmp_path, ["deep"])
    write_setting(tmp_path, "deep", tf.solve(problem))
    page = Page(write_report(tmp_path).read_text(encoding="utf-8"))
    assert "geometric mean of all decays" in page.text
    # c_2 n^(2/3) / N with c_2 = 2^(-4/3); in a table and, for the larger count, in the facts.
    for count, times in ((30, 2), (5, 1)):
        limit = count ** (2 / 3) / 105 / 2 ** (4 / 3)
        assert sum(value == pytest.approx(limit) for value in page.data) == times


def test_groups_of_equal_count_have_their_own_thresholds_and_names(tmp_path: Path) -> None:
    problem = tf.Problem("10x6", weight_decay=0.05, feature_decay=0.05, class_weights="1x3,2.5x3")
    write_run(tmp_path, ["x"])
    write_setting(tmp_path, "x", tf.solve(problem))
    rows = group_rows(load_run(tmp_path).settings[0])
    assert [row["name"] for row in rows] == ["3 classes of 10", "3 classes of 10 with weight 2.5"]
    limit = 10**0.5 / 60
    assert [row["threshold"] for row in rows] == pytest.approx([limit, 2.5 * limit])
    page = Page(write_report(tmp_path).read_text(encoding="utf-8"))
    assert "3 classes of 10, 3 classes of 10 with weight 2.5" in page.text
    assert "1.0x3,2.5x3" in page.cells
    assert "logit adjustment" not in page.text
