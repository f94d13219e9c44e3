"""What the commands print: tables, sentences, and the progress of long work."""

from __future__ import annotations

import contextlib
import logging
import math
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column as RichColumn

from tightframe.advice.advise import Advice
from tightframe.advice.blocks import advice_blocks
from tightframe.figures.formats import NARROW, to_rich
from tightframe.figures.table import Column, Table
from tightframe.files import format_json
from tightframe.geometry.states import DISTINCT
from tightframe.metrics.classes import FEW
from tightframe.path import RankChange
from tightframe.problem.class_names import listed
from tightframe.problem.problem import Problem, terms_in, with_loss_terms, with_smoothing
from tightframe.progress import told, watched
from tightframe.solution import Solution
from tightframe.solvers.search.record import Search
from tightframe.theory.thresholds import Thresholds
from tightframe.views.solutions import nearest_group

if TYPE_CHECKING:
    from tightframe.context_solution import ContextSolution
    from tightframe.reproduce.estimate import Estimate
    from tightframe.reproduce.folder import FigureRecord
    from tightframe.reproduce.spec import Paper
    from tightframe.runs.config import RunConfig
    from tightframe.runs.features_only import FeatureMeasurement
    from tightframe.runs.measure import Measurement
    from tightframe.runs.network_files import SavedNetwork
    from tightframe.runs.store import RunRecord
    from tightframe.runs.text_config import TextConfig
    from tightframe.sweeps.phase import PhaseDiagram

#: How many class groups have a column in a printed path.
MAX_GROUPS = 5

#: How many rows of the tables of a run on text are printed; its page has more.
_FEW_ROWS = 8

Columns = list[str | Column]

#: A text of a bar takes the room that is left; numbers and times are whole.
_CUT = RichColumn(no_wrap=True, overflow="ellipsis", ratio=2)

#: What names the rows is flush left, unlike other numbers.
CLASSES = Column("classes", align="left")
LAMBDA = Column("lambda", align="left", format=".6g")


def plain_console(*, stderr: bool = False) -> Console:
    """Return a console that prints texts as they are: names may look like markup or emoji codes."""
    return Console(stderr=stderr, markup=False, emoji=False)


def print_table(table: Table, console: Console) -> None:
    """Print a table with the marks that the console can show."""
    console.print(to_rich(table, ascii_only=console.options.ascii_only, width=console.width))


def print_new_start(folder: Path, what: str) -> None:
    """Say on stderr that --resume found nothing to go on with, unless somebody may write there."""
    from tightframe.runs.writer import may_be_written

    # Who is refused as the second writer is told only that.
    if not may_be_written(folder):
        print(f"tightframe: nothing to resume in {folder}, a new {what} starts", file=sys.stderr)


def _numbers(*names: str, format: str = ".6g") -> list[Column]:
    """Return columns of numbers, some of which may have words to them."""
    return [Column(name, align="right", format=format) for name in names]


def print_solution(solution: Solution, console: Console) -> None:
    """Print the predicted class groups and what is certified of them."""
    groups = solution.to_dict()["groups"]
    rows = [
        [
            group["classes"],
            with_loss_terms(str(group["count"]), **terms_in(group)),
            group["decision_margin"],
            group["sibling_margin"],
            nearest_group(groups, i),
            group["state"],
            *([listed(group["names"])] if "names" in group else []),
        ]
        for i, group in enumerate(groups)
    ]
    numbers = _numbers("samples each", "decision margin", "sibling margin")
    columns: Columns = [CLASSES, *numbers, "nearest", Column("state", states=True)]
    columns += ["names"] if solution.problem.class_names else []
    title = with_smoothing("Predicted class groups", solution.problem)
    print_table(Table(title, columns, rows, missing="-"), console)
    gap = "none" if solution.gap is None else f"{solution.gap:.2g} ({solution.note})"
    console.print(
        f"objective {solution.objective:.12g}, gap {gap}, rank {solution.rank}\n"
        f"{solution.status}; {solution.method}; {solution.seconds:.3f} s",
        highlight=False,
    )
    if solution.search is not None:
        _print_search(solution, solution.search, console)


