"""Label distributions on the command line: the options, their problem, and what is printed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from tightframe.cli.console import print_context_solution, print_table
from tightframe.cli.options import (
    COUNTS,
    PATH,
    PROBLEM,
    TEXT,
    WHOLE,
    Option,
    one_of,
    require_decays,
)
from tightframe.context_solution import ContextSolution
from tightframe.path import Path as DecayPath
from tightframe.problem.problem import Problem
from tightframe.problem.target_files import read_targets_file
from tightframe.problem.tokens import MAX_CONTEXT, next_tokens, shown_context
from tightframe.theory.contexts.thresholds import ContextThresholds
from tightframe.views.contexts import contexts_table, thresholds_table
from tightframe.views.paths import path_table

#: What a text is parted into.
KINDS = ("characters", "letters", "words")

_PANEL = "Label distributions"
#: Where they are.
TARGETS = tuple(
    option.but(panel=_PANEL)
    for option in (
        Option(
            "targets",
            PATH,
            "File of label distributions, one a context; --counts is then one a context. .npy, "
            ".npz (SciPy's sparse too): (labels, contexts); .csv, .tsv: a row a context, a column "
            "a label, named in a header, or count.",
            unset="one class a sample",
        ),
        Option(
            "tokens",
            TEXT,
            "Text file: its contexts, with what follows them, as label distributions; 'text': one "
            "that ships with Debian or Python.",
            fills=("tokens", "data"),
            unset="none",
        ),
        Option(
            "window",
            WHOLE,
            f"Tokens in a context of --tokens, 1 to {MAX_CONTEXT}.",
            flag="--context",
            fills=("context",),
            unset="2",
        ),
        Option("min_count", WHOLE, "Contexts of --tokens seen less often are left out.", unset="1"),
        Option("token_kind", one_of(*KINDS), "What --tokens are.", unset="characters"),
    )
)
#: Options of `TARGETS` that go with --tokens only.
_OF_TOKENS = {"window": "context", "min_count": "min_count", "token_kind": "token_kind"}

#: Arguments that a file of targets may have: fields of `TargetsFile`.
_FIELDS = {"counts": "counts", "class_names": "names"}

#: All arguments of `Problem`; the counts may be in a file.
WITH_TARGETS = (
    COUNTS.but(
        help="Samples per class, with --targets per context: 500,100,100 or, compactly, "
        "500x5,100x5.",
    ),
    *PROBLEM[1:],
    *TARGETS,
)


class Asked(NamedTuple):
    """The problem that the options ask for, and the names of its contexts, if it has any."""

    problem: Problem
    contexts: list[str] | None = None


def asked_problem(
    *,
    counts: str | None,
    targets: Path | None,
    tokens: str | None,
    window: int | None,
    min_count: int | None,
    token_kind: str | None,
    **rest: Any,
) -> Asked:
    """Return the problem that `WITH_TARGETS` describe.

    Raises
    ------
    ValueError
        If options do not go together, a file is no such file, or as `Problem`.
    """
    given = {"window": window, "min_count": min_count, "token_kind": token_kind}
    if tokens is None:
        require_tokens(given)
    no_counts = counts is None and targets is None and tokens is None
    require_decays(rest, also=("counts",) if no_counts else ())
    if tokens is None:
        if targets is None:
            assert counts is not None  # or it was missing
            return Asked(Problem(counts, **rest))
        return Asked(_from_file(targets, counts, **rest))
    others = {"targets": targets, "counts": counts, "class_names": rest.pop("class_names", None)}
    for name, value in others.items():
        if value is not None:
            raise ValueError(f"{name}: got {str(value)!r} with --tokens, which say it")
    return _from_text(tokens, window, min_count, token_kind, **rest)


def require_tokens(given: Mapping[str, Any]) -> None:
    """Refuse options of a text where there is none.

    Raises
    ------
    ValueError
        If one of them is given.
    """
    for name, argument in _OF_TOKENS.items():
        if given[name] is not None:
            raise ValueError(f"{argument}: got {given[name]} without --tokens")


def _from_file(path: Path, counts: str | None, **rest: Any) -> Problem:
    with _named("targets"):
        found = read_targets_file(path)
    if found.counts is not None and counts is not None:
        raise ValueError(f"counts: got {counts!r}, and {path} has counts")
    if found.counts is None and counts is None:
        raise ValueError(f"counts: missing; give one a context, {path} has none")
    own: dict[str, Any] = {"counts": found.counts, "class_names": found.names}
    if counts is not None:
        own["counts"] = counts
    if rest.get("class_names") is not None:
        own["class_names"] = rest["class_names"]
    values = rest | own
    try:
        return Problem(**values, targets=found.targets)
    except ValueError as error:
        name = str(error).partition(":")[0]
        if own.get(name) is not None and own[name] is getattr(found, _FIELDS[name]):
            raise ValueError(f"targets: {path}: {error}") from error
        raise


def _from_text(
    tokens: str,
    window: int | None,
    min_count: int | None,
    token_kind: str | None,
    **rest: Any,
) -> Asked:
    from tightframe.data.text import TEXT as SHIPPED
    from tightframe.data.text import read_text

    kind = "characters" if token_kind is None else token_kind
    if kind not in KINDS:
        raise ValueError(f"token_kind: got {kind!r}, need one of {', '.join(KINDS)}")
    with _named("tokens"):
        told = tokens == SHIPPED or tokens.startswith(f"{SHIPPED}:")
        text = read_text(tokens if told else f"{SHIPPED}:{tokens}")
        parts = text.tokens(kind)
    length, least = 2 if window is None else window, 1 if min_count is None else min_count
    found = next_tokens(parts, length, least)
    problem = Problem.from_next_tokens(found, **rest)
    return Asked(problem, [shown_context(own) for own in found.contexts])


@contextmanager
def _named(option: str) -> Iterator[None]:
    """Put an option's name before an error about its file."""
    try:
        yield
    except ValueError as error:
        message = str(error).removeprefix("data: ")
        raise ValueError(f"{option}: {message}") from error


# -- what is printed -------------------------------------------------------------------------------


def print_contexts(solution: ContextSolution, contexts: list[str] | None, console: Console) -> None:
    """Print the most frequent contexts, what is certified, and the width that the data need."""
    print_table(contexts_table(solution, contexts), console)
    print_context_solution(solution, console)


def print_context_path(path: DecayPath, console: Console) -> None:
    """Print a point a row."""
    print_table(path_table(path), console)


def print_context_thresholds(result: ContextThresholds, console: Console) -> None:
    """Print which labels share their logits from which decay on."""
    print_table(thresholds_table(result), console)
    if result.alone:
        console.print(
            "not known: exchanging such a label with any other changes the problem", highlight=False
        )
    if result.equal_contexts:
        same = sum(map(len, result.equal_contexts))
        console.print(
            f"{same} contexts are {len(result.equal_contexts)} at every lambda: equal targets, and "
            "loss per feature weight",
            highlight=False,
        )
    console.print(f"all logits are zero from lambda = {result.total_collapse:.6g}")
