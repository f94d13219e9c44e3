"""Predict, measure and steer the geometry of a classifier's last layer (neural collapse)."""

from tightframe.geometry import Geometry, normalized_distance, orthogonal_frame, seli, simplex_etf
from tightframe.path import Path, path
from tightframe.problem import Problem
from tightframe.solution import Solution
from tightframe.solve import NotConvergedWarning, solve
from tightframe.solvers.certificate import Certificate, certify
from tightframe.thresholds import Thresholds, thresholds

__version__ = "0.1.0"

__all__ = [
    "Certificate",
    "Geometry",
    "NotConvergedWarning",
    "Path",
    "Problem",
    "Solution",
    "Thresholds",
    "certify",
    "normalized_distance",
    "orthogonal_frame",
    "path",
    "seli",
    "simplex_etf",
    "solve",
    "thresholds",
]
