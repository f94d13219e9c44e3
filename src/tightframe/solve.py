"""solve: the one entry; picks a closed form, the certified solver or the multi-start search."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from dataclasses import replace

from tightframe.checks import positive_float, whole_number
from tightframe.context_solution import ContextMemory, ContextSolution, solve_contexts
from tightframe.geometry.blocks import Array, BlockMatrix, Partition
from tightframe.problem.problem import Problem
from tightframe.progress import Progress, ProgressLike, told, watched
from tightframe.rounding import gamma
from tightframe.solution import Solution, Status
from tightframe.solvers.continuation import Continuation
from tightframe.solvers.search import axes, multistart, narrow_orthant
from tightframe.solvers.search.budget import Budget
from tightframe.solvers.stats import Stats
from tightframe.solvers.sweep import Sweep
from tightframe.theory.axes import written_out
from tightframe.theory.certificate import Certificate, certify_blocks
from tightframe.theory.coverage import Coverage, coverage, is_convex, require_covered
from tightframe.theory.thresholds import MAX_FOLLOWED

#: Which share of larger decays is tried first, and which is the least.
SHARE, LEAST_SHARE = 1e-10, 1e-89


class NotConvergedWarning(UserWarning):
    """A solver stopped before the certified gap, or a local minimum, was reached."""


def solve(
    problem: Problem,
    tol: float = 1e-8,
    *,
    max_iterations: int = 5000,
    starts: int = multistart.STARTS,
    seed: int = 0,
    time_limit: float | None = None,
    progress: ProgressLike = None,
) -> Solution:
    """Return a global minimiser with its certificate, or the best local minimum of a search.

    Certified are cross-entropy with real features and one layer (any counts, any bias),
    cross-entropy with non-negative features (one layer, no bias), and MSE (no or free bias at any
    depth; decayed bias with one layer). With one layer, non-negative features are certified in
    other cases too where a bound closes, as it does nearly always (of more than 100 classes up to
    100 groups of equal ones). Problems with real features and
    several layers, or with ``dim`` too small, are not convex: there the best of many local minima
    is returned with ``status`` ``"local"`` and no gap (with one layer only where the solution
    without ``dim`` does not fit into ``dim``: if it does, that is the certified minimiser).
    Problems with ``targets`` are certified; theirs is a
    `tightframe.context_solution.ContextSolution`.

    Parameters
    ----------
    problem : Problem
    tol : float
        The certified gap allowed, relative to the objective. Rounding of the logits (1e-16 of their
        size) limits what can be certified where the objective is tiny.
    max_iterations : int
        Iterations allowed to the numerical solver; in a search to each of the best starts.
    starts : int
        Of a search: random starts at every width; with one layer, twice those of each chain.
        Structured ones and closed forms are added.
    seed : int
        Of a search's random numbers.
    time_limit : float, optional
        Seconds after which a search ends with what it has found.
    progress : callable or bool, optional
        Called in a search, at least every 0.1 s or so, with how many steps are done, how many
        there may be, and what goes on, in words. A true answer ends the search with what it has.
        True writes that on one line of standard error, False nothing; by default the line is
        written where Python is used by hand, as in notebooks.

    Returns
    -------
    Solution
        With ``status`` ``"optimal"`` iff the gap is within the tolerance, ``"local"`` if there is
        no gap; otherwise ``"not_converged"``, after a `NotConvergedWarning`: also where the time
        limit or ``progress`` ended a search. ``solution.search.unsure`` says whether too few
        chains of it agree.

    Raises
    ------
    ValueError
        If an argument is out of range, features are non-negative with several layers and no closed
        form, or there are too many classes to search.

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
    if time_limit is not None:
        time_limit = positive_float("time_limit", time_limit)
    with watched(progress, "searching") as tell:
        budget = Budget(time_limit, tell)
        return solve_along(problem, tol, max_iterations, starts, seed, Continuation(), budget)


