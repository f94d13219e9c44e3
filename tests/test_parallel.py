"""Tasks run here, in processes and on a cluster with the same outcomes, whatever dies."""

import contextlib
import io
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from tightframe import parallel as module
from tightframe.parallel import Outcome, runner


def square(x):
    if x < 0:
        raise ValueError(f"x: got {x}")
    return x * x


def where(x):
    time.sleep(0.02)  # so that one process does not take them all
    return os.getpid()


def log(folder, x):
    """Leave a line for every attempt."""
    with open(folder / f"{x}.log", "a") as file:
        file.write(f"{os.getpid()}\n")
    time.sleep(0.05)
    return x


def die(folder, x, until):
    """Kill the process on the first attempts."""
    log(folder, x)
    if len((folder / f"{x}.log").read_text().split()) <= until:
        os.kill(os.getpid(), signal.SIGKILL)
    return x


def wait_to_be_killed(folder, x):
    """Wait on the first attempt, if ``x`` is 3: the test kills the process then."""
    log(folder, x)
    if x == 3 and len((folder / "3.log").read_text().split()) == 1:
        time.sleep(60)
    return x


def attempts(folder, x):
    return [int(line) for line in (folder / f"{x}.log").read_text().split()]


def run_all(function, tasks, **options):
    with runner(**options) as run:
        return sorted(run(function, tasks), key=lambda outcome: outcome.index)


SQUARES = [{"x": x} for x in (3, -1, 2, 0, -5, 7)]
EXPECTED = [
    Outcome(0, 9),
    Outcome(1, reason="x: got -1"),
    Outcome(2, 4),
    Outcome(3, 0),
    Outcome(4, reason="x: got -5"),
    Outcome(5, 49),
]


def test_a_task_that_fails_is_an_outcome(cluster):
    assert run_all(square, SQUARES) == EXPECTED
    assert run_all(square, SQUARES, jobs=2) == EXPECTED
    assert run_all(square, SQUARES, scheduler=cluster.scheduler_address) == EXPECTED
    assert run_all(square, [{"y": 1}])[0].reason.startswith("TypeError: ")
    assert run_all(square, []) == run_all(square, [], jobs=2) == []


def test_outcomes_come_one_by_one(tmp_path):
    with runner() as run:
        outcomes = run(log, [{"folder": tmp_path, "x": x} for x in range(3)])
        assert next(outcomes) == Outcome(0, 0)
        assert not (tmp_path / "1.log").exists()


def test_where_tasks_run(cluster):
    tasks = [{"x": x} for x in range(12)]
    assert {outcome.value for outcome in run_all(where, tasks)} == {os.getpid()}
    for options in ({"jobs": 2}, {"scheduler": cluster.scheduler_address}):
        processes = {outcome.value for outcome in run_all(where, tasks, **options)}
        assert len(processes) == 2
        assert os.getpid() not in processes


def test_a_killed_cluster_worker_loses_nothing(cluster, tmp_path):
    killed = []

    def kill():
        while not (tmp_path / "3.log").exists() or not attempts(tmp_path, 3):
            time.sleep(0.01)
        killed.extend(attempts(tmp_path, 3))
        os.kill(killed[0], signal.SIGKILL)

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    tasks = [{"folder": tmp_path, "x": x} for x in range(12)]
    outcomes = run_all(wait_to_be_killed, tasks, scheduler=cluster.scheduler_address)
    assert outcomes == [Outcome(x, x) for x in range(12)]
    first, second = attempts(tmp_path, 3)
    assert [first] == killed
    assert second != first


def test_a_task_that_keeps_killing_cluster_workers_fails_alone(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster.scheduler, "allowed_failures", 1)
    tasks = [{"folder": tmp_path, "x": x, "until": 9 if x == 2 else 0} for x in range(6)]
    outcomes = run_all(die, tasks, scheduler=cluster.scheduler_address)
    assert [outcome.value for outcome in outcomes] == [0, 1, None, 3, 4, 5]
    assert outcomes[2].reason.startswith("KilledWorker: ")


def test_killed_local_processes_lose_nothing(tmp_path):
    deaths = {1: 1, 4: 9}
    tasks = [{"folder": tmp_path, "x": x, "until": deaths.get(x, 0)} for x in range(6)]
    outcomes = run_all(die, tasks, jobs=2)
    assert [outcome.value for outcome in outcomes] == [0, 1, 2, 3, None, 5]
    assert "died" in outcomes[4].reason
    assert len(attempts(tmp_path, 1)) >= 2


@pytest.mark.skipif(os.name != "posix", reason="asks for the parent's number")
def test_processes_end_with_the_one_that_started_them(tmp_path):
    """They could write on into a folder that somebody else goes on with."""
    code = (
        "import sys; from pathlib import Path; from tests.test_parallel import run_all, stay\n"
        "if __name__ == '__main__':\n"
        "    run_all(stay, [{'folder': Path(sys.argv[1]), 'x': x} for x in range(2)], jobs=2)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, tmp_path], stderr=subprocess.DEVNULL)
    try:
        while not all((tmp_path / f"{x}.log").is_file() for x in range(2)):
            assert parent.poll() is None
            time.sleep(0.05)
    finally:
        parent.kill()
        parent.wait()
    workers = [attempts(tmp_path, x)[0] for x in range(2)]
    deadline = time.monotonic() + 60
    while any(map(is_alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_alive, workers))


def stay(folder, x):
    log(folder, x)
    time.sleep(300)


def is_alive(number):
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_scheduler_that_goes_away_leaves_reasons(tmp_path):
    from distributed import LocalCluster

    tasks = [{"folder": tmp_path, "x": x} for x in range(200)]
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=1, dashboard_address=":0", silence_logs=50
        ) as lost,
        runner(scheduler=lost.scheduler_address) as run,
    ):
        outcomes = run(log, tasks)
        found = [next(outcomes)]
        lost.close()
        found += outcomes
    assert sorted(outcome.index for outcome in found) == list(range(200))
    done = [outcome for outcome in found if outcome.reason is None]
    assert [outcome.value for outcome in done] == [outcome.index for outcome in done]
    assert 0 < len(done) < 200
    assert all("Cancelled" in outcome.reason for outcome in found if outcome.reason is not None)


