"""What features, targets and a linear layer say of a regression, beside the predicted geometry."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tightframe.checks import number_of
from tightframe.figures.model import Bars, Chart
from tightframe.figures.table import Column, Table
from tightframe.metrics.regression import nrc1, nrc2, nrc3_details
from tightframe.relatives.regression import (
    RegressionCollapse,
    layer_of,
    layers_of,
    matrix_of,
    regression_collapse,
    targets_of,
)
from tightframe.saved import Saved
from tightframe.shown import Block, Shown, frame, plot
from tightframe.theory.certificate import Certificate

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]

#: Keys of the numbers, and what they are called.
NAMES = {
    "nrc1": "NRC1, features off their principal components",
    "nrc2": "NRC2, features off the rows of the layer",
    "nrc3": "NRC3, Gram matrix of the layer to that of the targets",
    "gamma": "constant of NRC3 that was fitted",
    "nrc1_centered": "NRC1 of centred features",
    "nrc2_centered": "NRC2 of centred features",
    "mean_squared_error": "squared error, summed over targets, mean over samples",
    "r_squared": "share of the targets' variance that is fitted",
}

#: The same of the prediction.
_PREDICTED = {
    "rank": "target directions that the features keep",
    "gamma_predicted": "constant of NRC3 at these decays",
    "gram_distance": "Gram matrix of the layer to the predicted one",
    "objective": "the network's objective at these decays",
    "lower_bound": "certified least objective",
    "gap": "the network's distance from it",
}

#: What a table of layers shows of each.
_OF_LAYERS = ("nrc1", "nrc2", "nrc3", "r_squared")


@dataclass(frozen=True, eq=False)
class RegressionReport(Shown, Saved):
    """NRC1 to NRC3 of one layer of a regression network, and how they compare with the prediction.

    Make one with `measure`, or with `tightframe.metrics.regression_report` for a network.

    Attributes
    ----------
    num_samples, num_targets, width : int
    numbers : dict of str to float
        ``nrc1``, ``nrc2``, ``nrc3``, ``gamma`` (fitted), ``nrc1_centered``, ``nrc2_centered``,
        ``mean_squared_error`` and ``r_squared``; they are attributes too. Of a hidden layer, which
        has no linear layer to the targets, ``nrc1``, ``nrc1_centered`` and the ``r_squared`` of
        least squares on its features (1 where there are as many features as samples), two of what
        Rangamani & Unal (2026, arXiv 2603.23805) follow below the last layer.
    prediction : RegressionCollapse or None
        If decays were given.
    gram_distance : float or None
        Of the last layer's Gram matrix from the predicted one, from 0 to 2; NaN if the prediction
        is that everything vanishes.
    certificate : Certificate or None
        Of the network's own factors: its objective, and how far that is from the minimum.
    notes : tuple of str
        What was decided in reading the network.
    """

    num_samples: int
    num_targets: int
    width: int
    numbers: dict[str, float]
    prediction: RegressionCollapse | None = None
    gram_distance: float | None = None
    certificate: Certificate | None = None
    notes: tuple[str, ...] = ()

    @classmethod
    def measure(
        cls,
        features: ArrayLike,
        targets: ArrayLike,
        weight: ArrayLike | Iterable[ArrayLike] | None = None,
        bias: ArrayLike | None = None,
        *,
        weight_decay: float | Iterable[float] | None = None,
        feature_decay: float | None = None,
        bias_kind: str | None = None,
        notes: Iterable[str] = (),
    ) -> RegressionReport:
        """Measure arrays.

        Parameters
        ----------
        features : array_like, shape (N, D)
        targets : array_like, shape (N, q) or (N,)
        weight : array_like, shape (q, D), or a sequence of layers, optional
            The linear layer, or several of a deep linear head, W_1 (next to the features) first:
            NRC2 is about the rows of their product, NRC3 about the last. None for a hidden layer.
        bias : array_like, shape (q,), optional
        weight_decay, feature_decay : float, optional
            Both or neither; see `tightframe.regression_collapse` for their convention. A sequence
            of weight decays has one a layer.
        bias_kind : {"free", "none"}, optional
            Of the prediction; by default free if there is a bias.
        notes : iterable of str
            To be kept with the report.

        Raises
        ------
        ValueError
            If an array is not what it should be, only one decay is given, or there are decays
            without a layer.

        Examples
        --------
        >>> targets = np.array([[2, 0.1], [-2, 0.1], [2, -0.1], [-2, -0.1]])
        >>> found = RegressionReport.measure(targets, targets, np.eye(2))
        >>> round(found.nrc1, 12), round(found.nrc3, 3), found.r_squared
        (0.0, 0.517, 1.0)
        """
        if (weight_decay is None) != (feature_decay is None):
            missing = "weight_decay" if weight_decay is None else "feature_decay"
            raise ValueError(f"{missing}: missing; give both decays or neither")
        h, y = matrix_of("features", features), targets_of(targets)
        if len(y) != len(h):
            raise ValueError(f"targets: got {number_of(len(y), 'row')}, features has {len(h)}")
        n, q, d = *y.shape, h.shape[1]
        if weight is None:
            for name, value in (("bias", bias), ("weight_decay", weight_decay)):
                if value is not None:
                    raise ValueError(f"{name}: got a value without weight, a hidden layer has none")
            return cls(n, q, d, _of_hidden(h, y), notes=tuple(notes))
        layers = _fitting(layers_of(weight), h, y)
        offset = None if bias is None else layer_of("bias", bias).reshape(-1)
        if offset is not None and len(offset) != q:
            raise ValueError(f"bias: got {len(offset)} entries, need {q}, one a target")
        numbers = _of_head(h, y, layers, offset)
        if weight_decay is None or feature_decay is None:
            return cls(n, q, d, numbers, notes=tuple(notes))
        prediction = regression_collapse(
            y,
            weight_decay=weight_decay,
            feature_decay=feature_decay,
            bias=bias_kind or ("none" if offset is None else "free"),
            depth=len(layers),
            dim=min([h.shape[1], *(len(layer) for layer in layers[:-1])]),
        )
        return cls(
            n,
            q,
            d,
            numbers,
            prediction,
            prediction.distance(layers[-1]) if prediction.rank else float("nan"),
            prediction.certify(y, h, layers, offset),
            tuple(notes),
        )

    def __getattr__(self, name: str) -> float:
        """Return a number by its name."""
        if name in NAMES and name in self.numbers:  # `numbers` itself is none of them
            return self.numbers[name]
        raise AttributeError(f"{type(self).__name__} has no {name!r}")

    @property
    def compared(self) -> dict[str, float | int | None]:
        """The numbers of the comparison with the prediction; empty without decays."""
        if self.prediction is None or self.certificate is None:
            return {}
        return {
            "rank": self.prediction.rank,
            "gamma_predicted": self.prediction.gamma,
            "gram_distance": self.gram_distance,
            "objective": self.certificate.primal,
            "lower_bound": self.certificate.dual,
            "gap": self.certificate.gap,
        }

    def to_dict(self) -> dict[str, Any]:
        """Return everything JSON-ready (numbers that are not finite are left to the writer)."""
        found: dict[str, Any] = {
            "num_samples": self.num_samples,
            "num_targets": self.num_targets,
            **self.numbers,
            **self.compared,
        }
        if self.prediction is not None:
            found["prediction"] = self.prediction.to_dict()
        return found

    def to_table(self) -> Table:
        """Return the numbers as a table."""
        names = NAMES | _PREDICTED
        rows = [[key, value, names[key]] for key, value in (self.numbers | self.compared).items()]
        columns: list[str | Column] = [
            "metric",
            Column("value", align="right", format=".6g"),
            "what it is",
        ]
        title = (
            f"{number_of(self.num_samples, 'sample')}, "
            f"{number_of(self.num_targets, 'real target')}, "
            f"{number_of(self.width, 'feature')}"
        )
        note = "" if self.prediction else "Give both decays to have the geometry predicted."
        return Table(title, columns, rows, missing="-", note=note)

    def to_frame(self) -> pd.DataFrame:
        """Return one row a number: its name, its value and what it is.

        See `tightframe.shown.frame`.
        """
        names, rows = NAMES | _PREDICTED, self.numbers | self.compared
        return frame(
            {"metric": list(rows), "value": rows.values(), "meaning": [names[k] for k in rows]}
        )

    def plot(self, ax: Any = None) -> tuple[Any, Any]:
        """Draw NRC1 to NRC3 as bars; each is 0 at collapse, see `tightframe.shown.plot`."""
        shown = [name for name in ("nrc1", "nrc2", "nrc3") if name in self.numbers]
        places = [float(place) for place in range(len(shown))]
        chart = Chart(
            f"Regression collapse, {self.num_targets} targets",
            "",
            "distance from collapse",
            [],
            bars=[Bars("", places, [self.numbers[name] for name in shown], color="muted")],
            x_ticks=[(place, name.upper()) for place, name in zip(places, shown, strict=True)],
            legend="none",
        )
        return plot(chart, ax)

    def _blocks(self) -> Iterator[Block]:
        yield self.to_table()

    def __repr__(self) -> str:
        """Return the size and the three numbers on one line."""
        words = {"nrc1": "NRC1", "nrc2": "NRC2", "nrc3": "NRC3", "r_squared": "R squared"}
        shown = [f"{words[k]} {self.numbers[k]:.3g}" for k in words if k in self.numbers]
        return (
            f"RegressionReport({number_of(self.num_samples, 'sample')}, "
            f"{number_of(self.num_targets, 'target')}, "
            f"{number_of(self.width, 'feature')}, {', '.join(shown)})"
        )


def table_of_layers(reports: Mapping[str, RegressionReport]) -> Table:
    """Return one row a layer: NRC1 to NRC3 and how well the targets are fitted."""
    numbers = [Column(key, align="right", format=".4g") for key in _OF_LAYERS]
    rows = [
        [name, report.width, *(report.numbers.get(key) for key in _OF_LAYERS)]
        for name, report in reports.items()
    ]
    return Table(
        "Layers",
        ["layer", Column("width", align="right", format="d"), *numbers],
        rows,
        missing="-",
        note="Of hidden layers r_squared is that of least squares on their features.",
    )


# -- inside --------------------------------------------------------------------------------------


def _of_hidden(features: Array, targets: Array) -> dict[str, float]:
    count = targets.shape[1]
    centred = features - features.mean(axis=0)
    y = targets - targets.mean(axis=0)
    fitted = centred @ np.linalg.lstsq(centred, y, rcond=None)[0]
    return {
        "nrc1": nrc1(features, count),
        "nrc1_centered": nrc1(features, count, center=True),
        "r_squared": _share(fitted - y, y),
    }


def _of_head(
    features: Array, targets: Array, layers: list[Array], bias: Array | None
) -> dict[str, float]:
    count = targets.shape[1]
    weight = layers[0]
    for layer in layers[1:]:
        weight = layer @ weight
    fitted = nrc3_details(layers[-1], targets)
    missed = features @ weight.T + (0.0 if bias is None else bias) - targets
    return {
        "nrc1": nrc1(features, count),
        "nrc2": nrc2(features, weight),
        "nrc3": fitted.distance,
        "gamma": fitted.gamma,
        "nrc1_centered": nrc1(features, count, center=True),
        "nrc2_centered": nrc2(features, weight, center=True),
        "mean_squared_error": float(np.vdot(missed, missed)) / len(targets),
        "r_squared": _share(missed, targets - targets.mean(axis=0)),
    }


def _share(missed: Array, centred: Array) -> float:
    variance = float(np.vdot(centred, centred))
    return 1 - float(np.vdot(missed, missed)) / variance if variance > 0 else float("nan")


def _fitting(layers: list[Any], features: Array, targets: Array) -> list[Array]:
    """Return layers that lead from the features to the targets."""
    found, width = [], features.shape[1]
    for i, layer in enumerate(layers):
        name = "weight" if len(layers) == 1 else f"weight_{i + 1}"
        w = layer_of(name, layer)
        last = i == len(layers) - 1
        rows = targets.shape[1] if last else len(w)
        if w.shape != (rows, width):
            what = "one row a target" if last else "as wide as what it takes in"
            raise ValueError(f"{name}: got shape {w.shape}, need {(rows, width)}, {what}")
        found.append(w)
        width = rows
    return found
