"""Thrampoulidis et al.: SELI solves the UFM-SVM, whatever the imbalance."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from tightframe.figures.model import Chart, Curve, Mark, Panel, Table
from tightframe.problem.counts import num_classes, parse_counts
from tightframe.reproduce.judging import decided, largest, mean_by, verdict
from tightframe.reproduce.papers.thrampoulidis import shared
from tightframe.reproduce.papers.thrampoulidis.paths import (
    LONG_TAIL,
    PATH_RIDGES,
    ended,
    falls,
    falls_with_ridge,
    path_tasks,
    paths_of,
)
from tightframe.reproduce.results import Results, Run
from tightframe.reproduce.spec import Figure, Verdict
from tightframe.theory.svm import certify_svm

#: Random imbalances that are certified: 3 to 11 classes, counts from 1 to 1000.
_RANDOM = 1000

_NAMED = {
    "STEP, R = 1": "1x10",
    "STEP, R = 10": "10x5,1x5",
    "STEP, R = 100": "100x5,1x5",
    "STEP, R = 10,000": "10000x5,1x5",
    "long tail": LONG_TAIL,
    "one large class": "10000,1x9",
    "one small class": "10000x9,1",
    "100 counts": ",".join(str(n) for n in range(1, 101)),
    "a million classes": "1000x500000,10x500000",
}


@cache
def _random_certificates() -> pd.DataFrame:
    """Certify SELI for random imbalances: one row each."""
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(_RANDOM):
        classes = int(rng.integers(3, 12))
        spread = rng.uniform(0, 3)
        counts = np.round(10 ** rng.uniform(0, spread, classes)).astype(int)
        found = certify_svm(counts.tolist())
        rows.append(
            {
                "imbalance": float(counts.max() / counts.min()),
                "largest": found.largest_off_diagonal,
                "gap": found.gap / found.primal,
            }
        )
    return pd.DataFrame(rows)


def svm_gap(counts: str, logits: ArrayLike) -> float:
    """Return the certified relative gap of logits to the UFM-SVM; NaN if they separate nothing."""
    try:
        found = certify_svm(counts, logits)
    except ValueError:
        return math.nan
    return found.gap / found.primal


def _gap(run: Run) -> float:
    return svm_gap(run.problem.compact_counts, run.array("logits"))


def _judge(results: Results) -> list[Verdict]:
    ufms = shared.ufm_runs(results)
    ends = mean_by(shared.ufm_runs(results, shared.RIDGE), shared.ratio_of, _gap)
    return [
        _judge_seli(),
        _judge_path(paths_of(results)),
        verdict(
            decided(shared.imbalanced(ufms), falls_with_ridge(ufms, _gap), refuted=False),
            criterion="for R > 1 the UFM-SVM gap of the trained UFM (mean over seeds) falls at "
            f"every step of the ridge from {shared.RIDGES[0]:g} to {shared.RIDGE:g}",
            claimed="trained logits approach the UFM-SVM's solution as the ridge falls",
            predicted=None,
            measured=", ".join(f"{gap:.2g}" for gap in ends.values()),
            tolerance=None,
            sentence=f"UFM: at ridge {shared.RIDGE:g} the certified relative gap is "
            f"{', '.join(f'{gap:.2g}' for gap in ends.values())} at R = "
            f"{', '.join(str(ratio) for ratio in shared.RATIOS)}.",
        ),
    ]


def _judge_seli() -> Verdict:
    random = _random_certificates()
    named = [certify_svm(counts) for counts in _NAMED.values()]
    entry = max(float(random["largest"].max()), *(c.largest_off_diagonal for c in named))
    gap = max(float(random["gap"].max()), *(c.gap / c.primal for c in named))
    return verdict(
        decided((), entry < 0 and gap < 1e-9),
        criterion="in every case the entries of VUᵀ outside the labels are negative and the "
        "certified gap is below 1e-9 of the norm",
        claimed="SELI solves the UFM-SVM, whatever the imbalance",
        predicted=0.0,
        measured=gap,
        tolerance=1e-9,
        sentence=f"{len(random)} random imbalances and {len(named)} chosen ones, up to a "
        f"million classes: the largest entry outside the labels is {entry:.2g}, the largest "
        f"relative gap {gap:.1g}.",
    )


def _judge_path(paths: dict[str, list[Run]]) -> Verdict:
    balanced = paths.pop("R = 1")
    exact = largest(balanced, _gap)
    others = [run for runs in paths.values() for run in runs]
    lines = [[_gap(run) for run in ended(runs)] for runs in paths.values()]
    share = max((line[-1] / line[0] for line in lines if line), default=math.nan)
    return verdict(
        decided(others, all(falls(line) for line in lines) and share < 0.1)
        & decided(balanced, exact < 1e-9),
        criterion="for R > 1 the UFM-SVM gap of the certified minimisers falls at every step "
        f"of the ridge from {PATH_RIDGES[0]:g} to {PATH_RIDGES[-1]:.0e}, to below a tenth; "
        "for R = 1 it is below 1e-9",
        claimed="ridge-regularised cross-entropy solves the UFM-SVM as the ridge vanishes",
        predicted=0.0,
        measured=share,
        tolerance=0.1,
        sentence=f"The gap falls to {share:.2g} of its first value or less; balanced it is "
        f"{exact:.1g} throughout.",
    )


def _draw(results: Results) -> list[Panel]:
    random = _random_certificates()
    paths = {name: ended(runs) for name, runs in paths_of(results).items() if name != "R = 1"}
    curves = [
        Curve(name, [shared.ridge_of(run) for run in runs], [_gap(run) for run in runs], color)
        for color, (name, runs) in enumerate(paths.items())
    ]
    for color, ratio in enumerate(shared.RATIOS[1:]):
        own = [run for run in shared.ufm_runs(results) if shared.ratio_of(run) == ratio]
        found = mean_by(own, shared.ridge_of, _gap)
        label = f"R = {ratio}, UFM"
        curves.append(Curve(label, list(found), list(found.values()), color, "points"))
    dots = Curve("", list(random["imbalance"]), list(random["largest"]), 0, "points")
    table: list[list[Any]] = []
    for name, counts in _NAMED.items():
        found_at = certify_svm(counts)
        classes = num_classes(parse_counts(counts))
        frame = svm_gap(counts, np.eye(classes)) if classes <= 1000 else None
        gap = found_at.gap / found_at.primal
        table.append([name, classes, found_at.primal, gap, found_at.largest_off_diagonal, frame])
    columns = ["counts", "K", "least norm", "gap", "largest entry", "gap of orthogonal logits"]
    return [
        Chart(
            f"SELI for {len(random)} random imbalances",
            "largest over smallest count",
            "largest entry of VUᵀ outside the labels",
            [dots],
            [Mark(0.0, "no certificate above", "y", "bound")],
            log_x=True,
        ),
        Chart(
            "Minimisers as solutions of the UFM-SVM",
            shared.RIDGE_AXIS,
            "certified relative gap",
            curves,
            log_x=True,
            log_y=True,
        ),
        Table(
            "SELI's certificate",
            columns,
            table,
            "Gaps are relative to the norm. The last column is what the certificate says of logits "
            "that are not optimal.",
        ),
    ]


FIGURE = Figure(
    "certificate",
    "SELI solves the UFM-SVM, whatever the imbalance",
    "theorem on the UFM-SVM",
    claim="The simplex-encoded labels solve the UFM-SVM for every imbalance; the dual "
    "certificate is that the entries of VUᵀ outside the labels are negative.",
    caption="No point lies on or above zero. On the right, minimisers of cross-entropy "
    "solve the UFM-SVM ever better as the ridge vanishes.",
    tasks=path_tasks,
    judge=_judge,
    draw=_draw,
    note="The certificate is that of tightframe.certify_svm, for counts of any kind.",
    place=5,
)
