"""Measure `tightframe.solve` against CVXPY with SCS and Clarabel: one command, one table.

    python benchmarks/solver.py [--quick] [--only TEXT] [--out benchmarks/results]

Writes ``solver.json`` (environment and rows) and ``solver.csv`` after every row, and prints the
table at the end. README.md beside this file says what the columns mean; ``plot_solver.py`` draws.

Every measurement runs in a process of its own with a limit of time and memory, so that nothing can
hang the whole; what measures is a generator that sends each run as it ends.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import importlib.metadata
import math
import multiprocessing
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

import tightframe as tf
from tightframe.files import replacing, write_json
from tightframe.problem.counts import format_runs
from tightframe.runs.folder import cores, processor
from tightframe.theory.thresholds import thresholds

Message = dict[str, Any]
Worker = Callable[..., Iterator[Message]]

#: What both sides aim at; ours goes lower where the peer does.
TARGET_GAP = 1e-8
#: A peer's tolerances are tightened until its certified gap is below this.
COMPARABLE_GAP = 10 * TARGET_GAP
#: Gaps below this are rounding: they count as equal, and no tolerance goes lower.
ROUNDING = 1e-12
#: Tolerance of the solve whose lower bound judges the peers. Not timed.
REFERENCE_GAP = 1e-10
#: Points of a path.
PATH_POINTS = 50
#: Repeats of the cliffs' rows, of which the median counts.
CLIFF_REPEATS = 3
#: A run longer than this is not repeated.
SLOW_SECONDS = 5.0
#: Repeats of a fast run fill about this long, but there are at least 3 and at most ``repeats``.
REPEAT_SECONDS = 2.0

#: Solver to its options from CVXPY's default tolerance on, tighter and tighter.
LADDERS: Mapping[str, Sequence[tuple[float, dict[str, Any]]]] = {
    "SCS": [(e, {"eps": e, "max_iters": 10**7}) for e in (1e-5, 1e-7, 1e-9)],
    "CLARABEL": [
        (e, {"tol_gap_abs": e, "tol_gap_rel": e, "tol_feas": e}) for e in (1e-8, 1e-10, 1e-12)
    ],
}


# -- cases -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Goal:
    """What a row should reach; None asks for nothing."""

    min_ratio: float | None = None
    max_seconds: float | None = None
    max_mib: float | None = None
    max_gap: float | None = None
    max_cold_solves: float | None = None
    max_times: float | None = None

    def __str__(self) -> str:
        parts = [
            (self.min_ratio, "≥ {:g}x"),
            (self.max_seconds, "≤ {:g} s"),
            (self.max_mib, "≤ {:g} MiB"),
            (self.max_gap, "gap ≤ {:.0e}"),
            (self.max_cold_solves, "≤ {:g} cold solves"),
            (self.max_times, "≤ {:g} times"),
        ]
        return ", ".join(form.format(value) for value, form in parts if value is not None)


@dataclass(frozen=True)
class Case:
    """One problem to solve; ``series`` says which curve of the plot it belongs to."""

    name: str
    problem: tf.Problem
    series: str
    goal: Goal = field(default_factory=Goal)
    tol: float = TARGET_GAP
    peers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cliff:
    """What should cost no more than so many times another solve, or a G x G SVD without one."""

    name: str
    problems: tuple[tf.Problem, ...]
    goal: Goal
    reference: tuple[tf.Problem, ...] = ()
    tol: float = 1e-6


@dataclass(frozen=True)
class Settings:
    """How much to spend: seconds for one run of a peer or of ours, memory, repeats."""

    peer_limit: float = 120.0
    own_limit: float = 600.0
    memory_gib: float = 8.0
    repeats: int = 30


@dataclass
class Row:
    """One line of the table; see README.md for the columns."""

    case: str
    series: str
    classes: int | None
    groups: int | None
    seconds: float | None = None
    gap: float | None = None
    tol: float | None = None
    runs: int | None = None
    peak_mib: float | None = None
    peer: str | None = None
    peer_seconds: float | None = None
    peer_solver_seconds: float | None = None
    peer_gap: float | None = None
    peer_tolerance: float | None = None
    ratio: float | None = None
    ratio_is_bound: bool = False
    svd_seconds: float | None = None
    svd_units: float | None = None
    cold_solves: float | None = None
    times: float | None = None
    goal: str = ""
    met: bool | None = None
    notes: str = ""


def distinct_counts(classes: int, low: int = 5, high: int = 1280) -> list[int]:
    """Return strictly increasing counts from ``low`` to ``high``, geometric where there is room.

    The rounded geometric sequence; where that would repeat an integer, the next one is taken.
    """
    counts: list[int] = []
    for value in np.geomspace(low, high, classes):
        counts.append(max(round(value), counts[-1] + 1) if counts else low)
    if counts[-1] != high:
        raise ValueError(f"classes: {classes} distinct counts do not fit between {low} and {high}")
    return counts


def grouped_counts(classes: int, groups: int) -> str:
    """Return compact counts: `distinct_counts` for the groups, classes spread evenly."""
    each, rest = divmod(classes, groups)
    return format_runs((n, each + (i < rest)) for i, n in enumerate(distinct_counts(groups)))


def half_threshold(counts: Any) -> tf.Problem:
    """Return the setting of all timed rows: lambda = sqrt(n_min) / (2 N), decayed bias.

    That is half the decay at which the smallest classes merge, so nothing is trivial.
    """
    decay = 1.0  # only to read the counts
    draft = tf.Problem(counts, weight_decay=decay, feature_decay=decay)
    decay = math.sqrt(min(group.count for group in draft.groups)) / (2 * draft.num_samples)
    return draft.replace(weight_decay=decay, feature_decay=decay, bias="decayed", bias_decay=0.01)


def all_cases() -> list[Case]:
    """Return the timed cases of the full benchmark, the quickest first."""
    both = ("SCS", "CLARABEL")
    k1000 = Goal(max_seconds=60, max_mib=1024, max_gap=1e-6)
    rounded = [round(n) for n in np.geomspace(5, 1280, 1000)]
    scaling = [
        Case(f"3 groups, K={k:,}", half_threshold(grouped_counts(k, 3)), "3 groups")
        for k in (30, 1000, 30_000)
    ] + [
        Case(f"{g} groups, K=21,841", half_threshold(grouped_counts(21_841, g)), "K = 21,841")
        for g in (2, 5, 10, 25, 50)
    ]
    return [
        smallest_case(),
        distinct_case(10, Goal(min_ratio=20), both),
        distinct_case(50, Goal(min_ratio=100), both),
        distinct_case(100, Goal(min_ratio=100), both),
        distinct_case(200, Goal(max_seconds=3), both),
        Case(
            "3 groups, K=1,000,000",
            half_threshold(grouped_counts(1_000_000, 3)),
            "3 groups",
            Goal(max_seconds=0.05),
        ),
        Case(
            "100 groups, K=21,841",
            half_threshold(grouped_counts(21_841, 100)),
            "K = 21,841",
            Goal(max_seconds=5),
        ),
        replace(distinct_case(1000, k1000), tol=1e-6),
        Case("K=1000 rounded", half_threshold(rounded), "K = 1000, rounded", k1000, tol=1e-6),
        *scaling,
    ]


def smallest_case() -> Case:
    """Return the case that takes least: 10 classes in two groups."""
    problem = half_threshold("500x5,100x5")
    return Case("K=10 two groups", problem, "two groups", Goal(min_ratio=20), peers=tuple(LADDERS))


def distinct_case(classes: int, goal: Goal, peers: tuple[str, ...] = ()) -> Case:
    """Return a case with every count distinct."""
    problem = half_threshold(distinct_counts(classes))
    return Case(f"K={classes} distinct", problem, "distinct counts", goal, peers=peers)


def cliff_cases() -> list[Cliff]:
    """Return pairs of problems of like size, of which one was once far slower than the other."""
    even = range(2, 1001, 2)

    def plain(counts: Any, decay: float | None = None) -> tf.Problem:
        draft = half_threshold(counts).replace(bias="none", bias_decay=None)
        if decay is None:
            return draft
        return draft.replace(weight_decay=decay, feature_decay=decay)

    def swept(classes: int) -> Cliff:
        counts = range(2, 2 * classes + 1, 2)
        top = thresholds(plain(counts)).total_collapse
        problems = tuple(plain(counts, top * share) for share in np.geomspace(0.9e-4, 0.9, 13))
        name = f"λ over 4 decades, K={classes}"
        return Cliff(name, problems, Goal(max_times=4), problems, TARGET_GAP)

    words = [max(1, round(877_000 / rank)) for rank in range(1, 50_001)]
    return [
        Cliff(
            "1,000 counts, 100 to 10⁷",
            (plain(distinct_counts(1000, 100, 10**7)),),
            Goal(max_times=3),
            (plain(distinct_counts(1000)),),
        ),
        Cliff(
            "500 counts, λ = 3.79e-5",
            (plain(even, 3.786621769566342e-05),),
            Goal(max_times=4),
            (plain(even, 6.31e-06),),
        ),
        swept(50),
        swept(200),
        swept(500),
        Cliff("50,000 words, λ = 2.1e-7", (plain(words),), Goal()),
        Cliff("50,000 words, λ = 1e-6", (plain(words, 1e-6),), Goal(max_times=4), (plain(words),)),
        Cliff("50,000 words, λ = 1e-5", (plain(words, 1e-5),), Goal(max_times=4), (plain(words),)),
        Cliff(
            "5,000 counts, 20 to 10⁵",
            (plain(distinct_counts(5000, 20, 10**5)),),
            Goal(max_times=4, max_mib=4096),
        ),
    ]


def quick_cases() -> list[Case]:
    """Return a subset of about one minute."""
    chosen = ("K=10 two groups", "K=10 distinct", "K=50 distinct", "3 groups, K=1,000,000")
    cases = [case for case in all_cases() if case.name in chosen]
    # Clarabel needs minutes from K = 50 on.
    return [replace(c, peers=("SCS",)) if c.name == "K=50 distinct" else c for c in cases]


# -- what runs in a process of its own -------------------------------------------------------------


def our_runs(arguments: Mapping[str, Any], tol: float, repeats: int) -> Iterator[Message]:
    """Solve with tightframe; one message a run, then the time of one G x G SVD."""
    warnings.simplefilter("ignore", tf.NotConvergedWarning)  # the status tells
    tf.solve(half_threshold("9,5"))  # loads SciPy, starts BLAS
    yield {"ready": True}

    def run() -> Message:
        start = time.perf_counter()
        problem = tf.Problem(**arguments)
        solution = tf.solve(problem, tol)
        seconds = time.perf_counter() - start
        assert solution.gap is not None
        assert solution.lower_bound is not None
        return {
            "seconds": seconds,
            "gap": solution.gap / solution.objective,
            "lower_bound": solution.lower_bound,
            "optimal": solution.status == "optimal",
            "peak_mib": _peak_mib(),
        }

    yield from _repeated(run, repeats)
    groups = len(tf.Problem(**arguments).groups)
    matrix = np.random.default_rng(0).standard_normal((groups, groups))

    def decompose() -> Message:
        start = time.perf_counter()
        np.linalg.svd(matrix)
        return {"svd_seconds": time.perf_counter() - start}

    decompose()
    yield from _repeated(decompose, repeats)


def path_runs(arguments: Mapping[str, Any], repeats: int) -> Iterator[Message]:
    """Solve along `PATH_POINTS` decays and apart from that every fifth of those points alone.

    The decays end at the threshold of the smallest classes' merging, a decade up.
    """
    warnings.simplefilter("ignore", tf.NotConvergedWarning)  # the status tells
    problem = tf.Problem(**arguments)
    tf.solve(problem)
    yield {"ready": True}
    least = math.sqrt(min(group.count for group in problem.groups)) / problem.num_samples
    decays = np.geomspace(least / 10, 0.9 * least, PATH_POINTS)

    def run() -> Message:
        start = time.perf_counter()
        # The other decay is one, so lambda is the root.
        path = tf.path(problem.replace(feature_decay=1.0), weight_decay=decays**2)
        seconds = time.perf_counter() - start
        cold = []
        for decay in decays[::5]:
            start = time.perf_counter()
            tf.solve(problem.replace(weight_decay=decay, feature_decay=decay))
            cold.append(time.perf_counter() - start)
        return {
            "seconds": seconds,
            "cold_seconds": statistics.median(cold),
            "gap": max(s.gap / s.objective for s in path.solutions if s.gap is not None),
            "optimal": all(solution.status == "optimal" for solution in path.solutions),
            "peak_mib": _peak_mib(),
        }

    yield from _repeated(run, repeats)


def cliff_runs(
    measured: Sequence[Mapping[str, Any]],
    reference: Sequence[Mapping[str, Any]],
    tol: float,
    repeats: int,
) -> Iterator[Message]:
    """Solve all problems in turn, in seconds of the processor, which other work disturbs least.

    Without a reference one G x G SVD stands for it.
    """
    warnings.simplefilter("ignore", tf.NotConvergedWarning)  # the status tells
    tf.solve(half_threshold("9,5"))
    yield {"ready": True}

    def solve(arguments: Mapping[str, Any]) -> tuple[float, tf.Solution]:
        start = time.process_time()
        solution = tf.solve(tf.Problem(**arguments), tol)
        return time.process_time() - start, solution

    for _ in range(repeats):
        ours = [solve(arguments) for arguments in measured]
        peak = _peak_mib()
        if reference:
            same = reference == measured
            theirs = [t for t, _ in (ours if same else map(solve, reference))]
        else:
            groups = len(tf.Problem(**measured[0]).groups)
            matrix = np.random.default_rng(0).standard_normal((groups, groups))
            start = time.process_time()
            np.linalg.svd(matrix)
            theirs = [time.process_time() - start]
        slowest = max(seconds for seconds, _ in ours)
        gaps = [s.gap / s.objective for _, s in ours if s.gap is not None]
        yield {
            "seconds": slowest,
            "reference_seconds": min(theirs),
            "times": slowest / min(theirs),
            "gap": max(gaps),
            "optimal": all(s.status == "optimal" for _, s in ours),
            "peak_mib": peak,
        }


def peer_runs(
    arguments: Mapping[str, Any], solver: str, lower_bound: float, repeats: int
) -> Iterator[Message]:
    """Solve by CVXPY at tighter and tighter tolerances until the certified gap is comparable.

    One message a run. The clock covers building the CVXPY problem, its translation and the solver;
    ``solver_seconds`` is the solver's own account. `tightframe.certify` judges the logits and bias.
    """
    warnings.simplefilter("ignore")  # CVXPY warns of inaccurate solutions; the gap tells
    _peer_solve(half_threshold("9,5"), solver, LADDERS[solver][0][1])  # loads CVXPY and the solver
    yield {"ready": True}
    problem = tf.Problem(**arguments)
    for tolerance, options in LADDERS[solver]:
        yield {"tolerance": tolerance}  # begins

        def run(tolerance: float = tolerance, options: dict[str, Any] = options) -> Message:
            start = time.perf_counter()
            solver_seconds, logits, bias = _peer_solve(problem, solver, options)
            seconds = time.perf_counter() - start
            certificate = tf.certify(problem, logits, bias, lower_bound=lower_bound)
            return {
                "tolerance": tolerance,
                "seconds": seconds,
                "solver_seconds": solver_seconds,
                "gap": certificate.gap / certificate.primal,
            }

        first = run()
        yield first
        if first["gap"] <= COMPARABLE_GAP:
            yield from _repeated(run, repeats - 1, first["seconds"])
            return


def _peer_solve(
    problem: tf.Problem, solver: str, options: Mapping[str, Any]
) -> tuple[float | None, np.ndarray, np.ndarray | None]:
    """Solve the convex form by CVXPY, all columns at once (a loop over classes is slower)."""
    import cvxpy as cp

    counts = problem.counts.astype(float)
    k = len(counts)
    logits, bias = cp.Variable((k, k)), cp.Variable((k, 1))
    scores = logits if problem.bias == "none" else logits + bias @ np.ones((1, k))
    loss = (counts / counts.sum()) @ (cp.log_sum_exp(scores, axis=0) - cp.diag(scores))
    cost = loss + problem.logit_decay * cp.normNuc(logits @ np.diag(np.sqrt(counts)))
    if problem.bias == "decayed":
        cost = cost + problem.bias_decay / 2 * cp.sum_squares(bias)
    task = cp.Problem(cp.Minimize(cost))
    task.solve(solver=solver, **options)
    if logits.value is None:
        raise RuntimeError(f"no solution, status {task.status}")
    found = None if problem.bias == "none" else bias.value[:, 0]
    return task.solver_stats.solve_time, logits.value, found


def _repeated(
    run: Callable[[], Message], repeats: int, first_seconds: float | None = None
) -> Iterator[Message]:
    """Run once, or more often where a run is fast; the first run of a fast one is a warm-up."""
    if first_seconds is None:
        start = time.perf_counter()
        first = run()
        first_seconds = time.perf_counter() - start
        if first_seconds > SLOW_SECONDS or repeats <= 1:
            yield first
    if first_seconds <= SLOW_SECONDS and repeats > 1:
        wanted = math.ceil(REPEAT_SECONDS / max(first_seconds, 1e-6))
        for _ in range(min(max(wanted, 3), repeats)):
            yield run()


def _peak_mib() -> float:
    """Return the largest resident memory of this process so far."""
    # Linux hands ru_maxrss down through exec, so a large parent would count; VmHWM does not.
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 1024


# -- processes with limits -------------------------------------------------------------------------


@dataclass
class Outcome:
    """The messages of a measurement, and why it ended early, if it did."""

    messages: list[Message] = field(default_factory=list)
    failure: str = ""
    timed_out: bool = False

    def runs(self, key: str = "seconds") -> list[Message]:
        """Return the messages of finished runs."""
        return [message for message in self.messages if key in message]


def run_apart(worker: Worker, arguments: tuple[Any, ...], limit: float, memory: float) -> Outcome:
    """Run a worker in a fresh process, which is killed ``limit`` seconds after its last message.

    Parameters
    ----------
    worker : callable
        A generator function of this module.
    arguments : tuple
        Picklable.
    limit : float
        Seconds for one run; the imports before the first message get 60 s more.
    memory : float
        Address space allowed, in GiB.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(sender, worker, arguments, memory), daemon=True)
    process.start()
    sender.close()
    outcome = Outcome()
    patience = limit + 60
    try:
        while True:
            if not receiver.poll(patience):
                outcome.failure, outcome.timed_out = f"did not finish in {limit:g} s", True
                break
            message = receiver.recv()
            patience = limit
            if "done" in message:
                break
            if "error" in message:
                outcome.failure = message["error"]
                break
            outcome.messages.append(message)
    except EOFError:
        process.join()
        outcome.failure = (
            f"died with exit code {process.exitcode} (memory is limited to {memory:g} GiB)"
        )
    finally:
        process.kill()
        process.join()
        receiver.close()
    return outcome


