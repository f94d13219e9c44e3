"""Processes of their own that need not import PyTorch, Lightning and Transformers anew.

They are forked from one server a test worker that has imported these and done nothing else, so
none of the tests' threads and state is in them.
"""

import multiprocessing

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    ["pytest", "transformers", "tests.capture.attached", "tightframe.runs.train"]
)


def run(target, *arguments, timeout=240):
    """Call a function of a test module in a process of its own; return the exit code."""
    return run_all([(target, *arguments)], timeout)[0]


def run_all(calls, timeout=240):
    """Call functions, each in a process of its own, at the same time; return the exit codes."""
    processes = [_CONTEXT.Process(target=target, args=args) for target, *args in calls]
    try:
        for process in processes:
            process.start()
        for process in processes:
            process.join(timeout)
        return [process.exitcode for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.join()
