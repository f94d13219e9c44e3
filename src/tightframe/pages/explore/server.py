"""The server: on this computer only, for this page only."""

from __future__ import annotations

import logging
import os
import socket
import warnings
import webbrowser
from pathlib import Path
from typing import Any, NoReturn

from dash import Dash
from flask import Response, abort, jsonify, request
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from tightframe.figures.style import DARK, LIGHT, Ink
from tightframe.pages.explore.page import connect, layout
from tightframe.pages.explore.upload import MAX_UPLOAD, Shelf
from tightframe.solve import NotConvergedWarning

HOST = "127.0.0.1"

#: Most bytes of any request but a file.
MAX_REQUEST = 2**20

_COLORS = {
    "light": {"page": "#f4f6f8", "good": "#0a6b4c", "bad": "#a33b00", "accent": "#0072b2"},
    "dark": {"page": "#0d1117", "good": "#4fd1a1", "bad": "#ff9a63", "accent": "#56b4e9"},
}


def make_app() -> Dash:
    """Return the page as an application."""
    app = Dash(
        "tightframe.pages.explore",
        assets_folder=os.fspath(Path(__file__).parent / "assets"),
        title="tightframe explore",
        update_title="",
        index_string=_index(),
        on_error=_on_error,
    )
    app.layout = layout()
    shelf = Shelf()
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

    def only_this_page() -> None:
        # A name that someone else's server resolves to 127.0.0.1 is not ours (DNS rebinding).
        port = request.environ["SERVER_PORT"]
        hosts = {f"{name}:{port}" for name in (HOST, "localhost")}
        origin = request.headers.get("Origin")
        if request.host not in hosts or origin not in (None, *(f"http://{h}" for h in hosts)):
            abort(403)

    def seal(response: Response) -> Response:
        response.headers["Content-Security-Policy"] = policy
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Referrer-Policy"] = "no-referrer"
        return response

    def upload() -> Any:
        request.max_content_length = MAX_UPLOAD
        name = request.args.get("name", "file")
        try:
            key, measured = shelf.add(request.stream, name)
        except ImportError as error:
            return jsonify(message=f"{error.name}: not installed; pip install 'tightframe[torch]'")
        except MemoryError:
            return jsonify(message=f"{name}: out of memory")
        except ValueError as error:
            return jsonify(message=" ".join(str(error).split()))
        return jsonify(key=key, counts=measured.counts)

    server.before_request(only_this_page)
    server.after_request(seal)
    server.add_url_rule("/upload", view_func=upload, methods=["POST"])
    return app


def serve(port: int = 8050, open_browser: bool = True) -> NoReturn:
    """Show the page until Ctrl-C.

    Parameters
    ----------
    port : int
        0: any free one.
    open_browser : bool
        Whether to open it in the browser.

    Raises
    ------
    ValueError
        If the port is taken or is no port.
    KeyboardInterrupt
        When it ends.
    """
    if not 0 <= port <= 65535:
        raise ValueError(f"port: got {port}, need a whole number from 0 to 65535")
    with _listen(port) as listening:
        server = _make_server(listening)
        warnings.simplefilter("ignore", NotConvergedWarning)  # the page says so itself
        url = f"http://{HOST}:{server.port}/"
        print(f"tightframe explore: {url} (Ctrl-C ends it)", flush=True)
        if open_browser:
            webbrowser.open(url)
        server.serve_forever()  # returns at Ctrl-C only
    raise KeyboardInterrupt


def _listen(port: int) -> socket.socket:
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    if os.name == "posix":  # elsewhere this would share a port that is in use
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((HOST, port))
        listening.listen(64)
    except OSError as error:
        listening.close()
        raise ValueError(
            f"port: got {port}, which cannot be used ({error.strerror}); give another one, or 0 "
            "for any free one"
        ) from None
    return listening


def _make_server(listening: socket.socket) -> BaseWSGIServer:
    port = listening.getsockname()[1]
    return make_server(
        HOST,
        port,
        make_app().server,
        threaded=True,
        request_handler=QuietHandler,
        fd=listening.fileno(),
    )


class QuietHandler(WSGIRequestHandler):
    """Prints no line for every request."""

    def log_request(self, *rest: Any, **more: Any) -> None:
        """Print nothing."""


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
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{{%title%}}</title>
{{%favicon%}}
{{%css%}}
<style>
:root {{ {light} }}
@media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}
</style>
</head>
<body>
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
    return " ".join(f"--{name}: {value};" for name, value in (colors | _COLORS[theme]).items())
