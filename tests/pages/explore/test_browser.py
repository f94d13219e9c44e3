"""The page in a real browser: what is seen is what the library computes."""

import json
import threading
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("dash")
pytest.importorskip("websocket")


import tightframe as tf
from tests.pages.explore import browser as driver
from tests.pages.explore import files
from tightframe.figures import svg
from tightframe.figures.diagrams import RIM
from tightframe.pages.explore.http import Server, listen
from tightframe.pages.explore.server import make_app
from tightframe.pages.explore.state import VIEWS, State
from tightframe.views.merge_tree import merge_tree
from tightframe.views.wheel import View, class_homes, sent_by_solution, wheel

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(driver.CHROMIUM is None, reason="needs Chromium"),
]


@pytest.fixture(scope="module")
def url():
    server = Server(listen(0), make_app().server)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.port}/"
    server.shutdown()
    thread.join()


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    tab = driver.Browser(tmp_path_factory.mktemp("browser"))
    yield tab
    tab.close()


@pytest.fixture
def page(tab, url):
    """Return a function that opens a state; afterwards nothing may have gone wrong."""
    tab.size(1280, 900)
    tab.theme("light")
    tab.requests.clear()
    tab.complaints.clear()

    def opened(state=None, query=None):
        tab.open(url + "?" + ((state or State()).query() if query is None else query))
        tab.until("document.readyState === 'complete' && !!document.getElementById('headline')")
        tab.until(f"{text('headline')} !== '' || {text('message')} !== ''")
        tab.run("document.querySelector('.controls').open = true")
        return tab

    yield opened
    assert tab.complaints == []
    outside = [r for r in tab.requests if not r.startswith((url, "data:", "blob:" + url))]
    assert outside == []


def text(name):
    return f"document.getElementById('{name}').textContent"


def plot(name):
    return f"document.querySelector('#{name} .js-plotly-plot')"


def matrix(tab, name):
    """Return the numbers of a heat map as Plotly has drawn them."""
    tab.until(f"{plot(name)}?._fullData?.[0]?.z?.length > 0")
    return np.array(
        json.loads(tab.run(f"JSON.stringify([...{plot(name)}._fullData[0].z].map(r => [...r]))"))
    )


def run(code):
    names = {}
    exec(compile(code, "shown", "exec"), names)
    return names


def test_a_link_a_change_and_the_code(page, url):
    state = State(counts="30x2,20x2", weight_decay="0.004", view="geometry")
    tab = page(state)
    before = matrix(tab, "logits")
    np.testing.assert_allclose(before, tf.solve(state.problem()).logits, atol=1e-6)
    tab.type("counts", "300x2,20x3")
    changed = replace(state, counts="300x2,20x3")
    tab.until(f"{plot('logits')}?._fullData?.[0]?.z?.length === 5")
    expected = tf.solve(changed.problem())
    np.testing.assert_allclose(matrix(tab, "logits"), expected.logits, atol=1e-6)
    tab.until(f"location.search === '?{changed.query()}'")
    names = run(tab.run(text("code")))
    for name, shown in zip(("logits", "classifier", "means"), names["matrices"], strict=True):
        scale = np.abs(shown).max()
        np.testing.assert_allclose(matrix(tab, name), shown, atol=1e-6 * scale)
    assert tab.run("document.getElementById('link').textContent") == url + "?" + changed.query()
    tab.until("document.querySelectorAll('#wheel .tf-marks use').length === 5")
    assert tab.run("typeof document.getElementById('wheel').seek") == "function"


