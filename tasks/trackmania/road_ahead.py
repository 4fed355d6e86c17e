"""The road ahead in the frame of the car, and how the car moves: what TM20Track observes, and privileged critics.

Everything comes from the telemetry of ``tasks.game.protocols`` and the reference path, so simulator and live game give
the same. Geometry is that of the x, z plane, in the frame of ``tasks.sim.vehicle``: a yaw is 0 along +z and grows
towards +x, which is to the right. The kernels serve one car and a fleet alike.
"""

from __future__ import annotations

import math
from itertools import accumulate
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from tasks.experience.observation import Field
from tasks.points.files import POINT_SPACING_M
from tasks.sim.stretches import round_m
from tasks.trackmania.dials import MAX_SPEED_MPS

NUM_POINTS = 20
"""Points of the path, and of each border."""
AHEAD_S = 6.0
"""The last one is where the car will be after this time at its present speed [s]."""
LEAST_AHEAD_MPS = 10.0
"""A slower car looks as far ahead as at this speed [m/s]."""

_MAX_TURN_RATE = 20.0
_MAX_AHEAD_M = 10_000.0
_TANGENT_POINTS = 10
"""The direction of the path at a point is that of the chord from this many points before it to as many behind."""
_SHORTEST_MOVE_M = 0.05
"""A car that moved less since its direction was last told has no new one [m]."""
_SEARCH_BEHIND, _SEARCH_AHEAD = 200, 600
"""Points of the middle of the road among which the one beside the next point of the path is searched."""

AHEAD_FIELDS = (
    Field("velocity", (2,), low=-MAX_SPEED_MPS, high=MAX_SPEED_MPS, scale=55.6, unit="m/s"),
    Field("yaw_rate", (1,), low=-_MAX_TURN_RATE, high=_MAX_TURN_RATE, unit="rad/s"),
    *(
        Field(name, (NUM_POINTS, 2), low=-_MAX_AHEAD_M, high=_MAX_AHEAD_M, scale=50.0, unit="m")
        for name in ("path_ahead", "left_border_ahead", "right_border_ahead")
    ),
)
"""What ``RoadAhead.observe`` returns; the table is there."""
_ENDS = list(accumulate(field.size for field in AHEAD_FIELDS))
_SIZE = _ENDS[-1]
_PARTS = [
    (field.name, slice(end - field.size, end), field.shape) for field, end in zip(AHEAD_FIELDS, _ENDS, strict=True)
]

# State of a car.
_IS_FOLLOWED, _ANCHOR_X, _ANCHOR_Z, _ANCHOR_YAW, _HEADING, _BEND, _LAST_MOVE_M, _FORWARD = range(8)
_STATE_SIZE = 8


class Road(NamedTuple):
    """A path and the borders of its road, for the kernels."""

    points: NDArray[np.float64]
    """(x, z) of path, left and right border [m], every 0.1 m of the path; of a closed road the way back to its start
    too, shape (R, 6)."""
    lap_points: int
    """After so many points the road is at its start again; 0: it goes straight on behind its end."""


def road_along(path: np.ndarray, middle: np.ndarray, width_m: float) -> Road:
    """The road of a path.

    Args:
        path: Reference path, points 0.1 m apart [m], shape (N, 3).
        middle: Middle of the road [m], shape (M, 3). A path that leaves this road belongs to another one: then it is
            taken for the middle itself.
        width_m: Of the road.
    """
    line = np.ascontiguousarray(path[:, [0, 2]], np.float64)
    lap_m = round_m(line, width_m)
    lap_points = round(lap_m / POINT_SPACING_M) if math.isfinite(lap_m) else 0
    line = _with_way_back(line, lap_points)
    right = _to_the_right(line)
    offset = _offsets(line, right, np.ascontiguousarray(middle[:, [0, 2]], np.float64), width_m)
    left_border, right_border = line - (width_m / 2 + offset) * right, line + (width_m / 2 - offset) * right
    return Road(np.concatenate([line, left_border, right_border], axis=1), lap_points)


