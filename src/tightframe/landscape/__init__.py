"""The optimisation landscape of the factored problem: gradients, curvature, saddles, descent."""

from tightframe.landscape.point import (
    CriticalPoint,
    Descent,
    Direction,
    Eigenpair,
    Point,
    critical_point,
    descend,
    descent_direction,
    gauss_newton,
    gradient,
    hessian,
    objective,
    saddle,
    smallest_eigenpair,
)

__all__ = [
    "CriticalPoint",
    "Descent",
    "Direction",
    "Eigenpair",
    "Point",
    "critical_point",
    "descend",
    "descent_direction",
    "gauss_newton",
    "gradient",
    "hessian",
    "objective",
    "saddle",
    "smallest_eigenpair",
]
