"""Time the page of `tightframe explore`: from an input event to the picture on the screen.

Run from the repository: ``python -m benchmarks.explore``, ``python -m benchmarks.explore moves``
for the slider of lambda alone. Needs Chromium. Prints medians in milliseconds; typed text waits for
its debounce first, which is part of the time. A phase diagram, and a path of many groups, show
their thresholds first: that is the picture, the margins follow.
"""

import re
import statistics
import sys
import tempfile
import threading

from tests.pages.explore.browser import Browser

from tightframe.pages.explore.http import Server, listen
from tightframe.pages.explore.server import make_app

PROBLEMS = {
    "K = 10, 2 groups": "500x5,100x5",
    "K = 100, 2 groups": "500x50,100x50",
    "K = 100, 10 groups": ",".join(f"{round(500 * 0.75**i)}x10" for i in range(10)),
    "K = 100, long tail": ",".join(str(round(500 * 0.01 ** (i / 99))) for i in range(100)),
}
GRAPHS = {
    "geometry": ["logits", "classifier", "means"],
    "margins": ["path-graph", "margins-graph"],
    "phase": ["phase-graph"],
}
REPEATS = 7

#: Moves of lambda's slider, over all of its axis.
MOVES = 50

# Small enough that no class of any of the problems collapses.
DECAYS = "weight_decay=0.001&feature_decay=0.00001"

# A picture that is still being solved would share the time with the next one.
SOLVED = "!document.getElementById('views').textContent.includes('Margins follow')"

# Sets a control as the browser does, and waits until all graphs have drawn new data.
CLOCK = """
(field, value, graphs) => new Promise(done => {
  const input = document.getElementById(field);
  const places = graphs.map(id => document.querySelector(`#${id} .js-plotly-plot`));
  let left = places.length, start;
  for (const place of places) {
    const old = place.data;
    const handler = () => {
      if (place.data === old) return;  // only its size or place has changed
      place.removeListener("plotly_afterplot", handler);
      if (--left === 0) requestAnimationFrame(() => done(performance.now() - start));
    };
    place.on("plotly_afterplot", handler);
  }
  Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, "value").set.call(input, value);
  start = performance.now();
  input.dispatchEvent(new Event("input", {bubbles: true}));
})
"""

# Moves the slider as a hand does; by the end of a move its layout is done as well.
MOVE = """
(value) => {
  const slider = document.querySelector("#tree .tf-decay");
  slider.value = value;
  const start = performance.now();
  slider.dispatchEvent(new Event("input", {bubbles: true}));
  document.getElementById("class-table").getBoundingClientRect();
  return performance.now() - start;
}
"""


def main():
    """Print a line a problem, view and kind of control."""
    server = Server(listen(0), make_app().server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        browser = Browser(folder)
        browser.size(1280, 900)
        for name, counts in PROBLEMS.items():
            move(browser, f"http://127.0.0.1:{server.port}/?{DECAYS}&counts={counts}", name)
        for name, counts in PROBLEMS.items() if sys.argv[1:] != ["moves"] else ():
            for view, graphs in GRAPHS.items():
                browser.open(
                    f"http://127.0.0.1:{server.port}/?{DECAYS}&view={view}&counts={counts}"
                )
                ready = f"document.querySelector('#{graphs[-1]} .js-plotly-plot')?.data?.length > 0"
                browser.until(ready)
                first, rest = re.split("(?=[x,])", counts, maxsplit=1)
                for kind, field, values in (
                    ("slider", "weight_decay-slider", [-3.1 - 0.02 * i for i in range(REPEATS)]),
                    ("typed decay", "feature_decay", [(11 + i) / 1e6 for i in range(REPEATS)]),
                    (
                        "typed counts",
                        "counts",
                        [f"{int(first) + i + 1}{rest}" for i in range(REPEATS)],
                    ),
                ):
                    if (view, kind) in (("phase", "slider"), ("phase", "typed decay")):
                        continue  # only a star moves
                    times = []
                    for value in values:
                        text = value if isinstance(value, str) else f"{value:.7g}"
                        browser.until(SOLVED)
                        browser.run("new Promise(done => setTimeout(done, 300))")
                        times.append(browser.run(f"({CLOCK})({field!r}, {text!r}, {graphs})"))
                    median = statistics.median(times)
                    print(f"{name}, {view}, {kind}: {median:.0f} ms (to {max(times):.0f})")
        browser.close()
    server.shutdown()


def move(browser, url, name):
    """Print what a move of lambda takes, and how many requests all of them make."""
    browser.open(url)
    browser.until("document.querySelector('#tree .tf-decay') !== null", 60)
    browser.run("new Promise(done => setTimeout(done, 1500))")
    browser.requests.clear()
    times = [browser.run(f"({MOVE})({1000 * i / (MOVES - 1):.0f})") for i in range(MOVES)]
    requests = [url for url in browser.requests if not url.startswith("data:")]
    median = statistics.median(times)
    print(
        f"{name}, {MOVES} moves of λ: {median:.1f} ms (to {max(times):.0f}), "
        f"{len(requests)} requests"
    )


if __name__ == "__main__":
    main()