@pytest.mark.parametrize("where", ["processes", "cluster"])
def test_leaving_early_cancels_what_has_not_begun(cluster, tmp_path, where):
    options = {"jobs": 2} if where == "processes" else {"scheduler": cluster.scheduler_address}
    tasks = [{"folder": tmp_path, "x": x} for x in range(200)]
    with runner(**options) as run:
        outcomes = run(log, tasks)
        next(outcomes)
        outcomes.close()  # what an exception in the caller's loop comes to
        # The workers go on with what is asked next, behind which nothing of the first waits.
        later = tmp_path / "later"
        later.mkdir()
        done = list(run(log, [{"folder": later, "x": x} for x in range(8)]))
        assert sorted(outcome.value for outcome in done) == list(range(8))
        assert 0 < len(list(tmp_path.glob("*.log"))) < 200


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"jobs": 0}, "jobs: got 0, need a whole number, at least 1, or -1 for all cores"),
        ({"jobs": -2}, "jobs: got -2"),
        ({"jobs": 2, "scheduler": "tcp://127.0.0.1:1"}, "jobs: got 2 with a scheduler"),
        ({"scheduler": "nonsense"}, "scheduler: no Dask scheduler answers at 'nonsense'"),
        ({"scheduler": "tcp://127.0.0.1:1"}, "no Dask scheduler answers at 'tcp://127.0.0.1:1'"),
    ],
)
def test_bad_arguments_are_refused_before_a_task_runs(options, message, monkeypatch):
    monkeypatch.setattr(module, "CONNECT_SECONDS", 0.5)
    with pytest.raises(ValueError, match=message.replace("(", r"\(")), runner(**options):
        pytest.fail("the block was entered")


def test_something_else_that_listens_is_refused(monkeypatch):
    monkeypatch.setattr(module, "CONNECT_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        with (
            pytest.raises(ValueError, match=r"no Dask scheduler answers .*does not greet"),
            runner(scheduler=address),
        ):
            pytest.fail("the block was entered")


def test_a_refused_address_leaves_no_traceback():
    code = (
        "from tightframe.parallel import runner\n"
        "try:\n"
        "    with runner(scheduler='nonsense'): pass\n"
        "except ValueError: pass\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_cluster_without_workers_is_refused(monkeypatch):
    from distributed import LocalCluster

    monkeypatch.setattr(module, "WORKER_SECONDS", 0.3)
    with (
        LocalCluster(n_workers=0, processes=True, dashboard_address=":0", silence_logs=50) as empty,
        pytest.raises(ValueError, match="has had no worker"),
        runner(scheduler=empty.scheduler_address),
    ):
        pytest.fail("the block was entered")


def test_where_the_dashboard_is_is_said_once(cluster, caplog, monkeypatch):
    from rich.console import Console

    from tightframe.cli.console import rows_display

    def shown():
        console = Console(file=io.StringIO(), force_terminal=True, width=80)
        with rows_display(console), runner(scheduler=cluster.scheduler_address) as run:
            assert list(run(square, [{"x": 3}])) == [Outcome(0, 9)]
        assert module.LOG.handlers == []
        return console.file.getvalue()

    said = f"Dask dashboard: http://127.0.0.1:{cluster.scheduler.services['dashboard'].port}/status"
    caplog.set_level("INFO", logger="tightframe")
    assert shown().count(said) == 1
    assert [text for name, _, text in caplog.record_tuples if name == module.LOG.name] == [said]
    caplog.clear()
    monkeypatch.setattr(cluster.scheduler, "services", {})
    assert shown() == ""
    assert module.LOG.name not in {name for name, *_ in caplog.record_tuples}
    piped = Console(file=io.StringIO(), force_terminal=False)
    with rows_display(piped):
        module.LOG.info(said)
    assert piped.file.getvalue() == ""


def test_workers_with_another_version_are_refused(cluster, monkeypatch):
    monkeypatch.setattr(module, "__version__", "99")
    with (
        pytest.raises(ValueError, match=r"scheduler: worker tcp://.* needs tightframe 99; there: "),
        runner(scheduler=cluster.scheduler_address),
    ):
        pytest.fail("the block was entered")


@contextlib.contextmanager
def _without_tightframe(cluster):
    """Make a cluster's workers unable to import the package."""
    from distributed import Client

    with Client(cluster.scheduler_address, set_as_default=False) as client:
        client.run(exec, "import sys; sys.modules['tightframe.parallel'] = None")
        try:
            yield
        finally:
            client.run(exec, "import sys; del sys.modules['tightframe.parallel']")


def test_workers_without_the_package_are_refused(cluster):
    with (
        _without_tightframe(cluster),
        pytest.raises(ValueError, match=r"worker tcp://.*: .*tightframe\.parallel"),
        runner(scheduler=cluster.scheduler_address),
    ):
        pytest.fail("the block was entered")
