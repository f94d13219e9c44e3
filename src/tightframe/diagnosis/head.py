"""What the head alone can do: is it at its optimum, and what other heads do on the same features.

Convex problems, solved and certified (`tightframe.heads.fitted`). What they say about training the
network again was measured on 45 ordinary networks.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tightframe.diagnosis.evidence import SMALL_SHARE
from tightframe.diagnosis.training import Training
from tightframe.heads.fitted import MAX_EVALUATIONS, FittedHead, fit_head, minimise
from tightframe.heads.last_layer import LastLayer
from tightframe.heads.scores import Scores
from tightframe.saved import kept
from tightframe.shown import record
from tightframe.solve import NotConvergedWarning

Array = NDArray[np.float64]

#: A class is lost below this training accuracy.
LOST_BELOW = 0.5

#: A head whose training balanced accuracy is lower by more than this is harmful.
HARMFUL = 0.02

#: Excess of the objective over its least value, as a share of it.
AT_OPTIMUM, NEARLY = 0.01, 0.1

#: Relative gap to which heads are fitted: far below what changes an answer.
TOL = 1e-4

#: Share of the ridge that a balanced head has.
LOWER = 0.1

#: Larger heads are not fitted: L-BFGS keeps some twenty of them.
MOST_ENTRIES = 2 * 10**7

#: Multiplications that one fit may take, some ten seconds; fewer evaluations are not begun.
MOST_WORK, FEWEST_EVALUATIONS = 10**11, 25

#: A free bias has this share of the ridge, so that the problem stays strongly convex.
FREE_BIAS = 1e-4

#: Where no ridge fits the head, heads get this one, over the mean squared length of the features.
USUAL_RIDGE = 1e-3

AS_IT_IS = "as it is"
POST_HOC = "post-hoc logit adjustment"
ADJUSTED = "head with logit adjustment"
BALANCED = "balanced head"

CAPTION_NONE_LOST = (
    "No class is lost: training again with the same change gave the same held-out balanced "
    "accuracy within about .01 (74 networks)."
)
CAPTION_LOST = (
    "Classes are lost: training again with balanced weights gave .02 more than the balanced head "
    "on average, up to .19; in 6 of 74 networks it gave less, by up to .11 (label smoothing)."
)


@kept
@record
@dataclass(frozen=True, eq=False)
class HeadRow:
    """One head on the network's features.

    Attributes
    ----------
    name : str
    training : Scores
    held_out : Scores or None
    large : float or None
        Mean recall of the classes that are not small: held-out where it is known, else training.
    harmful : bool
        Whether the training balanced accuracy is lower than as it is by more than .02.
    costs : tuple of int
        Classes whose training accuracy falls below .5.
    """

    name: str
    training: Scores
    held_out: Scores | None
    large: float | None
    harmful: bool = False
    costs: tuple[int, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return everything JSON-ready."""
        return {
            "name": self.name,
            "training": self.training.to_dict(),
            "held_out": None if self.held_out is None else self.held_out.to_dict(),
            "large_classes": self.large,
            "harmful": self.harmful,
            "costs": list(self.costs),
        }


