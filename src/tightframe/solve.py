"""solve: the one entry; picks a closed form or the certified numerical solver."""

from __future__ import annotations

import time
import warnings

import numpy as np

from tightframe.blocks import Array, BlockMatrix, Partition
from tightframe.closed_form import FAMILIES
from tightframe.problem import Problem, positive_float, whole_number
from tightframe.solution import Solution
from tightframe.solvers import factored
from tightframe.solvers.certificate import Certificate, certify_blocks, is_convex, uncovered


class NotConvergedWarning(UserWarning):
    """A solver stopped before the certified gap reached the tolerance."""


def solve(problem: Problem, tol: float = 1e-8, *, max_iterations: int = 5000) -> Solution:
    """Return a global minimiser with its certificate.

    Parameters
    ----------
    problem : Problem
        Cross-entropy with real features and one layer (any counts, any bias), cross-entropy with
        non-negative features (no bias), or MSE (no or free bias at any depth; decayed bias with
        one layer).
    tol : float
        The certified gap allowed, relative to the objective. Rounding of the logits (1e-16 of their
        size) limits what can be certified where the objective is tiny.
    max_iterations : int
        Newton iterations allowed to the numerical solver.

    Returns
    -------
    Solution
        With ``status`` ``"optimal"`` iff the gap is within the tolerance; otherwise
        ``"not_converged"``, after a `NotConvergedWarning`.

    Raises
    ------
    ValueError
        If no closed form and no certified solver covers the problem.

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
    start = time.perf_counter()
    logits, bias, certificate, method = _minimise(problem, tol, max_iterations)
    optimal = certificate.gap <= tol * certificate.primal
    if not optimal:
        warnings.warn(
            f"solve stopped at a relative gap of {certificate.gap / certificate.primal:.1e}, "
            f"above tol = {tol:.1e}",
            NotConvergedWarning,
            stacklevel=2,
        )
    return Solution(
        problem=problem,
        blocks=logits,
        group_bias=bias,
        objective=certificate.primal,
        lower_bound=certificate.dual,
        method=method,
        status="optimal" if optimal else "not_converged",
        note="duality gap" if is_convex(problem) else "gap to the theorem's lower bound",
        seconds=time.perf_counter() - start,
    )


def _minimise(
    problem: Problem, tol: float, max_iterations: int
) -> tuple[BlockMatrix, Array, Certificate, str]:
    for family in FAMILIES:
        if family.applies(problem):
            logits, bias = family.solve(problem)
            certificate = certify_blocks(problem, logits, bias)
            return logits, bias, certificate, f"closed form: {family.NAME}"
    if not is_convex(problem):
        raise ValueError(f"problem: {uncovered(problem)}")
    partition = Partition.coarsest(problem)
    result = factored.minimise(problem, partition, tol=tol, max_iterations=max_iterations)
    bias = result.bias
    if problem.bias == "free" and problem.loss == "cross_entropy":
        # Cross-entropy ignores a constant added to the bias: fix the mean over classes at zero.
        bias = bias - np.average(bias, weights=partition.sizes)
    return result.logits, bias, result.certificate, "grouped Newton"
