"""Critical points: told apart, with a direction of descent out of a saddle."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from tightframe.geometry.blocks import Array
from tightframe.landscape.curvature import NULL_TOLERANCE, Objective, operator, smallest_eigenpair
from tightframe.landscape.point import Point
from tightframe.theory.certificate import Certificate, certify


@dataclass(frozen=True, eq=False)
class Direction:
    """A direction of negative curvature.

    Attributes
    ----------
    step : Point
        The displacement (Delta_W, Delta_H, Delta_b); not of unit length.
    curvature : float
        ``v^T Hessian v`` of the displacement's coordinates v, from the operator; negative.
    predicted : float or None
        ``-2 (||G||_op - lambda)``, what the explicit direction's curvature must be; None for an
        eigenvector.
    kind : {"explicit", "eigenvector"}
        The formula of docs/theory.md section 4, or (where no unit vector a has ``W a = 0`` and
        ``a^T H = 0``) the eigenvector of the Hessian's smallest eigenvalue.
    """

    step: Point
    curvature: float
    predicted: float | None
    kind: str


@dataclass(frozen=True, eq=False)
class CriticalPoint:
    """What `critical_point` found.

    Attributes
    ----------
    verdict : {"global minimum", "strict saddle", "not critical", "undecided"}
        ``"undecided"``: critical, not shown to be global, and no direction of negative curvature.
        That happens only for d < K (see `tightframe.landscape.landscape`), where local minima may
        exist.
    objective : float
        F at the point (nats for cross-entropy).
    gradient_norm : float
        Length of `gradient` there.
    stationarity : float
        Length of the gradient over lambda, W and V rescaled so that both decays are lambda. The
        point counts as critical iff this is at most ``tol``.
    residual_norm : float
        ``||G||_op``, the largest singular value of the data fit's gradient in ``X = W V``.
    logit_decay : float
        lambda, what `residual_norm` is compared with (up to the factor ``1 + tol``).
    rank : int
        Rank of the logits ``W H``.
    certificate : Certificate or None
        F at this point and a lower bound of the global minimum, for a global minimum only.
    direction : Direction or None
        The direction of negative curvature of a strict saddle.
    """

    verdict: str
    objective: float
    gradient_norm: float
    stationarity: float
    residual_norm: float
    logit_decay: float
    rank: int
    certificate: Certificate | None
    direction: Direction | None

    @property
    def gap(self) -> float | None:
        """Certified distance from the global minimum; None unless the verdict is that."""
        return None if self.certificate is None else self.certificate.gap


def classify(landscape: Objective, x: Array, tol: float, seed: int) -> CriticalPoint:
    """Tell what kind of point a flat vector is, see `Landscape.critical_point`."""
    stationarity = landscape.stationarity(x)
    norm = float(np.linalg.norm(landscape.residual(x), 2))
    value = landscape.value(x)
    certificate = direction = None
    if stationarity > tol:
        verdict = "not critical"
    elif norm <= landscape.decay * (1 + tol):
        verdict = "global minimum"
        w, v, b = landscape.split(x)
        # The convex form's bound holds at every width; a narrow one is certified by it too.
        wide = landscape.problem.replace(dim=None)
        found = certify(wide, w @ v / landscape.root, b)
        # These factors cost no less than the cheapest with their logits; rounding may say so.
        certificate = replace(found, primal=max(value, found.primal))
    else:
        direction = escape(landscape, x, seed)
        verdict = "undecided" if direction is None else "strict saddle"
    return CriticalPoint(
        verdict=verdict,
        objective=value,
        gradient_norm=float(np.linalg.norm(landscape.gradient(x))),
        stationarity=stationarity,
        residual_norm=norm,
        logit_decay=landscape.decay,
        rank=landscape.rank(x),
        certificate=certificate,
        direction=direction,
    )


def escape(landscape: Objective, x: Array, seed: int) -> Direction | None:
    """Return a direction of negative curvature, see `Landscape.descent_direction`."""
    left, values, right = np.linalg.svd(landscape.residual(x))
    if values[0] <= landscape.decay:
        return None
    a = _null_direction(landscape, x)
    if a is None:
        pair = smallest_eigenpair(operator(landscape, x), seed=seed)
        if pair.value + pair.error >= 0:
            return None
        return Direction(landscape.point(pair.vector), pair.value, None, "eigenvector")
    step = landscape.join(
        landscape.c * np.outer(left[:, 0], a),
        -np.outer(a, right[0]) / landscape.c,
        np.zeros(landscape.problem.num_classes),
    )
    curvature = float(step @ landscape.product(x)(step))
    predicted = -2 * (float(values[0]) - landscape.decay)
    return Direction(landscape.point(step), curvature, predicted, "explicit")


def _null_direction(landscape: Objective, x: Array) -> Array | None:
    """Return a unit vector a with ``W a = 0`` and ``a^T V = 0``, or None."""
    w, v, _ = landscape.split(x)
    if not landscape.dim:
        return None
    _, values, right = np.linalg.svd(np.vstack([w / landscape.c, landscape.c * v.T]))
    least = values[-1] if len(values) == landscape.dim else 0.0
    return right[-1] if least <= NULL_TOLERANCE * values[0] else None
