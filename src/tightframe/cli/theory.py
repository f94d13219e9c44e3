"""The commands solve, thresholds and certify: one problem, its minimiser and its bounds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from tightframe.changes import thresholds as find_thresholds
from tightframe.cli.console import new_table, print_solution, print_thresholds
from tightframe.cli.exit_codes import NOT_CONVERGED
from tightframe.cli.options import (
    Bias,
    BiasDecay,
    ClassWeights,
    Counts,
    Depth,
    Dim,
    FeatureDecay,
    Features,
    Json,
    LogitAdjustment,
    Loss,
    Tol,
    WeightDecay,
    whole,
)
from tightframe.files import format_json, read_arrays, write_npz
from tightframe.geometry.dense import Geometry
from tightframe.path import rank_changes
from tightframe.problem.problem import Problem
from tightframe.solve import solve as solve_problem
from tightframe.solvers.search.multistart import STARTS
from tightframe.theory.certificate import Certificate
from tightframe.theory.certificate import certify as certify_candidate


def solve(
    counts: Counts,
    weight_decay: WeightDecay,
    feature_decay: FeatureDecay,
    loss: Loss = "cross_entropy",
    bias: Bias = "none",
    bias_decay: BiasDecay = None,
    features: Features = "real",
    depth: Depth = 1,
    dim: Dim = None,
    class_weights: ClassWeights = None,
    logit_adjustment: LogitAdjustment = None,
    tol: Tol = 1e-8,
    starts: Annotated[
        Any,
        typer.Option(
            parser=whole,
            metavar="INTEGER",
            help="Random starts at every width, where nothing is certified.",
        ),
    ] = STARTS,
    seed: Annotated[
        Any, typer.Option(parser=whole, metavar="INTEGER", help="Of the random starts.")
    ] = 0,
    json: Json = False,
    out: Annotated[
        Path | None, typer.Option(help="Also write logits, bias, factors and Grams to this .npz.")
    ] = None,
) -> None:
    """Solve for the global minimiser with its certificate; else for the best of many starts."""
    problem = Problem(
        counts,
        loss,
        weight_decay=weight_decay,
        feature_decay=feature_decay,
        bias=bias,
        bias_decay=bias_decay,
        features=features,
        depth=depth,
        dim=dim,
        class_weights=class_weights,
        logit_adjustment=logit_adjustment,
    )
    if out is not None and out.suffix != ".npz":
        raise ValueError(f"out: got {str(out)!r}, need a name that ends in .npz")
    solution = solve_problem(problem, tol=tol, starts=starts, seed=seed)
    if out is not None:
        layers = {f"weight_{m}": layer for m, layer in enumerate(solution.weights, start=1)}
        write_npz(
            out,
            logits=solution.logits,
            bias=solution.bias,
            class_means=solution.class_means,
            classifier_gram=solution.geometry.classifier,
            means_gram=solution.geometry.means,
            **layers,
        )
    if json:
        print(format_json(solution.to_dict()))
    else:
        print_solution(solution, Console())
    if solution.status == "not_converged":
        raise typer.Exit(NOT_CONVERGED)


def thresholds(
    counts: Counts,
    weight_decay: WeightDecay = None,
    feature_decay: FeatureDecay = None,
    loss: Loss = "cross_entropy",
    bias: Bias = "none",
    bias_decay: BiasDecay = None,
    features: Features = "real",
    depth: Depth = 1,
    class_weights: ClassWeights = None,
    logit_adjustment: LogitAdjustment = None,
    ranks: Annotated[
        bool, typer.Option("--ranks", help="Also tell where the rank of the logits changes.")
    ] = False,
    json: Json = False,
) -> None:
    """Tell from which lambda on each class group merges, is lost and vanishes.

    That needs no decays. With both, also at which totals and counts the groups collapse.
    """
    problem = Problem(
        counts,
        loss,
        weight_decay=1.0 if weight_decay is None else weight_decay,
        feature_decay=1.0 if feature_decay is None else feature_decay,
        bias=bias,
        bias_decay=bias_decay,
        features=features,
        depth=depth,
        class_weights=class_weights,
        logit_adjustment=logit_adjustment,
    )
    result = find_thresholds(problem)
    if weight_decay is None or feature_decay is None:
        result = result.without_decays()
    changes = rank_changes(problem) if ranks else None
    if json:
        values = result.to_dict() | {"problem": problem.to_dict()}
        if changes is not None:
            values["rank_changes"] = [change._asdict() for change in changes]
        print(format_json(values))
    else:
        print_thresholds(problem, result, changes)


def certify(
    file: Annotated[
        Path,
        typer.Argument(
            help=".npz or .safetensors with logits (K, K), or weight (K, d) and class_means "
            "(d, K); and bias (K,) if there is one."
        ),
    ],
    counts: Counts,
    weight_decay: WeightDecay,
    feature_decay: FeatureDecay,
    loss: Loss = "cross_entropy",
    bias: Bias = "none",
    bias_decay: BiasDecay = None,
    features: Features = "real",
    depth: Depth = 1,
    dim: Dim = None,
    class_weights: ClassWeights = None,
    logit_adjustment: LogitAdjustment = None,
    json: Json = False,
) -> None:
    """Bound how far any candidate is from the global minimum."""
    problem = Problem(
        counts,
        loss,
        weight_decay=weight_decay,
        feature_decay=feature_decay,
        bias=bias,
        bias_decay=bias_decay,
        features=features,
        depth=depth,
        dim=dim,
        class_weights=class_weights,
        logit_adjustment=logit_adjustment,
    )
    arrays = read_arrays(file)
    if "logits" in arrays:
        logits = arrays["logits"]
    elif {"weight", "class_means"} <= arrays.keys():
        logits = Geometry.from_vectors(arrays["weight"], arrays["class_means"]).logits
    else:
        raise ValueError(
            f"{file}: need logits, or weight and class_means; it has {', '.join(arrays) or 'none'}"
        )
    own = certify_candidate(problem, logits, arrays.get("bias"))
    solution = solve_problem(problem)
    bound = own.dual if solution.lower_bound is None else max(own.dual, solution.lower_bound)
    best = Certificate(own.primal, bound)
    if json:
        values = {
            "primal": best.primal,
            "lower_bound": best.dual,
            "gap": best.gap,
            "own_gap": own.gap,
            "status": solution.status,
            "problem": problem.to_dict(),
        }
        print(format_json(values))
    else:
        table = new_table("", "value")
        table.add_row("objective of the candidate", f"{best.primal:.12g}")
        table.add_row("lower bound of the minimum", f"{best.dual:.12g}")
        table.add_row("gap (certified)", f"{best.gap:.3g}")
        table.add_row("gap from the candidate alone", f"{own.gap:.3g}")
        Console().print(table)
    if solution.status != "optimal":
        raise typer.Exit(NOT_CONVERGED)
