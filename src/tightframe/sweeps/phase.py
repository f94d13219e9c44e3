"""Phase diagrams: where the minority classes merge, over the imbalance ratio and lambda."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tightframe.checks import choice, is_several, positive_float, whole_number
from tightframe.data.imbalance import step_counts
from tightframe.figures.model import evenly
from tightframe.figures.table import Column, Table
from tightframe.files import to_plain
from tightframe.geometry.states import DISTINCT, MERGED
from tightframe.lazy import loaded, needed
from tightframe.problem.counts import MAX_SAMPLES, compact_counts
from tightframe.problem.problem import Problem
from tightframe.progress import ProgressLike, told, watched
from tightframe.saved import Saved
from tightframe.shown import Block, Shown, frame, plot
from tightframe.sweeps.grid import Grid, run_grid
from tightframe.theory.thresholds import overall_decay

if TYPE_CHECKING:
    import pandas as pd

FloatArray = NDArray[np.float64]

#: Rows of the table, at most.
MOST_ROWS = 12

#: Weights of the features that belong to no counts in particular.
FEATURE_WEIGHTS = ("samples", "contexts")


@dataclass(frozen=True, eq=False)
class PhaseDiagram(Shown, Saved):
    """Solutions over imbalance ratio (R values) and lambda (L values).

    What a row that failed would have told is NaN, ``-1`` (rank), False (collapsed) and
    ``"failed"`` (status).

    Attributes
    ----------
    counts : tuple of str, length R
        Class counts of every row, majority first.
    ratios : ndarray, shape (R,)
        Majority count over minority count.
    logit_decays : ndarray, shape (L,)
        ``lambda = sqrt(weight_decay feature_decay)``; for several layers the geometric mean of all
        decays.
    minority_margin, majority_margin : ndarray, shape (R, L)
        As `tightframe.Solution.group_margins`; equal in a balanced row.
    minority_collapsed, majority_collapsed : ndarray of bool, shape (R, L)
        As `tightframe.Solution.group_collapsed`.
    minority_state : ndarray of str, shape (R, L)
        As `tightframe.Solution.states`; empty in a row that failed.
    rank : ndarray of int, shape (R, L)
        Of the logits.
    status : ndarray of str, shape (R, L)
        As `tightframe.Solution.status`.
    minority_threshold, majority_threshold, total_collapse : ndarray, shape (R,)
        From which lambda on the group collapses, and all class means are zero, by
        `tightframe.thresholds`; NaN where no threshold is known.
    minority_decision_margin : ndarray, shape (R, L), or None
        Of the minority, to the nearest of all classes; None in records of earlier versions.
    """

    counts: tuple[str, ...]
    ratios: FloatArray
    logit_decays: FloatArray
    minority_margin: FloatArray
    majority_margin: FloatArray
    minority_collapsed: NDArray[np.bool_]
    majority_collapsed: NDArray[np.bool_]
    minority_state: NDArray[np.str_]
    rank: NDArray[np.int64]
    status: NDArray[np.str_]
    minority_threshold: FloatArray
    majority_threshold: FloatArray
    total_collapse: FloatArray
    minority_decision_margin: FloatArray | None = None

    @classmethod
    def from_rows(cls, grid: Grid, rows: Iterable[Mapping[str, Any]]) -> PhaseDiagram:
        """Read the diagram off the rows that `tightframe.sweeps.grid.run_grid` returned.

        Raises
        ------
        ValueError
            If the grid has no ratios.
        """
        if grid.ratios is None:
            raise ValueError("grid: has no ratios; a phase diagram has an imbalance ratio a row")
        shape = (len(grid.rows), grid.num_points)
        margins, nearest = np.full((2, *shape), math.nan), np.full(shape, math.nan)
        collapsed = np.zeros((2, *shape), dtype=bool)
        states = np.full(shape, "", dtype="<U8")
        rank = np.full(shape, -1)
        status = np.full(shape, "failed", dtype="<U16")
        limits = np.full((3, shape[0]), math.nan)
        for row in rows:
            i = row["row"]
            for j, point in enumerate(row["points"]):
                ends = (point["groups"][-1], point["groups"][0])  # the only group if balanced
                margins[:, i, j] = [group["margin"] for group in ends]
                collapsed[:, i, j] = [group["collapsed"] for group in ends]
                states[i, j] = _state_of(ends[0])
                nearest[i, j] = ends[0].get("decision_margin", math.nan)
                rank[i, j], status[i, j] = point["rank"], point["status"]
                limits[:, i] = _numbers(*(g["threshold"] for g in ends), point["total_collapse"])
        decays = [
            overall_decay(grid.problem.replace(**dict(zip(grid.sweep, values, strict=True))))
            for values in zip(*grid.sweep.values(), strict=True)
        ]
        return cls(
            counts=tuple(str(counts) for counts in grid.rows),
            ratios=np.array(grid.ratios, dtype=float),
            logit_decays=np.array(decays),
            minority_margin=margins[0],
            majority_margin=margins[1],
            minority_collapsed=collapsed[0],
            majority_collapsed=collapsed[1],
            minority_state=states,
            rank=rank,
            status=status,
            minority_threshold=limits[0],
            majority_threshold=limits[1],
            total_collapse=limits[2],
            minority_decision_margin=None if np.isnan(nearest).all() else nearest,
        )

    def __repr__(self) -> str:
        rows, columns = self.status.shape
        merged = int(self.minority_collapsed.sum())
        return (
            f"PhaseDiagram({rows} ratios from {self.ratios.min():.4g} to {self.ratios.max():.4g} x "
            f"{columns} decays from {self.logit_decays.min():.4g} to "
            f"{self.logit_decays.max():.4g}, minority collapsed in {merged} of {rows * columns})"
        )

    def _blocks(self) -> Iterator[Block]:
        collapsed = self.minority_collapsed.sum(axis=1).tolist()
        limits = (self.minority_threshold, self.majority_threshold, self.total_collapse)
        shown = evenly(len(self.ratios), MOST_ROWS)
        heads = ("minority threshold", "majority threshold", "total collapse")
        columns = [
            Column("counts", align="left"),
            Column("ratio", format=".4g"),
            *(Column(head, align="right", format=".5g") for head in heads),
            Column("minority collapsed", align="right"),
        ]
        rows = [
            [
                self.counts[i],
                self.ratios[i],
                *(limit[i] for limit in limits),
                f"{collapsed[i]} of {len(self.logit_decays)}",
            ]
            for i in shown
        ]
        note = "" if len(shown) == len(self.ratios) else f"{len(shown)} of {len(self.ratios)} rows."
        yield Table(repr(self), columns, rows, note, missing="-")

    def to_frame(self) -> pd.DataFrame:
        """Return one row a ratio and decay, see `tightframe.shown.frame`."""
        rows, columns = self.status.shape
        of_rows = ("counts", "ratios", "minority_threshold", "majority_threshold", "total_collapse")
        found = {name: np.repeat(np.array(getattr(self, name)), columns) for name in of_rows}
        found = {"ratio" if name == "ratios" else name: own for name, own in found.items()}
        found["logit_decay"] = np.tile(self.logit_decays, rows)
        ends = ("minority_margin", "majority_margin", "minority_collapsed", "majority_collapsed")
        each = (*ends, "rank", "status")
        return frame(found | {name: getattr(self, name).ravel() for name in each})

    def plot(self, ax: Any = None) -> tuple[Any, Any]:
        """Draw the minority's margin over both, with the exact thresholds.

        See `tightframe.shown.plot`.
        """
        with needed("plot", "matplotlib"):
            chart = loaded("tightframe.sweeps.plots.phase_chart")
        return plot(chart(self), ax)

    def to_dict(self) -> dict[str, Any]:
        """Return everything JSON-ready."""
        plain: dict[str, Any] = to_plain(vars(self))
        return plain


def _state_of(group: Mapping[str, Any]) -> str:
    """Return a group's state; rows of earlier versions say only whether it collapsed."""
    return str(group.get("state", MERGED if group["collapsed"] else DISTINCT))


