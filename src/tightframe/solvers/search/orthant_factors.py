"""ReLU features and one layer: the objective of factors of the size of the groups of classes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tightframe.geometry.blocks import Array, BlockMatrix, Partition
from tightframe.problem.problem import Problem
from tightframe.theory.axes import Axes


class OrthantFactors:
    """The objective of factors whose class means are non-negative, of classes in groups; one layer.

    With ``Q = V^T V``, ``V >= 0`` the class means times the roots of their counts, X costs least
    ``lambda/2 (tr X Q^+ X^T + tr Q)``. Averaged over permutations inside groups, Q is completely
    positive iff that is so on group indicators, and if on what sums to zero within a group it is
    at most its diagonal there (docs/theory.md section 5). Both are in `Axes`. All decays are their
    geometric mean. Points (B, P) hold (left, right, spread, bias), scaled to similar curvatures.

    Parameters
    ----------
    problem : Problem
        Non-negative features, one layer.
    partition : Partition
        Classes of a group share logits; with every class alone there are no spreads.
    width : int
        Number of axes r.
    """

    def __init__(self, problem: Problem, partition: Partition, width: int) -> None:
        self.problem, self.partition, self.width = problem, partition, width
        p, g = partition, partition.num_groups
        self.decay, self.root = problem.mean_decay, np.sqrt(p.counts)
        self.fit = problem.loss_object.datafit(p)
        self.many = np.flatnonzero(p.sizes > 1)
        self.siblings = p.sizes[self.many] - 1
        self.means_scale = 1 / np.sqrt(p.sizes)
        self.spread_scale = 1 / np.sqrt(self.siblings * self.root[self.many])
        self.bias_scale = 1 / np.sqrt(p.sizes * (1 + problem.bias_decay))
        self.cuts = np.cumsum((g * width, g * width, len(self.many), g * (problem.bias != "none")))

    @property
    def held(self) -> slice:
        """Where points hold what is not negative."""
        return slice(*self.cuts[[0, 2]])

    def split(self, x: Array) -> tuple[Array, Array, Array, Array]:
        """Return left (B, G, r), right (B, G, r), spread (B, groups of many) and bias (B, G)."""
        shape = (len(x), self.partition.num_groups, self.width)
        u, v, spread, bias = np.split(x, self.cuts[:-1], axis=1)
        bias = bias * self.bias_scale if bias.shape[1] else np.zeros(shape[:2])
        v = v.reshape(shape) * self.means_scale[:, None]
        return u.reshape(shape), v, spread * self.spread_scale, bias

    def axes(self, points: Array) -> Axes:
        """Return the parts of a point (1, P)."""
        u, v, some, bias = (part[0] for part in self.split(points))
        spread = np.ones(self.partition.num_groups)
        spread[self.many] = some
        return Axes(u, v, spread, bias)

    def point(self, axes: Axes) -> Array:
        """Return the point (1, P), the inverse of `axes`."""
        v = axes.right / self.means_scale[:, None]
        parts = [axes.left.ravel(), v.ravel(), axes.spread[self.many] / self.spread_scale]
        if self.problem.bias != "none":
            parts.append(axes.bias / self.bias_scale)
        return np.concatenate(parts)[None]

    def _scores(self, u: Array, v: Array, spread: Array, bias: Array) -> tuple[Array, ...]:
        """Return within, scores, and the diagonal of Q, of groups of many, for a batch."""
        squares = np.square(v[:, self.many]).sum(axis=2)
        within = np.zeros(v.shape[:2])
        within[:, self.many] = spread * squares / self.root[self.many]
        mean = u @ v.transpose(0, 2, 1) / self.partition.scale
        return within, mean + bias[:, :, None], squares

    def residual(self, points: Array) -> BlockMatrix:
        """Return the residual of a point (1, P)."""
        within, scores, _ = self._scores(*self.split(points))
        return self.fit.residual(within[0], scores[0])

    def slopes(self, points: Array) -> tuple[Array, Array]:
        """Return the gradient in X at a point over the decay: on groups (G, G), within them (G,).

        As `theory.orthant` takes them.
        """
        p, residual = self.partition, self.residual(points)
        scale = self.decay * p.num_samples
        return residual.reduced / scale, residual.within * self.root / scale

    def __call__(self, x: Array) -> tuple[Array, Array]:
        """Return the objective, shape (B,), and its gradient, shape (B, P)."""
        p, mu = self.partition, self.decay
        u, v, spread, bias = self.split(x)
        within, scores, squares = self._scores(u, v, spread, bias)
        if len(self.many):
            values, residual = self.fit.values(within, scores), self.fit.residual(within, scores)
        else:
            values, mean = self.fit.values_and_residuals(scores)
            residual = BlockMatrix(p, within, mean)
        slope = residual.reduced / p.num_samples
        over = np.maximum(spread - 1, 0.0)
        cost = 2 * spread + over**2
        pull = residual.within[:, self.many] * self.root[self.many] / p.num_samples
        by_spread = self.siblings * squares * (pull + mu * (1 + over))
        by_squares = np.zeros(v.shape[:2])
        by_squares[:, self.many] = self.siblings * (pull * spread + mu / 2 * cost)
        by_v = slope.transpose(0, 2, 1) @ u + (mu + 2 * by_squares)[:, :, None] * v
        gradients = [
            (slope @ v + mu * u).reshape(len(x), -1),
            (by_v * self.means_scale[:, None]).reshape(len(x), -1),
            by_spread * self.spread_scale,
        ]
        total = np.einsum("bkr,bkr->b", u, u) + np.einsum("bkr,bkr->b", v, v)
        values = values + mu / 2 * (total + (squares * cost) @ self.siblings)
        if self.problem.bias != "none":
            decayed = self.problem.bias_decay * bias
            gradients.append(self.bias_scale * p.sizes * (residual.row_average + decayed))
            values = values + ((decayed * bias) @ p.sizes) / 2
        return values, np.concatenate(gradients, axis=1)

    def curvature(self, x: Array) -> Callable[[Array], Array]:
        """Return the product of the Hessian at a point (P,) with a vector."""
        p, mu, many = self.partition, self.decay, self.many
        u, v, spread, bias = self.split(x[None])
        within, scores, squares = (part[0] for part in self._scores(u, v, spread, bias))
        u, v, spread = u[0], v[0], spread[0]
        found = self.fit.derivatives(within, scores)
        g, scale, root = found.by_score / p.scale, p.scale, self.root[many]
        pull, over = found.by_margin[many] / root, np.maximum(spread - 1, 0.0)
        decays, slow = self.siblings * mu, self.siblings * mu * (1 + over)
        by_squares = np.zeros(p.num_groups)
        by_squares[many] = pull * spread + decays / 2 * (2 * spread + over**2)

        def product(d: Array) -> Array:
            du, dv, d_spread, db = (part[0] for part in self.split(d[None]))
            d_squares = 2 * (v[many] * dv[many]).sum(axis=1)
            d_within = np.zeros(p.num_groups)
            d_within[many] = (d_spread * squares + spread * d_squares) / root
            d_scores = (du @ v.T + u @ dv.T) / scale + db[:, None]
            margin, slope = found.curvature(d_within, d_scores)
            dg, d_pull = slope / scale, margin[many] / root
            d_by_squares = np.zeros(p.num_groups)
            d_by_squares[many] = d_pull * spread + d_spread * (pull + slow)
            by_v = dg.T @ u + g.T @ du + (mu + 2 * by_squares)[:, None] * dv
            by_v += 2 * d_by_squares[:, None] * v
            by_spread = d_squares * (pull + slow) + squares * (
                d_pull + decays * (spread > 1) * d_spread
            )
            parts = [
                (dg @ v + g @ dv + mu * du).ravel(),
                (by_v * self.means_scale[:, None]).ravel(),
                by_spread * self.spread_scale,
            ]
            if self.problem.bias != "none":
                by_bias = slope.sum(axis=1) + self.problem.bias_decay * p.sizes * db
                parts.append(self.bias_scale * by_bias)
            return np.concatenate(parts)

        return product
