"""The car: constants, one 10 ms tick of physics, and the timeline that strings ticks, controls and frames together.

``tasks.sim.game`` calls ``advance``; nothing here knows of clocks, pictures or files. All kernels of this file are
compiled by numba without fastmath, so that equal inputs give bit-identical cars. numba's cache watches one file only:
a kernel may therefore call kernels of its own file only. ``advance_all`` and ``send_all`` do the same for many cars on
all cores.

The car is TrackMania 2020's on flat asphalt, as recordings of it show; docs/simulator.md has the laws, where
each number comes from, and what is still a guess.

World frame: x to the right and z forward at yaw 0 (heading +z), y up; yaw grows clockwise seen from above, that is to
the right. Forward is (sin yaw, cos yaw), right is (cos yaw, -sin yaw) in (x, z).
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_right
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from tasks.words.refusals import require

FloatArray = NDArray[np.float64]

TICK_S = 0.01
"""Duration of a physics tick [s], as in the game."""
FRAME_S = 1.0 / 60.0
"""Time between two rendered frames [s]."""

TURN_NODES_KMH = (0, 10, 20, 30, 40, 55, 70, 85, 100, 130, 160, 200, 250, 300, 350, 400, 450)
"""Speeds of the nodes of ``turn_rate`` [km/h]."""
SIDEWAYS_NODES_MPS = (0, 7, 14, 22, 32, 50, 63, 80, 95, 125)
"""Speeds of the nodes of ``sideways_per_turn`` and ``sideways_per_steer`` [m/s]."""
FORCE_NODES_BRAKING_MPS = (0, 5, 8, 12.5, 16.5, 20.5, 26)
"""Sideways speeds of the nodes of ``slide_force_braking`` [m/s]."""
FORCE_NODES_FREE_MPS = (0, 4.7, 6.9, 9, 14, 18, 21, 26)
"""Sideways speeds of the nodes of ``slide_force_free`` [m/s]."""
DRIVE_NODES_MPS = (0, 2.45, 4.67, 6.9, 9)
"""Sideways speeds of the nodes of ``slide_drive`` [m/s]."""


class VehicleFactors(NamedTuple):
    """What ``VehicleConstants.scaled`` multiplies."""

    acceleration: float = 1.0
    """Full gas."""
    grip: float = 1.0
    """Brake, and sideways force of a slide."""
    steering_gain: float = 1.0
    """Yaw rate at full steer."""
    steering_delay: float = 1.0
    """Time constant of the yaw rate."""


@dataclass(frozen=True)
class VehicleConstants:
    """Everything that makes the car what it is. The defaults are the game's car.

    Tables are linear between their nodes and constant beyond them. In brackets: the unit, then the source. "n" counts
    50 ms samples of recordings of the real car, "maps" the maps that they are from; "fit": least squares over 737
    windows of one second from 18 maps; "guess": no data.
    """

    acceleration: tuple[float, ...] = (15.80, 10.96, 6.99, 5.49)
    """Full gas in the four ranges of speed [m/s2; n 526, 162, 5340, 3122; 18, 5, 10, 4 maps]. No drag comes off it."""
    acceleration_until_kmh: tuple[float, ...] = (101.0, 200.5, 400.5)
    """Ends of the first three ranges [km/h; the same; +-1, 0.5, 0.5]."""
    upshift_kmh: tuple[float, ...] = (102.0, 161.9, 235.0, 341.9)
    """Speeds of the shifts to gears 2, 3, 4, 5 [km/h; n 53, 18, 10, 65]."""
    downshift_kmh: tuple[float, ...] = (90.0, 142.0, 202.0, 300.0)
    """Speeds below which gears 2, 3, 4, 5 are left [km/h; n 2, 2, 1, 3: rough]."""
    shift_pause_s: tuple[float, ...] = (0.30, 0.18, 0.23, 0.17)
    """Time without drive after the shift to gears 2, 3, 4, 5 [s; n 45, 11, 23, 281; +-0.02]."""
    steer_loss: float = 0.46
    """Acceleration that full steer costs, backwards too; grows with the square of the steer [m/s2; as acceleration]."""
    steer_loss_slow: float = 3.1
    """The same at standstill [m/s2; fit, also of maps held out elsewhere] ..."""
    steer_loss_fade: float = 0.1116
    """... and by how much less per speed, down to ``steer_loss`` [1/s; the same]."""
    gas_rolling_back: float = 17.3
    """Gas, with or without the brake, against rolling backwards faster than 2.2 m/s [m/s2; few samples] ..."""
    gas_rolling_back_slow: float = 9.0
    """... and gas alone slower than that, down to 0.3 m/s [m/s2; few samples]."""
    both_pedals: float = 10.08
    """Gas and brake together above 20 m/s, extrapolated to standstill [m/s2; n 114, 3 maps] ..."""
    both_pedals_per_speed: float = 0.1116
    """... and by how much less per speed [1/s; the same]."""
    both_pedals_slow: float = 1.6
    """Deceleration of gas and brake together below 20 m/s [m/s2; measured at 31 km/h only]."""
    coast: float = 1.06
    """Deceleration without gas and brake at standstill [m/s2; n 312, 4 maps] ..."""
    coast_per_speed: float = 0.296
    """... its growth with speed [1/s; the same] ..."""
    coast_per_turn: float = 0.79
    """... and with the yaw rate [m/s2 per rad/s; the same]."""
    brake_slow: float = 17.4
    """Least deceleration of the brake alone [m/s2; n 4, 0-20 km/h]."""
    brake_per_speed: float = 0.752
    """Deceleration of the brake alone per speed, where that is more [1/s; n 8, one map, 147-195 km/h; else a guess]."""
    brake_sliding_per_speed: float = 0.42
    """The same in a slide [1/s; n 5, one map, 295-326 km/h]."""
    reverse: float = 13.9
    """Acceleration backwards from standstill, brake alone [m/s2; up to 95 km/h] ..."""
    reverse_per_speed: float = 0.44
    """... and by how much less per speed [1/s; the same]."""
    steer_slew: float = 20.0
    """Rate of the steering wheel, centre to full lock = 1 [1/s; 76 steps, 13 maps; fit]."""
    yaw_lag_s: float = 0.145
    """Time constant with which the yaw rate follows the wheel [s; the same]."""
    turn_rate: tuple[float, ...] = (
        0.0, 0.475, 0.783, 1.138, 1.314, 1.528, 1.699, 1.777, 1.761, 1.547, 1.370, 1.153, 1.015, 0.887, 0.862, 0.839,
        0.808,
    )  # fmt: skip
    """Yaw rate at full steer over ``TURN_NODES_KMH``; at less steer its share [rad/s; fit]. It holds in a slide too."""
    sideways_per_turn: tuple[float, ...] = (-0.101, 0.306, 0.484, 0.725, 0.674, 1.215, 1.267, 1.765, 1.981, 2.098)
    """Sideways speed of a gripping car to the outside, per yaw rate, over ``SIDEWAYS_NODES_MPS`` [m; fit] ..."""
    sideways_per_steer: tuple[float, ...] = (0.104, 0.367, 0.500, 0.557, 0.687, 0.680, 0.648, 0.820, 0.754, 0.735)
    """... and to the inside, per steer [m/s; fit]."""
    sideways_braking: float = -0.85
    """To the inside per steer, in addition, brake alone above 15 m/s [m/s; fit]."""
    sideways_reverse: float = 0.42
    """Sideways speed backwards, per yaw rate [m; fit]."""
    sideways_lag_s: float = 0.0084
    """Time constant with which a gripping car takes that sideways speed [s; fit]."""
    slide_from_mps: float = 55.0
    """Gas and brake together start a slide above this speed [m/s; seen from 67 on, the edge is a guess] ..."""
    slide_from_pull: float = 30.0
    """... where speed times yaw rate is more than this [m/s2; seen from 43 on, the edge is a guess]."""
    slide_from_sideways: float = 2.6
    """A car that goes sideways faster than this slides, above 15 m/s [m/s; fit]."""
    slide_until_sideways: float = 1.3
    """The slide ends below this sideways speed, with the brake on below 15 m/s only [m/s; 1.2-1.3 in 5 maps]."""
    slide_force_braking: tuple[float, ...] = (14.0, 21.8, 28.3, 36.8, 40.3, 44.3, 53.0)
    """Sideways force of a slide, brake on, over ``FORCE_NODES_BRAKING_MPS`` [m/s2; n 114, 3 maps]."""
    slide_force_free: tuple[float, ...] = (86.2, 86.1, 91.0, 94.4, 95.8, 101.6, 109.7, 115.0)
    """The same, brake off, over ``FORCE_NODES_FREE_MPS`` [m/s2; n 223, 5 maps]."""
    slide_drive: tuple[float, ...] = (0.0, 0.0, 1.46, 2.58, 2.85)
    """What a slide adds to full gas, over ``DRIVE_NODES_MPS`` [m/s2; n 223, 5 maps]."""
    rpm_per_kmh: tuple[float, ...] = (107.5, 63.9, 46.9, 32.1, 24.8)
    """Engine speed per speed in gears 1 to 5 [1/min per km/h; ratios measured, the scale is a guess]."""
    rpm_max: float = 11000.0
    """Highest engine speed that is shown [1/min; known of the game]."""
    rpm_idle: float = 800.0
    """Lowest [1/min; guess]."""
    off_road_drag: float = 1.4
    """Deceleration per speed with the body fully over the border [1/s; guess]."""
    off_road_grip: float = 0.7
    """Fraction of yaw rate and sideways force that is left there [guess]."""
    half_length: float = 2.0
    """Half the length of the body [m; guess]."""
    half_width: float = 0.95
    """Half its width [m; guess]."""
    wall_loss: float = 0.8
    """Speed along the wall lost per speed into it [guess]."""
    wall_bounce: float = 0.1
    """Fraction of the speed into the wall with which the car leaves it [guess]."""
    wall_scrape: float = 10.0
    """Deceleration along the wall while pressed against it [m/s2; guess]."""
    wall_turn: float = 4.0
    """Rate at which the wall turns a nose-in car along itself [rad/s; guess]."""
    contact_gap_s: float = 0.2
    """Time apart that makes two touches two contacts [s; a matter of counting]."""

    def __post_init__(self) -> None:
        for field in fields(self):
            values, usual = np.atleast_1d(getattr(self, field.name)), _num_values(field.name)
            if values.size != usual:
                raise ValueError(f"{field.name} must have {usual} values, got {values.size}")
            for value in values.tolist():
                _require_in_range(field.name, value)
        for name in ("acceleration_until_kmh", "upshift_kmh", "downshift_kmh"):
            speeds = getattr(self, name)
            if any(low >= high for low, high in itertools.pairwise(speeds)):
                raise ValueError(f"{name} must grow from gear to gear or range to range, got {list(speeds)}")
        for down, up in zip(self.downshift_kmh, self.upshift_kmh, strict=True):
            if down >= up:
                raise ValueError(f"downshift_kmh must be below upshift_kmh, gear by gear, got {down:g} and {up:g}")

    def scaled(self, factors: VehicleFactors) -> VehicleConstants:
        """This car with some of its properties multiplied."""
        if factors == VehicleFactors():
            return self

        def times(factor: float, values: tuple[float, ...]) -> tuple[float, ...]:
            return tuple(factor * value for value in values)

        return replace(
            self,
            acceleration=times(factors.acceleration, self.acceleration),
            brake_slow=factors.grip * self.brake_slow,
            brake_per_speed=factors.grip * self.brake_per_speed,
            brake_sliding_per_speed=factors.grip * self.brake_sliding_per_speed,
            slide_force_braking=times(factors.grip, self.slide_force_braking),
            slide_force_free=times(factors.grip, self.slide_force_free),
            turn_rate=times(factors.steering_gain, self.turn_rate),
            yaw_lag_s=factors.steering_delay * self.yaw_lag_s,
        )

    def vector(self) -> FloatArray:
        """All constants in field order, tables node by node, for the kernels, shape (number of values,)."""
        return np.hstack([getattr(self, field.name) for field in fields(self)]).astype(np.float64)


ANY_SIGN = frozenset({"sideways_per_turn", "sideways_per_steer", "sideways_braking", "sideways_reverse", "slide_drive"})
"""Constants that may be negative."""
_ABOVE_ZERO = frozenset(
    {"acceleration", "steer_slew", "yaw_lag_s", "sideways_lag_s", "rpm_per_kmh", "rpm_max", "half_length", "half_width"}
)
_FRACTIONS = frozenset({"off_road_grip", "wall_bounce"})
_MOST = 1e5


def _require_in_range(name: str, value: float) -> None:
    """Refuses what no car can have; not a number is never in range."""
    low, high = -_MOST if name in ANY_SIGN else 0.0, 1.0 if name in _FRACTIONS else _MOST
    expected = f"> 0 and <= {high:g}" if name in _ABOVE_ZERO else f"between {low:g} and {high:g}"
    require(low <= value <= high and (value > 0.0 or name not in _ABOVE_ZERO), name, value, expected)


def _num_values(name: str) -> int:
    return int(np.size(getattr(VehicleConstants, name)))


def layout() -> dict[str, slice]:
    """Where each constant lies in ``VehicleConstants.vector()``."""
    parts, at = {}, 0
    for field in fields(VehicleConstants):
        parts[field.name] = slice(at, at + _num_values(field.name))
        at = parts[field.name].stop
    return parts


_C = {name: part.start for name, part in layout().items()}
_ACCELERATION, _ACCELERATION_UNTIL = _C["acceleration"], _C["acceleration_until_kmh"]
_UPSHIFT, _DOWNSHIFT, _SHIFT_PAUSE = _C["upshift_kmh"], _C["downshift_kmh"], _C["shift_pause_s"]
_STEER_LOSS, _STEER_LOSS_SLOW, _STEER_LOSS_FADE = _C["steer_loss"], _C["steer_loss_slow"], _C["steer_loss_fade"]
_GAS_BACK, _GAS_BACK_SLOW = _C["gas_rolling_back"], _C["gas_rolling_back_slow"]
_BOTH, _BOTH_PER_SPEED, _BOTH_SLOW = _C["both_pedals"], _C["both_pedals_per_speed"], _C["both_pedals_slow"]
_COAST, _COAST_PER_SPEED, _COAST_PER_TURN = _C["coast"], _C["coast_per_speed"], _C["coast_per_turn"]
_BRAKE_SLOW, _BRAKE, _BRAKE_SLIDING = _C["brake_slow"], _C["brake_per_speed"], _C["brake_sliding_per_speed"]
_REVERSE, _REVERSE_PER_SPEED = _C["reverse"], _C["reverse_per_speed"]
_STEER_SLEW, _YAW_LAG, _TURN_RATE = _C["steer_slew"], _C["yaw_lag_s"], _C["turn_rate"]
_SIDEWAYS_TURN, _SIDEWAYS_STEER = _C["sideways_per_turn"], _C["sideways_per_steer"]
_SIDEWAYS_BRAKING, _SIDEWAYS_REVERSE = _C["sideways_braking"], _C["sideways_reverse"]
_SIDEWAYS_LAG = _C["sideways_lag_s"]
_SLIDE_SPEED, _SLIDE_PULL = _C["slide_from_mps"], _C["slide_from_pull"]
_SLIDE_FROM, _SLIDE_UNTIL = _C["slide_from_sideways"], _C["slide_until_sideways"]
_FORCE_BRAKING, _FORCE_FREE, _SLIDE_DRIVE = _C["slide_force_braking"], _C["slide_force_free"], _C["slide_drive"]
_RPM, _RPM_MAX, _RPM_IDLE = _C["rpm_per_kmh"], _C["rpm_max"], _C["rpm_idle"]
_OFF_ROAD_DRAG, _OFF_ROAD_GRIP = _C["off_road_drag"], _C["off_road_grip"]
_HALF_LENGTH, _HALF_WIDTH = _C["half_length"], _C["half_width"]
_WALL_LOSS, _WALL_BOUNCE = _C["wall_loss"], _C["wall_bounce"]
_WALL_SCRAPE, _WALL_TURN, _CONTACT_GAP = _C["wall_scrape"], _C["wall_turn"], _C["contact_gap_s"]

_TURN_NODES = np.array(TURN_NODES_KMH, np.float64)
_SIDEWAYS_NODES = np.array(SIDEWAYS_NODES_MPS, np.float64)
_FORCE_NODES_BRAKING = np.array(FORCE_NODES_BRAKING_MPS, np.float64)
_FORCE_NODES_FREE = np.array(FORCE_NODES_FREE_MPS, np.float64)
_DRIVE_NODES = np.array(DRIVE_NODES_MPS, np.float64)

# Layout of the memory vector: the car at the newest tick ...
X, Z, YAW, SPEED_LONG, SPEED_LAT, YAW_RATE, STEER, GEAR, RPM = range(9)
GAS_IN, BRAKE_IN, STEER_IN = 9, 10, 11
SHIFT_LEFT, SLIDING, DISTANCE, FINISH_TIME, CONTACTS, IMPACT, SINCE_CONTACT, OFF_ROAD = range(12, 20)
# ... the timeline ...
TICK, NEXT_FRAME, NUM_PENDING, INPUT_DELAY, FRAME_PHASE, HEIGHT = range(20, 26)
# ... the telemetry record of the newest frame, the pose of that frame and of the one that is on the screen ...
RECORD = 26
RECORD_SIZE = 14
POSE = RECORD + RECORD_SIZE
SCREEN_POSE = POSE + 3
# ... and the controls that were sent but do not act yet: (tick, gas, brake, steer) each.
PENDING = SCREEN_POSE + 3
MAX_PENDING = 32
MEMORY_SIZE = PENDING + 4 * MAX_PENDING

# Layout of the place vector, which describes a track to the kernels.
FIELD_X, FIELD_Z, FIELD_CELL, BORDER_AT, WALL_AT, FINISH_X, FINISH_Z, FINISH_DX, FINISH_DZ, GATE_HALF, MIN_DISTANCE = (
    range(11)
)
FIELD_ROWS, FIELD_COLUMNS, BLOCK_ROWS, BLOCK_COLUMNS = range(11, 15)
INDEX_AT = 15
"""Where the index of this track begins, in an array with those of several."""
PLACE_SIZE = 16

FAR_FROM_ROAD_M = 1000.0
"""What the field holds where no road is near [m]."""

NUM_GEARS = 5
_NUM_STEPS = 3
_REVERSE_GEAR_BELOW_MPS = -0.5
_STANDS_BELOW_MPS = 0.3
"""Slower than this the car counts as standing for brake (reverse) and gas (drive off)."""
_ROLLS_BACK_SLOWLY_MPS = 2.2
_BOTH_PEDALS_FROM_MPS = 20.0
_SLIDES_FROM_MPS = 15.0
_CLEAR_SIDEWAYS_MPS = 0.3
_TOLERANCE_S = 1e-6
"""How late a tick or frame may seem to be by the rounding of the time steps that led there [s]."""


def acceleration_at(constants: VehicleConstants, speed_mps: float) -> float:
    """Full-gas acceleration [m/s2] at ``speed_mps``, gear shifts aside."""
    return constants.acceleration[bisect_right(constants.acceleration_until_kmh, 3.6 * abs(speed_mps))]


def turn_rate_at(constants: VehicleConstants, speed_mps: float) -> float:
    """Yaw rate at full steer [rad/s] of a car that drives at ``speed_mps``."""
    return float(np.interp(3.6 * abs(speed_mps), TURN_NODES_KMH, constants.turn_rate))


def new_memory() -> FloatArray:
    """A zeroed memory vector; ``reset_memory`` makes it a car on a start line."""
    return np.zeros(MEMORY_SIZE)


@njit(cache=True)
def reset_memory(
    memory: FloatArray,
    x: float,
    height: float,
    z: float,
    yaw: float,
    frame_phase_s: float,
    input_delay_ticks: int,
    constants: FloatArray,
    speed_mps: float,
    distance_m: float,
    sideways_mps: float,
) -> None:
    """Puts the car at a pose, at time 0, with the first frame boundary at ``frame_phase_s``.

    It moves with ``speed_mps`` ahead, in the gear of that speed, and ``sideways_mps`` to the right, and has driven
    ``distance_m``.
    """
    memory[:] = 0.0
    memory[X], memory[HEIGHT], memory[Z], memory[YAW] = x, height, z, yaw
    memory[SPEED_LONG], memory[SPEED_LAT], memory[DISTANCE] = speed_mps, sideways_mps, distance_m
    memory[GEAR] = 1.0
    while memory[GEAR] < NUM_GEARS and 3.6 * speed_mps >= constants[_UPSHIFT + int(memory[GEAR]) - 1]:
        memory[GEAR] += 1.0
    memory[SINCE_CONTACT] = 1e9
    memory[FINISH_TIME] = math.nan
    memory[FRAME_PHASE] = frame_phase_s
    memory[INPUT_DELAY] = input_delay_ticks
    memory[RPM] = constants[_RPM_IDLE]
    _take_frame(memory)
    _take_frame(memory)
    memory[NEXT_FRAME] = 0.0


@njit(cache=True)
def advance(
    memory: FloatArray, now_s: float, constants: FloatArray, place: FloatArray, index: np.ndarray, field: np.ndarray
) -> float:
    """Runs all ticks and frames up to ``now_s`` (since the restart) and returns the age of the newest frame [s].

    Calling it often or once gives the same car: ticks lie on a fixed grid, frames on theirs, and each frame shows the
    newest tick at its boundary.
    """
    last_tick = math.floor((now_s + _TOLERANCE_S) / TICK_S)
    while True:
        frame_time = memory[FRAME_PHASE] + memory[NEXT_FRAME] * FRAME_S
        tick_time = (memory[TICK] + 1.0) * TICK_S
        if frame_time < tick_time - _TOLERANCE_S:
            if frame_time > now_s + _TOLERANCE_S:
                break
            _take_frame(memory)
        elif memory[TICK] < last_tick:
            _take_pending(memory)
            tick(memory, constants, place, index, field)
        else:
            break
    return max(0.0, now_s - (memory[FRAME_PHASE] + (memory[NEXT_FRAME] - 1.0) * FRAME_S))


@njit(cache=True)
def send(
    memory: FloatArray,
    now_s: float,
    gas: float,
    brake: float,
    steer: float,
    constants: FloatArray,
    place: FloatArray,
    index: np.ndarray,
    field: np.ndarray,
) -> None:
    """Advances to ``now_s`` and sends controls; they act from the current tick on, plus the input delay.

    Gas and brake are on above 0, else off, as in the game; the steer is analog.
    """
    advance(memory, now_s, constants, place, index, field)
    due = math.floor((now_s + _TOLERANCE_S) / TICK_S) + memory[INPUT_DELAY]
    count = int(memory[NUM_PENDING])
    if count > 0 and memory[PENDING + 4 * (count - 1)] == due:
        count -= 1
    at = PENDING + 4 * count
    memory[at] = due
    memory[at + 1] = 1.0 if gas > 0.0 else 0.0
    memory[at + 2] = 1.0 if brake > 0.0 else 0.0
    memory[at + 3] = min(max(steer, -1.0), 1.0)
    memory[NUM_PENDING] = count + 1


@njit(cache=True, parallel=True, nogil=True)
def advance_all(
    memory: FloatArray,
    now_s: FloatArray,
    constants: FloatArray,
    places: FloatArray,
    index: np.ndarray,
    field: np.ndarray,
) -> None:
    """``advance`` for each car, each to its own time: a row of ``memory``, ``now_s``, ``constants`` and ``places``."""
    for car in prange(memory.shape[0]):
        advance(memory[car], now_s[car], constants[car], places[car], index, field)


@njit(cache=True, parallel=True, nogil=True)
def send_all(
    memory: FloatArray,
    now_s: FloatArray,
    controls: FloatArray,
    is_sent: np.ndarray,
    constants: FloatArray,
    places: FloatArray,
    index: np.ndarray,
    field: np.ndarray,
) -> None:
    """``send`` to each car whose ``is_sent`` is true its row (gas, brake, steer) of ``controls``."""
    for car in prange(memory.shape[0]):
        if is_sent[car]:
            gas, brake, steer = controls[car, 0], controls[car, 1], controls[car, 2]
            send(memory[car], now_s[car], gas, brake, steer, constants[car], places[car], index, field)


@njit(cache=True)
def tick(memory: FloatArray, constants: FloatArray, place: FloatArray, index: np.ndarray, field: np.ndarray) -> None:
    """Advances the car by one tick with the controls that act now."""
    x_before, z_before = memory[X], memory[Z]
    _move_steering(memory, constants)
    _shift_gears(memory, constants)
    _start_or_end_slide(memory, constants)
    _move_body(memory, constants)
    _touch_walls(memory, constants, place, index, field)
    step_x, step_z = memory[X] - x_before, memory[Z] - z_before
    memory[DISTANCE] += math.sqrt(step_x * step_x + step_z * step_z)
    _cross_finish(memory, place, x_before, z_before)
    memory[TICK] += 1.0


@njit(cache=True)
def sample_field(
    index: np.ndarray, field: np.ndarray, place: FloatArray, x: float, z: float
) -> tuple[float, float, float]:
    """Distance to the centre line [m] at a point, and its gradient (d/dx, d/dz), bilinear.

    Tiles of 8 x 8 cells, with the points at all their corners, are found as ``tasks.sim.grids`` describes.
    """
    cell = place[FIELD_CELL]
    column = (x - place[FIELD_X]) / cell
    row = (z - place[FIELD_Z]) / cell
    column = min(max(column, 0.0), place[FIELD_COLUMNS] - 1.001)
    row = min(max(row, 0.0), place[FIELD_ROWS] - 1.001)
    j, i = int(column), int(row)
    b, a = column - j, row - i
    tiles = index[int(place[INDEX_AT]) + (i >> 9) * int(place[BLOCK_COLUMNS]) + (j >> 9)]
    tile = index[tiles + ((i >> 3) & 63) * 64 + ((j >> 3) & 63)] >> 8
    if tile >= len(field):
        return FAR_FROM_ROAD_M, 0.0, 0.0
    low_i, low_j = i & 7, j & 7
    d00, d01 = float(field[tile, low_i, low_j]), float(field[tile, low_i, low_j + 1])
    d10, d11 = float(field[tile, low_i + 1, low_j]), float(field[tile, low_i + 1, low_j + 1])
    low, high = d00 + b * (d01 - d00), d10 + b * (d11 - d10)
    slope_x = ((1.0 - a) * (d01 - d00) + a * (d11 - d10)) / cell
    return low + a * (high - low), slope_x, (high - low) / cell


@njit(cache=True)
def _table(nodes: FloatArray, constants: FloatArray, at: int, value: float) -> float:
    """A table of the constants, which begins at ``at``, linear between its nodes and constant beyond them."""
    last = len(nodes) - 1
    if value >= nodes[last]:
        return constants[at + last]
    i = 0
    while value >= nodes[i + 1]:
        i += 1
    fraction = (value - nodes[i]) / (nodes[i + 1] - nodes[i])
    return constants[at + i] + max(fraction, 0.0) * (constants[at + i + 1] - constants[at + i])


@njit(cache=True)
def _take_pending(memory: FloatArray) -> None:
    """Lets the controls act that are due at this tick."""
    count = int(memory[NUM_PENDING])
    taken = 0
    while taken < count and memory[PENDING + 4 * taken] <= memory[TICK]:
        at = PENDING + 4 * taken
        memory[GAS_IN], memory[BRAKE_IN], memory[STEER_IN] = memory[at + 1], memory[at + 2], memory[at + 3]
        taken += 1
    if taken > 0:
        for i in range(4 * (count - taken)):
            memory[PENDING + i] = memory[PENDING + 4 * taken + i]
        memory[NUM_PENDING] = count - taken


@njit(cache=True)
def _take_frame(memory: FloatArray) -> None:
    """Renders a frame: the previous one reaches the screen, telemetry becomes that of the newest tick."""
    for i in range(3):
        memory[SCREEN_POSE + i] = memory[POSE + i]
        memory[POSE + i] = memory[X + i]
    u, w = memory[SPEED_LONG], memory[SPEED_LAT]
    memory[RECORD] = math.sqrt(u * u + w * w)
    memory[RECORD + 1] = memory[DISTANCE]
    memory[RECORD + 2], memory[RECORD + 3], memory[RECORD + 4] = memory[X], memory[HEIGHT], memory[Z]
    memory[RECORD + 5], memory[RECORD + 6] = memory[STEER_IN], memory[GAS_IN]
    memory[RECORD + 7] = 1.0 if memory[BRAKE_IN] > 0.0 else 0.0
    memory[RECORD + 8] = 0.0 if math.isnan(memory[FINISH_TIME]) else 1.0
    memory[RECORD + 9], memory[RECORD + 10] = memory[GEAR], memory[RPM]
    sine, cosine = math.sin(memory[YAW]), math.cos(memory[YAW])
    memory[RECORD + 11], memory[RECORD + 12] = u * sine + w * cosine, u * cosine - w * sine
    memory[RECORD + 13] = memory[YAW]
    memory[NEXT_FRAME] += 1.0


@njit(cache=True)
def _move_steering(memory: FloatArray, constants: FloatArray) -> None:
    limit = constants[_STEER_SLEW] * TICK_S
    change = memory[STEER_IN] - memory[STEER]
    memory[STEER] += min(max(change, -limit), limit)


@njit(cache=True)
def _shift_gears(memory: FloatArray, constants: FloatArray) -> None:
    """Changes gear by speed and sets the engine speed."""
    kmh = 3.6 * memory[SPEED_LONG]
    gear = int(memory[GEAR])
    memory[SHIFT_LEFT] = max(0.0, memory[SHIFT_LEFT] - TICK_S)
    if memory[SPEED_LONG] < _REVERSE_GEAR_BELOW_MPS:
        gear = 0
    elif gear == 0:
        gear = 1
    elif gear < NUM_GEARS and kmh >= constants[_UPSHIFT + gear - 1]:
        memory[SHIFT_LEFT] = constants[_SHIFT_PAUSE + gear - 1]
        gear += 1
    elif gear > 1 and kmh < constants[_DOWNSHIFT + gear - 2]:
        gear -= 1
    memory[GEAR] = gear
    rpm = constants[_RPM + max(gear, 1) - 1] * abs(kmh)
    memory[RPM] = min(max(rpm, constants[_RPM_IDLE]), constants[_RPM_MAX])


@njit(cache=True)
def _start_or_end_slide(memory: FloatArray, constants: FloatArray) -> None:
    u, sideways = memory[SPEED_LONG], abs(memory[SPEED_LAT])
    has_gas, has_brake = memory[GAS_IN] > 0.0, memory[BRAKE_IN] > 0.0
    is_turning_hard = abs(u * memory[YAW_RATE]) > constants[_SLIDE_PULL]
    is_thrown = has_gas and has_brake and is_turning_hard and u > constants[_SLIDE_SPEED]
    if is_thrown or (sideways > constants[_SLIDE_FROM] and u > _SLIDES_FROM_MPS):
        memory[SLIDING] = 1.0
    elif sideways < constants[_SLIDE_UNTIL] and (not has_brake or u <= _SLIDES_FROM_MPS):
        memory[SLIDING] = 0.0


@njit(cache=True)
def _steer_loss(memory: FloatArray, constants: FloatArray) -> float:
    """Acceleration that the steer costs, forwards and backwards [m/s2]."""
    speed = abs(memory[SPEED_LONG])
    loss = max(constants[_STEER_LOSS], constants[_STEER_LOSS_SLOW] - constants[_STEER_LOSS_FADE] * speed)
    return loss * memory[STEER] * memory[STEER]


@njit(cache=True)
def _gas(memory: FloatArray, constants: FloatArray) -> float:
    """Acceleration of gas alone [m/s2]."""
    u = memory[SPEED_LONG]
    if u < -_ROLLS_BACK_SLOWLY_MPS:
        return constants[_GAS_BACK] - _steer_loss(memory, constants)
    if u < -_STANDS_BELOW_MPS:
        return constants[_GAS_BACK_SLOW]
    step, kmh = 0, 3.6 * abs(u)
    while step < _NUM_STEPS and kmh >= constants[_ACCELERATION_UNTIL + step]:
        step += 1
    full = constants[_ACCELERATION + step]
    if memory[SLIDING] > 0.0:
        return full + _table(_DRIVE_NODES, constants, _SLIDE_DRIVE, abs(memory[SPEED_LAT]))
    if memory[SHIFT_LEFT] > _TOLERANCE_S:
        return 0.0
    return full - _steer_loss(memory, constants)


@njit(cache=True)
def _slow_down(memory: FloatArray, constants: FloatArray) -> float:
    """Deceleration that ends at standstill: both pedals of a slow car, or none [m/s2]."""
    speed = abs(memory[SPEED_LONG])
    if memory[GAS_IN] > 0.0:
        return constants[_BOTH_SLOW]
    turn = constants[_COAST_PER_TURN] * abs(memory[YAW_RATE])
    return constants[_COAST] + constants[_COAST_PER_SPEED] * speed + turn


@njit(cache=True)
def _brake(memory: FloatArray, constants: FloatArray) -> float:
    """Acceleration of the brake alone, which drives backwards from standstill [m/s2]."""
    u = memory[SPEED_LONG]
    if u <= _STANDS_BELOW_MPS:
        full = constants[_REVERSE] - constants[_REVERSE_PER_SPEED] * abs(u)
        return -max(0.0, full - _steer_loss(memory, constants))
    if memory[SLIDING] > 0.0:
        return -constants[_BRAKE_SLIDING] * u
    return -max(constants[_BRAKE_SLOW], constants[_BRAKE] * u)


@njit(cache=True)
def _pedals(memory: FloatArray, constants: FloatArray) -> float:
    """Change of the speed in one tick by gas and brake [m/s]."""
    u = memory[SPEED_LONG]
    has_gas, has_brake = memory[GAS_IN] > 0.0, memory[BRAKE_IN] > 0.0
    if has_gas and not has_brake:
        return _gas(memory, constants) * TICK_S
    if has_brake and not has_gas:
        return _brake(memory, constants) * TICK_S
    if has_gas and u > _BOTH_PEDALS_FROM_MPS:
        return (constants[_BOTH] - constants[_BOTH_PER_SPEED] * u) * TICK_S
    if has_gas and u < -_ROLLS_BACK_SLOWLY_MPS:
        return constants[_GAS_BACK] * TICK_S
    slow = min(_slow_down(memory, constants) * TICK_S, abs(u))
    return -slow if u > 0.0 else slow


@njit(cache=True)
def _sideways(memory: FloatArray, constants: FloatArray, grip: float) -> float:
    """Sideways speed after one tick [m/s], from the speeds before it and the yaw rate after it."""
    u, w, turn = memory[SPEED_LONG], memory[SPEED_LAT], memory[YAW_RATE]
    if memory[SLIDING] > 0.0:
        # A car that does not clearly go to one side yet is about to slide to the outside of its turn.
        side = w if abs(w) >= _CLEAR_SIDEWAYS_MPS else -u * turn
        if memory[BRAKE_IN] > 0.0:
            force = _table(_FORCE_NODES_BRAKING, constants, _FORCE_BRAKING, abs(w))
        else:
            force = _table(_FORCE_NODES_FREE, constants, _FORCE_FREE, abs(w))
        return w - (math.copysign(grip * force, side) + u * turn) * TICK_S
    if u < 0.0:
        target = constants[_SIDEWAYS_REVERSE] * turn
    else:
        per_steer = _table(_SIDEWAYS_NODES, constants, _SIDEWAYS_STEER, u)
        if memory[BRAKE_IN] > 0.0 and memory[GAS_IN] <= 0.0 and u > _SLIDES_FROM_MPS:
            per_steer += constants[_SIDEWAYS_BRAKING]
        target = per_steer * memory[STEER] - _table(_SIDEWAYS_NODES, constants, _SIDEWAYS_TURN, u) * turn
        target *= min(1.0, u / _STANDS_BELOW_MPS)
    return w + (target - w) * (1.0 - math.exp(-TICK_S / constants[_SIDEWAYS_LAG]))


@njit(cache=True)
def _move_body(memory: FloatArray, constants: FloatArray) -> None:
    """Changes speeds, heading and position, in the game's order: the car moves by the speed before the tick."""
    u, w = memory[SPEED_LONG], memory[SPEED_LAT]
    grip = 1.0 - (1.0 - constants[_OFF_ROAD_GRIP]) * memory[OFF_ROAD]
    change = _pedals(memory, constants)
    turn = grip * memory[STEER] * _table(_TURN_NODES, constants, _TURN_RATE, 3.6 * abs(u))
    if u < 0.0 and memory[GAS_IN] <= 0.0:
        turn = -turn  # with gas the car already turns as it will forwards
    memory[YAW_RATE] += (turn - memory[YAW_RATE]) * (1.0 - math.exp(-TICK_S / constants[_YAW_LAG]))
    yaw_rate = memory[YAW_RATE]
    memory[SPEED_LAT] = _sideways(memory, constants, grip)
    dragged = max(0.0, 1.0 - constants[_OFF_ROAD_DRAG] * memory[OFF_ROAD] * TICK_S)
    memory[SPEED_LONG] = dragged * (u + change) + yaw_rate * w * TICK_S
    middle, across = memory[YAW] + 0.5 * yaw_rate * TICK_S, 0.5 * (w + memory[SPEED_LAT])
    memory[X] += (u * math.sin(middle) + across * math.cos(middle)) * TICK_S
    memory[Z] += (u * math.cos(middle) - across * math.sin(middle)) * TICK_S
    memory[YAW] += yaw_rate * TICK_S


