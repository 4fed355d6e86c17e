"""How far a drive is behind a reference lap, place by place."""

from __future__ import annotations

import numpy as np

from tasks.film.recorder import FilmRecorder
from tasks.sim.reference_lap import stations_m
from tasks.trackmania import course
from tasks.trackmania.reference_laps import driven_reference_lap
from tasks.words.nested import Plain


def reference_gaps_s(task: Plain, film: FilmRecorder) -> np.ndarray | None:
    """How far each shot is behind the reference lap of a task [s]; None: none is stored for its road and car."""
    cars = [shot.car for shot in film.shots if shot.car is not None]
    lap = driven_reference_lap(task) if course.has_course(task) and len(cars) == len(film.shots) else None
    if lap is None:
        return None
    line = np.asarray(course.track_of(task).centre_line)
    places = np.array([(car.x, car.z) for car in cars])
    times_s = np.array([car.time_s for car in cars])
    return gaps_s(times_s, stations_m(line, places), lap.trace.time_s, lap.trace.station_m)


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
