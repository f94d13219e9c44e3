"""Wheels and merge trees on pages: what is drawn without a script, and what the script gets."""

import json
import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from tests.figures.panels import DIAGRAMS, TREE, WHEEL
from tightframe.figures import svg
from tightframe.figures.diagrams import RIM, TREE_WIDTH
from tightframe.figures.style import DARK, LIGHT, STATES


def parsed(panel, **options):
    return ElementTree.fromstring(svg.draw(panel, **options))


def found(tree, kind, **attributes):
    return [
        one
        for one in tree.iter(kind)
        if all(one.get(name) == value for name, value in attributes.items())
    ]


def stored(tree):
    return json.loads(tree.find("script").text)


@pytest.mark.parametrize("panel", DIAGRAMS, ids=lambda panel: panel.title)
def test_a_picture_is_read_without_a_script(panel):
    tree = parsed(panel, name="one")
    assert tree.get("id") == "one"
    assert tree.find("svg").get("aria-label").startswith(panel.title)
    assert "<b>" not in svg.draw(panel)  # names are escaped everywhere
    assert parsed(panel, key=False).find("figcaption").find("div[@class='tf-key']") is None
    assert "tf-mark" not in svg.draw(
        replace(
            panel,
            **{"lanes" if panel is TREE else "moments": []}
            | ({"networks": []} if panel is TREE else {}),
        )
    )


def test_marks_of_a_wheel_are_where_it_has_them():
    tree = parsed(WHEEL)
    (marks,) = found(tree, "g", **{"class": "tf-marks"})
    seen = {
        int(use.get("data-i")): (use.get("class"), use.get("href"), use.get("transform"))
        for use in marks
    }
    moment = WHEEL.moments[-1]
    for i, ((x, y), state) in enumerate(zip(moment.places, moment.states, strict=True)):
        at = (
            f"translate({round(RIM * x, 1)} {round(-RIM * y, 1)}) scale({RIM * WHEEL.sizes[i]:.1f})"
        )
        assert seen[i] == (state, f"#tf-{state}", at)
    assert [text.text for text in tree.iter("text")] == [*WHEEL.names, "3 classes", "<b> vanished"]
    assert len(found(tree, "circle", **{"class": "tf-ring"})) == 3 + 1  # one in the key


def test_the_script_gets_all_moments():
    data = stored(parsed(WHEEL))
    assert data["states"] == list(STATES)
    first, last = data["moments"]
    assert [data["states"][i] if i >= 0 else "" for i in first["states"]] == ["lost", "weak", ""]
    assert first["places"][0] == [0, -75]
    assert last["rings"][1] == [105, 0]
    assert last["takers"] == [[], [[0, 0.25]], [[0, 0.4], [1, 0.3]]]
    assert found(parsed(WHEEL), "button")
    assert not found(parsed(replace(WHEEL, moments=WHEEL.moments[1:])), "button")


def test_lanes_of_a_tree_end_where_they_change():
    tree = parsed(TREE)
    lanes = [one for one in tree.iter("path") if str(one.get("class")).startswith("tf-lane")]
    assert [lane.get("class")[8:] for lane in lanes] == ["distinct", "distinct", "lost"]
    # One decade of two: half of the width.
    assert lanes[1].get("d").endswith(f"{TREE_WIDTH / 2:.1f} 20.0")
    assert lanes[2].get("d").startswith(f"M{TREE_WIDTH / 2:.1f} 20.0H")
    lines = [one.get("d") for one in tree.iter("path") if "tf-change" in str(one.get("class"))]
    assert lines[0] == f"M{TREE_WIDTH / 2:.1f} -4V100"
    data = stored(tree)
    assert data["changes"] == [0.01, 0.05]
    assert [run[0] for run in data["lanes"][1]["runs"]] == [0, 2]
    (slider,) = found(tree, "input")
    assert float(slider.get("value")) == pytest.approx(150.5, abs=1)  # log10(2) of two decades


def test_the_head_has_the_looks_of_states():
    head = svg.head()
    for state, look in STATES.items():
        assert f"--tf-{state}:{look.light}" in head
        assert f"--tf-{state}:{look.dark}" in head
        assert f'<symbol id="tf-{state}"' in head
    assert f"--tf-paper:{LIGHT.paper}" in head
    assert head.index("prefers-color-scheme:dark") < head.index(f"--tf-paper:{DARK.paper}")
    assert not re.findall(r"https?://(?!www\.w3\.org)", head)