def test_a_slider_moves_number_and_picture(page):
    state = State(view="margins")
    tab = page(state)
    tab.until(f"{plot('margins-graph')}?.data?.length > 0")
    tab.run("document.getElementById('weight_decay-slider').focus()")
    for _ in range(3):
        tab.key("ArrowRight")
    tab.until("Number(document.getElementById('weight_decay').value) > 0.0057")  # the third
    tab.until("location.search.includes('=' + document.getElementById('weight_decay').value)")
    moved = State.from_query(tab.run("location.search"))
    expected = tf.solve(moved.problem()).group_margins.tolist()
    drawn = f"{plot('margins-graph')}.data[0].y"
    tab.until(f"Math.abs({drawn}[0] - {expected[0]!r}) < 1e-3")
    np.testing.assert_allclose(tab.run(drawn), expected, atol=1e-3)


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_has_a_link(page, view):
    tab = page(State(view=view))
    assert tab.run(f"getComputedStyle(document.getElementById('{view}-view')).display") == "block"
    visible = "[...document.querySelectorAll('.view')].filter(v => v.offsetParent).length"
    assert tab.run(visible) == 1
    graph = f"{view}-graph"
    if view in ("margins", "phase"):
        tab.until(f"{plot(graph)}?.data?.length > 1")
        tab.until(f"{text(graph + '-text')}.length > 20")
        run(tab.run(text("code")))
    if view == "phase":  # first the thresholds, then the margins
        tab.until(f"{text(graph + '-text')}.includes('Colour: margin')")
        tab.until(f"{plot(graph)}.data[0].z.flat().some(z => z > 0)")
    if view == "margins":
        tab.until(f"{plot('path-graph')}?.data?.length > 1")
        limits = tf.thresholds(State().problem()).groups
        places = tab.run(f"{plot('path-graph')}.layout.shapes.map(s => s.x0)")
        assert {group.logit_decay for group in limits} <= set(places)


def test_advice_comes_at_the_press_of_a_key_and_goes_with_the_problem(page):
    state = State(weight_decay="0.01", feature_decay="0.002", view="advice")
    tab = page(state)
    tab.run("document.getElementById('advise').focus()")
    tab.key("Enter", "\r")
    warning = tf.advise(state.problem()).warnings[0]
    tab.until(f"{text('advice')}.includes({json.dumps(warning)})")
    link = tab.run("document.querySelector('#advice a').getAttribute('href')")
    assert State.from_query(link[1:]).problem().logit_decay < state.problem().logit_decay
    tab.type("weight_decay", "0.02")
    tab.until(f"{text('advice')} === ''")


def test_the_keyboard_reaches_everything(page):
    tab = page(State(view="code"))
    tab.until(f"{text('code')} !== ''")
    tab.run("document.getElementById('counts').focus()")
    reached = []
    for _ in range(23):
        reached.append(tab.run("document.activeElement.id || document.activeElement.name || ''"))
        tab.key("Tab")
    expected = ["counts", "loss", "weight_decay", "weight_decay-slider", "feature_decay"]
    expected += ["feature_decay-slider", "bias", "features", "depth", "dim", "class_weights"]
    expected += ["logit_adjustment", "label_smoothing", "smoothing_weights", "class_margins"]
    expected += ["logit_scale", "feature_weights"]
    assert reached[: len(expected) + 1] == [*expected, "view"]
    assert "copy" in reached
    tab = page(State())
    tab.run("document.querySelector('#view input:checked').focus()")
    for view in list(VIEWS)[1:3]:
        tab.key("ArrowRight")
        tab.until(f"location.search === '?view={view}'")
    unnamed = (
        "[...document.querySelectorAll('input:not([type=radio])')]"
        ".filter(i => !i.labels.length && !i.ariaLabel).map(i => i.id)"
    )
    assert tab.run(unnamed) == []


@pytest.mark.parametrize(
    ("field", "typed", "message"),
    [
        ("counts", "5;5", "counts: cannot read '5;5'"),
        ("weight_decay", "-1", "weight_decay: got -1.0, need a finite number above 0"),
        ("depth", "<b>", "depth: got '<b>', need a whole number"),
        ("class_weights", "1x2", "class_weights: got 2 numbers for 10 classes"),
    ],
)
def test_bad_input_is_named_in_the_page(page, field, typed, message):
    tab = page(State())
    tab.type(field, typed)
    tab.until(f"{text('message')}.startsWith({json.dumps(message)})")
    assert tab.run(f"document.getElementById('{field}').getAttribute('aria-invalid')") == "true"
    assert tab.run(text("code")).startswith("# ")
    tab.type(field, getattr(State(), field) or " ")
    tab.until(f"{text('message')} === '' && {text('headline')} !== ''")
    assert tab.run("document.querySelectorAll('[aria-invalid]').length") == 0


def test_a_bad_link_is_named(page):
    tab = page(query="colour=red")
    tab.until(f"{text('link-message')}.startsWith(\"link: got 'colour', allowed are counts\")")


