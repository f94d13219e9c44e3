"""What every fuzzed call is held to: it ends, and NumPy warns of nothing."""

import contextlib
import signal
import warnings

import numpy as np


class StillRunningError(BaseException):
    """No Exception, so that nothing under test takes it for bad input."""


@contextlib.contextmanager
def ending(seconds=120):
    """Stop what hangs; far longer than anything here takes, so that no time is measured."""

    def stop(signum, frame):
        raise StillRunningError(f"after {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def numbers_checked():
    """Turn warnings of NumPy about numbers into errors."""
    with warnings.catch_warnings():
        # Not this package's own RuntimeWarnings, which are answers.
        for words in ("encountered in", "empty slice", "degrees of freedom", "in cast"):
            warnings.filterwarnings("error", f"(?i).*{words}", RuntimeWarning)
        warnings.simplefilter("error", np.exceptions.ComplexWarning)
        yield
