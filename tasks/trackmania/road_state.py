"""The privileged fields: place and motion of the car on its path, which critics may see in training, policies never.

``DrivingInterface`` appends these fields to its observation with ``task.privileged=true``. Everything comes from the
record of ``Game.telemetry`` and the reference path, so that simulator and live game give the same; neither clock nor
heading of the car is needed. Geometry is that of the x, z plane, in the frame of ``tasks.sim.vehicle``: an angle is 0
along +z and grows towards +x, which is to the right.
"""

from __future__ import annotations

import math

import numpy as np

from tasks.experience.observation import Field
from tasks.game.protocols import Telemetry
from tasks.points.files import POINT_SPACING_M

NUM_PIECES = 20
"""Pieces of the road ahead whose curvature is given."""
PIECE_M = 10.0
"""Length of each [m]."""
_POINTS_PER_PIECE = round(PIECE_M / POINT_SPACING_M)
_TANGENT_POINTS = 10
"""The direction of the path at a point is that of the chord from this many points before it to as many behind."""
_SHORTEST_MOVE_M = 0.05
"""A car that moved less keeps its direction [m]."""
_MAX_OFFSET_M = 1000.0
MAX_SPEED_MPS = 1000.0
_MAX_TURN_RATE = 20.0
_MAX_CURVATURE = 1.0

ROAD_FIELDS = (
    Field("road_progress", (1,), high=1.0, privileged=True),
    Field("road_offset", (1,), low=-_MAX_OFFSET_M, high=_MAX_OFFSET_M, scale=10.0, privileged=True),
    Field("road_direction", (2,), low=-1.0, high=1.0, privileged=True),
    Field("road_velocity", (2,), low=-MAX_SPEED_MPS, high=MAX_SPEED_MPS, scale=55.6, privileged=True),
    Field("road_curvature", (NUM_PIECES,), low=-_MAX_CURVATURE, high=_MAX_CURVATURE, scale=0.05, privileged=True),
    Field("car_turn_rate", (1,), low=-_MAX_TURN_RATE, high=_MAX_TURN_RATE, privileged=True),
    Field("car_controls", (3,), low=-1.0, high=1.0, privileged=True),
)
"""What ``RoadState.observe`` returns; the table is there."""


class RoadState:
    """Follows one car along one path.

    Args:
        path: Points 0.1 m apart [m], shape (N, 3).
    """

    def __init__(self, path: np.ndarray) -> None:
        self._last = len(path) - 1
        self._x, self._z = np.ascontiguousarray(path[:, 0]), np.ascontiguousarray(path[:, 2])
        angles = path_angles(self._x, self._z)
        # Straight on behind the end, so that the road ahead can be read from every point.
        self._angles = np.concatenate([angles, np.full(NUM_PIECES * _POINTS_PER_PIECE, angles[-1])])
        self._anchor = (0.0, 0.0)
        self._angle = 0.0
        self._bend = 0.0
        self._last_move_m = 0.0

    def begin(self, telemetry: Telemetry) -> None:
        """Starts an episode: the car stands at the beginning of the path and looks along it."""
        self._anchor = (telemetry.x, telemetry.z)
        self._angle = float(self._angles[0])
        self._bend = self._last_move_m = 0.0

    def observe(self, telemetry: Telemetry, index: int) -> list[np.ndarray]:
        """The fields of ``ROAD_FIELDS``, after a step.

        ============== ===== ==========================================================================
        field          shape meaning
        ============== ===== ==========================================================================
        road_progress  (1,)  place on the path, 0 to 1
        road_offset    (1,)  distance from the path [m], positive to its right
        road_direction (2,)  sine and cosine of the angle from the path to the motion of the car
        road_velocity  (2,)  speed along the path and to its right [m/s]
        road_curvature (20,) mean curvature of each 10 m of path ahead [1/m], positive to the right
        car_turn_rate  (1,)  how fast the motion turns [rad/s], positive to the right
        car_controls   (3,)  gas (0 to 1), brake (0 or 1), steer (-1 to 1) as the game says
        ============== ===== ==========================================================================

        The motion is that between the newest places 5 cm or more apart, so the angle includes the slip and a car that
        rolls backwards moves against the path.

        Args:
            telemetry: Newest record.
            index: Path point at which the car is.
        """
        self._follow(telemetry.x, telemetry.z)
        index = min(max(index, 0), self._last)
        road = float(self._angles[index])
        sine, cosine = math.sin(self._angle - road), math.cos(self._angle - road)
        to_car_x, to_car_z = telemetry.x - self._x[index], telemetry.z - self._z[index]
        offset = to_car_x * math.cos(road) - to_car_z * math.sin(road)
        speed = abs(telemetry.speed)
        ahead = self._angles[index : index + NUM_PIECES * _POINTS_PER_PIECE + 1 : _POINTS_PER_PIECE]
        return [
            np.array([index / self._last], np.float32),
            _bounded([offset], _MAX_OFFSET_M),
            np.array([sine, cosine], np.float32),
            _bounded([speed * cosine, speed * sine], MAX_SPEED_MPS),
            _bounded(np.diff(ahead) / PIECE_M, _MAX_CURVATURE),
            _bounded([self._bend * speed], _MAX_TURN_RATE),
            _bounded([telemetry.gas, telemetry.is_braking, telemetry.steer], 1.0),
        ]

    def _follow(self, x: float, z: float) -> None:
        """Takes the newest place into the direction of the motion and its curvature."""
        dx, dz = x - self._anchor[0], z - self._anchor[1]
        move_m = math.hypot(dx, dz)
        if move_m < _SHORTEST_MOVE_M:
            return
        angle = math.atan2(dx, dz)
        if self._last_move_m > 0.0:
            # The directions are those of two chords, whose middles are half of both apart.
            turned = math.remainder(angle - self._angle, 2.0 * math.pi)
            self._bend = turned / (0.5 * (move_m + self._last_move_m))
        self._anchor, self._angle, self._last_move_m = (x, z), angle, move_m


def path_angles(x: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Direction of a path at each of its points [rad], without jumps of a whole turn.

    Args:
        x: Of the points [m], shape (N,).
        z: The same.

    Returns:
        Shape (N,).
    """
    points = np.arange(len(x))
    before, after = np.maximum(points - _TANGENT_POINTS, 0), np.minimum(points + _TANGENT_POINTS, len(x) - 1)
    return np.unwrap(np.arctan2(x[after] - x[before], z[after] - z[before]))


def _bounded(values: np.ndarray | list[float], bound: float) -> np.ndarray:
    return np.clip(np.asarray(values, np.float32), -bound, bound)
