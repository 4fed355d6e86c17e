"""Tracks: centre lines from road blocks or files, and the grids that physics and cameras look things up in.

``load_track`` is the way in; games, cameras, the scripted driver and the tasks' reference path read the result. A
shipped track is a small JSON file of road blocks on a 32 m grid, see ``blocks_to_line`` for the blocks.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from tasks.point_files import SUFFIXES, is_point_file, read_points
from tasks.sim import vehicle

FloatArray = NDArray[np.float64]

TILE_M = 32.0
"""Side of a road block [m]."""
POINT_SPACING_M = 0.1
"""Distance between points of a centre line [m]."""
BORDER_M = 1.25
"""Width of the black border at each side, inside the road width [m]."""
WALL_SETBACK_M = 0.45
"""How far the body may stand over the border before it meets the wall [m]."""
ROAD_HEIGHT_M = 10.0
"""Height of the road of shipped tracks [m]."""
TRACKS_FOLDER = Path(__file__).parent / "tracks"
SHIPPED = ("short", "medium", "long")
MIRRORED_SUFFIX = "_mirrored"

MIN_LENGTH_M = 100.0
MIN_RADIUS_M = 5.0
_MAX_GAP_M = 40.0
_RUN_IN_M = 16.0
_RUN_OUT_M = 48.0
_MARGIN_M = 24.0
_FIELD_CELL_M = 0.5
_FAR_M = 1000.0

# Palette indices of the texture, in brightness bands that the camera tells apart: border < off-road < road.
TEXTURE_CELL_M = 0.25
BORDER_INDEX = 0
OFF_ROAD_FIRST, OFF_ROAD_SHADES = 32, 32
ROAD_FIRST, ROAD_SHADES = 128, 64
MARK_INDEX = ROAD_FIRST + ROAD_SHADES
FINISH_DARK_INDEX, FINISH_LIGHT_INDEX = MARK_INDEX + 1, MARK_INDEX + 2


@dataclass(frozen=True)
class ScriptedLap:
    """What the scripted driver was tuned to on a track."""

    parameters: dict[str, float]
    lap_time_s: float
    """Mean lap over its tuning episodes [s]."""


@dataclass(frozen=True, eq=False)
class Track:
    """A flat road with walls, from a start to a finish."""

    name: str
    centre_line: FloatArray
    """Points (x, y, z) [m] every 0.1 m, world frame, shape (N, 3); the last point lies on the finish line."""
    width_m: float
    """Drivable width, borders included [m]."""
    scripted: ScriptedLap | None = None
    """Stored result of the scripted driver; None for tracks given as files."""

    @property
    def length_m(self) -> float:
        """Length of the centre line [m]."""
        return (len(self.centre_line) - 1) * POINT_SPACING_M

    @property
    def height_m(self) -> float:
        """Height of the road [m]."""
        return float(self.centre_line[0, 1])

    @property
    def start_position(self) -> tuple[float, float]:
        """(x, z) of the start [m]."""
        return float(self.centre_line[0, 0]), float(self.centre_line[0, 2])

    @property
    def start_yaw(self) -> float:
        """Heading at the start [rad]."""
        dx, dz = self.centre_line[5, [0, 2]] - self.centre_line[0, [0, 2]]
        return math.atan2(dx, dz)

    @property
    def finish_position(self) -> tuple[float, float]:
        """(x, z) of the middle of the finish line [m]."""
        return float(self.centre_line[-1, 0]), float(self.centre_line[-1, 2])

    @property
    def finish_yaw(self) -> float:
        """Direction in which the finish line is crossed [rad]."""
        dx, dz = self.centre_line[-1, [0, 2]] - self.centre_line[-6, [0, 2]]
        return math.atan2(dx, dz)

    @property
    def inner_half_width_m(self) -> float:
        """Distance from the centre line to the inner edge of the black border [m]."""
        return self.width_m / 2 - BORDER_M

    @cached_property
    def grids(self) -> TrackGrids:
        """The look-up grids; built at first use."""
        return _build_grids(self)

    def edges(self) -> tuple[FloatArray, FloatArray]:
        """Left and right edge of the road, (x, z) [m], each of shape (N, 2)."""
        points = self.centre_line[:, [0, 2]]
        tangent = np.gradient(points, axis=0)
        tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
        right = np.stack([tangent[:, 1], -tangent[:, 0]], axis=1)
        return points - right * self.width_m / 2, points + right * self.width_m / 2

    def hash(self) -> str:
        """Text identity of the geometry; equal geometries have equal hashes."""
        data = np.round(self.centre_line, 4).tobytes() + np.float64(self.width_m).tobytes()
        return hashlib.sha256(data).hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class TrackGrids:
    """A track as the kernels see it."""

    place: FloatArray
    """Origin of the field, edges, finish line; layout in ``tasks.sim.vehicle``."""
    field: NDArray[np.float32]
    """Distance to the centre line [m], rows along z, columns along x."""
    texture: NDArray[np.uint8]
    """Palette index per cell of 0.25 m, rows along z, columns along x; same origin as the field."""
    clearance: NDArray[np.uint8]
    """Whole texture cells around this one that are surely road; 0 off the road."""


def load_track(name_or_path: str, width_m: float = 25.75) -> Track:
    """Loads a shipped track by name, or a file of points.

    Args:
        name_or_path: short, medium, long, each also with ``_mirrored``; or a file of points x,z or x,y,z [m] in
            driving order (``tasks.point_files``), whose heights are ignored.
        width_m: Drivable width of a track given as a file [m].

    Raises:
        ValueError: Unknown name, or a line that cannot be driven; the message names the place.
    """
    if is_point_file(name_or_path):
        return _load_file(name_or_path, width_m)
    return _load_shipped(name_or_path)


def shipped_names() -> tuple[str, ...]:
    """Names of all shipped tracks."""
    return SHIPPED + tuple(name + MIRRORED_SUFFIX for name in SHIPPED)


def blocks_to_line(blocks: Sequence[Sequence[Any]], start: Sequence[float]) -> FloatArray:
    """Lays road blocks one after the other and returns (x, z) points every 0.1 m, shape (N, 2).

    Blocks (lengths in tiles of 32 m, radii of the centre line in m, directions ``left`` or ``right``):
        ["straight", tiles]
        ["corner", direction, tiles, radius]: 90 degrees within a square of that many tiles
        ["shift", direction, tiles, radius]: two opposite arcs that move the road one tile aside over that many tiles
        ["hairpin", direction, lead radius, radius]: a 30 degree bend, a straight and 150 degrees back, two tiles apart

    Args:
        blocks: The blocks in driving order.
        start: (x, z, yaw in degrees) of the first point.
    """
    x, z, yaw = float(start[0]), float(start[1]), math.radians(start[2])
    pieces = [piece for block in blocks for piece in _block_pieces(block)]
    total = sum(abs(length) for length, _ in pieces)
    stations = np.arange(math.floor(total / POINT_SPACING_M + 1e-6) + 1) * POINT_SPACING_M
    points = np.empty((len(stations), 2))
    begin = 0.0
    for length, curvature in pieces:
        inside = (stations >= begin - 1e-9) & (stations <= begin + length + 1e-9)
        points[inside] = _along_piece(x, z, yaw, curvature, stations[inside] - begin)
        x, z = _along_piece(x, z, yaw, curvature, np.array([length], np.float64))[0]
        yaw += curvature * length
        begin += length
    return points


def check_line(points: FloatArray, source: str) -> None:
    """Refuses a centre line that cannot be driven.

    Args:
        points: (x, z) every 0.1 m, shape (N, 2).
        source: What the message calls the line.

    Raises:
        ValueError: Too short, a kink, or a crossing; the message names the place.
    """
    length = (len(points) - 1) * POINT_SPACING_M
    if length < MIN_LENGTH_M:
        raise ValueError(f"track {source} must be at least {MIN_LENGTH_M:g} m long, got {length:.1f} m: add points")
    _refuse_kink(points, source)
    _refuse_crossing(points, source)


def _load_shipped(name: str) -> Track:
    if name not in shipped_names():
        raise ValueError(
            f"task.track must be one of {', '.join(shipped_names())}, or a file of points ({SUFFIXES}), got {name!r}"
        )
    return _cached_shipped(name)


@lru_cache(maxsize=8)
def _cached_shipped(name: str) -> Track:
    is_mirrored = name.endswith(MIRRORED_SUFFIX)
    data = json.loads(track_file(name).read_text(encoding="utf-8"))
    line = blocks_to_line(data["blocks"], data["start"])
    if is_mirrored:
        line = line * np.array([-1.0, 1.0])
    stored = data.get("scripted", {}).get(name)
    scripted = ScriptedLap(stored["parameters"], stored["lap_time_s"]) if stored else None
    return Track(name, _with_height(line, ROAD_HEIGHT_M), float(data["width_m"]), scripted)


def track_file(name: str) -> Path:
    """The data file of a shipped track, which its mirrored twin shares."""
    return TRACKS_FOLDER / f"{name.removesuffix(MIRRORED_SUFFIX)}.json"


def _load_file(path: str, width_m: float) -> Track:
    if not width_m > 2 * (BORDER_M + 2.5):
        raise ValueError(f"task.track_width_m must be > {2 * (BORDER_M + 2.5):g} m (borders and car), got {width_m!r}")
    file = read_points(path)
    try:
        _refuse_jump(file.ground, path)
        line = _resample(file.ground)
        check_line(line, path)
    except ValueError as error:
        raise ValueError(f"{error}; --check draws the line") from error
    height = float(np.median(file.points[:, 1])) if file.has_heights else ROAD_HEIGHT_M
    return Track(Path(path).stem, _with_height(line, height), float(width_m))


def _refuse_jump(points: FloatArray, source: str) -> None:
    gaps = np.linalg.norm(np.diff(points, axis=0), axis=1)
    allowed = min(_MAX_GAP_M, max(3.0, 10.0 * float(np.median(gaps))))
    jumps = np.flatnonzero(gaps > allowed)
    if len(jumps):
        i = int(jumps[0])
        raise ValueError(
            f"track {source} jumps by {gaps[i]:.1f} m between points {i} and {i + 1} "
            f"({_place_text(points[i])}); neighbouring points must be at most {allowed:.1f} m apart"
        )


def _resample(points: FloatArray) -> FloatArray:
    """Points every 0.1 m along the line; coarse lines are rounded by a Catmull-Rom curve first."""
    gaps = np.linalg.norm(np.diff(points, axis=0), axis=1)
    points = points[np.concatenate([[True], gaps > 1e-3])]
    if len(points) < 2:
        return points
    if float(np.median(np.linalg.norm(np.diff(points, axis=0), axis=1))) > 2.0:
        points = _round_coarse(points)
    station = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    wanted = np.arange(math.floor(station[-1] / POINT_SPACING_M + 1e-6) + 1) * POINT_SPACING_M
    return np.stack([np.interp(wanted, station, points[:, axis]) for axis in (0, 1)], axis=1)


def _round_coarse(points: FloatArray) -> FloatArray:
    before = np.vstack([2 * points[0] - points[1], points[:-2]])
    after = np.vstack([points[2:], 2 * points[-1] - points[-2]])
    a, b = points[:-1, None], points[1:, None]
    p, q = before[:, None], after[:, None]
    t = np.linspace(0.0, 1.0, 40, endpoint=False)[None, :, None]
    curve = 0.5 * (2 * a + (b - p) * t + (2 * p - 5 * a + 4 * b - q) * t**2 + (3 * a - p - 3 * b + q) * t**3)
    return np.vstack([curve.reshape(-1, 2), points[-1:]])


def _refuse_kink(points: FloatArray, source: str) -> None:
    """The radius is that of the turn between two neighbouring 2 m chords."""
    chord = round(2.0 / POINT_SPACING_M)
    steps = points[chord:] - points[:-chord]
    heading = np.arctan2(steps[:, 0], steps[:, 1])
    turn = np.abs((heading[chord:] - heading[:-chord] + np.pi) % (2 * np.pi) - np.pi)
    sharp = np.flatnonzero(turn * MIN_RADIUS_M > 2.0)
    if len(sharp):
        worst = int(sharp[np.argmax(turn[sharp[0] : sharp[0] + 2 * chord][: len(sharp)])])
        at = worst + chord
        raise ValueError(
            f"track {source} has a kink of radius {2.0 / turn[worst]:.1f} m at {_where(points, at)}; "
            f"the radius must be at least {MIN_RADIUS_M:g} m"
        )


def _refuse_crossing(points: FloatArray, source: str) -> None:
    """Looks for intersections of 1 m segments that are not neighbours, cell by cell."""
    stride = round(1.0 / POINT_SPACING_M)
    nodes = points[::stride]
    cells: dict[tuple[int, int], list[int]] = defaultdict(list)
    keys = np.floor(nodes / 4.0).astype(int)
    for j in range(len(nodes) - 1):
        column, row = int(keys[j, 0]), int(keys[j, 1])
        for near in ((column + a, row + b) for a in (-1, 0, 1) for b in (-1, 0, 1)):
            for i in cells.get(near, ()):
                if j - i > 2 and _segments_cross(nodes[i], nodes[i + 1], nodes[j], nodes[j + 1]):
                    first, second = _where(points, i * stride), _where(points, j * stride)
                    raise ValueError(f"track {source} crosses itself: {first} and {second}; cut the line before that")
        cells[column, row].append(j)


def _segments_cross(a: FloatArray, b: FloatArray, c: FloatArray, d: FloatArray) -> bool:
    """Whether the segments a-b and c-d have a point in common."""

    def side(p: FloatArray, q: FloatArray, r: FloatArray) -> float:
        return float((q[0] - p[0]) * (r[1] - p[1]) - (q[1] - p[1]) * (r[0] - p[0]))

    apart = np.minimum(a, b) > np.maximum(c, d), np.minimum(c, d) > np.maximum(a, b)
    if np.any(apart):
        return False
    return side(a, b, c) * side(a, b, d) <= 0.0 and side(c, d, a) * side(c, d, b) <= 0.0


def _where(points: FloatArray, index: int) -> str:
    return f"{index * POINT_SPACING_M:.1f} m ({_place_text(points[index])})"


def _place_text(point: FloatArray) -> str:
    return f"x {point[0]:.1f}, z {point[1]:.1f}"


def _with_height(line: FloatArray, height: float) -> FloatArray:
    return np.stack([line[:, 0], np.full(len(line), height), line[:, 1]], axis=1)


def _block_pieces(block: Sequence[Any]) -> list[tuple[float, float]]:
    """A block as pieces (length [m], curvature [1/m], positive to the right)."""
    kind = block[0]
    if kind == "straight":
        return [(TILE_M * block[1], 0.0)]
    sign = {"left": -1.0, "right": 1.0}[block[1]]
    if kind == "corner":
        tiles, radius = block[2], float(block[3])
        lead = TILE_M * (tiles - 0.5) - radius
        return [(lead, 0.0), (radius * math.pi / 2, sign / radius), (lead, 0.0)]
    if kind == "shift":
        return _shift_pieces(sign, TILE_M * block[2], float(block[3]))
    if kind == "hairpin":
        return _hairpin_pieces(sign, float(block[2]), float(block[3]))
    raise ValueError(f"road block must be straight, corner, shift or hairpin, got {kind!r}")


def _shift_pieces(sign: float, length: float, radius: float) -> list[tuple[float, float]]:
    """Two arcs and the straight between them, found from the displacement (length, one tile)."""
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        angle = (low + high) / 2
        between = (length - 2 * radius * math.sin(angle)) / math.cos(angle)
        aside = 2 * radius * (1 - math.cos(angle)) + between * math.sin(angle)
        low, high = (angle, high) if aside < TILE_M else (low, angle)
    arc = radius * angle
    return [(arc, sign / radius), (between, 0.0), (arc, -sign / radius)]


def _hairpin_pieces(sign: float, lead_radius: float, radius: float) -> list[tuple[float, float]]:
    """30 and 150 degrees whose legs lie two tiles apart; the last straight returns to the row of the entry."""
    angle = math.pi / 6
    aside = 2 * TILE_M - lead_radius * (1 - math.cos(angle)) - radius * (1 + math.cos(angle))
    between = aside / math.sin(angle)
    reach = lead_radius * math.sin(angle) + between * math.cos(angle) - radius * math.sin(angle)
    pieces = [(lead_radius * angle, sign / lead_radius), (between, 0.0)]
    return [*pieces, (radius * (math.pi - angle), sign / radius), (reach, 0.0)]


def _along_piece(x: float, z: float, yaw: float, curvature: float, s: NDArray[np.floating]) -> FloatArray:
    if curvature == 0.0:
        return np.stack([x + np.sin(yaw) * s, z + np.cos(yaw) * s], axis=1)
    end = yaw + curvature * s
    return np.stack([x + (math.cos(yaw) - np.cos(end)) / curvature, z + (np.sin(end) - math.sin(yaw)) / curvature], 1)


def _build_grids(track: Track) -> TrackGrids:
    """Rasterises the road, a run-in behind the start and a run-out behind the finish."""
    line, station = _extended_line(track)
    low = np.floor(line.min(axis=0) - track.width_m - _MARGIN_M)
    span = line.max(axis=0) + track.width_m + _MARGIN_M - low
    columns, rows = (math.ceil(extent / _FIELD_CELL_M) + 1 for extent in span)
    field = np.full((rows, columns), np.float32(_FAR_M), np.float32)
    reach = track.width_m / 2 + 4.0
    along = np.full((2 * rows, 2 * columns), np.float32(0.0))
    distance = np.full((2 * rows, 2 * columns), np.float32(_FAR_M))
    _rasterise(line, station, low[0], low[1], _FIELD_CELL_M, reach, field, np.empty((0, 0), np.float32))
    # Texture cells are looked up at their centres, hence the half cell.
    half = TEXTURE_CELL_M / 2
    _rasterise(line, station, low[0] + half, low[1] + half, TEXTURE_CELL_M, reach, distance, along)
    shades = np.random.default_rng(int(track.hash()[:8], 16)).integers(0, 256, (512, 512), dtype=np.uint8)
    texture, clearance = _paint(distance, along, shades, track.inner_half_width_m, track.width_m / 2, track.length_m)
    return TrackGrids(_place_vector(track, low), field, texture, clearance)


def _place_vector(track: Track, low: FloatArray) -> FloatArray:
    place = np.zeros(vehicle.PLACE_SIZE)
    place[vehicle.FIELD_X], place[vehicle.FIELD_Z], place[vehicle.FIELD_CELL] = low[0], low[1], _FIELD_CELL_M
    place[vehicle.BORDER_AT] = track.inner_half_width_m
    place[vehicle.WALL_AT] = track.inner_half_width_m + WALL_SETBACK_M
    place[vehicle.FINISH_X], place[vehicle.FINISH_Z] = track.finish_position
    place[vehicle.FINISH_DX], place[vehicle.FINISH_DZ] = math.sin(track.finish_yaw), math.cos(track.finish_yaw)
    place[vehicle.GATE_HALF] = track.width_m / 2
    place[vehicle.MIN_DISTANCE] = 0.4 * track.length_m
    return place


def _extended_line(track: Track) -> tuple[FloatArray, FloatArray]:
    """(x, z) about every metre from the run-in to the run-out, and the station of each point (0 at the start)."""
    count = max(2, round(track.length_m))
    index = np.round(np.linspace(0, len(track.centre_line) - 1, count + 1)).astype(int)
    points = track.centre_line[index][:, [0, 2]]
    tail, head = np.arange(-_RUN_IN_M, 0.0), np.arange(1.0, _RUN_OUT_M + 1.0)
    behind = points[0] + tail[:, None] * np.array([math.sin(track.start_yaw), math.cos(track.start_yaw)])
    ahead = points[-1] + head[:, None] * np.array([math.sin(track.finish_yaw), math.cos(track.finish_yaw)])
    ahead = ahead[: _free_run_out(ahead, points[:-40], track.width_m)]
    station = np.concatenate([tail, index * POINT_SPACING_M, track.length_m + head[: len(ahead)]])
    return np.vstack([behind, points, ahead]), station


def _free_run_out(ahead: FloatArray, others: FloatArray, width_m: float) -> int:
    """How many metres of run-out fit before another stretch of road; at least 12, so that the car gets across."""
    for i, point in enumerate(ahead):
        if len(others) and np.min(np.linalg.norm(others - point, axis=1)) < width_m + TILE_M / 4:
            return max(12, i)
    return len(ahead)


@njit(cache=True)
def _rasterise(
    line: np.ndarray,
    station: np.ndarray,
    origin_x: float,
    origin_z: float,
    cell: float,
    reach: float,
    distance: np.ndarray,
    along: np.ndarray,
) -> None:
    """Writes the distance to the line, and the station of the nearest point, into every cell within ``reach``."""
    rows, columns = distance.shape
    for k in range(len(line) - 1):
        ax, az, bx, bz = line[k, 0], line[k, 1], line[k + 1, 0], line[k + 1, 1]
        dx, dz = bx - ax, bz - az
        square = dx * dx + dz * dz
        first_column = max(0, int((min(ax, bx) - reach - origin_x) / cell))
        last_column = min(columns - 1, int((max(ax, bx) + reach - origin_x) / cell) + 1)
        first_row = max(0, int((min(az, bz) - reach - origin_z) / cell))
        last_row = min(rows - 1, int((max(az, bz) + reach - origin_z) / cell) + 1)
        for i in range(first_row, last_row + 1):
            z = origin_z + i * cell
            for j in range(first_column, last_column + 1):
                x = origin_x + j * cell
                t = min(max(((x - ax) * dx + (z - az) * dz) / square, 0.0), 1.0)
                gap_x, gap_z = x - ax - t * dx, z - az - t * dz
                gap = np.float32(np.sqrt(gap_x * gap_x + gap_z * gap_z))
                if gap < distance[i, j]:
                    distance[i, j] = gap
                    if along.size > 0:
                        along[i, j] = station[k] + t * (station[k + 1] - station[k])


@njit(cache=True)
def _paint(
    distance: np.ndarray, along: np.ndarray, shades: np.ndarray, inner: float, outer: float, length: float
) -> tuple[np.ndarray, np.ndarray]:
    """Chooses each cell's palette index, and counts the cells around it that are surely road."""
    rows, columns = distance.shape
    texture = np.empty((rows, columns), np.uint8)
    clearance = np.zeros((rows, columns), np.uint8)
    for i in range(rows):
        for j in range(columns):
            gap, s = distance[i, j], along[i, j]
            fine = shades[i & 511, j & 511]
            patch = shades[(i >> 4) & 511, (j >> 4) & 511]
            if gap < inner:
                texture[i, j] = _road_index(gap, s, fine, patch, inner, length)
                clearance[i, j] = min(255, max(0, int((inner - gap) / TEXTURE_CELL_M) - 2))
            elif gap < outer:
                texture[i, j] = BORDER_INDEX
            else:
                texture[i, j] = OFF_ROAD_FIRST + ((patch >> 4) + (fine >> 5)) * OFF_ROAD_SHADES // 24
    return texture, clearance


@njit(cache=True)
def _road_index(gap: float, s: float, fine: int, patch: int, inner: float, length: float) -> int:
    """Road: patches, a seam at each 32 m block, dashes along the middle, a chequered finish line."""
    if 0.0 <= s - length < 2.0:
        return FINISH_LIGHT_INDEX if (int(gap) + int(s - length)) % 2 == 0 else FINISH_DARK_INDEX
    if gap < 0.3 and s % 16.0 < 5.0:
        return MARK_INDEX
    shade = (patch >> 3) + (fine >> 4)
    if int(s / TILE_M + 64.0) % 2 == 0:
        shade += 10
    if s % TILE_M < 1.0:
        shade = 0
    return ROAD_FIRST + min(shade, ROAD_SHADES - 1)
