"""How fast the mean logits of Hong & Ling's minimisers tend to a simplex ETF (Theorems 3.4, 3.5).

The rate is derived here. Where margins are large, the gradient of column ``k`` says
``e_k - p_k = N lambda u_k / sqrt(n_k)`` with ``U`` the polar factor of ``Z diag(n)^(1/2)``; so with
``m = log(n_B) / 2 - log(N lambda)`` and ``P = I - J/K`` the minimiser is ``Z = m P + C + o(1)``,
where ``C`` depends on ``r = n_A / n_B`` alone. Every cosine has the distance ``|c| / m`` to
``-1/(K-1)``, to first order, and one over it grows by ``1/(2 |c|)`` with every unit of
``log(n_B)``, whatever ``N lambda`` is. A free bias ``b`` grows with ``m``, and all this holds for
``Z + b 1^T``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tightframe.figures.model import Chart, Curve, Panel, Table
from tightframe.reproduce.judging import certified, decided, rises, verdict
from tightframe.reproduce.papers.hong_ling import shared
from tightframe.reproduce.results import Array, Results, Run
from tightframe.reproduce.spec import Figure, Task, Verdict

_BIASES: dict[str, dict[str, Any]] = {
    "decayed": {"bias": "decayed", "bias_decay": 0.02},
    "none": {"bias": "none"},
    "free": {"bias": "free"},
}
_WORDS = {"decayed": "decayed bias", "none": "no bias", "free": "free bias"}

#: n_A / n_B, N lambda, and n_B.
_RATIOS = (2, 10, 100)
_SHARES = (0.01, 0.1, 1.0)
_COUNTS = (10**4, 10**6, 10**8, 10**10, 10**12)

_MAJORITIES, _CLASSES = 5, 10
_ETF_COSINE = -1 / (_CLASSES - 1)

#: Two majority classes, one of each, two minority classes.
_PAIRS = ((0, 1), (0, _CLASSES - 1), (_CLASSES - 2, _CLASSES - 1))

#: How far the last growth may be from its limit, relatively.
_NEAR = 0.1


def _tasks(scale: str) -> list[Task]:
    tasks = []
    for bias, options in _BIASES.items():
        for ratio in _RATIOS:
            for share in _SHARES:
                problems = []
                for count in _COUNTS:
                    own = (_MAJORITIES, ratio * count, count)
                    decay = share / shared.total(*own)
                    problems.append(shared.problem(shared.step(*own), decay, options))
                labels = {"what": "theory", "bias": bias, "ratio": ratio, "share": share}
                tasks.append(Task("solve", {"problems": problems, "arrays": True}, labels))
    return tasks


# -- the rate --------------------------------------------------------------------------------------


def growth(ratio: float, *, free: bool = False) -> float:
    """Return the limit of the growth of one over the distance, per unit of ``log(n_B)``."""
    k = _CLASSES
    counts = np.repeat([float(ratio), 1.0], [_MAJORITIES, k - _MAJORITIES])
    etf = np.eye(k) - 1 / k
    # The minimiser's direction: a free bias takes the mean over the samples.
    direction = etf - (etf @ counts / counts.sum())[:, None] if free else etf
    u, _, v = np.linalg.svd(direction * np.sqrt(counts))
    polar = u[:, : k - 1] @ v[: k - 1]
    off = ~np.eye(k, dtype=bool)
    first = np.zeros((k, k))
    first[off] = np.log((-polar / np.sqrt(counts))[off])
    first = etf @ first
    both = etf @ first
    own = np.diag(both)
    changes = [
        (both[i, j] + both[j, i] - _ETF_COSINE * (own[i] + own[j])) / (1 - 1 / k) for i, j in _PAIRS
    ]
    return float(1 / (2 * np.max(np.abs(changes))))


def _cosines(logits: Array) -> list[float]:
    unit = logits / np.linalg.norm(logits, axis=0)
    return [float(unit[:, i] @ unit[:, j]) for i, j in _PAIRS]


def _distance(run: Run) -> float:
    """Return the largest distance of the three cosines to the ETF's; a free bias counts."""
    logits = run.array("logits")
    if run.labels["bias"] == "free":
        logits = logits + run.array("bias")[:, None]
    return max(abs(cosine - _ETF_COSINE) for cosine in _cosines(logits))


def _minority(run: Run) -> int:
    return run.problem.groups[-1].count


