"""Collapse metrics of a network: streaming class moments and what is measured from them."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from tightframe.grouped import GroupedGeometry, GroupedMatrix
from tightframe.metrics.angles import (
    CosineStatistics,
    GroupAngles,
    KernelStatistics,
    alignment,
    cosine_statistics,
    equiangularity,
    equinorm,
    group_angles,
    mutual_coherence,
    uniformity,
)
from tightframe.metrics.decisions import Decisions, bias_alignment, certificate_gap, nc4, nc5
from tightframe.metrics.frames import (
    LayerMetrics,
    layer_metrics,
    margins,
    measured_geometry,
    nc2,
    nc3,
    self_duality,
)
from tightframe.metrics.gathering import least_squares_classifier
from tightframe.metrics.layerwise import (
    collapse_report,
    layer_moments,
    layer_scalars,
    report_scalars,
)
from tightframe.metrics.moments import WEIGHTINGS, ClassMoments
from tightframe.metrics.report import CollapseReport, MetricRow
from tightframe.metrics.variability import (
    NC1Details,
    cdnv,
    class_variability,
    nc1,
    nc1_details,
    nc1_quotient,
)
from tightframe.metrics.watching import Watch, watch

if TYPE_CHECKING:
    from tightframe.metrics.metric import CollapseMetric

__all__ = [
    "WEIGHTINGS",
    "ClassMoments",
    "CollapseMetric",
    "CollapseReport",
    "CosineStatistics",
    "Decisions",
    "GroupAngles",
    "GroupedGeometry",
    "GroupedMatrix",
    "KernelStatistics",
    "LayerMetrics",
    "MetricRow",
    "NC1Details",
    "Watch",
    "alignment",
    "bias_alignment",
    "cdnv",
    "certificate_gap",
    "class_variability",
    "collapse_report",
    "cosine_statistics",
    "equiangularity",
    "equinorm",
    "group_angles",
    "layer_metrics",
    "layer_moments",
    "layer_scalars",
    "least_squares_classifier",
    "margins",
    "measured_geometry",
    "mutual_coherence",
    "nc1",
    "nc1_details",
    "nc1_quotient",
    "nc2",
    "nc3",
    "nc4",
    "nc5",
    "report_scalars",
    "self_duality",
    "uniformity",
    "watch",
]


def __getattr__(name: str) -> Any:
    # Loaded on first use: torchmetrics takes seconds to import.
    if name == "CollapseMetric":
        return importlib.import_module("tightframe.metrics.metric").CollapseMetric
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
