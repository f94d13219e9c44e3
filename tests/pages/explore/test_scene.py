"""The first screen: what comes first, what follows, and what the script moves over."""

import json
import re
import threading
from itertools import pairwise

import numpy as np
import pytest

pytest.importorskip("dash")

import tightframe as tf
from tests.pages.explore import files
from tests.pages.explore.files import STATES
from tightframe.pages.explore import compute, followed
from tightframe.pages.explore.presets import PRESETS, SAMPLE, sample_file
from tightframe.pages.explore.scene import scenes
from tightframe.pages.explore.state import State
from tightframe.pages.explore.stream import lines
from tightframe.pages.explore.upload import measure_file


def quiet(done, total):
    pass


def stored(html):
    return json.loads(re.search(r"<script type=.application/json.>(.*?)</script>", html)[1])


@pytest.mark.parametrize("state", STATES)
def test_every_class_has_a_mark_where_it_is_sent(state):
    first = next(scenes(state, None, quiet))
    wheel = stored(first["wheel"])
    solution = tf.solve(state.problem())
    (moment,) = wheel["moments"]
    names = wheel["states"]
    assert [names[i] for i in moment["states"]] == solution.states.state.tolist()
    problem = solution.problem
    shares = problem.loss_object.predictions(solution.logits + solution.bias[:, None])
    homes = np.array(wheel["homes"])
    np.testing.assert_allclose(moment["places"], shares.T @ homes, atol=0.2)  # tenths of a pixel


def test_states_are_drawn_apart():
    """In three dimensions ten distinct classes lay at the origin, like ten that have vanished."""
    pictures = {
        decay: re.findall(
            r'<use class="(\w+)" href="#tf-\1" data-i="\d+" transform="translate\((.*?)\)',
            next(
                scenes(
                    State(counts="100x5,10x5", weight_decay=decay, feature_decay=decay), None, quiet
                )
            )["wheel"],
        )
        for decay in ("0.0001", "0.008", "0.012", "0.03")
    }
    states = {decay: {state for state, _ in marks} for decay, marks in pictures.items()}
    places = {decay: len({place for _, place in marks}) for decay, marks in pictures.items()}
    assert list(states.values()) == [
        {"distinct"},
        {"distinct", "merged"},
        {"distinct", "vanished"},
        {"vanished"},
    ]
    assert list(places.values()) == [10, 6, 6, 1]


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.name)
def test_every_preset_answers_at_once_and_then_along_lambda(preset):
    """Two scenes at least come before what takes long: the state's own, and all of lambda."""
    found = scenes(preset.state, None, quiet)
    first, along = next(found), next(found)
    found.close()
    problem = preset.state.problem()
    assert (first["tree"], len(first["decays"])) == ("", 1)
    assert along["low"] < problem.logit_decay < along["high"]
    assert first["spans"][0]["counts"] == {
        state: int((tf.solve(problem).states.state == state).sum())
        for state in first["spans"][0]["counts"]
    }
    assert along["spans"][0]["text"].startswith(f"All {problem.num_classes} classes stay apart.")
    assert along["spans"][-1]["text"].startswith("Everything has vanished")
    assert len(along["rows"]) == problem.num_classes
    json.dumps(along, allow_nan=False)


def test_all_that_the_slider_shows_is_there():
    """Between its ends nothing is left to ask for: states, margins and places of every decay."""
    state = State(counts="100x5,10x5", weight_decay="0.004", feature_decay="0.004")
    *_, last = scenes(state, None, quiet)
    changes = tf.state_changes(state.problem())
    assert last["final"]
    assert {change.logit_decay for change in changes} <= set(last["decays"])
    assert [one["from"] for one in last["spans"]] == [
        last["low"],
        *(change.logit_decay for change in changes),
    ]
    assert [one["next"] for one in last["spans"]] == [
        *(change.logit_decay for change in changes),
        None,
    ]
    moments = stored(last["wheel"])["moments"]
    assert [moment["value"] for moment in moments] == last["decays"]
    for name in ("margin", "own", "taker"):
        assert [len(own) for own in last[name]] == [10] * len(last["decays"])
    assert max(b / a for a, b in pairwise(last["decays"])) < 1.2
    for decay in last["decays"][::9]:
        i = last["decays"].index(decay)
        at = tf.solve(state.problem().replace(weight_decay=decay, feature_decay=decay))
        np.testing.assert_allclose(
            np.array(last["margin"][i], dtype=float), at.states.decision_margin, atol=2e-2
        )
    row = last["rows"][9]
    assert row["until"] == changes[0].logit_decay
    assert [name for _, name in row["parts"]] == ["distinct", "merged", "vanished"]


