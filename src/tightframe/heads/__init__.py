"""The last layer: its arrays, classifiers fixed to a geometry, narrow ones, and what they save.

The names below are loaded on first use: most need torch; `savings`, `last_layer` and `fitted` do
not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tightframe.lazy import handed_on
from tightframe.progress import loading

if TYPE_CHECKING:
    from tightframe.heads.fitted import FittedHead, fit_head
    from tightframe.heads.fixed import (
        FixedETF,
        FixedFrame,
        FixedHead,
        freeze_to_etf,
        freeze_to_frame,
        replace_module,
    )
    from tightframe.heads.last_layer import LastLayer
    from tightframe.heads.narrow import narrow_last_block, project_features
    from tightframe.heads.savings import Savings, parameter_savings, savings_table

__all__ = [
    "FittedHead",
    "FixedETF",
    "FixedFrame",
    "FixedHead",
    "LastLayer",
    "Savings",
    "fit_head",
    "freeze_to_etf",
    "freeze_to_frame",
    "narrow_last_block",
    "parameter_savings",
    "project_features",
    "replace_module",
    "savings_table",
]

__getattr__ = handed_on(
    __name__,
    {
        "tightframe.heads.fixed": (
            "FixedETF",
            "FixedFrame",
            "FixedHead",
            "freeze_to_etf",
            "freeze_to_frame",
            "replace_module",
        ),
        "tightframe.heads.fitted": ("FittedHead", "fit_head"),
        "tightframe.heads.last_layer": ("LastLayer",),
        "tightframe.heads.narrow": ("narrow_last_block", "project_features"),
        "tightframe.heads.savings": ("Savings", "parameter_savings", "savings_table"),
    },
    around=loading,
)
