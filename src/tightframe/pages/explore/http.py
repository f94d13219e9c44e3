"""The HTTP server under the page: how long, how much and how many are waited for.

Werkzeug's own waits for ever, for any number of connections, and its reader of chunked bodies can
crash the process (a chunk that is announced and cut off).
"""

from __future__ import annotations

import contextlib
import io
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from werkzeug.serving import ThreadedWSGIServer, WSGIRequestHandler

HOST = "127.0.0.1"


@dataclass(frozen=True)
class Limits:
    """What one connection may take, in seconds, and how many there may be at once.

    Attributes
    ----------
    headers : float
        Until the headers of a request are there.
    body : float
        Until its body is there, but for
    upload : float
        the body of an uploaded file; then
    silence : float
        without a byte ends it.
    answer : float
        For which a piece of the answer may be on its way.
    linger : float
        After a refusal, for which the rest of the request is read, so that the refusal arrives.
    connections : int
    """

    headers: float = 10.0
    body: float = 30.0
    upload: float = 900.0
    silence: float = 10.0
    answer: float = 120.0
    linger: float = 1.0
    connections: int = 64


def listen(port: int) -> socket.socket:
    """Return a socket that listens on this computer's own address; 0: at any free port.

    Raises
    ------
    ValueError
        If the port cannot be used.
    """
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


class Handler(WSGIRequestHandler):
    """One connection, within the server's limits; prints no line for every request."""

    server: Server

    def setup(self) -> None:
        """Read and write through the clock."""
        super().setup()
        limits = self.server.limits
        self._clock = _Clock(self.connection, limits.headers, limits.silence)
        self.rfile = io.BufferedReader(self._clock)
        self.wfile = _Answer(self.connection, limits.answer)

    def parse_request(self) -> bool:
        """Read the request line and the headers; whatever is refused for them is answered here."""
        if not super().parse_request():
            return False
        lengths = self.headers.get_all("Content-Length", [])
        if "Transfer-Encoding" in self.headers:
            return self._refuse(HTTPStatus.LENGTH_REQUIRED)
        if len(set(lengths)) > 1 or not all(n.isascii() and n.isdigit() for n in lengths):
            return self._refuse(HTTPStatus.BAD_REQUEST)
        try:
            path = urlsplit(self.path).path
        except ValueError:
            return self._refuse(HTTPStatus.BAD_REQUEST)
        limits = self.server.limits
        self._clock.restart(limits.upload if path == "/upload" else limits.body)
        return True

    def _refuse(self, status: HTTPStatus) -> bool:
        self.send_error(status)
        # Closing on what was not read would reset the connection, and the answer with it.
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            self._clock.restart(self.server.limits.linger)
            while self.rfile.read1(2**16):
                pass
        return False

    def log_request(self, *rest: Any, **more: Any) -> None:
        """Print nothing."""

    def log(self, *rest: Any) -> None:
        """Print nothing: what is wrong with a request does not concern the terminal."""


class Server(ThreadedWSGIServer):
    """A thread a connection, up to a limit; above it, a connection is told so and closed.

    Parameters
    ----------
    listening : socket
    app : WSGI application
    limits : Limits
    """

    def __init__(
        self, listening: socket.socket, app: Callable[..., Any], limits: Limits | None = None
    ) -> None:
        self.limits = limits or Limits()
        self._free = threading.BoundedSemaphore(self.limits.connections)
        host, port = listening.getsockname()[:2]
        super().__init__(host, port, app, Handler, fd=listening.fileno())

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread, or at once that there are too many."""
        if not self._free.acquire(blocking=False):
            with contextlib.suppress(OSError):
                request.settimeout(0)  # a line fits into what the system keeps for a connection
                request.sendall(_BUSY)
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._free.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer, and make room for another connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()


_TEXT = b"too many connections at once; try again in a moment\n"
_BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(_TEXT), _TEXT)
)


class _Clock(io.RawIOBase):
    """What a connection sends, until a time is up."""

    def __init__(self, connection: socket.socket, seconds: float, silence: float) -> None:
        self._connection = connection
        self._silence = silence
        self.restart(seconds)

    def restart(self, seconds: float) -> None:
        """Give it so many seconds from now on."""
        self._end = time.monotonic() + seconds

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        left = min(self._end - time.monotonic(), self._silence)
        if left <= 0:
            raise TimeoutError("the request takes too long")
        self._connection.settimeout(left)
        return self._connection.recv_into(buffer)


class _Answer(io.BufferedIOBase):
    """What is sent, piece by piece, each within a time."""

    def __init__(self, connection: socket.socket, seconds: float) -> None:
        self._connection = connection
        self._seconds = seconds

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        self._connection.settimeout(self._seconds)
        self._connection.sendall(data)
        return memoryview(data).nbytes
