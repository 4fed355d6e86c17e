"""A lap as it was driven, and its comparison with another one over the same road.

Numpy only. ``--play`` makes laps of the drives that it compares, ``tasks.trackmania.reference_laps`` those to compare
with; pictures and reports draw them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

NUM_SECTORS = 10
"""A road is compared in so many parts of equal length."""

_ENDS_M = 0.1
"""A car that is nearer to the end of the road has reached it [m]."""


class LapTrace(NamedTuple):
    """Samples of a drive in the order of time; each field has shape (T,)."""

    time_s: FloatArray
    """Race time [s]."""
    station_m: FloatArray
    """Place along the centre line, from the start [m]; never falls."""
    x: FloatArray
    """[m]"""
    z: FloatArray
    """[m], x points to the right of it."""
    speed_mps: FloatArray
    gas: FloatArray
    """0 to 1; NaN where the inputs are unknown, as for brake and steer."""
    brake: FloatArray
    """0 to 1."""
    steer: FloatArray
    """-1 to 1, positive to the right."""


class Lap(NamedTuple):
    """A drive with its name."""

    name: str
    """Who drove, for people."""
    lap_time_s: float | None
    """Time at the finish [s]; None: it was not reached."""
    trace: LapTrace


class Sector(NamedTuple):
    """A part of the road, and how long two laps took for it."""

    from_m: float
    to_m: float
    time_s: float | None
    """None: its end was not reached."""
    reference_time_s: float | None
    """None: there is no lap to compare with, or it did not reach the end."""

    @property
    def lost_s(self) -> float | None:
        """How much longer it took than the reference [s], negative: shorter; None: not known."""
        if self.time_s is None or self.reference_time_s is None:
            return None
        return self.time_s - self.reference_time_s

    def to_json(self) -> dict[str, float | None]:
        """Plain data, to a tenth of a millisecond."""
        values = {**self._asdict(), "lost_s": self.lost_s}
        return {key: None if value is None else round(value, 4) for key, value in values.items()}


def times_at(lap: Lap, places_m: FloatArray, road_m: float) -> FloatArray:
    """Race time at which a lap passed each place along the road [s]; NaN where it did not come.

    Args:
        lap: The lap.
        places_m: Along the road, from its start [m].
        road_m: Length of the road [m].
    """
    time_s, station = lap.trace.time_s, lap.trace.station_m
    moves = np.diff(station, prepend=0.0) > 0.0
    # The samples around the finish: its time is known better.
    keep = moves & (station < road_m - _ENDS_M) & (time_s < lap.lap_time_s) if lap.lap_time_s is not None else moves
    stations, times = np.concatenate([[0.0], station[keep]]), np.concatenate([[0.0], time_s[keep]])
    if lap.lap_time_s is not None:
        stations, times = np.append(stations, road_m), np.append(times, lap.lap_time_s)
    return np.interp(places_m, stations, np.maximum.accumulate(times), right=np.nan)


def sectors(lap: Lap, reference: Lap | None, road_m: float, count: int = NUM_SECTORS) -> list[Sector]:
    """The times of a lap over equal parts of the road, beside those of another lap.

    Args:
        lap: The lap.
        reference: What it is compared with; None: nothing.
        road_m: Length of the road [m].
        count: How many parts.
    """
    ends = np.linspace(0.0, road_m, count + 1)
    driven = np.diff(times_at(lap, ends, road_m))
    other = np.diff(times_at(reference, ends, road_m)) if reference is not None else np.full(count, np.nan)
    return [Sector(float(ends[i]), float(ends[i + 1]), _number(driven[i]), _number(other[i])) for i in range(count)]


def time_lost(driven: Lap, reference: Lap, road_m: float) -> tuple[FloatArray, FloatArray]:
    """Places along the road [m], and how much later the driven lap was there than the reference [s]."""
    places = np.linspace(0.0, road_m, 401)
    return places, times_at(driven, places, road_m) - times_at(reference, places, road_m)


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