def run_here(worker: Worker, arguments: tuple[Any, ...], limit: float, memory: float) -> Outcome:
    """Run a worker in this process, without limits; for the test."""
    with warnings.catch_warnings():
        return Outcome(list(worker(*arguments)))


def _child(sender: Any, worker: Worker, arguments: tuple[Any, ...], memory: float) -> None:
    limit = int(memory * 2**30)
    # macOS refuses a limit on the address space.
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    try:
        for message in worker(*arguments):
            sender.send(message)
        sender.send({"done": True})
    except Exception as error:  # whatever the peer raises is a result
        sender.send({"error": f"{type(error).__name__}: {error}".splitlines()[0][:200]})


Runner = Callable[[Worker, tuple[Any, ...], float, float], Outcome]


# -- rows ------------------------------------------------------------------------------------------


def measure(case: Case, settings: Settings, run: Runner = run_apart) -> list[Row]:
    """Measure a case: one row a peer, or one row without peers."""
    if not case.peers:
        row = _row(case)
        _add_ours(row, _ours(case, case.tol, settings, run))
        return [judged(row, case.goal)]
    arguments = case.problem.to_dict()
    reference = run(
        our_runs, (arguments, REFERENCE_GAP, 1), settings.own_limit, settings.memory_gib
    )
    bound = max((m["lower_bound"] for m in reference.runs()), default=0.0)
    ours: dict[float, Outcome] = {}
    rows = []
    for peer in case.peers:
        row = _row(case)
        row.peer = peer
        theirs = run(
            peer_runs,
            (arguments, peer, bound, settings.repeats),
            settings.peer_limit,
            settings.memory_gib,
        )
        _add_peer(row, theirs, settings)
        # At the peer's gap or below.
        tol = case.tol if row.peer_gap is None else max(min(case.tol, row.peer_gap), ROUNDING)
        if tol not in ours:
            ours[tol] = _ours(case, tol, settings, run)
        _add_ours(row, ours[tol])
        if not reference.runs():
            _note(row, "no lower bound of ours: the peer's gap rests on its own point")
        if row.seconds:
            if row.peer_seconds is not None:
                row.ratio = row.peer_seconds / row.seconds
            elif theirs.timed_out:
                row.ratio, row.ratio_is_bound = settings.peer_limit / row.seconds, True
            if row.peer_solver_seconds is not None:
                _note(row, f"its solver alone {row.peer_solver_seconds / row.seconds:.3g}x")
        rows.append(judged(row, case.goal))
    return rows


