"""Collapse metrics of a network: streaming class moments and what is measured from them."""

from tightframe.metrics.collapse import (
    CollapseReport,
    cdnv,
    margins,
    measured_geometry,
    nc1,
    nc1_quotient,
    nc4,
    self_duality,
)
from tightframe.metrics.moments import WEIGHTINGS, ClassMoments

__all__ = [
    "WEIGHTINGS",
    "ClassMoments",
    "CollapseReport",
    "cdnv",
    "margins",
    "measured_geometry",
    "nc1",
    "nc1_quotient",
    "nc4",
    "self_duality",
]