def _print_search(solution: Solution, search: Search, console: Console) -> None:
    columns: Columns = ["candidate", "rank", Column("objective", format=".12g")]
    columns += _numbers("starts that found it", format="d")
    rows = [[c.name, c.rank, c.objective, c.found] for c in search.candidates]
    print_table(Table("", columns, rows, missing="closed form"), console)
    bound = ""
    if search.relaxed_bound is not None:
        bound = f"; certified: at least {search.relaxed_bound:.12g}"
    console.print(
        f"{solution.note} (seed {search.seed}){bound}. Nothing certifies that there is no better "
        "solution.",
        highlight=False,
    )


def _bar(console: Console, what: str, *columns: ProgressColumn) -> Progress:
    """Return a bar that a terminal shows while something lasts; in a narrow one texts are cut."""
    return Progress(
        TextColumn(what),
        BarColumn(bar_width=None if console.width < NARROW else 40),
        *columns,
        console=console,
        transient=True,
        disable=not console.is_terminal,
        expand=console.width < NARROW,
    )


@contextlib.contextmanager
def search_display(console: Console) -> Iterator[Callable[[int, int, str], bool]]:
    """Show how far a search is, on a terminal only; Ctrl-C ends it with what it has found.

    A second Ctrl-C, and one outside the search, interrupt the command as ever.
    """
    bar = _bar(
        console,
        "searching",
        TextColumn("{task.description}", table_column=_CUT),
        TimeElapsedColumn(),
    )
    task = bar.add_task("", total=None)
    searching = asked = False

    def progress(done: int, total: int, name: str) -> bool:
        nonlocal searching
        searching = True
        bar.start()
        bar.update(task, completed=done, total=total, description=name)
        return asked

    def interrupt(*_: Any) -> None:
        nonlocal asked
        if asked or not searching:
            raise KeyboardInterrupt
        asked = True

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield progress
    finally:
        signal.signal(signal.SIGINT, before)
        bar.stop()


def is_watched(*, silent: bool = False) -> bool:
    """Tell whether somebody sees standard error, and nobody reads the output as JSON."""
    return not silent and sys.stderr is not None and sys.stderr.isatty()


@contextlib.contextmanager
def waiting(what: str, *, silent: bool = False) -> Iterator[Callable[[], None]]:
    """Say on a terminal what takes its time, a second on; what it gives ends that early.

    Parameters
    ----------
    what : str
    silent : bool
        Whether to say nothing all the same.
    """
    with contextlib.ExitStack() as line:
        told(line.enter_context(watched(is_watched(silent=silent), what)), 0, 0)
        yield line.close


@contextlib.contextmanager
def steps_display(console: Console, *, silent: bool = False) -> Iterator[Callable[[str], None]]:
    """Show what is being done, in words, on a terminal only."""
    bar = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=silent or not console.is_terminal,
    )
    task = bar.add_task("", total=None)

    def progress(what: str) -> None:
        bar.start()
        bar.update(task, description=what)

    try:
        yield progress
    finally:
        bar.stop()


def print_advice(advice: Advice) -> None:
    """Print how far the classes are from collapse, and the proposals."""
    console = plain_console()
    # Of a class of few samples the theory does not say how others of it are answered.
    many = min(group.count for group in advice.problem.groups) > FEW
    for block in advice_blocks(advice, is_all=many):
        if isinstance(block, str):
            console.print(block, highlight=False)
        else:
            print_table(block, console)


def print_thresholds(
    problem: Problem, result: Thresholds, changes: tuple[RankChange, ...] | None
) -> None:
    """Print where each class group collapses."""
    console = plain_console()
    decay = "sqrt(weight_decay feature_decay)"
    if problem.depth > 1:
        decay = "geometric mean of all decays"
    own = result.logit_decay
    title = f"lambda = {decay}" + ("" if own is None else f" = {own:.6g}")
    title = with_smoothing(title, problem)
    names = [
        with_loss_terms(str(group.count), **terms)
        for group, terms in zip(result.groups, problem.group_terms, strict=True)
    ]
    called = [[listed(own)] if own else [] for own in problem.group_names()]
    last = ["names"] if problem.class_names else []
    columns: Columns = [
        CLASSES,
        *_numbers("samples each", "merge from", "lost from", "vanish from"),
        *last,
    ]
    rows = [
        [group.classes, name, group.merges, group.lost, group.vanishes, *own]
        for group, name, own in zip(result.groups, names, called, strict=True)
    ]
    print_table(Table(title, columns, rows, missing="-"), console)
    if own is not None:
        columns = [CLASSES, *_numbers("samples each"), Column("now", states=True)]
        columns += _numbers(f"{result.kind} from N", "distinct for counts in")
        columns += last
        rows = []
        for group, name, called_so in zip(result.groups, names, called, strict=True):
            between = group.distinct_counts
            words = None if between is None else f"({between[0]:.4g}, {between[1]:.4g})"
            now = group.state_at(own)
            rows.append([group.classes, name, now, group.total_samples, words, *called_so])
        print_table(Table(f"At lambda = {own:.6g}", columns, rows, missing="-"), console)
    for group, name in zip(result.groups, names, strict=True):
        for state, start, end in group.detours:
            who = f"the class of {name} is" if group.classes == 1 else f"the classes of {name} are"
            console.print(f"{who} {state} from {start:.6g} to {end:.6g} too", highlight=False)
    console.print(f"all class means are zero from lambda = {result.total_collapse:.6g}")
    if changes is not None:
        columns = [LAMBDA, "rank above", "rank below"]
        rows = [[change.logit_decay, change.rank_above, change.rank_below] for change in changes]
        print_table(Table("Where the rank changes", columns, rows), console)


