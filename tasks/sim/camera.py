"""Pictures of the road: the player's front view, what is observed of it, and TMRL's LIDAR on it.

``tasks.sim.game`` owns one ``FrontCamera`` per game; ``tasks.sim.chase_view`` draws people's view with the same rays.
Every ray is looked up in the tiles of the road (``tasks.sim.grids``) in the same way; so the observed 64 x 64 picture
equals cv2's resize of the full frame, and the LIDAR equals TMRL's walk over the full frame, without rendering it. The
black border stands ``WALL_HEIGHT_M`` high: a ray that leaves the road through it is black.

A kernel calls kernels of its own file only, because numba's cache does not see changes in other files.
"""

from __future__ import annotations

import itertools
import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from tasks.game.lidar_sensor import FIRST_PIXEL, NUM_BEAMS
from tasks.sim import grids as grids_module
from tasks.sim import vehicle
from tasks.sim.car_roads import CarRoads
from tasks.sim.grids import TEXTURE_CELL_M, TrackGrids

FloatArray = NDArray[np.float64]
Uint8Array = NDArray[np.uint8]
_Array = np.ndarray
_BeamTables = tuple[_Array, _Array, _Array, _Array, _Array, _Array, _Array]
_ViewTables = tuple[_Array, _Array, _Array, _Array, _Array, _Array, _Array, _Array, _Array]

WALL_HEIGHT_M = 0.6
"""Height of the black border [m]."""
FAR_M = 300.0
"""Distance beyond which the ground fades into haze [m]."""


_WIDEST_M = 700.0
"""Rays that meet the ground farther away than this end in haze [m]; less than three blocks of tiles."""
_SKY_FIRST, _SKY_SHADES = 208, 32
_HAZE_INDEX = _SKY_FIRST + _SKY_SHADES
_ROAD_FIRST = np.uint8(grids_module.ROAD_FIRST)
_BORDER = np.uint8(grids_module.BORDER_INDEX)
_BLOCK_ROWS, _BLOCK_COLUMNS, _INDEX_AT = vehicle.BLOCK_ROWS, vehicle.BLOCK_COLUMNS, vehicle.INDEX_AT
# Rays are cast this many at a time, so that the cells they meet stay in the fastest cache.
_CHUNK = 2048
# cv2's fixed-point weights: bilinear taps sum to 2048 per axis; grey is 15 bit.
_WEIGHT_ONE = 2048
_GREY_BLUE, _GREY_GREEN, _GREY_RED, _GREY_SHIFT = 3735, 19235, 9798, 15


class Lens(NamedTuple):
    """Where a camera sits on the car and how it looks."""

    height_m: float
    """Over the road [m]."""
    back_m: float
    """Behind the middle of the car [m]."""
    pitch: float
    """How far it looks down [rad]."""
    focal_per_height: float
    """Focal length over picture height."""

    @property
    def near_ratio(self) -> float:
        """A ray is at the top of a border at this fraction of its way to the ground."""
        return 1.0 - WALL_HEIGHT_M / self.height_m


FRONT_LENS = Lens(height_m=2.2, back_m=2.5, pitch=math.radians(7.0), focal_per_height=0.98)
"""90 degrees across at 958 x 488; so far back that the border shows even to a car with its nose at it."""


_FRONT_BACK, _NEAR_RATIO = FRONT_LENS.back_m, np.float32(FRONT_LENS.near_ratio)


