"""Files of points: tracks and reference paths, from tables of text, .npy and TMRL's ``reward.pkl``.

The one reader for ``tasks.sim.track`` and ``tasks.trackmania.reference_path``; what may be driven, they decide.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tasks.points.stored_arrays import npy_array, pickled_array
from tasks.points.table import PointTable, read_table

MAX_BYTES = 256 * 2**20
"""A larger file is refused; it would be a road of thousands of kilometres."""
MAX_COORDINATE_M = 1e7
"""Farther from the origin nothing is driven [m]."""


class PointFile(NamedTuple):
    """What a file holds."""

    points: np.ndarray
    """[m], finite, float64, shape (N >= 2, 2) x,z or (N >= 2, 3) x,y,z in driving order."""
    columns: str
    """How its columns were told apart, for people."""

    @property
    def has_heights(self) -> bool:
        """Whether there is a y."""
        return self.points.shape[1] == 3

    @property
    def ground(self) -> np.ndarray:
        """x,z [m], shape (N, 2)."""
        return self.points[:, [0, -1]]

    @property
    def height_range_m(self) -> float:
        """Difference between the highest and the lowest point [m]; 0 without heights."""
        return float(np.ptp(self.points[:, 1])) if self.has_heights else 0.0


def is_point_file(name: str) -> bool:
    """Whether a name is that of a file of points, by its ending."""
    return Path(name).suffix.lower() in _READERS


def read_points(path: str | Path) -> PointFile:
    """Reads a file of points.

    Args:
        path: .csv, .tsv or .txt: a table; .npy: an array of numbers; .pkl or .pickle: TMRL's reward.pkl.

    Raises:
        ValueError: It does not exist, is no such file, or is ambiguous; the message begins with its path.
    """
    file = Path(os.path.expanduser(path))
    read = _READERS.get(file.suffix.lower())
    if read is None:
        raise ValueError(f"{file} must be a file of points ({SUFFIXES}), got {file.suffix or 'no ending'!r}")
    if not file.is_file():
        raise ValueError(f"the file of points {file} does not exist")
    if file.stat().st_size > MAX_BYTES:
        raise ValueError(f"{file} must be at most {MAX_BYTES >> 20} MB, got {file.stat().st_size >> 20} MB")
    try:
        table = read(file.read_bytes())
        return PointFile(_checked(table.points), table.columns)
    except ValueError as error:
        raise ValueError(f"{file} {error}") from error


def _array_reader(parse: Callable[[bytes], np.ndarray]) -> Callable[[bytes], PointTable]:
    def read(data: bytes) -> PointTable:
        points = parse(data)
        return PointTable(points, f"an array of shape {points.shape}")

    return read


_READERS: dict[str, Callable[[bytes], PointTable]] = {
    **dict.fromkeys((".csv", ".tsv", ".txt"), read_table),
    ".npy": _array_reader(npy_array),
    **dict.fromkeys((".pkl", ".pickle"), _array_reader(pickled_array)),
}
POINT_SPACING_M = 0.1
"""Distance between neighbouring points of centre lines and reference paths [m]: one point is 0.01 of reward."""
SUFFIXES = " ".join(_READERS)
"""The endings of files of points, for messages."""


def _checked(points: np.ndarray) -> np.ndarray:
    if points.ndim != 2 or points.shape[1] not in (2, 3):
        raise ValueError(f"must have rows of x,z or x,y,z in metres, got an array of shape {points.shape}")
    if len(points) < 2:
        raise ValueError(f"must have at least 2 points, got {len(points)}")
    points = points.astype(np.float64)
    bad = np.flatnonzero(~(np.abs(points) <= MAX_COORDINATE_M).all(axis=1))
    if len(bad):
        raise ValueError(
            f"point {bad[0]} must be finite numbers within {MAX_COORDINATE_M:g} m, got {points[bad[0]].tolist()}"
        )
    return points
