"""The kept records of reproductions: the page says what they say, and they can be read again."""

import json
import shutil

import pytest
from benchmarks.gallery import HOME, collect, page, write_page

from tests.reproduce.toy_paper import GOOD
from tightframe.reproduce import spec
from tightframe.reproduce.folder import load_reproduction, reproduce


def test_the_committed_page_is_that_of_the_committed_records():
    assert (HOME / "README.md").read_text(encoding="utf-8") == page()


def test_committed_tables_are_small():
    tables = [f for f in HOME.rglob("*") if f.suffix in (".json", ".parquet")]
    assert tables
    assert sum(file.stat().st_size for file in tables) < 5e6


@pytest.fixture
def source(monkeypatch, tmp_path):
    monkeypatch.setattr(spec, "papers", lambda: GOOD)
    reproduce("toy", tmp_path / "source")
    return tmp_path / "source"


def test_a_collected_record_needs_no_runs_and_has_the_same_verdicts(source, tmp_path):
    home = tmp_path / "home"
    target = collect(source, home)
    assert target == home / "smoke-toy"
    assert not (target / "tasks").exists()
    kept, whole = load_reproduction(target), load_reproduction(source)
    assert [f.verdicts for f in kept.figures] == [f.verdicts for f in whole.figures]
    assert [f.panels for f in kept.figures] == [f.panels for f in whole.figures]
    assert kept.figures[0].results.equals(whole.figures[0].results)
    collect(source, home)  # again, in place
    text = write_page(home).read_text(encoding="utf-8")
    for figure in whole.figures:
        assert f"`{figure.name}`" in text
        for verdict in figure.verdicts:
            assert f"**{verdict.outcome}**: {verdict.sentence}" in text
    assert "| smoke-toy |" in text


def test_an_unfinished_reproduction_is_refused(source, tmp_path):
    shutil.rmtree(source / "figures")
    with pytest.raises(ValueError, match=r"source: .* is not finished: toy/rank"):
        collect(source, tmp_path / "home")
    assert not (tmp_path / "home").exists()


def test_the_machine_of_the_record_is_kept(source, tmp_path):
    record = json.loads((source / "reproduce.json").read_text())
    record["environment"] |= {"processor": "Abacus 3000", "cores": 5}
    (source / "reproduce.json").write_text(json.dumps(record))
    collect(source, tmp_path / "home")
    assert "Abacus 3000, 5 cores" in page(tmp_path / "home")
