"""The exact Python behind what the page shows."""

from __future__ import annotations

from typing import Any

from tightframe.pages.explore import compute
from tightframe.pages.explore.margins import is_grouped
from tightframe.pages.explore.state import State
from tightframe.problem.problem import Problem
from tightframe.solution import Solution

#: Imports, then what follows the solution.
_Lines = tuple[list[str], list[str]]

_NUMPY = ["import numpy as np", ""]


def python_code(state: State, solution: Solution, file: str | None) -> str:
    """Return a script that computes the view's numbers.

    Parameters
    ----------
    state : State
    solution : Solution
        Of that state.
    file : str, optional
        Name of the measured file.

    Raises
    ------
    ValueError
        If there is no such picture of the problem.
    """
    problem = solution.problem
    before: list[str] = []
    imports: list[str] = []
    lines: list[str] = []
    if state.view == "geometry":
        imports, lines = _geometry(problem)
    elif state.view == "margins":
        imports, lines = _MARGINS if is_grouped(solution) else _MARGINS_OF_CLASSES
    elif state.view == "path":
        before, lines = _NUMPY, _path(problem)
    elif state.view == "phase":
        before, lines = _NUMPY, _phase(problem)
    elif state.view == "advice":
        lines = _advice(state)
    if file is not None and state.view in ("geometry", "margins", "path", "measured"):
        # Sorted as every linter wants them.
        imports, lines = sorted([*_MEASURED, *imports]), [*lines, *_measured(file)]
    return "\n".join(
        [
            *before,
            "import tightframe as tf",
            *imports,
            "",
            _call("problem = tf.Problem", **state.arguments()),
            "solution = tf.solve(problem)",
            *lines,
            "",
        ]
    )


_MARGINS: _Lines = (
    [],
    [
        "to_a_sibling = solution.group_margins",
        "to_the_nearest = solution.group_states.decision_margin",
    ],
)

_MARGINS_OF_CLASSES: _Lines = (
    ["from tightframe.pages.explore.margins import of_logits"],
    [
        "logits = solution.logits + solution.bias[:, None]",
        "to_a_sibling, to_the_nearest, _ = of_logits(problem, logits)",
    ],
)

_MEASURED = [
    "from tightframe.runs.measure import measure",
    "from tightframe.runs.verdicts import group_verdicts",
    "from tightframe.runs.network_files import read_network",
]


def _geometry(problem: Problem) -> _Lines:
    if problem.num_classes <= compute.MAX_DENSE:
        return [], [
            "geometry = solution.geometry",
            "matrices = geometry.logits, geometry.classifier, geometry.means",
        ]
    return ["from tightframe.geometry.grouped import GroupedGeometry"], [
        "geometry = GroupedGeometry.from_solution(solution)  # group by group",
        "matrices = geometry.logits, geometry.classifier, geometry.means",
    ]


def _path(problem: Problem) -> list[str]:
    low, high, points = compute.sweep(problem)
    return [
        "limits = tf.thresholds(problem)",
        "# The logits depend on the decays through their geometric mean lambda only.",
        f"lambdas = np.geomspace({low!r}, {high!r}, {points})",
        "path = tf.path(",
        "    problem,",
        "    weight_decay=lambdas,",
        "    feature_decay=lambdas,",
        f"    tol={compute.PICTURE_TOL!r},",
        ")",
        "margins = [point.group_margins for point in path.solutions]",
    ]


def _phase(problem: Problem) -> list[str]:
    args = compute.phases(problem)
    return [
        "diagram = tf.phase_diagram(",
        f"    {args.num_classes},",
        f"    np.geomspace({args.low!r}, {args.high!r}, {compute.PHASE_DECAYS}),",
        f"    {args.ratios},",
        f"    minority={args.minority},",
        f"    fraction={args.fraction!r},",
        f"    tol={compute.PICTURE_TOL!r},",
        *(f"    {name}={value!r}," for name, value in args.options),
        ")",
    ]


def _advice(state: State) -> list[str]:
    wanted = "".join(f", {name}={value!r}" for name, value in state.wanted().items())
    return [f"advice = tf.advise(problem{wanted})", "print(advice.warnings)"]


def _measured(file: str) -> list[str]:
    return [
        f"network = read_network({file!r})",
        "report = measure(network).report",
        "verdicts = group_verdicts(problem, solution, report.logits, network.bias)",
        "distances = report.distances(solution.geometry)",
    ]


def _call(function: str, **arguments: Any) -> str:
    lines = [f"    {name}={value!r}," for name, value in arguments.items()]
    return "\n".join([f"{function}(", *lines, ")"])
