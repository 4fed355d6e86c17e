"""Stretches of a recording on which a model of the car can be tested: flat clean asphalt, no contact.

``tasks.fidelity`` drives the simulator's car over them.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tasks.recordings.recording import SAMPLE_S, SAMPLE_TICKS, Recording

ASPHALT = 16.0
"""Material byte of asphalt; 0 is a wheel that touches nothing."""
BAND_KMH = 50
"""Width of a band of speed [km/h]."""

_MATERIALS = ("mat0", "mat1", "mat2", "mat3")
_LEAVES_NO_TRACE = (0.0, ASPHALT)
_CLEAN_AFTER_S = 2.0
"""How long wheels keep what they drove through [s]."""
_SETTLED_AFTER_S = 0.1
"""How long the body moves after a landing or the end of a slope [s]."""
_MAX_SLOPE = 0.01
_MAX_CLIMB_MPS = 0.5
_MAX_LOSS_MPS2 = 6.0
"""With gas alone a car only slows down that much when it hits something ..."""
_MAX_COAST_PER_SPEED = 0.5
"""... without gas and brake by so much per speed more [1/s] ..."""
_LEAST_GAIN_MPS2 = 3.0
"""... and with gas alone a slow car gains less only when it pushes against something."""
_SLOW_MPS = (5.0, 25.0)
"""So slow: below the first shift, whose pause has no gain."""
_MAX_JUMP_M = 0.5
_DRIFT_MPS = 3.0
_STEERS_FROM = 0.1


class Manoeuvre(Enum):
    """What a driver does in a stretch; the first that fits, from the top."""

    reverse = "reverse"
    drift = "drift"
    braking = "braking"
    coasting = "coasting"
    steering = "steering"
    straight = "straight"


class Stretch(NamedTuple):
    """A piece of a recording."""

    first: int
    """Its first state."""
    samples: int
    """Steps of 50 ms from that to its last one."""
    manoeuvre: Manoeuvre
    band_kmh: int
    """Lower end of the band of its mean speed [km/h]; bands are ``BAND_KMH`` wide."""


def stretches(recording: Recording, seconds: float) -> list[Stretch]:
    """The usable stretches of this duration that do not overlap; none where the inputs are not known.

    Args:
        recording: A drive.
        seconds: Duration of each [s], a multiple of 50 ms.
    """
    samples = round(seconds / SAMPLE_S)
    is_usable = usable(recording)
    found, first = [], 0
    while first + samples < len(is_usable):
        bad = np.flatnonzero(~is_usable[first : first + samples + 1])
        if len(bad):
            first += int(bad[-1]) + 1
        else:
            found.append(_described(recording, first, samples))
            first += samples
    return found


def usable(recording: Recording) -> NDArray[np.bool_]:
    """Which states lie on flat clean asphalt, with known inputs, nothing hit and no turbo, shape (samples,)."""
    time, speed = recording.column("t_ms"), np.abs(recording.column("u"))
    count = len(time)
    if not recording.has_inputs or count < 2:
        return np.zeros(count, np.bool_)
    materials = np.stack([recording.column(name) for name in _MATERIALS], axis=1)
    step_ok = np.abs(np.diff(time) - 1000 * SAMPLE_S) < 1.0
    climb = np.abs(np.diff(recording.column("y"))) / SAMPLE_S
    is_flat = climb <= _MAX_CLIMB_MPS + _MAX_SLOPE * speed[1:]
    step = np.hypot(np.diff(recording.column("x")), np.diff(recording.column("z")))
    has_jumped = step > _MAX_JUMP_M + 1.5 * SAMPLE_S * np.maximum(speed[1:], speed[:-1])
    has_inputs = SAMPLE_TICKS * np.arange(count) <= len(recording.inputs)
    is_usable = (materials == ASPHALT).sum(axis=1) >= 3
    is_usable &= (recording.column("turbo") == 0) & has_inputs
    is_dirty = np.isin(materials, _LEAVES_NO_TRACE, invert=True).sum(axis=1) > 0
    is_usable &= ~_recently(is_dirty, _CLEAN_AFTER_S)
    is_usable &= ~_recently(np.append(False, ~is_flat), _SETTLED_AFTER_S)
    is_usable[1:] &= step_ok & ~has_jumped & ~_hits(recording)
    return is_usable


def _hits(recording: Recording) -> NDArray[np.bool_]:
    """Whether the car lost more speed in a step than driving explains, shape (samples - 1,)."""
    u, w, yaw = recording.column("u"), recording.column("w"), recording.column("yaw")
    turned = np.diff(yaw) * (w[1:] + w[:-1]) / 2
    force = (np.diff(u) - turned) / SAMPLE_S
    gas, brake = recording.column("gas") > 0, recording.column("brake") > 0
    has_gas, has_none = _through(gas & ~brake), _through(~gas & ~brake)
    is_slow = (u[:-1] > _SLOW_MPS[0]) & (u[:-1] < _SLOW_MPS[1])
    is_pushing = has_gas & is_slow & (force < _LEAST_GAIN_MPS2)
    loses = has_none & (force < -_MAX_LOSS_MPS2 - _MAX_COAST_PER_SPEED * np.abs(u[:-1]))
    return (has_gas & (force < -_MAX_LOSS_MPS2)) | loses | is_pushing


def _through(happens: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether something happens at both ends of a step."""
    return happens[:-1] & happens[1:]


def _recently(happens: NDArray[np.bool_], seconds: float) -> NDArray[np.bool_]:
    """Whether something happens now or happened within the last seconds."""
    reach = round(seconds / SAMPLE_S)
    total = np.cumsum(np.concatenate([np.zeros(reach + 1), happens]))
    return total[reach + 1 :] > total[: len(happens)]


def _described(recording: Recording, first: int, samples: int) -> Stretch:
    inside = slice(first, first + samples + 1)
    ticks = recording.inputs[SAMPLE_TICKS * first : SAMPLE_TICKS * (first + samples)]
    u, w = recording.column("u")[inside], recording.column("w")[inside]
    band = int(3.6 * np.hypot(u, w).mean() // BAND_KMH) * BAND_KMH
    return Stretch(first, samples, _manoeuvre(u, w, *ticks.T), band)


def _manoeuvre(
    u: NDArray[np.float32],
    w: NDArray[np.float32],
    steer: NDArray[np.float32],
    gas: NDArray[np.float32],
    brake: NDArray[np.float32],
) -> Manoeuvre:
    has_both = (gas > 0) & (brake > 0)
    if u.min() < -0.5:
        return Manoeuvre.reverse
    if np.abs(w).max() > _DRIFT_MPS or (has_both.any() and u.max() > 55.0 / 3.6):
        return Manoeuvre.drift
    if (brake > 0).mean() > 0.1:
        return Manoeuvre.braking
    if (gas == 0).mean() > 0.2:
        return Manoeuvre.coasting
    return Manoeuvre.steering if np.abs(steer).mean() > _STEERS_FROM else Manoeuvre.straight
