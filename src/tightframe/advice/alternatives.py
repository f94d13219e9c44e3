"""Other losses that explain a trained network as well as the one that was told, or better.

A loss term and a decay can pull alike: of balanced classes label smoothing *is* extra decay. Each
remedy that people train with is tried at many strengths; what remains of the gradients tells which
strengths can be excluded. Those that cannot go with other decays.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tightframe.advice.stationarity import LEAST_ERRORS, Fit, Trained, fit_decays
from tightframe.geometry.blocks import Array
from tightframe.problem.problem import Problem
from tightframe.saved import kept
from tightframe.shown import record

#: A loss explains a network as well if what is left is at most this multiple, and better below
#: this share: what training left undone moves errors by less.
AS_WELL, BETTER = 1.25, 0.5

#: Decays closer than this factor are not worth a word.
SAME_DECAY = 1.2

#: Strengths that are tried first: the largest, halved so often.
HALVINGS = 7

#: Steps of the search for the best strength between two of those.
STEPS = 14

#: Alternatives that a sentence names.
MOST_NAMED = 3

#: Multiplications of one look at the samples: beyond it at some of them, one a class at least.
MOST_WORK = 2**21

#: How many times that is too much for many looks, and for any.
FEW_LOOKS, NO_LOOK = 16, 2**12


@dataclass(frozen=True)
class _Remedy:
    """A loss term with one strength.

    Attributes
    ----------
    text : str
        With a place for the strength.
    usual, most : float
        What people use, and up to where it is tried.
    of : callable
        Of the counts and a strength: the argument of `Problem`.
    of_softmax : bool
        Whether only cross-entropy has it.
    of_equal_counts : bool
        Whether it changes anything where all counts are equal.
    """

    text: str
    usual: float
    most: float
    of: Callable[[Array, float], Any]
    of_softmax: bool = True
    of_equal_counts: bool = False


#: By the argument of `Problem`.
_REMEDIES = {
    "label_smoothing": _Remedy(
        "label smoothing {:.2g}", 0.1, 0.512, lambda n, x: x, of_equal_counts=True
    ),
    "class_margins": _Remedy(
        "class margins {:.2g} (n_min / n)^(1/4), as LDAM's,",
        0.5,
        1.024,
        lambda n, x: x * (n.min() / n) ** 0.25,
        of_equal_counts=True,
    ),
    "logit_scale": _Remedy(
        "logit scales (n / n_max)^{:.2g}, as CDT's,", 0.2, 0.512, lambda n, x: (n / n.max()) ** x
    ),
    "feature_weights": _Remedy(
        "feature weights n (n / n_max)^{:.2g}, as LDT's,",
        0.4,
        1.024,
        lambda n, x: n * (n / n.max()) ** x,
        of_softmax=False,
    ),
    "class_weights": _Remedy(
        "class weights (N / (K n))^{:.2g}",
        1.0,
        1.024,
        lambda n, x: (n.mean() / n) ** x,
        of_softmax=False,
    ),
    "logit_adjustment": _Remedy(
        "logit adjustment {:.2g} log(n / N)", 1.0, 2.048, lambda n, x: x * np.log(n / n.sum())
    ),
}


@kept
@record
@dataclass(frozen=True)
class Alternative:
    """Another loss for which a network is stationary, and the decays that go with it.

    Attributes
    ----------
    term : str
        Argument of `Problem` that differs: ``"label_smoothing"``, ...
    text : str
        What it is, with its strength, in words.
    strength, most : float
        Of the decays below; and up to which the network is explained as well. The same where the
        loss explains it better.
    weight_decay, feature_decay : float
    weight_decays : tuple of float
        The least and the largest that go with a strength which explains the network as well.
    error : float
        Geometric mean of what is left of the gradients, over the decay's part as told.
    better : bool
        Whether that is at most half of what the loss as told leaves.
    problem : Problem
        With the term and these decays.
    """

    term: str
    text: str
    strength: float
    most: float
    weight_decay: float
    feature_decay: float
    weight_decays: tuple[float, float]
    error: float
    better: bool
    problem: Problem

    def __str__(self) -> str:
        text = (
            f"{self.text} with weight_decay {self.weight_decay:.3g}, feature_decay "
            f"{self.feature_decay:.3g}"
        )
        if self.better:
            return text
        low, high = self.weight_decays
        return f"{text} (weight_decay {low:.2g} to {high:.2g} for strengths up to {self.most:.2g})"

    def to_dict(self) -> dict[str, Any]:
        """Return everything JSON-ready."""
        ranges = {"weight_decays": list(self.weight_decays)}
        return vars(self) | ranges | {"problem": self.problem.to_dict()}


def alternatives(problem: Problem, trained: Trained, told: Fit) -> tuple[Alternative, ...] | None:
    """Return the losses that explain a network as well as the one told, one a kind of term.

    Terms that the problem has are not tried, but for another strength of label smoothing. Where
    some explain it better, only the best of these, and what is near it, the best first. None where
    so many classes and features take too long; of many only usual strengths are tried.

    Parameters
    ----------
    problem : Problem
        As told.
    trained : Trained
    told : Fit
        Of that problem.
    """
    k, d = trained.weight.shape
    seen = trained.thinned(max(MOST_WORK // (k * d), k))
    times = len(seen.labels) * k * d / MOST_WORK
    if times > NO_LOOK:
        return None
    if len(seen.labels) < len(trained.labels):
        told = fit_decays(problem, seen) or told  # compared with like
    tried = [name for name in _REMEDIES if _is_free(problem, name)]
    found = [_of(problem, seen, told, name, few=times > FEW_LOOKS) for name in tried]
    some = sorted((one for one in found if one is not None), key=lambda one: one.error)
    best = [one for one in some if one.better and BETTER * one.error <= some[0].error]
    return tuple(best or (one for one in found if one is not None))


def sentences(found: tuple[Alternative, ...] | None, told: Fit) -> list[str]:
    """Say what was found, one sentence or none.

    Parameters
    ----------
    found : tuple of Alternative or None
    told : Fit
    """
    if found is None:
        return ["whether another loss explains this network too was not asked: it is too large"]
    if not found:
        return []
    names = "; or ".join(str(one) for one in found[:MOST_NAMED])
    tell = "say what the training's loss had"
    if found[0].better:
        return [
            f"another loss explains this network better than the one told (error "
            f"{found[0].error:.2g}, as told {told.error(told):.2g}): {names}; {tell}"
        ]
    return [
        f"decays and terms of the loss cannot be told apart here: {names} would explain this "
        f"network as well; {tell}"
    ]


def _is_free(problem: Problem, name: str) -> bool:
    """Tell whether a kind of term may be tried."""
    remedy = _REMEDIES[name]
    if remedy.of_softmax and not problem.loss_object.takes_adjustment:
        return False
    if not remedy.of_equal_counts and np.ptp(problem.counts) == 0:
        return False
    return name == "label_smoothing" or name not in problem.to_dict()


def _of(
    problem: Problem, trained: Trained, told: Fit, name: str, *, few: bool
) -> Alternative | None:
    """Return what one kind of term explains, None where nothing that is worth a word."""
    remedy, counts = _REMEDIES[name], problem.counts.astype(np.float64)
    own = told.error(told)
    fits: dict[float, tuple[Problem, Fit]] = {}

    def error(strength: float) -> float:
        try:
            changed = problem.replace(**{name: remedy.of(counts, strength)})
        except ValueError:  # margins below zero and smoothing do not go together
            return np.inf
        fit = fit_decays(changed, trained)
        if fit is None:
            return np.inf
        fits[strength] = changed, fit
        return fit.error(told)

    grid = [] if few else [remedy.most / 2**i for i in range(HALVINGS)]
    errors = [error(x) for x in (*grid, remedy.usual)]
    if problem.label_smoothing and name == "label_smoothing":
        error(0.0)
    i = int(np.argmin(errors[: len(grid)])) if grid else 0
    if grid and errors[i] < own and own > min(LEAST_ERRORS) / BETTER:
        _golden(error, grid[i] / 2, min(2 * grid[i], remedy.most))
    best = min(fits, key=lambda x: fits[x][1].error(told), default=0.0)
    better = bool(fits) and fits[best][1].error(told) <= BETTER * own
    as_well = [
        x
        for x, (_, fit) in fits.items()
        if fit.error(told) <= AS_WELL * own and _are_apart(fit, told)
    ]
    if not (better or as_well):
        return None
    strength = best if better else _shown(as_well, remedy.usual)
    changed, fit = fits[strength]
    text = remedy.text.format(strength)
    if np.ptp(counts) == 0:  # one number for all classes
        text = f"{name.replace('_', ' ')} {strength:.2g}"
    decays = {"weight_decay": fit.weight_decay, "feature_decay": fit.feature_decay}
    possible = [fit] if better else [told, *(fits[x][1] for x in as_well)]
    of_weight = [one.weight_decay for one in possible]
    return Alternative(
        name,
        text,
        strength,
        strength if better else max(as_well),
        **decays,
        weight_decays=(min(of_weight), max(of_weight)),
        error=fit.error(told),
        better=better,
        problem=changed.replace(**decays, dim=None),
    )


def _shown(strengths: list[float], usual: float) -> float:
    """Return one of many that do as well: what people use, nothing, or else the farthest."""
    return next((x for x in (usual, 0.0) if x in strengths), max(strengths))


def _are_apart(one: Fit, other: Fit) -> bool:
    """Tell whether decays differ enough to matter."""
    ratios = np.array(one[:2]) / np.array(other[:2])
    return bool(np.abs(np.log(ratios)).max() > np.log(SAME_DECAY))


def _golden(error: Callable[[float], float], low: float, high: float) -> None:
    """Look for the least error between two strengths by golden sections: infinite ones are fine."""
    share = (np.sqrt(5) - 1) / 2
    a, b = high - share * (high - low), low + share * (high - low)
    at_a, at_b = error(a), error(b)
    for _ in range(STEPS - 2):
        if at_a <= at_b:
            high, b, at_b = b, a, at_a
            a = high - share * (high - low)
            at_a = error(a)
        else:
            low, a, at_a = a, b, at_b
            b = low + share * (high - low)
            at_b = error(b)
