"""The car alone on endless asphalt: many short drives at once, each from its own state over its own 10 ms inputs.

``tasks.fidelity`` compares them with recordings. What a recording does not hold of a car (steering wheel, yaw rate,
pauses of the gearbox, whether it slides) the car works out itself in a lead-in before the start: it is driven over the
same inputs and put back on the known states every ``SAMPLE_TICKS``.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tasks.recordings.recording import SAMPLE_TICKS
from tasks.sim.vehicle import (
    BORDER_AT,
    FIELD_CELL,
    FIELD_COLUMNS,
    FIELD_ROWS,
    MIN_DISTANCE,
    PLACE_SIZE,
    WALL_AT,
    FloatArray,
    drive_open_loop,
)

STATE_SIZE = 5
"""Of a state: x, z [m], yaw [rad], speed along and across the heading [m/s], in the simulator's frame."""

_ENDLESS_M = 1e9


class Drives(NamedTuple):
    """What is driven; all drives have the same numbers of samples."""

    known: FloatArray
    """States of the lead-in, the last one is the start, shape (N, L + 1, 5)."""
    leads: NDArray[np.int64]
    """How many of the L samples of the lead-in each drive has; those before are not looked at, shape (N,)."""
    gears: NDArray[np.int64]
    """Gear at the first known state, shape (N,)."""
    inputs: FloatArray
    """Steer, gas, brake of each tick, lead-in included, shape (N, (L + samples) * 5, 3)."""


def drive(constants: FloatArray, drives: Drives) -> FloatArray:
    """Where the car is after each sample, shape (N, samples + 1, 5), the start first.

    Args:
        constants: ``VehicleConstants.vector()``.
        drives: N drives.
    """
    place, index, field = _endless_asphalt()
    num_lead = drives.known.shape[1] - 1
    samples = drives.inputs.shape[1] // SAMPLE_TICKS - num_lead
    states = np.empty((len(drives.known), samples + 1, STATE_SIZE))
    drive_open_loop(constants, *drives, SAMPLE_TICKS, place, index, field, states)
    return states


def _endless_asphalt() -> tuple[FloatArray, NDArray[np.int32], NDArray[np.float32]]:
    """A place whose border no car reaches, the index of its one tile, and that tile: none."""
    place = np.zeros(PLACE_SIZE)
    place[[FIELD_CELL, BORDER_AT, WALL_AT, MIN_DISTANCE]] = _ENDLESS_M
    place[[FIELD_ROWS, FIELD_COLUMNS]] = 2
    return place, np.array([1, 0], np.int32), np.zeros((0, 9, 9), np.float32)
