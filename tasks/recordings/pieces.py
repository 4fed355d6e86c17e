"""Makes recordings from the states of cars: cut where a car jumps, with the inputs of each tick."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from tasks.recordings import spline
from tasks.recordings.pressed_inputs import PressedInputs
from tasks.recordings.recording import SAMPLE_S, SAMPLE_TICKS, TICK_S, Recording
from tasks.recordings.vehicle_samples import CarStates

JUMP_FACTOR = 1.5
"""A step that is longer than the speed explains by this factor is a jump: a respawn or a splice."""
_SLACK_M = 0.3
"""A car that lands or is nudged may move this far without a matching speed [m]."""
_SAMPLE_MS, _TICK_MS = round(1000 * SAMPLE_S), round(1000 * TICK_S)
_MIN_SAMPLES = 2


def cut(cars: Sequence[CarStates], inputs: PressedInputs | None) -> list[Recording]:
    """The pieces of all cars without a jump, each car's in the order of time.

    Args:
        cars: In the order of the file. One that begins before the last one has ended is another driver's.
        inputs: Of the driver.
    """
    pieces, driven_until_ms = [], -np.inf
    for car in cars:
        is_other = car.times_ms[0] < driven_until_ms
        driven_until_ms = max(driven_until_ms, float(car.times_ms[-1]))
        pieces += [_recording(car, part, None if is_other else inputs) for part in _parts(car)]
    return pieces


def is_jump(
    positions: NDArray[np.float64], speeds: NDArray[np.float64], times_s: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Whether each step between neighbouring states is one that no car can drive, shape (N - 1,)."""
    steps = np.linalg.norm(np.diff(positions, axis=0), axis=1)
    fastest = np.maximum(speeds[:-1], speeds[1:])
    return np.asarray(steps > JUMP_FACTOR * fastest * np.diff(times_s) + _SLACK_M)


def _parts(car: CarStates) -> Iterator[slice]:
    """Stretches of equal steps in time without a jump."""
    is_cut = is_jump(car.positions, car.speed, car.times_ms / 1000) | (np.diff(car.times_ms) != _SAMPLE_MS)
    ends = [*(np.flatnonzero(is_cut) + 1).tolist(), len(car.times_ms)]
    begin = 0
    for end in ends:
        if end - begin >= _MIN_SAMPLES:
            yield slice(begin, end)
        begin = end


def _recording(car: CarStates, part: slice, inputs: PressedInputs | None) -> Recording:
    times_ms = car.times_ms[part]
    pressed = _pressed(car, part, inputs)
    acting = _held(car, part) if pressed is None else pressed
    along, across = _velocity(car, part)
    of_states = acting[::SAMPLE_TICKS]
    columns = [
        times_ms, *car.positions[part].T, car.yaw[part], along, across, car.speed[part], *of_states.T,
        car.gear[part], car.rpm[part], *car.materials[part].T, car.turbo[part],
    ]  # fmt: skip
    return Recording(np.stack(columns, axis=1).astype(np.float32), acting.astype(np.float32), pressed is not None)


def _pressed(car: CarStates, part: slice, inputs: PressedInputs | None) -> NDArray[np.float32] | None:
    """The ticks from the first state to the last; None: not all of them are there."""
    if inputs is None:
        return None
    times_ms = car.times_ms[part]
    first, rest = divmod(int(times_ms[0]) - inputs.start_ms, _TICK_MS)
    last = first + SAMPLE_TICKS * (len(times_ms) - 1)
    # The last states of a drive are after its last tick: its inputs are held.
    if rest or first < 0 or first >= len(inputs.rows):
        return None
    ticks = inputs.rows[first : last + 1]
    return np.concatenate([ticks, np.repeat(ticks[-1:], last + 1 - first - len(ticks), axis=0)])


def _held(car: CarStates, part: slice) -> NDArray[np.float64]:
    """The inputs that the samples show, each until the next sample."""
    held = np.stack([car.steer[part], car.gas[part], car.brake[part]], axis=1)
    return np.repeat(held, SAMPLE_TICKS, axis=0)[: SAMPLE_TICKS * (len(held) - 1) + 1]


def _velocity(car: CarStates, part: slice) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Speed along the heading and to the right of it: the direction of the path with the speed that is stored."""
    velocity = spline.slopes(car.positions[part], SAMPLE_S)
    path_speed = np.linalg.norm(velocity, axis=1)
    velocity *= (car.speed[part] / np.maximum(path_speed, 1e-6))[:, None] * (path_speed > 1e-6)[:, None]
    forward_x, forward_z = -np.sin(car.yaw[part]), np.cos(car.yaw[part])
    along = velocity[:, 0] * forward_x + velocity[:, 2] * forward_z
    across = velocity[:, 2] * forward_x - velocity[:, 0] * forward_z
    return along, across