class RoadAhead:
    """Follows one car along one road.

    Args:
        road: Of ``road_along``.
        exponent: ``task.look_ahead_exponent``: the k-th of n points is ``(k / (n - 1)) ** exponent`` of the way ahead.
    """

    def __init__(self, road: Road, exponent: float) -> None:
        self._road = road
        self._shares = np.linspace(0.0, 1.0, NUM_POINTS) ** exponent
        self._state = np.zeros(_STATE_SIZE)

    def begin(self) -> None:
        """Starts an episode: a car whose heading is unknown looks along the path."""
        self._state[:] = 0.0

    def observe(self, record: NDArray[np.float64], index: int) -> dict[str, np.ndarray]:
        """The fields of ``AHEAD_FIELDS``, after a step.

        ================== ======= =======================================================================
        field              shape   meaning
        ================== ======= =======================================================================
        velocity           (2,)    forward, to the right [m/s]
        yaw_rate           (1,)    how fast the heading turns [rad/s], positive to the right
        path_ahead         (20, 2) points of the path: forward, to the right of the car [m]
        left_border_ahead  (20, 2) the left border beside each of them, the same
        right_border_ahead (20, 2) the right border
        ================== ======= =======================================================================

        The first point is beside the car, the last one 6 s ahead at its present speed, or at 10 m/s where it is slower;
        between them the distances along the path are equal, or grow with a larger ``exponent``.

        A record without heading and velocity, such as TMRL's, shows neither slip nor the rotation of a car that stands:
        the heading is then the direction of the motion between the newest places 5 cm or more apart.

        Args:
            record: Newest telemetry as numbers in its order.
            index: Path point at which the car is.
        """
        row = np.empty(_SIZE, np.float32)
        self.observe_into(row, record, index)
        return fields_of(row)

    def observe_into(self, row: NDArray[np.float32], record: NDArray[np.float64], index: int) -> None:
        """``observe`` into a row of numbers.

        Args:
            row: Takes the fields one after the other, shape (D,); ``fields_of`` tells them apart.
            record: As there.
            index: Path point at which the car is.
        """
        _observe(self._road.points, self._road.lap_points, self._shares, self._state, record, index, row)


def new_rows(count: int) -> NDArray[np.float32]:
    """Room for what ``count`` cars observe, shape (N, D)."""
    return np.zeros((count, _SIZE), np.float32)


def fields_of(rows: NDArray[np.float32]) -> dict[str, np.ndarray]:
    """The fields in rows of numbers, shape (..., D), as views of shape (..., *field shape)."""
    return {name: rows[..., part].reshape(rows.shape[:-1] + shape) for name, part, shape in _PARTS}


def _to_the_right(line: NDArray[np.float64]) -> NDArray[np.float64]:
    """The direction to the right of the line at each of its points, shape (R, 2)."""
    points = np.arange(len(line))
    chords = line[np.minimum(points + _TANGENT_POINTS, len(line) - 1)] - line[np.maximum(points - _TANGENT_POINTS, 0)]
    angles = np.arctan2(chords[:, 0], chords[:, 1])
    return np.stack([np.cos(angles), -np.sin(angles)], axis=1)


def _with_way_back(line: NDArray[np.float64], lap_points: int) -> NDArray[np.float64]:
    """The line and, where it leads into its start, the straight from its end to there."""
    count = max(lap_points - len(line), 0)
    share = np.arange(1, count + 1)[:, None] / (count + 1)
    return np.concatenate([line, line[-1] + share * (line[0] - line[-1])])


def _offsets(
    line: NDArray[np.float64], right: NDArray[np.float64], middle: NDArray[np.float64], width_m: float
) -> NDArray[np.float64]:
    """How far each point lies to the right of the middle of the road [m], shape (R, 1); 0 on another road."""
    if len(line) >= len(middle) and np.array_equal(line[: len(middle)], middle):
        return np.zeros((len(line), 1))
    beside = middle[_nearest(line, middle, _SEARCH_BEHIND, _SEARCH_AHEAD)]
    to_line = line - beside
    is_on_road = float(np.linalg.norm(to_line, axis=1).max()) <= width_m / 2
    return (to_line * right).sum(axis=1, keepdims=True) * is_on_road


@njit(cache=True)
def _nearest(line: np.ndarray, middle: np.ndarray, behind: int, ahead: int) -> np.ndarray:
    """Index of the point of ``middle`` that is nearest to each of ``line``; after the first near the one before."""
    found = np.zeros(len(line), np.int64)
    low, high = 0, len(middle)
    for i in range(len(line)):
        smallest = np.inf
        for j in range(low, high):
            distance = (middle[j, 0] - line[i, 0]) ** 2 + (middle[j, 1] - line[i, 1]) ** 2
            if distance < smallest:
                smallest, found[i] = distance, j
        low, high = max(found[i] - behind, 0), min(found[i] + ahead, len(middle))
    return found


