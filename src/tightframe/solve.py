"""solve: the one entry; picks a closed form, the certified solver or the multi-start search."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from dataclasses import replace

from tightframe.checks import positive_float, whole_number
from tightframe.geometry.blocks import Array, BlockMatrix, Partition
from tightframe.problem.problem import Problem
from tightframe.solution import Solution, Status
from tightframe.solvers.continuation import Continuation
from tightframe.solvers.search import multistart
from tightframe.solvers.stats import Stats
from tightframe.solvers.sweep import Sweep
from tightframe.theory.certificate import Certificate, certify_blocks
from tightframe.theory.coverage import Coverage, coverage, is_convex


class NotConvergedWarning(UserWarning):
    """A solver stopped before the certified gap, or a local minimum, was reached."""


def solve(
    problem: Problem,
    tol: float = 1e-8,
    *,
    max_iterations: int = 5000,
    starts: int = multistart.STARTS,
    seed: int = 0,
) -> Solution:
    """Return a global minimiser with its certificate, or the best local minimum of a search.

    Certified are cross-entropy with real features and one layer (any counts, any bias),
    cross-entropy with non-negative features (one layer, no bias), and MSE (no or free bias at any
    depth; decayed bias with one layer). Other problems with real features, those with several
    layers or with ``dim`` too small, are not convex: there the best of many local minima is
    returned with ``status`` ``"local"`` and no gap (with one layer only where the solution without
    ``dim`` does not fit into ``dim``: if it does, that is the certified minimiser).

    Parameters
    ----------
    problem : Problem
    tol : float
        The certified gap allowed, relative to the objective. Rounding of the logits (1e-16 of their
        size) limits what can be certified where the objective is tiny.
    max_iterations : int
        Iterations allowed to the numerical solver; in a search to each of the best starts.
    starts : int
        Of a search: random starts at every width. Structured ones and closed forms are added.
    seed : int
        Of a search's random starts.

    Returns
    -------
    Solution
        With ``status`` ``"optimal"`` iff the gap is within the tolerance, ``"local"`` if there is
        no gap; otherwise ``"not_converged"``, after a `NotConvergedWarning`.

    Raises
    ------
    ValueError
        If an argument is out of range, features are non-negative and no closed form covers the
        problem, or there are too many classes to search.

    Examples
    --------
    >>> problem = Problem("500x5,100x5", weight_decay=5e-3, feature_decay=1e-3)
    >>> solution = solve(problem)
    >>> round(solution.objective, 9), solution.group_collapsed.tolist()
    (1.317775197, [False, False])
    """
    if not isinstance(problem, Problem):
        raise ValueError(f"problem: got {type(problem).__name__}, need a tightframe.Problem")
    tol = positive_float("tol", tol)
    max_iterations = whole_number("max_iterations", max_iterations)
    starts, seed = whole_number("starts", starts), whole_number("seed", seed, 0)
    return solve_along(problem, tol, max_iterations, starts, seed, Continuation())


def solve_along(
    problem: Problem,
    tol: float,
    max_iterations: int,
    starts: int,
    seed: int,
    continuation: Continuation,
) -> Solution:
    """Solve the next problem of a sweep; `solve` without the checks, with a memory."""
    start = time.perf_counter()
    found = coverage(problem)
    if found.outcome == "refused":
        raise ValueError(f"problem: {found.reason}")
    if found.is_certified:
        solution = _certified(found, tol, max_iterations, continuation)
    else:
        solution = _best_found(found, tol, max_iterations, starts, seed)
    _warn_if_not_converged(solution, tol, max_iterations)
    return replace(solution, seconds=time.perf_counter() - start)


def uses_solver(problem: Problem) -> bool:
    """Tell whether a problem has the convex form and no closed form."""
    found = coverage(problem)
    return found.is_certified and found.family is None


def solve_sweep(problems: Sequence[Problem], tol: float, max_iterations: int) -> list[Solution]:
    """Solve problems that differ in their decays only and for which `uses_solver` holds."""
    start = time.perf_counter()
    points = Sweep(problems, tol, max_iterations).points()
    seconds = (time.perf_counter() - start) / len(problems)
    solutions = []
    for problem, point in zip(problems, points, strict=True):
        method = point.solved or "interpolation along the sweep"
        solution = _solution(
            problem, point.logits, point.bias, point.certificate, method, point.stats, tol
        )
        _warn_if_not_converged(solution, tol, max_iterations)
        solutions.append(replace(solution, seconds=seconds))
    return solutions


def _warn_if_not_converged(solution: Solution, tol: float, max_iterations: int) -> None:
    if solution.status is Status.NOT_CONVERGED:
        where = f"before a local minimum, after {max_iterations} iterations"
        if solution.gap is not None:
            gap = solution.gap / solution.objective
            where = f"at a relative gap of {gap:.1e}, above tol = {tol:.1e}"
        warnings.warn(f"solve stopped {where}", NotConvergedWarning, stacklevel=4)


def _certified(
    case: Coverage, tol: float, max_iterations: int, continuation: Continuation
) -> Solution:
    return _solution(case.problem, *_minimise(case, tol, max_iterations, continuation), tol)


def _solution(
    problem: Problem,
    logits: BlockMatrix,
    bias: Array,
    certificate: Certificate,
    method: str,
    stats: Stats,
    tol: float,
) -> Solution:
    converged = certificate.gap <= tol * certificate.primal
    return Solution(
        problem=problem,
        blocks=logits,
        group_bias=bias,
        objective=certificate.primal,
        lower_bound=certificate.dual,
        method=method,
        status=Status.OPTIMAL if converged else Status.NOT_CONVERGED,
        note="duality gap" if is_convex(problem) else "gap to the theorem's lower bound",
        seconds=0.0,
        stats=stats,
    )


def _best_found(
    case: Coverage, tol: float, max_iterations: int, starts: int, seed: int
) -> Solution:
    """Search, unless the solution without a width fits into the width: then that is certified."""
    problem, relaxed = case.problem, None
    if problem.depth == 1:
        wide = coverage(problem.replace(dim=None))
        relaxed = _certified(wide, tol, max_iterations, Continuation())
        if problem.dim is not None and relaxed.rank <= problem.dim:
            return replace(
                relaxed,
                problem=problem,
                method=f"{relaxed.method}; rank {relaxed.rank} fits dim {problem.dim}",
                note=f"{relaxed.note} of the problem without dim",
            )
    found = multistart.search(
        problem,
        starts=starts,
        seed=seed,
        max_iterations=max_iterations,
        relaxed=None if relaxed is None else (relaxed.blocks, relaxed.lower_bound),
    )
    return Solution(
        problem=problem,
        blocks=found.logits,
        group_bias=found.bias,
        objective=found.objective,
        lower_bound=None,
        method=f"multi-start search: {found.search.winner}",
        status=Status.LOCAL if found.search.converged else Status.NOT_CONVERGED,
        note=f"no certificate: {case.reason}; best of {found.search.starts} starts",
        seconds=0.0,
        search=found.search,
        stats=Stats(starts=found.search.starts),
    )


def _minimise(
    case: Coverage, tol: float, max_iterations: int, continuation: Continuation
) -> tuple[BlockMatrix, Array, Certificate, str, Stats]:
    problem, family = case.problem, case.family
    if family is not None:
        logits, bias = family.solve(problem)
        certificate = certify_blocks(problem, logits, bias)
        return logits, bias, certificate, f"closed form: {family.NAME}", Stats()
    partition = Partition.coarsest(problem)
    result = continuation.minimise(problem, partition, tol, max_iterations)
    return result.logits, result.factors.bias, result.certificate, result.method, result.stats
