"""Deep linear networks with cross-entropy: the simplex ETF against low rank (Dang et al. 2023)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize_scalar

from tightframe.figures.model import Chart, Curve, HeatMaps, Mark, Matrix, Panel, Table
from tightframe.geometry.dense import normalized_distance, simplex_etf
from tightframe.problem.counts import format_runs
from tightframe.problem.problem import Problem
from tightframe.reproduce.judging import (
    certified,
    decided,
    largest,
    relative_gap,
    unless_early,
    verdict,
)
from tightframe.reproduce.papers.dang_2023 import shared
from tightframe.reproduce.results import Array, Results, Run
from tightframe.reproduce.spec import Figure, Task, Verdict
from tightframe.theory.certificate import factored_objective
from tightframe.theory.factors import balanced_factors

#: Losses this far apart differ.
LOSS_TOLERANCE = 1e-5


#: Classes, linear layers and decays (weights, features) with ten samples a class.
_CE_POINTS = (
    (4, 1, 3e-3, 3e-4),
    (4, 2, 3e-3, 3e-4),
    (4, 2, 2e-3, 2e-3),
    (4, 3, 3e-3, 3e-4),
    (6, 2, 3e-3, 3e-4),
    (6, 3, 1e-3, 1e-3),
    (10, 2, 3e-3, 3e-4),
    (10, 3, 5e-4, 5e-4),
)

#: Those left out at scale smoke.
_CE_LONG = (1, 6)


def _ce_problem(point: Sequence[Any], bias: str = "none", *, equal: bool = False) -> Problem:
    """Return the problem of a point; with equal decays the logits are the same."""
    classes, depth, weight_decay, feature_decay = point
    problem = Problem(
        format_runs([(10, classes)]),
        weight_decay=weight_decay,
        feature_decay=feature_decay,
        depth=depth,
        bias=bias,
    )
    if not equal:
        return problem
    return problem.replace(weight_decay=problem.mean_decay, feature_decay=problem.mean_decay)


def _tasks(scale: str) -> list[Task]:
    tasks = []
    smoke = scale == "smoke"
    options: dict[str, Any] = {"per_sample": False, "lr": 0.1, "iterations": 40_000}
    options |= {"schedule": [[1000, 5.0]], "seeds": list(range(8)), "records": 40}
    if smoke:
        options |= {"schedule": [[300, 5.0]], "lr": 0.2, "iterations": 1500, "seeds": [0, 1, 2]}
    for i, point in enumerate(_CE_POINTS):
        if smoke and i in _CE_LONG:
            continue
        own = {"point": i, "classes": point[0], "layers": point[1]}
        # What is not asked for at scale smoke would take most of the time there.
        for bias in shared.BIAS_NAMES if not smoke or point[0] == 4 else ("none",):
            problems = [_ce_problem(point, bias).to_dict()]
            search = {} if smoke else {"starts": 16}
            arguments = {"problems": problems, "arrays": True, **search}
            tasks.append(Task("solve", arguments, {"what": "theory", "bias": bias, **own}))
        if not smoke or point[0] < 10:
            equal = [_ce_problem(point, equal=True).to_dict()]
            tasks.append(shared.ufm(scale, equal, 2 * point[0], options, **own))
    return tasks


def explicit_losses(problem: Problem, logits: ArrayLike, bias: ArrayLike) -> tuple[float, float]:
    """Return the objective of logits and of the best simplex ETF, as actual layers and features.

    The layers and features with these logits that cost least are made and put into the objective
    as it is written; nothing of a solver is used. For the ETF ``m (I - 11^T/K)`` the length m is
    searched for; a bias is constant there, by symmetry, and changes nothing.

    Parameters
    ----------
    problem : Problem
        Balanced, real features.
    logits : array_like, shape (K, K)
        Column k holds the samples of class k.
    bias : array_like, shape (K,)

    Returns
    -------
    point, etf : float
        An upper bound of the minimum, and the least loss that a simplex ETF has.
    """
    return _explicit(problem, np.asarray(logits), np.asarray(bias)), etf_loss(problem)


@cache
def etf_loss(problem: Problem) -> float:
    """Return the least loss that a simplex ETF has; see `explicit_losses`."""
    frame = simplex_etf(problem.num_classes).logits
    none = np.zeros(problem.num_classes)
    lengths = np.linspace(0.0, 60.0, 241)  # the loss may have two minima, one at zero
    losses = [_explicit(problem, m * frame, none) for m in lengths]
    best = int(np.argmin(losses))
    around = (lengths[max(best - 1, 0)], lengths[min(best + 1, 240)])
    found = minimize_scalar(
        lambda m: _explicit(problem, m * frame, none),
        bounds=around,
        method="bounded",
        options={"xatol": 1e-9},
    )
    return min(float(found.fun), losses[best])


def _explicit(problem: Problem, logits: Array, bias: Array) -> float:
    weights, means = balanced_factors(problem, logits)
    labels = np.repeat(np.arange(problem.num_classes), problem.counts)
    return factored_objective(problem, weights, means.T[labels], labels, bias)


def _refuted(classes: int, layers: int) -> bool:
    """Return whether Garrod & Keating (2024, arXiv 2410.23169, Thm 1) exclude the ETF."""
    return (classes >= 4 and layers >= 3) or (classes >= 6 and layers == 2)


@dataclass(frozen=True)
class _Losses:
    """What one minimiser costs, and the best simplex ETF: as factors and as solved."""

    run: Run
    best: float
    etf: float

    @classmethod
    def of(cls, run: Run) -> _Losses:
        problem = _ce_problem(_point(run), run.problem.bias)
        return cls(run, *explicit_losses(problem, run.array("logits"), run.array("bias")))

    @property
    def drop(self) -> float:
        """By how much the ETF is beaten."""
        return self.etf - self.best

    @property
    def beaten(self) -> bool:
        return self.drop > LOSS_TOLERANCE

    @property
    def rank(self) -> int:
        return int(self.run.measured("rank"))

    @property
    def excluded(self) -> bool:
        """Whether the later theorem says that the ETF is no minimiser."""
        classes, layers, *_ = _point(self.run)
        return _refuted(classes, layers)

    @property
    def error(self) -> float:
        """How far the solver's losses are from those of the factors."""
        # With one layer the minimiser is certified, and an ETF.
        solved = "objective" if _point(self.run)[1] == 1 else "etf_objective"
        pairs = (self.etf, self.run.measured(solved)), (self.best, self.run.objective)
        return float(np.max([abs(a - b) for a, b in pairs]))


