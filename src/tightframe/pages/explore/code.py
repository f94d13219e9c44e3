"""The exact Python behind what the page shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from tightframe.pages.explore import compute
from tightframe.pages.explore.margins import is_grouped
from tightframe.pages.explore.state import VIEWS, State
from tightframe.problem.problem import Problem
from tightframe.solution import Solution
from tightframe.theory.coverage import coverage

#: Imports, then what follows the solution.
_Lines = tuple[list[str], list[str]]

_CLOSED_FORM = ["from tightframe.theory.thresholds import thresholds"]

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
    views = [name for name in VIEWS if name != "code"] if state.view == "code" else [state.view]
    before: Sequence[str] = ()
    imports: set[str] = set()
    lines: list[str] = []
    for view in views:
        try:
            own = _of_view(replace(state, view=view), solution)
        except ValueError:
            if len(views) == 1:
                raise
            continue
        before = before or own.before
        imports.update(own.imports)
        titled = [f"\n# {VIEWS[view]}"] if len(views) > 1 and own.lines else []
        lines += [*titled, *own.lines]
    if file is not None and {"geometry", "margins", "measured"} & set(views):
        imports.update(_MEASURED)
        lines += _measured(file)
    return "\n".join(
        [
            *before,
            "import tightframe as tf",
            *sorted(imports),  # as every linter wants them
            "",
            _call("problem = tf.Problem", **state.arguments()),
            "solution = tf.solve(problem)",
            *lines,
            "",
        ]
    )


class _Code(NamedTuple):
    lines: list[str]
    imports: Sequence[str] = ()
    before: Sequence[str] = ()


def _of_view(state: State, solution: Solution) -> _Code:
    problem = solution.problem
    if state.view == "classes":
        changes = ["changes = tf.state_changes(problem)"] if _has_changes(problem) else []
        return _Code(["states = solution.states", *changes])
    if state.view == "geometry":
        imports, lines = _geometry(problem)
        return _Code(lines, imports)
    if state.view == "margins":
        imports, lines = _MARGINS if is_grouped(solution) else _MARGINS_OF_CLASSES
        try:
            return _Code([*lines, *_path(problem)], imports, _NUMPY)
        except ValueError:
            return _Code(lines, imports)
    if state.view == "phase":
        return _Code(_phase(problem), _CLOSED_FORM, _NUMPY)
    return _Code(_advice(state) if state.view == "advice" else [])


def _has_changes(problem: Problem) -> bool:
    return coverage(problem).is_certified and compute.thresholds(problem) is not None


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
    low, high, points, known = compute.sweep(problem)
    followed = len(problem.groups) <= compute.MAX_AT_ONCE
    return [
        *(["limits = tf.thresholds(problem)"] if followed else []),
        "# The logits depend on the decays through their geometric mean lambda only: a grid, with",
        "# the thresholds and what is just below them.",
        f"known = np.array({list(known)!r})",
        f"lambdas = np.geomspace({low!r}, {high!r}, {points})",
        f"lambdas = np.union1d(lambdas, [known, {compute.JUST_BELOW!r} * known])",
        "path = tf.path(",
        "    problem,",
        "    weight_decay=lambdas,",
        "    feature_decay=lambdas,",
        f"    tol={compute.PICTURE_TOL!r},",
        ")",
        "along = [point.group_states.decision_margin for point in path.solutions]",
    ]


def _phase(problem: Problem) -> list[str]:
    args = compute.phases(problem)
    return [
        "# The minority's margins of STEP counts, row by row at fractions of its threshold.",
        f"share = 1 - (1 - np.linspace(0, 1, {compute.PHASE_DECAYS})) ** 2",
        "collapses, rows = [], []",
        f"for counts in {[row.compact_counts for row in args.rows]!r}:",
        "    step = problem.replace(counts=counts, dim=None)",
        "    threshold = thresholds(step).groups[-1].logit_decay",
        f"    top = threshold * {compute.JUST_BELOW!r}",
        f"    lambdas = {args.low!r} * (top / {args.low!r}) ** share",
        f"    line = tf.path(step, weight_decay=lambdas, feature_decay=lambdas, "
        f"tol={compute.PICTURE_TOL!r})",
        "    collapses.append(threshold)",
        "    rows.append([point.group_states.decision_margin[-1] for point in line.solutions])",
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