@contextlib.contextmanager
def _cluster_told(console: Console) -> Iterator[None]:
    """Print where the dashboard of a Dask cluster is, above the bar; on a terminal only."""
    if not console.is_terminal:
        yield
        return
    from tightframe.parallel import LOG

    class Printed(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            console.print(record.getMessage(), highlight=False, soft_wrap=True)

    handler, level = Printed(), LOG.level
    LOG.addHandler(handler)
    LOG.setLevel(logging.INFO)
    try:
        yield
    finally:
        LOG.removeHandler(handler)
        LOG.setLevel(level)


@contextlib.contextmanager
def rows_display(console: Console) -> Iterator[Callable[[int, int], None]]:
    """Show how many rows are done; on a terminal only, and not before the first can be solved."""
    bar = _bar(console, "rows", MofNCompleteColumn(), TimeRemainingColumn())
    task = bar.add_task("rows", total=None)

    def progress(done: int, total: int) -> None:
        bar.start()
        bar.update(task, completed=done, total=total)

    try:
        with _cluster_told(bar.console):
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
    names = ["lambda"] if by_lambda or not varied else [n.replace("_", " ") for n in varied]
    most = max(len(point["groups"]) for point in points)
    shown = min(most, MAX_GROUPS)
    if "counts" in varied:
        groups = [f"group {g + 1}" for g in range(shown)]
    else:
        groups = [
            with_loss_terms(
                f"{group['classes']} of {group['count']}"
                + (f" ({listed(group['names'], 2)})" if "names" in group else ""),
                **terms_in(group),
            )
            for group in points[0]["groups"][:shown]
        ]
    title = "Decision margins"
    if "counts" not in varied:
        title += f" at samples per class {row['counts']}"
    if share := points[0]["problem"].get("label_smoothing"):
        title += f", label smoothing {share:g}"
    rows: list[list[Any]] = []
    limits = []
    for i, point in enumerate(points):
        if by_lambda and i:
            for limit, cells in _passed(points[i - 1], point, shown):
                limits.append(len(rows))
                rows.append([limit, *cells, "", "", "threshold"])
        place = [point["lambda"]]
        if varied and not by_lambda:
            place = [str(point["problem"][name]) for name in varied]
        margins = [_margin_or_state(group) for group in point["groups"][:shown]]
        margins += [""] * (shown - len(margins))
        rows.append([*place, *margins, point["rank"], point["gap"], point["status"]])
    first, *others = names
    columns: Columns = [replace(LAMBDA, name=first), *_numbers(*others)]
    columns += [replace(column, states=True) for column in _numbers(*groups)]
    columns += [*_numbers("rank"), *_numbers("gap", format=".1e"), "status"]
    print_table(Table(title, columns, rows, missing="-", strong=limits), console)
    if most > shown:
        console.print(f"{most - shown} more groups: see --json or --out", highlight=False)


def _margin_or_state(group: Mapping[str, Any]) -> float | str:
    """Return a group's decision margin, or its state if it is not distinct."""
    if "state" not in group:  # a row that an earlier version kept
        return "collapsed" if group["collapsed"] else float(group["margin"])
    distinct = group["state"] == DISTINCT
    return float(group["decision_margin"]) if distinct else str(group["state"])


def _passed(
    before: Mapping[str, Any], after: Mapping[str, Any], shown: int
) -> list[tuple[float, list[str]]]:
    """Return the thresholds between two points of a path, and what collapses there, a cell each."""
    verb = {"merge": "merge", "vanish": "vanish"}.get(after["collapse_kind"], "")
    found: dict[float, list[str]] = {}
    for g, group in enumerate(after["groups"][:shown]):
        place = group["threshold"]
        if place is not None and before["lambda"] < place <= after["lambda"]:
            gone = math.isclose(place, after["total_collapse"])
            found.setdefault(place, [""] * shown)[g] = "vanish" if gone else verb
    return sorted(found.items())


def print_phases(diagram: PhaseDiagram, problem: Problem, console: Console) -> None:
    """Print a phase diagram, a ratio a row; ``problem`` is any of it."""
    rows = []
    for i, counts in enumerate(diagram.counts):
        collapsed = diagram.logit_decays[diagram.minority_collapsed[i]]
        solved = diagram.rank[i][diagram.rank[i] >= 0]
        rows.append(
            [
                counts,
                diagram.ratios[i],
                diagram.minority_threshold[i],
                collapsed.min() if len(collapsed) else None,
                f"{solved.max()} to {solved.min()}" if len(solved) else "failed",
            ]
        )
    columns = [Column("samples per class", align="left"), *_numbers("ratio", format=".4g")]
    columns += _numbers("minority collapses from", "on the grid from", "rank")
    title = with_smoothing("Phase diagram over the imbalance ratio and lambda", problem)
    print_table(Table(title, columns, rows, missing="-"), console)


def print_measurement(result: Measurement) -> None:
    """Print the classes, the metrics, the nearest frames and the verdicts of saved features."""
    from tightframe.runs.tables import distance_table, leading_table

    console = plain_console()
    print_table(result.classes.to_table(remarks=False), console)
    for remark in result.classes.remarks:
        console.print(remark, highlight=False)
    print_table(leading_table(result.report, named_by="key"), console)
    print_table(distance_table(result.report, result.targets), console)
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


def print_features(result: FeatureMeasurement) -> None:
    """Print what saved features say without a classifier."""
    print_table(result.to_table(), plain_console())


def print_notes(network: SavedNetwork) -> None:
    """Say on stderr what was decided in reading that the files do not say."""
    for note in network.notes:
        print(f"tightframe: {note}", file=sys.stderr)


@contextlib.contextmanager
def training_display(
    console: Console, config: RunConfig | TextConfig, ready: Callable[[], None]
) -> Iterator[tuple[Any, Any]]:
    """Show each setting's prediction when it is known, and a progress bar while it trains.

    ``ready`` is called before anything is shown.
    """
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[state]}"),
        TimeRemainingColumn(),
        console=console,
    )
    tasks: dict[str, TaskID] = {}

    def on_prediction(name: str, solution: Any) -> None:
        ready()
        training = f"{config.data}, {config.subject}"
        bar.console.print(f"\nSetting {name}: {training}", style="bold", highlight=False)
        if solution.problem.targets is None:
            print_solution(solution, bar.console)
        else:
            print_context_solution(solution, bar.console)

    def progress(name: str, epoch: int, epochs: int, row: Mapping[str, float]) -> None:
        ready()
        if name not in tasks:
            bar.start()  # not before there is something to show: bad input prints one line only
            tasks[name] = bar.add_task(name, total=epochs, state="")
        state = ""
        if row:
            part = "logits" if "logits_to_etf" in row else "classifier"
            state = (
                f"{row['excess']:.1e} above bound, {part} {row[f'{part}_to_predicted']:.3f} "
                f"from predicted, {row[f'{part}_to_etf']:.3f} from ETF"
            )
        bar.update(tasks[name], completed=epoch, state=state)

    try:
        yield progress, on_prediction
    finally:
        if tasks:
            bar.stop()