class FrontCamera:
    """The view ahead in a window of a given size, and the observed picture of another.

    Methods return new arrays; one camera serves any track and any car.
    """

    def __init__(self, window: tuple[int, int], image: tuple[int, int], grayscale: bool) -> None:
        """Prepares the tables.

        Args:
            window: (width, height) of the game window [px].
            image: (width, height) of the observed picture [px].
            grayscale: Grey or RGB observation.
        """
        self._window, self._image, self._grayscale = window, image, grayscale
        self._lanes = _lanes()
        self._beams: BeamTable | None = None
        self._taps: TapTable | None = None
        self._sky = np.empty((0, 1), np.uint8)

    def frame(self, pose: FloatArray, grids: TrackGrids) -> Uint8Array:
        """The window's picture, BGRA, shape (window height, window width, 4)."""
        return draw_window(pose, grids, *self._window, FRONT_LENS)

    def image(self, pose: FloatArray, grids: TrackGrids) -> Uint8Array:
        """What is observed of ``frame``: shape (h, w), or (h, w, 3) RGB."""
        out = np.empty(self._image_shape, np.uint8)
        _render_image(pose, *self._view(grids), out.reshape(self._num_pixels, -1))
        return out

    def images(self, poses: FloatArray, roads: CarRoads, out: Uint8Array, slot: int) -> None:
        """``image`` of many cars.

        Args:
            poses: Of the cars, shape (N, 3).
            roads: Of the cars.
            out: Their frames, shape (N, any number, h, w) or (N, any number, h, w, 3).
            slot: Which frame of each is written.
        """
        poses, look_up = np.ascontiguousarray(poses), (roads.places, roads.index, roads.texture)
        _render_images(
            poses, *look_up, *self._view(roads.of(0))[3:], out.reshape(*out.shape[:2], self._num_pixels, -1), slot
        )

    def lidar(self, pose: FloatArray, grids: TrackGrids) -> NDArray[np.float32]:
        """TMRL's beams on ``frame``: index of the first black pixel of each beam, float32, shape (19,)."""
        out = np.empty(NUM_BEAMS, np.float32)
        _measure_beams(pose, *self._scanned(grids), out)
        return out

    def lidars(self, poses: FloatArray, roads: CarRoads, out: NDArray[np.float32], slot: int) -> None:
        """``lidar`` of many cars into ``out``, shape (N, any number, 19); as ``images``."""
        look_up = roads.places, roads.index, roads.texture, roads.clearance
        _measure_all(np.ascontiguousarray(poses), *look_up, *self._scanned(roads.of(0))[4:], out, slot)

    @property
    def _image_shape(self) -> tuple[int, ...]:
        width, height = self._image
        return (height, width) if self._grayscale else (height, width, 3)

    @property
    def _num_pixels(self) -> int:
        return self._image[0] * self._image[1]

    def _view(self, grids: TrackGrids) -> _ViewTables:
        """What the kernels of the observed picture look up, in their order."""
        if self._taps is None:
            self._prepare_taps(grids)
        assert self._taps is not None
        (forward, right, fixed), weights = self._taps
        look_up = grids.place, grids.index, grids.texture
        return (*look_up, forward, right, fixed, weights, self._lanes, self._sky)

    def _prepare_taps(self, grids: TrackGrids) -> None:
        """Renders the sky at the top of the picture once, and keeps the taps of what lies below."""
        taps = self._taps = tap_table(self._window, self._image)
        pixels = np.empty((self._num_pixels, 1 if self._grayscale else 3), np.uint8)
        _render_image(np.zeros(3), *self._view(grids), pixels)
        shows_ground = (taps.rays.fixed.reshape(-1, 4) == 0).any(axis=1)
        count = int(np.argmax(shows_ground)) if shows_ground.any() else 0
        self._sky = pixels[:count].copy()
        forward, right, fixed = taps.rays
        below = Rays(forward[4 * count :], right[4 * count :], fixed[4 * count :])
        self._taps = TapTable(below, taps.weights[count:])

    def _scanned(self, grids: TrackGrids) -> _BeamTables:
        """What the kernels of the beams look up, in their order."""
        if self._beams is None:
            self._beams = beam_table(*self._window)
        beams = self._beams
        return (
            grids.place, grids.index, grids.texture, grids.clearance, beams.chain, beams.first_at, beams.spans
        )  # fmt: skip


class Rays(NamedTuple):
    """Where the rays of some pixels meet the ground, each array of shape (number of rays,)."""

    forward: NDArray[np.float32]
    """Distance ahead of the camera, in texture cells."""
    right: NDArray[np.float32]
    """Distance to its right, in texture cells."""
    fixed: Uint8Array
    """Palette index of rays that do not meet the ground (sky, haze), else 0."""