def path_row(case: Case, settings: Settings, run: Runner = run_apart) -> Row:
    """Measure a path in units of a cold solve of its points."""
    row = _row(case)
    arguments = (case.problem.to_dict(), settings.repeats)
    outcome = run(path_runs, arguments, settings.own_limit, settings.memory_gib)
    for message in outcome.runs():
        message["tol"] = TARGET_GAP
    _add_ours(row, outcome)
    if outcome.runs():
        cold = _median(outcome.runs(), "cold_seconds")
        row.cold_solves = statistics.median(
            m["seconds"] / m["cold_seconds"] for m in outcome.runs()
        )
        _note(row, f"{row.cold_solves:.3g} cold solves of {cold:.2g} s")
    return judged(row, case.goal)


def cliff_row(case: Cliff, settings: Settings, run: Runner = run_apart) -> Row:
    """Measure the slowest of some problems in units of the cheapest of the reference."""
    first = case.problems[0]
    row = Row(case.name, "cliffs", first.num_classes, len(first.groups))
    measured = [problem.to_dict() for problem in case.problems]
    reference = [problem.to_dict() for problem in case.reference]
    arguments = (measured, reference, case.tol, min(CLIFF_REPEATS, settings.repeats))
    outcome = run(cliff_runs, arguments, settings.own_limit * 4, settings.memory_gib)
    for message in outcome.runs():
        message["tol"] = case.tol
    _add_ours(row, outcome)
    if outcome.runs():
        row.times = _median(outcome.runs(), "times")
        unit = _median(outcome.runs(), "reference_seconds")
        same = reference == measured
        what = "the cheapest" if same else "the reference" if reference else "an SVD"
        _note(row, f"{row.times:.3g} times {what}, {unit:.2g} s of the processor")
    return judged(row, case.goal)