def solve_along(
    problem: Problem,
    tol: float,
    max_iterations: int,
    starts: int,
    seed: int,
    continuation: Continuation,
    budget: Budget | None = None,
) -> Solution:
    """Solve the next problem of a sweep; `solve` without the checks, with a memory."""
    start = time.perf_counter()
    if problem.targets is not None:
        of_contexts = solve_contexts(problem, tol, max_iterations)
        _warn_if_not_converged(of_contexts, tol, max_iterations)
        object.__setattr__(of_contexts, "seconds", time.perf_counter() - start)
        return of_contexts
    found = coverage(problem)
    if found.outcome == "refused":
        raise ValueError(f"problem: {found.reason}")
    if found.is_certified:
        solution = _certified(found, tol, max_iterations, continuation)
    elif problem.features == "nonnegative":
        solution = _in_the_orthant(found, tol, max_iterations, starts, seed, budget)
    else:
        solution = _best_found(found, tol, max_iterations, starts, seed, budget)
    _warn_if_not_converged(solution, tol, max_iterations)
    return replace(solution, seconds=time.perf_counter() - start)


def solve_certified(problem: Problem, tol: float = 1e-8) -> Solution:
    """Return a solution with a certificate, for what means nothing without.

    Raises
    ------
    ValueError
        If the problem is not certified; where a bound may close or not, after it did not.
    """
    if problem.targets is not None:
        return solve(problem, tol)  # which certifies all of them
    if problem.features == "real" or coverage(problem).outcome == "refused":
        require_covered(problem)
    solution = solve(problem, tol)
    if solution.gap is None:
        raise ValueError(f"problem: {coverage(problem).reason}")
    return solution


def uses_solver(problem: Problem) -> bool:
    """Tell whether a problem has the convex form and no closed form."""
    found = coverage(problem)
    return found.is_certified and found.family is None


def solve_sweep(
    problems: Sequence[Problem], tol: float, max_iterations: int, tell: Progress | None = None
) -> list[Solution]:
    """Solve problems that differ in their decays only and for which `uses_solver` holds."""
    start = time.perf_counter()
    points = Sweep(problems, tol, max_iterations, tell=tell).points()
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


def solve_context_sweep(
    problems: Sequence[Problem], tol: float, max_iterations: int, tell: Progress | None = None
) -> list[ContextSolution]:
    """Solve problems with targets that differ in their decays only, from the largest down."""
    memory = ContextMemory()
    solutions: dict[int, ContextSolution] = {}
    for i in sorted(range(len(problems)), key=lambda i: -problems[i].logit_decay):
        start = time.perf_counter()
        solution = solve_contexts(problems[i], tol, max_iterations, memory)
        _warn_if_not_converged(solution, tol, max_iterations)
        object.__setattr__(solution, "seconds", time.perf_counter() - start)
        solutions[i] = solution
        told(tell, len(solutions), len(problems))
    return [solutions[i] for i in range(len(problems))]


def _warn_if_not_converged(solution: Solution, tol: float, max_iterations: int) -> None:
    if solution.status is Status.NOT_CONVERGED:
        where = f"before a local minimum, after {max_iterations} iterations"
        search = solution.search
        if search is not None and search.stopped is not None:
            where = f"its search early ({search.stopped}): {search.verdict}"
        elif solution.gap is not None:
            gap = solution.gap / solution.objective
            where = f"at a relative gap of {gap:.1e}, above tol = {tol:.1e}"
        warnings.warn(f"solve stopped {where}", NotConvergedWarning, stacklevel=4)


def _certified(
    case: Coverage, tol: float, max_iterations: int, continuation: Continuation
) -> Solution:
    solution = _solution(case.problem, *_minimise(case, tol, max_iterations, continuation), tol)
    if is_convex(case.problem) and solution.lower_bound == 0 < solution.objective:
        return _bounded_by_larger_decays(solution, tol, max_iterations)
    return solution


