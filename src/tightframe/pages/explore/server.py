"""The server: on this computer only, for this page only."""

from __future__ import annotations

import logging
import os
import warnings
import webbrowser
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from dash import Dash
from dash.exceptions import DependencyException
from flask import Response, abort, jsonify, request
from werkzeug.exceptions import NotFound

from tightframe.figures import svg
from tightframe.figures.style import DARK, LIGHT, Ink, state_variables
from tightframe.pages.explore.http import HOST, Server, listen
from tightframe.pages.explore.page import connect, layout
from tightframe.pages.explore.presets import SAMPLE_FILE, sample_file
from tightframe.pages.explore.requests import CALLBACK, require_callback
from tightframe.pages.explore.state import State
from tightframe.pages.explore.stream import lines, one_line, read_request
from tightframe.pages.explore.upload import MAX_UPLOAD, Measured, Shelf
from tightframe.problem.problem import Problem
from tightframe.solve import NotConvergedWarning

#: Most bytes of any request but a file.
MAX_REQUEST = 2**20

#: Where the script of pictures is.
_PICTURES = "/pictures.js"

_VIEWPORT = '<meta name="viewport" content="width=device-width, initial-scale=1">'

_COLORS = {
    "light": {
        "page": "#f4f6f8",
        "good": "#0a6b4c",
        "bad": "#a33b00",
        "accent": "#0072b2",
        "shadow": "#0004",
    },
    "dark": {
        "page": "#0d1117",
        "good": "#4fd1a1",
        "bad": "#ff9a63",
        "accent": "#56b4e9",
        "shadow": "#fff3",
    },
}


