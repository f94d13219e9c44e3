"""Predict, measure and steer the geometry of a classifier's last layer (neural collapse)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tightframe.advice.advise import Advice
from tightframe.advice.calibrate import Calibration
from tightframe.changes import StateChange, StateChanges, state_changes, thresholds
from tightframe.context_solution import ContextSolution
from tightframe.diagnosis.calibrated import calibrate
from tightframe.diagnosis.entry import advise
from tightframe.geometry.dense import (
    Geometry,
    normalized_distance,
    orthogonal_frame,
    seli,
    simplex_etf,
)
from tightframe.geometry.states import ClassState, States
from tightframe.label_limits import LabelLimits, label_limits
from tightframe.lazy import handed_on
from tightframe.path import Path, RankChange, path, rank_changes
from tightframe.path_limits import PathLimits, path_limits
from tightframe.problem.problem import Problem
from tightframe.progress import loading
from tightframe.solution import Solution
from tightframe.solve import NotConvergedWarning, solve
from tightframe.theory.certificate import Certificate, certify
from tightframe.theory.contexts.thresholds import ContextThresholds
from tightframe.theory.svm import SvmCertificate, certify_svm
from tightframe.theory.thresholds import Thresholds
from tightframe.version import __version__ as __version__

if TYPE_CHECKING:
    from tightframe import data, heads, landscape, metrics, report, training
    from tightframe.diagnosis.diagnose import Diagnosis
    from tightframe.diagnosis.larger_decay import LargerDecay, larger_decay
    from tightframe.relatives.contrastive import SupervisedContrastive, supervised_contrastive
    from tightframe.relatives.focal import FocalCollapse, focal_collapse
    from tightframe.relatives.normalized import NormalizedHead, normalized_head
    from tightframe.relatives.regression import RegressionCollapse, regression_collapse
    from tightframe.sweeps.phase import PhaseDiagram, phase_diagram

__all__ = [
    "Advice",
    "Calibration",
    "Certificate",
    "ClassState",
    "ContextSolution",
    "ContextThresholds",
    "Diagnosis",
    "FocalCollapse",
    "Geometry",
    "LabelLimits",
    "LargerDecay",
    "NormalizedHead",
    "NotConvergedWarning",
    "Path",
    "PathLimits",
    "PhaseDiagram",
    "Problem",
    "RankChange",
    "RegressionCollapse",
    "Solution",
    "StateChange",
    "StateChanges",
    "States",
    "SupervisedContrastive",
    "SvmCertificate",
    "Thresholds",
    "advise",
    "calibrate",
    "certify",
    "certify_svm",
    "data",
    "focal_collapse",
    "heads",
    "label_limits",
    "landscape",
    "larger_decay",
    "metrics",
    "normalized_distance",
    "normalized_head",
    "orthogonal_frame",
    "path",
    "path_limits",
    "phase_diagram",
    "rank_changes",
    "regression_collapse",
    "report",
    "seli",
    "simplex_etf",
    "solve",
    "state_changes",
    "supervised_contrastive",
    "thresholds",
    "training",
]


# Loaded on first use: these need torch, and a phase diagram what sweeps run on.
__getattr__ = handed_on(
    __name__,
    {
        "tightframe.data": (),
        "tightframe.diagnosis.diagnose": ("Diagnosis",),
        "tightframe.diagnosis.larger_decay": ("LargerDecay", "larger_decay"),
        "tightframe.heads": (),
        "tightframe.landscape": (),
        "tightframe.metrics": (),
        "tightframe.relatives.contrastive": ("SupervisedContrastive", "supervised_contrastive"),
        "tightframe.relatives.focal": ("FocalCollapse", "focal_collapse"),
        "tightframe.relatives.normalized": ("NormalizedHead", "normalized_head"),
        "tightframe.relatives.regression": ("RegressionCollapse", "regression_collapse"),
        "tightframe.report": (),
        "tightframe.sweeps.phase": ("PhaseDiagram", "phase_diagram"),
        "tightframe.training": (),
    },
    around=loading,
)


def __dir__() -> list[str]:
    return sorted(__all__)