def path_cases() -> list[Case]:
    """Return the paths of the full benchmark."""
    goal = Goal(max_cold_solves=8)
    problems = {
        "K=10 two groups": half_threshold("500x5,100x5"),
        "K=50 distinct": half_threshold(distinct_counts(50)),
        "K=100 distinct": half_threshold(distinct_counts(100)),
        "60 groups, K=21,841": half_threshold(grouped_counts(21_841, 60)),
    }
    return [
        Case(f"{PATH_POINTS}-point path, {name}", problem, "paths", goal)
        for name, problem in problems.items()
    ]


def sweep(
    classes: Sequence[int],
    fractions: Sequence[float],
    biases: Sequence[str],
    settings: Settings,
    run: Runner = run_apart,
) -> Row:
    """Solve for every size, decay (as a share of lambda_max) and bias; report the worst gap."""
    row = Row(f"λ sweep, K ≤ {max(classes)}", "sweep", None, None, tol=TARGET_GAP, runs=0, gap=0.0)
    worst = slowest = ""
    missing = []
    for k in classes:
        for bias in biases:
            draft = tf.Problem(distinct_counts(k), weight_decay=1, feature_decay=1, bias=bias)
            largest = tf.thresholds(draft).total_collapse
            for fraction in fractions:
                label = f"K={k}, bias {bias}, λ = {fraction:g} λ_max"
                _progress(f"  {label}")
                decay = fraction * largest
                problem = draft.replace(weight_decay=decay, feature_decay=decay)
                done = run(
                    our_runs,
                    (problem.to_dict(), TARGET_GAP, 1),
                    settings.own_limit / 10,
                    settings.memory_gib,
                ).runs()
                if not done:
                    missing.append(label)
                    continue
                assert row.runs is not None
                assert row.gap is not None
                row.runs += 1
                if done[0]["gap"] >= row.gap:
                    row.gap, worst = done[0]["gap"], label
                if done[0]["seconds"] >= (row.seconds or 0):
                    row.seconds, slowest = done[0]["seconds"], label
    points = len(classes) * len(biases) * len(fractions)
    _note(row, f"worst of {points} points: {worst}; slowest: {slowest}")
    if missing:
        limit = settings.own_limit / 10
        _note(row, f"{len(missing)} points without a result in {limit:g} s: {'; '.join(missing)}")
        row.gap = None
    return judged(row, Goal(max_gap=TARGET_GAP), converged=not missing)


