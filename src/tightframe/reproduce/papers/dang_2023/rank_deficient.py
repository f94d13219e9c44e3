"""Fewer dimensions than classes, as the theorems of Dang et al. 2023 imply."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from tightframe.figures.model import Chart, Curve, HeatMaps, Matrix, Panel
from tightframe.geometry.dense import normalized_distance
from tightframe.reproduce.judging import best_by, decided, largest, unless_early, verdict
from tightframe.reproduce.papers.dang_2023 import shared
from tightframe.reproduce.results import Results, Run
from tightframe.reproduce.spec import Figure, Task, Verdict

_RANK_COUNTS = "300,250,200,150,100,50"
_RANK_DIMS = (2, 4)
_RANK_DEPTHS = (1, 3)
_RANK_NETWORK = "140,126,112,98,84,70,56,42,28,14"
_RANK_NETWORK_DIM = 4
_RANK_SETTINGS = {1: (1e-2, 1e-4), 3: (2e-3, 2e-5)}


def _tasks(scale: str) -> list[Task]:
    tasks = []
    steps = {"schedule": [[300, 5.0], [600, 10.0]], "iterations": 2000} if scale == "smoke" else {}
    for dim in _RANK_DIMS:
        problems = [
            shared.mse(_RANK_COUNTS, shared.SYNTHETIC_DECAY, depth, dim=dim)
            for depth in _RANK_DEPTHS
        ]
        tasks.append(shared.theory(problems, classes="distinct", width=dim))
        tasks += shared.ufm_starts(scale, problems, dim, steps, classes="distinct", width=dim)
    balanced = [
        shared.balanced_problem(depth, bias, dim=2)
        for depth in _RANK_DEPTHS
        for bias in shared.BIAS_NAMES
    ]
    tasks.append(shared.theory(balanced, classes="balanced", width=2))
    tasks += shared.ufm_starts(scale, balanced, 2, steps, classes="balanced", width=2)
    for depth, setting in _RANK_SETTINGS.items():
        # The prediction comes with the network's own rows.
        more = {**shared.small(scale), "feature_dim": _RANK_NETWORK_DIM, "depth": depth}
        tasks.append(
            shared.network(scale, _RANK_NETWORK, setting, more, classes="distinct", layers=depth)
        )
    return tasks


def dropped(logits: ArrayLike) -> list[int]:
    """Return the classes whose own mean logit has vanished (below `VANISHED`)."""
    return [int(k) for k in np.flatnonzero(np.diagonal(np.asarray(logits)) < shared.VANISHED)]


def _smallest(run: Run) -> list[int]:
    """Return the K - d classes with the fewest samples, which the paper says are dropped."""
    counts = run.problem.counts
    return sorted(np.argsort(counts)[: len(counts) - (run.problem.width or 0)].tolist())


def projector_distance(matrix: ArrayLike, dim: int, *, centred: bool) -> float:
    """Return how far a matrix is from the nearest rank-d projector, up to scale.

    With a bias the projector is orthogonal to the ones: a best rank-d approximation of the simplex
    ETF, else of the identity. Which one a minimiser takes is arbitrary, so distance to any counts.

    Parameters
    ----------
    matrix : array_like, shape (K, K)
    dim : int
        The rank d.
    centred : bool
        Whether there is a bias.
    """
    given = np.asarray(matrix, dtype=np.float64)
    k = len(given)
    inside = np.eye(k) - 1 / k if centred else np.eye(k)
    values, vectors = np.linalg.eigh(inside @ (given + given.T) @ inside)
    top = vectors[:, np.argsort(values)[-dim:]]
    return normalized_distance(given, top @ top.T)


def _projector_distance(run: Run) -> float:
    """Return the largest distance of W Wᵀ and W H̄."""
    dim, centred = run.problem.width or 0, run.problem.bias == "free"
    matrices = (run.array(name) for name in ("classifier", "logits"))
    return max(projector_distance(matrix, dim, centred=centred) for matrix in matrices)


def _judge(results: Results) -> list[Verdict]:
    theory, ufm_part = results.select(what="theory"), results.select(what="UFM")
    scale = results.scale

    def runs(part: Results, classes: str, depth: int | None = None) -> list[Run]:
        own = part.select(classes=classes).runs
        return [run for run in own if depth in (None, run.problem.depth)]

    return [
        _judge_drops(runs(theory, "distinct"), "Certified minimisers", scale),
        *(
            _judge_drops(runs(ufm_part, "distinct", depth), f"UFM, M = {depth}", scale)
            for depth in _RANK_DEPTHS
        ),
        _judge_approximation(runs(theory, "balanced"), "Certified minimisers", 1e-6, scale),
        *(
            _judge_approximation(
                runs(ufm_part, "balanced", m), f"UFM, M = {m}", shared.UFM_LIMIT, scale
            )
            for m in _RANK_DEPTHS
        ),
        _judge_drops(results.select(what="network").runs, "MLP on digits", scale),
    ]


def _case(run: Run) -> tuple[int, int, str]:
    return run.problem.width or 0, run.problem.depth, run.problem.bias


def _chosen(runs: Sequence[Run]) -> list[Run]:
    """Return what is judged: of the UFM's starts the best of each case, else all that ended."""
    if runs and runs[0].task.kind == "ufm":
        return list(best_by(runs, _case).values())
    return [run for run in runs if not run.failed]