@kept
@record
@dataclass(frozen=True, eq=False)
class HeadAnswer:
    """What the head alone can do.

    Attributes
    ----------
    ridge : float
        Of all fitted heads but the balanced one, which has a tenth of it.
    fitted_ridge : float or None
        Under which the head is as nearly stationary as it can be; None if the loss does not pull it
        outwards.
    ridge_given : bool
        Whether `ridge` is the training's weight decay.
    bias : {"none", "decayed", "free"}
        As which the head's bias is taken.
    suboptimality : float or None
        What the head's objective has above a certified lower bound, as a share of it.
    rows : tuple of HeadRow
        The first is the head as it is.
    separable : ndarray of bool, shape (K,)
        Whether the balanced head gets at least half of a class's training samples right.
    converged : bool
        Whether every fitted head reached its tolerance.
    some_lost : bool
    note : str
        What is left out, and why.
    told : tuple of str
        What the loss had beside weights and adjustment, in words.
    """

    ridge: float
    fitted_ridge: float | None
    ridge_given: bool
    bias: str
    suboptimality: float | None
    rows: tuple[HeadRow, ...]
    separable: NDArray[np.bool_] | None
    converged: bool
    some_lost: bool
    note: str = ""
    told: tuple[str, ...] = ()

    @property
    def verdict(self) -> str:
        """Whether the head is at its optimum, in a sentence."""
        if self.suboptimality is None:
            return self.note
        where = f"ridge {self.ridge:.3g} {'as given' if self.ridge_given else 'fitted'}"
        if self.bias != "none":
            where += f", bias taken as {self.bias}"
        if self.told:
            where += f", with {' and '.join(self.told)}"
        share = f"its objective could be {self.suboptimality:.2%} lower ({where})"
        if self.suboptimality <= AT_OPTIMUM:
            return f"The head is trained to the end: {share}."
        if self.suboptimality <= NEARLY:
            return f"The head is nearly at its optimum: {share}."
        return (
            f"The head is not at an optimum of cross-entropy and ridge: {share}. AdamW, "
            f"{'' if self.smoothed else 'label smoothing, '}augmentation or batch norm do that, or "
            "training has not ended."
        )

    @property
    def smoothed(self) -> bool:
        """Whether label smoothing of the training is taken into account."""
        return any(name.startswith("label smoothing") for name in self.told)

    @property
    def caption(self) -> str:
        """What the rows say about training again."""
        return CAPTION_LOST if self.some_lost else CAPTION_NONE_LOST

    def row(self, name: str) -> HeadRow | None:
        """Return a row by its name, if it is there."""
        return next((row for row in self.rows if row.name == name), None)

    def to_dict(self) -> dict[str, Any]:
        """Return everything JSON-ready."""
        return {
            "verdict": self.verdict,
            "ridge": self.ridge,
            "fitted_ridge": self.fitted_ridge,
            "ridge_given": self.ridge_given,
            "bias": self.bias,
            "suboptimality": self.suboptimality,
            "converged": self.converged,
            "rows": [row.to_dict() for row in self.rows],
            "note": self.note,
            "told": list(self.told),
        }


def ask_head(
    layer: LastLayer,
    training: Training,
    *,
    other_loss: str | None = None,
    bias: str | None = None,
    progress: Callable[[str], Any] | None = None,
) -> HeadAnswer:
    """Tell whether a head is at its optimum, and what others do on the same features.

    Parameters
    ----------
    layer : LastLayer
    training : Training
    other_loss : str, optional
        What the loss of the training is, in words, where it is not cross-entropy; then nothing is
        said about the optimum.
    bias : {"none", "decayed", "free"}, optional
        Whether the training's decay was on the bias; read off its gradient if it is not known.
    progress : callable, optional
        Called with what is done next, in words.
    """
    say = progress or (lambda _: None)
    say("what the head answers")
    now = _scores(layer, layer.weight, layer.bias)
    large = layer.counts * SMALL_SHARE > layer.counts.max()
    lost = now[0].recalls < LOST_BELOW

    def row(name: str, scores: tuple[Scores, Scores | None]) -> HeadRow:
        own, held = scores
        seen = own if held is None else held
        recalls = seen.recalls[large & ~np.isnan(seen.recalls)]
        return HeadRow(
            name,
            own,
            held,
            float(recalls.mean()) if len(recalls) else None,
            own.balanced < now[0].balanced - HARMFUL,
            tuple(np.flatnonzero((own.recalls < LOST_BELOW) & ~lost).tolist()),
        )

    rows = [row(AS_IT_IS, now)]
    if not training.is_flat:
        adjusted_bias = training.post_hoc + (0.0 if layer.bias is None else layer.bias)
        rows.append(row(POST_HOC, _scores(layer, layer.weight, adjusted_bias)))
    fitted = _fitted_ridge(layer, training)
    ridge = training.ridge or fitted or _usual_ridge(layer)
    any_lost = bool(lost.any())
    n, size = len(layer.labels), layer.weight.size
    most = _most_evaluations(layer)
    if size > MOST_ENTRIES or most < FEWEST_EVALUATIONS:
        note = (
            f"{n} samples and a head of {size} entries: whether it is at its optimum was not "
            "asked, and no others were fitted, which takes minutes: tf.heads.fit_head does."
        )
        return HeadAnswer(
            ridge, fitted, training.ridge is not None, "none", None, tuple(rows), None,
            True, any_lost, note, training.told,
        )  # fmt: skip
    excess, kind, note = None, "none", ""
    found: tuple[Array, Array | None] | None = None  # where the next fit begins
    if other_loss is not None:
        note = f"The loss {other_loss}: whether the head is at its optimum was not asked."
    elif training.ridge is None and fitted is None:
        note = (
            "No ridge fits the head: the loss does not pull it outwards, as it does when trained."
        )
    else:
        known = bias if bias in ("decayed", "free") and _has_bias(layer) else None
        say("whether the head is at its optimum")
        kind = known or _kind_of_bias(layer, training, ridge)
        excess, found = _suboptimality(layer, training, ridge, kind)
        if excess is None:
            note = (
                f"Whether the head is at its optimum could not be told in {most} evaluations of "
                "its objective."
            )
    equal = len(set(layer.counts[layer.counts > 0].tolist())) == 1
    adjusted = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotConvergedWarning)
        if not equal:
            say(f"fitting a {ADJUSTED}")
            adjusted = _fit(layer, ridge, logit_adjustment="prior", start=found)
            found = adjusted.weight, adjusted.bias
            rows.append(row(ADJUSTED, (adjusted.training, adjusted.held_out)))
        say(f"fitting a {BALANCED}")
        balanced = _fit(layer, LOWER * ridge, class_weights="balanced", start=found)
    rows.append(row(BALANCED, (balanced.training, balanced.held_out)))
    heads = [head for head in (adjusted, balanced) if head is not None]
    return HeadAnswer(
        ridge,
        fitted,
        training.ridge is not None,
        kind,
        excess,
        tuple(rows),
        balanced.training.recalls >= LOST_BELOW,
        all(head.status == "optimal" for head in heads),
        any_lost,
        note,
        training.told,
    )


