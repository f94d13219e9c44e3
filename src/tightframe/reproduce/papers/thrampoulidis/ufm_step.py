"""Thrampoulidis et al.: the UFM under STEP imbalance, towards SELI or the ETF."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from tightframe.figures.model import Chart, Curve, Panel, Table
from tightframe.reproduce.judging import (
    below,
    decided,
    first_by,
    largest,
    least,
    mean_by,
    rises,
    sorted_by,
    stopped,
    verdict,
)
from tightframe.reproduce.papers.thrampoulidis import shared
from tightframe.reproduce.results import Results, Run
from tightframe.reproduce.spec import Figure, Task, Verdict


def arrival(iterations: ArrayLike, distances: ArrayLike) -> float:
    """Return the first recorded iteration from which on a distance stays below `NEAR`.

    Infinite where the last one is not.
    """
    far = np.flatnonzero(~(np.asarray(distances, dtype=np.float64) < shared.NEAR))
    times = np.asarray(iterations, dtype=np.float64)
    first = 0 if len(far) == 0 else int(far[-1]) + 1
    return float(times[first]) if first < len(times) else math.inf


def _arrival(run: Run) -> float:
    """Return when all Grams of a run stay near the minimiser's."""
    columns = [f"{part}_to_predicted" for part in shared.PARTS]
    history = run.history
    return arrival(history["iteration"], history[columns].max(axis=1, skipna=False))


def _farthest_from_seli(run: Run) -> float:
    return float(shared.from_seli(run).max())


def _judge(results: Results) -> list[Verdict]:
    runs = shared.ufm_runs(results, shared.RIDGE)
    worst = largest(runs, shared.from_minimiser)
    share = largest(shared.imbalanced(runs), shared.seli_or_etf)
    done = [run for run in runs if not run.failed]
    return [
        below(
            worst,
            shared.NEAR,
            runs,
            criterion=f"every run of ridge {shared.RIDGE:g} ends within {shared.NEAR:g} of the "
            "certified minimiser (classifier, class means, logits)",
            claimed="descent on the UFM with ridge finds the global minimiser",
            sentence=f"The runs end at most {worst:.2g} from the certified minimiser of their "
            f"ridge; {stopped(done)} of {len(done)} were stopped.",
        ),
        below(
            share,
            0.5,
            shared.imbalanced(runs),
            predicted=None,
            criterion=f"at R > 1 and ridge {shared.RIDGE:g}, classifier and class means end less "
            "than half as far from SELI as from the ETF, in every run",
            claimed="the Gram matrices converge to SELI, not to the ETF",
            sentence=f"The distance to SELI is at most {share:.2g} of that to the ETF. The "
            "logits cannot tell the two apart.",
        ),
        _judge_slowing(runs),
        *_judge_ridgeless(results),
        _judge_free_bias(results),
    ]


def _judge_ridgeless(results: Results) -> list[Verdict]:
    runs = shared.ridgeless_runs(results)
    share = largest(shared.imbalanced(runs), shared.seli_or_etf)
    off = mean_by(runs, shared.ratio_of, _farthest_from_seli)
    arrived = off.get(1, math.inf) < shared.NEAR
    return [
        below(
            share,
            0.5,
            shared.imbalanced(runs),
            predicted=None,
            criterion="without ridge and at R > 1, classifier and class means end less than half "
            "as far from SELI as from the ETF, in every run",
            claimed="without a ridge, too, the Gram matrices converge to SELI, not to the ETF",
            sentence=f"Loss-normalised descent ends at {share:.2g} or less of the ETF's distance.",
        ),
        verdict(
            decided(runs, rises(off.values()) if arrived else None, refuted=False),
            criterion="without ridge the largest final distance to SELI (mean over seeds) rises "
            f"with R; not decided unless the balanced runs come within {shared.NEAR:g}",
            claimed="convergence worsens with increasing imbalance, also where the ridge vanishes",
            predicted=None,
            measured=shared.listed(off.values()),
            tolerance=None,
            sentence=f"Without ridge the runs end {shared.listed(off.values())} from SELI "
            f"at R = {_ratios()} (the farthest of the three)"
            + (
                "." if arrived else "; too few iterations to decide: the balanced one is not there."
            ),
        ),
    ]


#: So close runs with a free bias must come to one of the two SELIs, to be judged.
_ARRIVED = 0.2


def _from_both(run: Run) -> tuple[float, float]:
    """Return the logits' distances to SELI without bias and to SELI of a free bias."""
    return float(shared.from_seli(run)[2]), float(shared.away(run, "seli_free")[2])


def _judge_free_bias(results: Results) -> Verdict:
    runs = shared.imbalanced(shared.ridgeless_runs(results, "free"))
    farther = largest(runs, lambda run: _from_both(run)[0] - _from_both(run)[1])
    return below(
        farther,
        0.0,
        runs,
        decidable=largest(runs, lambda run: min(_from_both(run))) < _ARRIVED,
        predicted=None,
        criterion="with a free bias, no ridge and R > 1, the logits end nearer to SELI without "
        "bias than to SELI of a free bias, in every run; not decided unless every run comes "
        f"within {_ARRIVED:g} of either",
        claimed="(not in the paper) without a ridge a free bias changes nothing in the limit: it "
        "grows slower than the logits",
        sentence=f"The distance to SELI without bias less that to SELI of a free bias is at most "
        f"{farther:.2g}; the latter is the limit of vanishing ridges where the bias has none.",
    )