def _point(run: Run) -> tuple[Any, ...]:
    return _CE_POINTS[run.labels["point"]]


def _losses(theory: Results) -> list[_Losses]:
    """Return what every solved point costs, by point, without bias first."""
    found = [_Losses.of(run) for run in theory.done]
    return sorted(found, key=lambda one: (one.run.labels["point"], one.run.problem.bias == "free"))


def _judge(results: Results) -> list[Verdict]:
    theory, ufm_part = results.select(what="theory"), results.select(what="UFM")
    losses = _losses(theory)
    return [
        _judge_etf(theory, losses),
        _judge_refutation(theory, losses),
        _judge_single(results.select(what="theory", layers=1)),
        *_judge_descent(ufm_part.runs, results.scale),
    ]


def _judge_etf(theory: Results, losses: Sequence[_Losses]) -> Verdict:
    lower = sum(one.beaten for one in losses)
    drop = max(losses, key=lambda one: one.drop, default=None)
    sentence = (
        f"At {lower} of {len(losses)} settings explicit layers and features have a lower loss "
        "than every simplex ETF"
    )
    if drop is not None:
        classes, depth, *_ = _point(drop.run)
        sentence += (
            f", most of all with K = {classes}, M = {depth}: {drop.best:.6f} at rank {drop.rank} "
            f"against {drop.etf:.6f}."
        )
    if lower:
        sentence += f" {_why_beaten(losses)}"
    return verdict(
        decided(theory, not lower),
        criterion=f"no point has a loss more than {LOSS_TOLERANCE:g} below the best simplex "
        "ETF's, evaluated as layers and features",
        claimed="with cross-entropy, global minimisers of deep linear networks are simplex "
        "ETFs across the layers",
        predicted=0.0,
        measured=None if drop is None else drop.drop,
        tolerance=LOSS_TOLERANCE,
        sentence=sentence,
    )


def _why_beaten(losses: Sequence[_Losses]) -> str:
    """Say that low rank beats the ETF, and what is found where the later theorem has nothing."""
    beaten = [one for one in losses if one.beaten]
    low = sum(one.rank < _etf_rank(one.run) for one in beaten)
    control = [one.beaten for one in losses if not one.excluded]
    return (
        "The claim itself fails, because several layers make low rank cheap: "
        f"{low} of these {len(beaten)} points have a rank below the ETF's, K - 1; where the later "
        "theorem leaves the ETF alone (one layer, or K = 4 with two) it is beaten at "
        f"{sum(control)} of {len(control)} settings."
    )


