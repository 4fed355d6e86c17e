"""The line that a ghost drove, from the start of the race to its finish, without parts that a respawn discarded."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tasks.recordings import spline
from tasks.recordings.cursor import GbxError
from tasks.recordings.ghost import Ghost
from tasks.recordings.recording import SAMPLE_S, Recording

SPACING_M = 0.05
"""Points are at most so far apart, but for where a respawn joins the line that was driven before [m]."""
RESPAWN_M = 16.0
"""After a respawn the car is within this distance of its earlier line [m]."""
_MAX_PARTS = 400

FloatArray = NDArray[np.float64]


class DrivenLine(NamedTuple):
    """A line in the game's frame (``tasks.recordings.recording``)."""

    points: FloatArray
    """x, y, z [m], shape (N, 3)."""
    speeds: FloatArray
    """[m/s], shape (N,)."""
    times_s: FloatArray
    """Since the start of the race [s], shape (N,)."""


def driven_line(ghost: Ghost) -> DrivenLine:
    """A cubic curve through the states of a ghost.

    What another car drove at the same time is left out, and so is what lies behind the finish. Where the car was put
    back, the line continues from the nearest place that it had passed.

    Raises:
        GbxError: The car jumps to where it had not been, or hardly moves.
    """
    line: DrivenLine | None = None
    for piece in ghost.pieces:
        part = _until(_curve(piece), ghost.race_time_s)
        if line is None:
            line = part
        elif len(part.points) and part.times_s[0] >= line.times_s[-1]:
            line = _joined(line, part)
    if line is None or len(line.points) < 2:
        raise GbxError("must hold a drive, it ends before it begins")
    return line


def _curve(piece: Recording) -> DrivenLine:
    states = piece.states.astype(np.float64)
    positions = states[:, 1:4]
    longest_m = float(np.linalg.norm(np.diff(positions, axis=0), axis=1).max())
    parts = min(_MAX_PARTS, max(1, math.ceil(1.2 * longest_m / SPACING_M)))
    points = spline.between(positions, SAMPLE_S, parts)
    times_s = states[0, 0] / 1000 + SAMPLE_S / parts * np.arange(len(points))
    speeds = np.interp(times_s, states[0, 0] / 1000 + SAMPLE_S * np.arange(len(states)), piece.column("speed"))
    return DrivenLine(points, speeds, times_s)


def _until(line: DrivenLine, end_s: float | None) -> DrivenLine:
    count = len(line.times_s) if end_s is None else int(np.searchsorted(line.times_s, end_s + 1e-6, side="right"))
    return DrivenLine(*(values[:count] for values in line))


def _joined(line: DrivenLine, part: DrivenLine) -> DrivenLine:
    distance = np.linalg.norm(line.points - part.points[0], axis=1)
    nearest = int(distance.argmin())
    if distance[nearest] > RESPAWN_M:
        before, after = line.points[-1], part.points[0]
        raise GbxError(
            f"jumps by {np.linalg.norm(after - before):.1f} m after {line.times_s[-1]:.2f} s, from x {before[0]:.1f}, "
            f"z {before[2]:.1f} to x {after[0]:.1f}, z {after[2]:.1f}, where the car had not been: the record has a "
            "gap or was joined from several; use another drive"
        )
    return DrivenLine(*(np.concatenate([old[: nearest + 1], new]) for old, new in zip(line, part, strict=True)))