def _ratios() -> str:
    return ", ".join(str(ratio) for ratio in shared.RATIOS)


def _judge_slowing(runs: Sequence[Run]) -> Verdict:
    by_ratio = sorted_by((run for run in runs if not run.failed), shared.ratio_of)
    first = [least(own, _arrival) for own in by_ratio.values()]
    last = [largest(own, _arrival) for own in by_ratio.values()]
    separate = all(slow < fast for slow, fast in zip(last, first[1:], strict=False))
    left = mean_by(runs, shared.ratio_of, _farthest_from_seli).values()
    return verdict(
        decided(runs, separate) & decided(runs, rises(left), refuted=False),
        criterion="both rise with R: the iterations until all three stay within "
        f"{shared.NEAR:g} of the minimiser (slowest run of an R against the fastest of the next), "
        "and the largest final distance to SELI (mean over seeds)",
        claimed="convergence worsens with increasing imbalance",
        predicted=None,
        measured=f"iterations {shared.listed(last)}; distances {shared.listed(left)}",
        tolerance=None,
        sentence=f"At R = {_ratios()} the slowest run needs {shared.listed(last)} iterations to "
        f"come near its minimiser, and the largest distance left to SELI is {shared.listed(left)}. "
        "The latter is the ridge's doing: the minimiser itself is as far away.",
    )


def _tasks(scale: str) -> list[Task]:
    return [
        *shared.ufm_tasks(scale),
        *(shared.ridgeless(scale, ratio) for ratio in shared.RATIOS),
        *(shared.ridgeless(scale, ratio, "free") for ratio in shared.RATIOS[1:]),
    ]


def _first(runs: Sequence[Run]) -> list[Run]:
    """Return one seed of every R, by R."""
    done = [run for run in runs if not run.failed]
    return first_by(sorted(done, key=shared.ratio_of), shared.ratio_of)


def _curves(runs: Sequence[Run], key: str) -> list[Curve]:
    """Draw the distances to SELI (solid) and to the ETF (dashed, not for logits)."""
    curves = []
    for color, run in enumerate(runs):
        own = run.history[run.history["iteration"] > 0]
        both = key == "logits" or shared.ratio_of(run) == 1  # the same frames
        for frame, name, style in (("seli", "SELI", "solid"), ("etf", "ETF", "dashed")):
            if frame == "etf" and both:
                continue
            label = f"R = {shared.ratio_of(run)}, to {'both' if both else name}"
            distances = list(own[f"{key}_to_{frame}"])
            curves.append(Curve(label, list(own["iteration"]), distances, color, style))
    return curves


def _draw(results: Results) -> list[Panel]:
    panels: list[Panel] = []
    runs = _first(shared.ufm_runs(results, shared.RIDGE))
    bare = _first(shared.ridgeless_runs(results))
    for key, words in shared.PARTS.items():
        title = f"Distance of the {words}, ridge {shared.RIDGE:g}"
        note = "A curve ends where its run has converged."
        curves = _curves(runs, key)
        panels.append(Chart(title, "iteration", "distance", curves, log_x=True, note=note))
    for key in ("classifier", "logits"):
        title = f"Distance of the {shared.PARTS[key]}, no ridge"
        curves = _curves(bare, key)
        panels.append(Chart(title, "iteration", "distance", curves, log_x=True))
    near = {
        ratio: largest(own, _arrival)
        for ratio, own in sorted_by(shared.ufm_runs(results, shared.RIDGE), shared.ratio_of).items()
    }
    table = [
        [
            shared.ratio_of(run),
            0.0 if run in bare else shared.ridge_of(run),
            *shared.distance_row(run),
            None if run in bare else near[shared.ratio_of(run)],
            run.status,
        ]
        for run in sorted(
            (*runs, *bare), key=lambda run: (shared.ratio_of(run), shared.ridge_of(run))
        )
    ]
    table = [[None if value == math.inf else value for value in row] for row in table]
    columns = ["R", "ridge", *shared.distance_titles(), "near after", "ended"]
    note = "Distances of W, H and Z = W H. Near: after which iteration all three stay within "
    note += f"{shared.NEAR:g} of the minimiser (slowest seed)."
    panels.append(Table("Where the runs ended, first seed", columns, table, note))
    return panels


FIGURE = Figure(
    "ufm-step",
    "The UFM under STEP imbalance: towards SELI or the ETF",
    "UFM experiments",
    claim="Trained with a small ridge, the UFM's classifier, class means and logits "
    "converge to SELI for every imbalance, to the ETF only for R = 1; convergence worsens "
    "with R.",
    caption="Solid curves (to SELI) fall to the small distance that the ridge leaves, "
    "dashed ones (to the ETF) do not fall; the larger R, the later. Without a ridge "
    "normalised descent leaves more the larger R is.",
    tasks=_tasks,
    judge=_judge,
    draw=_draw,
    note=shared.UFM_NOTE
    + " Without ridge: loss-normalised descent (step 0.02 over the samples' mean 1 - p_y), until "
    "logits are too large for their differences. It took the place of 30,000 steps of heavy ball "
    "with a ridge of 1e-8, which left all runs, the balanced ones too, far from SELI; the rule "
    "that judges it is the one that was set for those runs.",
    place=1,
)
