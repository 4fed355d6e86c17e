"""The view for people: the car from behind and above, with hills, haze and a small dashboard.

``SimulatedGame.render_chase`` calls it for videos and windows. Nothing here is observed by a policy.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from tasks.sim.camera import FAR_M, Lens, draw_window, window_rays
from tasks.sim.grids import TEXTURE_CELL_M, TrackGrids

FloatArray = NDArray[np.float64]
Uint8Array = NDArray[np.uint8]

CHASE_LENS = Lens(height_m=3.4, back_m=8.5, pitch=math.radians(13.0), focal_per_height=1.0)
_SUPERSAMPLING = 2
_CAMERA_LAG_S = 0.12
_SHIFT = 4
"""Bits behind the comma of a pixel, as OpenCV takes them."""
_HAZE_RGB = np.array([196.0, 206.0, 214.0], np.float32)
_HAZE_FROM_M = 60.0

_BODY, _BODY_DARK, _BODY_LIGHT = (206, 42, 44), (138, 24, 30), (236, 92, 76)
_GLASS, _TYRE, _WHEEL_TOP, _WING = (36, 44, 58), (24, 24, 26), (58, 58, 62), (34, 34, 38)
_LIGHT_OFF, _LIGHT_ON = (110, 14, 16), (255, 70, 50)


class ChaseCar(NamedTuple):
    """What the view shows of a car."""

    x: float
    z: float
    yaw: float
    yaw_rate: float
    steer: float
    gas: float
    brake: float
    speed_mps: float
    gear: int
    time_s: float


ChaseView = Callable[[ChaseCar, int, int], NDArray[np.uint8]]
"""Draws a car on its track: car, width and height [px] -> RGB, shape (height, width, 3)."""


class _Face(NamedTuple):
    """A polygon of the car."""

    corners: FloatArray
    """(right, up, forward) [m] in the car's frame, shape (n, 3)."""
    colour: tuple[int, int, int]


def render_chase(
    car: ChaseCar, grids: TrackGrids, width: int, height: int, *, has_dashboard: bool = True
) -> Uint8Array:
    """Draws the view.

    Args:
        car: The car.
        grids: The track.
        width: Of the picture [px].
        height: Of the picture [px].
        has_dashboard: Whether speed, time and controls are written over it.

    Returns:
        RGB, shape (height, width, 3).
    """
    if width < 16 or height < 16:
        raise ValueError(f"the chase view must be at least 16 x 16 px, got {width} x {height}")
    # The camera swings behind the car, so that turning shows.
    swing = -_CAMERA_LAG_S * car.yaw_rate
    camera_yaw = car.yaw + swing
    back = CHASE_LENS.back_m
    size = (_SUPERSAMPLING * width, _SUPERSAMPLING * height)
    pose = np.array([car.x, car.z, camera_yaw])
    picture = np.asarray(cv2.cvtColor(draw_window(pose, grids, *size, CHASE_LENS), cv2.COLOR_BGRA2RGB), np.uint8)
    _draw_hills(picture, camera_yaw)
    _add_haze(picture)
    _draw_car(picture, car, -swing, back)
    small: Uint8Array = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA).astype(np.uint8)
    if has_dashboard:
        _draw_dashboard(small, car)
    return small


def _draw_hills(picture: Uint8Array, yaw: float) -> None:
    """Two ranges of hills along the horizon, fixed to the world."""
    height, width = picture.shape[:2]
    focal = CHASE_LENS.focal_per_height * height
    columns = np.arange(width)
    azimuth = yaw + np.arctan((columns - width / 2) / focal)
    horizon = height / 2 - focal * math.tan(CHASE_LENS.pitch)
    base = math.ceil(horizon + 1.0 + focal * CHASE_LENS.height_m / FAR_M)
    for scale, shift, colour in ((0.085, 0.0, (150, 176, 190)), (0.05, 2.0, (108, 146, 128))):
        waves = np.sin(3 * azimuth + shift) + 0.5 * np.sin(7 * azimuth + 2 * shift) + 0.25 * np.sin(17 * azimuth)
        top = horizon - focal * scale * np.clip(0.45 + 0.35 * waves, 0.02, None)
        outline = np.stack([columns, top], axis=1)
        corners = np.vstack([outline, [[width, base], [0, base]]])
        cv2.fillPoly(picture, [np.round(corners).astype(np.int32)], colour)


def _add_haze(picture: Uint8Array) -> None:
    """Fades the ground into the distance."""
    haze = _haze_rows(picture.shape[1], picture.shape[0])
    first = int(np.argmax(haze > 0))
    rows = slice(first, int(len(haze) - np.argmax(haze[::-1] > 0)))
    share = haze[rows, None, None]
    picture[rows] = (picture[rows] * (1 - share) + _HAZE_RGB * share).astype(np.uint8)


