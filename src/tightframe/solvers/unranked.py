"""The best point of rank zero between groups, and whether it is the minimiser."""

from __future__ import annotations

import numpy as np

from tightframe.geometry.blocks import Partition, singular_values
from tightframe.problem.problem import Problem
from tightframe.solvers.newton import minimise_from, polish
from tightframe.solvers.starts import Factors


def unranked(
    problem: Problem, partition: Partition, near: Factors | None, tol: float, max_iterations: int
) -> tuple[Factors, float]:
    """Return the best factors of rank zero, and how much the gradient exceeds the decay there.

    Where it does not, they are the minimiser. Next to the decay from which on that is so, factors
    of rank one converge too slowly to tell.

    Parameters
    ----------
    problem : Problem
        One linear layer, real features, wide enough.
    partition : Partition
    near : Factors or None
        Margins within groups and a bias to start from.
    tol : float
        Relative gap whose accuracy Newton steps go to.
    max_iterations : int
    """
    g = partition.num_groups
    none = np.zeros((g, 0))
    within = np.zeros(g) if near is None else near.within
    bias = np.zeros(g) if near is None else near.bias
    start = Factors(none, none, within, bias)
    factors = polish(start, problem, partition, tol, max_iterations)
    if factors is None:
        factors = minimise_from(start, problem, partition, tol, 0).factors
    scores = np.zeros((g, g)) + factors.bias[:, None]
    residual = problem.loss_object.datafit(partition).residual(factors.within, scores)
    largest = float(singular_values(residual.reduced)[0])
    return factors, largest / partition.num_samples - problem.logit_decay
