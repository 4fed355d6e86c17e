"""Lays straights and arcs one after the other: the centre lines of the tracks that no file of points gives."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tasks.points.files import POINT_SPACING_M

FloatArray = NDArray[np.float64]
Piece = tuple[float, float]
"""Length [m] and curvature [1/m], positive to the right."""

ROAD_HEIGHT_M = 10.0
"""Height of the road of these tracks [m]."""


def pieces_to_line(pieces: Sequence[Piece], start: Sequence[float]) -> FloatArray:
    """(x, z) points every 0.1 m along the pieces, shape (N, 2).

    Args:
        pieces: In driving order.
        start: (x, z, yaw in degrees) of the first point.
    """
    x, z, yaw = float(start[0]), float(start[1]), math.radians(start[2])
    total = sum(abs(length) for length, _ in pieces)
    stations = np.arange(math.floor(total / POINT_SPACING_M + 1e-6) + 1) * POINT_SPACING_M
    points = np.empty((len(stations), 2))
    begin = 0.0
    for length, curvature in pieces:
        inside = (stations >= begin - 1e-9) & (stations <= begin + length + 1e-9)
        points[inside] = along_piece(x, z, yaw, curvature, stations[inside] - begin)
        x, z = along_piece(x, z, yaw, curvature, np.array([length], np.float64))[0]
        yaw += curvature * length
        begin += length
    return points


def along_piece(x: float, z: float, yaw: float, curvature: float, s: NDArray[np.floating]) -> FloatArray:
    """(x, z) at distances along a piece, shape (N, 2).

    Args:
        x: Of its beginning [m].
        z: The same.
        yaw: Direction there [rad].
        curvature: Of the piece [1/m].
        s: The distances [m], shape (N,).
    """
    if curvature == 0.0:
        return np.stack([x + np.sin(yaw) * s, z + np.cos(yaw) * s], axis=1)
    end = yaw + curvature * s
    return np.stack([x + (math.cos(yaw) - np.cos(end)) / curvature, z + (np.sin(end) - math.sin(yaw)) / curvature], 1)


def at_height(line: FloatArray, height_m: float) -> FloatArray:
    """(x, y, z) of a line (x, z) [m], shape (N, 3)."""
    return np.stack([line[:, 0], np.full(len(line), height_m), line[:, 1]], axis=1)
