"""The car alone on endless asphalt: many short drives at once, each from its own state over its own 10 ms inputs.

``tasks.fidelity`` compares them with recordings. What a recording does not hold of a car (steering wheel, yaw rate,
pauses of the gearbox, whether it slides) the car works out itself in a lead-in before the start: it is driven over the
same inputs and put back on the known states every ``SAMPLE_TICKS``.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from tasks.recordings.recording import SAMPLE_TICKS
from tasks.sim.vehicle import (
    BORDER_AT,
    BRAKE_IN,
    FIELD_CELL,
    FIELD_COLUMNS,
    FIELD_ROWS,
    GAS_IN,
    GEAR,
    MEMORY_SIZE,
    MIN_DISTANCE,
    PLACE_SIZE,
    SPEED_LAT,
    SPEED_LONG,
    STEER_IN,
    TICK_S,
    WALL_AT,
    YAW,
    YAW_RATE,
    FloatArray,
    X,
    Z,
    tick,
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
    _drive(constants, *drives, place, index, field, states)
    return states


def _endless_asphalt() -> tuple[FloatArray, NDArray[np.int32], NDArray[np.float32]]:
    """A place whose border no car reaches, the index of its one tile, and that tile: none."""
    place = np.zeros(PLACE_SIZE)
    place[[FIELD_CELL, BORDER_AT, WALL_AT, MIN_DISTANCE]] = _ENDLESS_M
    place[[FIELD_ROWS, FIELD_COLUMNS]] = 2
    return place, np.array([1, 0], np.int32), np.zeros((0, 9, 9), np.float32)


# Not cached: numba would not notice another ``tick``.
@njit(nogil=True)
def _drive(
    constants: FloatArray,
    known: FloatArray,
    leads: NDArray[np.int64],
    gears: NDArray[np.int64],
    inputs: FloatArray,
    place: FloatArray,
    index: NDArray[np.int32],
    field: NDArray[np.float32],
    states: FloatArray,
) -> None:
    num_lead = known.shape[1] - 1
    for n in range(len(known)):
        memory = np.zeros(MEMORY_SIZE)
        memory[GEAR] = gears[n]
        first = num_lead - leads[n]
        _put(memory, known[n, first])
        for sample in range(first, num_lead):
            _drive_sample(memory, constants, inputs[n], sample, place, index, field)
            # The yaw rate of the sample that ended was off by what the heading is off.
            memory[YAW_RATE] += (known[n, sample + 1, 2] - memory[YAW]) / (SAMPLE_TICKS * TICK_S)
            _put(memory, known[n, sample + 1])
        states[n, 0] = known[n, num_lead]
        for sample in range(1, states.shape[1]):
            _drive_sample(memory, constants, inputs[n], num_lead + sample - 1, place, index, field)
            state = states[n, sample]
            state[0], state[1], state[2] = memory[X], memory[Z], memory[YAW]
            state[3], state[4] = memory[SPEED_LONG], memory[SPEED_LAT]


@njit
def _put(memory: FloatArray, state: FloatArray) -> None:
    memory[X], memory[Z], memory[YAW] = state[0], state[1], state[2]
    memory[SPEED_LONG], memory[SPEED_LAT] = state[3], state[4]


@njit
def _drive_sample(
    memory: FloatArray,
    constants: FloatArray,
    inputs: FloatArray,
    sample: int,
    place: FloatArray,
    index: NDArray[np.int32],
    field: NDArray[np.float32],
) -> None:
    for i in range(sample * SAMPLE_TICKS, (sample + 1) * SAMPLE_TICKS):
        memory[STEER_IN], memory[GAS_IN], memory[BRAKE_IN] = inputs[i, 0], inputs[i, 1], inputs[i, 2]
        tick(memory, constants, place, index, field)
