"""What metrics are measured of: class moments, a classifier, and whatever else was given."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tightframe.geometry.dense import Geometry
from tightframe.geometry.grouped import GroupedGeometry
from tightframe.metrics.angles import (
    CosineStatistics,
    KernelStatistics,
    cosine_statistics,
    uniformity,
)
from tightframe.metrics.decisions import Decisions
from tightframe.metrics.frames import distance
from tightframe.metrics.inputs import as_array
from tightframe.metrics.readings import Readings
from tightframe.metrics.registry import Descriptor
from tightframe.metrics.rows import Rows
from tightframe.metrics.snapshot import Snapshot
from tightframe.metrics.tall import Matrix, dense, row_blocks, select
from tightframe.metrics.targets import restrict
from tightframe.metrics.variability import NC1Details, nc1, nc1_details
from tightframe.problem.problem import Problem
from tightframe.saved import kept

Goal = Geometry | GroupedGeometry | str


@dataclass(frozen=True, eq=False)
class Directed:
    """Vectors whose norms and angles are measured."""

    vectors: Any  # rows (K, D), or `Rows`

    @cached_property
    def cosines(self) -> CosineStatistics:
        """`cosine_statistics`."""
        return cosine_statistics(self.vectors)

    @cached_property
    def uniformity(self) -> KernelStatistics:
        """`uniformity`."""
        return uniformity(self.vectors)


@kept
@dataclass(frozen=True, eq=False)
class Vectors:
    """Class means and classifier, all that frames and angles are measured of.

    Attributes
    ----------
    kept : Tensor
        Classes that have samples.
    means : Tensor or Tall, of the classes kept
    centered : Rows, of the classes kept
    weight : Tensor, Tall or None, shape (K, D)
    missing : bool
        Whether there are classes without samples.
    """

    kept: Tensor
    means: Matrix
    centered: Rows
    weight: Matrix | None
    missing: bool

    def _packed(self) -> dict[str, Any]:
        return {
            "kept": self.kept,
            "means": dense(self.means),
            "centered": self.centered,
            "weight": None if self.weight is None else dense(self.weight),
            "missing": self.missing,
        }

    def distance(self, part: str, target: Goal) -> float:
        """Return the distance of a part to a target's, the classifier's for all classes."""
        if part == "classifier":
            return distance(self._classifier, self._classifier, target, part)
        left, right = self._sides[part]
        return distance(left, right, self._restricted(target), part)

    def directed(self, part: str) -> Directed:
        """Return classifier or centred means, to measure their norms and angles."""
        return self._directed[part]

    @cached_property
    def alignment(self) -> NDArray[np.float64]:
        """cos(w_k, mu_k - mu) of the classes where both have a direction."""
        weight, centered = self._kept_weight, self.centered.given
        parts = [slice(None)] if isinstance(centered, Tensor) else row_blocks(*centered.shape)
        cosines = torch.cat(
            [torch.cosine_similarity(weight[i], centered[i], dim=1, eps=0.0) for i in parts]
        )
        return as_array(cosines[torch.isfinite(cosines)])

    # -- inside ------------------------------------------------------------------------------------

    def _restricted(self, target: Goal) -> Goal:
        if not self.missing:
            return target
        if id(target) not in self._goals:
            self._goals[id(target)] = restrict(target, as_array(self.kept).astype(np.intp))
        return self._goals[id(target)]

    @cached_property
    def _goals(self) -> dict[int, Goal]:
        return {}

    @cached_property
    def _classifier(self) -> Rows:
        assert self.weight is not None
        return Rows(self.weight)

    @property
    def _kept_weight(self) -> Matrix:
        assert self.weight is not None
        return select(self.weight, self.kept)

    @cached_property
    def _sides(self) -> dict[str, tuple[Rows, Rows]]:
        means, centered = Rows(self.means), self.centered
        sides = {"means": (means, means), "centered_means": (centered, centered)}
        if self.weight is not None:
            weight = Rows(self._kept_weight) if self.missing else self._classifier
            sides |= {"logits": (weight, means), "centered_logits": (weight, centered)}
        return sides

    @cached_property
    def _directed(self) -> dict[str, Directed]:
        return {
            "classifier": Directed(None if self.weight is None else self._classifier),
            "centered_means": Directed(self.centered),
        }


@dataclass(frozen=True, eq=False)
class Source:
    """Everything that the metrics of `tightframe.metrics.registry` may ask for.

    Attributes
    ----------
    moments : Readings
        Of all classes.
    own : Snapshot
        Of the classes that have samples.
    weight, bias : Tensor or None
        Of all classes; the bias is zero where none was given.
    with_bias : bool
        Whether one was given.
    ranked : bool
        Whether the rank behind NC1 is wanted too.
    center : {"class", "sample"}
        The global mean that centred class means are less.
    """

    moments: Readings
    own: Snapshot
    weight: Matrix | None = None
    bias: Tensor | None = None
    with_bias: bool = False
    decisions: Decisions | None = None
    problem: Problem | None = None
    lower_bound: float | None = None
    ood: Any = None
    ranked: bool = True
    center: str = "class"

    def has(self, metric: Descriptor) -> bool:
        """Return whether everything is there that a metric needs, a target apart."""
        decisions = self.decisions
        given = {
            "scatter": self.own.scatter,
            "classifier": self.weight is not None,
            "features": decisions is not None,
            "labels": decisions is not None and not math.isnan(decisions.accuracy),
            "ood": self.ood is not None,
            "problem": self.problem is not None,
        }
        return all(given.get(need, True) for need in metric.needs)

    @cached_property
    def kept(self) -> Tensor:
        """Classes that have samples."""
        return torch.nonzero(self.moments.counts)[:, 0]

    @cached_property
    def vectors(self) -> Vectors:
        """Class means and classifier."""
        missing = self.own.num_classes < self.moments.num_classes
        centered = self.own.vectors_from(self.center)
        return Vectors(self.kept, self.own.means, centered, self.weight, missing)

    @property
    def kept_weight(self) -> Matrix:
        """The classifier's rows of the classes that have samples."""
        assert self.weight is not None
        return select(self.weight, self.kept)

    @property
    def nc1(self) -> float:
        """NC1; without its rank it may be had for less."""
        return self.details.value if self.ranked else nc1(self.own, center=self.center)

    @cached_property
    def details(self) -> NC1Details:
        """`nc1_details`."""
        return nc1_details(self.own, center=self.center)

    @property
    def given_bias(self) -> Tensor | None:
        """The bias, None where none was given."""
        return self.bias if self.with_bias else None