def test_what_was_never_drawn_is_not_shown(page):
    tab = page(State(counts="5;5", view="margins"))
    shown = "document.querySelector('#margins-view figure').offsetParent !== null"
    assert not tab.run(shown)
    tab.type("counts", "50x2,20x2")
    tab.until(f"{shown} && {plot('margins-graph')}?._fullLayout?.width > 300")
    tab.type("counts", "5;5")
    tab.until(f"{text('message')} !== ''")
    assert tab.run(shown)


def test_a_view_that_cannot_be_drawn_leaves_the_headline(page):
    tab = page(State(counts="50x2,20x2", depth="2", view="phase"))
    tab.until(f"{text('message')}.startsWith('depth: got 2, a phase diagram needs 1')")
    assert "4 classes, 140 samples" in tab.run(text("headline"))


def test_files_are_laid_over_or_refused(page, tmp_path):
    state = State(counts="4x4", view="measured", weight_decay="0.01", feature_decay="0.01")
    tab = page(replace(state, counts="7x3"))
    tab.run("document.getElementById('own').open = false")  # as where files are dropped on the page
    messages = files.hostile(tmp_path)
    for name in ("bomb.npz", "pickle.npz", "garbage.npz", "long.safetensors", "wide.npz"):
        tab.choose_file("features-file", tmp_path / name)
        tab.until(f"/{messages[name]}/.test({text('upload-message')})")
        assert tab.run("document.getElementById('upload-message').innerText") != ""
    path = files.good(tmp_path, state)[0]
    tab.choose_file("features-file", path)
    tab.until(f"{text('measured-report')}.includes('as the theory predicts')")
    tab.until("document.getElementById('counts').value === '4x4'")
    tab.until(f"{text('sentence')}.startsWith('Predicted: All 4 classes')")
    tab.until(f"{text('note')}.includes('the marks: No class is lost.')")
    assert tab.run(text("upload-message")) == ""
    tab.run("document.querySelector('#view input[value=geometry]').click()")
    tab.until("!document.getElementById('overlay').hidden")
    tab.until(f"{plot('measured-logits')}?.data?.length > 0")
    arrays = np.load(path)
    means = np.array([arrays["features"][arrays["labels"] == k].mean(axis=0) for k in range(4)])
    expected = arrays["weight"] @ means.T
    drawn = matrix(tab, "measured-logits")
    np.testing.assert_allclose(drawn, expected, atol=1e-5 * np.abs(expected).max())
    code = tab.run(text("code")).replace("'good.npz'", repr(str(path)))
    np.testing.assert_allclose(run(code)["report"].logits, expected, rtol=1e-6)
    tab.type("counts", "7x3")
    tab.until(f"{text('note')}.includes('nothing is laid over')")
    tab.until("document.getElementById('overlay').hidden")


def test_dark_is_dark_and_follows_a_change(page):
    tab = page(State(view="margins"))
    tab.until(f"{plot('path-graph')}?.layout?.paper_bgcolor === '#ffffff'")
    tab.theme("dark")
    tab.until(f"{plot('path-graph')}?.layout?.paper_bgcolor === '#161b22'")
    assert tab.run("getComputedStyle(document.body).backgroundColor") == "rgb(13, 17, 23)"
    tab = page(State(view="margins"))
    tab.until(f"{plot('margins-graph')}?.layout?.paper_bgcolor === '#161b22'")


@pytest.mark.parametrize("view", VIEWS)
def test_a_phone_needs_no_sideways_scrolling(page, view):
    tab = page(State(view=view))
    tab.size(360, 740)
    tab = page(State(view=view, counts="500x5,100x5,50x5,20x5,10x5"))
    tab.run("document.querySelector('.controls').open = true")
    tab.until("document.documentElement.scrollWidth <= 360")
    assert not tab.run(
        "[...document.querySelectorAll('input, button, figure')].some(part => "
        "part.offsetParent && part.getBoundingClientRect().right > 361)"
    )


# -- the first screen ------------------------------------------------------------------------------

STEP = State(counts="100x5,10x5", weight_decay="0.009", feature_decay="0.001")

HAS_MOVED = "/weight_decay=/.test(location.search) && !/=0.009(&|$)/.test(location.search)"

SLIDER = "document.querySelector('#tree .tf-decay')"


def whole(tab):
    """Wait until the first screen is exact."""
    tab.until(f"{SLIDER} !== null && {text('tree')}.includes('Joins are exact')")


def rows(tab):
    return tab.run(
        "[...document.querySelectorAll('#class-table tbody tr')]"
        ".map(r => [...r.children].map(c => c.textContent))"
    )