def _row(case: Case) -> Row:
    problem = case.problem
    return Row(case.name, case.series, problem.num_classes, len(problem.groups))


def _ours(case: Case, tol: float, settings: Settings, run: Runner) -> Outcome:
    outcome = run(
        our_runs,
        (case.problem.to_dict(), tol, settings.repeats),
        settings.own_limit,
        settings.memory_gib,
    )
    for message in outcome.runs():
        message["tol"] = tol
    return outcome


def _add_ours(row: Row, outcome: Outcome) -> None:
    runs = outcome.runs()
    if outcome.failure:
        _note(row, f"ours {outcome.failure}")
    if not runs:
        return
    row.seconds, row.runs, row.tol = _median(runs), len(runs), runs[0]["tol"]
    row.gap = max(m["gap"] for m in runs)
    row.peak_mib = runs[-1]["peak_mib"]
    if not all(m["optimal"] for m in runs):
        _note(row, "ours did not converge")
    if decompositions := outcome.runs("svd_seconds"):
        row.svd_seconds = _median(decompositions, "svd_seconds")
        row.svd_units = row.seconds / row.svd_seconds


def _add_peer(row: Row, outcome: Outcome, settings: Settings) -> None:
    runs = outcome.runs()
    if runs:
        # The ladder ends at the first comparable gap; where there is none, take the best.
        best = min(runs, key=lambda m: m["gap"])["tolerance"]
        if runs[-1]["gap"] <= COMPARABLE_GAP:
            best = runs[-1]["tolerance"]
        chosen = [m for m in runs if m["tolerance"] == best]
        row.peer_seconds = _median(chosen)
        row.peer_gap = max(m["gap"] for m in chosen)
        row.peer_tolerance = best
        if all(m["solver_seconds"] is not None for m in chosen):
            row.peer_solver_seconds = _median(chosen, "solver_seconds")
        if row.peer_gap > COMPARABLE_GAP:
            _note(row, f"peer's best gap is above {COMPARABLE_GAP:.0e}")
    if outcome.failure:
        begun = [m["tolerance"] for m in outcome.messages if "tolerance" in m]
        at = f" at tolerance {begun[-1]:.0e}" if begun else ""
        _note(row, f"peer {outcome.failure}{at}")


