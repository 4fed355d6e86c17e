"""Decodes the bytes of a car's samples: position, attitude, speed, wheels, pedals."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tasks.recordings.cursor import GbxError
from tasks.recordings.vehicle_record import VehicleSamples

MIN_BYTES = 92
"""A sample must reach beyond the gear, the last byte that is read."""
MAX_COORDINATE_M = 1e6
_MATERIALS = slice(24, 32, 2)

FloatArray = NDArray[np.float64]


class CarStates(NamedTuple):
    """The states of one car at the times of its samples; the frame is that of ``tasks.recordings.recording``."""

    times_ms: NDArray[np.int64]
    positions: FloatArray
    """x, y, z [m], shape (N, 3)."""
    yaw: FloatArray
    """Heading [rad], grows to the right."""
    speed: FloatArray
    """[m/s]"""
    side_speed: FloatArray
    """Speed to the right of the heading [m/s]."""
    steer: FloatArray
    """-1 to 1, right is positive, before an action key limits it."""
    gas: FloatArray
    brake: FloatArray
    gear: FloatArray
    rpm: FloatArray
    materials: FloatArray
    """Under each wheel, shape (N, 4)."""
    turbo: FloatArray


def decode(samples: VehicleSamples) -> CarStates:
    """Reads the samples of a car.

    Raises:
        GbxError: They are too short, out of order, or a position is none.
    """
    rows, times = samples.rows, samples.times_ms
    if rows.shape[1] < MIN_BYTES:
        raise GbxError(f"a sample of a car must have at least {MIN_BYTES} bytes, got {rows.shape[1]}")
    if (np.diff(times) <= 0).any():
        raise GbxError("times of the samples must grow")
    positions = _numbers(rows, 47, "<f4", 3)
    bad = np.flatnonzero(~(np.abs(positions) <= MAX_COORDINATE_M).all(axis=1))
    if len(bad):
        raise GbxError(f"position of sample {bad[0]} must be finite numbers within {MAX_COORDINATE_M:g} m")
    gas_alone, both = rows[:, 15] > 127, rows[:, 18] > 127
    return CarStates(
        times_ms=times,
        positions=positions,
        yaw=_yaw(rows),
        speed=_speed(rows),
        side_speed=(_numbers(rows, 2, "<u2", 1)[:, 0] / 65536 - 0.5) * 2000,
        steer=np.clip(np.ceil(rows[:, 14] * (254 / 255)) - 127, -127, 127) / 127,
        gas=(gas_alone | both).astype(np.float64),
        brake=both.astype(np.float64),
        gear=np.floor((rows[:, 91].astype(np.float64) - 1) / 4),
        rpm=rows[:, 5].astype(np.float64),
        materials=rows[:, _MATERIALS].astype(np.float64),
        turbo=(rows[:, 31] >> 7).astype(np.float64),
    )


def _numbers(rows: NDArray[np.uint8], at: int, kind: str, count: int) -> FloatArray:
    width = np.dtype(kind).itemsize * count
    with np.errstate(invalid="ignore"):  # a signalling NaN
        return np.ascontiguousarray(rows[:, at : at + width]).view(kind).astype(np.float64)


def _yaw(rows: NDArray[np.uint8]) -> FloatArray:
    """Heading of a car whose attitude is a turn by twice an angle about an axis."""
    angle = _numbers(rows, 59, "<u2", 1)[:, 0] * (math.pi / 65535)
    heading = _numbers(rows, 61, "<i2", 1)[:, 0] * (math.pi / 32767)
    pitch = _numbers(rows, 63, "<i2", 1)[:, 0] * (math.pi / 2 / 32767)
    x = np.sin(angle) * np.cos(pitch) * np.cos(heading)
    y = np.sin(angle) * np.cos(pitch) * np.sin(heading)
    z = np.sin(angle) * np.sin(pitch)
    forward_x, forward_z = 2 * (x * z + np.cos(angle) * y), 1 - 2 * (x * x + y * y)
    return -np.arctan2(forward_x, forward_z)


def _speed(rows: NDArray[np.uint8]) -> FloatArray:
    """Speed, stored as a logarithm; the least value means standing."""
    stored = _numbers(rows, 65, "<i2", 1)[:, 0]
    return np.where(stored == -32768, 0.0, np.exp(stored / 1000))
