"""Collapse metrics of a network: streaming class moments and what is measured from them.

The names below are loaded on first use: torch takes a second, torchmetrics several, and the list
of all metrics (`tightframe.metrics.registry`) needs neither.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tightframe.lazy import handed_on
from tightframe.progress import loading

if TYPE_CHECKING:
    from tightframe.capture.gather import least_squares_classifier
    from tightframe.capture.layers import (
        collapse_report,
        layer_moments,
        layer_scalars,
        report_scalars,
    )
    from tightframe.capture.regression import regression_report
    from tightframe.capture.watch import Watch, watch
    from tightframe.geometry.grouped import GroupedGeometry, GroupedMatrix
    from tightframe.metrics.angles import (
        CosineStatistics,
        GroupAngles,
        KernelStatistics,
        alignment,
        cosine_statistics,
        distance_norms,
        equiangularity,
        equinorm,
        group_angles,
        kernel_grid,
        mutual_coherence,
        uniformity,
    )
    from tightframe.metrics.answers import Answers
    from tightframe.metrics.class_moments import ClassMoments
    from tightframe.metrics.classes import ClassRow, ClassTable, class_table
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
    from tightframe.metrics.moments import WEIGHTINGS
    from tightframe.metrics.regression import NRC3Details, nrc1, nrc2, nrc3, nrc3_details
    from tightframe.metrics.regression_layer import RegressionReport
    from tightframe.metrics.report import CollapseReport, MetricRow
    from tightframe.metrics.torchmetrics import CollapseMetric
    from tightframe.metrics.variability import (
        NC1Details,
        cdnv,
        cdnv_grid,
        class_variability,
        effective_ranks,
        nc1,
        nc1_details,
        nc1_quotient,
    )

__all__ = [
    "WEIGHTINGS",
    "Answers",
    "ClassMoments",
    "ClassRow",
    "ClassTable",
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
    "NRC3Details",
    "RegressionReport",
    "Watch",
    "alignment",
    "bias_alignment",
    "cdnv",
    "cdnv_grid",
    "certificate_gap",
    "class_table",
    "class_variability",
    "collapse_report",
    "cosine_statistics",
    "distance_norms",
    "effective_ranks",
    "equiangularity",
    "equinorm",
    "group_angles",
    "kernel_grid",
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
    "nrc1",
    "nrc2",
    "nrc3",
    "nrc3_details",
    "regression_report",
    "report_scalars",
    "self_duality",
    "uniformity",
    "watch",
]

__getattr__ = handed_on(
    __name__,
    {
        "tightframe.capture.gather": ("least_squares_classifier",),
        "tightframe.capture.layers": (
            "collapse_report",
            "layer_moments",
            "layer_scalars",
            "report_scalars",
        ),
        "tightframe.capture.regression": ("regression_report",),
        "tightframe.capture.watch": (
            "Watch",
            "watch",
        ),
        "tightframe.geometry.grouped": (
            "GroupedGeometry",
            "GroupedMatrix",
        ),
        "tightframe.metrics.angles": (
            "CosineStatistics",
            "GroupAngles",
            "KernelStatistics",
            "alignment",
            "cosine_statistics",
            "distance_norms",
            "equiangularity",
            "equinorm",
            "group_angles",
            "kernel_grid",
            "mutual_coherence",
            "uniformity",
        ),
        "tightframe.metrics.answers": ("Answers",),
        "tightframe.metrics.class_moments": ("ClassMoments",),
        "tightframe.metrics.classes": (
            "ClassRow",
            "ClassTable",
            "class_table",
        ),
        "tightframe.metrics.decisions": (
            "Decisions",
            "bias_alignment",
            "certificate_gap",
            "nc4",
            "nc5",
        ),
        "tightframe.metrics.frames": (
            "LayerMetrics",
            "layer_metrics",
            "margins",
            "measured_geometry",
            "nc2",
            "nc3",
            "self_duality",
        ),
        "tightframe.metrics.moments": ("WEIGHTINGS",),
        "tightframe.metrics.regression": (
            "NRC3Details",
            "nrc1",
            "nrc2",
            "nrc3",
            "nrc3_details",
        ),
        "tightframe.metrics.regression_layer": ("RegressionReport",),
        "tightframe.metrics.report": (
            "CollapseReport",
            "MetricRow",
        ),
        "tightframe.metrics.torchmetrics": ("CollapseMetric",),
        "tightframe.metrics.variability": (
            "NC1Details",
            "cdnv",
            "cdnv_grid",
            "class_variability",
            "effective_ranks",
            "nc1",
            "nc1_details",
            "nc1_quotient",
        ),
    },
    around=loading,
)


def __dir__() -> list[str]:
    return sorted(__all__)
