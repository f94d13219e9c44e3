"""Run independent tasks in this process, in local processes (joblib) or on a Dask cluster.

Every result is handed over as soon as it is there, so that it can be stored at once; a task that
fails is a result too, with its reason. A task is a module-level function and its keyword arguments,
which should be plain data (numbers, text, lists, dicts): both travel to other processes.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import signal
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tightframe.checks import whole_number
from tightframe.version import __version__

if TYPE_CHECKING:
    from distributed import Client

#: Seconds that a scheduler has to answer, and that its workers have to turn up.
CONNECT_SECONDS = 5.0
WORKER_SECONDS = 15.0

#: Is told where a cluster's dashboard is, at the level INFO.
LOG = logging.getLogger(__name__)

Task = Mapping[str, Any]


@dataclass(frozen=True)
class Outcome:
    """What became of one task.

    Attributes
    ----------
    index : int
        Its place in the list of tasks.
    value : object
        What the function returned; None if it failed.
    reason : str or None
        Why it failed; None if it did not.
    """

    index: int
    value: Any = None
    reason: str | None = None


#: Runs ``function(**task)`` for every task; yields an `Outcome` each, in order of completion.
Run = Callable[[Callable[..., Any], Sequence[Task]], Iterator[Outcome]]


@contextlib.contextmanager
def runner(jobs: int = 1, scheduler: str | None = None) -> Iterator[Run]:
    """Give a function that runs tasks, see `Run`; everything is checked before it is given.

    Leaving the block before all outcomes were taken, by Ctrl-C for example, cancels what has not
    begun. A worker that dies takes nothing with it: what it was running runs again elsewhere, and
    only a task that keeps killing its workers fails.

    Parameters
    ----------
    jobs : int
        Processes on this machine; 1 runs in this process, -1 on all cores. Needs joblib, unless 1.
    scheduler : str, optional
        Address of a Dask scheduler, ``tcp://host:port``; its workers run the tasks then. They need
        the same version of tightframe. Needs distributed. Where its dashboard is, if it has one, is
        logged to ``tightframe.parallel`` at the level INFO.

    Yields
    ------
    Run

    Raises
    ------
    ValueError
        If ``jobs`` is out of range or given along with ``scheduler``, or the scheduler does not
        answer, has no workers, or has workers without this version of tightframe.
    """
    if jobs != -1:
        try:
            jobs = whole_number("jobs", jobs)
        except ValueError as error:
            raise ValueError(f"{error}, or -1 for all cores") from None
    if scheduler is not None:
        if jobs != 1:
            raise ValueError(f"jobs: got {jobs} with a scheduler, whose workers run the tasks")
        with _connected(scheduler) as client:
            yield lambda function, tasks: _on_cluster(client, function, tasks)
    elif jobs == 1:
        yield _here
    else:
        import joblib

        processes = joblib.effective_n_jobs(jobs)
        with warnings.catch_warnings():
            # loky replaces a process whose memory has grown: no concern of the user's.
            warnings.filterwarnings("ignore", message="A worker stopped while some jobs")
            yield lambda function, tasks: _in_processes(processes, function, tasks)


def _attempt(function: Callable[..., Any], index: int, task: Task) -> Outcome:
    try:
        return Outcome(index, function(**task))
    except Exception as error:
        return Outcome(index, reason=_describe(error))


def _describe(error: BaseException) -> str:
    # A ValueError of ours is a sentence already.
    text = " ".join(str(error).split())
    return text if type(error) is ValueError and text else f"{type(error).__name__}: {text}"


def _here(function: Callable[..., Any], tasks: Sequence[Task]) -> Iterator[Outcome]:
    for index, task in enumerate(tasks):
        yield _attempt(function, index, task)


# -- local processes -------------------------------------------------------------------------------

#: Seconds between two looks at whether the process that gave a task is still there.
WATCH_SECONDS = 0.25


def _attempt_below(parent: int, function: Callable[..., Any], index: int, task: Task) -> Outcome:
    """Run a task in a process that ends with its parent: what it writes is then somebody else's."""
    if os.name == "posix":  # elsewhere a parent that is gone keeps its number
        _watch(parent)
    return _attempt(function, index, task)


@functools.cache
def _watch(parent: int) -> None:
    def look() -> None:
        while os.getppid() == parent:
            time.sleep(WATCH_SECONDS)
        os._exit(1)

    threading.Thread(target=look, daemon=True, name="tightframe-parent").start()


def _in_processes(
    processes: int, function: Callable[..., Any], tasks: Sequence[Task]
) -> Iterator[Outcome]:
    from concurrent.futures.process import BrokenProcessPool

    from joblib import Parallel, delayed

    waiting = deque(range(len(tasks)))
    running: set[int] = set()

    def calls() -> Iterator[Any]:
        while waiting:
            index = waiting.popleft()
            running.add(index)
            yield delayed(_attempt_below)(os.getpid(), function, index, tasks[index])

    while waiting:
        # Dispatched one by one: `running` is what is lost when a process dies, and no more.
        pool = Parallel(
            processes,
            backend="loky",
            return_as="generator_unordered",
            batch_size=1,
            pre_dispatch="n_jobs",
        )
        try:
            with _ctrl_c_for_us_only():
                outcomes = pool(calls())
            with _closing(outcomes):
                for outcome in outcomes:
                    running.discard(outcome.index)
                    yield outcome
        except BrokenProcessPool:
            # joblib does not tell which task killed its process: each alone will show.
            for index in sorted(running):
                yield _alone(function, index, tasks[index])
            running.clear()


