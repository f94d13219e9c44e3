"""Whether the unconstrained feature model describes a network, and what follows only if it does.

The model's decays are fitted to the network, its minimiser is solved, and the margins at the class
means are compared class by class. They agreed in 6 of 162 ordinary networks, and in 4 of these the
model was 1.7 to 2.7 nats off after the next larger decay: their features were not held by a decay
of their own, which is what the model is made of. Then its thresholds and safety factors say nothing
about the network.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tightframe.advice.advise import Advice, advise
from tightframe.advice.calibrate import Calibration, fitted
from tightframe.checks import MAX_DENSE_CLASSES
from tightframe.geometry.states import DISTINCT
from tightframe.heads.last_layer import LastLayer
from tightframe.heads.scores import own_margins
from tightframe.problem.class_names import listed
from tightframe.problem.problem import Problem
from tightframe.saved import kept
from tightframe.shown import record

Array = NDArray[np.float64]

#: The model describes a network whose margins are all within this of its own, nats.
AGREEMENT = 0.5

#: Features are held as the model assumes if at most this share of what pulls them is not balanced
#: by their decay: at most .02 in networks trained so, at least .40 in ordinary ones.
UNBALANCED = 0.3


@kept
@record
@dataclass(frozen=True, eq=False)
class TheoryAnswer:
    """The model's margins beside the network's, and what follows.

    Attributes
    ----------
    describes : bool
        Whether all margins agree within `AGREEMENT`, no class is lost by its accuracy that the
        model calls distinct, and the features are held as the model assumes.
    reason : str
        Why not; empty if it does.
    calibration : Calibration or None
        None where no decays could be fitted.
    predicted, measured : ndarray, shape (K,), or None
        Own minus largest other logit at the class means, nats.
    wrongly_distinct : tuple of int
        Classes that are lost and called distinct.
    advice : Advice or None
        Thresholds, safety factors and proposals; only where the model describes the network.
    """

    describes: bool
    reason: str
    calibration: Calibration | None = None
    predicted: Array | None = None
    measured: Array | None = None
    wrongly_distinct: tuple[int, ...] = ()
    advice: Advice | None = None

    @property
    def error(self) -> float | None:
        """Largest difference of a predicted and a measured margin, nats."""
        if self.predicted is None or self.measured is None:
            return None
        return float(np.abs(self.predicted - self.measured).max())

    def to_dict(self) -> dict[str, Any]:
        """Return everything JSON-ready but the advice, which is `Advice.to_dict`."""
        rows = None
        if self.predicted is not None and self.measured is not None:
            rows = [
                {"label": k, "predicted_margin": float(p), "measured_margin": float(m)}
                for k, (p, m) in enumerate(zip(self.predicted, self.measured, strict=True))
            ]
        return {
            "describes": self.describes,
            "reason": self.reason,
            "largest_error": self.error,
            "agreement": AGREEMENT,
            "wrongly_distinct": list(self.wrongly_distinct),
            "classes": rows,
        }


def ask_theory(
    layer: LastLayer,
    problem: Problem | None,
    accuracies: Array,
    *,
    recorded: bool = False,
    margins: Array | None = None,
    **wanted: Any,
) -> TheoryAnswer:
    """Compare the fitted model with a network, and advise by it only where they agree.

    Parameters
    ----------
    layer : LastLayer
    problem : Problem or None
        Loss, bias and counts of the network; its decays are fitted anew. None if classes have no
        samples.
    accuracies : ndarray, shape (K,)
        Training accuracy of every class.
    recorded : bool
        Whether the problem is a record of the training: then no other loss is looked for.
    margins : ndarray, shape (K,), optional
        Own minus largest other logit at the means of all samples, where the layer has only some of
        every class.
    **wanted
        Of `tightframe.advise`.
    """
    if problem is None:
        return TheoryAnswer(False, "classes without samples have no place in the theory")
    if layer.num_classes > MAX_DENSE_CLASSES:
        return TheoryAnswer(False, f"{layer.num_classes} classes are more than {MAX_DENSE_CLASSES}")
    try:
        bias = None if layer.bias is None or not layer.bias.any() else layer.bias
        arrays = layer.weight, layer.features, layer.labels, bias
        fit = fitted(problem, *arrays, known=recorded, whole=margins is None)
        states = fit.solution.states
    except ValueError as error:
        return TheoryAnswer(False, str(error).partition(": ")[2] or str(error))
    predicted = states.decision_margin
    measured = mean_margins(layer) if margins is None else margins
    lost = accuracies < 0.5
    wrong = tuple(np.flatnonzero(lost & (states.state == DISTINCT)).tolist())
    errors = np.abs(predicted - measured)
    worst = int(np.argmax(errors))
    reason = ""
    if not errors[worst] <= AGREEMENT:
        reason = (
            f"its margins are up to {errors[worst]:.3g} nats off "
            f"(class {listed([layer.name(worst)])}: "
            f"predicted {predicted[worst]:.3g}, measured {measured[worst]:.3g})"
        )
    elif wrong:
        names = listed([layer.name(k) for k in wrong], 5)
        reason = f"it calls classes distinct that are lost: {names}"
    elif any(other.better for other in fit.alternatives or ()):
        (reason,) = fit.warnings
    elif not fit.feature_error <= UNBALANCED:
        reason = (
            f"its margins agree within {errors[worst]:.2g} nats at the present settings, but no "
            f"decay of their own holds its features ({fit.feature_error:.0%} of the pull on "
            "them is left over): such networks were up to 2.6 nats off at other settings"
        )
    answer = TheoryAnswer(not reason, reason, fit, predicted, measured, wrong)
    if reason:
        return answer
    try:
        advice = advise(fit.problem, **wanted)
    except ValueError as error:
        return TheoryAnswer(False, str(error), fit, predicted, measured, wrong)
    return TheoryAnswer(True, "", fit, predicted, measured, wrong, advice)


def mean_margins(layer: LastLayer) -> Array:
    """Return own minus largest other logit at every class mean, shape (K,); nan without samples."""
    return own_margins(layer.logits(layer.class_means), np.arange(layer.num_classes))
