"""Run one task of a reproduction: solve, follow a path, train the UFM or train a network.

Every kind gives final rows, history rows and named arrays in the same terms. A final row has

- ``row`` (its number in the task), ``status`` and ``reason`` (text where the status is
  ``"failed"``, else None);
- the problem: ``counts``, ``num_classes``, ``num_samples``, ``loss``, ``bias``, ``features``,
  ``depth``, ``dim`` and ``weight_decay`` (None where the layers differ), ``feature_decay``,
  ``bias_decay``, ``lambda`` (of several layers the geometric mean of all decays);
- a column for every group of interchangeable classes, the groups in the order of
  ``problem.groups``: ``group0_count``, ``group0_classes``, ``group0_threshold`` (in lambda; None
  where the theory has none), ``group0_margin`` (as measured, in logit units) and
  ``group0_predicted_margin``; with class weights or a logit adjustment also
  ``group0_class_weight`` and ``group0_logit_adjustment``;
- of a trained head of several layers ``partial_to_predicted``: the largest distance of its partial
  products to the predicted ones;
- ``cosine_0_1`` and so on: mean cosine between the mean logits (columns, without bias) of two
  different classes, one of each group; ``predicted_cosine_0_1``;
- what is known of the prediction: ``predicted_objective``, ``predicted_gap`` (certified; None
  where nothing certifies it), ``predicted_status``, ``predicted_rank``;
- what the kind adds, see its function.

Arrays are named ``<name>_<row>``: ``logits`` (K, K; column k is of the samples of class k),
``bias`` (K,), ``classifier`` and ``means`` (K, K Gram matrices of the classifier and of the
uncentred class means), ``predicted_logits`` and ``predicted_bias``. A task keeps them if its
arguments have ``"arrays": true``.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tightframe.geometry.dense import Geometry, cosines, partial_products, product_of
from tightframe.path import path
from tightframe.problem.problem import Problem
from tightframe.reproduce.spec import Task
from tightframe.solution import Solution
from tightframe.solve import NotConvergedWarning, solve
from tightframe.theory.thresholds import overall_decay, thresholds

#: One row of a table: column to text, number, truth value or None.
Row = dict[str, Any]

#: Arrays that are a geometry, in the order of `Geometry`.
GRAMS = ("classifier", "means", "logits")


@dataclass
class Output:
    """What a task gives.

    Attributes
    ----------
    rows, history : list of dict
    arrays : dict of ndarray
    """

    rows: list[Row] = field(default_factory=list)
    history: list[Row] = field(default_factory=list)
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)


def seeded(task: Task, seed: int, device: str | None = None) -> Task:
    """Return a task with all its seeds moved by ``seed`` and run on ``device``.

    Authors of figures write seeds that start at 0 and no device; this is the one place where
    those of a reproduction come in, so that they are part of the task's hash.
    """
    arguments: dict[str, Any] = dict(task.arguments)
    if task.kind == "network":
        config = dict(arguments["config"])
        config["seed"] = config.get("seed", 0) + seed
        if device is not None:
            config["device"] = device
        arguments["config"] = config
    elif task.kind == "ufm":
        arguments["seeds"] = [s + seed for s in arguments.get("seeds", [0])]
        if device is not None:
            arguments["device"] = device
    elif "seed" in arguments or seed:
        arguments["seed"] = arguments.get("seed", 0) + seed
    return Task(task.kind, arguments, task.labels)


@dataclass(frozen=True)
class Planned:
    """A run that a task is to give: its row has the same number.

    Attributes
    ----------
    problem : callable
        Makes the problem; ValueError if the arguments are none.
    seed : int
    """

    problem: Callable[[], Problem]
    seed: int = 0


def planned(task: Task) -> list[Planned]:
    """Return the runs that a task is to give, in the order of its rows."""
    arguments = task.arguments
    if task.kind == "network":
        from tightframe.runs.config import RunConfig

        config = arguments["config"]
        settings = config.get("settings", RunConfig.settings)
        seed = config.get("seed", RunConfig.seed)
        return [Planned(partial(_network_problem, config, i), seed) for i in range(len(settings))]
    if task.kind == "path":
        sweep = arguments["sweep"]
        points = zip(*sweep.values(), strict=True)
        given = [arguments["problem"] | dict(zip(sweep, point, strict=True)) for point in points]
        return [Planned(partial(Problem, **problem)) for problem in given]
    seeds = arguments.get("seeds", [0]) if task.kind == "ufm" else [arguments.get("seed", 0)]
    return [Planned(partial(Problem, **p), s) for p in arguments["problems"] for s in seeds]


def _network_problem(config: Mapping[str, Any], i: int) -> Problem:
    from tightframe.runs.config import RunConfig

    return RunConfig.from_dict(dict(config)).problems[i]


def run_task(
    kind: str,
    arguments: Mapping[str, Any],
    folder: str,
    data_root: str | None = None,
    devices: int = 1,
    until: float | None = None,
) -> Output:
    """Run one task; a task of `tightframe.parallel`.

    Parameters
    ----------
    kind, arguments
        As of a `tightframe.reproduce.spec.Task`.
    folder : str
        Where a network keeps its run, to go on with after a kill; made if need be.
    data_root : str, optional
        Folder with data sets; no part of a task, because it changes no number.
    devices : int
        Of networks; no part of a task, because it changes no number but for rounding.
    until : float, optional
        Of networks: a time of `time.time` at which they stop, to be gone on with in ``folder``.

    Raises
    ------
    ValueError
        If an argument is unknown or out of range, or training diverges.
    TimeIsUp
        If a network was left at ``until``.
    """
    options = dict(arguments)
    if options.get("device") in ("gpu", "auto"):
        options["device"] = torch_device(options["device"])
    with warnings.catch_warnings():
        # The status of every row says so, or a NaN where a quantity is undefined.
        for category in (NotConvergedWarning, RuntimeWarning):
            warnings.simplefilter("ignore", category)
        try:
            if kind == "network":
                place: dict[str, Any] = {
                    "folder": Path(folder),
                    "data_root": data_root,
                    "devices": devices,
                }
                output = _network(**options, **place, until=until)
            else:
                output = _FUNCTIONS[kind](**options)
        except TypeError as error:
            raise ValueError(f"arguments: of a {kind} task: {error}") from error
    for i, row in enumerate(output.rows):
        row.setdefault("row", i)
        row.setdefault("status", "done")
        row.setdefault("reason", None)
    return output


def torch_device(device: str) -> str:
    """Return PyTorch's name of a device, ``"cpu"`` or ``"cuda"``.

    Raises
    ------
    ValueError
        If it is ``"gpu"`` and there is none.
    """
    import torch

    if device != "cpu" and torch.cuda.is_available():
        return "cuda"
    if device == "gpu":
        raise ValueError("device: got 'gpu', but PyTorch finds none; use 'cpu' or 'auto'")
    return "cpu"


def failed_row(reason: str) -> Row:
    """Return the one final row of a task that failed as a whole."""
    return {"row": 0, "status": "failed", "reason": reason}


# -- the kinds -------------------------------------------------------------------------------------


def _solve(problems: Sequence[Mapping[str, Any]], arrays: bool = False, **options: Any) -> Output:
    """Solve problems: a row each.

    Parameters
    ----------
    problems : sequence of dict
        As ``Problem.to_dict()``.
    arrays : bool
        Keep the arrays; ``logits`` and ``bias`` are the predicted ones here.
    options
        ``tol``, ``max_iterations``, ``starts``, ``seed`` of `tightframe.solve`.

    Returns
    -------
    Output
        Columns added: ``objective``, ``gap``, ``lower_bound``, ``status`` (``"optimal"``,
        ``"local"``, ``"not_converged"``), ``method``, ``note``, ``rank``, ``seconds``,
        ``collapse_kind``, ``total_collapse``, ``group0_collapsed`` and so on; of a multi-start
        search ``winner``, ``etf_objective`` and ``best_rank``.
    """
    return _solutions([solve(Problem(**p), **options) for p in problems], arrays)


def _path(
    problem: Mapping[str, Any],
    sweep: Mapping[str, Sequence[Any]],
    arrays: bool = False,
    **options: Any,
) -> Output:
    """Solve a problem along a sweep: a row a point, with the columns of ``solve``.

    Parameters
    ----------
    problem : dict
    sweep : dict
        ``weight_decay``, ``feature_decay``, ``bias_decay`` and ``counts`` of `tightframe.path`.
    """
    given: dict[str, Any] = {**sweep, **options}
    return _solutions(list(path(Problem(**problem), **given).solutions), arrays)


def _solutions(solutions: Sequence[Solution], arrays: bool) -> Output:
    output = Output()
    for i, solution in enumerate(solutions):
        row = problem_columns(solution.problem) | prediction_columns(solution)
        row |= {
            "row": i,
            "objective": solution.objective,
            "gap": solution.gap,
            "lower_bound": solution.lower_bound,
            "status": solution.status,
            "method": solution.method,
            "note": solution.note,
            "rank": solution.rank,
            "seconds": solution.seconds,
        }
        for g, group in enumerate(_group_states(solution)):
            row |= {f"group{g}_margin": group[0], f"group{g}_collapsed": group[1]}
        search = solution.search
        if search is not None:
            etf = [c.objective for c in search.candidates if c.name == "ETF"]
            row |= {
                "winner": search.winner,
                "best_rank": search.candidates[0].rank,
                "etf_objective": etf[0] if etf else None,
            }
        row |= cosine_columns(solution.problem, solution.logits)
        if arrays:
            output.arrays |= {f"logits_{i}": solution.logits, f"bias_{i}": solution.bias}
            geometry = solution.geometry
            output.arrays |= {
                f"classifier_{i}": geometry.classifier,
                f"means_{i}": geometry.means,
            }
        output.rows.append(row)
    return output


def _ufm(
    problems: Sequence[Mapping[str, Any]],
    seeds: Sequence[int] = (0,),
    arrays: bool = False,
    **options: Any,
) -> Output:
    """Train the UFM of every problem with every seed: a row a run.

    Parameters
    ----------
    problems : sequence of dict
        As ``Problem.to_dict()``.
    seeds : sequence of int
    arrays : bool
    options
        Of `tightframe.training.ufm.train_ufm`.

    Returns
    -------
    Output
        Columns of the run's ``final`` are added (``excess``, ``gap``, ``distance``, ...) and its
        ``seed``; the history is that of `tightframe.training.ufm.train_ufm`. Status
        ``"converged"`` or ``"stopped"`` (iterations used up), ``ended`` says why; a diverged run is
        ``"failed"``.
    """
    import torch

    from tightframe.training.ufm.train import train_ufm

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the same numbers whatever else runs beside
    try:
        runs = train_ufm([Problem(**p) for p in problems], seeds=tuple(seeds), **options)
    finally:
        torch.set_num_threads(threads)
    output = Output()
    for i, trained in enumerate(runs.runs):
        problem = trained.problem
        # Where nothing solves the problem, this says why.
        solution = trained.reference or solve(problem)
        row = _record(trained.final) | problem_columns(problem) | prediction_columns(solution)
        row |= {"row": i, "seed": trained.seed, "status": trained.status, "reason": None}
        row["ended"] = trained.reason
        if trained.status == "diverged":
            row |= {"status": "failed", "reason": f"diverged: {trained.reason}"}
        else:
            product = product_of(trained.weights)
            _measured(output, row, solution, product, trained.class_means, trained.bias, arrays)
            row |= _partial_columns(
                solution, partial_products(trained.weights, trained.class_means)
            )
        output.rows.append(row)
        output.history += [{**_record(record), "row": i} for record in trained.history]
    return output


def _network(
    config: Mapping[str, Any],
    folder: Path,
    data_root: str | None,
    arrays: bool = False,
    devices: int = 1,
    until: float | None = None,
) -> Output:
    """Train a network for every setting of a configuration: a row each.

    A task should have one setting: where training diverges, the task fails as a whole.

    Parameters
    ----------
    config : dict
        Arguments of `tightframe.runs.config.RunConfig`; what is left out has its default.
    arrays : bool

    Returns
    -------
    Output
        Columns of the last history row are added (`tightframe.training.history_columns`), the
        ``setting``, ``seconds`` and the ``status`` of `tightframe.runs.train.run`.
    """
    from tightframe.runs import store
    from tightframe.runs.config import RunConfig
    from tightframe.runs.devices import train_apart
    from tightframe.runs.train import run

    given = dict(config)
    if data_root is not None:
        given["data_root"] = data_root
    if given.get("optimizer") != "lbfgs":  # which runs on one
        given["devices"] = devices
    run_config = RunConfig.from_dict(given)
    # A task that was killed has left its run here.
    if run_config.devices > 1:
        train_apart(run_config, folder / "run", until)
    else:
        run(run_config, folder / "run", resume=True, until=until)
    output = Output()
    for i, setting in enumerate(store.load_run(folder / "run").settings):
        problem, result = setting.problem, setting.result
        if problem is None or result is None or setting.final is None:
            raise ValueError(f"setting {setting.name}: was not trained to the end")
        solution = solve(problem)
        # Accuracies of single classes are no columns of a figure's table.
        last = {k: v for k, v in result["last"].items() if not re.match(r"class\d", k)}
        row = _record(last) | problem_columns(problem) | prediction_columns(solution)
        row |= {"row": i, "setting": setting.name, "seed": run_config.seed}
        row |= {"seconds": result["seconds"], "status": result.get("status", "done")}
        final = setting.final
        bias = None if problem.bias == "none" else final["bias"].astype(np.float64)
        weight = final["weight"].astype(np.float64)
        _measured(output, row, solution, weight, final["class_means"], bias, arrays)
        if "partial_classifiers" in final:
            grams = zip(final["partial_classifiers"], final["partial_means"], strict=True)
            partial = [Geometry("measured", *pair, final["logits"]) for pair in grams]
            row |= _partial_columns(solution, partial)
        output.rows.append(row)
        if setting.history is not None:
            for record in setting.history.to_dict("records"):
                output.history.append({"row": i, **_record(record)})
    return output


_FUNCTIONS: dict[str, Callable[..., Output]] = {"solve": _solve, "path": _path, "ufm": _ufm}


# -- columns that all kinds share ------------------------------------------------------------------


def problem_columns(problem: Problem) -> Row:
    """Return what a problem is, its groups and where they collapse."""
    decays = problem.weight_decays
    row: Row = {
        "counts": problem.compact_counts,
        "num_classes": problem.num_classes,
        "num_samples": problem.num_samples,
        "loss": problem.loss,
        "bias": problem.bias,
        "features": problem.features,
        "depth": problem.depth,
        "dim": problem.dim if isinstance(problem.dim, int) else None,
        "weight_decay": decays[0] if len(set(decays)) == 1 else None,
        "feature_decay": problem.feature_decay,
        "bias_decay": problem.bias_decay,
        "lambda": overall_decay(problem),
    }
    try:
        known = thresholds(problem)
    except ValueError:  # none are known for this kind of problem
        known = None
    if known is not None:
        row |= {"collapse_kind": known.kind, "total_collapse": known.total_collapse}
    terms = problem.group_terms
    for g, group in enumerate(problem.groups):
        row |= {f"group{g}_count": group.count, f"group{g}_classes": group.classes}
        row[f"group{g}_threshold"] = None if known is None else known.groups[g].logit_decay
        if not problem.is_plain:
            row |= {f"group{g}_{name}": value for name, value in terms[g].items()}
    return row


def prediction_columns(solution: Solution) -> Row:
    """Return what the solution predicts."""
    row: Row = {
        "predicted_objective": solution.objective,
        "predicted_gap": solution.gap,
        "predicted_status": solution.status,
        "predicted_rank": solution.rank,
    }
    for g, (margin, _) in enumerate(_group_states(solution)):
        row[f"group{g}_predicted_margin"] = margin
    cosine = cosine_columns(solution.problem, solution.logits)
    return row | {f"predicted_{name}": value for name, value in cosine.items()}


def cosine_columns(problem: Problem, logits: ArrayLike) -> Row:
    """Return mean cosines between columns of mean logits, for every pair of groups.

    A pair of groups with a zero column has none, NaN; a class alone in its group has no pair there.
    """
    z = np.asarray(logits, dtype=np.float64)
    groups = problem.class_groups
    found = cosines(z.T @ z)
    np.fill_diagonal(found, np.nan)
    row: Row = {}
    for i in range(len(problem.groups)):
        for j in range(i, len(problem.groups)):
            block = found[np.ix_(groups == i, groups == j)]
            if i == j:
                if len(block) == 1:
                    continue
                block = block[~np.eye(len(block), dtype=bool)]
            row[f"cosine_{i}_{j}"] = float(block.mean())
    return row


def _group_states(solution: Solution) -> Iterator[tuple[float, bool]]:
    """Yield margin and collapse of every group of the problem; the solver may split one."""
    groups = solution.problem.class_groups
    for g in range(len(solution.problem.groups)):
        members = groups == g
        yield float(solution.margins[members].mean()), bool(solution.collapsed[members].all())


def _measured(
    output: Output,
    row: Row,
    solution: Solution,
    weight: NDArray[np.float64],
    means: NDArray[np.float64],
    bias: NDArray[np.float64] | None,
    arrays: bool,
) -> None:
    """Add to a row what follows from a trained classifier and class means; keep the arrays."""
    from tightframe.training.margins import group_margins

    problem = solution.problem
    geometry = Geometry.from_vectors(weight, means)
    offset = np.zeros(problem.num_classes) if bias is None else bias
    margins = group_margins(problem, geometry.logits + offset[:, None])
    row |= {f"group{g}_margin": float(margin) for g, margin in enumerate(margins)}
    row |= cosine_columns(problem, geometry.logits)
    if arrays:
        i = row["row"]
        output.arrays |= {
            f"logits_{i}": geometry.logits,
            f"bias_{i}": offset,
            f"classifier_{i}": geometry.classifier,
            f"means_{i}": geometry.means,
            f"predicted_logits_{i}": solution.logits,
            f"predicted_bias_{i}": solution.bias,
        }


def _partial_columns(solution: Solution, measured: Sequence[Geometry]) -> Row:
    """Return the largest distance of partial products to the predicted ones; of one layer none.

    Of the Gram matrices of ``W_M ... W_j`` and of ``W_{j-1} ... W_1 H``, over all j; H is centred
    where a free bias takes its mean.
    """
    if len(measured) == 1:
        return {}
    means = "centered_means" if solution.problem.bias == "free" else "means"
    predicted = partial_products(solution.weights, solution.class_means)
    distances = [
        own.distance(goal, part)
        for own, goal in zip(measured, predicted, strict=True)
        for part in ("classifier", means)
    ]
    return {"partial_to_predicted": float(np.max(distances))}  # NaN if one is


def _record(record: Mapping[Any, Any]) -> Row:
    """Return what of a measurement fits into a table; its ``loss`` is not the problem's."""
    row: Row = {}
    for name, value in record.items():
        plain = value.item() if hasattr(value, "item") and getattr(value, "ndim", 0) == 0 else value
        if plain is None or isinstance(plain, (str, bool, int, float)):
            row["data_loss" if name == "loss" else str(name)] = plain
    return row
