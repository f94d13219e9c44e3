"""What rounding can do to float64 results: bounds of it, and small sums without it.

Bounds are those of Higham (2002), Accuracy and Stability of Numerical Algorithms, sections 3.1 and
4.2: a sum of n terms in any order is off by at most ``gamma(n)`` times the sum of their sizes, and
a product by that share of itself. Elementary functions count as `FUNCTION` roundings.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

#: Relative error of one operation.
UNIT = 2.0**-53

#: The same of NumPy's long double, which has more digits on most machines, and no fewer on any.
LONG_UNIT = float(np.finfo(np.longdouble).eps) / 2

#: Roundings that one call of exp, log, log1p, expm1, sqrt or a power counts as.
FUNCTION = 4

#: Absolute error of what underflows.
UNDERFLOW = 1e-300


def gamma(roundings: float) -> float:
    """Return the relative error that so many roundings may add up to."""
    return roundings * UNIT / (1 - roundings * UNIT)


def long_gamma(roundings: float) -> float:
    """Return `gamma` of sums in long double that are rounded to a float in the end."""
    return roundings * LONG_UNIT / (1 - roundings * LONG_UNIT) + 2 * UNIT


def svd_error(size: int) -> float:
    """Return the error of computed singular values, relative to the matrix's Frobenius norm.

    LAPACK's SVD is that of a matrix nearby, and singular values move by no more than the matrix
    does (Weyl). LAPACK says "a modestly growing function of n" times the unit (Users' Guide,
    section 4.9); 2 (n + 10) is some ten times what was ever seen.
    """
    return gamma(2 * (size + 10))


def two_sum(a: Array, b: Array) -> tuple[Array, Array]:
    """Return the rounded sum and its exact error (Knuth)."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def inverse(numbers: Array) -> tuple[Array, Array]:
    """Return 1 / n of whole numbers below 2^53 as a sum of two floats."""
    high = 1 / numbers
    # Dekker's product: both factors are split into halves whose products are exact.
    (a, b), (c, d) = _halves(high), _halves(numbers)
    product = high * numbers
    error = ((a * c - product) + a * d + b * c) + b * d
    return high, ((1 - product) - error) / numbers


def _halves(numbers: Array) -> tuple[Array, Array]:
    scaled = 134217729.0 * numbers  # 2^27 + 1
    high = scaled - (scaled - numbers)
    return high, numbers - high
