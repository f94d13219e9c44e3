"""Thrampoulidis et al.: the regularisation path, SELI in the limit only."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from tightframe.figures.model import Chart, Curve, Panel
from tightframe.problem.counts import num_classes, num_samples, parse_counts
from tightframe.reproduce.judging import certified, decided, largest, least, mean_by, verdict
from tightframe.reproduce.papers.thrampoulidis import shared
from tightframe.reproduce.papers.thrampoulidis.paths import (
    PATH_RIDGES,
    ended,
    falls,
    falls_with_ridge,
    free_bias_tasks,
    path_tasks,
    paths_of,
)
from tightframe.reproduce.results import Results, Run
from tightframe.reproduce.spec import Figure, Verdict
from tightframe.theory.svm import certify_svm


def seli_excess(counts: str, ridge: float, objective: float) -> float:
    """Return what the best multiple of SELI's logits costs more than an objective, relatively.

    With S the least norm of interpolation, `certify_svm`'s, and ``p = S lambda < (K - 1)/K`` the
    logits ``m (I - 11^T/K)`` cost ``-log(1 - p) + p m`` at their best, ``m = log((K - 1)(1 - p) /
    p)``. Whatever is positive here proves that SELI is not optimal: it needs no lower bound, only
    a better point.

    Parameters
    ----------
    counts : str
    ridge : float
        ``N sqrt(weight_decay feature_decay)``; the loss is cross-entropy without bias.
    objective : float
        Of any logits, as `Problem` defines it (mean loss).
    """
    runs = parse_counts(counts)
    k = num_classes(runs)
    p = certify_svm(counts).primal * ridge / num_samples(runs)
    if p >= (k - 1) / k:
        return math.log(k) / objective - 1
    return (-math.log1p(-p) + p * math.log((k - 1) * (1 - p) / p)) / objective - 1


def _excess(run: Run) -> float:
    return seli_excess(run.problem.compact_counts, shared.ridge_of(run), run.objective)


def _judge(results: Results) -> list[Verdict]:
    paths = paths_of(results)
    everything = [run for runs in paths.values() for run in runs]
    balanced = paths.pop("R = 1")
    others = [run for runs in paths.values() for run in runs]
    cheapest, exact = least(others, _excess), largest(balanced, shared.from_seli)
    ufms = shared.ufm_runs(results)
    towards = falls_with_ridge(ufms, shared.from_seli)
    worst = largest(ufms, shared.from_minimiser)
    free = paths_of(results, "free")
    with_bias = [run for runs in free.values() for run in runs]
    del free["R = 1"]
    return [
        _judge_fall(everything, paths),
        verdict(
            decided(others, cheapest > 1e-6),
            criterion="for R > 1 and every ridge the best multiple of SELI's logits has an "
            "objective more than 1e-6 (relatively) above that of the solved logits",
            claimed="no positive ridge has SELI as its minimiser where R > 1",
            predicted=None,
            measured=cheapest,
            tolerance=1e-6,
            sentence=f"SELI's logits cost at least {cheapest:.2g} more than the minimiser's, "
            "relatively, at every ridge.",
        ),
        verdict(
            decided(everything, certified(everything)) & decided(balanced, exact < 1e-6),
            criterion="for R = 1 all distances to SELI are below 1e-6 at every ridge",
            claimed="balanced, the minimiser is SELI (the ETF) at every ridge; only its scale "
            "depends on it",
            predicted=0.0,
            measured=exact,
            tolerance=1e-6,
            sentence=f"Balanced, the largest distance to SELI on the path is {exact:.1g}.",
        ),
        verdict(
            decided(shared.imbalanced(ufms), towards, refuted=False)
            & decided(ufms, worst < shared.NEAR),
            criterion="for R > 1 the trained UFM's three distances to SELI (mean over seeds) fall "
            f"at every step of the ridge from {shared.RIDGES[0]:g} to {shared.RIDGE:g}, and every "
            f"run ends within {shared.NEAR:g} of its certified minimiser",
            claimed="the trained model follows the regularisation path",
            predicted=0.0,
            measured=worst,
            tolerance=shared.NEAR,
            sentence=f"UFM: the runs end at most {worst:.2g} from the minimisers of their ridges; "
            f"their distances to SELI {'fall' if towards else 'do not always fall'} with it.",
        ),
        _judge_fall(with_bias, free, "with a free bias, "),
    ]


def _judge_fall(
    everything: Sequence[Run], paths: Mapping[str, Sequence[Run]], head: str = ""
) -> Verdict:
    """Judge the approach to SELI, which is another one with a free bias."""
    own = shared.from_own_seli
    lines = [[own(run) for run in ended(runs)] for runs in paths.values()]
    fall = all(falls(line) for line in lines)
    start = largest([runs[0] for runs in paths.values()], own)
    last = [runs[-1] for runs in paths.values()]
    ends = largest(last, own)
    slope = min(
        (_slowness(ended(runs)) for runs in paths.values() if ended(runs)), default=math.nan
    )
    return verdict(
        decided(everything, fall and certified(everything)) & decided(last, ends < 0.1),
        criterion=f"{head}for R > 1 the distances of classifier, class means and logits to "
        f"{'its own SELI' if head else 'SELI'} fall at every step of the ridge from "
        f"{PATH_RIDGES[0]:g} to {PATH_RIDGES[-1]:.0e} and end below 0.1 (certified minimisers)",
        claimed=f"{head}as the ridge vanishes the normalised minimiser tends to "
        + ("SELI of a free bias (ours)" if head else "SELI"),
        predicted=0.0,
        measured=ends,
        tolerance=0.1,
        sentence=f"The largest distance falls from {start:.2g} to {ends:.2g}; one over the "
        f"logits' distance grows by {slope:.2g} a decade or more, so the approach is "
        "logarithmically slow.",
    )


def _slowness(runs: Sequence[Run]) -> float:
    """Return the growth of 1 / distance a decade of the ridge, over the last ten decades."""
    tail = [run for run in runs if shared.ridge_of(run) < 1.1 * PATH_RIDGES[-11]]
    decades = [-math.log10(shared.ridge_of(run)) for run in tail]
    return float(np.polyfit(decades, [1 / shared.from_own_seli(run)[2] for run in tail], 1)[0])


def _draw(results: Results) -> list[Panel]:
    panels: list[Panel] = []
    paths = {name: ended(runs) for name, runs in paths_of(results).items()}
    balanced = paths.pop("R = 1")
    ufms = shared.ufm_runs(results)
    for i, words in enumerate(shared.PARTS.values()):
        curves = [
            Curve(
                name,
                [shared.ridge_of(run) for run in runs],
                [shared.from_seli(run)[i] for run in runs],
                color,
            )
            for color, (name, runs) in enumerate(paths.items())
        ]
        for color, ratio in enumerate(shared.RATIOS[1:]):
            own = [run for run in ufms if shared.ratio_of(run) == ratio]
            found = mean_by(own, shared.ridge_of, shared.from_seli)
            y = [mean[i] for mean in found.values()]
            curves.append(Curve(f"R = {ratio}, UFM", list(found), y, color, "points"))
        most = max((float(shared.from_seli(run)[i]) for run in balanced), default=math.nan)
        note = f"R = 1 is below {max(most, 1e-15):.0e} everywhere."
        title = f"Distance of the {words} to SELI"
        panels.append(Chart(title, shared.RIDGE_AXIS, "distance", curves, (), True, True, note))
    curves = [
        Curve(name, [shared.ridge_of(run) for run in runs], [_excess(run) for run in runs], color)
        for color, (name, runs) in enumerate(paths.items())
    ]
    most = largest(balanced, lambda run: abs(_excess(run)))
    panels.append(
        Chart(
            "What SELI's logits cost more than the minimiser's",
            shared.RIDGE_AXIS,
            "relative to the objective",
            curves,
            log_x=True,
            log_y=True,
            note=f"R = 1: at most {most:.0e}, rounding.",
        )
    )
    return panels


FIGURE = Figure(
    "regularisation-path",
    "The regularisation path: SELI in the limit only",
    "ridge-regularised cross-entropy",
    claim="With imbalance the geometry depends on the ridge: it tends to SELI as the ridge "
    "vanishes and is SELI for no positive one; balanced, it is the ETF for every ridge.",
    caption="All distances fall as the ridge does, but logarithmically: twenty decades of "
    "the ridge do not bring them to 0.01.",
    tasks=lambda scale: [*path_tasks(scale), *free_bias_tasks()],
    judge=_judge,
    draw=_draw,
    note="Certified minimisers down to a ridge of 1e-20; the UFM by descent where it "
    "converges. " + shared.UFM_NOTE,
    place=4,
)
