"""The commands solve, thresholds and certify: one problem, its minimiser and its bounds."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from tightframe.changes import FEW_GROUPS
from tightframe.changes import thresholds as find_thresholds
from tightframe.checks import choice
from tightframe.cli.console import (
    is_watched,
    plain_console,
    print_solution,
    print_table,
    print_thresholds,
    search_display,
)
from tightframe.cli.contexts import (
    WITH_TARGETS,
    asked_problem,
    print_context_thresholds,
    print_contexts,
)
from tightframe.cli.exit_codes import INTERRUPTED, NOT_CONVERGED
from tightframe.cli.options import (
    FLAG,
    JSON,
    NUMBER,
    PATH,
    TOL,
    WHOLE,
    Option,
    about,
    changed,
    given,
    one_of,
    with_options,
)
from tightframe.cli.relatives import (
    RELATIVE_OPTIONS,
    RELATIVES,
    is_relative,
    refuse_foreign,
    solve_relative,
)
from tightframe.context_solution import ContextSolution
from tightframe.figures.table import Column, Table
from tightframe.files import format_json, npz_names, read_arrays, write_npz
from tightframe.geometry.dense import Geometry
from tightframe.path import rank_changes
from tightframe.problem.problem import LOSSES, Problem
from tightframe.saved import TEXT
from tightframe.solution import Solution
from tightframe.solve import solve as solve_problem
from tightframe.solvers.search.multistart import STARTS
from tightframe.theory.certificate import certify as certify_candidate
from tightframe.theory.certificate import with_bound
from tightframe.theory.contexts.thresholds import ContextThresholds

#: The arrays that `solve` writes, besides ``weight_1`` and so on.
_SAVED = ("logits", "bias", "class_means", "classifier_gram", "means_gram")


@with_options(
    *changed(
        WITH_TARGETS,
        loss={"kind": one_of(*LOSSES, *RELATIVES)},
    ),
    *RELATIVE_OPTIONS,
    TOL,
    Option("starts", WHOLE, "Random starts at every width, where nothing is certified.", STARTS),
    Option("seed", WHOLE, "Of the random starts.", 0),
    Option(
        "time_limit",
        NUMBER,
        "Seconds after which a search ends with what it has found.",
        unset="none",
    ),
    JSON,
    Option(
        "out",
        PATH,
        "Also write logits, bias, factors and Grams to this .npz; of label distributions what "
        "certify and ContextSolution.load read.",
        unset="printed only",
    ),
    Option("force", FLAG, "Replace an --out that this command did not write.", False),
)
def solve(
    context: typer.Context,
    *,
    tol: float,
    starts: int,
    seed: int,
    time_limit: float | None,
    json: bool,
    out: Path | None,
    force: bool,
    **problem: Any,
) -> None:
    """Solve for the global minimiser with its certificate; else for the best that a search finds.

    Focal loss (one count for all classes), normalised heads and supervised contrastive loss take
    fewer options; others are refused by name. Ctrl-C ends a search with what it has found.

    Examples
    --------
        tightframe solve --counts 500x5,100x5 --lambda 1e-3
        tightframe solve --counts 100x10 --weight-decay 5e-4/5e-4 --feature-decay 1e-5 --depth 2
    """
    typed = given(context)
    choice("loss", problem["loss"], (*LOSSES, *RELATIVES))
    if is_relative(problem["loss"]):
        solve_relative(
            problem.pop("loss"), typed, json=json, tol=tol, starts=starts, seed=seed, **problem
        )
        return
    refuse_foreign(typed, problem)
    own = {option.name for option in RELATIVE_OPTIONS}
    options = {name: value for name, value in problem.items() if name not in own}
    asked, contexts = asked_problem(**options)
    if out is not None and out.suffix != ".npz":
        raise ValueError(f"out: got {str(out)!r}, need a name that ends in .npz")
    if out is not None and not force and os.path.lexists(out) and not _is_solution(out):
        raise ValueError(
            f"out: {out} is there and was not written by this command; name another file, or "
            "replace it with --force"
        )
    with search_display(plain_console(stderr=True)) as progress:
        solution = solve_problem(
            asked, tol=tol, starts=starts, seed=seed, time_limit=time_limit, progress=progress
        )
    of_contexts = solution if isinstance(solution, ContextSolution) else None
    if out is not None and of_contexts is not None:
        of_contexts.save(out)
    elif out is not None:
        layers = {f"weight_{m}": layer for m, layer in enumerate(solution.weights, start=1)}
        arrays = (
            solution.logits,
            solution.bias,
            solution.class_means,
            solution.geometry.classifier,
            solution.geometry.means,
        )
        write_npz(out, **dict(zip(_SAVED, arrays, strict=True)), **layers)
    if json:
        print(format_json(solution.to_dict()))
    elif of_contexts is not None:
        print_contexts(of_contexts, contexts, plain_console())
    else:
        print_solution(solution, plain_console())
    if solution.search is not None and solution.search.stopped == "interrupted":
        raise typer.Exit(INTERRUPTED)
    if solution.status == "not_converged":
        raise typer.Exit(NOT_CONVERGED)


def _is_solution(file: Path) -> bool:
    """Tell whether a file has just the arrays that `solve` writes, which may be written again."""
    names = set(npz_names(file))
    if TEXT in names:
        return True
    return names >= set(_SAVED) and all(
        re.fullmatch(r"weight_[1-9]\d*", name) for name in names - set(_SAVED)
    )


@with_options(
    *changed(
        WITH_TARGETS,
        dim=None,
        weight_decay={"unset": "every lambda"},
        feature_decay={"unset": "every lambda"},
    ),
    Option("ranks", FLAG, "Also tell where the rank of the logits changes.", False),
    JSON,
)
def thresholds(*, ranks: bool, json: bool, **problem: Any) -> None:
    """Tell from which lambda on each class group merges, is lost and vanishes.

    That needs no decays. With both, also at which totals and counts the groups collapse.

    Examples
    --------
        tightframe thresholds --counts 500x5,100x5
        tightframe thresholds --counts 500x5,100x5 --lambda 1e-3 --ranks
    """
    decays = ("weight_decay", "feature_decay")
    given = all(problem[name] is not None for name in decays)
    asked, _ = asked_problem(**(problem | {n: 1.0 for n in decays if problem[n] is None}))
    if asked.targets is None and len(asked.groups) > FEW_GROUPS:
        print(
            f"tightframe: following the states of {len(asked.groups)} groups, which can take "
            "minutes",
            file=sys.stderr,
        )
    result = find_thresholds(asked, progress=is_watched(silent=json))
    if not given:
        result = result.without_decays()
    changes = rank_changes(asked) if ranks else None
    if json:
        values = result.to_dict() | {"problem": asked.to_dict()}
        if changes is not None:
            values["rank_changes"] = [change._asdict() for change in changes]
        print(format_json(values))
    elif isinstance(result, ContextThresholds):
        print_context_thresholds(result, plain_console())
    else:
        print_thresholds(asked, result, changes)


@with_options(*WITH_TARGETS, JSON)
def certify(
    file: Annotated[
        Path,
        typer.Argument(
            help=".npz or .safetensors with logits (K, K), or weight (K, d) and class_means "
            "(d, K); and bias (K,) if there is one. With label distributions K is the number of "
            "labels, and columns are contexts."
        ),
    ],
    *,
    json: bool,
    **problem: Any,
) -> None:
    """Bound how far any candidate is from the global minimum.

    Examples
    --------
        tightframe certify minimum.npz --counts 500x5,100x5 --lambda 1e-3
        tightframe certify network.npz --counts 100x10 --weight-decay 5e-4 --feature-decay 1e-5
    """
    asked, _ = asked_problem(**problem)
    arrays = _candidate(file, asked)
    with about(file, arrays):
        own = certify_candidate(asked, arrays["logits"], arrays.get("bias"))
    solution = solve_problem(asked)
    best = with_bound(own, solution.lower_bound)
    if json:
        values = {
            "primal": best.primal,
            "lower_bound": best.dual,
            "gap": best.gap,
            "own_gap": own.gap,
            "status": solution.status,
            "problem": asked.to_dict(),
        }
        print(format_json(values))
    else:
        rows = [
            ["objective of the candidate", f"{best.primal:.12g}"],
            ["lower bound of the minimum", f"{best.dual:.12g}"],
            ["gap (certified)", f"{best.gap:.3g}"],
            ["gap from the candidate alone", f"{own.gap:.3g}"],
        ]
        print_table(Table("", ["", Column("value", align="right")], rows), plain_console())
    if solution.status != "optimal":
        raise typer.Exit(NOT_CONVERGED)


def _candidate(file: Path, asked: Problem) -> dict[str, Any]:
    """Return the arrays of a file, logits among them."""
    arrays = read_arrays(file)
    if TEXT in arrays:
        saved = Solution.load(file)
        return {"logits": saved.logits, "bias": saved.bias}
    if "logits" in arrays:
        return arrays
    if not {"weight", "class_means"} <= arrays.keys():
        raise ValueError(
            f"{file}: need logits, or weight and class_means; it has {', '.join(arrays) or 'none'}"
        )
    weight, means = arrays["weight"], arrays["class_means"]
    if asked.targets is None:
        with np.errstate(all="ignore"):  # what overflows is refused later
            return arrays | {"logits": Geometry.from_vectors(weight, means).logits}
    if weight.ndim != 2 or means.ndim != 2 or weight.shape[1] != means.shape[0]:
        raise ValueError(
            f"{file}: class_means: got shape {means.shape} with weight {weight.shape}; need "
            "(d, contexts) with (labels, d)"
        )
    with np.errstate(all="ignore"):
        return arrays | {"logits": weight.astype(np.float64) @ means.astype(np.float64)}