class TapTable(NamedTuple):
    """The four source pixels of each observed pixel."""

    rays: Rays
    """Their rays, upper left, upper right, lower left, lower right of each pixel."""
    weights: NDArray[np.int32]
    """cv2's weights (left, right, upper, lower) of 2048, shape (h * w, 4); (0, 4) when all are one half."""


class BeamTable(NamedTuple):
    """The pixels of TMRL's beams, one beam after the other."""

    chain: NDArray[np.float32]
    """Where each pixel's ray meets the ground, ahead of the camera and to its right, and the length over the ground of
    the chain of pixels up to this one, all in texture cells, shape (3, P)."""
    first_at: NDArray[np.int32]
    """First pixel whose length is at least this whole number of cells, as far as a skip may lead, shape (L,)."""
    spans: NDArray[np.int64]
    """Of each beam its first pixel, the end of its pixels that show the ground, and the end of all, shape (19, 3)."""


@lru_cache(maxsize=1)
def palette() -> NDArray[np.int64]:
    """Colours by palette index, shape (256, 3), columns B, G, R."""
    colours = np.full((256, 3), 255.0)
    colours[: grids_module.OFF_ROAD_FIRST] = (18, 18, 18)
    for i in range(grids_module.OFF_ROAD_SHADES):
        colours[grids_module.OFF_ROAD_FIRST + i] = np.array([62, 104, 74]) + i * np.array([0.6, 1.8, 1.1])
    for i in range(grids_module.ROAD_SHADES):
        colours[grids_module.ROAD_FIRST + i] = np.array([134, 128, 124]) + i * np.array([1.0, 1.0, 1.0])
    colours[grids_module.MARK_INDEX] = (236, 240, 240)
    colours[grids_module.FINISH_DARK_INDEX] = (90, 90, 160)
    colours[grids_module.FINISH_LIGHT_INDEX] = (245, 245, 245)
    for i in range(_SKY_SHADES):
        blend = i / (_SKY_SHADES - 1)
        colours[_SKY_FIRST + i] = (1 - blend) * np.array([226, 150, 84]) + blend * np.array([240, 222, 196])
    colours[_HAZE_INDEX] = (205, 202, 184)
    return np.rint(colours).astype(np.int64)


@lru_cache(maxsize=4)
def window_rays(width: int, height: int, lens: Lens = FRONT_LENS) -> Rays:
    """The rays of all pixels of a window, row by row."""
    rows, columns = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    return _project(rows.ravel(), columns.ravel(), width, height, lens)


def draw_window(pose: FloatArray, grids: TrackGrids, width: int, height: int, lens: Lens) -> Uint8Array:
    """The picture of a whole window, BGRA, shape (height, width, 4).

    Args:
        pose: (x, z, yaw) of the car.
        grids: The track.
        width: Of the window [px].
        height: Of the window [px].
        lens: The camera.
    """
    rays = window_rays(width, height, lens)
    out = np.empty((height, width, 4), np.uint8)
    words = out.view(np.uint32).ravel()
    back, ratio = lens.back_m, np.float32(lens.near_ratio)
    look_up = grids.place, grids.index, grids.texture
    _render_frame(pose, *look_up, rays.forward, rays.right, rays.fixed, back, ratio, _words(), words)
    return out


