"""The objectives that a search minimises, on points that hold factors.

At a balanced point every layer is diagonal between the singular vectors, so M layers need one
matrix at each end and one number a direction in between: ``X = Z D^{1/2} = U diag(c)^{M-1} V^T`` at
cost ``mu/2 (||U||^2 + ||V||^2 + (M-1) ||c||^2)``. By Rotfel'd's inequality no choice of U, c and V
costs less than the singular values of X do, so nothing is lost.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from tightframe.geometry.blocks import Array, Partition, svd
from tightframe.problem.problem import Problem

#: Singular values and differences of class means below this share of the largest vanish at the
#: minimum that a descent approaches.
VANISHING = 1e-6


class Classes(NamedTuple):
    """What belongs to single classes in a batch of points, and what does not.

    Attributes
    ----------
    rows : ndarray, shape (B, K, r)
        The classifier's row of every class, as far as it is the class's own.
    means : ndarray, shape (B, K, r)
        The mean of every class: not scaled by its count, so that classes can change places.
    bias : ndarray, shape (B, K)
    shared : ndarray, shape (B, S)
        All else.
    """

    rows: Array
    means: Array
    bias: Array
    shared: Array


class Objective(Protocol):
    """What chains of local search need to know of a function: values, gradients, and its classes.

    Attributes
    ----------
    problem : Problem
    num_classes : int
    width : int
        Numbers of a class's row, and of its mean.
    signed : bool
        Whether rows and means may have entries of any sign.
    """

    problem: Problem
    num_classes: int
    width: int
    signed: bool

    def __call__(self, x: Array) -> tuple[Array, Array]:
        """Return the objective of points (B, P), shape (B,), and its gradient, shape (B, P)."""

    def is_small(self, accuracy: float, values: Array, gradients: Array) -> NDArray[np.bool_]:
        """Tell whether gradients are small enough for an accuracy."""

    def classes(self, x: Array) -> Classes:
        """Return what belongs to single classes; copies."""

    def from_classes(self, classes: Classes) -> Array:
        """Return the points (B, P), the inverse of `classes`."""


class Factors:
    """The objective of factors of one width, on points (B, P) that hold (U, V, c, bias) flattened.

    All decays are the geometric mean mu: rescaling the layers makes them so. c and the bias are
    scaled to curvatures like those of the rest.

    Parameters
    ----------
    problem : Problem
        Real features.
    width : int
        Columns of U and V.
    """

    signed = True

    def __init__(self, problem: Problem, width: int) -> None:
        self.problem, self.width = problem, width
        k = self.num_classes = problem.num_classes
        self.depth, self.decay = problem.depth, problem.mean_decay
        partition = Partition.singletons(problem)
        counts = partition.counts
        self.root, self.shares = np.sqrt(counts), counts / counts.sum()
        self.slope_scale = self.root / counts.sum()  # d(mean loss)/dX = residual times this
        self.fit = problem.loss_object.datafit(partition)
        self.middle_scale = math.sqrt(max(self.depth - 1, 1))
        self.bias_scale = 1 / math.sqrt(1 + problem.bias_decay)
        sizes = (k * width, k * width, width * (self.depth > 1), k * (problem.bias != "none"))
        self.cuts = np.cumsum(sizes)

    def split(self, x: Array) -> tuple[Array, Array, Array, Array]:
        """Return U (B, K, r), V (B, K, r), c (B, r; ones for one layer) and bias (B, K)."""
        shape = (len(x), self.num_classes, self.width)
        u, v, c, bias = np.split(x, self.cuts[:-1], axis=1)
        c = c / self.middle_scale if self.depth > 1 else np.ones((len(x), self.width))
        bias = bias * self.bias_scale if bias.shape[1] else np.zeros(shape[:2])
        return u.reshape(shape), v.reshape(shape), c, bias

    def join(self, left: Array, values: Array, right: Array, bias: Array) -> Array:
        """Return the balanced points of singular value decompositions and biases.

        Parameters
        ----------
        left, right : ndarray, shape (B, K, r)
        values : ndarray, shape (B, r)
        bias : ndarray, shape (B, K)
        """
        lengths = values ** (1 / (self.depth + 1))
        parts = [
            (left * lengths[:, None]).reshape(len(left), -1),
            (right * lengths[:, None]).reshape(len(left), -1),
        ]
        if self.depth > 1:
            parts.append(lengths * self.middle_scale)
        if self.problem.bias != "none":
            parts.append(bias / self.bias_scale)
        return np.concatenate(parts, axis=1)

    def classes(self, x: Array) -> Classes:
        """Return what belongs to single classes; c, as points hold it, is shared."""
        u, v, _, bias = self.split(x)
        shared = x[:, self.cuts[1] : self.cuts[2]]
        return Classes(u.copy(), v / self.root[:, None], bias.copy(), shared.copy())

    def from_classes(self, classes: Classes) -> Array:
        """Return the points (B, P), the inverse of `classes`."""
        rows, means, bias, shared = classes
        v = means * self.root[:, None]
        parts = [rows.reshape(len(rows), -1), v.reshape(len(rows), -1), shared]
        if self.problem.bias != "none":
            parts.append(bias / self.bias_scale)
        return np.concatenate(parts, axis=1)

    def products(self, x: Array) -> Array:
        """Return ``X = Z D^{1/2}``, shape (B, K, K)."""
        u, v, c, _ = self.split(x)
        product: Array = (u * (c ** (self.depth - 1))[:, None]) @ v.transpose(0, 2, 1)
        return product

    def decompose(self, x: Array) -> tuple[Array, Array, Array, Array]:
        """Return left (B, K, r), values (B, r), right (B, K, r) of X, and the bias (B, K)."""
        u, v, c, bias = self.split(x)
        left, values, right = _thin_svd(u * (c ** (self.depth - 1))[:, None], v)
        return left, values, right, bias

    def ranks(self, values: Array) -> NDArray[np.intp]:
        """Return the number of singular values (B, r) that do not vanish, shape (B,)."""
        limit = VANISHING * np.maximum(values[:, :1], self.root.min())
        ranks: NDArray[np.intp] = (values > limit).sum(axis=1)
        return ranks

    def is_small(self, accuracy: float, values: Array, gradients: Array) -> NDArray[np.bool_]:
        """Tell whether gradients are small enough for an accuracy."""
        squares = np.einsum("bi,bi->b", gradients, gradients)
        small: NDArray[np.bool_] = squares <= accuracy * self.decay * values
        return small

    def __call__(self, x: Array) -> tuple[Array, Array]:
        """Return the objective, shape (B,), and its gradient, shape (B, P)."""
        u, v, c, bias = self.split(x)
        m, mu = self.depth, self.decay
        strength = c ** (m - 1)
        product = (u * strength[:, None]) @ v.transpose(0, 2, 1)
        values, residual = self.fit.values_and_residuals(product / self.root + bias[:, :, None])
        slope = residual * self.slope_scale
        by_left = slope @ v
        gradients = [
            (by_left * strength[:, None] + mu * u).reshape(len(x), -1),
            ((slope.transpose(0, 2, 1) @ u) * strength[:, None] + mu * v).reshape(len(x), -1),
        ]
        squares = np.einsum("bkr,bkr->b", u, u) + np.einsum("bkr,bkr->b", v, v)
        if m > 1:
            by_strength = np.einsum("bkr,bkr->br", u, by_left)
            gradients.append(self.middle_scale * (by_strength * c ** (m - 2) + mu * c))
            squares += (m - 1) * np.einsum("br,br->b", c, c)
        values = values + mu / 2 * squares
        if self.problem.bias != "none":
            bias_decay = self.problem.bias_decay
            gradients.append(self.bias_scale * (residual @ self.shares + bias_decay * bias))
            values += bias_decay / 2 * np.einsum("bk,bk->b", bias, bias)
        return values, np.concatenate(gradients, axis=1)

    def hessian(self, x: Array) -> Array:
        """Return the second derivatives at one point (1, P), shape (P, P)."""
        u, v, c, bias = (part[0] for part in self.split(x))
        m, k, r = self.depth, self.num_classes, self.width
        powers = [
            c ** (m - 1),
            (m - 1) * c ** max(m - 2, 0),
            (m - 1) * (m - 2) * c ** max(m - 3, 0),
        ]
        strength, first, second = powers
        h = v / self.root[:, None]  # logits of class i: U (strength * h_i) + bias
        scores = (u * strength) @ h.T + bias[:, None]
        found = self.fit.derivatives(np.zeros(k), scores)
        # The losses of two columns share no logit: K directions give all second derivatives.
        rows = np.broadcast_to(np.eye(k)[:, :, None], (k, k, k))
        bends = found.curvature(np.zeros((k, k)), rows)[1].transpose(2, 0, 1)  # (column, row, row)
        slope = found.by_score
        inner, stronger, tilted = h * strength, u * strength, h * first
        by_right = bends @ stronger  # (column, row, r)
        by_middle = bends @ u
        pull = slope.T @ u  # (column, r)
        eye, mu = np.eye(r), self.decay

        def shaped(block: Array, height: int) -> Array:
            return block.reshape(height, -1)

        uu = np.einsum("ia,ib,ijl->jalb", inner, inner, bends, optimize=True)
        uv = np.einsum("ia,ijb->jaib", inner, by_right)
        uv += np.einsum("ji,a,ab->jaib", slope, strength, eye)
        vv = np.zeros((k, r, k, r))
        own = np.arange(k)
        vv[own, :, own, :] = stronger.T @ by_right
        uc = np.einsum("ia,ijb,ib->jab", inner, by_middle, tilted, optimize=True)
        uc += np.einsum("ja,ab->jab", slope @ tilted, eye)
        vc = np.einsum("iab,ib->iab", stronger.T @ by_middle, tilted)
        vc += np.einsum("ia,a,ab->iab", pull, first, eye)
        cc = np.einsum("ia,iab,ib->ab", tilted, u.T @ by_middle, tilted, optimize=True)
        cc += np.diag(second * (h * pull).sum(axis=0) + (m - 1) * mu)
        ub = np.einsum("ia,ijl->jal", inner, bends)
        vb = by_right.transpose(0, 2, 1)
        cb = np.einsum("ia,ila->al", tilted, by_middle)
        bb = bends.sum(axis=0) + self.problem.bias_decay * np.eye(k)

        wide, by_root = k * r, (1 / np.repeat(self.root, r))
        uu, uv = shaped(uu, wide) + mu * np.eye(wide), shaped(uv, wide) * by_root
        vv = shaped(vv, wide) * by_root * by_root[:, None] + mu * np.eye(wide)
        uc, vc = shaped(uc, wide), shaped(vc, wide) * by_root[:, None]
        ub, vb = shaped(ub, wide), shaped(vb, wide) * by_root[:, None]
        blocks = [[uu, uv, uc, ub], [uv.T, vv, vc, vb], [uc.T, vc.T, cc, cb]]
        blocks.append([ub.T, vb.T, cb.T, bb])
        kept = [True, True, m > 1, self.problem.bias != "none"]
        hessian: Array = np.block(
            [
                [block for block, is_in in zip(row, kept, strict=True) if is_in]
                for row, is_in in zip(blocks, kept, strict=True)
                if is_in
            ]
        )
        sizes = np.diff(self.cuts, prepend=0)
        scale = np.repeat([1.0, 1.0, 1 / self.middle_scale, self.bias_scale], sizes)
        hessian *= scale * scale[:, None]
        return hessian

    def objective(self, x: Array) -> float:
        """Return the objective of the logits of one point (1, P) with their cheapest factors."""
        _, values, _, bias = self.decompose(x)
        m, scores = self.depth, self.products(x) / self.root + bias[:, :, None]
        cost = (m + 1) / 2 * self.decay * float((values ** (2 / (m + 1))).sum())
        bias_cost = self.problem.bias_decay / 2 * float((bias**2).sum())
        return float(self.fit.values_and_residuals(scores)[0][0]) + cost + bias_cost


class FixedRank:
    """The objective on ``X = s U V^T`` of full rank, on points (B, P) that hold (U, V, bias).

    Smooth only while no singular value vanishes, but well conditioned: `Factors` has flat valleys
    where singular values nearly agree.

    Parameters
    ----------
    f : Factors
        Its width is the rank.
    scale : float
        The number s; as large as X, it makes curvatures as large as those of `Factors`.
    """

    def __init__(self, f: Factors, scale: float) -> None:
        self.f, self.scale = f, scale

    def enter(self, x: Array) -> Array:
        """Return the point of this class for one of `Factors`."""
        left, values, right, bias = self.f.decompose(x)
        lengths = np.sqrt(values / self.scale)[:, None]
        parts = [(left * lengths).reshape(len(x), -1), (right * lengths).reshape(len(x), -1)]
        if self.f.problem.bias != "none":
            parts.append(bias / self.f.bias_scale)
        return np.concatenate(parts, axis=1)

    def leave(self, y: Array) -> Array:
        """Return the balanced point of `Factors`; the inverse of `enter`."""
        u, v, bias = self._split(y)
        left, values, right = _thin_svd(u, v)
        return self.f.join(left, self.scale * values, right, bias)

    def _split(self, y: Array) -> tuple[Array, Array, Array]:
        shape = (len(y), self.f.num_classes, self.f.width)
        u, v, bias = np.split(y, self.f.cuts[:2], axis=1)
        bias = bias * self.f.bias_scale if bias.shape[1] else np.zeros(shape[:2])
        return u.reshape(shape), v.reshape(shape), bias

    def __call__(self, y: Array) -> tuple[Array, Array]:
        """Return the objective, shape (B,), and its gradient, shape (B, P)."""
        f, power = self.f, 2 / (self.f.depth + 1)
        u, v, bias = self._split(y)
        product = self.scale * (u @ v.transpose(0, 2, 1))
        values, residual = f.fit.values_and_residuals(product / f.root + bias[:, :, None])
        left, sigma, right = _thin_svd(u, v)
        sigma = self.scale * sigma
        slope = residual * f.slope_scale
        slope += f.decay * (left * sigma[:, None] ** (power - 1)) @ right.transpose(0, 2, 1)
        slope *= self.scale
        gradients = [
            (slope @ v).reshape(len(y), -1),
            (slope.transpose(0, 2, 1) @ u).reshape(len(y), -1),
        ]
        values = values + f.decay / power * (sigma**power).sum(axis=1)
        if f.problem.bias != "none":
            bias_decay = f.problem.bias_decay
            gradients.append(f.bias_scale * (residual @ f.shares + bias_decay * bias))
            values += bias_decay / 2 * np.einsum("bk,bk->b", bias, bias)
        return values, np.concatenate(gradients, axis=1)


def _thin_svd(u: Array, v: Array) -> tuple[Array, Array, Array]:
    """Return left (B, K, r), values (B, r) and right (B, K, r) of ``U V^T``, (B, K, r) each.

    Through the thin factors: of their product, rounding would make up small singular values.
    """
    q, r = np.linalg.qr(u)
    p, s = np.linalg.qr(v)
    core = r @ s.transpose(0, 2, 1)
    left, values, right = svd(core)
    return q @ left, values, p @ right.transpose(0, 2, 1)