def test_moving_lambda_asks_nobody(page):
    tab = page(STEP)
    whole(tab)
    changes = tf.state_changes(STEP.problem())
    assert (
        "All 10 classes stay apart. Raise λ 1.92-fold, to 0.00575, and classes 5, 6, 7, 8, 9"
        in (tab.run(text("sentence")))
    )
    tab.run("new Promise(done => setTimeout(done, 800))")
    tab.requests.clear()
    seen = []
    for value in range(0, 1001, 20):
        tab.run(f"{SLIDER}.value = {value}; {SLIDER}.dispatchEvent(new Event('input'))")
        seen.append(tab.run(f"[{text('sentence')}, {text('state-counts')}, {text('decay')}]"))
    assert [url for url in tab.requests if not url.startswith("data:")] == []
    counts = list(dict.fromkeys(" ".join(part.split()) for _, part, _ in seen))
    assert counts == ["10 distinct", "5 distinct 5 merged", "5 distinct 5 vanished", "10 vanished"]
    assert len({sentence.split(" Raise")[0] for sentence, *_ in seen}) == 4
    decays = [float(decay) for *_, decay in seen]
    assert decays == sorted(decays)
    # At a threshold the states are those from there on; the table has the worst first.
    tab.run(f"window.tightframeScene.move({changes[0].logit_decay!r})")
    assert [row[2].split()[-1] for row in rows(tab)] == ["merged"] * 5 + ["distinct"] * 5
    assert [row[0] for row in rows(tab)[:5]] == ["5", "6", "7", "8", "9"]
    assert rows(tab)[0][3:6] == ["0.00", rows(tab)[1][4], ""]
    assert [float(text.rstrip("\u00d7")) for text in rows(tab)[0][6:]] == [0.00575, 1.0]


def test_the_controls_follow_and_keep_their_ratio(page):
    tab = page(STEP)
    whole(tab)
    tab.run(f"{SLIDER}.focus()")
    for _ in range(6):
        tab.key("ArrowRight")
    tab.until(HAS_MOVED)
    moved = State.from_query(tab.run("location.search")).problem()
    assert moved.logit_decay > STEP.problem().logit_decay * 1.01
    assert moved.weight_decay / moved.feature_decay == pytest.approx(9, rel=2e-3)
    shown = float(tab.run(text("decay")))
    assert shown == pytest.approx(moved.logit_decay, rel=5e-3)
    assert tab.run(f"document.activeElement === {SLIDER}")


def test_a_preset_is_a_touch_away(page):
    tab = page(STEP)
    tab.run(
        "[...document.querySelectorAll('a.preset')].find(p => p.textContent === 'Balanced').click()"
    )
    tab.until("document.getElementById('counts').value === '100x10'")
    tab.until(f"{text('sentence')}.includes('and everything vanishes')")
    current = "document.querySelector('a.preset[aria-current]').textContent"
    assert tab.run(current) == "Balanced"
    tab.type("counts", "100x9")
    tab.until("document.querySelector('a.preset[aria-current]') === null")


def test_without_motion_lambda_goes_from_change_to_change(page):
    tab = page(STEP)
    tab.call(
        "Emulation.setEmulatedMedia",
        features=[{"name": "prefers-reduced-motion", "value": "reduce"}],
    )
    whole(tab)
    for words in ("have merged", "have vanished", "Everything has vanished"):
        tab.run("document.getElementById('play').click()")
        assert words in tab.run(text("sentence"))
    tab.theme("light")


def test_play_goes_up_and_stops(page):
    tab = page(STEP)
    whole(tab)
    before = float(tab.run(text("decay")))
    tab.run("document.getElementById('play').click()")
    tab.until(f"Number({text('decay')}) > {1.05 * before}")
    tab.run("document.getElementById('play').click()")
    stopped = tab.run(text("decay"))
    assert tab.run(text("play")) == "▶ Raise λ"
    tab.until(HAS_MOVED)
    assert tab.run(text("decay")) == stopped


