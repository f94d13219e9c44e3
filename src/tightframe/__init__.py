"""Predict, measure and steer the geometry of a classifier's last layer (neural collapse)."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from tightframe.advise import Advice, advise
from tightframe.calibrate import Calibration, calibrate
from tightframe.geometry import Geometry, normalized_distance, orthogonal_frame, seli, simplex_etf
from tightframe.path import Path, PathLimits, RankChange, path, path_limits, rank_changes
from tightframe.problem import Problem
from tightframe.solution import Solution
from tightframe.solve import NotConvergedWarning, solve
from tightframe.solvers.certificate import Certificate, certify
from tightframe.svm import SvmCertificate, certify_svm
from tightframe.thresholds import Thresholds, thresholds

if TYPE_CHECKING:
    from tightframe import heads, metrics
    from tightframe.experiments.phase import PhaseDiagram, phase_diagram

__version__ = "0.1.0"

__all__ = [
    "Advice",
    "Calibration",
    "Certificate",
    "Geometry",
    "NotConvergedWarning",
    "Path",
    "PathLimits",
    "PhaseDiagram",
    "Problem",
    "RankChange",
    "Solution",
    "SvmCertificate",
    "Thresholds",
    "advise",
    "calibrate",
    "certify",
    "certify_svm",
    "heads",
    "metrics",
    "normalized_distance",
    "orthogonal_frame",
    "path",
    "path_limits",
    "phase_diagram",
    "rank_changes",
    "seli",
    "simplex_etf",
    "solve",
    "thresholds",
]


def __getattr__(name: str) -> Any:
    # Loaded on first use: these need torch, and a phase diagram what experiments run on.
    if name in ("heads", "metrics"):
        return importlib.import_module(f"{__name__}.{name}")
    if name in ("PhaseDiagram", "phase_diagram"):
        from tightframe.experiments import phase

        return getattr(phase, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
