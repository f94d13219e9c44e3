"""Margins of a problem's groups, predicted or measured."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tightframe.geometry.states import STATES
from tightframe.problem.problem import Problem
from tightframe.solution import Solution
from tightframe.training.margins import group_margins


class Margins(NamedTuple):
    """Margins of a class of each group, shape (G,) each.

    Attributes
    ----------
    sibling : ndarray
        Own logit minus a sibling's; for a class alone the largest other.
    nearest : ndarray
        Decision margin: own logit minus the largest of all others, bias included.
    collapsed : ndarray of bool
        Whether the group is predicted to share one prediction or to vanish; False if measured.
    """

    sibling: NDArray[np.float64]
    nearest: NDArray[np.float64]
    collapsed: NDArray[np.bool_]


def is_grouped(solution: Solution) -> bool:
    """Tell whether a solution treats the classes of every group alike (too narrow: it may not)."""
    return solution.blocks.partition.num_groups == len(solution.problem.groups)


def predicted(solution: Solution) -> Margins:
    """Return the margins of a solution; means over the classes where they differ in a group."""
    if is_grouped(solution):
        nearest = solution.group_states.decision_margin
        return Margins(solution.group_margins, nearest, solution.group_collapsed)
    found = of_logits(solution.problem, solution.logits + solution.bias[:, None])
    groups = solution.problem.class_groups
    collapsed = np.bincount(groups, solution.collapsed) == np.bincount(groups)
    return found._replace(collapsed=collapsed)


def of_logits(problem: Problem, logits: ArrayLike) -> Margins:
    """Return the mean margins of mean logits (K, K), bias included; column k is class k's."""
    rivals = np.array(logits, dtype=np.float64)
    own = np.diagonal(rivals).copy()
    np.fill_diagonal(rivals, -np.inf)
    groups = problem.class_groups
    nearest = np.bincount(groups, own - rivals.max(axis=0)) / np.bincount(groups)
    none = np.zeros(len(problem.groups), dtype=bool)
    return Margins(group_margins(problem, logits), nearest, none)


def states(solution: Solution) -> list[str]:
    """Return the state of every group's classes; the worst one where they differ in a group."""
    if is_grouped(solution):
        found: list[str] = solution.group_states.state.tolist()
        return found
    worst = np.full(len(solution.problem.groups), len(STATES))
    order = np.array([STATES.index(state) for state in solution.states.state])
    np.minimum.at(worst, solution.problem.class_groups, order)
    return [STATES[i] for i in worst]