def _etf_rank(run: Run) -> int:
    return run.problem.num_classes - 1


def _judge_refutation(theory: Results, losses: Sequence[_Losses]) -> Verdict:
    """Judge the later theorem against the same losses, and whether two ways to them agree."""
    excluded = [one.beaten for one in losses if one.excluded]
    others = [one.beaten for one in losses if not one.excluded]
    worst = float(np.max([one.error for one in losses])) if losses else math.nan
    return verdict(
        decided(theory, all(excluded) and not any(others) and worst < LOSS_TOLERANCE),
        criterion="the ETF is beaten where K >= 4, M >= 3 or K >= 6, M = 2, and nowhere else; the "
        f"losses of tightframe.solve and of explicit factors agree to {LOSS_TOLERANCE:g}",
        claimed="Garrod & Keating 2024, Thm 1: there no simplex ETF is a global minimiser",
        predicted=0.0,
        measured=worst,
        tolerance=LOSS_TOLERANCE,
        sentence=f"The ETF is beaten at {sum(excluded)} of {len(excluded)} "
        f"settings that the theorem excludes and at {sum(others)} of {len(others)} others; "
        f"losses agree to {worst:.1g}.",
    )


def _judge_single(part: Results) -> Verdict:
    frame = simplex_etf(4).logits
    worst = largest(part, lambda run: normalized_distance(run.array("logits"), frame))
    gap = largest(part, relative_gap)
    return verdict(
        decided(part, worst < 1e-6 and certified(part)),
        criterion="with one layer the certified minimiser's logits are within 1e-6 of a simplex "
        "ETF's",
        claimed="with cross-entropy and one layer the minimiser is a simplex ETF",
        predicted=0.0,
        measured=worst,
        tolerance=1e-6,
        sentence=f"With one layer the minimiser (relative gap {gap:.1g}) is within {worst:.1g} of "
        "a simplex ETF.",
    )


@cache
def _etf_of(point: int) -> float:
    """Return the best ETF's loss at a point, which a bias does not change."""
    return etf_loss(_ce_problem(_CE_POINTS[point]))


def _judge_descent(runs: Sequence[Run], scale: str) -> list[Verdict]:
    deep = [run for run in runs if run.labels["layers"] > 1]
    flat = [run for run in runs if run.labels["layers"] == 1]
    done = [run for run in deep if not run.failed]
    drops = [_etf_of(run.labels["point"]) - run.objective for run in done]
    below = [drop > LOSS_TOLERANCE for drop in drops]
    near = sum(abs(drop) <= LOSS_TOLERANCE for drop in drops)
    most = max(drops, default=math.nan)
    single = largest(flat, lambda run: run.measured("logits_to_etf"))
    return [
        verdict(
            decided(deep, not any(below)),
            criterion="no run of gradient descent with M >= 2 ends with a loss more than "
            f"{LOSS_TOLERANCE:g} below the best simplex ETF's",
            claimed="training ends in a simplex ETF, the global minimiser",
            predicted=0.0,
            measured=most,
            tolerance=LOSS_TOLERANCE,
            sentence=f"UFM, M >= 2: {sum(below)} of {len(below)} runs end below the best simplex "
            f"ETF, by up to {most:.5f}; {near} end at its loss."
            + (f" {_which_pass(done, below)}" if any(below) else ""),
        ),
        verdict(
            decided(flat, unless_early(flat, single < shared.UFM_LIMIT, scale)),
            criterion="with one layer the logits of every run end within "
            f"{shared.UFM_LIMIT:g} of a simplex ETF's",
            claimed="with one layer training ends in a simplex ETF",
            predicted=0.0,
            measured=single,
            tolerance=shared.UFM_LIMIT,
            sentence=f"UFM, M = 1: the logits end at most {single:.1g} from a simplex ETF's.",
        ),
    ]


def _which_pass(done: Sequence[Run], below: Sequence[bool]) -> str:
    """Say which runs of descent end below the ETF: by rank, and where the theorem has nothing."""
    ends = list(zip(done, below, strict=True))
    low = [under for run, under in ends if run.measured("rank") < _etf_rank(run)]
    full = [under for run, under in ends if run.measured("rank") >= _etf_rank(run)]
    allowed = [under for run, under in ends if not _refuted(*_point(run)[:2])]
    return (
        f"These are the low-rank points: {sum(low)} of {len(low)} runs of a rank below K - 1 end "
        f"there and {sum(full)} of {len(full)} others; with K = 4 and two layers, where the later "
        f"theorem leaves the ETF alone, {sum(allowed)} of {len(allowed)} do."
    )