@contextlib.contextmanager
def _closing(outcomes: Generator[Outcome]) -> Iterator[None]:
    try:
        yield
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # joblib warns of what is cancelled on purpose
            outcomes.close()


def _alone(function: Callable[..., Any], index: int, task: Task) -> Outcome:
    from concurrent.futures.process import BrokenProcessPool

    from joblib import Parallel, delayed

    # With one process joblib would run the task in this one.
    pool = Parallel(2, backend="loky", return_as="generator")
    try:
        with _ctrl_c_for_us_only():
            outcomes = pool([delayed(_attempt_below)(os.getpid(), function, index, task)])
        (outcome,) = outcomes
    except BrokenProcessPool:
        return Outcome(index, reason="the process that ran it died, twice (out of memory?)")
    return outcome  # type: ignore[no-any-return]


@contextlib.contextmanager
def _ctrl_c_for_us_only() -> Iterator[None]:
    """Start processes that ignore Ctrl-C, which a terminal sends to the whole group.

    They would print tracebacks, and this process stops them anyway.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may, and only it gets Ctrl-C
        return
    # Not a blocked signal: Python's resource tracker, started with the processes, unblocks it.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


# -- a Dask cluster --------------------------------------------------------------------------------


@contextlib.contextmanager
def _connected(address: str) -> Iterator[Client]:
    from distributed import Client

    with _quiet():
        try:
            _greet(address)
            client = Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
        except Exception as error:  # anything may listen there
            raise ValueError(
                f"scheduler: no Dask scheduler answers at {address!r} ({_describe(error)}); "
                "need an address such as tcp://host:8786"
            ) from None
        with client:
            _check_versions(client, address)
            if link := _dashboard(client):
                LOG.info("Dask dashboard: %s", link)
            yield client


def _greet(address: str) -> None:
    """Connect once and part again; raises whatever goes wrong.

    A `Client` waits for ever for a greeting from something that listens but is no scheduler, and
    one that could not start prints a traceback when it is collected.
    """
    from distributed.comm.core import connect
    from distributed.security import Security

    async def greet() -> None:
        options = Security().get_connection_args("client")
        connecting = connect(address, timeout=CONNECT_SECONDS, **options)
        try:  # twice as long: Dask's own attempts to connect end first, and say more
            comm = await asyncio.wait_for(connecting, 2 * CONNECT_SECONDS)
        except TimeoutError:
            raise TimeoutError("something listens there that does not greet as Dask does") from None
        await comm.close()

    # In a thread: a notebook has a running loop in this one.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, greet()).result()


def _check_versions(client: Client, address: str) -> None:
    """Refuse a cluster without this version of tightframe, before a task is lost on it."""
    try:
        # A task, not a look at the list of workers: an adaptive cluster starts one for it.
        client.submit(time.time, pure=False).result(timeout=WORKER_SECONDS)
    except TimeoutError:
        raise ValueError(
            f"scheduler: {address} has had no worker for {WORKER_SECONDS:g} s"
        ) from None
    answers = {
        f"worker {worker}": answer
        for worker, answer in client.run(_version, on_error="return").items()
    }
    try:
        answers["the scheduler"] = client.run_on_scheduler(_version)  # it unpickles tasks as well
    except Exception as error:
        answers["the scheduler"] = error
    for place, answer in answers.items():
        if answer != __version__:
            found = _describe(answer) if isinstance(answer, BaseException) else answer
            raise ValueError(
                f"scheduler: {place} of {address} needs tightframe {__version__}; there: {found}"
            )


def _dashboard(client: Client) -> str | None:
    """Return where a cluster's dashboard is; None if it has none."""
    try:
        link: str | None = client.dashboard_link
    except KeyError:  # what distributed makes of a scheduler without one
        return None
    return link or None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the tracebacks that distributed logs when a connection breaks; outcomes tell."""
    loggers = [logging.getLogger(name) for name in ("distributed", "distributed.client")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _version() -> str:
    return __version__


def _on_cluster(
    client: Client, function: Callable[..., Any], tasks: Sequence[Task]
) -> Iterator[Outcome]:
    from distributed import KilledWorker

    suspects = []
    for index, result in _gather(client, function, tasks, range(len(tasks))):
        if isinstance(result, KilledWorker):
            suspects.append(index)
        else:
            yield _outcome(index, result)
    # Dask blames whatever a dying worker held, queued tasks too: each alone will show.
    for suspect in suspects:
        for index, result in _gather(client, function, tasks, [suspect]):
            yield _outcome(index, result)


def _outcome(index: int, result: Outcome | Exception) -> Outcome:
    return Outcome(index, reason=_describe(result)) if isinstance(result, Exception) else result


def _gather(
    client: Client, function: Callable[..., Any], tasks: Sequence[Task], indices: Iterable[int]
) -> Iterator[tuple[int, Outcome | Exception]]:
    # Dask's own futures, not joblib's Dask backend: where Dask gives a task up because it killed
    # its workers, that backend (joblib 1.6) never calls back and the whole run hangs.
    from distributed import as_completed

    futures = {
        client.submit(_attempt, function, index, dict(tasks[index]), pure=False): index
        for index in indices
    }
    completed = as_completed(list(futures), loop=client.loop)
    try:
        for future in completed:
            if future.status == "lost":
                completed.add(future)  # its worker died before we had the result: it runs again
                continue
            index = futures.pop(future)
            try:
                result: Outcome | Exception = future.result()
            except Exception as error:  # given up by the scheduler, or the scheduler is gone
                result = error
            yield index, result
    finally:
        client.cancel(list(futures))
