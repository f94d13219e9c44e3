"""Both ends of the regularisation path: vanishing decays, and decays just below total collapse."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tightframe.geometry.blocks import Array, BlockMatrix, Partition, svd
from tightframe.geometry.dense import Geometry, orthogonal_frame, seli
from tightframe.label_limits import label_limits
from tightframe.problem.problem import Problem, at_most
from tightframe.saved import Saved
from tightframe.shown import Block, Shown, frame
from tightframe.solution import Status
from tightframe.solve import NotConvergedWarning
from tightframe.theory.coverage import given_scales, require_convex
from tightframe.theory.factors import balanced_factors
from tightframe.theory.thresholds import residual_at_zero

if TYPE_CHECKING:
    import pandas as pd

#: Singular values this close, relatively, count as the same.
TIE = 1e-9

#: Eigenvalues below this share of the largest are zero but for rounding.
NULL = 1e-14

#: Rounds that `_shared_bias` needs at most, a few beside equality of its two cases.
_MAX_ROUNDS = 1000


@dataclass(frozen=True, eq=False)
class PathLimits(Shown, Saved):
    """Geometry at both ends of the regularisation path, up to scale.

    Attributes
    ----------
    vanishing : Geometry or None
        As the decays of weights and features vanish, and that of a decayed bias is held: SELI for
        cross-entropy, orthogonal class means and classifier rows for MSE. With a free bias
        ``tightframe.seli(counts, bias="free")`` for both. Smoothed labels have finite logits in the
        limit, whose softmax is the label (less adjustment and margins). With logit scales or
        feature weights what `tightframe.label_limits` certifies: the centred labels without a free
        bias, in every problem tried, and mostly another direction with scales and one. None where
        its solver did not reach its tolerance; `reason` says so.
    vanishing_in_proportion : Geometry or None
        As all decays vanish in proportion, that of a decayed bias too: another geometry than
        `vanishing` for MSE and for smoothed labels, with a decayed bias only.
    collapse : Geometry
        Just below `total_collapse`: what is left last.
    total_collapse : float
        From this ``sqrt(weight_decay feature_decay)`` on everything is zero.
    reason : str
        Why `vanishing` is None, in words; empty where it is known.
    """

    vanishing: Geometry | None
    collapse: Geometry
    total_collapse: float
    vanishing_in_proportion: Geometry | None
    reason: str = ""

    def __repr__(self) -> str:
        named = {"vanishing": self.vanishing, "in proportion": self.vanishing_in_proportion}
        ends = [f"{when} {found.name!r}" for when, found in named.items() if found is not None]
        return (
            f"PathLimits({', '.join(ends) or self.reason}, collapse {self.collapse.name!r} at "
            f"{self.total_collapse:.6g})"
        )

    def _blocks(self) -> Iterator[Block]:
        from tightframe.views.geometries import geometry_table

        yield repr(self)
        ends = {
            "As the decays vanish": self.vanishing,
            "As all decays vanish in proportion": self.vanishing_in_proportion,
            "Just below total collapse": self.collapse,
        }
        for when, found in ends.items():
            if found is not None:
                yield f"\n{when}"
                yield geometry_table(found)

    def to_frame(self) -> pd.DataFrame:
        """Return one row an end of the path and class, as `Geometry.to_frame`.

        See `tightframe.shown.frame`.
        """
        from tightframe.views.geometries import geometry_columns

        names = ("vanishing", "vanishing_in_proportion", "collapse")
        ends = {name: getattr(self, name) for name in names}
        parts = {name: geometry_columns(own) for name, own in ends.items() if own is not None}
        which = [name for name, part in parts.items() for _ in part["class"]]
        heads = next(iter(parts.values()))
        columns = {h: np.concatenate([part[h] for part in parts.values()]) for h in heads}
        return frame({"end": which} | columns)

    def plot(self, ax: Any = None) -> tuple[Any, Any]:
        """Draw the cosines of the class means as the decays vanish; near collapse if unknown.

        See `tightframe.shown.plot`.
        """
        return (self.vanishing or self.collapse).plot(ax)


def path_limits(problem: Problem) -> PathLimits:
    """Return the geometry at both ends of the regularisation path.

    Small decays: Thrampoulidis et al. (2022) for cross-entropy without bias. A decayed bias of
    cross-entropy vanishes beside the logits, slowly, even if its decay shrinks in proportion: its
    cost grows with the square of the logits' size and the saving does not. With MSE the logits
    keep their size, so the bias vanishes if its decay is held; in proportion it stays, and takes
    the more out of the logits the smaller bias_decay / sqrt(weight_decay feature_decay) is
    (docs/theory.md section 4). Near total collapse the logits lie in the top singular space of the
    gradient at zero: the contrasts among the classes with most samples, or the top pair if there
    is one such class.

    Raises
    ------
    ValueError
        If the problem has no convex form.

    Examples
    --------
    >>> problem = Problem("100x2,10x2", weight_decay=1e-3, feature_decay=1e-3, bias="free")
    >>> path_limits(problem).vanishing.name
    'free-bias SELI'
    """
    require_convex(problem, "path_limits")
    residual = residual_at_zero(problem)
    p = residual.partition
    norm = residual.operator_norm
    left, values, right = svd(residual.reduced)
    top = at_most(norm, values * (1 + TIE)).astype(np.float64)
    reduced = (left * -top) @ right
    contrasts = np.where(
        (p.sizes > 1) & at_most(norm, np.sqrt(p.counts) * np.abs(residual.within) * (1 + TIE)),
        1 / np.sqrt(p.counts),
        0.0,
    )
    vanishing, reason = _vanishing(problem, p)
    in_proportion = vanishing
    if problem.bias == "decayed" and (fitted := _fitted(problem, p)) is not None:
        bias = _shared_bias(problem, fitted, problem.bias_decay / problem.logit_decay)
        logits = p.matrix(fitted.within, fitted.mean - bias[:, None])
        in_proportion = _realised(problem, logits, "labels less a decayed bias")
    return PathLimits(
        vanishing,
        _realised(problem, BlockMatrix(p, contrasts, reduced / p.scale), "total collapse"),
        norm / p.num_samples,
        in_proportion,
        reason,
    )


def _realised(problem: Problem, logits: BlockMatrix, name: str) -> Geometry:
    """Return the geometry of the cheapest factors of logits."""
    layers, means = balanced_factors(problem.replace(dim=None), logits.to_dense())
    return Geometry.from_vectors(layers[0], means, name=name)


def _vanishing(problem: Problem, partition: Partition) -> tuple[Geometry | None, str]:
    """Return the limit of vanishing decays, that of a decayed bias held; or None, and why."""
    fitted = _fitted(problem, partition)
    if problem.label_smoothing:
        assert fitted is not None
        if problem.bias == "free":
            fitted = _less_a_bias(fitted)
        return _realised(problem, fitted, "log odds of the labels"), ""
    if problem.bias == "free" and not given_scales(problem):
        # The limit of cross-entropy, centred by the shares, is what MSE interpolates as well.
        return seli(problem.compact_counts, bias="free"), ""
    if fitted is None:
        return (seli(problem.compact_counts), "") if not given_scales(problem) else _scaled(problem)
    if problem.bias == "free":
        return _realised(problem, _less_a_bias(fitted), "labels less a free bias"), ""
    root = np.sqrt(problem.feature_weights)
    eye = orthogonal_frame(problem.num_classes)
    name = "general orthogonal frame"
    return Geometry(name, eye.classifier * root, eye.means / root, eye.logits), ""


def _fitted(problem: Problem, partition: Partition) -> BlockMatrix | None:
    """Return the logits, without a bias, that fit the labels exactly; None where none are finite.

    Those of MSE are the labels. The predictions inside cross-entropy are smoothed labels there.
    """
    p = partition
    if problem.loss_object.vanishing_frame == "orthogonal":
        return p.matrix(np.where(p.sizes > 1, 1.0, 0.0), np.diag(1 / p.sizes))
    if not problem.label_smoothing:
        return None
    exact = p.matrix(np.zeros(p.num_groups), np.zeros((p.num_groups, p.num_groups)))
    return p.matrix(*problem.loss_object.datafit(p).scores(exact))


def _less_a_bias(logits: BlockMatrix) -> BlockMatrix:
    """Return logits less the bias that leaves the least nuclear norm: their weighted mean."""
    return BlockMatrix(logits.partition, logits.within, logits.mean - logits.row_average[:, None])


def _scaled(problem: Problem) -> tuple[Geometry | None, str]:
    """Return the max-margin direction of scaled logits or weighed features; or None, and why."""
    from scipy.sparse import eye_array

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotConvergedWarning)  # it is in the reason
        found = label_limits(
            eye_array(problem.num_classes, format="csc"),
            problem.counts,
            feature_weights=problem.feature_weights,
            logit_scale=problem.logit_scale,
            bias="free" if problem.bias == "free" else "none",
        )
    if found.status != Status.OPTIMAL:
        return None, (
            f"{given_scales(problem)} with bias {problem.bias!r}: the max-margin direction was "
            f"found to a gap of {found.gap / found.norm:.1e} only, see tightframe.label_limits"
        )
    name = "SELI, scaled" if found.is_max_margin else "max-margin direction"
    return Geometry(name, found.classifier, found.means, found.direction), ""


def _shared_bias(problem: Problem, labels: BlockMatrix, ratio: float) -> Array:
    """Return the bias b of a class of each group that minimises the cost of fitting labels.

    That is ``||L D^{1/2} - b sqrt(n)^T||_* + (ratio / 2) ||b||^2``, the cost of ``Z + b 1^T = L``
    over lambda. For MSE, L the identity, and ``ratio >= sum sqrt(n_k)`` the matrix stays positive
    semi-definite and ``b = sqrt(n) / ratio``; otherwise ``sum b_k = 1``. So one vector, which a
    softmax ignores anyway, is in no column. The matrix times its transpose is ``M + N c c^T``,
    ``c = b - L n/N``, M what no bias changes. Its square root's trace is concave in ``c c^T``;
    each round minimises the quadratic in c that touches it from above.
    """
    p = labels.partition
    n, root = p.counts, np.sqrt(p.sizes)
    if problem.loss_object.is_quadratic and p.sizes @ np.sqrt(n) <= ratio:
        return np.sqrt(n) / ratio
    total = p.num_samples
    unseen = p.ignored
    center = np.eye(len(n)) - np.outer(unseen, unseen)
    free = center @ _less_a_bias(labels).reduced
    goal = center @ (root * labels.row_average)
    c = -goal
    for _ in range(_MAX_ROUNDS):
        values, vectors = np.linalg.eigh(free @ free.T + total * np.outer(c, c))
        values[values <= NULL * values[-1]] = np.inf  # among them what is unseen, which stays out
        weights = center @ (vectors / np.sqrt(values)) @ vectors.T @ center
        new = -np.linalg.solve(total * weights + ratio * np.eye(len(n)), ratio * goal)
        change, c = np.linalg.norm(new - c), new
        if change <= 1e-14 * np.linalg.norm(goal):
            break
    return labels.row_average + c / root
