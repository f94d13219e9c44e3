"""A lower bound for features of one dimension, where that of the wide problem is far away."""

from __future__ import annotations

import numpy as np

from tightframe.problem.problem import Problem


def rank_one_bound(problem: Problem) -> float | None:
    """Return ``sum_k s_(k) log(ceil(k / 2))``, s_(k) the shares of the loss in falling order.

    It holds for softmax with one-dimensional features, no bias, no logit adjustment, one-hot
    labels and no margins, at any depth and decays; None for other problems. There the logits of
    class k are ``w_j h_k``, so all classes j with ``(w_j - w_k) h_k >= 0`` get at least its own
    probability: the loss of the class with the r-th largest w is at least
    ``log(min(r, K + 1 - r))``. Over all places r these are ``log(ceil(k / 2))``, k = 1 to K, and
    no order of the classes costs less than the largest shares in the cheapest places (rearrangement
    inequality).

    Parameters
    ----------
    problem : Problem

    Examples
    --------
    >>> narrow = Problem("10x4", weight_decay=1e-9, feature_decay=1e-9, dim=1)
    >>> round(rank_one_bound(narrow), 6)
    0.346574
    """
    if (
        problem.width != 1
        or problem.bias != "none"
        or not problem.loss_object.is_softmax
        or np.ptp(problem.logit_adjustment) > 0
        or problem.has_soft_labels
    ):
        return None
    shares = np.sort(problem.counts / problem.counts.sum() * problem.class_weights)[::-1]
    return float(shares @ np.log(np.arange(2, len(shares) + 2) // 2))
