import contextlib
import errno
import functools
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import filelock
import pytest

import tightframe as tf
from tests.runs.test_store import write_run
from tightframe.runs import writer
from tightframe.runs.folder import open_folder
from tightframe.sweeps.grid import Grid, read_grid, run_grid

HOLDER = (
    "import sys; from pathlib import Path; from tightframe.runs.writer import writing\n"
    "with writing(Path(sys.argv[1])):\n"
    "    print('held', flush=True); sys.stdin.read()"
)

PROBLEM = tf.Problem("60,20", weight_decay=1e-3, feature_decay=1e-3)


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(writer, "PATIENCE", 0)


@contextlib.contextmanager
def held_elsewhere(folder):
    """Keep a folder in a process of its own, and give that."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, os.fspath(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def in_thread(function):
    """Call a function in a thread of its own and return what it raised, or None."""
    raised = []

    def call():
        try:
            function()
        except Exception as error:
            raised.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    return raised[0] if raised else None


def take(folder):
    with writer.writing(folder):
        pass


def test_who_may_not_open_the_lock_leaves_it_to_its_holder(tmp_path, monkeypatch):
    """In a folder that two users share, the lock of one is not the other's to open."""

    def refused(*rest):
        raise PermissionError(errno.EACCES, "Permission denied")

    with held_elsewhere(tmp_path):
        with monkeypatch.context() as patched:
            patched.setattr(writer, "_new_lock", refused)
            with pytest.raises(PermissionError, match=tmp_path.name):
                take(tmp_path)
        with pytest.raises(ValueError, match="is being written by process"):
            take(tmp_path)


def test_another_process_is_refused_until_the_first_is_killed(tmp_path):
    with held_elsewhere(tmp_path) as process:
        message = f"being written by process {process.pid} on {socket.gethostname()}"
        with pytest.raises(ValueError, match=message):
            take(tmp_path)
        process.send_signal(signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)
        process.wait()
    take(tmp_path)


def test_another_thread_is_refused_and_the_same_one_may_ask_again(tmp_path):
    with writer.writing(tmp_path):
        take(tmp_path)
        assert f"process {os.getpid()}" in str(in_thread(lambda: take(tmp_path)))
        take(tmp_path / "inside")  # a folder of its own
    assert in_thread(lambda: take(tmp_path)) is None


def test_a_link_to_the_folder_is_the_same_folder(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real", target_is_directory=True)
    with writer.writing(tmp_path / "real"):
        take(tmp_path / "link")
        assert isinstance(in_thread(lambda: take(tmp_path / "link")), ValueError)


def test_a_command_keeps_what_the_library_locked_to_its_end(tmp_path):
    with writer.keeping_folders():
        take(tmp_path)
        assert isinstance(in_thread(lambda: take(tmp_path)), ValueError)
        take(tmp_path)
    assert in_thread(lambda: take(tmp_path)) is None


def test_it_is_free_again_after_an_error(tmp_path):
    def fail():
        with writer.writing(tmp_path):
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert in_thread(lambda: take(tmp_path)) is None
    assert list(tmp_path.iterdir()) == []


def test_a_lock_that_is_removed_under_a_waiting_process_is_not_taken(tmp_path, monkeypatch):
    """The file of a holder that has just ended: a third process may have locked a new one."""
    acquire, removed = filelock.FileLock.acquire, []

    def late(lock, *arguments, **options):
        if not removed:
            removed.append(os.stat(tmp_path / writer.LOCK).st_ino)
            kept.append(open(tmp_path / writer.LOCK))  # noqa: SIM115  # its number stays taken
            (tmp_path / writer.LOCK).unlink()
        return acquire(lock, *arguments, **options)

    kept = []
    monkeypatch.setattr(filelock.FileLock, "acquire", late)
    with writer.writing(tmp_path):
        assert os.stat(tmp_path / writer.LOCK).st_ino not in removed
        assert isinstance(in_thread(lambda: take(tmp_path)), ValueError)
    kept[0].close()


def test_many_writers_in_turn_are_one_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "PATIENCE", 60)
    inside, most = [], []

    def work():
        for _ in range(20):
            with writer.writing(tmp_path / "folder"):
                inside.append(1)
                most.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 80
    assert list((tmp_path / "folder").iterdir()) == []


def test_a_damaged_note_of_the_holder_does_not_matter(tmp_path):
    with held_elsewhere(tmp_path):
        for content in (b"", b"{", b"[1]", b"{}"):
            (tmp_path / writer.HOLDER).write_bytes(content)
            with pytest.raises(ValueError, match="being written by another process"):
                take(tmp_path)


@pytest.mark.skipif(os.name != "posix", reason="locks by flock")
@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_told(tmp_path, monkeypatch, code):
    def refuse(descriptor, operation):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("fcntl.flock", refuse)
    for _ in range(2):
        with pytest.warns(UserWarning, match="its file system has no locks"):
            take(tmp_path)


