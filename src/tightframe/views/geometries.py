"""What a geometry shows: a table, a frame and a heat map of its cosines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tightframe.figures.model import HeatMaps, Matrix
from tightframe.figures.table import Column, Table

if TYPE_CHECKING:
    from tightframe.geometry.dense import Geometry

Array = NDArray[np.float64]

#: The vectors of a geometry, by their Gram matrices.
PARTS = ("classifier", "means")


def cosines_of(gram: Array) -> Array:
    """Return the cosines between vectors by their Gram matrix; those with a zero vector are 0."""
    norms = np.sqrt(np.diagonal(gram).clip(min=0))
    lengths = np.outer(norms, norms)
    cosines: Array = np.divide(gram, lengths, out=np.zeros_like(gram), where=lengths > 0)
    return cosines


def geometry_columns(geometry: Geometry) -> dict[str, Any]:
    """Return one row a class: lengths, and the largest cosine to another class with that class."""
    columns: dict[str, Any] = {"class": np.arange(geometry.num_classes)}
    for part in PARTS:
        gram = getattr(geometry, part)
        others = cosines_of(gram) - 3 * np.eye(len(gram))
        columns[f"{part}_norm"] = np.sqrt(np.diagonal(gram).clip(min=0))
        columns[f"{part}_nearest"] = others.argmax(axis=1)
        columns[f"{part}_cosine"] = others.max(axis=1)
    return columns


def geometry_table(geometry: Geometry) -> Table:
    """Return how long the vectors are and how they stand to each other, from least to most."""
    rows = []
    for part in PARTS:
        gram = getattr(geometry, part)
        norms = np.sqrt(np.diagonal(gram).clip(min=0))
        cosines = cosines_of(gram)[~np.eye(len(gram), dtype=bool)]
        rows.append([part, norms.min(), norms.max(), cosines.min(), cosines.max()])
    heads = ("least norm", "largest norm", "least cosine", "largest cosine")
    columns: list[str | Column] = [""]
    columns += [Column(head, align="right", format=".5g") for head in heads]
    return Table(f"{geometry.name}, {geometry.num_classes} classes", columns, rows)


def geometry_map(geometry: Geometry) -> HeatMaps:
    """Return the cosines between the class means."""
    title = f"{geometry.name}: cosines of class means"
    return HeatMaps(
        title,
        [Matrix(title, cosines_of(geometry.means))],
        x_label="class",
        y_label="class",
        limit=1.0,
        scale_label="cosine",
    )
