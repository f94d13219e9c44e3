"""A panel of every kind, for both backends."""

import numpy as np

from tightframe.figures.diagrams import (
    Callout,
    Change,
    Lane,
    MergeTree,
    Moment,
    Network,
    Run,
    Wheel,
)
from tightframe.figures.model import (
    Area,
    Bars,
    Cells,
    Chart,
    Curve,
    HeatMaps,
    Mark,
    Matrix,
    Mesh,
    Note,
    Shades,
    Stack,
    Table,
)

X = [1.0, 10.0, 100.0, 1000.0]

CURVES = Chart(
    "Curves",
    "x",
    "y",
    [
        Curve("banded", X, [1, 2, 4, 8], "predicted", "line+points", [0.5, 1, 2, 4], [2, 4, 8, 16]),
        Curve("gap", X, [8, None, 2, 1], "measured", "dashed"),
        Curve("open", X, [3, 3, 3, 3], 2, "points", marker="diamond", hollow=True),
        Curve("partly", X, [5, 5, 0.1, 0.1], 3, "line+points", hollow=[False, False, True, True]),
        Curve("steps", X, [9, 7, 4, 2], "muted", "steps"),
    ],
    [
        Mark(30.0, "threshold"),
        Mark(300.0, "named once", "x", "ink", "dashed", True),
        Mark(500.0, "named once", "x", 1, "dashed", True),
        Mark(2.5, "limit", "y", "bound"),
    ],
    log_x=True,
    log_y=True,
    notes=[Note(1000.0, 8.0, "the end", "predicted")],
    hollow_label="collapsed",
)

BARS = Chart(
    "Bars",
    "",
    "",
    [],
    bars=[
        Bars("one", [0, 1], [0.5, 2.0], 0, 0.4, across=True),
        Bars("two", [0.4, 1.4], [1.0, None], 1, 0.4, across=True, hatched=True),
    ],
    y_ticks=[(0.2, "first"), (1.2, "second")],
    downwards=True,
)

CELLS = Chart(
    "Cells",
    "λ = decay",
    "ratio",
    [Curve("threshold", [1.0, 10.0, 100.0], [1.0, 3.0, 9.0], "ink", seam=True)],
    log_x=True,
    log_y=True,
    cells=Cells(
        [1.0, 10.0, 100.0],
        [1.0, 5.0],
        [[1.5, 0.5, None], [-1.0, np.nan, 2.5]],
        "margin",
        [["", "", "merged"], ["", "", ""]],
        "failed",
    ),
)

#: Columns up to y = 10 / x, and what lies above.
MESH = Chart(
    "Mesh",
    "ratio",
    "λ = decay",
    [Curve("merges", [1.0, 2.0, 4.0], [10.0, 5.0, 2.5], "merged")],
    log_x=True,
    log_y=True,
    x_ticks=[(1.0, "1"), (4.0, "4")],
    x_range=(1.0, 4.0),
    y_range=(1.0, 20.0),
    mesh=Mesh(
        [1.0, 2.0, 4.0],
        [[1.0, 3.0, 10.0], [1.0, 2.0, 5.0], [1.0, 2.0, 2.5]],
        [[3.0, 1.5, 0.0], [2.0, 1.0, 0.0], [1.0, 0.25, 0.0]],
        "margin",
    ),
    areas=[
        Area("merged", "merged", [1.0, 2.0, 4.0], [10.0, 5.0, 2.5], [15.0, 15.0, 15.0]),
        Area("all gone", "vanished", [1.0, 2.0, 4.0], [15.0] * 3, [20.0] * 3, whole=True),
    ],
)

SHADES = Chart(
    "Shades",
    "x",
    "y",
    [Curve(f"n = {n}", X, [n, 2 * n, n, n], "ink", shade=n) for n in (10.0, 100.0, 1000.0)],
    [Mark(50.0, "from here", "x", "ink", "triangle", True, 100.0)],
    shades=Shades("samples", 10.0, 1000.0),
)

STACK = Stack(
    "Stack",
    [
        Chart("Top", "", "margin", [Curve("a", X, [4, 3, 2, 1])], [Mark(20.0, "", "x")]),
        Chart("", "x", "rank", [Curve("rank", X, [3, 2, 2, 1], "ink")], legend="none"),
    ],
    [3.0, 1.0],
)

MAPS = HeatMaps(
    "Maps",
    [Matrix("one", [[1.0, -4.0], [0.0, None]]), Matrix("two", [[2.0, 0.0], [0.0, 2.0]])],
    borders=[1.0],
    ticks=[(0.0, "5 of 10"), (1.0, "2 of 3")],
    classes=[4, 7],
    scale_label="logit",
)

TABLE = Table("Table", ["name", "number"], [["a", 1.25], ["b", None]])

PANELS = [CURVES, BARS, CELLS, MESH, SHADES, STACK, MAPS, TABLE]

#: Three classes on a rim of four homes' width: the third has merged with nobody, it vanished.
WHEEL = Wheel(
    "Wheel",
    ["cat", "dog", "<b>"],
    [[0, 1], [1, 0], [-1, 0]],
    [0.06, 0.05, 0.04],
    [
        Moment("start", [[0, 0.5], [0.5, 0], [0, 0]], ["lost", "weak", ""], 0.0),
        Moment(
            "end",
            [[0, 0.9], [0.8, 0], [0.1, 0.2]],
            ["distinct", "merged", "vanished"],
            9.0,
            [[0, 1], [0.7, 0], [0, 0]],
            (0.1, 0.2),
            [Callout(0.1, 0.05, "<b> vanished", "vanished")],
            ["cat: 5", "dog: 4", "<b>: 3"],
            [[], [(0, 0.25)], [(0, 0.4), (1, 0.3)]],
        ),
    ],
    [0, 1, 2],
    [(0.0, 1.3, "3 classes")],
    note="A note.",
)

TREE = MergeTree(
    "Tree",
    "λ",
    0.001,
    0.1,
    100.0,
    [
        Lane("cat", 3.0, [Run("distinct", [0.001, 0.05], [10, 10])], [(0.05, 10)]),
        Lane(
            "<b>",
            2.0,
            [
                Run("distinct", [0.001, 0.008, 0.01], [90, 90, 20]),
                Run("lost", [0.01, 0.05], [20, 20]),
            ],
            [(0.05, 20)],
        ),
    ],
    [Change(0.01, "lost", "<b> lost"), Change(0.05, "vanished", "all vanish", 1)],
    [(50.0, "two")],
    [Network(0.02, "A", ["distinct", "lost"])],
    now=0.002,
)

#: What Plotly does not draw.
DIAGRAMS = [WHEEL, TREE]