def test_the_sample_lies_in_its_rings(page):
    tab = page(STEP)
    tab.run("document.getElementById('sample').click()")
    tab.until("document.querySelectorAll('#wheel .tf-ring').length === 10")
    tab.until("location.search.includes('40x5') && location.search.includes('view=measured')")
    tab.until("Number(document.getElementById('feature_decay').value) === 0.004")
    whole(tab)
    far = tab.run(
        "[...document.querySelectorAll('#wheel .tf-rings [data-i]')].map(ring => {"
        "const at = i => i.transform.baseVal[0].matrix;"
        "const mark = document.querySelector(`#wheel .tf-marks [data-i='${ring.dataset.i}']`);"
        "return Math.hypot(at(ring).e - at(mark).e, at(ring).f - at(mark).f)})"
    )
    assert max(far) < 12  # pixels of 150


# -- wheels and merge trees on any page ------------------------------------------------------------


def test_a_tree_s_slider_moves_its_wheel(tab, tmp_path):
    """The script of `figures.svg`, against positions and states of solutions."""
    problem = tf.Problem("100x5,10x5", weight_decay=0.004, feature_decay=0.004)
    changes, homes = tf.state_changes(problem), class_homes(problem)
    tree = merge_tree(changes, now=problem.logit_decay)
    decays = np.union1d(np.geomspace(tree.low, tree.high, 20), [c.logit_decay for c in changes])

    def at(decay):
        return tf.solve(problem.replace(weight_decay=decay, feature_decay=decay))

    seen = [View(f"{d:.3g}", sent_by_solution(at(d), homes), None, d) for d in decays.tolist()]
    pictures = svg.draw(tree, "tree") + svg.draw(wheel(problem, seen, homes), "wheel")
    path = tmp_path / "page.html"
    path.write_text(f"{svg.head()}<div class='tf-together'>{pictures}</div>", encoding="utf-8")
    tab.complaints.clear()
    tab.open(path.as_uri())
    tab.until("typeof document.getElementById('tree')?.seek === 'function'")

    def marks():
        found = tab.run(
            "[...document.querySelectorAll('#wheel .tf-marks use')].map(m => [Number(m.dataset.i),"
            "m.getAttribute('href').slice(4), m.transform.baseVal[0].matrix.e,"
            "m.transform.baseVal[0].matrix.f])"
        )
        found.sort()
        return [f[1] for f in found], np.array([[x / RIM, -y / RIM] for *_, x, y in found])

    def slide(value):
        return tab.run(
            f"(() => {{ const s = document.querySelector('#tree .tf-decay'); s.value = {value};"
            "s.dispatchEvent(new Event('input'));"
            "return document.getElementById('tree').decay; })()"
        )

    # It opens where the problem is: between two moments places are interpolated.
    states, places = marks()
    assert states == ["distinct"] * 10
    np.testing.assert_allclose(places, sent_by_solution(at(0.004), homes).places, atol=0.02)
    # Near a threshold the slider stands at it, to the last digit.
    merging = changes[0].logit_decay
    near = 1000 * np.log(merging / tree.low) / np.log(tree.high / tree.low) + 3
    assert slide(round(near)) == merging
    states, places = marks()
    assert states == ["distinct"] * 5 + ["merged"] * 5
    np.testing.assert_allclose(places, sent_by_solution(at(merging), homes).places, atol=2e-3)
    assert slide(1000) == pytest.approx(tree.high)
    states, places = marks()
    assert states == ["vanished"] * 10
    np.testing.assert_allclose(places, 0, atol=2e-3)
    assert tab.run("document.querySelectorAll('#tree .tf-here use[href]').length") == 10
    # What is pointed at says so; what is chosen leaves the others pale.
    slide(0)
    mark = "document.querySelector('#wheel .tf-marks [data-i=\"7\"]')"
    tab.run(f"{mark}.dispatchEvent(new PointerEvent('pointerover', {{bubbles: true}}))")
    assert "class 7: 10 samples" in tab.run("document.querySelector('#wheel .tf-tip').textContent")
    tab.run(f"{mark}.dispatchEvent(new MouseEvent('click', {{bubbles: true}}))")
    pale = "document.querySelectorAll('#wheel .tf-marks [data-dim]').length"
    assert tab.run(pale) == 9
    tab.run(f"{mark}.dispatchEvent(new MouseEvent('click', {{bubbles: true}}))")
    assert tab.run(pale) == 0
    # Playing goes from the first moment to the last.
    tab.run("document.getElementById('wheel').seek(0)")
    tab.run("document.querySelector('#wheel button').click()")
    tab.until("Number(document.querySelector('#wheel .tf-player input').value) > 1")
    tab.run("document.querySelector('#wheel button').click()")
    assert tab.complaints == []
