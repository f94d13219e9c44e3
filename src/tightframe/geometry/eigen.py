"""A few eigenvalues of a symmetric matrix, also where LAPACK's fast ways to them fail.

Those ways (MRRR, bisection) end with an internal error on some matrices with many equal
eigenvalues, of which singular values that were clipped at a limit are a case: all are computed
then.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[Any]


def eigenpairs_above(matrix: Floats, least: float) -> tuple[Floats, Floats]:
    """Return the eigenvalues above a number, ascending, and their vectors as columns.

    Raises
    ------
    numpy.linalg.LinAlgError
        If an entry is not finite.
    """
    from scipy.linalg import eigh

    if not np.isfinite(matrix).all():
        raise np.linalg.LinAlgError("entries must be finite")
    try:
        found: tuple[Floats, Floats] = eigh(matrix, driver="evr", subset_by_value=(least, np.inf))
    except np.linalg.LinAlgError:
        return all_above(matrix, least)
    return found


def all_above(matrix: Floats, least: float) -> tuple[Floats, Floats]:
    """Return the same out of all eigenpairs."""
    values, vectors = np.linalg.eigh(matrix)
    first = int(np.searchsorted(values, least, side="right"))
    return values[first:], vectors[:, first:]


def largest_eigenvalue(matrix: Floats) -> float:
    """Return the largest eigenvalue."""
    from scipy.linalg import eigh

    last = len(matrix) - 1
    try:
        return float(eigh(matrix, eigvals_only=True, subset_by_index=[last, last])[0])
    except np.linalg.LinAlgError:
        return float(np.linalg.eigvalsh(matrix)[-1])
