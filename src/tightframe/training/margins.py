"""Margins inside groups of interchangeable classes: what shows whether they have collapsed."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tightframe.problem.problem import Problem, require_no_targets
from tightframe.theory.certificate import finite_array


def group_margins(problem: Problem, logits: ArrayLike) -> NDArray[np.float64]:
    """Return the mean margin inside every group of interchangeable classes, shape (G,).

    For a group of several classes: own logit minus a sibling's, averaged over the ordered pairs
    of classes inside the group. For a class alone: own logit minus the largest other one.

    Parameters
    ----------
    problem : Problem
        Its `Problem.groups` are the groups.
    logits : array_like, shape (K, K)
        Mean logits with bias (which cancels between siblings); column k holds the samples of
        class k.

    Raises
    ------
    ValueError
        If ``problem`` is none or the logits are not K x K finite numbers.
    """
    if not isinstance(problem, Problem):
        raise ValueError(f"problem: got {type(problem).__name__}, need a tightframe.Problem")
    require_no_targets(problem, "group_margins")
    z = finite_array("logits", logits, (problem.num_classes, problem.num_classes))
    margins = np.diagonal(z) - z  # [j, k]: own logit of class k minus logit j
    result = np.empty(len(problem.groups))
    for i, group in enumerate(problem.groups):
        members = np.flatnonzero(problem.class_groups == i)
        if group.classes == 1:
            k = members[0]
            result[i] = np.delete(margins[:, k], k).min()
        else:
            inside = margins[np.ix_(members, members)]  # its diagonal is zero
            result[i] = inside.sum() / (group.classes * (group.classes - 1))
    return result
