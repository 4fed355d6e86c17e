"""Tracks: centre lines from road blocks or files, and their checks.

``load_track`` loads one; games, cameras, the scripted driver and the tasks' reference path read the result.
``tasks.sim.grids`` builds the tables of physics and cameras from it. A shipped track is a small JSON file of road
blocks on a 32 m grid; ``blocks_to_line`` describes the blocks.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from tasks.config import MIRRORED_SUFFIX, ROAD_WIDTH_M, SHIPPED_TRACKS
from tasks.points.files import POINT_SPACING_M, SUFFIXES, Frame, is_point_file, read_points
from tasks.sim.grid_files import shared_grids
from tasks.sim.grids import BORDER_M, Road, TrackGrids, build_grids, memory_bytes
from tasks.sim.road_pieces import ROAD_HEIGHT_M, Piece, at_height, pieces_to_line
from tasks.sim.stretches import narrows, near_pairs, round_m

FloatArray = NDArray[np.float64]

TILE_M = 32.0
"""Side of a road block [m]."""
TRACKS_FOLDER = Path(__file__).parent / "tracks"

MIN_LENGTH_M = 100.0
MAX_CLIMB_M = 2.0
"""How far a line that was driven in the game may leave the height of its start [m]."""
MIN_RADIUS_M = 5.0
MIN_WIDTH_M = 2 * (BORDER_M + 2.5)
"""A narrower road leaves no room for the car between its borders [m]."""
MAX_MEMORY_BYTES = 128 * 2**20
"""What the grids of a track may take, in each process or shared; about 57 km of the usual width."""
SHARED_FROM_M = 5000.0
"""The grids of a longer track are built once and shared by all processes; shorter ones are built in a moment [m]."""
_MAX_GAP_M = 40.0
_RUN_IN_M = 16.0
_RUN_OUT_M = 48.0


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
    """Stored result of the scripted driver; None where none is stored."""
    shade_seed: int | None = None
    """What the shades of road and land follow from; None: the geometry."""

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

    def middle(self, spacing_m: float) -> FloatArray:
        """Points of the centre line, (x, z) [m] about every ``spacing_m``, from its start to its end, shape (M, 2)."""
        count = max(8, round(self.length_m / spacing_m))
        index = np.round(np.linspace(0, len(self.centre_line) - 1, count + 1)).astype(int)
        return self.centre_line[index][:, [0, 2]]

    @cached_property
    def grids(self) -> TrackGrids:
        """The look-up grids, built at first use; equal tracks, and for long ones all processes, share them."""
        key = f"{self.hash()} {self.shade_seed}"
        grids = _GRIDS.get(key)
        if grids is None:
            build = shared_grids if self.length_m >= SHARED_FROM_M else build_grids
            grids = _GRIDS[key] = build(road_of(self))
        return grids

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


_GRIDS: WeakValueDictionary[str, TrackGrids] = WeakValueDictionary()


def load_track(name_or_path: str, width_m: float = ROAD_WIDTH_M, *, is_in_game: bool = False) -> Track:
    """Loads a shipped track by name, or a file of points.

    Args:
        name_or_path: short, medium, long, each also with ``_mirrored``; or a file of points x,z or x,y,z [m] in
            driving order (``tasks.points.files``), whose heights are ignored.
        width_m: Drivable width of a track given as a file [m].
        is_in_game: Whether a file that does not tell its frame is in the game's; a turn to the right stays one.

    Raises:
        ValueError: Unknown name, or a line that cannot be driven; the message names the place.
    """
    if is_point_file(name_or_path):
        return _load_file(name_or_path, width_m, is_in_game)
    return _load_shipped(name_or_path)


def shipped_names() -> tuple[str, ...]:
    """Names of all shipped tracks."""
    return SHIPPED_TRACKS + tuple(name + MIRRORED_SUFFIX for name in SHIPPED_TRACKS)


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
    return pieces_to_line([piece for block in blocks for piece in _block_pieces(block)], start)


def check_line(points: FloatArray, width_m: float, source: str) -> None:
    """Refuses a centre line that cannot be driven.

    Args:
        points: (x, z) every 0.1 m, shape (N, 2).
        width_m: Of the road.
        source: What the message calls the line.

    Raises:
        ValueError: Too short, a kink, a crossing, or too near to itself; the message names the place.
    """
    length = (len(points) - 1) * POINT_SPACING_M
    if length < MIN_LENGTH_M:
        raise ValueError(f"track {source} must be at least {MIN_LENGTH_M:g} m long, got {length:.1f} m: add points")
    _refuse_kink(points, source)
    _refuse_crossing(points, source)
    _refuse_near(points, width_m, source)


def narrows_note(track: Track) -> str | None:
    """What to know of a track whose stretches come nearer to each other than the road is wide; None for any other."""
    line = track.centre_line[:, [0, 2]]
    near = narrows(line, track.width_m, track.width_m)
    if near is None:
        return None
    places = "one place" if near.num_places == 1 else f"{near.num_places} places"
    as_wide = math.floor(near.gap_m * 10) / 10
    return (
        f"track {track.name}: at {places} its stretches are nearer to each other than the road is wide, at least "
        f"{near.gap_m:.2f} m between {_where(line, near.first)} and {_where(line, near.second)}: a wall stands between "
        f"them, and the road is narrower there; task.track_width_m={as_wide:g} makes it equally wide everywhere"
    )


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
    return Track(name, at_height(line, ROAD_HEIGHT_M), float(data["width_m"]), scripted)


def track_file(name: str) -> Path:
    """The data file of a shipped track, which its mirrored twin shares."""
    return TRACKS_FOLDER / f"{name.removesuffix(MIRRORED_SUFFIX)}.json"


def _load_file(path: str, width_m: float, is_in_game: bool) -> Track:
    if not width_m > MIN_WIDTH_M:
        raise ValueError(f"task.track_width_m must be > {MIN_WIDTH_M:g} m (borders and car), got {width_m!r}")
    file = read_points(path)
    try:
        _refuse_too_large(file.ground, width_m, path)
        if file.frame is Frame.game:
            _refuse_slope(file.points, path)
        _refuse_jump(file.ground, path)
        line = _resample(file.ground)
        check_line(line, width_m, path)
    except ValueError as error:
        raise ValueError(f"{error}; --check draws the line") from error
    if file.is_x_left(is_in_game):
        line = line * np.array([-1.0, 1.0])
    height = float(np.median(file.points[:, 1])) if file.has_heights else ROAD_HEIGHT_M
    return Track(Path(path).stem, at_height(line, height), float(width_m))


def _refuse_slope(points: FloatArray, source: str) -> None:
    """What was driven in the game on slopes, over jumps or in loops is another road than a flat one."""
    climb = points[:, 1] - points[0, 1]
    off = np.flatnonzero(np.abs(climb) > MAX_CLIMB_M)
    if len(off):
        at = int(off[0])
        along = float(np.linalg.norm(np.diff(points[: at + 1], axis=0), axis=1).sum())
        side = "above" if climb[at] > 0 else "below"
        raise ValueError(
            f"track {source} is not flat: at {along:.1f} m ({_place_text(points[at, [0, 2]])}) it is "
            f"{abs(climb[at]):.1f} m {side} its start (a slope, a jump or a loop); the "
            f"simulator's road is flat, at most {MAX_CLIMB_M:g} m up or down: drive it in the game (task.game=live)"
        )


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
    """Looks for intersections of 1 m segments that are not neighbours."""
    stride = round(1.0 / POINT_SPACING_M)
    nodes = points[::stride]
    first, second = near_pairs(nodes[:-1], 2.1)
    is_crossing = second - first > 2
    is_crossing &= _segments_cross(nodes[first], nodes[first + 1], nodes[second], nodes[second + 1])
    if is_crossing.any():
        second, first = min(zip(second[is_crossing], first[is_crossing], strict=True))
        places = f"{_where(points, int(first) * stride)} and {_where(points, int(second) * stride)}"
        raise ValueError(f"track {source} crosses itself: {places}; cut the line before that")


def _segments_cross(a: FloatArray, b: FloatArray, c: FloatArray, d: FloatArray) -> NDArray[np.bool_]:
    """Whether the segments a-b and c-d, each of shape (N, 2), have a point in common, shape (N,)."""

    def side(p: FloatArray, q: FloatArray, r: FloatArray) -> FloatArray:
        return (q[:, 0] - p[:, 0]) * (r[:, 1] - p[:, 1]) - (q[:, 1] - p[:, 1]) * (r[:, 0] - p[:, 0])

    apart = (np.minimum(a, b) > np.maximum(c, d)) | (np.minimum(c, d) > np.maximum(a, b))
    is_through = (side(a, b, c) * side(a, b, d) <= 0.0) & (side(c, d, a) * side(c, d, b) <= 0.0)
    return is_through & ~apart.any(axis=1)


def _refuse_near(points: FloatArray, width_m: float, source: str) -> None:
    """Between stretches that are nearer than this no wall fits that leaves a road on both sides."""
    near = narrows(points, width_m, MIN_WIDTH_M)
    if near is not None:
        raise ValueError(
            f"track {source} comes within {near.gap_m:.1f} m of itself: {_where(points, near.first)} and "
            f"{_where(points, near.second)}; different stretches must be at least {MIN_WIDTH_M:g} m apart: cut the "
            "line so that it passes there once"
        )


def _refuse_too_large(points: FloatArray, width_m: float, source: str) -> None:
    """Looks at the length before anything of that length is made; a jump is not taken for length."""
    gaps = np.linalg.norm(np.diff(points, axis=0), axis=1)
    length = float(np.minimum(gaps, max(3.0, 10.0 * float(np.median(gaps)))).sum())
    needed, at_most = memory_bytes(length, width_m), MAX_MEMORY_BYTES
    if needed > at_most:
        raise ValueError(
            f"track {source} is {length / 1000:,.1f} km long and {width_m:g} m wide: its road would take "
            f"{needed / 1e6:,.0f} MB, at most {at_most / 1e6:,.0f} MB are allowed. Points and task.track_width_m must "
            "be in metres: divide them by 100 if they are in centimetres, by 1000 if in millimetres; else cut the line"
        )


def _where(points: FloatArray, index: int) -> str:
    return f"{index * POINT_SPACING_M:.1f} m ({_place_text(points[index])})"


def _place_text(point: FloatArray) -> str:
    return f"x {point[0]:.1f}, z {point[1]:.1f}"


def _block_pieces(block: Sequence[Any]) -> list[Piece]:
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


def _shift_pieces(sign: float, length: float, radius: float) -> list[Piece]:
    """Two arcs and the straight between them, found from the displacement (length, one tile)."""
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        angle = (low + high) / 2
        between = (length - 2 * radius * math.sin(angle)) / math.cos(angle)
        aside = 2 * radius * (1 - math.cos(angle)) + between * math.sin(angle)
        low, high = (angle, high) if aside < TILE_M else (low, angle)
    arc = radius * angle
    return [(arc, sign / radius), (between, 0.0), (arc, -sign / radius)]


def _hairpin_pieces(sign: float, lead_radius: float, radius: float) -> list[Piece]:
    """30 and 150 degrees whose legs lie two tiles apart; the last straight returns to the row of the entry."""
    angle = math.pi / 6
    aside = 2 * TILE_M - lead_radius * (1 - math.cos(angle)) - radius * (1 + math.cos(angle))
    between = aside / math.sin(angle)
    reach = lead_radius * math.sin(angle) + between * math.cos(angle) - radius * math.sin(angle)
    pieces = [(lead_radius * angle, sign / lead_radius), (between, 0.0)]
    return [*pieces, (radius * (math.pi - angle), sign / radius), (reach, 0.0)]


def road_of(track: Track) -> Road:
    """The road as it is painted."""
    lap_m = round_m(track.centre_line[:, [0, 2]], track.width_m)
    points, station = _extended_line(track, lap_m)
    finish = (*track.finish_position, track.finish_yaw)
    seed = int(track.hash()[:8], 16) if track.shade_seed is None else track.shade_seed
    return Road(points, station, lap_m, track.length_m, track.width_m, finish, seed)


def _extended_line(track: Track, lap_m: float) -> tuple[FloatArray, FloatArray]:
    """(x, z) about every metre, and the station of each point (0 at the start).

    A closed road goes on to its start; any other has a run-in before the start and a run-out behind the finish.
    """
    count = max(2, round(track.length_m))
    index = np.round(np.linspace(0, len(track.centre_line) - 1, count + 1)).astype(int)
    points, station = track.centre_line[index][:, [0, 2]], index * POINT_SPACING_M
    if math.isfinite(lap_m):
        is_open = lap_m - track.length_m > POINT_SPACING_M
        return (np.vstack([points, points[:1]]), np.append(station, lap_m)) if is_open else (points, station)
    tail, head = -np.arange(1.0, _RUN_IN_M + 1.0), np.arange(1.0, _RUN_OUT_M + 1.0)
    behind = points[0] + tail[:, None] * np.array([math.sin(track.start_yaw), math.cos(track.start_yaw)])
    ahead = points[-1] + head[:, None] * np.array([math.sin(track.finish_yaw), math.cos(track.finish_yaw)])
    tail = tail[: _free_part(behind, points[40:], track.width_m)]
    head = head[: _free_part(ahead, points[:-40], track.width_m)]
    station = np.concatenate([tail[::-1], station, track.length_m + head])
    return np.vstack([behind[: len(tail)][::-1], points, ahead[: len(head)]]), station


def _free_part(points: FloatArray, others: FloatArray, width_m: float) -> int:
    """How many metres beyond an end of the road fit before another stretch of it."""
    for i, point in enumerate(points):
        if len(others) and np.min(np.linalg.norm(others - point, axis=1)) < width_m + TILE_M / 4:
            return i
    return len(points)
