"""Files of points: tracks and reference paths, from tables of text, .npy, TMRL's ``reward.pkl`` and the game's files.

The one reader for ``tasks.sim.track`` and ``tasks.trackmania.reference_path``, which decide whether a line can be
driven.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from enum import Enum
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tasks.points.stored_arrays import npy_array, pickled_array
from tasks.points.table import read_table
from tasks.recordings.driven_line import driven_line
from tasks.recordings.ghost import fastest, ghosts_in

MAX_BYTES = 256 * 2**20
"""A larger file is refused; it would be a road of thousands of kilometres."""
_MAX_DESCRIPTION_BYTES = 2**20
MAX_COORDINATE_M = 1e7
"""Farther from the origin nothing is driven [m]."""


class Frame(Enum):
    """Where x points, seen from above; the names are those in the description of a recorded path."""

    game = "game"
    """To the left of z."""
    simulator = "simulator"
    """To the right of z, as everywhere in this program."""


class PointFile(NamedTuple):
    """The content of a file of points."""

    points: np.ndarray
    """[m], finite, float64, shape (N >= 2, 2) x,z or (N >= 2, 3) x,y,z in driving order."""
    columns: str
    """How its columns were identified, for people."""
    frame: Frame | None = None
    """None: the file does not say."""
    human_lap_time_s: float | None = None
    """Lap of the person who drove the line [s]."""

    def is_x_left(self, is_in_game: bool) -> bool:
        """Whether x points to the left of z. A file that does not tell is in the frame of where it is driven.

        Args:
            is_in_game: Whether it is driven in the game.
        """
        return is_in_game if self.frame is None else self.frame is Frame.game

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
        path: .csv, .tsv or .txt: a table; .npy: an array of numbers; .pkl or .pickle: TMRL's reward.pkl; .gbx: the line
            that was driven in a ghost, a replay or the ghost of a map's author.

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
        found = read(file.read_bytes())
        return _described(file, found._replace(points=_checked(found.points)))
    except ValueError as error:
        raise ValueError(f"{file} {error}") from error


def _table(data: bytes) -> PointFile:
    return PointFile(*read_table(data))


def _array(data: bytes) -> PointFile:
    points = npy_array(data)
    return PointFile(points, f"an array of shape {points.shape}")


def _tmrl(data: bytes) -> PointFile:
    """TMRL records in the game only."""
    points = pickled_array(data)
    return PointFile(points, f"an array of shape {points.shape}", Frame.game)


@lru_cache(maxsize=2)  # A start reads its track and its path several times, and a long replay takes a while.
def _driven(data: bytes) -> PointFile:
    ghosts = ghosts_in(data)
    ghost = fastest(ghosts)
    which = f", the fastest of {len(ghosts)}" if len(ghosts) > 1 else ""
    lap = "that was not finished" if ghost.race_time_s is None else f"of {ghost.race_time_s:.3f} s"
    return PointFile(driven_line(ghost).points, f"the line of a drive {lap}{which}", Frame.game, ghost.race_time_s)


_READERS: dict[str, Callable[[bytes], PointFile]] = {
    **dict.fromkeys((".csv", ".tsv", ".txt"), _table),
    ".npy": _array,
    **dict.fromkeys((".pkl", ".pickle"), _tmrl),
    ".gbx": _driven,
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


def _described(file: Path, found: PointFile) -> PointFile:
    """Adds the facts from the description beside a recorded path; a file without one stays unchanged."""
    path = file.with_suffix(".json")
    if file.suffix.lower() != ".npy" or not path.is_file() or path.stat().st_size > _MAX_DESCRIPTION_BYTES:
        return found
    try:
        description = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return found
    if not isinstance(description, dict):
        return found
    lap = description.get("human_lap_time_s")
    is_time = isinstance(lap, float) and 0 < lap < math.inf
    frames = [frame for frame in Frame if frame.value == description.get("frame")]
    return found._replace(frame=frames[0] if frames else None, human_lap_time_s=lap if is_time else None)