def _numbers(*values: float | None) -> list[float]:
    return [math.nan if value is None else value for value in values]


def step_rows(
    num_classes: int,
    ratios: Iterable[float],
    *,
    majority: int | None = None,
    minority: int | None = None,
    fraction: float = 0.5,
) -> tuple[list[str], list[float]]:
    """Return STEP counts of every imbalance ratio, and the ratios that whole counts really have.

    Parameters
    ----------
    num_classes : int
    ratios : iterable of float
        Majority count over minority count, at least 1 each.
    majority, minority : int
        One of the two: the count that all rows share.
    fraction : float
        Part of the classes in the minority, as in `tightframe.data.step_counts`.

    Raises
    ------
    ValueError
        If an argument is out of range, or two ratios come out as the same counts.
    """
    if (majority is None) == (minority is None):
        raise ValueError("majority, minority: give exactly one of the two")
    rows: dict[str, float] = {}
    for ratio in _several("ratios", ratios):
        if majority is not None:
            counts = step_counts(num_classes, majority, ratio=ratio, fraction=fraction)
        else:
            small = whole_number("minority", minority)
            ratio = positive_float("ratio", ratio)
            if ratio < 1 or small * ratio > MAX_SAMPLES:
                most = MAX_SAMPLES / small
                raise ValueError(f"ratio: got {ratio!r}, need a number from 1 to {most:g}")
            large = round(small * ratio)
            counts = step_counts(num_classes, large, minority=small, fraction=fraction)
        text = compact_counts(counts)
        if text in rows:
            raise ValueError(
                f"ratios: {ratio:.6g} and an earlier one both give counts {text}; "
                "use fewer ratios or larger counts"
            )
        rows[text] = counts[0] / counts[-1]
    if not rows:
        raise ValueError("ratios: got none, need at least one")
    return list(rows), list(rows.values())