def judged(row: Row, goal: Goal, converged: bool = True) -> Row:
    """Fill in the goal and whether it is met: None where the peer gave nothing to compare."""
    row.goal = str(goal)
    if not row.goal:
        return row
    if row.seconds is None or row.gap is None or not converged:
        row.met = False
        return row
    checks = [row.tol is None or row.gap <= row.tol]
    if row.peer_gap is not None:
        checks.append(row.gap <= max(row.peer_gap, ROUNDING))
    for most, value in (
        (goal.max_seconds, row.seconds),
        (goal.max_mib, row.peak_mib),
        (goal.max_gap, row.gap),
        (goal.max_cold_solves, row.cold_solves),
        (goal.max_times, row.times),
    ):
        checks.append(most is None or (value is not None and value <= most))
    if goal.min_ratio is not None and all(checks):
        if row.ratio is None or (row.ratio_is_bound and row.ratio < goal.min_ratio):
            return row
        checks.append(row.ratio >= goal.min_ratio)
    row.met = all(checks)
    return row


def _median(messages: Sequence[Message], key: str = "seconds") -> float:
    return statistics.median(message[key] for message in messages)


def _note(row: Row, text: str) -> None:
    row.notes = f"{row.notes}; {text}" if row.notes else text


# -- results ---------------------------------------------------------------------------------------