def _bounded_by_larger_decays(solution: Solution, tol: float, max_iterations: int) -> Solution:
    """Bound a minimum that is below all rounding.

    As a function of lambda it is concave and not negative at zero: a share of lambda has at least
    that share of the minimum.
    """
    problem, share = solution.problem, 1.0
    while share > LEAST_SHARE and problem.logit_decay < 1:
        share *= SHARE
        decay = solution.problem.logit_decay / share  # their ratio changes nothing
        problem = problem.replace(weight_decay=decay, feature_decay=decay)
        certificate = _minimise(coverage(problem), tol, max_iterations, Continuation())[2]
        if certificate.dual > 0:
            bound = min(share * certificate.dual * (1 - gamma(8)), solution.objective)
            return replace(solution, lower_bound=bound, note="duality gap of larger decays")
    return solution


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
    case: Coverage,
    tol: float,
    max_iterations: int,
    starts: int,
    seed: int,
    budget: Budget | None,
) -> Solution:
    """Search, unless the solution without a width fits into the width: then that is certified."""
    problem, relaxed = case.problem, None
    if problem.depth == 1:
        wide = coverage(problem.replace(dim=None))
        relaxed = _certified(wide, tol, max_iterations, Continuation())
        if problem.width is not None and relaxed.rank <= problem.width:
            return replace(
                relaxed,
                problem=problem,
                method=f"{relaxed.method}; rank {relaxed.rank} fits dim {problem.width}",
                note=f"{relaxed.note} of the problem without dim",
            )
    found = multistart.search(
        problem,
        starts=starts,
        seed=seed,
        max_iterations=max_iterations,
        relaxed=None if relaxed is None else (relaxed.blocks, relaxed.lower_bound),
        budget=budget,
    )
    done = found.search.converged and found.search.stopped is None
    return Solution(
        problem=problem,
        blocks=found.logits,
        group_bias=found.bias,
        objective=found.objective,
        lower_bound=None,
        method=f"multi-start search: {found.search.winner}",
        status=Status.LOCAL if done else Status.NOT_CONVERGED,
        note=f"no certificate: {case.reason}; {found.search.verdict}",
        seconds=0.0,
        search=found.search,
        stats=Stats(starts=found.search.starts),
    )


def _in_the_orthant(
    case: Coverage, tol: float, max_iterations: int, starts: int, seed: int, budget: Budget | None
) -> Solution:
    """Add axes until a bound closes; search where there may not be so many, or none closes.

    Of more classes than a search takes, equal ones are treated as a group.
    """
    problem = case.problem
    few = problem.num_classes <= multistart.MAX_CLASSES
    if not few:
        _require_few_groups(problem)
    partition = (Partition.singletons if few else Partition.coarsest)(problem)
    budget = Budget() if budget is None else budget
    wide = axes.minimise(problem, partition, max_iterations=max_iterations, budget=budget)
    if problem.width is None or wide.width <= problem.width:
        found, search = wide, wide.record(problem, seed, budget.stopped)
    elif not few:
        raise ValueError(
            f"dim: got {problem.dim}, and the minimiser without has {wide.width} axes; one for "
            f"fewer is searched for up to {multistart.MAX_CLASSES} classes, got "
            f"{problem.num_classes}"
        )
    else:
        found, search = narrow_orthant.search(
            problem,
            wide,
            starts=starts,
            seed=seed,
            max_iterations=max_iterations,
            budget=budget,
        )
    blocks, bias = found.blocks(problem)
    solution = Solution(
        problem=problem,
        blocks=blocks,
        group_bias=bias,
        objective=found.objective,
        lower_bound=None,
        method=f"multi-start search in the orthant: {search.winner}",
        status=Status.LOCAL if search.converged else Status.NOT_CONVERGED,
        note=f"no certificate: {case.reason}; {search.verdict}",
        seconds=0.0,
        search=search,
        stats=Stats(starts=search.starts),
        factors=written_out(problem, found.partition, found.axes) if few else None,
        axes=None if few else found.axes,
    )
    if found.objective - wide.lower_bound > tol * found.objective:
        return solution
    return replace(
        solution,
        lower_bound=wide.lower_bound,
        method=f"descent in the orthant, {found.width} axes",
        status=Status.OPTIMAL,
        note="duality gap" if problem.width is None else "duality gap of the problem without dim",
        search=None,
    )


def _require_few_groups(problem: Problem) -> None:
    """Refuse more groups of equal classes than a descent in the orthant takes."""
    if (g := len(problem.groups)) > MAX_FOLLOWED:
        raise ValueError(
            f"counts: got {problem.num_classes} classes in {g} groups of equal ones; non-negative "
            f"features with a bias, or a logit adjustment, are solved for at most {MAX_FOLLOWED}"
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
