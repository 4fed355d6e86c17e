"""How far a drive is behind a reference lap, place by place."""

from __future__ import annotations

import numpy as np


def gaps_s(
    times_s: np.ndarray, stations_m: np.ndarray, reference_times_s: np.ndarray, reference_stations_m: np.ndarray
) -> np.ndarray:
    """Time behind the reference lap at the same place [s], negative before it, shape (T,); NaN where it never was.

    Args:
        times_s: When the car was there, since the start [s], shape (T,).
        stations_m: Where it was, along the centre line [m], shape (T,).
        reference_times_s: The same of the reference lap, shape (R,).
        reference_stations_m: Its places, which never fall, shape (R,).
    """
    at_reference_s = np.interp(stations_m, reference_stations_m, reference_times_s, left=np.nan, right=np.nan)
    return np.asarray(times_s - at_reference_s)
