"""What the commands print: tables, sentences, and the progress of long work."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from tightframe.advice.advise import Advice
from tightframe.advice.calibrate import Calibration
from tightframe.advice.prediction import Outlook, describe
from tightframe.files import format_json
from tightframe.geometry.states import DISTINCT
from tightframe.metrics.registry import LEADING
from tightframe.path import RankChange
from tightframe.problem.problem import Problem, with_loss_terms
from tightframe.solution import Solution
from tightframe.solvers.search.record import Search
from tightframe.theory.thresholds import Thresholds

if TYPE_CHECKING:
    from tightframe.reproduce.folder import FigureRecord
    from tightframe.reproduce.spec import Paper
    from tightframe.runs.config import RunConfig
    from tightframe.sweeps.phase import PhaseDiagram

#: How many class groups have a column in a printed path, and a row in advice.
MAX_GROUPS = 5
MAX_ROWS = 12


def new_table(*columns: str, title: str | None = None) -> Table:
    """Return an empty table: names on the left, numbers on the right."""
    table = Table(title=title, title_justify="left")
    table.add_column(columns[0])
    for column in columns[1:]:
        table.add_column(column, justify="right")
    return table


def _optional(value: float | None) -> str:
    return "-" if value is None else f"{value:.6g}"


def print_solution(solution: Solution, console: Console) -> None:
    """Print the predicted class groups and what is certified of them."""
    columns = ("samples each", "decision margin", "sibling margin", "nearest", "state")
    table = new_table("classes", *columns, title="Predicted class groups")
    groups = solution.to_dict()["groups"]
    for i, group in enumerate(groups):
        table.add_row(
            str(group["classes"]),
            with_loss_terms(str(group["count"]), group["class_weight"], group["logit_adjustment"]),
            f"{group['decision_margin']:.6g}",
            _optional(group["sibling_margin"]),
            _nearest(groups, i),
            group["state"],
        )
    console.print(table)
    gap = "none" if solution.gap is None else f"{solution.gap:.2g} ({solution.note})"
    console.print(
        f"objective {solution.objective:.12g}, gap {gap}, rank {solution.rank}\n"
        f"{solution.status}; {solution.method}; {solution.seconds:.3f} s",
        highlight=False,
    )
    if solution.search is not None:
        _print_search(solution, solution.search, console)


def _nearest(groups: Sequence[Mapping[str, Any]], i: int) -> str:
    """Return the samples of the class that a group's are nearest to, or taken for."""
    rival = groups[i]["rival"]
    if rival is None:
        return "-"
    return "a sibling" if rival == i else f"one of {groups[rival]['count']}"


def _print_search(solution: Solution, search: Search, console: Console) -> None:
    table = new_table("candidate", "rank", "objective", "starts that found it")
    for c in search.candidates:
        found = "closed form" if c.found is None else str(c.found)
        table.add_row(c.name, str(c.rank), f"{c.objective:.12g}", found)
    console.print(table)
    bound = ""
    if search.relaxed_bound is not None:
        bound = f"; certified without dim: at least {search.relaxed_bound:.12g}"
    console.print(
        f"{solution.note} (seed {search.seed}){bound}. Nothing certifies that there is no better "
        "solution.",
        highlight=False,
    )


def print_advice(advice: Advice, fitted: Calibration | None) -> None:
    """Print how far the classes are from collapse, and the proposals."""
    console = Console()

    def say(text: str) -> None:
        console.print(text, highlight=False)

    if fitted is not None:
        say(
            f"fitted to the network: weight_decay {fitted.weight_decay:.4g} (error "
            f"{fitted.weight_error:.2g}), feature_decay {fitted.feature_decay:.4g} (error "
            f"{fitted.feature_error:.2g}); its logits are {fitted.logits_distance:.2g} from the "
            "prediction"
        )
    title = f"As it is: lambda {advice.problem.logit_decay:.4g}"
    factors = [f"{safety.factor:.3g}" for safety in advice.safety]
    console.print(_outlook_table(advice.now, title, safety=factors))
    for warning in advice.warnings:
        say(warning)
    decays = advice.largest_decays
    say(
        f"all classes are distinct below lambda {advice.largest_decay:.4g}: weight_decay "
        f"{decays['weight_decay']:.4g} or feature_decay {decays['feature_decay']:.4g}"
    )
    if advice.met:
        say(f"every class has {advice.wanted}: nothing to change")
    else:
        say(f"\nWhat gives every class {advice.wanted}:")
    for proposal in advice.proposals:
        say(f"- {proposal.text}")
        if proposal.after is not None:
            console.print(_outlook_table(proposal.after, None))
    if advice.plain_remedies:
        say("\nFor comparison, plain remedies:")
    for remedy in advice.plain_remedies:
        if remedy.after is not None:
            say(
                f"- {remedy.text} Smallest decision margin {remedy.after.decision_margin:.4g}, "
                f"smallest angle {remedy.after.angle:.4g}."
            )
    for times, found in advice.more_data:
        say(
            f"{times} times the data, feature_decay of the {advice.feature_decay_of} as it is: "
            f"smallest decision margin {found.decision_margin:.4g}, smallest angle "
            f"{found.angle:.4g}"
        )
    say(advice.limits)