@njit(cache=True)
def _observe(
    points: np.ndarray,
    lap_points: int,
    shares: np.ndarray,
    state: np.ndarray,
    record: np.ndarray,
    index: int,
    row: np.ndarray,
) -> None:
    """The fields of one car, one after the other."""
    speed, x, z, velocity_x, velocity_z = abs(record[0]), record[2], record[4], record[11], record[12]
    _follow(points, state, x, z, record[13], index)
    sine, cosine = math.sin(state[_HEADING]), math.cos(state[_HEADING])
    if math.isnan(velocity_x + velocity_z):
        row[0], row[1] = state[_FORWARD] * speed, 0.0
    else:
        row[0], row[1] = velocity_x * sine + velocity_z * cosine, velocity_x * cosine - velocity_z * sine
    row[2] = state[_BEND] * speed
    far = AHEAD_S * min(max(speed, LEAST_AHEAD_MPS), MAX_SPEED_MPS) / POINT_SPACING_M
    for k in range(NUM_POINTS):
        at, beyond_m = _place(len(points), lap_points, index + int(shares[k] * far + 0.5))
        for line in range(3):
            dx, dz = points[at, 2 * line] - x, points[at, 2 * line + 1] - z
            if beyond_m > 0.0:
                dx += beyond_m * _toward(points, 0)
                dz += beyond_m * _toward(points, 1)
            to = 3 + 2 * (line * NUM_POINTS + k)
            row[to], row[to + 1] = dx * sine + dz * cosine, dx * cosine - dz * sine
    for i in range(len(row)):
        most = _MAX_TURN_RATE if i == 2 else MAX_SPEED_MPS if i < 2 else _MAX_AHEAD_M
        row[i] = min(max(row[i], -most), most)


@njit(cache=True)
def _place(count: int, lap_points: int, index: int) -> tuple[int, float]:
    """Index of a point of the road, and how far behind the end of an open road it lies [m]."""
    if index < count:
        return index, 0.0
    if lap_points > 0:
        return index % lap_points, 0.0
    return count - 1, (index - count + 1) * POINT_SPACING_M


@njit(cache=True)
def _toward(points: np.ndarray, axis: int) -> float:
    """Direction of the path at its end along one axis, from its last metre or less."""
    last = len(points) - 1
    before = max(last - 10, 0)
    dx, dz = points[last, 0] - points[before, 0], points[last, 1] - points[before, 1]
    return (dx if axis == 0 else dz) / max(math.hypot(dx, dz), 1e-9)


@njit(cache=True)
def _follow(points: np.ndarray, state: np.ndarray, x: float, z: float, yaw: float, index: int) -> None:
    """Takes the newest place and heading into the state of the car."""
    is_known = not math.isnan(yaw)
    if state[_IS_FOLLOWED] == 0.0:
        ahead = min(index + 10, len(points) - 1)
        along = math.atan2(points[ahead, 0] - points[index, 0], points[ahead, 1] - points[index, 1])
        state[_IS_FOLLOWED], state[_ANCHOR_X], state[_ANCHOR_Z], state[_FORWARD] = 1.0, x, z, 1.0
        state[_ANCHOR_YAW] = state[_HEADING] = yaw if is_known else along
        return
    if is_known:
        state[_HEADING] = yaw
    dx, dz = x - state[_ANCHOR_X], z - state[_ANCHOR_Z]
    move_m = math.hypot(dx, dz)
    if move_m < _SHORTEST_MOVE_M:
        return
    if is_known:
        state[_BEND] = _turn(yaw - state[_ANCHOR_YAW]) / move_m
    else:
        turned = _turn(math.atan2(dx, dz) - state[_HEADING])
        # A car does not turn round within a step: it rolls backwards.
        state[_FORWARD] = 1.0 if abs(turned) <= math.pi / 2 else -1.0
        turned = turned if state[_FORWARD] > 0.0 else _turn(turned - math.pi)
        state[_HEADING] += turned
        if state[_LAST_MOVE_M] > 0.0:
            # The directions are those of two chords, whose middles are half of both apart.
            state[_BEND] = turned / (0.5 * (move_m + state[_LAST_MOVE_M]))
        state[_LAST_MOVE_M] = move_m
    state[_ANCHOR_X], state[_ANCHOR_Z], state[_ANCHOR_YAW] = x, z, state[_HEADING]


@njit(cache=True)
def _turn(angle: float) -> float:
    """The same angle within half a turn to either side [rad]."""
    return angle - 2.0 * math.pi * round(angle / (2.0 * math.pi))
