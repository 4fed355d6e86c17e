"""TMRL's LIDAR: 19 beams on a picture of the window, each ends at the first black pixel.

The live game computes it on every frame; the simulator's own LIDAR equals it bit for bit.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

NUM_BEAMS = 19
BLACK_THRESHOLD = 55
"""A pixel is black when all three channels are below this."""
FIRST_PIXEL = 20
"""Distance from the road point to the first pixel of a beam [px]."""


def beam_pixels(width: int, height: int) -> list[np.ndarray]:
    """Pixels of every beam from its start to the border of the picture.

    Beams leave the road point at 90, 100, .. 270 degrees: from the right of the car over ahead to its left.

    Args:
        width: Width of the picture [px].
        height: Height of the picture [px].

    Returns:
        19 arrays of (row, column), int64, shape (n, 2).
    """
    row, column = 44 * height // 49, width // 2
    return [_beam(row, column, width, math.radians(angle)) for angle in range(90, 271, 10)]


class LidarSensor:
    """LIDAR on pictures of one size; another size rebuilds the beams."""

    def __init__(self, width: int = 958, height: int = 488) -> None:
        """Builds the beams.

        Args:
            width: Width of the pictures [px].
            height: Height of the pictures [px].
        """
        self._shape = (0, 0)
        self._build(width, height)

    def __call__(self, frame: np.ndarray) -> np.ndarray:
        """Measures.

        Args:
            frame: Picture, uint8 BGRA or BGR, shape (h, w, 4 or 3).

        Returns:
            Index of the first black pixel of each beam, or of its last pixel; float32, shape (19,).
        """
        if frame.shape[:2] != self._shape:
            self._build(frame.shape[1], frame.shape[0])
        return _measure(frame, self._rows, self._columns, self._starts, BLACK_THRESHOLD)

    def _build(self, width: int, height: int) -> None:
        beams = beam_pixels(width, height)
        if any(len(beam) == 0 for beam in beams):
            raise ValueError(f"the window must be large enough for the LIDAR (958x488), got {width}x{height}")
        pixels = np.concatenate(beams)
        self._rows, self._columns = np.ascontiguousarray(pixels[:, 0]), np.ascontiguousarray(pixels[:, 1])
        self._starts = np.cumsum([0, *(len(beam) for beam in beams)])
        self._shape = (height, width)


def _beam(row: int, column: int, width: int, angle: float) -> np.ndarray:
    """Truncates towards zero as TMRL does, so rounding errors of cos and sin fall on the same pixels."""
    row_step, column_step = math.cos(angle), math.sin(angle)
    pixels: list[tuple[int, int]] = []
    distance = FIRST_PIXEL
    while True:
        here = (int(row + distance * row_step), int(column + distance * column_step))
        if here[0] <= 0 or here[1] <= 0 or here[1] >= width - 1:
            return np.array(pixels, np.int64).reshape(-1, 2)
        pixels.append(here)
        distance += 1


@njit(cache=True)
def _measure(
    frame: np.ndarray, rows: np.ndarray, columns: np.ndarray, starts: np.ndarray, threshold: int
) -> np.ndarray:
    lengths = np.empty(len(starts) - 1, np.float32)
    for beam in range(len(lengths)):
        first, last = starts[beam], starts[beam + 1] - 1
        index = first
        while index < last:
            row, column = rows[index], columns[index]
            if (
                frame[row, column, 0] < threshold
                and frame[row, column, 1] < threshold
                and frame[row, column, 2] < threshold
            ):
                break
            index += 1
        lengths[beam] = index - first
    return lengths