def _outlook_table(found: Outlook, title: str | None, **more: list[str]) -> Table:
    """Tabulate an outlook by group, the worst groups if there are many."""
    lengths = ("classifier norm", "mean norm")
    columns = ("decision margin", "angle", *lengths, *more, "state")
    table = new_table("classes", *columns, title=title)
    worst = sorted(range(len(found.groups)), key=lambda i: found.groups[i].decision_margin)
    worst = worst[:MAX_ROWS]
    for i in sorted(worst):
        group = found.groups[i]
        numbers = (group.decision_margin, group.angle, group.classifier_norm, group.mean_norm)
        table.add_row(
            describe(group),
            *(f"{number:.4g}" for number in numbers),
            *(column[i] for column in more.values()),
            group.state,
        )
    if len(found.groups) > MAX_ROWS:
        table.caption = f"the {MAX_ROWS} smallest decision margins of {len(found.groups)} groups"
    return table


def print_thresholds(
    problem: Problem, result: Thresholds, changes: tuple[RankChange, ...] | None
) -> None:
    """Print where each class group collapses."""
    console = Console()
    decay = "sqrt(weight_decay feature_decay)"
    if problem.depth > 1:
        decay = "geometric mean of all decays"
    own = result.logit_decay
    title = f"lambda = {decay}" + ("" if own is None else f" = {own:.6g}")
    columns = ("samples each", "merge from", "lost from", "vanish from")
    names = [
        with_loss_terms(str(group.count), *terms)
        for group, *terms in zip(
            result.groups, problem.group_weights, problem.group_adjustment, strict=True
        )
    ]
    table = new_table("classes", *columns, title=title)
    for group, name in zip(result.groups, names, strict=True):
        places = (group.merges, group.lost, group.vanishes)
        table.add_row(str(group.classes), name, *(_optional(place) for place in places))
    console.print(table)
    if own is not None:
        columns = ("samples each", "now", f"{result.kind} from N", "distinct for counts in")
        table = new_table("classes", *columns, title=f"At lambda = {own:.6g}")
        for group, name in zip(result.groups, names, strict=True):
            between = group.distinct_counts
            table.add_row(
                str(group.classes),
                name,
                group.state_at(own),
                _optional(group.total_samples),
                "-" if between is None else f"({between[0]:.4g}, {between[1]:.4g})",
            )
        console.print(table)
    console.print(f"all class means are zero from lambda = {result.total_collapse:.6g}")
    if changes is not None:
        table = new_table("lambda", "rank above", "rank below", title="Where the rank changes")
        for change in changes:
            ranks = str(change.rank_above), str(change.rank_below)
            table.add_row(f"{change.logit_decay:.6g}", *ranks)
        console.print(table)