def _several(name: str, values: Any) -> Iterable[Any]:
    if not is_several(values):
        raise ValueError(f"{name}: got {values!r}, need a sequence of numbers")
    return values


def phase_diagram(
    num_classes: int,
    logit_decays: Sequence[float],
    ratios: Iterable[float],
    *,
    majority: int | None = None,
    minority: int | None = None,
    fraction: float = 0.5,
    loss: str = "cross_entropy",
    bias: str = "none",
    bias_decay: float | None = None,
    features: str = "real",
    dim: int | None = None,
    label_smoothing: float = 0.0,
    feature_weights: str = "samples",
    tol: float = 1e-8,
    max_iterations: int = 5000,
    jobs: int = 1,
    scheduler: str | None = None,
    progress: ProgressLike = None,
) -> PhaseDiagram:
    """Solve STEP-imbalanced problems over (imbalance ratio, lambda).

    The logits depend on the decays through ``lambda = sqrt(weight_decay feature_decay)`` only.

    Parameters
    ----------
    num_classes : int
        Number of classes K.
    logit_decays : sequence of float, length L
        Values of lambda.
    ratios : iterable of float, length R
        Majority count over minority count; counts are rounded to whole numbers.
    majority, minority : int
        One of the two: samples of each majority (minority) class, the same in all rows.
    fraction : float
        Part of the classes in the minority, as in `tightframe.data.step_counts`.
    loss, bias, bias_decay, features, dim, label_smoothing
        As in `Problem`.
    feature_weights : {"samples", "contexts"}
        As in `Problem`. It takes numbers too, one a class, which belong to one row's counts; so do
        class weights and the like.
    tol, max_iterations
        As in `solve`.
    jobs, scheduler
        Processes, or a Dask cluster; see `tightframe.parallel.runner`.
    progress : callable or bool, optional
        As in `tightframe.solve`, of the rows; its answer does not end them.

    Returns
    -------
    PhaseDiagram

    Raises
    ------
    ValueError
        If an argument is out of range, or no solver covers the problem.
    """
    rows, real_ratios = step_rows(
        num_classes, ratios, majority=majority, minority=minority, fraction=fraction
    )
    feature_weights = choice("feature_weights", feature_weights, FEATURE_WEIGHTS)
    decays = [
        positive_float("logit_decays", decay) for decay in _several("logit_decays", logit_decays)
    ]
    if not decays:
        raise ValueError("logit_decays: got none, need at least one")
    problem = Problem(
        rows[0],
        loss,
        weight_decay=decays[0],
        feature_decay=decays[0],
        bias=bias,
        bias_decay=bias_decay,
        features=features,
        dim=dim,
        label_smoothing=label_smoothing,
        feature_weights=feature_weights,
    )
    sweep = {"weight_decay": decays, "feature_decay": decays}
    grid = Grid(problem, sweep, rows, real_ratios, tol, max_iterations)
    with watched(progress, "rows") as tell:

        def row_done(done: int, total: int) -> None:
            told(tell, done, total)

        rows_done = run_grid(grid, jobs=jobs, scheduler=scheduler, progress=row_done)
    return PhaseDiagram.from_rows(grid, rows_done)
