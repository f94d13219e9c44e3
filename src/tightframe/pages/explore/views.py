"""What every view shows of a state: figures with their texts, tables and sentences."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from dash import html

from tightframe.advice.blocks import remedies_table
from tightframe.advice.prediction import describe
from tightframe.advice.proposals import Proposal
from tightframe.figures.model import evenly
from tightframe.figures.style import Ink
from tightframe.figures.table import Column, Table
from tightframe.geometry.dense import orthogonal_frame, seli_of_head, simplex_etf
from tightframe.geometry.states import DISTINCT, STATES
from tightframe.pages.explore import compute, figures
from tightframe.pages.explore.figures import Picture, group_names
from tightframe.pages.explore.margins import predicted as predicted_margins
from tightframe.pages.explore.margins import states as predicted_states
from tightframe.pages.explore.state import State
from tightframe.pages.explore.tables import to_dash
from tightframe.pages.explore.upload import Measured
from tightframe.path import Path
from tightframe.problem.class_names import listed
from tightframe.problem.problem import Problem, with_loss_terms
from tightframe.solution import Solution
from tightframe.sweeps.phase_picture import Columns
from tightframe.theory.certificate import certify
from tightframe.theory.coverage import coverage

#: Of the geometry view: the matrices and what they are called.
PARTS = {
    "logits": "mean logits, without bias",
    "classifier": "classifier Gram matrix",
    "means": "Gram matrix of the class means",
}

#: Of more groups, evenly chosen ones are in the table.
MAX_ROWS = 30


def headline(solution: Solution, measured: Measured | None = None) -> str:
    """Return the solution in a line, with the names that a file has for its classes."""
    problem = _named(solution.problem, measured)
    found = list(zip(group_names(problem), predicted_states(solution), strict=True))
    parts = []
    for state in STATES:
        names = [name for name, own in found if own == state]
        if state == DISTINCT or not names:
            continue
        more = f" and {len(names) - 6} more groups" if len(names) > 6 else ""
        parts.append(f"{state}: {', '.join(names[:6])}{more}")
    gone = "; ".join(parts) or "all classes stay distinct"
    gap = "no certificate" if solution.gap is None else f"certified gap {solution.gap:.1e}"
    return (
        f"{problem.num_classes} classes, {problem.num_samples} samples: {gone}; rank "
        f"{solution.rank}, objective {solution.objective:.6g}, {gap} "
        f"({solution.status.replace('_', ' ')}, {1000 * solution.seconds:.0f} ms)."
    )


def _named(problem: Problem, measured: Measured | None) -> Problem:
    """Return the problem with the names that a file has for its classes."""
    return problem if measured is None else measured.naming(problem)


def geometry(
    solution: Solution, measured: Measured | None, ink: Ink
) -> tuple[list[Picture], list[Picture] | None]:
    """Return heat maps of the prediction and of the measurement."""
    problem = _named(solution.problem, measured)
    classes = compute.shown_classes(problem)
    predicted = compute.geometry(solution)
    found = None if measured is None else compute.restrict(measured.report.geometry, classes)
    maps, overlay = [], []
    for part, name in PARTS.items():
        matrices = [getattr(g, part) for g in (predicted, found) if g is not None]
        limit = max(float(abs(matrix).max()) for matrix in matrices)
        shared = (problem, classes)
        maps.append(figures.heat_map(matrices[0], *shared, f"Predicted {name}", ink, limit))
        if found is not None:
            overlay.append(figures.heat_map(matrices[1], *shared, f"Measured {name}", ink, limit))
    return maps, overlay or None


def margins(solution: Solution, measured: Measured | None, ink: Ink) -> tuple[Picture, Any]:
    """Return the margins as a picture and as a table."""
    problem = _named(solution.problem, measured)
    found = None if measured is None else measured.margins(problem)
    predicted = predicted_margins(solution)
    picture = figures.margins(problem, predicted, found, ink)
    limits = compute.thresholds(problem)
    margin = Column("", align="right", format=".5g")
    names = ["sibling margin", "decision margin"]
    followed = limits is not None and limits.groups[0].changes is not None
    states_from = ["merges", "lost", "vanishes"] if followed else ["logit_decay"]
    closed = "collapses" if limits is None else f"{limits.kind}s"
    place = Column("", align="right", format=".4g")
    columns: list[str | Column] = [
        Column("classes", align="left"),
        Column("samples each", align="right"),
        *(replace(margin, name=name) for name in names),
        Column("predicted", states=True),
        *(
            replace(place, name=f"{closed if name == 'logit_decay' else name} from λ =")
            for name in states_from
        ),
    ]
    if found is not None:
        columns += [replace(margin, name=f"measured {name}") for name in names]
    states = predicted_states(solution)
    rows = []
    terms = problem.group_terms
    called = problem.group_names()
    for g in evenly(len(problem.groups), MAX_ROWS):
        group = problem.groups[g]
        row = [
            f"{group.classes} ({listed(called[g], 2)})" if called[g] else group.classes,
            with_loss_terms(str(group.count), **terms[g]),
            None if group.classes == 1 else predicted.sibling[g],
            predicted.nearest[g],
            states[g],
            *(None if limits is None else getattr(limits.groups[g], name) for name in states_from),
        ]
        if found is not None:
            row += [None if group.classes == 1 else found.sibling[g], found.nearest[g]]
        rows.append(row)
    few = len(rows) < len(problem.groups)
    title = f"Margins of {len(rows)} of {len(problem.groups)} groups" if few else "Margins"
    return picture, to_dash(Table(title, columns, rows, missing="-"))


def path(problem: Problem, measured: Measured | None, ink: Ink) -> Picture:
    """Return margins and rank along lambda."""
    return _path(problem, compute.path(problem), measured, ink)


def path_at_once(problem: Problem, measured: Measured | None, ink: Ink) -> tuple[Picture, bool]:
    """Return the path, or its thresholds alone where it takes long to solve; and which of both.

    Raises
    ------
    ValueError
        If nothing certifies the problem.
    """
    if len(problem.groups) <= compute.MAX_AT_ONCE or compute.is_path_solved(problem):
        return path(problem, measured, ink), True
    return _path(problem, None, measured, ink), False


def _path(problem: Problem, line: Path | None, measured: Measured | None, ink: Ink) -> Picture:
    limits = compute.thresholds(problem)
    assert limits is not None  # or there would be no path
    found = None if measured is None else measured.margins(problem).nearest
    decays = compute.sweep(problem).decays
    return figures.path(line, decays, _named(problem, measured), limits, found, ink)


def phase(problem: Problem, ink: Ink) -> Picture:
    """Return the phase diagram around a problem."""
    args = compute.phases(problem)
    return _phase(problem, args, compute.phase_diagram(args), ink)


def phase_at_once(problem: Problem, ink: Ink) -> tuple[Picture, bool]:
    """Return the phase diagram, or its thresholds alone where it is not solved yet; which of both.

    Raises
    ------
    ValueError
        If the phase diagram is not known for such a problem.
    """
    args = compute.phases(problem)
    solved = compute.is_diagram_solved(args)
    found = compute.phase_diagram(args) if solved else compute.phase_outline(args)
    return _phase(problem, args, found, ink), solved


def _phase(problem: Problem, args: compute.Phases, found: Columns, ink: Ink) -> Picture:
    place = compute.place_in(problem)
    state = DISTINCT if place is None else predicted_states(compute.solve(problem))[-1]
    after = "merged"
    if args.limits[0].kind == "vanish":
        after = "vanished"
    elif (found.ends < args.collapses).any():
        after = "lost"
    return figures.phase(found, problem, after, place, state, ink)


# -- advice ----------------------------------------------------------------------------------------


def advice(state: State, measured: Measured | None = None) -> list[Any]:
    """Return what `tightframe.advise` says; every proposal links to the state it makes."""
    problem = state.problem()
    found = compute.advise(problem, tuple(state.wanted().items()))
    over = measured if measured is not None and measured.fits(problem) else None
    met = "Every class has" if found.met else "Not every class has"
    groups = [
        [
            describe(replace(group, names=names)),
            group.state,
            group.decision_margin,
            group.angle,
            safety.factor,
        ]
        for group, names, safety in zip(
            found.now.groups, _named(problem, over).group_names(), found.safety, strict=True
        )
    ]
    columns: list[str | Column] = [
        "group",
        Column("state", states=True),
        Column("decision margin", format=".4g"),
        Column("angle", format=".4g", suffix="°"),
        Column("safety factor", format=".4g"),
    ]
    items = [_proposal(proposal, state) for proposal in found.proposals]
    plain = [_proposal(proposal, state) for proposal in found.plain_remedies]
    more = "; ".join(
        f"{times} times the samples: smallest decision margin {after.decision_margin:.4g}"
        for times, after in found.more_data
    )
    return [
        html.P(
            f"{met} {found.wanted} or more. All classes are distinct "
            + (
                f"below λ = {found.largest_decay:.4g}."
                if found.largest_decay
                else "at no decay that was looked at."
            )
        ),
        *([html.Ul([html.Li(text) for text in found.warnings])] if found.warnings else []),
        to_dash(Table("Groups now", columns, groups)),
        *([html.H3("What helps"), html.Ul(items)] if items else []),
        *([html.H3("Plain remedies, for comparison"), html.Ul(plain)] if plain else []),
        *([to_dash(remedies_table(found))] if found.remedies else []),
        html.P(f"With more data of the same kind, {more}."),
        html.P(found.limits, className="note"),
    ]


def _proposal(proposal: Proposal, state: State) -> Any:
    if proposal.problem is None or proposal.after is None:
        return html.Li(proposal.text)
    after = State.from_problem(proposal.problem, view=state.view, margin=state.margin)
    after = replace(after, feature_decay_of=state.feature_decay_of)
    return html.Li(
        [
            f"{proposal.text} Smallest decision margin then: "
            f"{proposal.after.decision_margin:.4g}. ",
            html.A("Show this", href=f"/?{after.query()}"),
        ]
    )


# -- measured --------------------------------------------------------------------------------------


def measured_tables(measured: Measured, solution: Solution | None) -> list[Any]:
    """Return what a file says, and how that compares with the prediction."""
    from tightframe.runs.tables import distance_table, leading_table
    from tightframe.runs.verdicts import CRITERIA, group_verdicts

    report = measured.report
    targets = []
    if not report.missing:
        targets = [simplex_etf(len(report.counts)), orthogonal_frame(len(report.counts))]
        targets.append(seli_of_head(report.counts, measured.bias is not None))
    sentences: list[Any] = []
    if solution is not None:
        targets.insert(0, solution.geometry)
        problem = _named(solution.problem, measured)
        verdicts = group_verdicts(problem, solution, report.logits, measured.bias)
        sentences = [html.Li(verdict.sentence) for verdict in verdicts]
        sentences.append(html.Li(CRITERIA))
    if solution is not None and solution.problem.bias == "none" and measured.has_bias:
        sentences.append(
            html.Li("It has a bias, the problem has none: take a free or a decayed one to compare.")
        )
    elif solution is not None and coverage(solution.problem).is_certified:
        bound = certify(
            solution.problem,
            report.geometry.logits,
            measured.bias,
            lower_bound=solution.lower_bound,
        )
        sentences.append(
            html.Li(
                f"Objective of its class means {bound.primal:.6g}, at most {bound.gap:.3g} above "
                "the global minimum (certified)."
            )
        )
    return [
        html.P(f"{measured.name}: {measured.samples}."),
        to_dash(measured.classes.to_table(remarks=False)),
        html.Ul([html.Li(remark) for remark in measured.classes.remarks]),
        *([html.Ul(sentences)] if sentences else []),
        to_dash(distance_table(report, targets)),
        to_dash(replace(leading_table(report), title="Collapse metrics")),
    ]
