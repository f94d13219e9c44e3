"""The optimisation landscape of the factored problem: gradients, curvature, saddles, descent.

The function studied is the objective over the classifier W (K x d), the class means H (d x K) and
the bias b (K), every sample at its class mean (real features, any counts):

    F(W, H, b) = f(W H + b 1^T) + (weight_decay / 2) ||W||^2
                 + (feature_decay / 2) sum_k n_k ||h_k||^2 + (bias_decay / 2) ||b||^2

Several layers have ``W_M ... W_1`` in place of W, each with its own decay.

**Coordinates.** All gradients, operators and vectors here use ``V = H D^{1/2}`` in place of H
(column k is ``sqrt(n_k) h_k``), in the order ``x = (W row by row, V row by row, b)``, without b
for ``bias="none"``: ``2 K d`` or ``2 K d + K`` numbers. Several layers stand in W's place, the
classifier's first: ``(W_M, ..., W_1, V, b)``. In these coordinates ``||V||^2`` is the
squared length of all N features, so that F's Hessian is the Hessian of the problem over all
samples' features restricted to collapsed features. That restriction is an invariant subspace: the
remaining eigenvalues of the full Hessian, on features that differ within a class k, are those of
``W^T C_k W / N + feature_decay I`` (C_k the loss's curvature), each ``n_k - 1`` times. They are at
least ``feature_decay``, so every direction of descent is a collapsed one.

**Which critical points are global.** With ``G = (1/N) R D^{1/2}`` the gradient of f in
``X = W V`` and ``lambda = sqrt(weight_decay feature_decay)``: a critical point is a global
minimiser iff ``||G||_op <= lambda``. Otherwise a unit vector a with ``W a = 0`` and ``a^T V = 0``
gives a direction of curvature ``-2 (||G||_op - lambda)`` (docs/theory.md section 4; Zhu et al.
2021, arXiv 2105.02375, for balanced counts and d > K). Such an a exists at EVERY critical point
that is not global as soon as d >= K. Proof: at a critical point ``weight_decay W^T W =
feature_decay V V^T``, so that W and V have the same null directions a, and ``W = c U S R^T``,
``V = R S Q^T / c`` with ``U^T G = -lambda Q^T``; without a null direction d = K and U is square,
so ``G = -lambda U Q^T`` and ``||G||_op = lambda``. For cross-entropy (``1^T G = 0 = 1^T U``) and
for MSE with a free bias (``G D^{1/2} 1 = 0``) the same argument serves d = K - 1. Narrower
problems may have local minima; there the Hessian tells, see `tightframe.landscape.symmetry`.
So it does with several layers at any width: the origin is a local minimum there, as its Hessian is
that of the decays. Global ones are told only where a bound certifies them (docs/theory.md
section 5).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from tightframe.checks import positive_float
from tightframe.geometry.blocks import Array
from tightframe.landscape.critical import CriticalPoint, Direction, classify, escape
from tightframe.landscape.curvature import Objective, operator
from tightframe.landscape.descent import (
    DEFAULTS,
    Descent,
    DescentOptions,
    follow_down,
    restricted_minimiser,
)
from tightframe.landscape.point import Point, check_problem, checked_widths
from tightframe.landscape.symmetry import require_few_tangents
from tightframe.problem.problem import Problem
from tightframe.shown import record

if TYPE_CHECKING:
    from scipy.sparse.linalg import LinearOperator


@record
class Landscape:
    """F of one problem at one width, with all that can be asked of it.

    Every method takes points as `Point` (or a tuple of classifier, class means and bias) and checks
    their shapes; gradients and operators are in the coordinates ``(W, H D^{1/2}, b)``.

    Parameters
    ----------
    problem : Problem
        Real features; any number of linear layers, counts, loss and bias.
    dim : int, optional
        Width d, of all layers; ``problem.dim`` or K if omitted.
    options : DescentOptions, optional
        What local minimisations may cost.

    Attributes
    ----------
    problem : Problem
    dim : int or tuple of int
        One number a layer where they differ, the features' first.
    size : int
        Length of gradients: ``2 K d``, with a bias ``2 K d + K``, and the inner layers' numbers.

    Raises
    ------
    ValueError
        If the problem has non-negative features, ``dim`` is not the problem's, or several layers
        are so wide that their symmetries cannot be written out.

    Examples
    --------
    At the origin the Hessian of MSE without bias is ``(dW, dV) -> (G dV^T, dW^T G)`` plus the
    decays, ``G = -D^{1/2} / N``: with equal decays its least eigenvalue is
    ``decay - sqrt(n_max) / N``.

    >>> import numpy as np
    >>> from tightframe.landscape import smallest_eigenpair
    >>> problem = Problem("9,4,3", "mse", weight_decay=0.01, feature_decay=0.01)
    >>> landscape = Landscape(problem)
    >>> origin = Point(np.zeros((3, 3)), np.zeros((3, 3)))
    >>> pair = smallest_eigenpair(landscape.hessian(origin))
    >>> abs(pair.value - (0.01 - 3 / 16)) < 1e-12
    True
    >>> landscape.descend(origin).converged
    True
    """

    def __init__(
        self, problem: Problem, dim: int | None = None, options: DescentOptions = DEFAULTS
    ) -> None:
        check_problem(problem)
        widths = checked_widths(problem, dim)
        self._options = options
        self._f = Objective(problem, widths)
        self.problem, self.dim = problem, widths[0] if len(set(widths)) == 1 else widths
        self.size = len(self._f.tilt)
        require_few_tangents(widths, self.size)

    def objective(self, point: Point) -> float:
        """Return F(W, H, b) (nats for cross-entropy)."""
        return self._f.value(self._enter(point))

    def gradient(self, point: Point) -> Array:
        """Return F's gradient in the coordinates ``(W, H D^{1/2}, b)``, shape (size,).

        ``(G V^T + weight_decay W, W^T G + feature_decay V, G D^{1/2} 1 + bias_decay b)``,
        ``V = H D^{1/2}`` and ``G = R D^{1/2} / N``, flattened row by row.
        """
        return self._f.gradient(self._enter(point))

    def hessian(self, point: Point) -> LinearOperator:
        """Return F's Hessian as a symmetric float64 operator.

        The matrix, in the coordinates ``(W, V, b)``, ``V = H D^{1/2}``, flattened row by row, is

            J^T C J + S + diag(weight_decay I, feature_decay I, bias_decay I)

        with J the derivative of the logits, ``J (dW, dV, db) = (dW V + W dV) D^{-1/2} + db 1^T``, C
        the loss's curvature, on column k ``(n_k / N) (diag(p_k) - p_k p_k^T)`` for cross-entropy
        and ``(n_k / N) I`` for MSE, and S the residual's part, ``S (dW, dV, db) = (G dV^T, dW^T G,
        0)``. A product costs six multiplications of K x d with d x K or K x K matrices.

        Returns
        -------
        scipy.sparse.linalg.LinearOperator
            Square, of shape (size, size).
        """
        return operator(self._f, self._enter(point))

    def gauss_newton(self, point: Point) -> LinearOperator:
        """Return the Gauss-Newton matrix with the decays.

        The matrix is that of `hessian` without the residual's part S:

            J^T C J + diag(weight_decay I, feature_decay I, bias_decay I).

        It is positive semi-definite, its eigenvalues at least the least decay. S links dW with dV
        only, so the two matrices agree in their diagonal blocks (W with W, V with V) and in all
        rows of the bias; they are equal iff ``G = 0``, that is where MSE is interpolated exactly,
        ``W H + b 1^T = I`` (for cross-entropy at infinite logits only).

        Returns
        -------
        scipy.sparse.linalg.LinearOperator
            Square, symmetric, float64.
        """
        return operator(self._f, self._enter(point), with_residual=False)

    def critical_point(self, point: Point, *, tol: float = 1e-6, seed: int = 0) -> CriticalPoint:
        """Tell global minimum, local minimum, strict saddle and non-critical point apart.

        Parameters
        ----------
        point : Point
        tol : float
            The point counts as critical up to a gradient of ``tol`` lambda, and as a global minimum
            up to ``||G||_op = (1 + tol) lambda``. The certified gap that comes with the verdict
            says what that leaves open.
        seed : int
            For `smallest_eigenpair`, where the explicit direction does not exist.

        Raises
        ------
        ValueError
            If shapes do not fit, or ``tol`` is not a positive number.
        """
        return classify(self._f, self._enter(point), positive_float("tol", tol), seed)

    def descent_direction(self, point: Point, *, seed: int = 0) -> Direction | None:
        """Return a direction of negative curvature, or None where none is found.

        With (u, v) the top singular pair of G, a unit vector a with ``W a = 0`` and ``a^T H = 0``,
        and ``c = (feature_decay / weight_decay)^{1/4}``:

            Delta_W = c u a^T,    Delta_H = -(1/c) a v^T D^{-1/2},    Delta_b = 0

        has curvature ``-2 (||G||_op - lambda)`` (docs/theory.md section 4), at critical and other
        points. Where no such a exists, the result is the unit eigenvector of the Hessian's smallest
        eigenvalue across the symmetries of F (see `CriticalPoint`), if that is negative by more
        than its error, and its ``kind`` says so. If ``||G||_op <= lambda`` the Hessian is positive
        semi-definite and there is no such direction.

        Parameters
        ----------
        point : Point
        seed : int
            For `smallest_eigenpair`.
        """
        return escape(self._f, self._enter(point), seed)

    def saddle(self, keep: int | Iterable[int], *, seed: int = 0) -> Point:
        """Return a critical point that uses part of the freedom only: in general a strict saddle.

        Parameters
        ----------
        keep : int or iterable of int
            A number r: F is minimised at width r and padded with zero directions, which leaves the
            gradient zero; ``keep=0`` is the origin, with the best bias. Or indices into
            ``problem.groups``: the classes of the other groups share one row of W, one mean and one
            bias; F is symmetric under their permutations, so a minimiser over these points is
            critical for F too.
        seed : int
            Seed of the minimisation's start.

        Returns
        -------
        Point
            Critical to 1e-6, else a `NotConvergedWarning` is given. It is the global minimum where
            the kept freedom suffices, for example if r is at least the minimiser's rank.

        Raises
        ------
        ValueError
            If ``keep`` is out of range.
        """
        return self._f.point(restricted_minimiser(self._f, keep, seed, self._options))

    def descend(
        self, start: Point, *, tol: float = 1e-6, seed: int = 0, max_stages: int | None = None
    ) -> Descent:
        """Descend from any start, for example a saddle, to the certified global minimum.

        From a strict saddle F is followed along its direction of negative curvature (the best of a
        geometric sequence of lengths), then minimised locally by trust-region Newton-CG; where that
        ends in another saddle, again. Along the explicit direction each round adds one direction to
        the features, so that the rank rises to that of the minimiser.

        Parameters
        ----------
        start : Point
            Its width d is kept; d >= K always leads to the minimum (see the module's text).
        tol : float
            As in `critical_point`.
        seed : int
            As in `critical_point`.
        max_stages : int, optional
            Local minimisations allowed; ``d + K`` if omitted.

        Returns
        -------
        Descent
            Not converged, after a `NotConvergedWarning`, if it ended elsewhere: a local minimum or
            an undecided point of a narrow problem, or too few stages. With several layers a local
            minimum is all that can be asked for.

        Raises
        ------
        ValueError
            As in `critical_point`.
        """
        x, tol = self._enter(start), positive_float("tol", tol)
        return follow_down(self._f, x, tol, seed, max_stages, self._options)

    def _enter(self, point: Point) -> Array:
        return self._f.enter(Point(*point))
