"""How long a search may take, and who hears how far it is."""

from __future__ import annotations

import math
import time

from tightframe.progress import Progress

#: Seconds between two calls of a progress callback while nothing new has happened.
INTERVAL = 0.1


class Budget:
    """The time of one search, counted from its first step on.

    Parameters
    ----------
    time_limit : float, optional
        Seconds.
    progress : callable, optional

    Attributes
    ----------
    stopped : {None, "time limit", "interrupted"}
        What ended the search before it was done.
    """

    def __init__(self, time_limit: float | None = None, progress: Progress | None = None) -> None:
        self._limit, self._end = time_limit, math.inf
        self._progress, self._last, self._step = progress, -math.inf, (0, 1, "")
        self.stopped: str | None = None

    def tell(self, done: int, total: int, what: str) -> None:
        """Say how far the search is."""
        if self._limit is not None and self._end == math.inf:
            self._end = time.monotonic() + self._limit
        self._step = (done, total, what)
        self._last = -math.inf
        self.over()

    def over(self) -> bool:
        """Tell whether the search has to end; called at every step of a descent."""
        if self.stopped is not None:
            return True
        now = time.monotonic()
        if now >= self._end:
            self.stopped = "time limit"
        elif self._progress is not None and now - self._last >= INTERVAL:
            self._last = now
            if self._progress(*self._step):
                self.stopped = "interrupted"
        return self.stopped is not None
