"""The roads of many cars as the kernels see them: one for all, or one of its own for each.

``tasks.sim.cars`` holds one. Kernels look up all roads in the same arrays; a car's row of ``places`` says which part is
its road's. Roads of their own share the pattern of the land, so they must have the same shades.
"""

from __future__ import annotations

import math
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from tasks.sim import vehicle
from tasks.sim.grids import PATTERN_TILES, TILE_CELLS, TrackGrids

Table = TypeVar("Table", bound=np.ndarray)

_TILE_AREA = TILE_CELLS * TILE_CELLS
_LAND_TILES = PATTERN_TILES + 1
_MOST_CELLS = 2**31
"""What the entries of the index can point to."""
_ROOM = 1.25
"""Room in a slot over what the largest of the first roads needs, so that most of the next ones fit too."""


class CarRoads:
    """N cars on one road; ``put`` gives one of them a road of its own.

    Args:
        grids: The road.
        count: N.
    """

    def __init__(self, grids: TrackGrids, count: int) -> None:
        self._roads = [grids] * count
        self._sizes = _Sizes(0, 0, 0)
        self._written: _Tables | None = None
        # The kernels are compiled for arrays that they cannot write to, as those of one road are.
        self._places = np.tile(grids.place, (count, 1))
        self.places = _read_only(self._places)
        """A row for each car, shape (N, vehicle.PLACE_SIZE)."""
        self.index, self.texture = grids.index, grids.texture
        self.clearance, self.field = grids.clearance, grids.field

    def of(self, car: int) -> TrackGrids:
        """The road of one car."""
        return self._roads[car]

    def put(self, car: int, grids: TrackGrids) -> None:
        """Gives a car another road.

        Raises:
            ValueError: So many roads do not fit into the tables.
        """
        if grids is self._roads[car]:
            return
        self._roads[car] = grids
        if len(self._roads) == 1:
            self._places[0] = grids.place
            self.index, self.texture = grids.index, grids.texture
            self.clearance, self.field = grids.clearance, grids.field
        elif self._written is None or any(a > b for a, b in zip(_sizes_of(grids), self._sizes, strict=True)):
            self._make_room()
        else:
            self._write(car, self._written)

    def _make_room(self) -> None:
        """Makes the arrays anew, with room for a road like the largest one in each slot."""
        count, needed = len(self._roads), [_sizes_of(grids) for grids in self._roads]
        sizes = self._sizes = _Sizes(*(math.ceil(_ROOM * max(entries)) for entries in zip(*needed, strict=True)))
        num_near, num_tiles = count * sizes.near, count * (sizes.near + sizes.edge) + _LAND_TILES
        if num_tiles * _TILE_AREA >= _MOST_CELLS:
            raise ValueError(
                f"task.track=random gives each of the {count} cars of a process a road of its own, which is too many: "
                f"at most {count * _MOST_CELLS // (num_tiles * _TILE_AREA)} fit; give fewer cars to more workers"
            )
        tables = self._written = _Tables(
            np.zeros(count * sizes.entries, np.int32),
            np.zeros(num_tiles * _TILE_AREA, np.uint8),
            np.zeros(num_near * _TILE_AREA, np.uint8),
            np.zeros((num_near, *self._roads[0].field.shape[1:]), np.float32),
        )
        self.index, self.texture = _read_only(tables.entries), _read_only(tables.texture)
        self.clearance, self.field = _read_only(tables.clearance), _read_only(tables.field)
        land = self._roads[0].texture[len(self._roads[0].clearance) :][: _LAND_TILES * _TILE_AREA]
        tables.texture[num_near * _TILE_AREA :][: len(land)] = land
        for car in range(count):
            self._write(car, tables)

    def _write(self, car: int, tables: _Tables) -> None:
        """Copies a road into the slot of its car; where its index points to moves along."""
        grids, slot = self._roads[car], self._sizes
        near, edge, entries = _sizes_of(grids)
        near_at, land_at = car * slot.near, len(self._roads) * slot.near
        edge_at, index_at = land_at + _LAND_TILES + car * slot.edge, car * slot.entries
        num_cells = near * _TILE_AREA
        tables.field[near_at : near_at + near] = grids.field
        tables.clearance[near_at * _TILE_AREA :][:num_cells] = grids.clearance
        tables.texture[near_at * _TILE_AREA :][:num_cells] = grids.texture[:num_cells]
        tables.texture[edge_at * _TILE_AREA :][: edge * _TILE_AREA] = grids.texture[(near + _LAND_TILES) * _TILE_AREA :]
        moved_by = np.repeat([near_at, land_at - near, edge_at - near - _LAND_TILES], [near, _LAND_TILES, edge])
        num_blocks = int(grids.place[vehicle.BLOCK_ROWS] * grids.place[vehicle.BLOCK_COLUMNS])
        blocks, tiles = grids.index[:num_blocks], grids.index[num_blocks:]
        tables.entries[index_at:][:num_blocks] = blocks + index_at
        tables.entries[index_at + num_blocks : index_at + entries] = tiles + moved_by[tiles // _TILE_AREA] * _TILE_AREA
        self._places[car] = grids.place
        self._places[car, vehicle.INDEX_AT] = index_at


class _Tables(NamedTuple):
    """The arrays of all roads."""

    entries: NDArray[np.int32]
    texture: NDArray[np.uint8]
    clearance: NDArray[np.uint8]
    field: NDArray[np.float32]


class _Sizes(NamedTuple):
    """Of a road, or of a slot that holds one."""

    near: int
    """Tiles near the road."""
    edge: int
    """Tiles at the edge of its land."""
    entries: int
    """Of its index."""


def _read_only(array: Table) -> Table:
    view = array.view()
    view.setflags(write=False)
    return view


def _sizes_of(grids: TrackGrids) -> _Sizes:
    near = len(grids.field)
    return _Sizes(near, len(grids.texture) // _TILE_AREA - near - _LAND_TILES, len(grids.index))
