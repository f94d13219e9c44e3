"""Critical points: told apart, with a direction of descent out of a saddle."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from tightframe.geometry.blocks import Array
from tightframe.landscape.curvature import NULL_TOLERANCE, Objective, smallest_eigenpair
from tightframe.landscape.point import Point
from tightframe.landscape.symmetry import hessian_across, unsettled
from tightframe.saved import filed
from tightframe.shown import record
from tightframe.theory.certificate import Certificate, certify
from tightframe.theory.coverage import coverage

#: Values of F that differ by less than this share are equal up to rounding.
ROUNDING = 1e-14


@record
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
        ``a^T H = 0``) the eigenvector of the Hessian's smallest eigenvalue across the symmetries
        of F (see `CriticalPoint`), scaled to unit length.
    """

    step: Point
    curvature: float
    predicted: float | None
    kind: str


@filed
@record
@dataclass(frozen=True, eq=False)
class CriticalPoint:
    """What `critical_point` found.

    Attributes
    ----------
    verdict : {"global minimum", "local minimum", "strict saddle", "not critical", "undecided"}
        Curvature is judged across the symmetries of F, the rotations of the features and a constant
        in a free bias, along which it is zero. ``"strict saddle"``: `curvature` is negative by more
        than its error, and F falls along an eigenvector. ``"local minimum"``: it is positive by
        more than its error, and nothing shows the point to be global. ``"undecided"``: neither,
        where F is flat in a further direction. In exact arithmetic, and with one layer, both happen
        only for d < K (see `tightframe.landscape.landscape`).
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
        lambda, what `residual_norm` is compared with (up to the factor ``1 + tol``). With several
        layers the geometric mean of all decays, and the comparison tells nothing.
    rank : int
        Rank of the logits ``W H``.
    certificate : Certificate or None
        F at this point and a lower bound of the global minimum, for a global minimum only.
    direction : Direction or None
        The direction of negative curvature of a strict saddle.
    curvature : float or None
        What the verdict rests on where the gradient does not decide it: the smallest eigenvalue of
        the Hessian across the symmetries (at most twice lambda is told of it), or the curvature
        along the explicit direction; W and V rescaled so that both decays are lambda.
    curvature_error : float or None
        What rounding, the eigenvector's residual and the gradient that is left may add to it: of
        the last, how the curvature changes over one Newton step.
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
    curvature: float | None
    curvature_error: float | None

    @property
    def gap(self) -> float | None:
        """Certified distance from the global minimum; None unless the verdict is that."""
        return None if self.certificate is None else self.certificate.gap


@dataclass(frozen=True, eq=False)
class _Bend:
    """The least curvature that is known at a point, along a rescaled unit vector."""

    vector: Array
    value: float
    error: float  # of rounding and of the eigenvector, at this very point
    explicit: bool


def classify(landscape: Objective, x: Array, tol: float, seed: int) -> CriticalPoint:
    """Tell what kind of point a flat vector is, see `Landscape.critical_point`."""
    stationarity = landscape.stationarity(x)
    norm = float(np.linalg.norm(landscape.residual(x), 2))
    value = landscape.value(x)
    certificate = direction = curvature = error = None
    if stationarity > tol:
        verdict = "not critical"
    elif (certificate := _certificate(landscape, x, value, norm, tol)) is not None:
        verdict = "global minimum"
    else:
        bend = _least_bend(landscape, x, seed)
        curvature, error = bend.value, bend.error
        if abs(curvature) > error:
            error += unsettled(landscape, x, bend.vector, curvature)
        verdict = "undecided"
        if curvature - error > 0:
            verdict = "local minimum"
        elif curvature + error < 0:
            found = _direction(landscape, x, bend)
            # The explicit direction has a proof, an eigenvector has numbers only.
            if bend.explicit or _falls(landscape, x, found):
                verdict, direction = "strict saddle", found
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
        curvature=curvature,
        curvature_error=error,
    )


def _certificate(
    landscape: Objective, x: Array, value: float, norm: float, tol: float
) -> Certificate | None:
    """Return the certificate of a critical point that is a global minimum, else None.

    One layer's is one by the residual's norm. Of several layers the bound alone tells, where the
    theory has one (docs/theory.md section 5).
    """
    deep = landscape.problem.depth > 1
    if not deep and norm > landscape.decay * (1 + tol):
        return None
    factors, b = landscape.split(x)
    # The bound holds at every width; a narrow one is certified by it too.
    wide = landscape.problem.replace(dim=None)
    if deep and not coverage(wide).is_certified:
        return None
    cheapest = certify(wide, landscape.product_of(factors) / landscape.root, b)
    # These factors cost no less than the cheapest with their logits; rounding may say so.
    found = replace(cheapest, primal=max(value, cheapest.primal))
    return None if deep and found.gap > tol * found.primal else found


def escape(landscape: Objective, x: Array, seed: int) -> Direction | None:
    """Return a direction of negative curvature, see `Landscape.descent_direction`."""
    convex = landscape.problem.depth == 1
    if convex and np.linalg.norm(landscape.residual(x), 2) <= landscape.decay:
        return None
    bend = _least_bend(landscape, x, seed)
    return _direction(landscape, x, bend) if bend.value + bend.error < 0 else None


def follow(landscape: Objective, x: Array, direction: Direction) -> Array:
    """Return the best point along a direction, either way, at lengths in a geometric sequence."""
    step = landscape.enter(direction.step)
    lengths = 4.0 ** np.arange(-12, 8)
    return min((x + t * step for t in np.r_[lengths, -lengths]), key=landscape.value)


def _falls(landscape: Objective, x: Array, direction: Direction) -> bool:
    """Tell whether F falls along a direction by more than it is rounded."""
    lower = landscape.value(follow(landscape, x, direction))
    return lower < landscape.value(x) * (1 - ROUNDING)


def _least_bend(landscape: Objective, x: Array, seed: int) -> _Bend:
    """Return the explicit direction's curvature where there is one, else the least across."""
    left, values, right = np.linalg.svd(landscape.residual(x))
    spare = landscape.problem.depth == 1 and values[0] > landscape.decay
    a = _null_direction(landscape, x) if spare else None
    if a is None:
        pair = smallest_eigenpair(hessian_across(landscape, x), seed=seed)
        return _Bend(pair.vector, pair.value, pair.error, explicit=False)
    vector = landscape.join(
        [np.outer(left[:, 0], a), -np.outer(a, right[0])], np.zeros(landscape.problem.num_classes)
    ) / np.sqrt(2)
    tilt = landscape.tilt
    value = float((tilt * vector) @ landscape.product(x)(tilt * vector))
    # The value is a difference of these two.
    rounding = np.finfo(float).eps * len(x) * (float(values[0]) + landscape.decay)
    return _Bend(vector, value, rounding, explicit=True)


def _direction(landscape: Objective, x: Array, bend: _Bend) -> Direction:
    """Return the displacement of a bend, with the lengths that `Direction` promises."""
    step = landscape.tilt * bend.vector
    step = step * (np.sqrt(2) if bend.explicit else 1 / np.linalg.norm(step))
    curvature = float(step @ landscape.product(x)(step))
    predicted = None
    if bend.explicit:
        norm = float(np.linalg.norm(landscape.residual(x), 2))
        predicted = -2 * (norm - landscape.decay)
    kind = "explicit" if bend.explicit else "eigenvector"
    return Direction(landscape.point(step), curvature, predicted, kind)


def _null_direction(landscape: Objective, x: Array) -> Array | None:
    """Return a unit vector a with ``W a = 0`` and ``a^T V = 0``, or None."""
    (w, v), _ = landscape.split(x / landscape.tilt)
    if not landscape.dim:
        return None
    _, values, right = np.linalg.svd(np.vstack([w, v.T]))
    least = values[-1] if len(values) == landscape.dim else 0.0
    return right[-1] if least <= NULL_TOLERANCE * values[0] else None
