"""The first screen's lines: what is there at once, how far the rest is, and the rest."""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Iterator
from typing import Any

from tightframe.pages.explore.scene import scenes
from tightframe.pages.explore.state import State
from tightframe.pages.explore.upload import Measured

#: Seconds between two lines about progress.
_INTERVAL = 0.2


class _LeftError(Exception):
    """Nobody reads on."""


def read_request(body: Any) -> tuple[State, str | None]:
    """Return state and file of a request for the first screen.

    Raises
    ------
    ValueError
        If it has another form, or the query is none of the page's links.
    """
    if not (isinstance(body, dict) and body.keys() == {"query", "file"}):
        raise ValueError("need an object with query and file")
    query, file = body["query"], body["file"]
    if not isinstance(query, str) or not (file is None or isinstance(file, str)):
        raise ValueError("query, file: need text")
    return State.from_query(query), file


def lines(state: State, measured: Measured | None) -> Iterator[str]:
    """Yield JSON objects, one a line: scenes, ``{"done", "total"}`` or a last ``{"message"}``.

    When the reader leaves, the work ends at its next step.
    """
    found: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
    left = threading.Event()
    said = time.monotonic()

    def tell(done: int, total: int) -> None:
        nonlocal said
        if left.is_set():
            raise _LeftError
        if time.monotonic() - said > _INTERVAL:
            said = time.monotonic()
            found.put({"done": done, "total": total})

    def work() -> None:
        try:
            for scene in scenes(state, measured, tell):
                found.put(scene)
                if left.is_set():
                    return
        except (ValueError, MemoryError) as error:
            found.put({"message": one_line(error)})
        except _LeftError:
            pass
        except Exception as error:  # as of every callback: here the page would wait for ever
            found.put({"message": f"This should not happen: {type(error).__name__}"})
            raise
        finally:
            found.put(None)

    threading.Thread(target=work, daemon=True).start()
    try:
        while (item := found.get()) is not None:
            yield json.dumps(item, allow_nan=False, separators=(",", ":")) + "\n"
    finally:
        left.set()


def one_line(error: Exception) -> str:
    """Return what an error says, as one line."""
    text = "out of memory" if isinstance(error, MemoryError) else str(error)
    return " ".join(text.split())