def print_context_solution(solution: ContextSolution, console: Console) -> None:
    """Print what is certified of a prediction for contexts."""
    problem = solution.problem
    console.print(
        f"{problem.num_classes:,} labels after {problem.num_contexts:,} contexts, "
        f"{problem.num_samples:,} samples\n"
        f"objective {solution.objective:.12g}, gap {solution.gap:.2g} ({solution.note})\n"
        f"rank {solution.rank}: the width that the data need\n"
        f"{solution.status}; {solution.method}; {solution.seconds:.3f} s",
        highlight=False,
    )


def print_run(console: Console, folder: Path) -> None:
    """Print what a finished run found in every setting."""
    from tightframe.runs.answer import answer
    from tightframe.runs.folder import using_record
    from tightframe.runs.outcome import outcome
    from tightframe.runs.store import load_run
    from tightframe.runs.tables import headline, metric_table, setting_title
    from tightframe.runs.verdicts import CRITERIA

    with using_record(folder, "run"):
        run = load_run(folder)
        if run.on_text:
            _print_text_run(console, run)
            return
        settings = run.settings
        console.print(outcome(run), highlight=False)
        for setting in settings:
            print_table(replace(metric_table(setting, digits=4), missing=""), console)
            console.print(headline(setting), highlight=False)
            for verdict in (setting.result or {}).get("verdicts", []):
                console.print(f"- {verdict['sentence']}", highlight=False)
    console.print(CRITERIA, highlight=False)
    with using_record(folder, "run"):
        for setting in settings:
            if sentences := answer(setting):
                console.print(
                    f"\nThe classes, by their samples, at {setting_title(setting)}", highlight=False
                )
            for sentence in sentences:
                console.print(f"- {sentence}", highlight=False)


