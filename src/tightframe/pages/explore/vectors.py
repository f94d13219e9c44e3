"""Class vectors on a geometry's principal axes, measured ones turned onto predicted ones."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tightframe.geometry.dense import Geometry

Array = NDArray[np.float64]


class Vectors(NamedTuple):
    """Classifier rows and class means along the principal axes of both together.

    Either set has its longest vector as the unit of length.

    Attributes
    ----------
    classifier, means : ndarray, shape (K, r)
        Largest axis first.
    share : float
        Part of the squared lengths that the first three axes hold; 1 for zero vectors.
    """

    classifier: Array
    means: Array
    share: float


def principal_vectors(geometry: Geometry) -> Vectors:
    """Return vectors that have a geometry's Gram matrices."""
    units = [
        float(norms.max()) or 1.0 for norms in (geometry.classifier_norms, geometry.means_norms)
    ]
    across = geometry.logits / (units[0] * units[1])
    joint = np.block(
        [
            [geometry.classifier / units[0] ** 2, across],
            [across.T, geometry.means / units[1] ** 2],
        ]
    )
    values, axes = np.linalg.eigh((joint + joint.T) / 2)
    values, axes = np.maximum(values[::-1], 0.0), axes[:, ::-1]
    points = axes * np.sqrt(values)
    total = float(values.sum())
    share = float(values[:3].sum()) / total if total > 0 else 1.0
    k = geometry.num_classes
    return Vectors(points[:k], points[k:], share)


def turned_onto(vectors: Vectors, target: Vectors) -> Vectors:
    """Rotate vectors as near to others as they come (orthogonal Procrustes)."""
    here = np.concatenate([vectors.classifier, vectors.means])
    there = np.concatenate([target.classifier, target.means])
    left, _, right = np.linalg.svd(here.T @ there)
    turned = here @ (left @ right)
    k = len(vectors.classifier)
    return Vectors(turned[:k], turned[k:], vectors.share)