def _starts(runs: Sequence[Run]) -> str:
    """End a sentence, with how many starts were needed where there are several."""
    if runs and runs[0].task.kind == "ufm":
        return f". {shared.starts_sentence(runs)}"
    return "."


def _judge_drops(runs: Sequence[Run], name: str, scale: str) -> Verdict:
    chosen = _chosen(runs)
    wrong = sum(dropped(run.array("logits")) != _smallest(run) for run in chosen)
    smoke_network = scale == "smoke" and "MLP" in name
    holds = None if smoke_network else unless_early(chosen, not wrong, scale)
    return verdict(
        decided(runs, holds, refuted=False),
        criterion="in every case exactly the K - d classes with the fewest samples have own mean "
        f"logits below {shared.VANISHED}",
        claimed=f"{name}: with d < K the classes with the fewest samples are dropped",
        predicted=0.0,
        measured=float(wrong),
        tolerance=0.0,
        sentence=f"{name}: other classes than the smallest are dropped in {wrong} of "
        f"{len(chosen)} cases" + (", after a short training." if smoke_network else _starts(runs)),
    )


def _judge_approximation(runs: Sequence[Run], name: str, tolerance: float, scale: str) -> Verdict:
    chosen = _chosen(runs)
    worst = largest(chosen, _projector_distance)
    wrong = sum(_projector_distance(run) >= tolerance for run in chosen)
    return verdict(
        decided(runs, unless_early(chosen, wrong == 0, scale), refuted=False),
        criterion=f"with balanced classes W Wᵀ and W H̄ are within {tolerance:g} of a rank-d "
        "projector (orthogonal to the ones with a bias)",
        claimed=f"{name}: with d below the frame's rank its best rank-d approximation",
        predicted=0.0,
        measured=worst,
        tolerance=tolerance,
        sentence=f"{name}: {wrong} of {len(chosen)} cases are not a best rank-2 approximation of "
        f"the frame, the worst at distance {worst:.1g}" + _starts(runs),
    )


def _draw(results: Results) -> list[Panel]:
    panels: list[Panel] = []
    for what, name in (("UFM", "UFM"), ("network", "MLP on digits")):
        part = results.select(what=what, classes="distinct")
        curves: list[Curve] = []
        for color, run in enumerate(best_by(part, _case).values()):
            counts = [float(n) for n in run.problem.counts]
            label = f"d = {run.problem.dim}, M = {run.problem.depth}"
            for ending, array, style in (
                ("minimiser", "predicted_logits", "dashed"),
                ("trained", "logits", "points"),
            ):
                own = np.diagonal(run.array(array)).tolist()
                curves.append(Curve(f"{label}, {ending}", counts, own, color, style))
        title = f"{name}: which classes are left"
        panels.append(Chart(title, "samples of the class", "own mean logit", curves))
    maps: list[Matrix] = []
    for run in best_by(results.select(what="UFM", classes="balanced"), _case).values():
        gram = run.array("classifier")
        title = f"M = {run.problem.depth}, {shared.BIAS_NAMES[run.problem.bias]}"
        maps.append(Matrix(title, gram / np.trace(gram)))
    title = "W Wᵀ over its trace, 4 balanced classes in 2 dimensions"
    note = "Which approximation a run takes is arbitrary."
    return [*panels, HeatMaps(title, maps, "class", "class", note=note)]


FIGURE = Figure(
    "rank-deficient",
    "Fewer dimensions than classes",
    "follows from the theorems with d < K (no figure)",
    claim="With d < K the smallest classes are dropped; with balanced classes the geometry "
    "is a best rank-d approximation of the frame.",
    caption="Own logits of the classes: as many of the largest classes as dimensions are "
    "left. The maps show projectors, another one in every run.",
    tasks=_tasks,
    judge=_judge,
    draw=_draw,
    note=shared.STARTS_NOTE + " Networks: one and three linear layers on four features of an MLP "
    "on digits.",
    place=6,
)
