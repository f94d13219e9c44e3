"""The optimisation landscape of the factored problem: gradients, curvature, saddles, descent."""

from tightframe.landscape.critical import CriticalPoint, Direction
from tightframe.landscape.curvature import Eigenpair, smallest_eigenpair
from tightframe.landscape.descent import Descent, DescentOptions
from tightframe.landscape.functions import (
    critical_point,
    descend,
    descent_direction,
    gauss_newton,
    gradient,
    hessian,
    objective,
    saddle,
)
from tightframe.landscape.landscape import Landscape
from tightframe.landscape.point import Point

__all__ = [
    "CriticalPoint",
    "Descent",
    "DescentOptions",
    "Direction",
    "Eigenpair",
    "Landscape",
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