@njit(cache=True)
def _touch_walls(
    memory: FloatArray, constants: FloatArray, place: FloatArray, index: np.ndarray, field: np.ndarray
) -> None:
    """Keeps the body inside the walls: they take speed, and turn a nose-in car along themselves."""
    distance, normal_x, normal_z = sample_field(index, field, place, memory[X], memory[Z])
    memory[SINCE_CONTACT] += TICK_S
    memory[OFF_ROAD] = 0.0
    if distance + constants[_HALF_LENGTH] + constants[_HALF_WIDTH] <= place[BORDER_AT]:
        return
    length = math.sqrt(normal_x * normal_x + normal_z * normal_z)
    if length < 1e-6:
        return
    normal_x, normal_z = normal_x / length, normal_z / length
    sin_yaw, cos_yaw = math.sin(memory[YAW]), math.cos(memory[YAW])
    ahead = normal_x * sin_yaw + normal_z * cos_yaw
    aside = normal_x * cos_yaw - normal_z * sin_yaw
    reach = distance + abs(ahead) * constants[_HALF_LENGTH] + abs(aside) * constants[_HALF_WIDTH]
    over = (reach - place[BORDER_AT]) / (place[WALL_AT] - place[BORDER_AT])
    memory[OFF_ROAD] = min(max(over, 0.0), 1.0)
    depth = reach - place[WALL_AT]
    if depth <= 0.0:
        return
    memory[X] -= normal_x * depth
    memory[Z] -= normal_z * depth
    if memory[SINCE_CONTACT] > constants[_CONTACT_GAP]:
        memory[CONTACTS] += 1.0
    memory[SINCE_CONTACT] = 0.0
    _lose_speed(memory, constants, ahead, aside)
    if ahead > 0.0:
        _turn_along(memory, constants, ahead, aside)