def make_app(opened: Measured | None = None) -> Dash:
    """Return the page as an application, with a file that is there from the start."""
    app = Dash(
        "tightframe.pages.explore",
        assets_folder=os.fspath(Path(__file__).parent / "assets"),
        title="tightframe explore",
        update_title="",
        index_string=_index(),
        on_error=_on_error,
    )
    shelf = Shelf()
    app.layout = layout(None if opened is None else shelf.keep(opened))
    connect(app, shelf)
    server = app.server
    server.config["MAX_CONTENT_LENGTH"] = MAX_REQUEST

    # Scripts are the page's own files; the few inline ones are known by their hash.
    scripts = " ".join(app.csp_hashes())
    policy = (
        f"default-src 'none'; script-src 'self' {scripts}; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data: blob:; connect-src 'self'; font-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    )

    def only_this_page() -> Response | None:
        # A name that someone else's server resolves to 127.0.0.1 is not ours (DNS rebinding).
        port = request.environ["SERVER_PORT"]
        hosts = [f"{name}:{port}" for name in (HOST, "localhost")]
        origin = request.headers.get("Origin")
        if request.host not in hosts or origin not in (None, *(f"http://{h}" for h in hosts)):
            return Response(_elsewhere(port), 403)
        return None

    def only_callbacks() -> None:
        if request.path == CALLBACK and request.method == "POST":
            try:
                require_callback(request.get_json(), app.callback_map)
            except (ValueError, RecursionError) as error:
                abort(400, str(error))

    def seal(response: Response) -> Response:
        response.headers["Content-Security-Policy"] = policy
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Referrer-Policy"] = "no-referrer"
        return response

    def upload() -> Any:
        request.max_content_length = MAX_UPLOAD
        name = request.args.get("name", "file")
        try:
            key, found = shelf.add(request.stream, name)
        except ImportError as error:
            return jsonify(message=f"{error.name}: not installed; pip install 'tightframe[torch]'")
        except MemoryError:
            return jsonify(message=f"{name}: out of memory")
        except ValueError as error:
            return jsonify(message=one_line(error))
        return jsonify(key=key, counts=found if isinstance(found, str) else found.counts)

    def scene() -> Response:
        if not request.is_json:
            abort(415)
        try:
            body = request.get_json()
        except RecursionError as error:
            abort(400, str(error))
        try:
            state, file = read_request(body)
        except ValueError as error:
            return jsonify(message=one_line(error))
        return Response(lines(state, shelf.get(file)), mimetype="application/x-ndjson")

    def sample() -> Response:
        return Response(sample_file(), mimetype="application/octet-stream")

    def pictures() -> Response:
        return Response(svg.script(), mimetype="text/javascript")

    server.before_request(only_this_page)
    server.before_request(only_callbacks)
    server.register_error_handler(DependencyException, lambda _: NotFound())
    server.after_request(seal)
    server.add_url_rule("/upload", view_func=upload, methods=["POST"])
    server.add_url_rule("/scene", view_func=scene, methods=["POST"])
    server.add_url_rule(_PICTURES, view_func=pictures)
    server.add_url_rule(SAMPLE_FILE, view_func=sample)
    return app


def serve(
    port: int = 8050,
    open_browser: bool = True,
    opened: Measured | None = None,
    problem: Problem | None = None,
) -> NoReturn:
    """Show the page until Ctrl-C.

    Parameters
    ----------
    port : int
        0: any free one.
    open_browser : bool
        Whether to open it in the browser.
    opened : Measured, optional
        A file that is laid over from the start.
    problem : Problem, optional
        The one that it was trained for; by default its counts, at the page's decays.

    Raises
    ------
    ValueError
        If the port is taken or is no port.
    KeyboardInterrupt
        When it ends.
    """
    if not 0 <= port <= 65535:
        raise ValueError(f"port: got {port}, need a whole number from 0 to 65535")
    with listen(port) as listening:
        server = Server(listening, make_app(opened).server)
        warnings.simplefilter("ignore", NotConvergedWarning)  # the page says so itself
        url = f"http://{HOST}:{server.port}/"
        if opened is not None:
            state = State(view="measured", bias="free" if opened.has_bias else "none")
            if problem is not None:
                state = State.from_problem(problem.replace(class_names=None), view="measured")
            elif opened.counts is not None:
                state = replace(state, counts=opened.counts)
            url += f"?{state.query()}"
        print(f"tightframe explore: {url} (Ctrl-C ends it)", flush=True)
        if open_browser:
            webbrowser.open(url)
        server.serve_forever()  # returns at Ctrl-C only
    raise KeyboardInterrupt


def _elsewhere(port: str) -> str:
    """Return the page that is shown under any address but the page's own."""
    links = " and ".join(
        f'<a href="http://{name}:{port}/">http://{name}:{port}/</a>' for name in (HOST, "localhost")
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
{_VIEWPORT}
<title>tightframe explore</title>
</head>
<body>
<h1>tightframe explore</h1>
<p>This page answers under {links} only, so that no other web page can use it.</p>
<p>Through a tunnel, give both ends the same port:</p>
<pre>ssh -L {port}:{HOST}:{port} MACHINE</pre>
<p>For another port here, start it there with that one: <code>tightframe explore --port PORT</code>.
</p>
</body>
</html>
"""


def _on_error(error: Exception) -> None:
    """Say in the page that something here is broken, and where to look."""
    from dash import set_props

    logging.getLogger("tightframe.pages.explore").error("the page failed", exc_info=error)
    text = f"This should not happen: {type(error).__name__}; the terminal shows where."
    set_props("message", {"children": text})


def _index() -> str:
    """Return the HTML around the page, with the colours of the reports."""
    light, dark = _variables("light", LIGHT), _variables("dark", DARK)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
{{%metas%}}
{_VIEWPORT}
<meta name="color-scheme" content="light dark">
<title>{{%title%}}</title>
{{%favicon%}}
{{%css%}}
<style>
:root {{ {light} }}
@media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}
{svg.style_sheet()}
</style>
<script src="{_PICTURES}"></script>
</head>
<body>
{svg.symbols()}
<noscript>This page needs JavaScript.</noscript>
{{%app_entry%}}
<footer>
{{%config%}}
{{%scripts%}}
{{%renderer%}}
</footer>
</body>
</html>
"""


def _variables(theme: str, ink: Ink) -> str:
    colors = {"text": ink.text, "muted": ink.muted, "line": ink.grid, "card": ink.paper}
    own = " ".join(f"--{name}: {value};" for name, value in (colors | _COLORS[theme]).items())
    return f"{own} {state_variables(ink)}"
