"""The tables of a road that physics and cameras read: tiles of 4 m along the road, found through two small tables.

``tasks.sim.track`` builds a track's grids with this module. Only tiles near the road are stored, so memory grows with
the length of the road and not with the land around it; all other land shares the tiles of one pattern.

A cell is found in three steps. ``index`` begins with the start of each block of 64 x 64 tiles; there lie, tile by
tile, the places of the tiles in ``texture``. A tile near the road has the same place in ``clearance``, and the same
number in ``field``; the tiles of the pattern follow behind them, in ``texture`` only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from tasks.sim import vehicle
from tasks.sim.stretches import apart_m

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int32]
Uint8Array = NDArray[np.uint8]

BORDER_M = 1.25
"""Width of the black border at each side, inside the road width [m]."""
WALL_SETBACK_M = 0.45
"""How far the body may stand over the border before it meets the wall [m]."""
SEAM_M = 32.0
"""Distance between the seams of the road, the side of a road block [m]."""

# Palette indices of the texture, in brightness bands that the camera tells apart: border < off-road < road.
TEXTURE_CELL_M = 0.25
BORDER_INDEX = 0
OFF_ROAD_FIRST, OFF_ROAD_SHADES = 32, 32
OFF_ROAD_FAR = OFF_ROAD_FIRST + OFF_ROAD_SHADES // 2
"""Land beyond the pattern, in one colour."""
ROAD_FIRST, ROAD_SHADES = 128, 64
MARK_INDEX = ROAD_FIRST + ROAD_SHADES
FINISH_DARK_INDEX, FINISH_LIGHT_INDEX = MARK_INDEX + 1, MARK_INDEX + 2

TILE_CELLS = 16
"""Side of a tile [texture cells]; in cells of the field it is half of that."""
BLOCK_TILES = 64
"""Side of a block [tiles]."""
_FIELD_CELL_M = 0.5
_MARGIN_M = 24.0
_REACH_M = 4.0
_TILE_AREA = TILE_CELLS * TILE_CELLS
_FIELD_CELLS = TILE_CELLS // 2
_BLOCK_AREA = BLOCK_TILES * BLOCK_TILES
_TILE_M = TILE_CELLS * TEXTURE_CELL_M
_HALF_DIAGONAL_M = _TILE_M * math.sqrt(0.5)
_TILE_BYTES = 2 * _TILE_AREA + 4 * (_FIELD_CELLS + 1) ** 2
_SHADES = 512
_PATCH_LEVELS = 16
_FINE_TILES = _SHADES // TILE_CELLS
PATTERN_TILES = _PATCH_LEVELS * _FINE_TILES**2
"""Tiles of the pattern; behind them follow a flat one and those at the edge."""


class Road(NamedTuple):
    """The road of a track, as the grids are painted from it."""

    points: FloatArray
    """(x, z) of the middle of the road about every metre [m], run-in and run-out included, shape (N, 2)."""
    station: FloatArray
    """Distance from the start along the road of each point [m], shape (N,)."""
    period_m: float
    """Length of a round of a closed road [m]; infinite for one whose ends do not meet."""
    length_m: float
    """Distance from the start to the finish [m]."""
    width_m: float
    """Borders included [m]."""
    finish: tuple[float, float, float]
    """x, z and direction of the finish [m, m, rad]."""
    seed: int
    """What the shades follow from."""


@dataclass(frozen=True, eq=False)
class TrackGrids:
    """A track as the kernels see it; arrays are read-only, and may be shared with other processes."""

    place: FloatArray
    """Origin and size of the grids, edges, finish line; layout in ``tasks.sim.vehicle``."""
    index: IntArray
    """Where blocks and tiles lie, see above."""
    texture: Uint8Array
    """Palette index per cell of 0.25 m, tile by tile, rows along z, columns along x."""
    clearance: Uint8Array
    """Whole texture cells around this one that are surely road; 0 off the road."""
    field: NDArray[np.float32]
    """Distance to the centre line at the corners of each tile's cells of 0.5 m [m], shape (tiles near the road, 9, 9);
    more where a wall between two stretches is nearer."""

    @property
    def nbytes(self) -> int:
        """Memory of all arrays [bytes]."""
        return sum(a.nbytes for a in (self.place, self.index, self.texture, self.clearance, self.field))


def memory_bytes(length_m: float, width_m: float) -> float:
    """About what the grids of such a road take [bytes]: the tiles that it touches, and the pattern of the land."""
    touched_m2 = length_m * (width_m + 2 * _REACH_M + 2 * _TILE_M)
    return touched_m2 / _TILE_M**2 * _TILE_BYTES + _PATCH_LEVELS * _SHADES**2


def build_grids(road: Road) -> TrackGrids:
    """Paints the road, and the walls between stretches that come nearer to each other than it is wide."""
    outer = road.width_m / 2
    low = np.floor(road.points.min(axis=0) - road.width_m - _MARGIN_M)
    span = road.points.max(axis=0) + road.width_m + _MARGIN_M - low
    origin = float(low[0]), float(low[1])
    columns, rows = (math.ceil(extent / _FIELD_CELL_M) + 1 for extent in span)
    pieces, stations = _pieces(road)
    layout = _near_tiles(pieces, origin, rows, columns, outer + _REACH_M)
    lists = _listed_pieces(pieces, layout, origin, outer + _REACH_M)
    walls = _find_walls(pieces, stations, *lists, layout.tiles, *origin, outer, apart_m(road.width_m), road.period_m)
    wall_lists = _listed_pieces(walls, layout, origin, outer)
    shades, pattern = _pattern(road.seed)
    near, clearance, field = _paint(
        pieces, stations, *lists, walls, *wall_lists, layout.tiles, *origin, shades, outer, road.length_m, road.period_m
    )
    index, land = _lay_land(layout, shades, pattern, 2 * rows, 2 * columns)
    texture = np.concatenate([near, land]).ravel()
    place = _place_vector(road, origin, rows, columns, layout.blocks.shape)
    arrays = (place, index, texture, clearance.ravel(), field)
    for array in arrays:
        array.setflags(write=False)
    return TrackGrids(*arrays)


def _place_vector(
    road: Road, origin: tuple[float, float], rows: int, columns: int, blocks: tuple[int, ...]
) -> FloatArray:
    inner = road.width_m / 2 - BORDER_M
    finish_x, finish_z, finish_yaw = road.finish
    place = np.zeros(vehicle.PLACE_SIZE)
    place[vehicle.FIELD_X], place[vehicle.FIELD_Z], place[vehicle.FIELD_CELL] = *origin, _FIELD_CELL_M
    place[vehicle.FIELD_ROWS], place[vehicle.FIELD_COLUMNS] = rows, columns
    place[vehicle.BLOCK_ROWS], place[vehicle.BLOCK_COLUMNS] = blocks
    place[vehicle.BORDER_AT] = inner
    place[vehicle.WALL_AT] = inner + WALL_SETBACK_M
    place[vehicle.FINISH_X], place[vehicle.FINISH_Z] = finish_x, finish_z
    place[vehicle.FINISH_DX], place[vehicle.FINISH_DZ] = math.sin(finish_yaw), math.cos(finish_yaw)
    place[vehicle.GATE_HALF] = road.width_m / 2
    place[vehicle.MIN_DISTANCE] = 0.4 * road.length_m
    return place


def _pieces(road: Road) -> tuple[FloatArray, FloatArray]:
    """The road as pieces (x, z, x, z), shape (M, 4), and the stations of their ends, shape (M, 2)."""
    # In one layout, so that the kernels are compiled once.
    ends = np.ascontiguousarray(np.hstack([road.points[:-1], road.points[1:]]))
    stations = np.ascontiguousarray(np.stack([road.station[:-1], road.station[1:]], axis=1))
    return ends, stations


class _Layout(NamedTuple):
    """Which tiles lie near the road."""

    blocks: IntArray
    """Number of each block that holds such tiles, in the order of ``numbers``; -1 for the others, shape (BR, BC)."""
    numbers: IntArray
    """Number of each tile of those blocks; -1 for those that do not lie near the road, shape (B, 64, 64)."""
    tiles: IntArray
    """(row, column) of each tile, by its number, shape (T, 2)."""


def _near_tiles(pieces: FloatArray, origin: tuple[float, float], rows: int, columns: int, reach: float) -> _Layout:
    """Numbers the tiles that a piece comes near to, block by block."""
    side = BLOCK_TILES * _FIELD_CELLS
    blocks = np.full((math.ceil(rows / side), math.ceil(columns / side)), -1, np.int32)
    _mark_blocks(pieces, *origin, reach, blocks)
    used = np.argwhere(blocks == 0)
    blocks[blocks == 0] = np.arange(len(used))
    numbers = np.full((len(used), BLOCK_TILES, BLOCK_TILES), -1, np.int32)
    _visit_tiles(pieces, *origin, reach, blocks, numbers, True, np.empty(0, np.int64), np.empty(0, np.int32))
    block, row, column = np.nonzero(numbers == 0)
    numbers[block, row, column] = np.arange(len(block))
    tiles = np.stack([used[block, 0] * BLOCK_TILES + row, used[block, 1] * BLOCK_TILES + column], axis=1)
    return _Layout(blocks, numbers, tiles.astype(np.int32))


def _listed_pieces(
    pieces: FloatArray, layout: _Layout, origin: tuple[float, float], reach: float
) -> tuple[NDArray[np.int64], IntArray]:
    """The pieces near each tile: where its list begins, shape (T + 1,), and all lists one after the other."""
    starts = np.zeros(len(layout.tiles) + 1, np.int64)
    _visit_tiles(pieces, *origin, reach, layout.blocks, layout.numbers, False, starts[1:], np.empty(0, np.int32))
    np.cumsum(starts, out=starts)
    members = np.empty(int(starts[-1]), np.int32)
    _visit_tiles(pieces, *origin, reach, layout.blocks, layout.numbers, False, starts[:-1].copy(), members)
    return starts, members


def _lay_land(
    layout: _Layout, shades: Uint8Array, pattern: Uint8Array, rows: int, columns: int
) -> tuple[IntArray, Uint8Array]:
    """The index, and the tiles that follow those near the road: the pattern's, one flat tile, and those at the edge.

    A tile of the pattern has one patch level and a tile of the fine shades, so the pattern has few tiles. Whole blocks
    of it repeat as well, every eighth one.
    """
    first = len(layout.tiles)
    flat = first + len(pattern)
    edge: list[Uint8Array] = []
    tables = [np.full((BLOCK_TILES, BLOCK_TILES), flat, np.int32)]
    table_of: dict[tuple[int, int], int] = {}
    blocks = np.empty_like(layout.blocks)
    for (row, column), number in np.ndenumerate(layout.blocks):
        is_inside = (row + 1) * BLOCK_TILES * TILE_CELLS <= rows and (column + 1) * BLOCK_TILES * TILE_CELLS <= columns
        repeat = row % 8, column % 8
        if number < 0 and is_inside and repeat in table_of:
            blocks[row, column] = table_of[repeat]
            continue
        table = first + _pattern_table(row, column, shades)
        if not is_inside:
            _clip_table(table, row, column, rows, columns, pattern, first, flat, edge)
        if number >= 0:
            near = layout.numbers[number]
            table[near >= 0] = near[near >= 0]
        elif is_inside:
            table_of[repeat] = len(tables)
        blocks[row, column] = len(tables)
        tables.append(table)
    index = np.concatenate([blocks.ravel() * _BLOCK_AREA + blocks.size, np.stack(tables).ravel() * _TILE_AREA])
    flat_tile = np.full((1, TILE_CELLS, TILE_CELLS), OFF_ROAD_FAR, np.uint8)
    return index.astype(np.int32), np.concatenate([pattern, flat_tile, *(tile[None] for tile in edge)])


@lru_cache(maxsize=1)
def _pattern(seed: int) -> tuple[Uint8Array, Uint8Array]:
    """The shades that follow from a seed, and the tiles of their pattern: the same for all random tracks."""
    shades = np.random.default_rng(seed).integers(0, 256, (_SHADES, _SHADES), dtype=np.uint8)
    return shades, _pattern_tiles(shades)


def _pattern_tiles(shades: Uint8Array) -> Uint8Array:
    """All tiles of the land's pattern, by patch level, fine row and fine column, shape (16 * 32 * 32, 16, 16)."""
    fine = (shades >> 5).reshape(_FINE_TILES, TILE_CELLS, _FINE_TILES, TILE_CELLS).transpose(0, 2, 1, 3)
    level = np.arange(_PATCH_LEVELS, dtype=np.int64)[:, None, None, None, None]
    tiles = OFF_ROAD_FIRST + (level + fine) * OFF_ROAD_SHADES // 24
    return tiles.astype(np.uint8).reshape(-1, TILE_CELLS, TILE_CELLS)