@pytest.mark.skipif(os.name != "posix", reason="locks by flock")
def test_another_failure_of_the_lock_names_the_folder(tmp_path, monkeypatch):
    def refuse(descriptor, operation):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.raises(OSError, match="Input/output error") as error:
        take(tmp_path)
    assert error.value.filename == os.fspath(tmp_path)


# -- results folders -------------------------------------------------------------------------------


def test_a_folder_of_something_else_gets_no_lock(tmp_path):
    (tmp_path / "photo.jpg").write_bytes(b"")
    opened = open_folder(tmp_path / "thing.json", "thing", {"config": {}}, resume=True)
    with pytest.raises(ValueError, match="is not an empty folder and holds no thing"), opened:
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["photo.jpg"]


def test_two_grids_in_one_folder_are_refused(tmp_path):
    grid = Grid(PROBLEM, {"weight_decay": [1e-3, 2e-3]}, ["60,20", "30x3"])
    refused = []

    def meanwhile(done, total):
        for resume in (False, True):
            again = functools.partial(run_grid, grid, tmp_path / "g", resume=resume)
            refused.append(in_thread(again))

    rows = run_grid(grid, tmp_path / "g", progress=meanwhile)
    assert [row["status"] for row in rows] == ["done", "done"]
    assert len(refused) == 6
    assert all("is being written by process" in str(error) for error in refused)
    assert run_grid(grid, tmp_path / "g", resume=True) == rows


def test_the_workers_of_one_grid_do_not_lock_each_other_out(tmp_path):
    rows = ["60,20", "30x3", "9,5,4", "8,2"]
    grid = Grid(PROBLEM, {"weight_decay": [1e-3, 2e-3]}, rows)
    found = run_grid(grid, tmp_path / "g", jobs=2)
    assert [row["status"] for row in found] == ["done"] * 4


# -- the commands ----------------------------------------------------------------------------------

COMMANDS = {
    "path": ["path", "--counts", "60,20", "--lambda", "1e-3,2e-3", "--out"],
    "run": ["run", "--epochs", "1", "--hidden", "8", "--feature-dim", "10", "--out"],
    "reproduce": ["reproduce", "hong-ling/limit", "--out"],
}


@pytest.mark.parametrize("resume", [[], ["--resume"]])
@pytest.mark.parametrize("name", list(COMMANDS))
def test_the_second_command_is_refused_in_one_line(command, tmp_path, name, resume):
    with held_elsewhere(tmp_path / "out") as process:
        code, out, err = command(*COMMANDS[name], tmp_path / "out", *resume)
    assert (code, out) == (2, "")
    lines = err.splitlines()
    assert lines == [
        f"tightframe: --out: {tmp_path / 'out'} is being written by process {process.pid} on "
        f"{socket.gethostname()}; a results folder has one writer at a time"
    ]


def test_report_waits_for_no_writer(fails, tmp_path):
    write_run(tmp_path)
    with held_elsewhere(tmp_path) as process:
        assert f"is being written by process {process.pid} on" in fails("report", tmp_path)


def test_of_two_commands_started_together_one_is_done(tmp_path):
    code = "from tightframe.cli import main; main()"
    path = [sys.executable, "-c", code, "path", "--out", tmp_path / "p", "--lambda", "1e-3:1e-2:40"]
    counts = (["60,20,9", "30x3"], ["50,3", "40,30"])
    processes = [
        subprocess.Popen(
            [*path, "--counts", pair[0], "--counts", pair[1]],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for pair in counts
    ]
    errors = [process.communicate()[1] for process in processes]
    codes = [process.returncode for process in processes]
    assert sorted(codes) == [0, 2]
    assert errors[codes.index(0)] == ""
    assert errors[codes.index(2)].count("\n") == 1
    assert list(read_grid(tmp_path / "p").rows) == counts[codes.index(0)]


@pytest.fixture
def open_to_all():
    """A folder that other users may enter; pytest's own are closed to them."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


NOBODY = ["setpriv", "--reuid", "54321", "--regid", "54321", "--clear-groups"]


@pytest.mark.skipif(
    os.name != "posix" or (os.geteuid() == 0 and shutil.which("setpriv") is None),
    reason="needs a user whom permissions stop",
)
@pytest.mark.parametrize(
    "name", ["path", "reproduce", pytest.param("run", marks=pytest.mark.slow)]
)  # they open their folder alike; a run loads Lightning before
def test_a_folder_that_may_not_be_written_is_one_line(open_to_all, name):
    out, own = open_to_all / "out", open_to_all / "own"
    for folder, mode in ((out, 0o555), (own, 0o777)):
        folder.mkdir()
        folder.chmod(mode)
    code = "from tightframe.cli import main; main()"
    prefix = NOBODY if os.geteuid() == 0 else []
    done = subprocess.run(
        [*prefix, sys.executable, "-c", code, *COMMANDS[name], out],
        capture_output=True,
        text=True,
        env={**os.environ, "MPLCONFIGDIR": os.fspath(own)},
    )
    assert done.returncode == 2
    assert done.stderr == f"tightframe: {out}: Permission denied\n"