def _point_name(index: int) -> str:
    classes, depth, weight_decay, feature_decay = _CE_POINTS[index]
    decays = f"λ = {weight_decay:g}"
    if weight_decay != feature_decay:
        decays = f"λ_W = {weight_decay:g}, λ_H = {feature_decay:g}"
    return f"K = {classes}, M = {depth}, {decays}"


def _draw(results: Results) -> list[Panel]:
    losses = _losses(results.select(what="theory"))
    plain = [one for one in losses if one.run.problem.bias == "none"]
    ufms = results.select(what="UFM").done
    maps = [
        Matrix(f"{_point_name(one.run.labels['point'])}, rank {one.rank}", one.run.array("logits"))
        for one in plain
        if one.run.labels["point"] in (3, 5)
    ]
    return [
        _loss_table(losses),
        _descent_chart(plain, ufms),
        _rank_chart(plain, ufms),
        HeatMaps("Mean logits of two low-rank points", maps),
    ]


def _loss_table(losses: Sequence[_Losses]) -> Table:
    lines: list[list[Any]] = [
        [
            *_point(one.run),
            shared.BIAS_NAMES[one.run.problem.bias],
            f"{one.etf:.6f}",
            f"{one.best:.6f}",
            one.rank,
            one.run.text("winner") or "ETF (certified)",
            f"{max(one.drop, 0.0):.6f}",
        ]
        for one in losses
    ]
    return Table(
        "Losses of the best simplex ETF and of the best point that was found",
        ["K", "M", "λ_W", "λ_H", "bias", "ETF", "best", "rank", "winner", "ETF - best"],
        lines,
        "Both evaluated as layers and features in the objective; rank and winner are those of "
        "the best point. It is an upper bound of the minimum: nothing certifies it for M > 1.",
    )


def _places(runs: Iterable[Run]) -> list[float]:
    return [float(run.labels["point"]) for run in runs]


def _descent_chart(plain: Sequence[_Losses], runs: Sequence[Run]) -> Chart:
    """Draw every run's loss over the ETF's, beside the best point found."""
    x = _places(one.run for one in plain)
    shares = [one.best / one.etf for one in plain]
    curves = [Curve("best found by the search", x, shares, "predicted", "line+points")]
    if runs:
        shares = [run.objective / _etf_of(run.labels["point"]) for run in runs]
        curves.append(Curve("UFM by gradient descent", _places(runs), shares, "measured", "points"))
    names = "; ".join(f"{i}: {_point_name(i)}" for i in range(len(_CE_POINTS)))
    marks = [Mark(1.0, "best simplex ETF", "y", "etf")]
    title = "Loss of runs over the best simplex ETF's"
    return Chart(title, "setting", "loss / loss of the best ETF", curves, marks, note=names)


def _rank_chart(plain: Sequence[_Losses], runs: Sequence[Run]) -> Chart:
    """Draw the rank of every run beside that of the best point and of the ETF."""
    x = _places(one.run for one in plain)
    etf = [one.run.problem.num_classes - 1 for one in plain]
    curves = [
        Curve(
            "best found by the search", x, [one.rank for one in plain], "predicted", "line+points"
        ),
        Curve("simplex ETF, K - 1", x, etf, "etf", "dashed"),
    ]
    if runs:
        ranks = [run.measured("rank") for run in runs]
        curves.append(Curve("UFM by gradient descent", _places(runs), ranks, "measured", "points"))
    return Chart("Rank of the mean logits", "setting", "rank", curves)


FIGURE = Figure(
    "deep-ce",
    "Deep linear networks with cross-entropy: the simplex ETF against low rank",
    "theorem on cross-entropy (no figure)",
    claim="With cross-entropy too, global minimisers of deep linear networks are simplex "
    "ETFs across the layers, according to the abstract.",
    caption="Below the horizontal line lie points with a lower loss than every simplex "
    "ETF; gradient descent finds such points by itself.",
    tasks=_tasks,
    judge=_judge,
    draw=_draw,
    note="Ten samples a class. The counter-examples are low-rank: softmax codes. The paper "
    "itself was not read for this figure, only its abstract and code. Both refutations are about "
    "the claim, and no training or setting can turn them: the points are written down as layers "
    "and features. Settings that the later theorem leaves out are the control. The UFM is trained "
    "with equal decays of the same geometric mean, which has the same logits and losses.",
    place=7,
)
