"""Focal loss on balanced classes: the best simplex ETF, where it dies, and whether by a jump.

    (1 - q)^gamma (-log q),   q the softmax probability of the own class

is not convex in the logits, so nothing here is certified: a result is the best that was found.
Counts that differ have no formula, and are refused. docs/theory.md section 11 has what was checked.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tightframe.checks import is_several, positive_float, require_dense, whole_number
from tightframe.figures.model import Chart, Curve, Mark
from tightframe.geometry.dense import Geometry, simplex_etf
from tightframe.problem.counts import MAX_SAMPLES
from tightframe.problem.problem import Problem
from tightframe.saved import Saved
from tightframe.shown import Block, Shown, fields_table, frame, plot

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]

#: Margins that are looked at before one is refined, and how far beyond log K.
_GRID, _REACH = 4001, 40.0

#: Decays along the picture.
_NUM_DECAYS = 120

#: Sizes of the random starts of a direct search, in turn: small ones end at zero.
_STARTS = (0.3, 1.0, 2.0, 4.0)

#: Jumps to smaller margins cannot be told from none by differences of the loss.
_JUMP = 1e-4

#: Most classes of a direct search and most starts of it, and the largest focusing parameter.
MAX_SEARCHED, MAX_STARTS, MAX_GAMMA = 200, 1000, 100.0


@dataclass(frozen=True, eq=False)
class FocalCollapse(Shown, Saved):
    """The best point found for focal loss with equal counts; nothing certifies it.

    Attributes
    ----------
    num_classes, samples_per_class : int
    gamma : float
        The focusing parameter; 0 is cross-entropy.
    logit_decay : float
        ``sqrt(weight_decay feature_decay)``.
    margin : float
        Of the logits ``margin (I - 11^T/K)``: own minus other logit. 0: everything has collapsed.
    objective : float
        At these logits with their cheapest factors (nats).
    stability_limit : float
        From this logit decay on zero is a local minimum.
    collapse : float
        From this logit decay on zero is better than any simplex ETF; at least `stability_limit`.
        Between the two, training may end at zero, at the ETF, or at points where some classes have
        collapsed and the others not: all are local minima.
    jump : float
        The margin just below `collapse`: 0 where it shrinks to zero continuously (or from below
        1e-4).
    starts : int
        Direct minimisations over factors from random starts, for comparison.
    searched : float or None
        The least objective that they found.
    """

    num_classes: int
    samples_per_class: int
    gamma: float
    logit_decay: float
    margin: float
    objective: float
    stability_limit: float
    collapse: float
    jump: float
    starts: int = 0
    searched: float | None = None

    @property
    def status(self) -> str:
        """What the point is: always ``"best found"``."""
        return "best found"

    @property
    def note(self) -> str:
        """What was looked at, and that nothing certifies it."""
        found = "best found among simplex ETFs and zero"
        if self.searched is not None:
            better = self.searched < self.objective - 1e-9 * self.objective
            found += f"; {self.starts} direct minimisations found " + (
                f"a better point, {self.searched:.12g}" if better else "nothing better"
            )
        return f"{found}; not certified: focal loss is not convex"

    @property
    def logits(self) -> Array:
        """Mean logits, shape (K, K), column k of class k.

        Raises
        ------
        ValueError
            If there are more classes than are written out.
        """
        require_dense(self.num_classes, "logits")
        return self.margin * (np.eye(self.num_classes) - 1 / self.num_classes)

    @property
    def geometry(self) -> Geometry | None:
        """The simplex ETF, None where everything has collapsed."""
        return simplex_etf(self.num_classes) if self.margin > 0 else None

    def margin_at(self, logit_decay: float) -> float:
        """Return the margin of the best simplex ETF at another decay, 0 where zero is better."""
        decay = positive_float("logit_decay", logit_decay)
        root = math.sqrt(self.samples_per_class)
        return _best(self.num_classes, self.gamma, root * decay)[0]

    @property
    def _decays(self) -> list[float]:
        """Logit decays around this one and the limits, with both sides of the collapse."""
        low = min(self.logit_decay, self.stability_limit) / 10
        high = 1.2 * max(self.logit_decay, self.collapse)
        edges = [self.collapse * (1 - 1e-6), self.collapse * (1 + 1e-6)]
        return sorted([*np.geomspace(low, high, _NUM_DECAYS).tolist(), *edges])

    def to_frame(self) -> pd.DataFrame:
        """Return the margin along the decay, as `plot` draws it, see `tightframe.shown.frame`."""
        margins = np.array([self.margin_at(decay) for decay in self._decays])
        return frame(
            {
                "logit_decay": self._decays,
                "margin": margins,
                "collapsed": margins == 0,
                "zero_is_stable": np.array(self._decays) >= self.stability_limit,
            }
        )

    def to_dict(self) -> dict[str, Any]:
        """Return everything JSON-ready."""
        names = (
            *("num_classes", "samples_per_class", "gamma", "logit_decay", "margin", "objective"),
            *("stability_limit", "collapse", "jump", "starts", "searched", "status", "note"),
        )
        return {name: getattr(self, name) for name in names}

    def plot(self, ax: Any = None) -> tuple[Any, Any]:
        """Draw the margin along the decay, with the stability limit and the collapse.

        See `tightframe.shown.plot`.
        """
        grid = self._decays
        margins = [self.margin_at(decay) for decay in grid]
        marks = [
            Mark(self.stability_limit, "zero is stable from here", in_legend=True),
            Mark(self.collapse, "zero is best from here", style="dashed", in_legend=True),
            Mark(self.logit_decay, "this decay", color="measured", in_legend=True),
        ]
        chart = Chart(
            f"Focal loss, gamma {self.gamma:g}, {self.num_classes} classes",
            "sqrt(weight decay · feature decay)",
            "margin of the best simplex ETF (nats)",
            [Curve("best found", grid, margins, color="predicted")],
            marks=marks,
            log_x=True,
            note="best found, not certified",
        )
        return plot(chart, ax)

    def _blocks(self) -> Iterator[Block]:
        yield repr(self)
        yield fields_table(self)
        yield self.note

    def __repr__(self) -> str:
        """Return the margin, the objective and what it is on one line."""
        return (
            f"FocalCollapse({self.num_classes} classes, gamma {self.gamma:g}, margin "
            f"{self.margin:.6g}, objective {self.objective:.6g}, {self.status})"
        )


def focal_collapse(
    num_classes: int,
    samples_per_class: int,
    gamma: float,
    *,
    weight_decay: float,
    feature_decay: float,
    starts: int = 0,
    seed: int = 0,
) -> FocalCollapse:
    """Return the best simplex ETF found for focal loss (Lin et al. 2017) on balanced classes.

    One linear layer on free features without bias, mean over the samples, as in `Problem`; a free
    or decayed bias would stay zero at such points. Minimises
    ``(1 - q)^gamma (-log q) + sqrt(n) lambda (K - 1) m`` over the margin ``m``,
    ``q = e^m / (e^m + K - 1)``. Zero is a local minimum iff ``sqrt(n) lambda >= (1 - 1/K)^gamma
    (1 + gamma log K / (K - 1)) / K``: for moderate gamma focal loss keeps classes apart at larger
    decays than cross-entropy. With many classes the simplex ETF stays better than zero beyond that
    and ends by a jump.

    Parameters
    ----------
    num_classes, samples_per_class : int
        K of at least 2, and n.
    gamma : float
        Focusing parameter, from 0 to 100; 0 is cross-entropy.
    weight_decay, feature_decay : float
        As in `Problem`.
    starts : int
        Direct minimisations over factors from random starts, to compare with; up to 200 classes.
    seed : int
        Of the starts.

    Raises
    ------
    ValueError
        If an argument is out of range.

    Examples
    --------
    >>> found = focal_collapse(10, 100, 2.0, weight_decay=5e-3, feature_decay=1e-3)
    >>> round(found.margin, 4), found.status
    (2.4687, 'best found')
    >>> round(found.stability_limit * 10 * 100**0.5, 4)  # of cross-entropy's
    1.2245
    """
    sizes: dict[str, Any] = {"num_classes": num_classes, "samples_per_class": samples_per_class}
    for name, value in sizes.items():
        if is_several(value) or isinstance(value, str):
            raise ValueError(
                f"{name}: got {value!r}, need a whole number: focal loss is solved for classes of "
                "one count; nothing is known, and nothing found, for counts that differ"
            )
    k = whole_number("num_classes", num_classes, 2)
    n = whole_number("samples_per_class", samples_per_class)
    for name, size in (("num_classes", k), ("samples_per_class", n)):
        if size > MAX_SAMPLES:
            raise ValueError(f"{name}: got {size}, need at most {MAX_SAMPLES}")
    g = positive_float("gamma", gamma, or_zero=True)
    if g > MAX_GAMMA:
        raise ValueError(f"gamma: got {g:g}, need at most {MAX_GAMMA:g}")
    # For the checks of its decays, and their mean.
    decay = Problem([1, 1], weight_decay=weight_decay, feature_decay=feature_decay).mean_decay
    runs = whole_number("starts", starts, 0)
    if runs > MAX_STARTS:
        raise ValueError(f"starts: got {runs}, need at most {MAX_STARTS}")
    if runs and k > MAX_SEARCHED:
        raise ValueError(
            f"starts: got {runs} with {k} classes; up to {MAX_SEARCHED} classes are searched"
        )
    whole_number("seed", seed, 0)
    root = math.sqrt(n)
    margin, objective = _best(k, g, root * decay)
    limit = (1 - 1 / k) ** g / k * (1 + g * math.log(k) / (k - 1))
    collapse, jump = _end(k, g, limit)
    return FocalCollapse(
        num_classes=k,
        samples_per_class=n,
        gamma=g,
        logit_decay=decay,
        margin=margin,
        objective=objective,
        stability_limit=limit / root,
        collapse=collapse / root,
        jump=jump,
        starts=runs,
        searched=_search(k, g, root * decay, runs, seed) if runs else None,
    )


def _loss(k: int, gamma: float, margins: Array) -> tuple[Array, Array]:
    """Return the loss at simplex ETFs and minus its slope."""
    loss = np.logaddexp(0.0, math.log(k - 1) - margins)
    wrong = -np.expm1(-loss)
    return wrong**gamma * loss, wrong**gamma * (gamma * np.exp(-loss) * loss + wrong)


def _best(k: int, gamma: float, decay: float) -> tuple[float, float]:
    """Return the margin and the objective of the best simplex ETF, or zero."""
    price = decay * (k - 1)
    # Beyond, the slope (1 + gamma) (K - 1)^{1 + gamma} e^{-(1 + gamma) m} or less is below the
    # price; and no margin may cost more than zero does.
    start = float(_loss(k, gamma, np.zeros(1))[0][0])
    reach = math.log(k - 1) + max(math.log((1 + gamma) / price), 0.0) / (1 + gamma) + 1.0
    grid = np.linspace(0.0, min(reach, start / price), _GRID)
    loss, slope = _loss(k, gamma, grid)
    cost = loss + price * grid
    best, margin = start, 0.0
    falls = slope > price  # minima lie where this turns false
    for i in np.flatnonzero(falls[:-1] & ~falls[1:]):
        low, high = grid[i], grid[i + 1]
        for _ in range(60):
            middle = (low + high) / 2
            if _loss(k, gamma, np.array(middle))[1] > price:
                low = middle
            else:
                high = middle
        value = float(_loss(k, gamma, np.array(low))[0] + price * low)
        if value < best:
            best, margin = value, float(low)
    if float(cost.min()) < best - 1e-12 * best:
        margin, best = float(grid[cost.argmin()]), float(cost.min())
    return margin, best


def _end(k: int, gamma: float, limit: float) -> tuple[float, float]:
    """Return ``sqrt(n) lambda`` at which zero takes over, and the margin just below.

    Some margin is better than zero iff the price is below the steepest chord from zero.
    """
    start = float(_loss(k, gamma, np.zeros(1))[0][0])

    def chord(margins: Array) -> Array:
        return (start - _loss(k, gamma, margins)[0]) / margins / (k - 1)

    grid = np.linspace(0.0, math.log(k) + _REACH, _GRID)[1:]
    i = int(chord(grid).argmax())
    low, high = (grid[i - 1] if i else 0.0), grid[min(i + 1, len(grid) - 1)]
    for _ in range(100):  # where the slope equals the chord
        middle = (low + high) / 2
        at = np.array(middle)
        if _loss(k, gamma, at)[1] > (k - 1) * chord(at):
            low = middle
        else:
            high = middle
    found = float(chord(np.array(high)))
    return (found, float(high)) if high > _JUMP and found > limit else (limit, 0.0)


def _search(k: int, gamma: float, decay: float, starts: int, seed: int) -> float:
    """Return the least objective of direct minimisations over the factors of ``Z``, (K, K) each."""
    from scipy.optimize import minimize

    rng = np.random.default_rng(seed)
    eye = np.eye(k, dtype=bool)

    def value(x: Array) -> tuple[float, Array]:
        w, h = x.reshape(2, k, k)
        z = w @ h
        z = z - z.max(axis=0)
        own = z[eye]
        loss = np.log(np.exp(z).sum(axis=0)) - own
        wrong = np.maximum(-np.expm1(-loss), 1e-300)
        factor = wrong**gamma * (gamma * np.exp(-loss) * loss / wrong + 1)
        p = np.exp(z - own - loss)
        p[eye] = -wrong
        slope = p * factor / k
        cost = float((wrong**gamma * loss).sum()) / k + decay / 2 * float(x @ x)
        return cost, np.concatenate([(slope @ h.T).ravel(), (w.T @ slope).ravel()]) + decay * x

    found = []
    for i in range(starts):
        scale = _STARTS[i % len(_STARTS)]
        x = scale * rng.normal(size=2 * k * k) / math.sqrt(k)
        rest: Any = {"jac": True, "method": "L-BFGS-B"}
        rest["options"] = {"maxiter": 5000, "maxfun": 20000, "ftol": 1e-15, "gtol": 1e-9}
        found.append(minimize(value, x, **rest).fun)
    return float(min(found))
