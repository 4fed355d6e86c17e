"""laps.json: the laps that a play compared and the road that they were driven on, for reports and your own tools.

Reading it trusts nothing: its size, kinds, lengths and numbers are checked.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tasks.laps.lap import FloatArray, Lap, LapTrace
from tasks.process.atomic_file import write_file

MAX_BYTES = 32 * 2**20
"""A larger file is refused; it would be hours of driving."""
ROAD_SPACING_M = 2.0
"""Distance between the points of the road in the file [m]."""

_MAX_LAPS = 16
_DIGITS = {"time_s": 4, "station_m": 2, "x": 2, "z": 2, "speed_mps": 2, "gas": 2, "brake": 2, "steer": 3}


class ComparedLaps(NamedTuple):
    """A driven lap, what it is compared with, and the road."""

    road: FloatArray
    """x, z of the middle of the road from start to finish [m], shape (N, 2)."""
    width_m: float
    length_m: float
    """Length of the road [m]."""
    driven: Lap
    others: list[Lap]
    """What it is compared with, the most telling first; empty: nothing."""


def write_laps(path: Path, laps: ComparedLaps) -> None:
    """Writes the file, whole or not at all."""
    content = {
        "road": {
            "x": _plain(laps.road[:, 0], 2),
            "z": _plain(laps.road[:, 1], 2),
            "width_m": laps.width_m,
            "length_m": round(laps.length_m, 3),
        },
        "laps": [_lap_to_json(lap) for lap in (laps.driven, *laps.others)],
    }
    write_file(path, (json.dumps(content, allow_nan=False, separators=(",", ":")) + "\n").encode())


def read_laps(path: Path) -> ComparedLaps:
    """Reads a file that ``write_laps`` wrote.

    Raises:
        ValueError: It is none, or damaged; the message begins with its path.
        OSError: It cannot be read.
    """
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path} must have at most {MAX_BYTES >> 20} MB, got {path.stat().st_size >> 20} MB")
    try:
        content = json.loads(path.read_bytes())
        road = content["road"]
        line = np.stack([_array(road["x"]), _array(road["z"])], axis=1)
        width_m, length_m = _positive(road["width_m"]), _positive(road["length_m"])
        laps = [_lap_from_json(lap) for lap in content["laps"][:_MAX_LAPS]]
        if len(line) < 2 or not laps or not np.isfinite(line).all():
            raise ValueError("a road of two points and a lap are needed")
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(f"{path} must be written by --play, but is not as it should be: {error}") from error
    return ComparedLaps(line, width_m, length_m, laps[0], laps[1:])


def _lap_to_json(lap: Lap) -> dict[str, Any]:
    samples = {name: _plain(getattr(lap.trace, name), digits) for name, digits in _DIGITS.items()}
    return {"name": lap.name, "lap_time_s": lap.lap_time_s, "samples": samples}


def _lap_from_json(data: Mapping[str, Any]) -> Lap:
    samples = {name: _array(data["samples"][name]) for name in _DIGITS}
    lengths = {len(values) for values in samples.values()}
    if len(lengths) != 1 or not lengths.pop():
        raise ValueError("the samples of a lap must be equally many, at least one")
    for name in ("time_s", "station_m", "x", "z", "speed_mps"):
        if not np.isfinite(samples[name]).all():
            raise ValueError(f"{name} must be finite numbers")
    if (np.diff(samples["station_m"]) < 0.0).any() or (np.diff(samples["time_s"]) < 0.0).any():
        raise ValueError("time_s and station_m must not fall")
    time_s = data["lap_time_s"]
    return Lap(str(data["name"]), None if time_s is None else _positive(time_s), LapTrace(**samples))


def _plain(values: FloatArray, digits: int) -> list[float | None]:
    """Rounded numbers; null for what is not known."""
    return [round(value, digits) if math.isfinite(value) else None for value in values.tolist()]


def _array(values: object) -> FloatArray:
    if not isinstance(values, list):
        raise ValueError(f"a list of numbers is needed, got {type(values).__name__}")
    if not all(value is None or isinstance(value, (int, float)) for value in values):
        raise ValueError("a list must hold numbers")
    array = np.array([math.nan if value is None else value for value in values], np.float64)
    array[np.abs(array) > 1e9] = np.nan
    return array


def _positive(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0.0 < value < 1e9:
        raise ValueError(f"a positive number is needed, got {value!r:.40}")
    return float(value)
