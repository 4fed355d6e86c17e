"""A road in the coordinates of its centre line: station along it, offset to its right, direction relative to it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.points.files import POINT_SPACING_M
from tasks.sim import vehicle
from tasks.sim.track import Track
from tasks.sim.vehicle import FloatArray

_COARSE_POINTS = 10
_WINDOW_M = 60.0


@dataclass(frozen=True)
class Road:
    """Centre line and walls of a track."""

    points: FloatArray
    """(x, z) every 0.1 m [m], shape (P, 2)."""
    heading: FloatArray
    """Direction of the centre line there, without jumps of a full turn [rad], shape (P,)."""
    border_at_m: float
    """Reach of the body from the centre line [m] beyond which the border slows the car down ..."""
    wall_at_m: float
    """... and at which the wall stands."""

    @property
    def length_m(self) -> float:
        """From start to finish [m]."""
        return (len(self.points) - 1) * POINT_SPACING_M

    def heading_at(self, station_m: FloatArray) -> FloatArray:
        """Direction of the centre line [rad], of the shape of ``station_m``."""
        return np.interp(station_m, np.arange(len(self.heading)) * POINT_SPACING_M, self.heading)

    def project(self, x: FloatArray, z: FloatArray, near_m: float) -> tuple[FloatArray, FloatArray]:
        """Station and offset of places within 60 m along the road of ``near_m`` [m], each of shape (B,)."""
        first = max(0, round((near_m - _WINDOW_M) / POINT_SPACING_M))
        window = self.points[first : first + 2 * round(_WINDOW_M / POINT_SPACING_M)]
        places = np.stack([x, z], axis=1)
        coarse = window[::_COARSE_POINTS]
        distance = np.linalg.norm(places[:, None] - coarse, axis=2)  # (B, P)
        begin = np.clip(np.argmin(distance, axis=1) * _COARSE_POINTS - _COARSE_POINTS, 0, len(window) - 1)
        index = np.minimum(begin[:, None] + np.arange(2 * _COARSE_POINTS + 1), len(window) - 1)
        fine = np.linalg.norm(places[:, None] - window[index], axis=2)
        nearest = first + index[np.arange(len(places)), np.argmin(fine, axis=1)]  # (B, P) -> (B,)
        away = places - self.points[nearest]
        sin, cos = np.sin(self.heading[nearest]), np.cos(self.heading[nearest])
        station = nearest * POINT_SPACING_M + away[:, 0] * sin + away[:, 1] * cos
        return station, away[:, 0] * cos - away[:, 1] * sin


def road_of(track: Track) -> Road:
    """The road of a track."""
    points = track.centre_line[:, [0, 2]]
    step = np.gradient(points, axis=0)
    place = track.grids.place
    heading: NDArray[np.float64] = np.unwrap(np.arctan2(step[:, 0], step[:, 1]))
    return Road(points, heading, float(place[vehicle.BORDER_AT]), float(place[vehicle.WALL_AT]))
