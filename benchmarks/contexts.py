"""Time `tf.solve` of contexts with label distributions against CVXPY with SCS and Clarabel.

    python -m benchmarks.contexts [--quick] [--out benchmarks/results]

Instances have five random labels a context (Dirichlet), counts 1000/j and ``lambda`` a share of the
one at which all collapses; the larger ones have objectives that were found and certified elsewhere.
A peer's answer is certified like any candidate (`tf.certify`); ours is asked for the same gap.
Seconds are those of one process on one thread. A peer gets `LIMIT` seconds.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csc_array

import tightframe as tf
from benchmarks.solver import environment
from tightframe.files import write_json

#: Seconds that a peer may take.
LIMIT = 300.0

#: CVXPY's options of every peer.
PEERS: dict[str, dict[str, Any]] = {
    "CLARABEL": {},
    "SCS": {"eps": 1e-7, "max_iters": 10**6},
}


@dataclass(frozen=True)
class Case:
    """One instance; ``objective`` where it is known, ``decay`` where it was printed."""

    labels: int
    contexts: int
    tol: float
    share: float = 0.05
    objective: float | None = None
    peers: bool = False


CASES = (
    Case(20, 40, 1e-9, peers=True),
    Case(40, 100, 1e-9, peers=True),
    Case(20, 60, 1e-10, objective=1.692979059073),
    Case(200, 1000, 1e-9, objective=2.513859274496),
    Case(2000, 400, 1e-8, objective=3.413423858038),
    Case(500, 2000, 1e-8, share=0.01, objective=1.769640484862),
    Case(500, 2000, 1e-8, objective=3.11135671),
)


def problem_of(case: Case) -> tf.Problem:
    """Return the instance, of numpy's generator 0."""
    rng = np.random.default_rng(0)
    v, m = case.labels, case.contexts
    seen = np.argpartition(rng.random((m, v)), 5, axis=1)[:, :5]
    shares = rng.dirichlet(np.ones(5), m)
    targets = np.zeros((m, v))
    np.put_along_axis(targets, seen, shares, axis=1)
    counts = np.ceil(1000 / (np.arange(m) + 1)).astype(int)
    slope = (1 / v - targets) * (np.sqrt(counts) / counts.sum())[:, None]
    decay = case.share * np.linalg.norm(slope, 2)
    return tf.Problem(counts, targets=csc_array(targets.T), weight_decay=decay, feature_decay=decay)


def peer(case: Case, name: str, answers: Any) -> None:
    """Solve with CVXPY; send seconds, the certified relative gap and the objective."""
    import cvxpy as cp

    problem = problem_of(case)
    assert problem.targets is not None
    targets, shares = problem.targets.by_context.toarray(), problem.counts / problem.num_samples
    start = time.perf_counter()
    z = cp.Variable(targets.shape)
    fit = shares @ cp.log_sum_exp(z, axis=1) - cp.sum(cp.multiply(shares[:, None] * targets, z))
    scale = np.sqrt(problem.counts)  # in units of the largest, else Clarabel gives up
    norm = cp.normNuc(np.diag(scale / scale.max()) @ z)
    whole = cp.Problem(cp.Minimize(fit + problem.logit_decay * scale.max() * norm))
    whole.solve(solver=name, **PEERS[name])
    seconds = time.perf_counter() - start
    certificate = tf.certify(problem, z.value.T)
    answers.send((seconds, certificate.gap / certificate.primal, certificate.primal))


def peer_row(case: Case, name: str) -> dict[str, Any]:
    """Run a peer in a process of its own, within `LIMIT` seconds."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=peer, args=(case, name, sender))
    process.start()
    sender.close()
    try:
        if not receiver.poll(LIMIT):
            return {"solver": name, "seconds": None, "gap": None}
        seconds, gap, objective = receiver.recv()
    except EOFError:  # it ended without an answer
        return {"solver": name, "seconds": None, "gap": None}
    finally:
        process.kill()
        process.join()
    ours, own = timed(problem_of(case), max(gap, 1e-12))
    row = {"solver": name, "seconds": seconds, "gap": gap, "objective": objective}
    return row | {"our_seconds": own, "our_gap": ours.gap / ours.objective, "ratio": seconds / own}


def timed(problem: tf.Problem, tol: float) -> tuple[Any, float]:
    """Solve, if that is quick three times, and return the solution and the least seconds."""
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        solution = tf.solve(problem, tol)
        best = min(best, time.perf_counter() - start)
        if best > 1:
            break
    return solution, best


def own_row(case: Case) -> dict[str, Any]:
    """Solve to the case's tolerance."""
    s, seconds = timed(problem_of(case), case.tol)
    row = {"solver": "tightframe", "seconds": seconds, "gap": s.gap / s.objective}
    off = None if case.objective is None else s.objective - case.objective
    return row | {"objective": s.objective, "above_known": off, "rank": s.rank}


def main() -> None:
    """Print a row at a time, and write them where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small instances, Clarabel only")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows = []
    for case in CASES[:1] if options.quick else CASES:
        found = [own_row(case)]
        if case.peers:
            found += [peer_row(case, name) for name in list(PEERS)[: 1 if options.quick else None]]
        for row in found:
            print(f"({case.labels}, {case.contexts}) share {case.share:g}: {row}", flush=True)
            rows.append(asdict(case) | row)
        if options.out is not None:
            write_json(options.out / "contexts.json", {"environment": environment(), "rows": rows})


if __name__ == "__main__":
    main()
