"""The telemetry of a whole drive in the live game, as a recording of states and inputs."""

from __future__ import annotations

import numpy as np

from tasks.game.protocols import Telemetry
from tasks.recordings.recording import SAMPLE_S, SAMPLE_TICKS, TICK_S, UNKNOWN_MATERIAL, Recording

RPM_PER_BYTE = 124.0
"""Recordings have the engine's speed as a byte; 11,000 a minute are 88 of it (a guess)."""
_MAX_RECORDS = 2_000_000
"""Nine hours at 60 records a second; what follows is left out."""


class TelemetryLog:
    """Collects telemetry records."""

    def __init__(self) -> None:
        self._times_s: list[float] = []
        self._records: list[Telemetry] = []

    def add(self, time_s: float, telemetry: Telemetry) -> None:
        """Takes the next record; one that is not newer, or holds a number that is none, is left out.

        Args:
            time_s: When it arrived [s].
            telemetry: The record.
        """
        is_newer = not self._times_s or time_s > self._times_s[-1]
        if is_newer and len(self._times_s) < _MAX_RECORDS and telemetry.is_finite:
            self._times_s.append(time_s)
            self._records.append(telemetry)

    def recording(self, begin_s: float, end_s: float) -> Recording | None:
        """What was driven between two times; None: there are fewer than two states.

        Few plugins tell the heading, none the ground: the heading is where the car moves to, and the materials are
        unknown.
        """
        times = np.array(self._times_s)
        is_inside = (times >= begin_s) & (times <= end_s)
        if is_inside.sum() < 2 or end_s - begin_s < SAMPLE_S:
            return None
        records = np.array(self._records)[is_inside]
        return _recording(times[is_inside] - times[is_inside][0], records)


def _recording(times_s: np.ndarray, records: np.ndarray) -> Recording:
    states_s = np.arange(0.0, times_s[-1], SAMPLE_S)
    ticks_s = TICK_S * np.arange(SAMPLE_TICKS * (len(states_s) - 1) + 1)

    def column(name: str) -> np.ndarray:
        return records[:, Telemetry._fields.index(name)].astype(np.float64)

    def held(name: str, moments_s: np.ndarray) -> np.ndarray:
        return column(name)[np.searchsorted(times_s, moments_s + 1e-9, side="right") - 1]

    x, y, z, speed = (np.interp(states_s, times_s, column(name)) for name in ("x", "y", "z", "speed"))
    steer, gas, brake = held("steer", ticks_s), held("gas", ticks_s) > 0.5, held("is_braking", ticks_s) > 0.5
    inputs = np.column_stack([np.clip(steer, -1, 1), gas, brake]).astype(np.float32)
    nothing = np.zeros(len(states_s))
    states = np.column_stack([
        1000 * states_s, x, y, z, _heading(x, z, speed), speed, nothing, np.abs(speed), inputs[::SAMPLE_TICKS],
        held("gear", states_s), held("rpm", states_s) / RPM_PER_BYTE, *(UNKNOWN_MATERIAL + nothing for _ in range(4)),
        nothing,
    ])  # fmt: skip
    return Recording(states.astype(np.float32), inputs, True)


def _heading(x: np.ndarray, z: np.ndarray, speed: np.ndarray) -> np.ndarray:
    """Where the car moves to [rad], to the right positive; while it hardly moves, where it did or will."""
    ahead_x, ahead_z = np.gradient(x), np.gradient(z)
    moves = np.flatnonzero(np.hypot(ahead_x, ahead_z) > 0.01)
    if not len(moves):
        return np.zeros(len(x))
    backwards = np.sign(speed[moves]) < 0
    yaw = np.unwrap(-np.arctan2(ahead_x[moves], ahead_z[moves]) + np.pi * backwards)
    return np.interp(np.arange(len(x)), moves, yaw)