def _print_text_run(console: Console, run: RunRecord) -> None:
    from tightframe.runs import text_tables
    from tightframe.runs.text_verdicts import CRITERIA

    for setting in run.settings:
        console.print(f"\n{text_tables.text_sentence(setting)}", highlight=False)
        metrics = text_tables.text_metric_table(setting, digits=4)
        print_table(replace(metrics, missing=""), console)
        for table in (text_tables.context_table(setting), text_tables.pair_table(setting)):
            if table is not None and table.rows:
                title = f"{table.title.partition(':')[0]} (first {_FEW_ROWS})"
                print_table(replace(table, rows=table.rows[:_FEW_ROWS], title=title), console)
        console.print(text_tables.text_headline(setting), highlight=False)
        for verdict in (setting.result or {}).get("verdicts", []):
            console.print(f"- {verdict['sentence']}", highlight=False)
    console.print(CRITERIA, highlight=False)


@contextlib.contextmanager
def tasks_display(console: Console) -> Iterator[Callable[[int, int, str], None]]:
    """Show how many tasks are done and which was the last; on a terminal only."""
    what = TextColumn("{task.description}", table_column=_CUT)
    bar = _bar(console, "tasks", MofNCompleteColumn(), what)
    task = bar.add_task("", total=None)

    def progress(done: int, total: int, name: str) -> None:
        bar.start()
        bar.update(task, completed=done, total=total, description=name)

    try:
        with _cluster_told(bar.console):
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
    console = plain_console()
    for paper in papers:
        # A name that is cut off could not be typed again: the first column is kept whole.
        rows = [[f"{paper.name}/{f.name}", f.source, f.title] for f in paper.figures]
        table = Table(paper.citation, ["name", "source", "title"], rows)
        drawn = to_rich(table, width=console.width)
        drawn.box, drawn.show_header = None, False
        console.print(drawn)


def print_estimate(estimate: Estimate, console: Console) -> None:
    """Print what the networks of figures will take."""
    if not estimate.figures:
        console.print("No network is trained for these figures, and nothing else is estimated.")
        return
    columns: Columns = [
        "figure",
        Column("networks", format="d"),
        Column("parameters", unit="largest, M", format=".3g"),
        Column("multiply-adds", format=".2e"),
        Column("time", align="right"),
        Column("memory", unit="GB a device", format=".3g"),
    ]
    rows = [
        [
            cost.name,
            cost.networks,
            cost.parameters / 1e6,
            float(cost.multiply_adds),
            _duration(cost.seconds),
            cost.memory / 1e9,
        ]
        for cost in estimate.figures
    ]
    print_table(Table("What the networks will take, estimated", columns, rows), console)
    console.print(estimate.basis, highlight=False)


def _duration(seconds: float) -> str:
    for unit, size in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.2g} s"


def print_verdicts(records: Sequence[FigureRecord], console: Console) -> None:
    """Print the verdicts of every figure."""
    columns: Columns = [
        "figure",
        Column("predicted", format=".6g"),
        Column("measured", format=".6g"),
        "outcome",
        Column("finding", wrapped=True),
    ]
    rows = [
        [record.name, verdict.predicted, verdict.measured, verdict.outcome, verdict.sentence]
        for record in records
        for verdict in record.verdicts
    ]
    print_table(Table("Verdicts", columns, rows, missing="-"), console)
