"""The first screen of a report in a real browser: it plays, and what it shows is the record's."""

import numpy as np
import pytest

pytest.importorskip("websocket")

from tests.pages.explore import browser as driver
from tests.pages.test_hero import ACCURACY, EPOCHS, folder, text  # noqa: F401
from tightframe.figures.diagrams import RIM
from tightframe.runs.store import load_run
from tightframe.runs.wheels import setting_wheel

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(driver.CHROMIUM is None, reason="needs Chromium"),
]


@pytest.fixture(scope="module")
def tab(tmp_path_factory, text):  # noqa: F811
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(text, encoding="utf-8")
    tab = driver.Browser(tmp_path_factory.mktemp("browser"))
    tab.size(1280, 800)
    tab.open(path.as_uri())
    tab.until("document.readyState === 'complete'")
    yield tab
    assert not tab.complaints
    tab.close()


def seek(tab, place):
    tab.run(
        "(() => { const s = document.getElementById('hero-slider'); s.value = "
        f"{place}; s.dispatchEvent(new Event('input')); }})()"
    )


def marks(tab, i):
    found = tab.run(
        f"[...document.querySelectorAll('#wheel{i} .tf-marks use')].map(m => "
        "[Number(m.dataset.i), m.getAttribute('href').slice(4), m.transform.baseVal[0].matrix.e,"
        "m.transform.baseVal[0].matrix.f])"
    )
    found.sort()
    return [f[1] for f in found], np.array([[x / RIM, -y / RIM] for *_, x, y in found])


def rows(tab):
    return tab.run(
        "[...document.querySelectorAll('#hero-table tbody tr')].map(r => "
        "[...r.cells].map(c => c.innerText.trim().replace(/\\s+/g, ' ')))"
    )


def test_wheels_and_table_follow_the_epoch(tab, folder):  # noqa: F811
    settings = load_run(folder).settings
    for place in (4, 0, 2.5, 3, 4):
        seek(tab, place)
        i = int(place)
        for number, setting in enumerate(settings):
            wheel = setting_wheel(setting)
            states, places = marks(tab, number)
            assert states == list(wheel.moments[i].states)
            after = wheel.moments[min(i + 1, 4)].places
            between = np.array(wheel.moments[i].places) * (1 - place % 1) + (place % 1) * np.array(
                after
            )
            np.testing.assert_allclose(places, between, atol=2e-3)
        shown = rows(tab)
        shares = {int(row[0]): int(row[4].removesuffix(" %")) for row in shown}
        assert [shares[k] for k in range(6)] == pytest.approx(100 * ACCURACY[i], abs=0.51)
        assert list(shares.values()) == sorted(shares.values())
        assert tab.run("document.getElementById('hero-epoch').textContent") == str(EPOCHS[i])


def test_a_click_on_a_wheel_chooses_the_table_s_setting(tab):
    for i in (0, 1):
        tab.run(f"document.querySelectorAll('.wheel-card')[{i}].click()")
        label = tab.run("document.querySelector('.wheel-card.chosen .choose').textContent")
        assert tab.run("document.getElementById('hero-label').textContent") == label
        assert tab.run("document.querySelectorAll('.wheel-card.chosen').length") == 1
        assert tab.run("document.querySelector('polyline.chosen').dataset.setting") == str(i)


def test_a_row_is_its_mark_in_all_wheels(tab):
    tab.run("document.querySelector('#hero-table tr[data-class=\"4\"]').click()")
    dim = "[...document.querySelectorAll('.tf-marks use:not([data-dim])')].map(m => m.dataset.i)"
    assert tab.run(dim) == ["4", "4"]
    tab.run("document.querySelector('#hero-table tr[data-class=\"4\"]').click()")
    assert len(tab.run(dim)) == 12


def test_plotly_is_run_when_a_plot_is_seen(tab):
    assert tab.run("typeof Plotly") == "undefined"
    tab.run("document.getElementById('s1').open = true")
    tab.until("typeof Plotly === 'object' && !!document.querySelector('#s1 .js-plotly-plot')")
    assert not tab.run("!!document.querySelector('#s0 .js-plotly-plot')")


def test_it_plays_to_the_end(tab):
    seek(tab, 3.9)
    tab.run("document.getElementById('hero-play').click()")
    tab.until("document.getElementById('hero-play').textContent.includes('Play')")
    assert tab.run("Number(document.getElementById('hero-slider').value)") == 4
    assert tab.run("document.getElementById('hero-output').textContent") == "epoch 550"


def test_no_page_is_wider_than_a_phone(tab):
    tab.size(380, 800)
    # Plots follow a little later.
    tab.until("document.documentElement.scrollWidth <= 380", 10)
    tab.size(1280, 800)
    bottom = "document.querySelector('.player').getBoundingClientRect().bottom + scrollY"
    assert tab.run(bottom) <= 800
