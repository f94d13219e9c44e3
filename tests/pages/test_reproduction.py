"""The page of a reproduction: complete, self-contained, safe, and drawn from the same panels."""

import json
import re
import shutil
from html.parser import HTMLParser

import pytest

from tests.pages.conftest import HOSTILE
from tests.reproduce.toy_paper import BAD, DECAYS
from tightframe.figures.storage import panel_to_dict
from tightframe.figures.table import Table
from tightframe.pages.reproduction import render, write_reproduction
from tightframe.reproduce import spec
from tightframe.reproduce.folder import load_reproduction, reproduce
from tightframe.reproduce.plots import save_figure_plot, save_reproduction_plots


class Page(HTMLParser):
    """Text outside of scripts, links, and the JSON of the plots."""

    def __init__(self, text):
        super().__init__()
        self.text, self.links, self.plots, self.places, self._inside = [], [], "", [], None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.links += [values[name] for name in ("href", "src", "action") if name in values]
        self.places += [values["data-plot"]] if "data-plot" in values else []
        if tag in ("script", "style"):
            self._inside = values.get("id", tag)

    def handle_endtag(self, tag):
        if tag in ("script", "style"):
            self._inside = None

    def handle_data(self, data):
        if self._inside is None:
            self.text.append(data)
        elif self._inside == "plots":
            self.plots += data

    @property
    def words(self):
        return " ".join(" ".join(self.text).split())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("reproduction") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spec, "papers", lambda: BAD)
        reproduce("all", out)
    return out


@pytest.fixture(scope="module")
def page(folder):
    return Page(write_reproduction(folder).read_text(encoding="utf-8"))


def test_every_figure_and_verdict_is_there(folder, page):
    for record in load_reproduction(folder).figures:
        for text in (record.about["title"], record.about["caption"], "A claim <b>with</b> markup."):
            assert text in page.words or not record.panels
        for verdict in record.verdicts:
            assert page.words.count(verdict.criterion) >= 1
            assert verdict.sentence in page.words
    assert "3 reproduced" in page.words
    assert "1 not reproduced" in page.words
    assert "feature_decay: got -1" in page.words  # the reason of the failed run
    assert "judging failed: RuntimeError: a mistake in the module" in page.words


def test_the_page_asks_nothing_of_the_network(page):
    assert all(link.startswith("#") for link in page.links)


def test_plots_hold_the_numbers_of_the_panels(folder, page):
    plots = json.loads(page.plots)
    assert sorted(plots) == sorted(page.places)
    margins = plots["f0-0-0"]
    band, line = margins["data"]
    rows = load_reproduction(folder).figures[0].results
    rows = rows[rows["what"] == "all"]
    positive = rows[rows["group1_margin"] > 0]
    assert 0 < len(positive) < len(rows)  # a log axis cannot show the collapsed ones
    assert line["x"] == pytest.approx(list(positive["lambda"]), rel=1e-4)
    assert line["y"] == pytest.approx(list(positive["group1_margin"]), rel=1e-4)
    assert line["mode"] == "lines+markers"
    assert band["fill"] == "toself"
    layout = margins["layout"]
    assert layout["xaxis"]["type"] == layout["yaxis"]["type"] == "log"
    threshold = rows["group1_threshold"].iloc[0]
    vertical, horizontal = layout["shapes"]
    assert (vertical["x0"], vertical["x1"]) == pytest.approx((threshold, threshold))
    assert (vertical["yref"], horizontal["xref"]) == ("paper", "paper")
    label, level = layout["annotations"]
    assert 10 ** label["x"] == pytest.approx(threshold)
    assert 10 ** level["y"] == pytest.approx(1e-3)


def test_many_maps_share_a_slider_and_one_scale(page):
    plots = json.loads(page.plots)
    maps, one = plots["f0-1-0"], plots["f0-2-0"]
    (slider,) = maps["layout"]["sliders"]
    assert [step["label"] for step in slider["steps"]] == [f"λ = {d:g}" for d in DECAYS]
    for place, step in enumerate(slider["steps"]):
        assert step["args"][0]["visible"] == [k == place for k in range(len(DECAYS))]
    assert len({trace["zmax"] for trace in maps["data"]}) == 1
    assert [trace["visible"] for trace in maps["data"]] == [True] + [False] * 5
    assert "sliders" not in one["layout"]
    assert one["data"][0]["z"] == maps["data"][0]["z"]
    assert [shape["x0"] for shape in maps["layout"]["shapes"]] == [2.5, -0.5]


def test_the_same_record_gives_the_same_page_without_its_tasks(folder, tmp_path):
    record = load_reproduction(folder)
    assert render(record) == render(record)
    moved = tmp_path / "moved"
    for file in [*folder.glob("figures/**/*.json"), folder / "reproduce.json"]:
        target = moved / file.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read_bytes())
    assert write_reproduction(moved).read_bytes() == write_reproduction(folder).read_bytes()


def test_texts_are_escaped(folder, tmp_path):
    moved = tmp_path / "hostile"
    for file in [*folder.glob("figures/**/*.json"), folder / "reproduce.json"]:
        target = moved / file.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        hostile = json.dumps(HOSTILE)[1:-1]
        text = file.read_text()
        for old in ("Title of rank", "minority", "The rank is right.", "Margins"):
            text = text.replace(old, hostile)
        target.write_text(text)
    page = write_reproduction(moved).read_text(encoding="utf-8")
    own = re.sub(r'<script id="plotly">.*?</script>', "", page, flags=re.DOTALL)
    assert "<script>alert" not in own
    assert "<img" not in own
    assert HOSTILE in Page(page).words


def test_an_unfinished_figure_says_so(folder, tmp_path):
    file = tmp_path / "reproduce.json"
    record = json.loads((folder / "reproduce.json").read_text())
    file.write_text(json.dumps(record))
    words = Page(write_reproduction(tmp_path).read_text(encoding="utf-8")).words
    assert "4 of the figures are unfinished" in words
    assert "0 of 2 tasks have ended" in words
    assert "Title of mistaken" in words


def test_pictures_stand_next_to_the_results(folder):
    paths = save_reproduction_plots(folder)
    assert [path.relative_to(folder).as_posix() for path in paths] == [
        "figures/toy/rank/rank.png",
        "figures/toy/again/again.png",
    ]
    for path in paths:
        data = path.read_bytes()
        assert data.startswith(b"\x89PNG")
        assert int.from_bytes(data[16:20]) >= 1000  # pixels wide
    (path,) = save_figure_plot(load_reproduction(folder).figures[1])
    assert path.read_bytes() == data


def test_a_table_has_a_row_of_its_own_and_an_empty_one_a_sentence(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    (path, *_) = sorted((tmp_path / "copy").rglob("panels.json"))
    tables = [Table("Full", ["a", "b"], [[1, 2]], ""), Table("Bare", ["a", "b"], [], "")]
    path.write_text(json.dumps([panel_to_dict(table) for table in tables]))
    text = " ".join(render(load_reproduction(tmp_path / "copy")).split())
    assert '<figure class="row"> <figcaption>Full</figcaption>' in text
    assert '<figcaption>Bare</figcaption> <p class="empty">Nothing to draw' in text


def test_a_folder_without_a_reproduction_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"there is no reproduce\.json"):
        write_reproduction(tmp_path)
