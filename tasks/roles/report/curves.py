"""The scalars that a run logged for TensorBoard, from its event files.

Files may be half written, damaged or somebody else's: what can be read is kept.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

MAX_POINTS = 240
"""A curve with more points is drawn as the means of so many parts."""

_ONLY_SCALARS = {"tensors": 1, "images": 1, "audio": 1, "histograms": 1, "compressedHistograms": 1, "graph": 1}


class Curve(NamedTuple):
    """One scalar over environment steps."""

    steps: FloatArray
    values: FloatArray
    times_s: FloatArray
    """When each was logged, in seconds since 1970."""

    def thinned(self) -> Curve:
        """At most ``MAX_POINTS`` points."""
        if len(self.steps) <= MAX_POINTS:
            return self
        parts = np.array_split(np.arange(len(self.steps)), MAX_POINTS)
        return Curve(*(np.array([values[part].mean() for part in parts]) for values in self))


def read_curves(folder: Path) -> tuple[dict[str, Curve], list[str]]:
    """The scalars of all event files in a folder by name, and the files that could not be read, with the reason.

    Args:
        folder: ``summaries`` of a run; it need not exist.
    """
    points: dict[str, list[tuple[float, float, float]]] = {}
    problems = []
    for file in sorted(folder.glob("*tfevents*")):
        try:
            for name, point in _scalars(file):
                points.setdefault(name, []).append(point)
        except Exception as error:  # the reader raises whatever its parts meet in a damaged file
            problems.append(f"{file.name}: {type(error).__name__}")
    return {name: curve for name, rows in sorted(points.items()) if (curve := _curve(rows)) is not None}, problems


def _scalars(file: Path) -> Iterator[tuple[str, tuple[float, float, float]]]:
    """Name, step, value and time of every scalar, up to where the file breaks off."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    # The reader warns of a half-written end, and that is the normal end of a run that still learns.
    logging.getLogger("tensorboard").setLevel(logging.ERROR)
    events = EventAccumulator(str(file), {**_ONLY_SCALARS, "scalars": 0}).Reload()
    for name in events.Tags()["scalars"]:
        for event in events.Scalars(name):
            yield name, (float(event.step), float(event.value), float(event.wall_time))


def _curve(rows: list[tuple[float, float, float]]) -> Curve | None:
    """The curve of some points; where a run went on from an earlier step, what it did before from there is left out."""
    kept: list[tuple[float, float, float]] = []
    for row in sorted(rows, key=lambda row: row[2]):
        while kept and kept[-1][0] >= row[0]:
            kept.pop()
        kept.append(row)
    table = np.array(kept, np.float64)
    table = table[np.isfinite(table).all(axis=1)]
    return Curve(*table.T) if len(table) else None