def _scores(layer: LastLayer, weight: Array, bias: Array | None) -> tuple[Scores, Scores | None]:
    held = None if layer.held_out is None else Scores.of_head(*layer.held_out, weight, bias)
    return Scores.of_head(layer.features, layer.labels, weight, bias), held


def _fit(layer: LastLayer, ridge: float, **terms: Any) -> FittedHead:
    return fit_head(
        layer.features,
        layer.labels,
        weight_decay=ridge,
        num_classes=layer.num_classes,
        held_out=layer.held_out,
        tol=TOL,
        max_evaluations=_most_evaluations(layer),
        **terms,
    )


def _most_evaluations(layer: LastLayer) -> int:
    """Return how often an objective may be evaluated in one fit."""
    return min(MAX_EVALUATIONS, MOST_WORK // (len(layer.labels) * layer.weight.size))


# -- the head as it is -----------------------------------------------------------------------------


def _has_bias(layer: LastLayer) -> bool:
    """Tell whether a bias was trained: one of zeros was not."""
    return layer.bias is not None and bool(layer.bias.any())


def _own(layer: LastLayer, scale: float = 1.0) -> Array:
    if layer.bias is None or not _has_bias(layer):
        return layer.weight
    return np.column_stack([layer.weight, layer.bias / scale])


def _fitted_ridge(layer: LastLayer, training: Training) -> float | None:
    """Return the ridge for which the gradient by the weight is least, if it is positive."""
    _, gradient = training.ridge_problem(layer, 0.0, _has_bias(layer)).value_and_gradient(
        _own(layer)
    )
    pull = -float(np.vdot(gradient[:, : layer.weight.shape[1]], layer.weight))
    squares = float(np.vdot(layer.weight, layer.weight))
    return pull / squares if pull > 0 and squares > 0 else None


def _usual_ridge(layer: LastLayer) -> float:
    squares = float(np.einsum("ij,ij->", layer.features, layer.features)) / len(layer.labels)
    return USUAL_RIDGE * (squares or 1.0)


def _kind_of_bias(layer: LastLayer, training: Training, ridge: float) -> str:
    """Tell whether a bias is decayed, as is usual, or free: clearly nearer to stationary so."""
    if layer.bias is None or not _has_bias(layer):
        return "none"
    _, gradient = training.ridge_problem(layer, 0.0, _has_bias(layer)).value_and_gradient(
        _own(layer)
    )
    pull = gradient[:, -1]
    decayed = float(np.linalg.norm(pull + ridge * layer.bias))
    return "free" if float(np.linalg.norm(pull)) < decayed / 2 else "decayed"


def _suboptimality(
    layer: LastLayer, training: Training, ridge: float, kind: str
) -> tuple[float | None, tuple[Array, Array | None]]:
    """Return the excess over a certified bound, as a share, and the best head that was found.

    No excess where the bound is too far off.
    """
    scale = 1 / math.sqrt(FREE_BIAS) if kind == "free" else 1.0
    problem = training.ridge_problem(layer, ridge, _has_bias(layer), scale)
    own = _own(layer, scale)
    objective, _ = problem.value_and_gradient(own)
    # A trained head is near its optimum; one that is worse than none is not started from.
    v, least, gap = minimise(problem, TOL, _most_evaluations(layer), own)
    d = layer.weight.shape[1]
    found = v[:, :d], scale * v[:, d] if problem.bias else None
    if not gap <= max(AT_OPTIMUM * objective, objective - least):
        return None, found
    return max(objective - (least - gap), 0.0) / objective, found