@lru_cache(maxsize=4)
def _haze_rows(width: int, height: int) -> NDArray[np.float32]:
    """Share of haze in each row of pixels, 0 to 0.85, shape (height,)."""
    rays = window_rays(width, height, CHASE_LENS)
    ahead = rays.forward.reshape(height, width)[:, 0] * TEXTURE_CELL_M
    return np.clip((ahead - _HAZE_FROM_M) / (FAR_M - _HAZE_FROM_M), 0.0, 0.85).astype(np.float32)


def _draw_car(picture: Uint8Array, car: ChaseCar, turn: float, back: float) -> None:
    """Draws the shadow and then the faces from the farthest to the nearest."""
    _draw_shadow(picture, _on_screen(picture, _to_camera(_box_floor(1.25, 2.35, 0.02), turn, back)))
    faces = _car_faces(car.steer, car.brake)
    corners = _to_camera(np.array([face.corners for face in faces]), turn, back)  # (F, 4, 3)
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    is_seen = (normals * corners.mean(axis=1)).sum(axis=1) < 0.0
    distances = np.linalg.norm(corners, axis=2).mean(axis=1)
    points = _on_screen(picture, corners)
    for index in np.argsort(-distances, kind="stable"):
        if is_seen[index]:
            cv2.fillPoly(picture, [points[index]], faces[index].colour, lineType=cv2.LINE_AA, shift=_SHIFT)


def _draw_shadow(picture: Uint8Array, points: NDArray[np.int32]) -> None:
    """Darkens a polygon, in the part of the picture where it lies."""
    size = np.array(picture.shape[1::-1])
    low = np.clip((points.min(axis=0) >> _SHIFT) - 1, 0, size)
    high = np.clip((points.max(axis=0) >> _SHIFT) + 2, 0, size)
    part = picture[low[1] : high[1], low[0] : high[0]]
    if part.size:
        shadow = part.copy()
        offset = (low << _SHIFT).astype(np.int32)
        cv2.fillPoly(shadow, [points - offset], (20, 20, 22), lineType=cv2.LINE_AA, shift=_SHIFT)
        part[:] = cv2.addWeighted(shadow, 0.45, part, 0.55, 0.0)


def _on_screen(picture: Uint8Array, corners: FloatArray) -> NDArray[np.int32]:
    """Pixels (x, y), in units of 1/16, of points in camera coordinates: (..., 3) to (..., 2)."""
    height, width = picture.shape[:2]
    focal = CHASE_LENS.focal_per_height * height
    x = width / 2 + focal * corners[..., 0] / corners[..., 2]
    y = height / 2 - focal * corners[..., 1] / corners[..., 2]
    return np.round(np.stack([x, y], axis=-1) * (1 << _SHIFT)).astype(np.int32)


def _to_camera(corners: FloatArray, turn: float, back: float) -> FloatArray:
    """Car frame to camera frame (right, up, depth), both (..., 3)."""
    right = corners[..., 0] * math.cos(turn) + corners[..., 2] * math.sin(turn)
    forward = corners[..., 2] * math.cos(turn) - corners[..., 0] * math.sin(turn) + back
    up = corners[..., 1] - CHASE_LENS.height_m
    sin_pitch, cos_pitch = math.sin(CHASE_LENS.pitch), math.cos(CHASE_LENS.pitch)
    return np.stack([right, up * cos_pitch + forward * sin_pitch, forward * cos_pitch - up * sin_pitch], axis=-1)


def _car_faces(steer: float, brake: float) -> list[_Face]:
    """A low car: hull, nose, cabin, wing, four wheels and two lights."""
    faces: list[_Face] = []
    for side in (-1.0, 1.0):
        faces += _block((0.82 * side, 0.33, -1.3), (0.19, 0.33, 0.36), 0.0, _TYRE, _WHEEL_TOP)
        faces += _block((0.82 * side, 0.31, 1.3), (0.16, 0.31, 0.34), 0.35 * steer, _TYRE, _WHEEL_TOP)
    faces += _prism(0.62, (0.22, 0.22), (0.62, 0.66), (-1.85, 1.2), 1.0, _BODY, _BODY_DARK, _BODY_LIGHT)
    faces += _prism(0.62, (0.22, 0.22), (0.62, 0.36), (1.2, 2.1), 0.55, _BODY, _BODY_DARK, _BODY_LIGHT)
    faces += _prism(0.5, (0.6, 0.62), (1.08, 0.98), (-0.75, 0.35), 0.9, _GLASS, _GLASS, _BODY)
    faces += _prism(0.5, (0.6, 0.6), (0.98, 0.66), (0.35, 1.0), 0.9, _GLASS, _GLASS, _GLASS)
    faces += _prism(0.44, (0.58, 0.58), (0.7, 1.04), (-1.6, -0.75), 1.1, _BODY, _BODY_DARK, _BODY_LIGHT)
    faces += _block((0.0, 1.0, -1.9), (0.92, 0.04, 0.2), 0.0, _WING, _BODY)
    for side in (-1.0, 1.0):
        faces += _block((0.7 * side, 0.8, -1.85), (0.04, 0.2, 0.12), 0.0, _WING, _WING)
        light = _LIGHT_ON if brake > 0.0 else _LIGHT_OFF
        faces.append(_Face(_rear_plate(0.4 * side, 0.5, -1.87, 0.17, 0.07), light))
    return faces


