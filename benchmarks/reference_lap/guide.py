"""The fastest lap of the relaxed car, as what the search knows of the road beyond its horizon.

``minimum_time`` makes it, ``search`` reads it. States are rows (offset, direction, speed, yaw rate, steer): ``STATE``.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tasks.sim.vehicle import FloatArray

STATE = ("offset_m", "direction", "speed_mps", "yaw_rate", "steer")
"""Offset to the right of the centre line, heading relative to it [rad], speed along the heading, yaw rate [rad/s] and
steering wheel."""
OFFSET, DIRECTION, SPEED, YAW_RATE, STEER = range(len(STATE))

_BESIDE_S = np.array([0.02, 2.0, 0.001, 0.05, 0.01])
"""What leaving the guide costs [s per square of each part of the state]: its costates hold beside it only."""


class Guide(NamedTuple):
    """A lap over the stations of a mesh, shape (M,) and (M, 5)."""

    station_m: FloatArray
    time_s: FloatArray
    """Race time there [s]."""
    state: FloatArray
    costate: FloatArray
    """Time that the rest of the lap takes longer per unit of each part of the state [s per unit]."""
    gas: FloatArray
    """Share of full gas from there on."""
    brake: FloatArray
    """Share of the brake."""

    def time_to_go_s(self, station_m: FloatArray, state: FloatArray) -> FloatArray:
        """About how long the rest of the lap takes from these states [s], shape (B,), to the second order."""
        off = state - _interpolated(station_m, self.station_m, self.state)
        slope = _interpolated(station_m, self.station_m, self.costate)
        rest = self.time_s[-1] - np.interp(station_m, self.station_m, self.time_s)
        found: FloatArray = rest + np.einsum("ij,ij->i", off, slope + off * _BESIDE_S)
        return found

    def actions_from(self, station_m: float, count: int, step_s: float) -> FloatArray:
        """[gas, brake, steer] of the next steps of a car that is at a station, shape (count, 3)."""
        times = np.interp(station_m, self.station_m, self.time_s) + (np.arange(count) + 0.5) * step_s
        station = np.interp(times, self.time_s, self.station_m)
        is_braking = np.interp(station, self.station_m, self.brake) > 0.5
        steer = np.interp(station, self.station_m, self.state[:, STEER])
        return np.stack([~is_braking, is_braking, steer], axis=1).astype(np.float64)


def _interpolated(at: FloatArray, nodes: FloatArray, rows: FloatArray) -> FloatArray:
    return np.stack([np.interp(at, nodes, column) for column in rows.T], axis=1)