class _Line:
    """The minimisers of one ratio, share and bias over the counts."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self.runs = sorted(runs, key=_minority)
        self.labels = self.runs[0].labels
        self.counts = [_minority(run) for run in self.runs]
        self.distances = [_distance(run) for run in self.runs]
        self.limit = growth(self.labels["ratio"], free=self.labels["bias"] == "free")
        self.growths = np.diff(1 / np.array(self.distances)) / np.diff(np.log(self.counts))

    @property
    def name(self) -> str:
        """Ratio and share."""
        return f"r = {self.labels['ratio']}, N λ = {self.labels['share']:g}"

    @property
    def last(self) -> float:
        """The last growth over its limit; NaN of a single point."""
        return float(self.growths[-1] / self.limit) if len(self.growths) else np.nan


def _lines(part: Results) -> list[_Line]:
    points = [part.select(ratio=r, share=s).done for r in _RATIOS for s in _SHARES]
    return [_Line(runs) for runs in points if runs]


# -- verdicts and panels ---------------------------------------------------------------------------


def _judge(results: Results) -> list[Verdict]:
    return [_judge_bias(results.select(bias=bias), bias) for bias in _BIASES]


def _judge_bias(part: Results, bias: str) -> Verdict:
    lines = _lines(part)
    falls = all(rises(-distance for distance in line.distances) for line in lines)
    ratios = [line.last for line in lines]
    worst = max(ratios, key=lambda ratio: abs(ratio - 1), default=np.nan)
    what = "Z + b 1ᵀ" if bias == "free" else "Z"
    sentence = f"{_WORDS[bias].capitalize()}: "
    if lines:
        farthest = max(lines, key=lambda line: line.distances[-1])
        sentence += (
            f"over the last two decades of n_B one over the distance grows by {min(ratios):.3g} "
            f"to {max(ratios):.3g} of its limit on {len(lines)} lines: the distance is of order "
            f"1/log(n_B), and still {farthest.distances[-1]:.2g} at n_B = "
            f"{farthest.counts[-1]:.0e} ({farthest.name})"
        )
    if bias == "free" and lines:
        cosine = _cosines(farthest.runs[-1].array("logits"))[0]
        sentence += f"; there Z alone tends elsewhere, two majority classes to {cosine:.2g}"
    beside = " (not in the paper)" if bias == "free" else ""
    return verdict(
        decided(part, falls and certified(part) and all(abs(r - 1) < _NEAR for r in ratios)),
        criterion=f"for every r and N λ the largest distance of the cosines of {what} to -1/9 "
        "falls at every step of n_B, and over the last two decades one over it grows with "
        f"log(n_B) as fast as the first-order term says, within {_NEAR:.0%} (certified minimisers; "
        "set before looking)",
        claimed=f"{_WORDS[bias]}: with r and N λ fixed {what} tends to a simplex ETF as n_B "
        f"grows{beside}, at the rate 1/log(n_B)",
        predicted=1.0,
        measured=worst,
        tolerance=_NEAR,
        sentence=f"{sentence}.",
    )


def _draw(results: Results) -> list[Panel]:
    panels: list[Panel] = []
    table = []
    styles = ("dotted", "solid", "dashed")
    for bias, words in _WORDS.items():
        lines = _lines(results.select(bias=bias))
        curves = [
            Curve(
                line.name,
                line.counts,
                [1 / distance for distance in line.distances],
                _RATIOS.index(line.labels["ratio"]),
                styles[_SHARES.index(line.labels["share"])],
            )
            for line in lines
        ]
        title = f"Certified minimisers, {words}"
        note = "Straight lines: a rate of 1/log(n_B)."
        x_label, y_label = "samples of each minority class, n_B", "1 / distance of cosines to -1/9"
        panels.append(Chart(title, x_label, y_label, curves, log_x=True, note=note))
        for line in lines:
            growths = (*line.growths[-1:], line.limit)
            table.append([words, line.name, line.distances[-1], *growths, line.last])
    columns = ["bias", "line", "distance", "growth", "its limit", "ratio"]
    panels.append(
        Table(
            "Growth of one over the distance, per unit of log(n_B)",
            columns,
            table,
            "Over the last two decades of n_B; the limit is the first-order term's.",
        )
    )
    return panels


FIGURE = Figure(
    "rate",
    "How fast the imbalance loses its effect",
    "Theorems 3.4-3.5 (no figure)",
    claim="With r = n_A/n_B and N λ fixed, the mean logits tend to a simplex ETF as n_B grows.",
    caption="One over the distance to the ETF rises along straight lines in log(n_B); the slope "
    "depends on r, not on N λ.",
    tasks=_tasks,
    judge=_judge,
    draw=_draw,
    note="Five majority and five minority classes, n_B from 1e4 to 1e12. The rate and its "
    "constant are derived here from the condition on the gradient: the theorems give the limit. "
    "With a free bias, which the paper always decays, the limit is that of Z + b 1ᵀ, because b "
    "grows as Z does.",
    place=6,
)
