"""Draws the centre lines of random tracks: straights, bends, corners, hairpins and shifts in a random order.

What is drawn lies within what the shipped tracks and flat road maps of the game have. ``tasks.sim.random_tracks`` makes
tracks of the lines. Whatever is drawn follows from the generator alone, in every process.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from tasks.config import ROAD_WIDTH_M
from tasks.sim.road_pieces import Piece, along_piece, pieces_to_line
from tasks.sim.stretches import apart_m, narrows

FloatArray = NDArray[np.float64]

WIDTH_M = ROAD_WIDTH_M
"""Of the road, as on the shipped tracks [m]."""
GAP_M = 5.0
"""Land that lies at least between the borders of two stretches [m]."""
LENGTH_M = (280.0, 1000.0)
"""From the length of ``short`` to a little more than that of ``medium`` [m]."""
FIRST_STRAIGHT_M = (32.0, 96.0)
LONGEST_STRAIGHT_M = 130.0
LAST_STRAIGHT_M = 20.0
FAST_SHARE, FAST_STRAIGHT_M = 0.25, (130.0, 600.0)
"""On a fast track: to how many of the corners a long straight leads, and how long it is [m]."""

SHARES = {"corner": 0.4, "bend": 0.24, "shift": 0.24, "hairpin": 0.12}
"""How often each kind is drawn."""
ANGLES_DEG = {"corner": (60.0, 120.0), "bend": (20.0, 60.0), "shift": (20.0, 45.0), "hairpin": (132.0, 177.0)}
RADII_M = {"corner": (25.0, 70.0), "bend": (40.0, 70.0), "shift": (28.0, 60.0), "hairpin": (18.0, 25.0)}

_NODE_M = 4.0
_MOST_PIECES = 60
_TRIES = 12
"""Kinds that are tried at one place before the last ones are taken back."""
_TAKEN_BACK = 3
_SIDE_M, _SIDE_PER_M = 150.0, 0.25
"""The land of a track is a square of this side, and so much more per metre of road, which folds the road up."""
_FAST_SIDE_M = 500.0
"""The side of a fast track's land before the same is added."""


def random_line(rng: np.random.Generator, *, is_fast: bool) -> FloatArray | None:
    """A line that neither crosses itself nor comes near itself, (x, z) every 0.1 m from (0, 0), shape (N, 2).

    None where the draw has led into a dead end.

    Args:
        rng: Draws everything.
        is_fast: Whether some straights are long: the road of the game's flat maps, where the car is faster than on
            the shipped tracks.
    """
    length = rng.uniform(*LENGTH_M)
    road = _Road((_FAST_SIDE_M if is_fast else _SIDE_M) + _SIDE_PER_M * length)
    road.add([(rng.uniform(*FIRST_STRAIGHT_M), 0.0)])
    for _ in range(_MOST_PIECES):
        if road.length_m >= length - LAST_STRAIGHT_M:
            break
        if not any(road.add(_part(rng, is_fast=is_fast)) for _ in range(_TRIES)):
            road.take_back(_TAKEN_BACK)
    if not LENGTH_M[0] <= road.length_m + LAST_STRAIGHT_M <= LENGTH_M[1] or not road.add([(LAST_STRAIGHT_M, 0.0)]):
        return None
    line = pieces_to_line(road.pieces, (0.0, 0.0, 0.0))
    return line if narrows(line, WIDTH_M, WIDTH_M + GAP_M) is None else None


class _Road:
    """Pieces that were laid so far, and nodes along them."""

    def __init__(self, side_m: float) -> None:
        self._side_m = side_m
        self._parts: list[list[Piece]] = []
        self._ends = [(0.0, 0.0, 0.0)]
        self._nodes = [np.zeros((1, 2))]

    @property
    def pieces(self) -> list[Piece]:
        """All of them."""
        return [piece for part in self._parts for piece in part]

    @property
    def length_m(self) -> float:
        """Of all pieces [m]."""
        return sum(length for length, _ in self.pieces)

    def add(self, part: list[Piece]) -> bool:
        """Lays pieces at the end, if they keep away from the others and within the land."""
        x, z, yaw = self._ends[-1]
        nodes = []
        for length, curvature in part:
            stations = np.linspace(0.0, length, max(2, math.ceil(length / _NODE_M) + 1))[1:]
            nodes.append(along_piece(x, z, yaw, curvature, stations))
            x, z = nodes[-1][-1].tolist()
            yaw += curvature * length
        new = np.concatenate(nodes)
        if not self._has_room(new):
            return False
        self._parts.append(part)
        self._nodes.append(new)
        self._ends.append((x, z, yaw))
        return True

    def take_back(self, count: int) -> None:
        """Removes the last parts; the first straight stays."""
        keep = max(1, len(self._parts) - count)
        del self._parts[keep:], self._nodes[keep + 1 :], self._ends[keep + 1 :]

    def _has_room(self, new: FloatArray) -> bool:
        old = np.concatenate(self._nodes)
        both = np.concatenate([old, new])
        if (np.ptp(both, axis=0) > self._side_m).any():
            return False
        gaps = np.linalg.norm(new[:, None] - old[None], axis=2)
        # The nodes before the end that belong to the same stretch as the new ones may be near.
        along = (np.arange(len(new))[:, None] + len(old) - np.arange(len(old))[None]) * _NODE_M
        return bool((gaps[along > apart_m(WIDTH_M) + _NODE_M] > WIDTH_M + GAP_M).all())


def _part(rng: np.random.Generator, *, is_fast: bool) -> list[Piece]:
    """A straight, or none, and what follows it."""
    kind = str(rng.choice(list(SHARES), p=list(SHARES.values())))
    sign = 1.0 if rng.random() < 0.5 else -1.0
    radius, angle = rng.uniform(*RADII_M[kind]), math.radians(rng.uniform(*ANGLES_DEG[kind]))
    arc = (radius * angle, sign / radius)
    before = _straight(rng, 0.7)
    if is_fast and rng.random() < FAST_SHARE:
        before = [(rng.uniform(*FAST_STRAIGHT_M), 0.0)]
    if kind == "shift":
        return [*before, arc, *_straight(rng, 0.3), (arc[0], -arc[1])]
    return [*before, arc]


def _straight(rng: np.random.Generator, share: float) -> list[Piece]:
    """Mostly a short one, now and then a longer one, or none."""
    if rng.random() >= share:
        return []
    return [(float(min(8.0 + rng.exponential(28.0), LONGEST_STRAIGHT_M)), 0.0)]
