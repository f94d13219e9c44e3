"""The network scaled neuron by neuron: its objective in terms of the last layer alone, minimised.

What is proven of it and what is a model is derived in docs/theory.md, section 9.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tightframe.geometry.blocks import Array
from tightframe.heads.ridge import RidgeProblem

#: Neurons with a classifier column below this share of the largest are switched off.
DEAD_NEURON = 1e-3

#: Least singular value of the classifier that a direction of the logits is priced with, as a share
#: of the largest: a direction that is gone would have no price.
LEAST_DIRECTION = 0.02

MAX_ITERATIONS = 1500

#: Where L-BFGS stops: steps that gain this share of the objective move margins by less than .01.
_STOP = {
    "maxiter": MAX_ITERATIONS,
    "maxfun": 2 * MAX_ITERATIONS,
    "maxcor": 20,
    "gtol": 1e-6,
    "ftol": 1e-7,
}


@dataclass(frozen=True, eq=False)
class Scales:
    """What the network may do: scale its neurons and what is below them, and move its head.

    With ones, the head's columns and the identity it is the network as it is.

    Attributes
    ----------
    neurons : ndarray, shape (D,)
        Factors s_j of the neurons' incoming weights and biases.
    head : ndarray, shape (K, D)
        The columns u_j of the head's weight.
    bias : ndarray, shape (K,)
    below : ndarray, shape (K, K), (1, 1) or (0, 0)
        P, by which the one lower layer scales the directions of the logits, symmetric; or one
        number, by which each of the lower layers scales all; nothing where there are none.
    """

    neurons: Array
    head: Array
    bias: Array
    below: Array

    def weight(self, layers: int) -> Array:
        """Return the effective head, which multiplies the present features.

        Its columns are ``P u_j s_j``, with the number to the power of the lower layers.
        """
        return _scaled(self.below, layers - 2, self.head * self.neurons)


@dataclass(frozen=True, eq=False)
class Fitted:
    """Where the minimisation of a model ended.

    Attributes
    ----------
    scales : Scales
    objective : float
        The model's value there.
    gradient : float
        Largest entry of its gradient.
    converged : bool
    iterations : int
    """

    scales: Scales
    objective: float
    gradient: float
    converged: bool
    iterations: int


@dataclass(frozen=True, eq=False)
class NeuronModel:
    """The objective of a network that scales its neurons and the layers below, see `Scales`.

    Parameters
    ----------
    loss : RidgeProblem
        Of the head on the network's features, without a ridge.
    weight : ndarray, shape (K, D)
        The trained head: it sets the prices of the neurons, `prices`.
    weight_decay : float
        Of the network that is asked about.
    layers : int
        Weight matrices of the whole network, at least 2.
    directions : bool
        Whether the layer below scales every direction of the logits separately (the matrix model),
        or all alike. With three layers only: of several matrices, which need not commute, a product
        can be large where their prices are small.

    Raises
    ------
    ValueError
        If directions are to be scaled in a network that has not three layers.
    """

    loss: RidgeProblem
    weight: Array
    weight_decay: float
    layers: int
    directions: bool = False

    def __post_init__(self) -> None:
        if self.directions and self.layers != 3:
            raise ValueError(f"directions: got {self.layers} layers, need 3")

    @property
    def prices(self) -> Array:
        """Norms of the head's columns, shape (D,).

        At a stationary point they are those of the neurons' incoming weights and biases too.
        """
        norms: Array = np.linalg.norm(self.weight, axis=0)
        return norms

    @property
    def squares(self) -> Array:
        """What the lower layers cost by direction, shape like `Scales.below`.

        ``W W^T``, no singular value of W below `LEAST_DIRECTION` of the largest; its trace where
        all are scaled alike.
        """
        if self.layers == 2:
            return np.zeros((0, 0))
        gram = self.weight @ self.weight.T
        if not self.directions:
            return np.full((1, 1), np.trace(gram))
        values, turn = np.linalg.eigh(gram)
        least = LEAST_DIRECTION**2 * values.max()
        squares: Array = (turn * np.maximum(values, least)) @ turn.T
        return squares

    def start(self, bias: Array | None) -> Scales:
        """Return the network as it is."""
        own = np.zeros(len(self.weight)) if bias is None else bias
        below = np.eye(len(self.squares))
        return Scales(np.ones(self.weight.shape[1]), self.weight, own, below)

    def evaluate(self, scales: Scales) -> tuple[float, Scales]:
        """Return the objective and its gradient by every part of the scales."""
        return _Objective(self)(scales)

    def share(self, weight: Array) -> float:
        """Return T / A: what the neurons cost at an effective head, over what they cost now."""
        prices = self.prices
        cost = float(prices @ np.linalg.norm(weight, axis=0))
        return cost / float(prices @ prices)

    def least(self, weight: Array, bias: Array) -> float:
        """Return the objective at an effective head, at the best scales where all below are alike.

        That is the formula ``loss + weight_decay ((L/2) A (T/A)^(2/L) + ||b||^2 / 2)`` with
        ``T = sum_j a_j ||U_j||``, prices ``a_j`` and ``A = ||W||_F^2``.
        """
        cost = float(np.vdot(self.weight, self.weight))
        cost *= float(self.share(weight) ** (2 / self.layers))
        cost = cost * self.layers / 2 + float(bias @ bias) / 2
        return _loss(self.loss, weight, bias)[0] + self.weight_decay * cost

    def fit(self, bias: Array | None) -> Fitted:
        """Minimise by L-BFGS from the network as it is; its bias stays away where it has none."""
        from scipy.optimize import minimize

        prices = self.prices
        alive = prices > DEAD_NEURON * prices.max()
        model = replace(
            self,
            loss=replace(self.loss, features=np.ascontiguousarray(self.loss.features[:, alive])),
            weight=np.ascontiguousarray(self.weight[:, alive]),
        )
        objective, first = _Objective(model), model.start(bias)
        kept = [first.neurons, first.head, first.below] + ([] if bias is None else [first.bias])
        shapes, ends = [part.shape for part in kept], np.cumsum([part.size for part in kept])

        def unpacked(x: Array) -> Scales:
            parts = [
                part.reshape(shape)
                for part, shape in zip(np.split(x, ends[:-1]), shapes, strict=True)
            ]
            neurons, head, below, *rest = parts
            return Scales(neurons, head, rest[0] if rest else first.bias, below)

        def function(x: Array) -> tuple[float, Array]:
            value, by = objective(unpacked(x))
            parts = [by.neurons, by.head, by.below] + ([] if bias is None else [by.bias])
            return value, np.concatenate([part.ravel() for part in parts])

        minimize_it: Any = (
            minimize  # its overloads do not know a jacobian that comes with the value
        )
        found = minimize_it(
            function,
            np.concatenate([part.ravel() for part in kept]),
            jac=True,
            method="L-BFGS-B",
            options=_STOP,
        )
        ended = unpacked(found.x)
        neurons, head = np.zeros_like(prices), np.zeros_like(self.weight)
        neurons[alive], head[:, alive] = ended.neurons, ended.head
        return Fitted(
            replace(ended, neurons=neurons, head=head),
            float(found.fun),
            float(np.abs(found.jac).max()),
            found.status == 0,
            int(found.nit),
        )


class _Objective:
    """The objective of a model and its gradient; what does not change is computed once."""

    def __init__(self, model: NeuronModel) -> None:
        self._loss, self._decay, self._below = model.loss, model.weight_decay, model.layers - 2
        self._prices, self._squares = model.prices**2, model.squares

    def __call__(self, scales: Scales) -> tuple[float, Scales]:
        columns, below = scales.head * scales.neurons, scales.below
        weight = _scaled(below, self._below, columns)
        loss, by_weight, by_bias = _loss(self._loss, weight, scales.bias)
        cost = float(self._prices @ scales.neurons**2) + float(np.vdot(scales.head, scales.head))
        cost += float(scales.bias @ scales.bias)
        priced = self._squares @ below
        cost += self._below * float(np.vdot(below, priced))
        by_below = self._below * self._decay * (priced + priced.T) / 2
        if len(below) == 1:
            rate = self._below * float(below[0, 0]) ** (self._below - 1)
            by_below += rate * float(np.vdot(by_weight, columns))
        elif len(below):
            pull = by_weight @ columns.T
            by_below += (pull + pull.T) / 2
        passed = _scaled(below, self._below, by_weight)
        gradient = Scales(
            (passed * scales.head).sum(axis=0) + self._decay * self._prices * scales.neurons,
            passed * scales.neurons + self._decay * scales.head,
            by_bias + self._decay * scales.bias,
            by_below,
        )
        return loss + self._decay / 2 * cost, gradient


def _loss(problem: RidgeProblem, weight: Array, bias: Array) -> tuple[float, Array, Array]:
    """Return a loss and its gradients by weight and bias."""
    if not problem.bias:
        value, gradient = problem.value_and_gradient(weight)
        return value, gradient, np.zeros_like(bias)
    value, gradient = problem.value_and_gradient(np.column_stack([weight, bias]))
    return value, gradient[:, :-1], gradient[:, -1]


def _scaled(below: Array, layers: int, columns: Array) -> Array:
    """Return columns (K, D) as the lower layers scale them."""
    if not len(below):
        return columns
    scaled: Array = float(below[0, 0]) ** layers * columns if len(below) == 1 else below @ columns
    return scaled