def _pattern_table(block_row: int, block_column: int, shades: Uint8Array) -> IntArray:
    """Number of the pattern's tile at each tile of a block, shape (64, 64)."""
    row = (block_row * BLOCK_TILES + np.arange(BLOCK_TILES))[:, None]
    column = (block_column * BLOCK_TILES + np.arange(BLOCK_TILES))[None, :]
    level = (shades[row % _SHADES, column % _SHADES] >> 4).astype(np.int32)
    number = (level * _FINE_TILES + row % _FINE_TILES) * _FINE_TILES + column % _FINE_TILES
    return np.asarray(number, np.int32)


def _clip_table(
    table: IntArray,
    block_row: int,
    block_column: int,
    rows: int,
    columns: int,
    pattern: Uint8Array,
    first: int,
    flat: int,
    edge: list[Uint8Array],
) -> None:
    """Makes the land flat beyond the last row and column of cells; tiles that these cut are added to ``edge``."""
    row = (block_row * BLOCK_TILES + np.arange(BLOCK_TILES)) * TILE_CELLS
    column = (block_column * BLOCK_TILES + np.arange(BLOCK_TILES)) * TILE_CELLS
    is_cut = (row + TILE_CELLS > rows)[:, None] | (column + TILE_CELLS > columns)[None, :]
    is_beyond = (row >= rows)[:, None] | (column >= columns)[None, :]
    for i, j in np.argwhere(is_cut & ~is_beyond):
        tile = pattern[table[i, j] - first].copy()
        tile[max(rows - int(row[i]), 0) :] = OFF_ROAD_FAR
        tile[:, max(columns - int(column[j]), 0) :] = OFF_ROAD_FAR
        table[i, j] = flat + 1 + len(edge)
        edge.append(tile)
    table[is_beyond] = flat