@njit(cache=True)
def _lose_speed(memory: FloatArray, constants: FloatArray, ahead: float, aside: float) -> None:
    """Stops the motion into the wall and brakes the one along it. (ahead, aside) is the wall normal, body frame."""
    u, w = memory[SPEED_LONG], memory[SPEED_LAT]
    before = math.sqrt(u * u + w * w)
    into = u * ahead + w * aside
    along = -u * aside + w * ahead
    if into <= 0.0:
        return
    loss = constants[_WALL_LOSS] * into + constants[_WALL_SCRAPE] * TICK_S
    along = max(0.0, along - loss) if along > 0.0 else min(0.0, along + loss)
    out = -constants[_WALL_BOUNCE] * into
    memory[SPEED_LONG] = out * ahead - along * aside
    memory[SPEED_LAT] = out * aside + along * ahead
    memory[IMPACT] += max(0.0, before - math.sqrt(out * out + along * along))


@njit(cache=True)
def _turn_along(memory: FloatArray, constants: FloatArray, ahead: float, aside: float) -> None:
    """Turns the nose away from the wall, towards the side to which it already points."""
    angle = math.atan2(ahead, abs(aside))
    turn = min(angle, constants[_WALL_TURN] * TICK_S)
    sign = -1.0 if aside > 0.0 else 1.0
    memory[YAW] += sign * turn
    if memory[YAW_RATE] * sign < 0.0:
        memory[YAW_RATE] = 0.0


