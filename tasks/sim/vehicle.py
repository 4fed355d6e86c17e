"""The car: constants, one 10 ms tick of physics, and the timeline that strings ticks, controls and frames together.

``tasks.sim.game`` calls ``advance``; nothing here knows of clocks, pictures or files. All kernels of this file are
compiled by numba without fastmath, so that equal inputs give bit-identical cars. numba's cache watches one file only:
a kernel may therefore call kernels of its own file only.

World frame: x to the right and z forward at yaw 0 (heading +z), y up; yaw grows clockwise seen from above, that is to
the right. Forward is (sin yaw, cos yaw), right is (cos yaw, -sin yaw) in (x, z).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np
from numba import njit
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

TICK_S = 0.01
"""Duration of a physics tick [s], as in the game."""
FRAME_S = 1.0 / 60.0
"""Time between two rendered frames [s]."""


@dataclass(frozen=True)
class VehicleConstants:
    """Everything that makes the car what it is. The defaults are the car of all shipped tracks.

    Shift speeds are those known of TrackMania 2020; acceleration and grip are chosen such that a good lap of a track
    like TMRL's takes about as long as its author's medal.
    """

    acceleration_0: float = 28.0
    """Full-gas acceleration at standstill [m/s2]; linear between the following nodes, 100 km/h apart."""
    acceleration_100: float = 19.3
    """At 100 km/h [m/s2]."""
    acceleration_200: float = 11.4
    """At 200 km/h [m/s2]."""
    acceleration_300: float = 6.1
    """At 300 km/h [m/s2]."""
    acceleration_400: float = 2.8
    """At 400 km/h [m/s2]."""
    acceleration_500: float = 0.9
    """At 500 km/h [m/s2]."""
    acceleration_600: float = 0.0
    """At 600 km/h and above [m/s2]."""
    brake: float = 40.0
    """Deceleration of the full brake [m/s2]."""
    coast: float = 3.0
    """Deceleration without gas and brake [m/s2]."""
    reverse_acceleration: float = 12.0
    """Acceleration backwards: full brake, no gas, car at standstill [m/s2]."""
    reverse_speed: float = 12.0
    """Highest speed backwards [m/s]."""
    shift_1_2: float = 102.0 / 3.6
    """Speed of the shift from first to second gear [m/s]."""
    shift_2_3: float = 162.0 / 3.6
    """Second to third [m/s]."""
    shift_3_4: float = 235.0 / 3.6
    """Third to fourth [m/s]."""
    shift_4_5: float = 342.0 / 3.6
    """Fourth to fifth [m/s]."""
    shift_pause: float = 0.12
    """Time without drive at an up-shift [s]."""
    downshift_ratio: float = 0.85
    """A gear is left downwards below this fraction of the speed at which it was entered."""
    fifth_gear_speed: float = 600.0 / 3.6
    """Speed of the highest rpm in fifth gear [m/s]."""
    rpm_max: float = 11000.0
    """Engine speed at the end of a gear [1/min]."""
    rpm_idle: float = 800.0
    """Engine speed at standstill [1/min]."""
    grip: float = 70.0
    """Lateral acceleration that the tyres hold at standstill [m/s2]."""
    grip_per_speed: float = 0.1
    """Its growth with speed (downforce) [1/s]."""
    steer_slew: float = 1.0 / 0.15
    """Rate of the steering wheel, centre to full lock = 1 [1/s]."""
    max_curvature: float = 1.0 / 8.0
    """Path curvature at full lock where grip does not limit it [1/m]."""
    yaw_lag: float = 0.06
    """Time constant of the yaw rate [s]."""
    slide_recovery: float = 0.1
    """Time constant with which tyres below their limit end a lateral slide [s]."""
    drift_speed: float = 191.0 / 3.6
    """Braking above this speed starts a drift [m/s]."""
    drift_grip: float = 0.65
    """Fraction of the grip that is left while drifting at full brake."""
    drift_yaw: float = 1.2
    """Factor on the yaw rate while drifting at full brake: the tail comes round."""
    off_road_drag: float = 1.4
    """Deceleration per speed with the body fully over the border [1/s]."""
    off_road_grip: float = 0.7
    """Fraction of the grip that is left there."""
    half_length: float = 2.0
    """Half the length of the body [m]."""
    half_width: float = 0.95
    """Half its width [m]."""
    wall_loss: float = 0.8
    """Speed along the wall lost per speed into it."""
    wall_bounce: float = 0.1
    """Fraction of the speed into the wall with which the car leaves it."""
    wall_scrape: float = 18.0
    """Deceleration along the wall while pressed against it [m/s2]."""
    wall_turn: float = 2.0
    """Rate at which the wall turns a nose-in car along itself [rad/s]."""
    contact_gap: float = 0.2
    """Time apart that makes two touches two contacts [s]."""

    def vector(self) -> FloatArray:
        """The constants in field order, for the kernels, shape (number of fields,)."""
        return np.array([getattr(self, field.name) for field in fields(self)], np.float64)


_C = {field.name: index for index, field in enumerate(fields(VehicleConstants))}
_ACCELERATION = _C["acceleration_0"]
_SHIFT = _C["shift_1_2"]
_BRAKE, _COAST = _C["brake"], _C["coast"]
_REVERSE_ACCELERATION, _REVERSE_SPEED = _C["reverse_acceleration"], _C["reverse_speed"]
_SHIFT_PAUSE, _DOWNSHIFT, _FIFTH = _C["shift_pause"], _C["downshift_ratio"], _C["fifth_gear_speed"]
_RPM_MAX, _RPM_IDLE = _C["rpm_max"], _C["rpm_idle"]
_GRIP, _GRIP_PER_SPEED = _C["grip"], _C["grip_per_speed"]
_STEER_SLEW, _MAX_CURVATURE = _C["steer_slew"], _C["max_curvature"]
_YAW_LAG, _SLIDE_RECOVERY = _C["yaw_lag"], _C["slide_recovery"]
_DRIFT_SPEED, _DRIFT_GRIP, _DRIFT_YAW = _C["drift_speed"], _C["drift_grip"], _C["drift_yaw"]
_OFF_ROAD_DRAG, _OFF_ROAD_GRIP = _C["off_road_drag"], _C["off_road_grip"]
_HALF_LENGTH, _HALF_WIDTH = _C["half_length"], _C["half_width"]
_WALL_LOSS, _WALL_BOUNCE = _C["wall_loss"], _C["wall_bounce"]
_WALL_SCRAPE, _WALL_TURN, _CONTACT_GAP = _C["wall_scrape"], _C["wall_turn"], _C["contact_gap"]

# Layout of the memory vector: the car at the newest tick ...
X, Z, YAW, SPEED_LONG, SPEED_LAT, YAW_RATE, STEER, GEAR, RPM = range(9)
GAS_IN, BRAKE_IN, STEER_IN = 9, 10, 11
SHIFT_LEFT, DISTANCE, FINISH_TIME, CONTACTS, IMPACT, SINCE_CONTACT, OFF_ROAD = range(12, 19)
# ... the timeline ...
TICK, NEXT_FRAME, NUM_PENDING, INPUT_DELAY, FRAME_PHASE, HEIGHT = range(19, 25)
# ... the telemetry record of the newest frame, the pose of that frame and of the one that is on the screen ...
RECORD = 25
RECORD_SIZE = 11
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
PLACE_SIZE = 15

FAR_FROM_ROAD_M = 1000.0
"""What the field holds where no road is near [m]."""

_NUM_GEARS = 5
_NODE_SPEED = 100.0 / 3.6
_NUM_NODES = 7
_TIME_TOLERANCE = 1e-6


def acceleration_at(constants: VehicleConstants, speed_mps: float) -> float:
    """Full-gas acceleration [m/s2] at ``speed_mps``, gear shifts aside."""
    return float(_full_gas(constants.vector(), speed_mps))


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
) -> None:
    """Puts the car at rest at a pose, at time 0, with the first frame boundary at ``frame_phase_s``."""
    memory[:] = 0.0
    memory[X], memory[HEIGHT], memory[Z], memory[YAW] = x, height, z, yaw
    memory[GEAR] = 1.0
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
    last_tick = math.floor(now_s / TICK_S + _TIME_TOLERANCE)
    while True:
        frame_time = memory[FRAME_PHASE] + memory[NEXT_FRAME] * FRAME_S
        tick_time = (memory[TICK] + 1.0) * TICK_S
        if frame_time < tick_time - _TIME_TOLERANCE:
            if frame_time > now_s + _TIME_TOLERANCE:
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
    """Advances to ``now_s`` and sends controls; they act from the current tick on, plus the input delay."""
    advance(memory, now_s, constants, place, index, field)
    due = math.floor(now_s / TICK_S + _TIME_TOLERANCE) + memory[INPUT_DELAY]
    count = int(memory[NUM_PENDING])
    if count > 0 and memory[PENDING + 4 * (count - 1)] == due:
        count -= 1
    at = PENDING + 4 * count
    memory[at] = due
    memory[at + 1] = min(max(gas, 0.0), 1.0)
    memory[at + 2] = min(max(brake, 0.0), 1.0)
    memory[at + 3] = min(max(steer, -1.0), 1.0)
    memory[NUM_PENDING] = count + 1


@njit(cache=True)
def tick(memory: FloatArray, constants: FloatArray, place: FloatArray, index: np.ndarray, field: np.ndarray) -> None:
    """Advances the car by one tick with the controls that act now."""
    _move_steering(memory, constants)
    _shift_gears(memory, constants)
    _move_body(memory, constants)
    x_before, z_before = memory[X], memory[Z]
    sin_yaw, cos_yaw = math.sin(memory[YAW]), math.cos(memory[YAW])
    memory[X] += (memory[SPEED_LONG] * sin_yaw + memory[SPEED_LAT] * cos_yaw) * TICK_S
    memory[Z] += (memory[SPEED_LONG] * cos_yaw - memory[SPEED_LAT] * sin_yaw) * TICK_S
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
    tiles = index[(i >> 9) * int(place[BLOCK_COLUMNS]) + (j >> 9)]
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
def _full_gas(constants: FloatArray, speed: float) -> float:
    node = abs(speed) / _NODE_SPEED
    index = min(int(node), _NUM_NODES - 2)
    fraction = min(node - index, 1.0)
    low, high = constants[_ACCELERATION + index], constants[_ACCELERATION + index + 1]
    return low + fraction * (high - low)


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
    memory[NEXT_FRAME] += 1.0


@njit(cache=True)
def _move_steering(memory: FloatArray, constants: FloatArray) -> None:
    limit = constants[_STEER_SLEW] * TICK_S
    change = memory[STEER_IN] - memory[STEER]
    memory[STEER] += min(max(change, -limit), limit)


@njit(cache=True)
def _shift_gears(memory: FloatArray, constants: FloatArray) -> None:
    """Changes gear by speed and sets the engine speed."""
    u = memory[SPEED_LONG]
    gear = int(memory[GEAR])
    memory[SHIFT_LEFT] = max(0.0, memory[SHIFT_LEFT] - TICK_S)
    if u < -0.1:
        gear = 0
    elif gear == 0:
        gear = 1
    elif gear < _NUM_GEARS and u >= constants[_SHIFT + gear - 1]:
        gear += 1
        memory[SHIFT_LEFT] = constants[_SHIFT_PAUSE]
    elif gear > 1 and u < constants[_DOWNSHIFT] * constants[_SHIFT + gear - 2]:
        gear -= 1
    top = constants[_FIFTH]
    if gear < _NUM_GEARS:
        top = constants[_SHIFT + max(gear, 1) - 1]
    memory[GEAR] = gear
    memory[RPM] = min(max(constants[_RPM_MAX] * abs(u) / top, constants[_RPM_IDLE]), constants[_RPM_MAX])


@njit(cache=True)
def _drive(memory: FloatArray, constants: FloatArray) -> float:
    """Longitudinal speed after one tick of engine, brake and drag, before any turning [m/s]."""
    u, gas, brake = memory[SPEED_LONG], memory[GAS_IN], memory[BRAKE_IN]
    drive = gas * _full_gas(constants, u) * TICK_S
    if memory[SHIFT_LEFT] > _TIME_TOLERANCE:
        drive = 0.0
    if brake > 0.0 and gas <= 0.0 and u <= 0.0:
        return max(u - brake * constants[_REVERSE_ACCELERATION] * TICK_S, -constants[_REVERSE_SPEED])
    u += drive
    slow = (constants[_COAST] * (1.0 - gas) * (1.0 - brake) + constants[_BRAKE] * brake) * TICK_S
    slow += abs(u) * constants[_OFF_ROAD_DRAG] * memory[OFF_ROAD] * TICK_S
    if u > 0.0:
        return max(0.0, u - slow)
    return min(0.0, u + slow)


@njit(cache=True)
def _move_body(memory: FloatArray, constants: FloatArray) -> None:
    """Changes speeds and heading: drive, grip-limited turning, drift while braking fast."""
    u = _drive(memory, constants)
    w = memory[SPEED_LAT]
    grip = constants[_GRIP] + constants[_GRIP_PER_SPEED] * abs(u)
    grip *= 1.0 - (1.0 - constants[_OFF_ROAD_GRIP]) * memory[OFF_ROAD]
    hold, swing = grip, grip
    if u > constants[_DRIFT_SPEED]:
        hold *= 1.0 - (1.0 - constants[_DRIFT_GRIP]) * memory[BRAKE_IN]
        swing *= 1.0 + (constants[_DRIFT_YAW] - 1.0) * memory[BRAKE_IN]
    limit = min(abs(u) * constants[_MAX_CURVATURE], swing / max(abs(u), 1.0))
    target = memory[STEER] * limit if u >= 0.0 else -memory[STEER] * limit
    yaw_rate = memory[YAW_RATE]
    yaw_rate += (target - yaw_rate) * (1.0 - math.exp(-TICK_S / constants[_YAW_LAG]))
    sideways = u * yaw_rate - w / constants[_SLIDE_RECOVERY]
    sideways = min(max(sideways, -hold), hold)
    memory[SPEED_LAT] = w + (sideways - u * yaw_rate) * TICK_S
    memory[SPEED_LONG] = u + w * yaw_rate * TICK_S
    memory[YAW_RATE] = yaw_rate
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