def test_who_is_taken_for_whom():
    """Of few groups exactly, wherever a taker changes."""
    state = State(counts="500,300,150,60,10", weight_decay="0.003", feature_decay="0.003")
    *_, last = scenes(state, None, quiet)
    changes = tf.state_changes(state.problem())
    assert last["final"]
    for change in changes:
        if change.after != "lost":
            continue
        i = last["decays"].index(change.logit_decay)
        assert [last["taker"][i][k] for k in change.classes] == [str(change.rival)]


def test_the_grid_comes_before_the_rest():
    state = State(counts="500,300,150,60")
    followed._KEPT.clear()
    compute._CHANGES.clear()
    told = []
    found = list(scenes(state, None, lambda done, total: told.append((done, total))))
    assert [(bool(one["tree"]), one["final"]) for one in found] == [
        (False, False),
        (True, False),
        (True, True),
    ]
    assert "until all is solved" in found[1]["tree"]
    assert told == sorted(told)
    # What the grid says is what is followed, to its next decay.
    rough, exact = ([row["until"] for row in one["rows"]] for one in found[1:])
    step = max(b / a for a, b in pairwise(found[1]["decays"]))
    for place, known in zip(rough, exact, strict=True):
        assert known <= place * (1 + 1e-9) <= known * step * (1 + 1e-6)
    again = list(scenes(state, None, quiet))
    assert [one["final"] for one in again] == [False, True]


def test_where_changes_are_not_followed_the_grid_is_the_last_word(monkeypatch):
    def refused(*_):
        raise ValueError("dim: got 3")

    followed._KEPT.clear()
    monkeypatch.setattr(followed, "changes_of", refused)
    *_, before, last = scenes(State(counts="20x2,10x2"), None, quiet)
    assert (before["final"], last["final"]) == (False, True)
    assert last["tree"] == before["tree"]
    assert "not known" in last["note"]


def test_what_nothing_certifies_has_no_slider():
    first, last = scenes(State(counts="50x3,20x3", dim="4"), None, quiet)
    assert first["tree"] == last["tree"] == ""
    assert last["note"].startswith("No slider: nothing certifies")
    assert last["final"]


def test_a_network_is_laid_over_and_its_rings_move(tmp_path):
    state = State(counts="40x5,8x5", weight_decay="0.02", feature_decay="0.004")
    (tmp_path / "sample.npz").write_bytes(sample_file())
    measured = measure_file(tmp_path / "sample.npz", "sample.npz")
    assert SAMPLE.counts == measured.counts == state.counts
    *_, last = scenes(state, measured, quiet)
    moments = stored(last["wheel"])["moments"]
    places, rings = ([moment[name] for moment in moments] for name in ("places", "rings"))
    assert all(place == places[0] for place in places)
    assert rings[0] != rings[-1]
    i = int(np.searchsorted(last["decays"], state.problem().logit_decay))
    np.testing.assert_allclose(rings[i], places[i], atol=12)  # pixels of 150


def test_the_sample_file_is_small_and_the_same_every_time():
    assert sample_file() is sample_file()
    assert len(sample_file()) < 40_000


def test_lines_end_with_what_is_wrong():
    (line,) = lines(State(counts="5;5"), None)
    assert json.loads(line)["message"].startswith("counts: cannot read '5;5'")


def test_a_reader_who_leaves_ends_the_work():
    followed._KEPT.clear()
    compute._CHANGES.clear()
    before = threading.active_count()
    found = lines(State(counts=",".join(str(20 * k) for k in range(1, 30))), None)
    next(found)
    found.close()
    for thread in threading.enumerate():
        if thread.daemon and thread.name.startswith("Thread") and "work" in thread.name:
            thread.join(20)
    assert threading.active_count() == before


def test_labels_alone_give_the_counts(tmp_path):
    from io import BytesIO

    from tightframe.pages.explore.upload import Shelf

    labels = np.repeat(np.arange(3), [5, 4, 2])
    np.savez(tmp_path / "l.npz", labels=labels)
    np.save(tmp_path / "l.npy", labels)
    (tmp_path / "l.txt").write_text("\n".join(map(str, labels)))
    (tmp_path / "l.csv").write_text("x,label\n" + "\n".join(f"1,{label}" for label in labels))
    for name in ("l.npz", "l.npy", "l.txt", "l.csv"):
        assert Shelf().add(BytesIO((tmp_path / name).read_bytes()), name) == (None, "5,4,2")
    with pytest.raises(ValueError, match=r"^gap.txt: .*class 1 has no samples|gap.txt") as error:
        Shelf().add(BytesIO(b"0\n2\n2\n"), "gap.txt")
    assert "\n" not in str(error.value)
    assert "tmp" not in str(error.value)


def test_files_for_networks_are_still_measured(tmp_path):
    path = files.good(tmp_path, State(counts="40x3,10x2"))[0]
    assert measure_file(path, path.name).counts == "4x5"