@njit(cache=True)
def _cross_finish(memory: FloatArray, place: FloatArray, x_before: float, z_before: float) -> None:
    """Notes the time at which the finish line is crossed forwards, interpolated within the tick."""
    if not math.isnan(memory[FINISH_TIME]) or memory[DISTANCE] < place[MIN_DISTANCE]:
        return
    dx, dz = place[FINISH_DX], place[FINISH_DZ]
    before = (x_before - place[FINISH_X]) * dx + (z_before - place[FINISH_Z]) * dz
    offset_x, offset_z = memory[X] - place[FINISH_X], memory[Z] - place[FINISH_Z]
    after = offset_x * dx + offset_z * dz
    if before < 0.0 <= after and abs(offset_x * dz - offset_z * dx) <= place[GATE_HALF]:
        memory[FINISH_TIME] = (memory[TICK] + before / (before - after)) * TICK_S


@njit(cache=True, nogil=True)
def drive_open_loop(
    constants: FloatArray,
    known: FloatArray,
    leads: NDArray[np.int64],
    gears: NDArray[np.int64],
    inputs: FloatArray,
    sample_ticks: int,
    place: FloatArray,
    index: NDArray[np.int32],
    field: NDArray[np.float32],
    states: FloatArray,
) -> None:
    """What ``tasks.sim.open_loop.drive`` says; writes ``states``."""
    num_lead = known.shape[1] - 1
    for n in range(len(known)):
        memory = np.zeros(MEMORY_SIZE)
        memory[GEAR] = gears[n]
        first = num_lead - leads[n]
        _put(memory, known[n, first])
        for sample in range(first, num_lead):
            _drive_sample(memory, constants, inputs[n], sample, sample_ticks, place, index, field)
            # The yaw rate of the sample that ended was off by what the heading is off.
            memory[YAW_RATE] += (known[n, sample + 1, 2] - memory[YAW]) / (sample_ticks * TICK_S)
            _put(memory, known[n, sample + 1])
        states[n, 0] = known[n, num_lead]
        for sample in range(1, states.shape[1]):
            _drive_sample(memory, constants, inputs[n], num_lead + sample - 1, sample_ticks, place, index, field)
            state = states[n, sample]
            state[0], state[1], state[2] = memory[X], memory[Z], memory[YAW]
            state[3], state[4] = memory[SPEED_LONG], memory[SPEED_LAT]


@njit(cache=True)
def _put(memory: FloatArray, state: FloatArray) -> None:
    memory[X], memory[Z], memory[YAW] = state[0], state[1], state[2]
    memory[SPEED_LONG], memory[SPEED_LAT] = state[3], state[4]


@njit(cache=True)
def _drive_sample(
    memory: FloatArray,
    constants: FloatArray,
    inputs: FloatArray,
    sample: int,
    sample_ticks: int,
    place: FloatArray,
    index: NDArray[np.int32],
    field: NDArray[np.float32],
) -> None:
    for i in range(sample * sample_ticks, (sample + 1) * sample_ticks):
        memory[STEER_IN], memory[GAS_IN], memory[BRAKE_IN] = inputs[i, 0], inputs[i, 1], inputs[i, 2]
        tick(memory, constants, place, index, field)
