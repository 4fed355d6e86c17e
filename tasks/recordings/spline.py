"""The natural cubic spline through points of equal distance in time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


def slopes(points: FloatArray, step: float) -> FloatArray:
    """The derivatives of the spline at its points, shape (N, D).

    Args:
        points: Values at equal steps, shape (N >= 2, D).
        step: Distance between neighbouring arguments.
    """
    count = len(points)
    right = np.empty_like(points, np.float64)
    right[1:-1] = 3 / step * (points[2:] - points[:-2])
    right[0], right[-1] = 3 / step * (points[1] - points[0]), 3 / step * (points[-1] - points[-2])
    # Thomas' algorithm for the rows 2 1 | 1 4 1 | ... | 1 2
    factors = np.empty(count)
    factors[0] = 0.5
    right[0] *= 0.5
    for i in range(1, count):
        factors[i] = 1 / ((4.0 if i < count - 1 else 2.0) - factors[i - 1])
        right[i] = (right[i] - right[i - 1]) * factors[i]
    for i in range(count - 2, -1, -1):
        right[i] -= factors[i] * right[i + 1]
    return right


def between(points: FloatArray, step: float, parts: int) -> FloatArray:
    """The spline at ``parts`` equal parts of each step, and at its end, shape ((N - 1) parts + 1, D)."""
    slope = slopes(points, step) * step
    t = (np.arange(parts) / parts)[None, :, None]
    a, b, da, db = (values[:, None] for values in (points[:-1], points[1:], slope[:-1], slope[1:]))
    curve = a + t * (da + t * (3 * (b - a) - 2 * da - db + t * (2 * (a - b) + da + db)))
    return np.vstack([curve.reshape(-1, points.shape[1]), points[-1:]])
