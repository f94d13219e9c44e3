"""Max-margin logits of label distributions: a projection a context, then SVT, to a certified gap.

Douglas-Rachford on ``||X||_*`` and what the margins ask. That falls apart into one projection a
context, in one unknown, which a few Newton steps from below find exactly; the norm's proximal map
is singular value thresholding (SVT). What a projection takes off is a dual of the right signs.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tightframe.geometry.blocks import Array
from tightframe.theory.max_margin import SignTest, bound, cost
from tightframe.theory.supports import Supports

#: Longer steps than one: usual for this splitting, which converges for any below two.
RELAXATION = 1.6

#: The threshold is balanced after every so many steps, up to so many; alone within the band.
ADAPT_EVERY, ADAPT_UNTIL = 10, 1000
BAND, LONGEST_CHANGE = 1.25, 2.5

#: Newton steps of the projections; each fixes the labels that bind, so that few are taken.
PROJECTION_STEPS = 100


class Found(NamedTuple):
    """The best feasible X, its nuclear norm, the best lower bound, and the steps taken."""

    x: Array
    norm: float
    bound: float
    steps: int


def max_margin(supports: Supports, start: SignTest, tol: float, max_iterations: int) -> Found:
    """Return max-margin logits whose certified gap is ``tol`` times their norm, or the best found.

    Parameters
    ----------
    supports : Supports
    start : SignTest
        Of the centred support matrix, where it starts from.
    tol : float
    max_iterations : int
    """
    x = supports.support_matrix
    best = Found(x, start.cost.norm, start.bound, 0)
    left, values, right = np.linalg.svd(x, full_matrices=False)
    threshold = float(np.median(values[: start.rank]))
    state = x + threshold * (left[:, : start.rank] @ right[: start.rank])
    previous = x
    for step in range(1, max_iterations + 1):
        low = _svt(supports, state, threshold)
        dual = state - low
        target = low - dual
        x = _projected(supports, target)
        state = state + RELAXATION * (x - low)
        if step % ADAPT_EVERY == 0 or step == max_iterations:
            best = _better(best, supports, x, x - target, step)
            if best.norm - best.bound <= tol * best.norm:
                return best
            if step <= ADAPT_UNTIL:
                change = _imbalance(x, low, previous, dual)
                if not 1 / BAND < change < BAND:
                    threshold /= change
                    state = low + (state - low) / change
        previous = low
    return best._replace(steps=max_iterations)


def _better(best: Found, supports: Supports, x: Array, normal: Array, step: int) -> Found:
    """Return the better of each, norm and bound, of those known and those of a step."""
    x = supports.centered(x)
    norm = cost(x).norm
    if norm < best.norm:
        best = best._replace(x=x, norm=norm)
    return best._replace(bound=max(best.bound, bound(supports, normal, best.norm)), steps=step)


def _svt(supports: Supports, state: Array, threshold: float) -> Array:
    """Return the proximal map of ``threshold ||centred X||_*``; what costs nothing stays."""
    centered = supports.centered(state)
    left, values, right = np.linalg.svd(centered, full_matrices=False)
    low: Array = (left * np.maximum(values - threshold, 0.0)) @ right
    return low + (state - centered)


def _projected(supports: Supports, x: Array) -> Array:
    """Return the nearest X whose margins are as asked.

    In every context its labels share a scaled logit t, and no other label has more than t - 1.
    The slope of half the squared distance in t is increasing and concave, so Newton's steps from
    the labels' own mean, where it is not positive, never pass its zero.
    """
    inside, y = supports.inside, x / supports.roots
    weights = np.broadcast_to(supports.row_weights[:, None], y.shape)
    own = np.where(inside, weights, 0.0)
    steepness = own.sum(axis=0)
    pull = (own * y).sum(axis=0)
    level = pull / steepness
    for _ in range(PROJECTION_STEPS):
        binding = np.where(~inside & (y + 1 > level), weights, 0.0)
        new = (pull + (binding * (y + 1)).sum(axis=0)) / (steepness + binding.sum(axis=0))
        if not (new > level).any():
            break
        level = np.maximum(new, level)
    nearest: Array = np.where(inside, level, np.minimum(y, level - 1)) * supports.roots
    return nearest


def _imbalance(x: Array, low: Array, previous: Array, dual: Array) -> float:
    """Return the factor by which the threshold should shrink: how far primal residuals lead."""
    primal = np.linalg.norm(x - low) * np.linalg.norm(dual)
    moved = np.linalg.norm(low - previous) * np.linalg.norm(low)
    if not (primal > 0 and moved > 0):
        return 1.0
    return float(np.clip(np.sqrt(primal / moved), 1 / LONGEST_CHANGE, LONGEST_CHANGE))
