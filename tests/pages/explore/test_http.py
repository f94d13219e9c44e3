"""The server over real connections: malformed, slow, cut off and too many ones."""

import contextlib
import json
import re
import socket
import threading

import numpy as np
import pytest

pytest.importorskip("dash")

from tests.pages.explore import files
from tightframe.pages.explore.http import Limits, Server, listen
from tightframe.pages.explore.server import make_app
from tightframe.pages.explore.state import State

#: No client here waits longer; the server's limits are far below.
PATIENCE = 60
SHORT = Limits(headers=0.3, body=0.3, upload=0.3, silence=0.3, answer=0.3, linger=0.1)


@contextlib.contextmanager
def serving(app, limits=None):
    server = Server(listen(0), app, limits)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server.port
    finally:
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def app():
    return make_app().server


@pytest.fixture(scope="module")
def port(app):
    with serving(app) as port:
        yield port


@pytest.fixture(scope="module")
def short(app):
    """A server that waits for nobody."""
    with serving(app, SHORT) as port:
        yield port


def connect(port):
    return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)


def rest(connection):
    """Return what is sent until the connection is closed, in whatever way."""
    parts = []
    with contextlib.suppress(ConnectionError):
        while part := connection.recv(2**16):
            parts.append(part)
    return b"".join(parts)


def ask(port, content, *, end=False):
    """Send bytes, perhaps close that direction, and return all of the answer."""
    with connect(port) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(content)
            if end:
                connection.shutdown(socket.SHUT_WR)
        return rest(connection)


def status(answer):
    return int(answer.split(b" ", 2)[1]) if answer else None


def head(port, line="GET / HTTP/1.1", **headers):
    headers = {"Host": f"127.0.0.1:{port}"} | {k.replace("_", "-"): v for k, v in headers.items()}
    lines = [line, *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def is_served(port):
    return status(ask(port, head(port))) == 200


# -- malformed -------------------------------------------------------------------------------------

UPLOAD = "POST /upload?name=x.npz HTTP/1.1"


@pytest.mark.parametrize("coding", ["chunked", "Chunked", "gzip, chunked", "identity", ""])
@pytest.mark.parametrize(
    "line", [UPLOAD, "POST /_dash-update-component HTTP/1.1", "GET / HTTP/1.1"]
)
def test_transfer_encodings_are_refused(port, line, coding):
    """A chunk that is announced and cut off ended the process in Werkzeug's reader."""
    request = head(port, line, Transfer_Encoding=coding) + b"1000000\r\n" + b"x" * 1000
    for end in (False, True):
        assert status(ask(port, request, end=end)) == 411
    both = head(port, line, Transfer_Encoding=coding, Content_Length="5") + b"0\r\n\r\n"
    assert status(ask(port, both)) == 411
    assert is_served(port)


def test_a_refusal_arrives_though_the_body_is_not_read(port):
    body = b"1000000\r\n" + bytes(2**24)
    answer = ask(port, head(port, UPLOAD, Transfer_Encoding="chunked") + body)
    assert status(answer) == 411


@pytest.mark.parametrize(
    "content",
    [
        b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01",  # TLS
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET http://[ HTTP/1.1\r\n\r\n",
        b"GET //[ HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: \xff\xfe\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
        b"GET / HTTP/1.1\r\n: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 200 + b"\r\n",
        b"GET / HTTP/1.1\r\na: " + b"x" * 70_000 + b"\r\n\r\n",
        b"\xff\xfe / HTTP/1.1\r\n\r\n",
        b"POST /upload HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /upload HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"POST /upload HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST /upload HTTP/1.1\r\nContent-Length: +1\r\n\r\n",
    ],
)
def test_what_is_no_request_leaves_no_traceback(port, capfd, content):
    answer = ask(port, content, end=True)
    if answer.startswith(b"HTTP/"):
        # A path or header line that means nothing is passed over, and the page is served.
        passed_over = content.startswith(
            (b"GET //[", b"GET / HTTP/1.1\r\n: x", b"GET / HTTP/1.1\r\nno")
        )
        assert (status(answer) == 200) if passed_over else (400 <= status(answer) <= 505)
    else:  # no request at all: at most a page of the error, without a status line
        assert not answer or re.search(rb"Error code: (4\d\d|505)", answer)
    assert is_served(port)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("path", ["%00", "%ff", "/assets/../x", "/..%2f..", "?" + "&" * 1000])
def test_odd_paths_leave_no_traceback(port, capfd, path):
    assert status(ask(port, head(port, f"GET /{path} HTTP/1.1"))) in (200, 301, 308, 400, 404)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "path", ["nothing/x.js", "dash/nothing.js", "dash/../../x.js", "os/path.py", "dash/x.v1m2.js"]
)
def test_scripts_that_there_are_not(port, capfd, path):
    answer = ask(port, head(port, f"GET /_dash-component-suites/{path} HTTP/1.1"))
    assert status(answer) == 404
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("length", ["100", "1000000000", "99999999999999999999"])
@pytest.mark.parametrize("line", [UPLOAD, "POST /_dash-update-component HTTP/1.1"])
def test_a_body_that_is_cut_off_is_refused(port, capfd, line, length):
    request = head(port, line, Content_Length=length, Content_Type="application/json") + b"PK"
    assert status(ask(port, request, end=True)) in (400, 413)
    assert is_served(port)
    assert capfd.readouterr() == ("", "")