def environment(settings: Settings, quick: bool) -> dict[str, Any]:
    """Return what a reader needs to judge the times."""
    names = ("tightframe", "numpy", "scipy", "cvxpy", "scs", "clarabel")
    versions = {}
    for name in names:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    versions["tightframe"] = tf.__version__
    threads = {k: v for k, v in os.environ.items() if k.endswith("_NUM_THREADS")}
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": _git("rev-parse", "HEAD"),
        "uncommitted_changes": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": processor(),
        "cores": cores(),
        "load_at_start": os.getloadavg()[0],
        "blas": f"{blas.get('name')} {blas.get('version')}",
        "threads": threads,
        "versions": versions,
        "settings": asdict(settings),
        "quick": quick,
    }


def _git(*arguments: str) -> str | None:
    here = Path(__file__).parent
    try:
        done = subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def write_results(folder: Path, about: Mapping[str, Any], rows: Sequence[Row]) -> None:
    """Write ``solver.json`` and ``solver.csv``."""
    lines = [asdict(row) for row in rows]
    write_json(folder / "solver.json", {"environment": about, "rows": lines})
    with (
        replacing(folder / "solver.csv") as temporary,
        open(temporary, "w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, fieldnames=list(lines[0]) if lines else [])
        writer.writeheader()
        writer.writerows(lines)


def print_table(about: Mapping[str, Any], rows: Sequence[Row]) -> None:
    """Print the one table."""
    from rich.console import Console
    from rich.table import Table

    cores = f"{about['cores']} cores, {about['processor']}, load {about['load_at_start']:.1f}"
    table = Table(title=f"tightframe.solve, {cores}", show_lines=False)
    left = ("case", "goal", "met", "peer", "notes")
    names = (
        *("case", "K", "G", "seconds", "gap", "SVDs", "MiB"),
        *("peer", "peer s", "peer gap", "ratio", "goal", "met", "notes"),
    )
    for name in names:
        table.add_column(
            name,
            justify="left" if name in left else "right",
            no_wrap=name not in ("case", "goal", "notes"),
            overflow="fold",
        )
    for row in rows:
        table.add_row(
            row.case,
            _number(row.classes, ",d"),
            _number(row.groups, ",d"),
            _number(row.seconds, ".3g"),
            _number(row.gap, ".1e"),
            _number(row.svd_units, ".3g"),
            _number(row.peak_mib, ".0f"),
            row.peer or "-",
            _number(row.peer_seconds, ".3g"),
            _number(row.peer_gap, ".1e"),
            ("> " if row.ratio_is_bound else "") + _number(row.ratio, ".3g"),
            row.goal or "-",
            "-" if not row.goal else "unknown" if row.met is None else "yes" if row.met else "no",
            row.notes,
        )
    console = Console()
    # Files and narrow terminals get whole lines, not columns of single letters.
    Console(width=max(console.width, 170)).print(table)


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description="Time tightframe.solve against CVXPY.")
    default = Settings()
    parser.add_argument("--quick", action="store_true", help="a subset of about one minute")
    parser.add_argument("--only", default="", help="cases whose name contains this text")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument(
        "--peer-limit", type=float, default=None, help="seconds for a peer's run (120; quick: 20)"
    )
    parser.add_argument(
        "--own-limit",
        type=float,
        default=default.own_limit,
        help="seconds for a run of ours (%(default)g; a tenth of that for a point of the sweep)",
    )
    parser.add_argument(
        "--memory-gib",
        type=float,
        default=default.memory_gib,
        help="address space of a run (%(default)g)",
    )
    options = parser.parse_args(arguments)
    settings = Settings(
        peer_limit=options.peer_limit or (20.0 if options.quick else default.peer_limit),
        own_limit=options.own_limit,
        memory_gib=options.memory_gib,
        repeats=10 if options.quick else default.repeats,
    )
    about = environment(settings, options.quick)
    rows: list[Row] = []
    for case in quick_cases() if options.quick else all_cases():
        if options.only in case.name:
            _progress(case.name)
            rows += measure(case, settings)
            write_results(options.out, about, rows)
    for case in [] if options.quick else path_cases():
        if options.only in case.name:
            _progress(case.name)
            rows.append(path_row(case, settings))
            write_results(options.out, about, rows)
    for cliff in [] if options.quick else cliff_cases():
        if options.only in f"cliffs: {cliff.name}":
            _progress(cliff.name)
            rows.append(cliff_row(cliff, settings))
            write_results(options.out, about, rows)
    if options.only in "sweep":
        _progress("sweep")
        grid = (
            ((10,), (1e-6, 1e-3, 0.3, 1.0), ("none",))
            if options.quick
            else ((10, 50, 200), (1e-6, 1e-4, 1e-2, 0.3, 0.9, 1.0), ("none", "free"))
        )
        rows.append(sweep(*grid, settings))
    if not rows:
        parser.error(f"--only: no case's name contains {options.only!r}")
    write_results(options.out, about, rows)
    print_table(about, rows)


if __name__ == "__main__":
    main()