@lru_cache(maxsize=4)
def tap_table(window: tuple[int, int], image: tuple[int, int]) -> TapTable:
    """Source pixels and weights of cv2.resize(..., INTER_LINEAR) from ``window`` to ``image`` (width, height)."""
    columns, across = _axis_taps(window[0], image[0])
    rows, down = _axis_taps(window[1], image[1])
    tap_rows = np.broadcast_to(rows[:, None, [0, 0, 1, 1]], (image[1], image[0], 4))
    tap_columns = np.broadcast_to(columns[None, :, [0, 1, 0, 1]], (image[1], image[0], 4))
    rays = _project(tap_rows.ravel(), tap_columns.ravel(), *window)
    weights = np.empty((image[1], image[0], 4), np.int32)
    weights[..., :2], weights[..., 2:] = across[None, :], down[:, None]
    is_even = bool(np.all(weights == _WEIGHT_ONE // 2))
    return TapTable(rays, weights.reshape(-1, 4)[: 0 if is_even else None])


@lru_cache(maxsize=4)
def beam_table(width: int, height: int) -> BeamTable:
    """TMRL's 19 beams from (44 h // 49, w // 2), 90 to 270 degrees in steps of 10, from the 20th pixel on."""
    start_row, start_column = 44 * height // 49, width // 2
    beams = [
        _beam_pixels(start_row, start_column, math.cos(math.radians(angle)), math.sin(math.radians(angle)), width)
        for angle in range(90, 280, 10)
    ]
    if not all(beams):
        raise ValueError(f"the window must be large enough for the LIDAR (958x488), got {width}x{height}")
    rows, columns = np.array(list(itertools.chain(*beams))).T
    forward, right, fixed = _project(rows, columns, width, height)
    steps = np.hypot(np.diff(forward, prepend=0.0), np.diff(right, prepend=0.0))
    length = np.cumsum(np.where(fixed > 0, 0.0, steps)).astype(np.float32)
    first_at = np.searchsorted(length, np.arange(math.ceil(length[-1]) + 257)).astype(np.int32)
    ends = np.cumsum([len(beam) for beam in beams])
    starts = ends - [len(beam) for beam in beams]
    # Beams never point down again: what follows the first pixel of sky is sky.
    shown = [np.count_nonzero(fixed[a:b] == 0) for a, b in zip(starts, ends, strict=True)]
    return BeamTable(np.stack([forward, right, length]), first_at, np.stack([starts, starts + shown, ends], axis=1))


def _beam_pixels(row: int, column: int, step_row: float, step_column: float, width: int) -> list[tuple[int, int]]:
    """(row, column) of the pixels of a beam."""
    pixels: list[tuple[int, int]] = []
    distance = FIRST_PIXEL
    while True:
        at_row, at_column = int(row + distance * step_row), int(column + distance * step_column)
        if at_row <= 0 or at_column <= 0 or at_column >= width - 1:
            return pixels
        pixels.append((at_row, at_column))
        distance += 1


def _axis_taps(source: int, target: int) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """The two source indices of each target index and their weights of 2048, as cv2 computes them."""
    scale = source / target
    place = (np.arange(target) + 0.5) * scale - 0.5
    first = np.floor(place).astype(np.int64)
    inside = (first >= 0) & (first < source - 1)
    fraction = np.where(inside, place.astype(np.float32) - first.astype(np.float32), np.float32(0.0))
    first = np.clip(first, 0, source - 1)
    second = np.minimum(first + 1, source - 1)
    right = np.rint(fraction * np.float32(_WEIGHT_ONE)).astype(np.int32)
    return np.stack([first, second], axis=1), np.stack([_WEIGHT_ONE - right, right], axis=1)


def _project(rows: np.ndarray, columns: np.ndarray, width: int, height: int, lens: Lens = FRONT_LENS) -> Rays:
    """Casts the pixels' rays to the ground."""
    focal = lens.focal_per_height * height
    across = (columns + 0.5 - width / 2) / focal
    down = (rows + 0.5 - height / 2) / focal
    falling = math.sin(lens.pitch) + down * math.cos(lens.pitch)
    ahead = math.cos(lens.pitch) - down * math.sin(lens.pitch)
    is_ground = falling * FAR_M > lens.height_m * ahead
    is_ground &= falling * _WIDEST_M > lens.height_m * np.hypot(ahead, across)
    reach = lens.height_m / np.where(is_ground, falling, 1.0) / TEXTURE_CELL_M
    forward = np.where(is_ground, reach * ahead, 0.0).astype(np.float32)
    right = np.where(is_ground, reach * across, 0.0).astype(np.float32)
    return Rays(forward, right, _fixed_colours(is_ground, falling))


def _fixed_colours(is_ground: np.ndarray, falling: np.ndarray) -> Uint8Array:
    """Sky by its elevation; the haze lies between the horizon and the far end of the ground."""
    shade = np.clip(np.rint((1.0 + falling / 0.45) * (_SKY_SHADES - 1)), 0, _SKY_SHADES - 1)
    above = np.where(falling > -0.004, _HAZE_INDEX, _SKY_FIRST + shade)
    return np.where(is_ground, 0, above).astype(np.uint8)


@lru_cache(maxsize=1)
def _words() -> NDArray[np.uint32]:
    """The palette as BGRA in one little-endian word."""
    colours = palette().astype(np.uint32)
    words = colours[:, 0] | colours[:, 1] << 8 | colours[:, 2] << 16 | np.uint32(255 << 24)
    return words.astype(np.uint32)


@lru_cache(maxsize=1)
def _lanes() -> NDArray[np.int64]:
    """The palette as three lanes of 20 bits, blue lowest."""
    colours = palette()
    return colours[:, 0] | colours[:, 1] << 20 | colours[:, 2] << 40


@njit(cache=True)
def _eye(pose: np.ndarray, place: np.ndarray, back: float) -> tuple[np.float32, np.float32, np.float32, np.float32]:
    """Camera position in texture cells, and sine and cosine of the heading."""
    sin_yaw, cos_yaw = math.sin(pose[2]), math.cos(pose[2])
    x = (pose[0] - back * sin_yaw - place[0]) / TEXTURE_CELL_M
    z = (pose[1] - back * cos_yaw - place[1]) / TEXTURE_CELL_M
    return np.float32(x), np.float32(z), np.float32(sin_yaw), np.float32(cos_yaw)


@njit(cache=True)
def _blocks_around(
    place: np.ndarray, index: np.ndarray, eye_x: np.float32, eye_z: np.float32
) -> tuple[np.int32, np.int32, np.ndarray]:
    """Where 8 x 8 blocks around the camera begin, (column, row) in texture cells, and where their tiles are listed."""
    rows, columns, at = int(place[_BLOCK_ROWS]), int(place[_BLOCK_COLUMNS]), int(place[_INDEX_AT])
    first_row, first_column = (np.int32(eye_z) >> 10) - 4, (np.int32(eye_x) >> 10) - 4
    tables = np.empty(64, np.int32)
    for i in range(8):
        for j in range(8):
            row, column = first_row + i, first_column + j
            tables[8 * i + j] = at + rows * columns  # the list of the flat land
            if 0 <= row < rows and 0 <= column < columns:
                tables[8 * i + j] = index[at + row * columns + column]
    return np.int32(first_column << 10), np.int32(first_row << 10), tables


@njit(cache=True, inline="always")
def _spot(x: np.float32, z: np.float32, first_column: np.int32, first_row: np.int32) -> np.uint32:
    """A point among the blocks around the camera, packed: block 6 bits, tile of it 12 bits, cell of that 8 bits."""
    column = np.uint32(np.int32(x) - first_column) & np.uint32(8191)
    row = np.uint32(np.int32(z) - first_row) & np.uint32(8191)
    block = (row >> np.uint32(10)) << np.uint32(3) | column >> np.uint32(10)
    tile = ((row >> np.uint32(4)) & np.uint32(63)) << np.uint32(6) | ((column >> np.uint32(4)) & np.uint32(63))
    cell = (row & np.uint32(15)) << np.uint32(4) | (column & np.uint32(15))
    return block << np.uint32(20) | tile << np.uint32(8) | cell


@njit(cache=True, inline="always")
def _cell_at(spot: np.uint32, tables: np.ndarray, index: np.ndarray) -> np.uint32:
    """Where the cell of a spot lies in the texture."""
    tile = np.uint32(np.uint32(tables[spot >> np.uint32(20)]) + ((spot >> np.uint32(8)) & np.uint32(4095)))
    return np.uint32(np.uint32(index[tile]) + (spot & np.uint32(255)))


@njit(cache=True)
def _cast_rays(
    pose: np.ndarray,
    place: np.ndarray,
    index: np.ndarray,
    texture: np.ndarray,
    forward: np.ndarray,
    right: np.ndarray,
    fixed: np.ndarray,
    back: float,
    near_ratio: np.float32,
    out: np.ndarray,
) -> None:
    """The palette index that each ray meets; off the road it may have met the top of the border before.

    Where the rays end is worked out apart from the look-ups: only so does the compiler vectorise it.
    """
    eye_x, eye_z, sin_yaw, cos_yaw = _eye(pose, place, back)
    first_column, first_row, tables = _blocks_around(place, index, eye_x, eye_z)
    far, near = np.empty(_CHUNK, np.uint32), np.empty(_CHUNK, np.uint32)
    for first in range(0, out.shape[0], _CHUNK):
        ahead, aside = forward[first : first + _CHUNK], right[first : first + _CHUNK]
        for k in range(ahead.shape[0]):
            across = ahead[k] * sin_yaw + aside[k] * cos_yaw
            along = ahead[k] * cos_yaw - aside[k] * sin_yaw
            far[k] = _spot(eye_x + across, eye_z + along, first_column, first_row)
            near[k] = _spot(eye_x + near_ratio * across, eye_z + near_ratio * along, first_column, first_row)
        colours, known = out[first : first + _CHUNK], fixed[first : first + _CHUNK]
        for k in range(colours.shape[0]):
            colour = texture[_cell_at(far[k], tables, index)]
            is_land = colour < _ROAD_FIRST and colour != _BORDER
            if is_land and texture[_cell_at(near[k], tables, index)] >= _ROAD_FIRST:
                colour = _BORDER
            colours[k] = colour
        for k in range(colours.shape[0]):
            if known[k] != 0:
                colours[k] = known[k]


@njit(cache=True)
def _render_frame(
    pose: np.ndarray,
    place: np.ndarray,
    index: np.ndarray,
    texture: np.ndarray,
    forward: np.ndarray,
    right: np.ndarray,
    fixed: np.ndarray,
    back: float,
    near_ratio: np.float32,
    words: np.ndarray,
    out: np.ndarray,
) -> None:
    """Casts the ray of every pixel and writes its colour as one word."""
    indices = np.empty(out.shape[0], np.uint8)
    _cast_rays(pose, place, index, texture, forward, right, fixed, back, near_ratio, indices)
    for k in range(out.shape[0]):
        out[k] = words[indices[k]]


@njit(cache=True)
def _render_image(
    pose: np.ndarray,
    place: np.ndarray,
    index: np.ndarray,
    texture: np.ndarray,
    forward: np.ndarray,
    right: np.ndarray,
    fixed: np.ndarray,
    weights: np.ndarray,
    lanes: np.ndarray,
    sky: np.ndarray,
    out: np.ndarray,
) -> None:
    """Copies the sky; casts the four rays of every other observed pixel and mixes their colours as cv2 does."""
    out[: sky.shape[0]] = sky
    below = out[sky.shape[0] :]
    indices = np.empty(4 * below.shape[0], np.uint8)
    _cast_rays(pose, place, index, texture, forward, right, fixed, _FRONT_BACK, _NEAR_RATIO, indices)
    if weights.shape[0] == 0:
        _mix_evenly(indices, lanes, below)
    else:
        _mix_weighted(indices, weights, lanes, below)


@njit(cache=True)
def _mix_evenly(indices: np.ndarray, lanes: np.ndarray, out: np.ndarray) -> None:
    """The mean of four colours, added in three lanes of one word, rounded half up."""
    for k in range(out.shape[0]):
        total = lanes[indices[4 * k]] + lanes[indices[4 * k + 1]] + lanes[indices[4 * k + 2]]
        total += lanes[indices[4 * k + 3]] + np.int64(2 | 2 << 20 | 2 << 40)
        _store(out, k, (total >> 2) & 255, (total >> 22) & 255, (total >> 42) & 255)


@njit(cache=True)
def _mix_weighted(indices: np.ndarray, weights: np.ndarray, lanes: np.ndarray, out: np.ndarray) -> None:
    """cv2's bilinear mean: columns first, then rows, with its roundings."""
    mixed = np.empty(3, np.int64)
    for k in range(out.shape[0]):
        a, b = lanes[indices[4 * k]], lanes[indices[4 * k + 1]]
        c, d = lanes[indices[4 * k + 2]], lanes[indices[4 * k + 3]]
        for channel in range(3):
            lane = 20 * channel
            upper = ((a >> lane) & 255) * weights[k, 0] + ((b >> lane) & 255) * weights[k, 1]
            lower = ((c >> lane) & 255) * weights[k, 0] + ((d >> lane) & 255) * weights[k, 1]
            high = (weights[k, 2] * (upper >> 4)) >> 16
            low = (weights[k, 3] * (lower >> 4)) >> 16
            mixed[channel] = (high + low + 2) >> 2
        _store(out, k, mixed[0], mixed[1], mixed[2])


@njit(cache=True, inline="always")
def _store(out: np.ndarray, k: int, blue: int, green: int, red: int) -> None:
    """Writes a pixel as RGB, or as cv2's grey."""
    if out.shape[1] == 3:
        out[k, 0], out[k, 1], out[k, 2] = red, green, blue
    else:
        grey = blue * _GREY_BLUE + green * _GREY_GREEN + red * _GREY_RED
        out[k, 0] = (grey + (1 << (_GREY_SHIFT - 1))) >> _GREY_SHIFT


@njit(cache=True)
def _measure_beams(
    pose: np.ndarray,
    place: np.ndarray,
    index: np.ndarray,
    texture: np.ndarray,
    clearance: np.ndarray,
    chain: np.ndarray,
    first_at: np.ndarray,
    spans: np.ndarray,
    out: np.ndarray,
) -> None:
    """Walks each beam over the ground; where the road is wide it skips as far as no pixel can be black."""
    eye_x, eye_z, sin_yaw, cos_yaw = _eye(pose, place, _FRONT_BACK)
    first_column, first_row, tables = _blocks_around(place, index, eye_x, eye_z)
    forward, right, length = chain[0], chain[1], chain[2]
    for beam in range(out.shape[0]):
        k, end = spans[beam, 0], spans[beam, 1]
        last = spans[beam, 2] - 1
        while k < end:
            across = forward[k] * sin_yaw + right[k] * cos_yaw
            along = forward[k] * cos_yaw - right[k] * sin_yaw
            cell = _cell_at(_spot(eye_x + across, eye_z + along, first_column, first_row), tables, index)
            if cell < clearance.shape[0] and clearance[cell] > 0:
                reach = length[k] + np.float32(clearance[cell])
                k = max(k + 1, np.int64(first_at[np.int64(reach)]))
                while k < end and length[k] < reach:
                    k += 1
                continue
            colour = texture[cell]
            if colour < _ROAD_FIRST and colour != _BORDER:
                top = _spot(eye_x + _NEAR_RATIO * across, eye_z + _NEAR_RATIO * along, first_column, first_row)
                if texture[_cell_at(top, tables, index)] >= _ROAD_FIRST:
                    colour = _BORDER
            if colour == _BORDER:
                last = k
                break
            k += 1
        out[beam] = last - spans[beam, 0]


@njit(cache=True, parallel=True, nogil=True)
def _measure_all(
    poses: np.ndarray,
    places: np.ndarray,
    index: np.ndarray,
    texture: np.ndarray,
    clearance: np.ndarray,
    chain: np.ndarray,
    first_at: np.ndarray,
    spans: np.ndarray,
    out: np.ndarray,
    slot: int,
) -> None:
    """``_measure_beams`` of each car, into one slot of its row."""
    for car in prange(out.shape[0]):
        _measure_beams(poses[car], places[car], index, texture, clearance, chain, first_at, spans, out[car, slot])


@njit(cache=True, parallel=True, nogil=True)
def _render_images(
    poses: np.ndarray,
    places: np.ndarray,
    index: np.ndarray,
    texture: np.ndarray,
    forward: np.ndarray,
    right: np.ndarray,
    fixed: np.ndarray,
    weights: np.ndarray,
    lanes: np.ndarray,
    sky: np.ndarray,
    out: np.ndarray,
    slot: int,
) -> None:
    """``_render_image`` of each car, into one slot of its row."""
    for car in prange(out.shape[0]):
        pixels = out[car, slot]
        _render_image(poses[car], places[car], index, texture, forward, right, fixed, weights, lanes, sky, pixels)