@contextlib.contextmanager
def rows_display(console: Console) -> Iterator[Callable[[int, int], None]]:
    """Show how many rows are done; on a terminal only, and not before the first can be solved."""
    bar = Progress(
        TextColumn("rows"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    task = bar.add_task("rows", total=None)

    def progress(done: int, total: int) -> None:
        bar.start()
        bar.update(task, completed=done, total=total)

    try:
        yield progress
    finally:
        bar.stop()


def print_row(row: Mapping[str, Any], console: Console) -> None:
    """Print one path: margins along lambda, with a line at every threshold that is passed."""
    points = row["points"]
    if not points:
        return  # it failed, which is said on stderr
    varied = [
        name
        for name in ("counts", "weight_decay", "feature_decay", "bias_decay")
        if any(point["problem"][name] != points[0]["problem"][name] for point in points)
    ]
    by_lambda = "counts" not in varied and points[0]["lambda"] != points[-1]["lambda"]
    if by_lambda:
        points = sorted(points, key=lambda point: float(point["lambda"]))
    columns = ["lambda"] if by_lambda or not varied else [n.replace("_", " ") for n in varied]
    most = max(len(point["groups"]) for point in points)
    shown = min(most, MAX_GROUPS)
    if "counts" in varied:
        names = [f"margin {g + 1}" for g in range(shown)]
    else:
        names = [
            with_loss_terms(
                f"{group['classes']} of {group['count']}",
                group["class_weight"],
                group["logit_adjustment"],
            )
            for group in points[0]["groups"][:shown]
        ]
    title = "Decision margins"
    if "counts" not in varied:
        title += f" at samples per class {row['counts']}"
    table = new_table(*columns, *names, "rank", "gap", "status", title=title)
    for i, point in enumerate(points):
        if by_lambda and i:
            for limit, cells in _passed(points[i - 1], point, shown):
                table.add_row(f"{limit:.6g}", *cells, "", "", "threshold", style="bold")
        place = [f"{point['lambda']:.6g}"]
        if varied and not by_lambda:
            place = [str(point["problem"][name]) for name in varied]
        margins = [_margin_or_state(group) for group in point["groups"][:shown]]
        margins += [""] * (shown - len(margins))
        gap = "-" if point["gap"] is None else f"{point['gap']:.1e}"
        table.add_row(*place, *margins, str(point["rank"]), gap, point["status"])
    console.print(table)
    if most > shown:
        console.print(f"{most - shown} more groups: see --json or --out", highlight=False)


def _margin_or_state(group: Mapping[str, Any]) -> str:
    """Return a group's decision margin, or its state if it is not distinct."""
    if "state" not in group:  # a row that an earlier version kept
        return "collapsed" if group["collapsed"] else f"{group['margin']:.6g}"
    distinct = group["state"] == DISTINCT
    return f"{group['decision_margin']:.6g}" if distinct else str(group["state"])


def _passed(
    before: Mapping[str, Any], after: Mapping[str, Any], shown: int
) -> list[tuple[float, list[str]]]:
    """Return the thresholds between two points of a path, and what collapses there, a cell each."""
    verb = {"merge": "merge", "vanish": "vanish"}.get(after["collapse_kind"], "")
    found: dict[float, list[str]] = {}
    for g, group in enumerate(after["groups"][:shown]):
        place = group["threshold"]
        if place is not None and before["lambda"] < place <= after["lambda"]:
            found.setdefault(place, [""] * shown)[g] = verb
    return sorted(found.items())


def print_phases(diagram: PhaseDiagram, console: Console) -> None:
    """Print a phase diagram, a ratio a row."""
    table = new_table(
        "samples per class",
        "ratio",
        "minority collapses from",
        "on the grid from",
        "rank",
        title="Phase diagram over the imbalance ratio and lambda",
    )
    for i, counts in enumerate(diagram.counts):
        collapsed = diagram.logit_decays[diagram.minority_collapsed[i]]
        solved = diagram.rank[i][diagram.rank[i] >= 0]
        limit = diagram.minority_threshold[i]
        table.add_row(
            counts,
            f"{diagram.ratios[i]:.4g}",
            "-" if limit != limit else f"{limit:.6g}",
            f"{collapsed.min():.6g}" if len(collapsed) else "-",
            f"{solved.max()} to {solved.min()}" if len(solved) else "failed",
        )
    console.print(table)


def print_measurement(result: Any) -> None:
    """Print the metrics, the nearest frames and the verdicts of saved features."""
    console = Console()
    report = result.report
    table = new_table("metric", "value", title=f"{report.num_samples} samples")
    for metric in LEADING:
        value = report.numbers[metric.key]
        table.add_row(metric.key, "-" if value is None else f"{value:.6g}")
    console.print(table)
    parts = ("classifier", "means", "centered_means", "logits")
    table = new_table("distance to", *parts, title="Normalised Frobenius distance (0 to 2)")
    for target in result.targets:
        distances = report.distances(target)
        table.add_row(target.name, *(f"{distances[part]:.4f}" for part in parts))
    console.print(table)
    if result.certificate is not None:
        console.print(
            f"objective of the class means {result.certificate.primal:.8g}, of the network "
            f"{result.objective:.8g}; certified lower bound {result.certificate.dual:.8g}\n"
            f"certified gap of the class means {result.certificate.gap:.3g}",
            highlight=False,
        )
    for verdict in result.verdicts:
        console.print(verdict.sentence, highlight=False)
    if result.verdicts:
        from tightframe.runs.verdicts import CRITERIA

        console.print(CRITERIA, highlight=False)


@contextlib.contextmanager
def training_display(console: Console, config: RunConfig) -> Iterator[tuple[Any, Any]]:
    """Show each setting's prediction when it is known, and a progress bar while it trains."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[state]}"),
        TimeRemainingColumn(),
        console=console,
    )
    tasks: dict[str, TaskID] = {}

    def on_prediction(name: str, solution: Solution) -> None:
        training = f"{config.data}, training samples per class {config.counts}"
        bar.console.print(f"\nSetting {name}: {training}", style="bold", highlight=False)
        print_solution(solution, bar.console)

    def progress(name: str, epoch: int, epochs: int, row: Mapping[str, float]) -> None:
        if name not in tasks:
            bar.start()  # not before there is something to show: bad input prints one line only
            tasks[name] = bar.add_task(name, total=epochs, state="")
        state = ""
        if row:
            state = (
                f"{row['excess']:.1e} above bound, logits {row['logits_to_predicted']:.3f} "
                f"from predicted, {row['logits_to_etf']:.3f} from ETF"
            )
        bar.update(tasks[name], completed=epoch, state=state)

    try:
        yield progress, on_prediction
    finally:
        if tasks:
            bar.stop()


def print_run(console: Console, folder: Path) -> None:
    """Print what a finished run found in every setting."""
    from tightframe.runs.store import load_run
    from tightframe.runs.tables import format_number, headline, metric_rows, setting_title
    from tightframe.runs.verdicts import CRITERIA

    for setting in load_run(folder).settings:
        table = new_table(
            "metric", "start", "end", "to predicted", "to ETF", title=setting_title(setting)
        )
        for row in metric_rows(setting):
            numbers = (row.start, row.end, row.to_predicted, row.to_etf)
            table.add_row(row.label, *("" if n is None else format_number(n, 4) for n in numbers))
        console.print(table)
        console.print(headline(setting), highlight=False)
        for verdict in (setting.result or {}).get("verdicts", []):
            console.print(f"- {verdict['sentence']}", highlight=False)
    console.print(CRITERIA, highlight=False)


@contextlib.contextmanager
def tasks_display(console: Console) -> Iterator[Callable[[int, int, str], None]]:
    """Show how many tasks are done and which was the last; on a terminal only."""
    bar = Progress(
        TextColumn("tasks"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.description}"),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    task = bar.add_task("", total=None)

    def progress(done: int, total: int, name: str) -> None:
        bar.start()
        bar.update(task, completed=done, total=total, description=name)

    try:
        yield progress
    finally:
        bar.stop()


def print_papers(papers: Sequence[Paper], json: bool) -> None:
    """Print which papers and figures there are."""
    if json:
        about = ("name", "title", "source", "claim")
        plain = [
            {
                "name": paper.name,
                "citation": paper.citation,
                "url": paper.url,
                "figures": [{key: getattr(f, key) for key in about} for f in paper.figures],
            }
            for paper in papers
        ]
        print(format_json({"papers": plain}))
        return
    console = Console()
    for paper in papers:
        table = Table(title=paper.citation, title_justify="left", box=None, show_header=False)
        table.add_column(no_wrap=True)  # a name that is cut off cannot be typed again
        for figure in paper.figures:
            table.add_row(f"{paper.name}/{figure.name}", figure.source, figure.title)
        console.print(table)


def print_verdicts(records: Sequence[FigureRecord], console: Console) -> None:
    """Print the verdicts of every figure."""
    table = Table(title="Verdicts", title_justify="left")
    for column in ("figure", "predicted", "measured", "outcome", "finding"):
        # A name that is cut off cannot be typed again.
        table.add_column(column, overflow="fold" if column == "figure" else "ellipsis")
    for record in records:
        for verdict in record.verdicts:
            numbers = (
                value if isinstance(value, str) else _optional(value)
                for value in (verdict.predicted, verdict.measured)
            )
            table.add_row(record.name, *numbers, verdict.outcome, verdict.sentence)
    console.print(table)
