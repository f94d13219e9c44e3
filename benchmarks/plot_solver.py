"""Draw the cost of the solver against K and G from the results that ``solver.py`` wrote.

    python benchmarks/plot_solver.py [benchmarks/results/solver.json] [--out solver.png]

Measures nothing: every point is a row of the file.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tightframe.figures.mpl import label_axis, new_figure, save_figure, style_axis
from tightframe.figures.style import LIGHT, PALETTE
from tightframe.files import read_json

OURS, SCS, GROUPED, CLARABEL, SVD = *PALETTE[:4], LIGHT.muted

Row = dict[str, Any]


def figure(results: dict[str, Any]) -> Figure:
    """Return the figure: seconds against K on the left, against G on the right."""
    rows, about = results["rows"], results["environment"]
    drawing = new_figure(10, 4.4)
    left, right = drawing.subplots(1, 2, sharey=True)
    distinct = _series(rows, "distinct counts")

    _line(left, distinct, "classes", "seconds", "o-", OURS, "tightframe, distinct counts")
    _line(left, _series(rows, "3 groups"), "classes", "seconds", "s-", GROUPED, "3 groups")
    for peer, name, color in (("SCS", "SCS", SCS), ("CLARABEL", "Clarabel", CLARABEL)):
        chosen = [r for r in rows if r["peer"] == peer and r["series"] == "distinct counts"]
        done = [r for r in chosen if r["peer_seconds"] is not None]
        _line(left, done, "classes", "peer_seconds", "^--", color, f"CVXPY with {name}")
        cut = [r for r in chosen if r["peer_seconds"] is None and r["ratio_is_bound"]]
        limit = about["settings"]["peer_limit"]
        if cut:
            left.plot(
                [r["classes"] for r in cut],
                [limit] * len(cut),
                linestyle="none",
                marker=r"$\uparrow$",
                markersize=11,
                color=color,
                label=f"{name} not done in {limit:g} s",
            )
    label_axis(left, "", "classes K", "seconds")

    many = _series(rows, "K = 21,841")
    _line(right, distinct, "groups", "seconds", "o-", OURS, "tightframe, distinct counts (G = K)")
    _line(right, many, "groups", "seconds", "s-", GROUPED, "tightframe, K = 21,841 in G groups")
    both = sorted(distinct + many, key=lambda r: r["groups"])
    _line(right, both, "groups", "svd_seconds", ":", SVD, "one G x G SVD (NumPy)")
    label_axis(right, "", "distinct counts G")

    for axes in (left, right):
        axes.set_xscale("log")
        axes.set_yscale("log")
        style_axis(axes)
        if axes.lines:
            axes.legend(fontsize=8)
    drawing.suptitle(
        f"Time of a certified solve ({about['cores']} cores, {about['date'][:10]})", fontsize=11
    )
    return drawing


def _series(rows: Sequence[Row], series: str) -> list[Row]:
    """Return the rows of a series with a time of ours, one a case."""
    first: dict[str, Row] = {}
    for row in rows:
        if row["series"] == series and row["seconds"] is not None:
            first.setdefault(row["case"], row)
    return sorted(first.values(), key=lambda r: (r["classes"], r["groups"]))


def _line(
    axes: Axes, rows: Sequence[Row], x: str, y: str, style: str, color: str, label: str
) -> None:
    points = sorted((row[x], row[y]) for row in rows if row[y] is not None)
    if points:
        axes.plot(*zip(*points, strict=True), style, color=color, label=label, markersize=5)


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the results and write the picture."""
    folder = Path(__file__).parent / "results"
    parser = argparse.ArgumentParser(description="Draw what benchmarks/solver.py measured.")
    parser.add_argument("results", type=Path, nargs="?", default=folder / "solver.json")
    parser.add_argument("--out", type=Path, default=None, help="PNG (default: beside the results)")
    options = parser.parse_args(arguments)
    target = options.out or options.results.with_suffix(".png")
    try:
        results = read_json(options.results)
    except ValueError as error:
        parser.error(str(error))
    drawing = figure(results)
    save_figure(drawing, target)
    print(target)


if __name__ == "__main__":
    main()
