"""Settings and fixtures shared by all tests."""

import gc
import os
import signal
from pathlib import Path

# Several test workers share the cores, and more threads would only wait for each other. Before
# anything imports NumPy or PyTorch, and for the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import settings

from tightframe.cli import run_command

# A shell's background jobs ignore Ctrl-C, and so would the processes that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Machines are shared and slow at times: no deadlines. The same examples on every run, so that a
# red build can be repeated; `--hypothesis-seed` or the "explore" profile looks further.
settings.register_profile("repeatable", deadline=None, derandomize=True, max_examples=50)
settings.register_profile("explore", deadline=None, max_examples=500)
settings.load_profile("repeatable")


# A tenth of the time went into looking for garbage among what imports had made.
gc.disable()


def pytest_collection_finish():
    """Leave all that is there by now out of what is looked through."""
    gc.freeze()
    gc.enable()


@pytest.fixture
def command(capsys):
    """Run the command; return exit code, stdout and stderr."""

    def run(*arguments):
        code = run_command([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def fails(command):
    """Run the command; return its error line after checking that it failed as it should."""

    def run(*arguments):
        code, out, err = command(*arguments)
        assert code == 2
        assert out == ""
        assert err.startswith("tightframe: ")
        assert err.count("\n") == 1
        return err

    return run


@pytest.fixture
def unrendered(monkeypatch):
    """Pictures are drawn up and saved but not rendered, which tests/pages checks: it is slow."""

    def save(figure, path, **options):
        Path(path).write_bytes(b"")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", save)


@pytest.fixture(scope="module")
def cluster():
    """A Dask cluster of two worker processes on this machine.

    It starts in seconds, and an idle one takes a tenth of a core: none is kept for the session.
    """
    import dask
    from distributed import LocalCluster

    # Scheduler and workers try a dead worker's address for this long, half a minute by default.
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "3s"}),
        LocalCluster(
            n_workers=2,
            processes=True,
            threads_per_worker=1,
            dashboard_address=":0",
            silence_logs=50,
        ) as cluster,
    ):
        yield cluster