def _rear_plate(x: float, y: float, z: float, half_x: float, half_y: float) -> FloatArray:
    left, right, low, high = x - half_x, x + half_x, y - half_y, y + half_y
    return np.array([[left, low, z], [left, high, z], [right, high, z], [right, low, z]])


def _box_floor(half_x: float, half_z: float, y: float) -> FloatArray:
    angles = np.linspace(0, 2 * math.pi, 28, endpoint=False)
    return np.stack([half_x * np.cos(angles), np.full(28, y), half_z * np.sin(angles)], axis=1)


def _prism(
    half_width: float,
    low: tuple[float, float],
    high: tuple[float, float],
    z: tuple[float, float],
    front_ratio: float,
    side: tuple[int, int, int],
    rear: tuple[int, int, int],
    top: tuple[int, int, int],
) -> list[_Face]:
    """A body between a rear and a front plane; ``low`` and ``high`` are its heights there."""
    a, b = half_width, half_width * front_ratio
    r, f = z
    points = np.array(
        [
            [-a, low[0], r], [a, low[0], r], [a, high[0], r], [-a, high[0], r],
            [-b, low[1], f], [b, low[1], f], [b, high[1], f], [-b, high[1], f],
        ]
    )  # fmt: skip
    return _hexahedron(points, side, rear, top)


def _block(
    centre: tuple[float, float, float],
    half: tuple[float, float, float],
    turn: float,
    side: tuple[int, int, int],
    top: tuple[int, int, int],
) -> list[_Face]:
    """A box that is turned about its vertical axis."""
    ring = ((-1, -1), (1, -1), (1, 1), (-1, 1))
    signs = np.array([(x, y, z) for z in (-1, 1) for x, y in ring])
    local = signs * np.array(half)
    x = local[:, 0] * math.cos(turn) + local[:, 2] * math.sin(turn)
    z = local[:, 2] * math.cos(turn) - local[:, 0] * math.sin(turn)
    return _hexahedron(np.stack([x, local[:, 1], z], axis=1) + np.array(centre), side, side, top)


def _hexahedron(
    points: FloatArray, side: tuple[int, int, int], rear: tuple[int, int, int], top: tuple[int, int, int]
) -> list[_Face]:
    """Rear points counter-clockwise from below left, then the front ones in the same order."""
    order = (
        ([0, 3, 2, 1], rear),
        ([4, 5, 6, 7], side),
        ([0, 4, 7, 3], side),
        ([1, 2, 6, 5], side),
        ([3, 7, 6, 2], top),
    )
    return [_Face(points[index], colour) for index, colour in order]


def _draw_dashboard(picture: Uint8Array, car: ChaseCar) -> None:
    """Speed, gear, race time and the controls."""
    height, width = picture.shape[:2]
    scale = height / 360.0
    _write(picture, f"{3.6 * car.speed_mps:3.0f} km/h", (width - 132 * scale, height - 16 * scale), 0.62 * scale)
    gear = "R" if car.gear == 0 else str(car.gear)
    _write(picture, gear, (width - 160 * scale, height - 16 * scale), 0.62 * scale)
    _write(picture, f"{car.time_s:6.2f} s", (12 * scale, 24 * scale), 0.6 * scale)
    left, top, length, thick = 12 * scale, height - 40 * scale, 70 * scale, max(2.0, 6 * scale)
    _bar(picture, left, top, length * car.gas, thick, (70, 200, 90))
    _bar(picture, left, top + 1.7 * thick, length * car.brake, thick, (230, 70, 60))
    middle = left + length / 2
    low, high = sorted((middle, middle + car.steer * length / 2))
    _bar(picture, low, top + 3.4 * thick, high - low + 2, thick, (240, 240, 240))


def _bar(picture: Uint8Array, x: float, y: float, length: float, thick: float, colour: tuple[int, int, int]) -> None:
    if length > 0.5:
        first, last = (round(x), round(y)), (round(x + length), round(y + thick))
        cv2.rectangle(picture, first, last, colour, cv2.FILLED)


def _write(picture: Uint8Array, text: str, at: tuple[float, float], scale: float) -> None:
    place = (round(at[0]), round(at[1]))
    thick = max(1, round(2 * scale))
    cv2.putText(picture, text, place, cv2.FONT_HERSHEY_DUPLEX, scale, (20, 24, 30), thick + 2, cv2.LINE_AA)
    cv2.putText(picture, text, place, cv2.FONT_HERSHEY_DUPLEX, scale, (250, 250, 250), thick, cv2.LINE_AA)