def test_damaged_files_are_answered_with_a_line(port, tmp_path):
    path = files.good(tmp_path, State())[0]
    np.savez(path, **np.load(path))  # not compressed, so that the headers are at hand
    whole = path.read_bytes()
    place = whole.index(b"{'descr'")
    for i in range(place, place + 60, 3):
        content = whole[:i] + b"\x00('\n"[i % 4 : i % 4 + 1] + whole[i + 1 :]
        answer = ask(port, head(port, UPLOAD, Content_Length=str(len(content))) + content)
        assert status(answer) == 200
        told = json.loads(answer.partition(b"\r\n\r\n")[2])
        assert set(told) in ({"message"}, {"key", "counts"})


# -- slow ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sent", ["", "G", "GET / HTTP/1.1\r\n", "GET / HTTP/1.1\r\nHost: x\r\n"])
def test_headers_are_not_waited_for(short, sent):
    with connect(short) as connection:
        connection.sendall(sent.encode())
        assert rest(connection) == b""


@pytest.mark.parametrize(
    "line", [UPLOAD, "POST /_dash-update-component HTTP/1.1", "POST / HTTP/1.1"]
)
@pytest.mark.parametrize("sent", [b"", b"{"])
def test_a_body_is_not_waited_for(short, line, sent):
    request = head(short, line, Content_Length="1000", Content_Type="application/json")
    with connect(short) as connection:
        connection.sendall(request + sent)
        assert status(rest(connection)) in (None, 400, 405)
    assert is_served(short)


@pytest.mark.parametrize("begun", [False, True])
def test_a_trickle_ends_too(app, begun):
    """Every byte comes in time, and all of them too late."""
    with serving(app, Limits(headers=0.5, body=0.5, upload=0.5, silence=PATIENCE)) as port:
        request = head(port, UPLOAD, Content_Length="100000") if begun else b"GET /"
        with connect(port) as connection:
            connection.sendall(request)
            connection.settimeout(0.02)
            closed = False
            while not closed:
                try:
                    connection.sendall(b"x")
                    closed = connection.recv(2**16) == b""
                except TimeoutError:
                    continue
                except ConnectionError:  # closed between the two calls
                    closed = True


def test_an_answer_that_nobody_takes_ends(short):
    """With room for one connection the next one is answered when the first has been closed."""

    def endless(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        if environ["PATH_INFO"] == "/much":
            return (bytes(2**20) for _ in range(10_000))
        return [b"done"]

    with serving(endless, Limits(answer=0.3, connections=1)) as port, connect(port) as first:
        first.sendall(head(port, "GET /much HTTP/1.1"))
        answers = {503}
        while answers == {503}:
            answers = {status(ask(port, head(port)))}
        assert answers == {200}


# -- many ------------------------------------------------------------------------------------------


def test_too_many_connections_are_told_and_the_page_comes_back(app):
    limits = Limits(headers=0.5, connections=8)
    with serving(app, limits) as port, contextlib.ExitStack() as stack:
        idle = [stack.enter_context(connect(port)) for _ in range(300)]
        answers = [rest(connection) for connection in idle]
        refused = [answer for answer in answers if answer]
        assert len(refused) >= 300 - 8 * 20
        assert {status(answer) for answer in refused} == {503}
        assert is_served(port)


def test_parallel_requests_are_all_answered(port):
    answers = []

    def get():
        answers.append(status(ask(port, head(port))))

    threads = [threading.Thread(target=get) for _ in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [200] * 30
