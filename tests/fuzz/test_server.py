"""The explorer's server under damaged, cut off, slow and parallel requests: it stays."""

import io
import json
import threading

import numpy as np
import pytest

pytest.importorskip("dash")

from tests.fuzz.mutations import damaged
from tests.pages.explore.test_http import (
    SHORT,
    ask,
    connect,
    head,
    is_served,
    rest,
    serving,
    status,
)
from tests.pages.explore.test_server import CALLBACK, callbacks, client  # noqa: F401
from tightframe.pages.explore.server import make_app


@pytest.fixture(scope="module")
def port():
    with serving(make_app().server, SHORT) as port:
        yield port


def posted(port, path, body, kind):
    sized = {"Content_Length": str(len(body)), "Content_Type": kind}
    return head(port, f"POST {path} HTTP/1.1", **sized) + body


def whole_requests(port, asked):
    """Return requests that are answered with 200: the page, a file, and every callback."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 4)
    archive = io.BytesIO()
    np.savez(
        archive, features=rng.normal(size=(12, 4)), labels=labels, weight=rng.normal(size=(3, 4))
    )
    paths = ["/", "/_dash-layout", "/_dash-dependencies"]
    upload = posted(port, "/upload?name=x.npz", archive.getvalue(), "application/octet-stream")
    calls = [
        posted(port, CALLBACK, json.dumps(body).encode(), "application/json") for body in asked
    ]
    return [*(head(port, f"GET {path} HTTP/1.1") for path in paths), upload, *calls]


def send(port, content, rng):
    """Send bytes whole, cut off, or slower than the server waits; return the answer."""
    kind = rng.integers(4)
    if kind == 0:
        with connect(port) as connection:  # and go at once
            connection.sendall(content[: rng.integers(len(content) + 1)])
        return b""
    if kind == 1:
        with connect(port) as connection:
            connection.sendall(content[: max(1, len(content) // 2)])
            return rest(connection)  # the server has to end it
    return ask(port, content, end=kind == 2)


def fuzz(port, asked, seed, requests, found):
    rng = np.random.default_rng(seed)
    wholes = whole_requests(port, asked)
    for _ in range(requests):
        whole = wholes[int(rng.integers(len(wholes)))]
        start, body = whole.split(b"\r\n\r\n", 1)
        if body and rng.random() < 0.5:  # a whole head over a damaged body of the same length
            body = (damaged(rng, body) + bytes(len(body)))[: len(body)]
            content = start + b"\r\n\r\n" + body
        else:
            content = damaged(rng, whole)
        try:
            answer = send(port, content, rng)
            # A line that is not HTTP/1 is answered as by HTTP/0.9, without a status.
            code = status(answer) if answer.startswith(b"HTTP/") else None
        except Exception as error:
            found.append(f"{content[:200]!r}\n    {type(error).__name__}: {error}")
            continue
        if code is not None and not (200 <= code < 500 or code in (501, 505)):
            found.append(f"{content[:200]!r}\n    {answer[:200]!r}")


def fuzz_in_parallel(port, asked, seeds, requests, capfd):
    found = []
    threads = [
        threading.Thread(target=fuzz, args=(port, asked, seed, requests, found)) for seed in seeds
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not found, "\n".join(found)
    assert is_served(port)
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.slow
def test_whole_requests_are_answered(port, callbacks):  # noqa: F811
    for request in whole_requests(port, callbacks):
        assert status(ask(port, request)) == 200


def test_a_sample_of_damaged_requests(port, callbacks, capfd):  # noqa: F811
    fuzz_in_parallel(port, callbacks, range(2), 10, capfd)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 6))
def test_damaged_requests(port, callbacks, capfd, seed):  # noqa: F811
    fuzz_in_parallel(port, callbacks, range(100 * seed, 100 * seed + 4), 30, capfd)
