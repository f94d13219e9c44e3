"""The first screen of a report: its order, its numbers, and what happens where little is known."""

import json
import re
import shutil

import numpy as np
import pytest

import tightframe as tf
from tests.pages.conftest import FINISHED, write_run, write_setting
from tests.pages.test_run import Page
from tightframe.cli.console import print_run
from tightframe.geometry.states import measured_states
from tightframe.pages.run import write_report
from tightframe.runs import store
from tightframe.runs.outcome import outcome

PROBLEM = tf.Problem("30x3,5x3", weight_decay=0.02, feature_decay=0.0002)
EPOCHS = np.array([0, 2, 4, 50, 550])
ACCURACY = np.linspace([0.2] * 6, [1.0, 1.0, 1.0, 0.5, 0.25, 0.75], 5)
CONFUSION = np.diag([8, 8, 8, 4, 2, 6])
CONFUSION[1, 3], CONFUSION[0, 4], CONFUSION[2, 4], CONFUSION[5, 5] = 4, 1, 5, 8


def class_file(solution):
    """Classes that grow from one point to the prediction."""
    grown = np.array([0, 0.2, 0.5, 1.2, 1])[:, None, None] * solution.logits
    return {
        "epochs": EPOCHS,
        "logits": grown.astype(np.float16),
        "bias": np.zeros((5, 6), np.float32),
        "train_accuracy": np.ones((5, 6), np.float16),
        "test_accuracy": ACCURACY.astype(np.float16),
        "test_confusion": CONFUSION.astype(np.int32),
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hero") / "run"
    write_run(folder, ["a", "b"], data="digits", epochs=550)
    for name, factor in (("a", 1), ("b", 30)):
        decays = (PROBLEM.weight_decay * factor, PROBLEM.feature_decay * factor)
        solution = tf.solve(PROBLEM.replace(weight_decay=decays[0], feature_decay=decays[1]))
        write_setting(folder, name, solution)
        store.write_npz(store.setting_paths(folder, name).classes, **class_file(solution))
    return folder


@pytest.fixture(scope="module")
def text(folder, tmp_path_factory):
    path = write_report(folder, tmp_path_factory.mktemp("page") / "r.html")
    return path.read_text(encoding="utf-8")


def data(text):
    found = re.search(r'<script type="application/json" id="hero-data">(.*?)</script>', text)
    return json.loads(found[1])


def test_the_first_screen_comes_first_and_waits_for_nothing(text):
    places = [
        *('class="kicker"', "<h1", 'class="tf-key"', 'id="wheel0"', 'id="wheel1"'),
        *('id="hero-table"', 'id="hero-play"', 'id="hero-slider"', "tightframe.connect(hero)"),
        *('<details class="card" id="s0"', '<details class="card" id="s1"', 'id="how"'),
        'id="plotly"',
    ]
    found = [text.index(place) for place in places]
    assert found == sorted(found)
    # Text, not a script, until a plot is seen; those are folded away.
    assert '<script type="text/plain" id="plotly">' in text
    assert text.count("<details") == 3
    assert "<details open" not in text
    first = text.index("data-plot=")
    assert first > text.index('<details class="card" id="s0"')


def test_it_is_said_in_the_same_words_everywhere(folder, text, capsys):
    said = outcome(store.load_run(folder))
    title = Page(text).text.replace("\u00a0", " ")
    assert said in title
    from rich.console import Console

    print_run(Console(width=2000), folder)
    assert said in capsys.readouterr().out


def test_the_script_has_the_states_of_every_epoch(folder, text):
    found = data(text)
    assert found["epochs"] == EPOCHS.tolist()
    for setting, own in zip(store.load_run(folder).settings, found["settings"], strict=True):
        # The page's rows: the worst of the chosen setting first.
        order = [int(k) for k in re.findall(r'data-class="(\d+)"', text)]
        assert sorted(order) == list(range(6))
        for i in range(4):
            states = measured_states(setting.problem, setting.classes["logits"][i])
            assert [found["states"][n] for n in own["states"][i]] == states.state[order].tolist()
            np.testing.assert_allclose(own["margins"][i], states.decision_margin[order], atol=0.006)
        exact = measured_states(setting.problem, setting.final["logits"])
        np.testing.assert_allclose(own["margins"][-1], exact.decision_margin[order], atol=0.006)
        np.testing.assert_allclose(own["shares"], ACCURACY[:, order], atol=1e-3)


def test_the_table_has_the_worst_class_first(text):
    body = text[text.index('id="hero-table"') : text.index("</table>")]
    cells = Page(f"<table {body}</table>").cells
    rows = [[" ".join(cell.split()) for cell in cells[i : i + 6]] for i in range(6, len(cells), 6)]
    assert [row[0] for row in rows][:3] == ["4", "3", "5"]
    assert rows[0][4:] == ["25 %", "2 62 %"]
    assert rows[1][4:] == ["50 %", "1 50 %"]
    assert rows[2][4:] == ["75 %", "–"]  # noqa: RUF001
    assert all(row[2].split()[-1] in ("distinct", "merged", "lost", "vanished") for row in rows)


def test_a_record_of_an_earlier_version_shows_the_end(run_folder, tmp_path):
    text = write_report(run_folder, tmp_path / "r.html").read_text(encoding="utf-8")
    page = Page(text)
    assert "This record has no classes.npz" in page.text
    assert "2 settings have no measured classes and no wheel yet" in page.text
    assert 'id="hero-play"' not in text
    assert text.count('class="panel wheel-card"') == 2


def test_before_anything_is_measured_there_is_a_sentence(tmp_path):
    write_run(tmp_path, [FINISHED])
    page = Page(write_report(tmp_path).read_text(encoding="utf-8"))
    assert "No network is trained to the end yet." in page.text
    assert "This setting was not started." in page.text


def test_of_three_settings_two_are_seen_and_all_can_be_chosen(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "run")
    write_run(tmp_path / "run", ["a", "b", "c"], data="digits", epochs=550)
    solution = tf.solve(PROBLEM.replace(weight_decay=0.2))
    write_setting(tmp_path / "run", "c", solution)
    text = write_report(tmp_path / "run").read_text(encoding="utf-8")
    cards = re.findall(r'class="panel wheel-card" data-setting="\d"( hidden)?', text)
    assert sorted(cards) == ["", "", " hidden"]
    chips = text[text.index('class="chips"') : text.index('class="stage')]
    assert chips.count("<button") == 3
    assert len(data(text)["settings"]) == 3


def test_of_many_classes_ten_are_seen(tmp_path):
    solution = tf.solve(tf.Problem("30x12,5x12", weight_decay=0.02, feature_decay=0.0002))
    write_run(tmp_path, ["a"])
    write_setting(tmp_path, "a", solution)
    text = write_report(tmp_path).read_text(encoding="utf-8")
    body = text[text.index('id="hero-table"') : text.index("</table>")]
    assert body.count("<tr data-row") == 24
    assert body.count(" hidden>") == 14
    assert "Show all 24" in text


def test_damaged_classes_are_named(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "run")
    paths = store.setting_paths(tmp_path / "run", "a")
    arrays = store.read_npz(paths.classes)
    store.write_npz(paths.classes, **arrays | {"logits": arrays["logits"][:3]})
    with pytest.raises(ValueError, match=r"classes\.npz: not a record of classes \(logits: got"):
        write_report(tmp_path / "run")