@njit(cache=True)
def _tile_range(low: float, high: float, origin: float, count: int) -> tuple[int, int]:
    """First and last tile of a row or column between two coordinates."""
    first = math.floor((low - origin) / _TILE_M)
    last = math.floor((high - origin) / _TILE_M)
    return max(0, first), min(count - 1, last)


@njit(cache=True)
def _gap_to_piece(x: float, z: float, piece: np.ndarray) -> float:
    """Distance of a point to a piece [m]."""
    dx, dz = piece[2] - piece[0], piece[3] - piece[1]
    t = min(max(((x - piece[0]) * dx + (z - piece[1]) * dz) / (dx * dx + dz * dz), 0.0), 1.0)
    return math.hypot(x - piece[0] - t * dx, z - piece[1] - t * dz)


@njit(cache=True)
def _mark_blocks(pieces: np.ndarray, origin_x: float, origin_z: float, reach: float, blocks: np.ndarray) -> None:
    """Writes 0 into the blocks that a piece may reach."""
    tile_rows, tile_columns = blocks.shape[0] * BLOCK_TILES, blocks.shape[1] * BLOCK_TILES
    for piece in pieces:
        low_x, high_x = min(piece[0], piece[2]) - reach, max(piece[0], piece[2]) + reach
        low_z, high_z = min(piece[1], piece[3]) - reach, max(piece[1], piece[3]) + reach
        first_row, last_row = _tile_range(low_z, high_z, origin_z, tile_rows)
        first_column, last_column = _tile_range(low_x, high_x, origin_x, tile_columns)
        for row in range(first_row // BLOCK_TILES, last_row // BLOCK_TILES + 1):
            for column in range(first_column // BLOCK_TILES, last_column // BLOCK_TILES + 1):
                blocks[row, column] = 0


@njit(cache=True)
def _visit_tiles(
    pieces: np.ndarray,
    origin_x: float,
    origin_z: float,
    reach: float,
    blocks: np.ndarray,
    numbers: np.ndarray,
    is_marking: bool,
    ends: np.ndarray,
    members: np.ndarray,
) -> None:
    """Goes through the tiles that each piece reaches: marks them with 0, or counts, or lists the piece in them."""
    tile_rows, tile_columns = blocks.shape[0] * BLOCK_TILES, blocks.shape[1] * BLOCK_TILES
    for k in range(len(pieces)):
        piece = pieces[k]
        low_x, high_x = min(piece[0], piece[2]) - reach, max(piece[0], piece[2]) + reach
        low_z, high_z = min(piece[1], piece[3]) - reach, max(piece[1], piece[3]) + reach
        first_row, last_row = _tile_range(low_z, high_z, origin_z, tile_rows)
        first_column, last_column = _tile_range(low_x, high_x, origin_x, tile_columns)
        for row in range(first_row, last_row + 1):
            for column in range(first_column, last_column + 1):
                block = blocks[row // BLOCK_TILES, column // BLOCK_TILES]
                x, z = origin_x + (column + 0.5) * _TILE_M, origin_z + (row + 0.5) * _TILE_M
                if block < 0 or _gap_to_piece(x, z, piece) > reach + _HALF_DIAGONAL_M:
                    continue
                number = numbers[block, row % BLOCK_TILES, column % BLOCK_TILES]
                if is_marking:
                    numbers[block, row % BLOCK_TILES, column % BLOCK_TILES] = 0
                elif number >= 0:
                    if len(members) > 0:
                        members[ends[number]] = k
                    ends[number] += 1


@njit(cache=True)
def _choose(
    pieces: np.ndarray, members: np.ndarray, x: float, z: float, radius: float, chosen: np.ndarray, gaps: np.ndarray
) -> int:
    """Of a tile's pieces, those that may be the nearest of a point within ``radius`` of (x, z); returns how many."""
    least = np.inf
    for i in range(len(members)):
        gaps[i] = _gap_to_piece(x, z, pieces[members[i]])
        least = min(least, gaps[i])
    count = 0
    for i in range(len(members)):
        if gaps[i] <= least + 2.0 * radius + 0.01:
            chosen[count] = members[i]
            count += 1
    return count


@njit(cache=True)
def _rasterise(
    pieces: np.ndarray,
    stations: np.ndarray,
    chosen: np.ndarray,
    origin_x: float,
    origin_z: float,
    first_column: int,
    first_row: int,
    cell: float,
    distance: np.ndarray,
    along: np.ndarray,
) -> None:
    """Writes the distance to the nearest piece, and the station of its nearest point, into every cell of a tile."""
    rows, columns = distance.shape
    distance[:] = np.float32(vehicle.FAR_FROM_ROAD_M)
    for k in chosen:
        ax, az, bx, bz = pieces[k, 0], pieces[k, 1], pieces[k, 2], pieces[k, 3]
        dx, dz = bx - ax, bz - az
        square = dx * dx + dz * dz
        for i in range(rows):
            z = origin_z + (first_row + i) * cell
            for j in range(columns):
                x = origin_x + (first_column + j) * cell
                t = min(max(((x - ax) * dx + (z - az) * dz) / square, 0.0), 1.0)
                gap_x, gap_z = x - ax - t * dx, z - az - t * dz
                gap_square = gap_x * gap_x + gap_z * gap_z
                if gap_square < np.float64(distance[i, j]) * np.float64(distance[i, j]):
                    gap = np.float32(np.sqrt(gap_square))
                    if gap < distance[i, j]:
                        distance[i, j] = gap
                        along[i, j] = stations[k, 0] + t * (stations[k, 1] - stations[k, 0])


@njit(cache=True)
def _is_other(a: float, b: float, apart: float, period: float) -> bool:
    """Whether two stations belong to different stretches of the road."""
    gap = abs(a - b)
    return min(gap, abs(period - gap)) > apart


@njit(cache=True)
def _find_walls(
    pieces: np.ndarray,
    stations: np.ndarray,
    starts: np.ndarray,
    members: np.ndarray,
    tiles: np.ndarray,
    origin_x: float,
    origin_z: float,
    outer: float,
    apart: float,
    period: float,
) -> np.ndarray:
    """The edges (x, z, x, z) between cells of which one is nearest to another stretch than the other, shape (W, 4)."""
    found = np.empty((64, 4))
    count = 0
    size = TILE_CELLS + 1
    distance, along = np.empty((size, size), np.float32), np.empty((size, size), np.float32)
    half = TEXTURE_CELL_M / 2
    longest = np.max(starts[1:] - starts[:-1])
    chosen, gaps = np.empty(longest, np.int32), np.empty(longest)
    for number in range(len(tiles)):
        listed = members[starts[number] : starts[number + 1]]
        low, high = np.inf, -np.inf
        for k in listed:
            low, high = min(low, stations[k, 0]), max(high, stations[k, 1])
        if high - low <= apart:
            continue
        row, column = tiles[number, 0] * TILE_CELLS, tiles[number, 1] * TILE_CELLS
        x0, z0 = origin_x + column * TEXTURE_CELL_M, origin_z + row * TEXTURE_CELL_M
        middle = (size * TEXTURE_CELL_M) / 2
        num = _choose(pieces, listed, x0 + middle, z0 + middle, middle * math.sqrt(2.0), chosen, gaps)
        _rasterise(
            pieces,
            stations,
            chosen[:num],
            origin_x + half,
            origin_z + half,
            column,
            row,
            TEXTURE_CELL_M,
            distance,
            along,
        )
        for i in range(TILE_CELLS):
            for j in range(TILE_CELLS):
                for down, right in ((0, 1), (1, 0)):
                    if min(distance[i, j], distance[i + down, j + right]) >= outer:
                        continue
                    if not _is_other(along[i, j], along[i + down, j + right], apart, period):
                        continue
                    if count == len(found):
                        more = np.empty((2 * count, 4))
                        more[:count] = found
                        found = more
                    found[count, 0] = x0 + (j + right) * TEXTURE_CELL_M
                    found[count, 1] = z0 + (i + down) * TEXTURE_CELL_M
                    found[count, 2] = x0 + (j + 1) * TEXTURE_CELL_M
                    found[count, 3] = z0 + (i + 1) * TEXTURE_CELL_M
                    count += 1
    return found[:count].copy()


@njit(cache=True)
def _stand_walls(distance: np.ndarray, to_wall: np.ndarray, outer: float) -> None:
    """A wall is an edge of the road: the distances grow towards it as towards that edge."""
    for i in range(distance.shape[0]):
        for j in range(distance.shape[1]):
            distance[i, j] = max(distance[i, j], np.float32(outer) - to_wall[i, j])


@njit(cache=True)
def _paint(
    pieces: np.ndarray,
    stations: np.ndarray,
    starts: np.ndarray,
    members: np.ndarray,
    walls: np.ndarray,
    wall_starts: np.ndarray,
    wall_members: np.ndarray,
    tiles: np.ndarray,
    origin_x: float,
    origin_z: float,
    shades: np.ndarray,
    outer: float,
    length: float,
    period: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Texture, clearance and field of the tiles near the road."""
    count = len(tiles)
    texture = np.empty((count, TILE_CELLS, TILE_CELLS), np.uint8)
    clearance = np.empty((count, TILE_CELLS, TILE_CELLS), np.uint8)
    field = np.empty((count, _FIELD_CELLS + 1, _FIELD_CELLS + 1), np.float32)
    distance, along = np.empty((TILE_CELLS, TILE_CELLS), np.float32), np.empty((TILE_CELLS, TILE_CELLS), np.float32)
    to_wall, unused = np.empty((TILE_CELLS, TILE_CELLS), np.float32), np.empty((TILE_CELLS, TILE_CELLS), np.float32)
    to_wall_coarse = np.empty((_FIELD_CELLS + 1, _FIELD_CELLS + 1), np.float32)
    longest = max(np.max(starts[1:] - starts[:-1]), np.max(wall_starts[1:] - wall_starts[:-1]))
    chosen, gaps = np.empty(longest, np.int32), np.empty(longest)
    wall_stations = np.zeros((len(walls), 2))
    half = TEXTURE_CELL_M / 2
    for number in range(count):
        row, column = tiles[number, 0], tiles[number, 1]
        x, z = origin_x + (column + 0.5) * _TILE_M, origin_z + (row + 0.5) * _TILE_M
        fine_row, fine_column = row * TILE_CELLS, column * TILE_CELLS
        coarse_row, coarse_column = row * _FIELD_CELLS, column * _FIELD_CELLS
        listed = members[starts[number] : starts[number + 1]]
        near = chosen[: _choose(pieces, listed, x, z, _HALF_DIAGONAL_M, chosen, gaps)]
        # Texture cells are looked up at their centres, hence the half cell.
        _rasterise(
            pieces, stations, near, origin_x + half, origin_z + half, fine_column, fine_row, TEXTURE_CELL_M,
            distance, along,
        )  # fmt: skip
        coarse = field[number]
        _rasterise(
            pieces, stations, near, origin_x, origin_z, coarse_column, coarse_row, 2 * TEXTURE_CELL_M, coarse, unused
        )
        listed = wall_members[wall_starts[number] : wall_starts[number + 1]]
        if len(listed) > 0:
            near = chosen[: _choose(walls, listed, x, z, _HALF_DIAGONAL_M, chosen, gaps)]
            _rasterise(
                walls, wall_stations, near, origin_x + half, origin_z + half, fine_column, fine_row, TEXTURE_CELL_M,
                to_wall, unused,
            )  # fmt: skip
            _stand_walls(distance, to_wall, outer)
            _rasterise(
                walls, wall_stations, near, origin_x, origin_z, coarse_column, coarse_row, 2 * TEXTURE_CELL_M,
                to_wall_coarse, unused,
            )  # fmt: skip
            _stand_walls(coarse, to_wall_coarse, outer)
        _paint_tile(
            distance, along, shades, fine_row, fine_column, outer, length, period, texture[number], clearance[number]
        )
    return texture, clearance, field


@njit(cache=True)
def _paint_tile(
    distance: np.ndarray,
    along: np.ndarray,
    shades: np.ndarray,
    first_row: int,
    first_column: int,
    outer: float,
    length: float,
    period: float,
    texture: np.ndarray,
    clearance: np.ndarray,
) -> None:
    """Chooses each cell's palette index, and counts the cells around it that are surely road."""
    inner = outer - BORDER_M
    for i in range(TILE_CELLS):
        for j in range(TILE_CELLS):
            row, column = first_row + i, first_column + j
            gap, s = distance[i, j], along[i, j]
            fine = shades[row & 511, column & 511]
            patch = shades[(row >> 4) & 511, (column >> 4) & 511]
            clearance[i, j] = 0
            if gap < inner:
                texture[i, j] = _road_index(gap, s, fine, patch, length, period)
                clearance[i, j] = min(255, max(0, int((inner - gap) / TEXTURE_CELL_M) - 2))
            elif gap < outer:
                texture[i, j] = BORDER_INDEX
            else:
                texture[i, j] = OFF_ROAD_FIRST + ((patch >> 4) + (fine >> 5)) * OFF_ROAD_SHADES // 24


@njit(cache=True)
def _road_index(gap: float, s: float, fine: int, patch: int, length: float, period: float) -> int:
    """Road: patches, a seam at each 32 m block, dashes along the middle, a chequered finish line."""
    past = s - length if s >= length else s - length + period
    if past < 2.0:
        return FINISH_LIGHT_INDEX if (int(gap) + int(past)) % 2 == 0 else FINISH_DARK_INDEX
    if gap < 0.3 and s % 16.0 < 5.0:
        return MARK_INDEX
    shade = (patch >> 3) + (fine >> 4)
    if int(s / SEAM_M + 64.0) % 2 == 0:
        shade += 10
    if s % SEAM_M < 1.0:
        shade = 0
    return ROAD_FIRST + min(shade, ROAD_SHADES - 1)
