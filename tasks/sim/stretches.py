"""Finds the different stretches of a centre line, and the places where two of them come close to each other.

Two places are different stretches when more than half a round as wide as the road lies between them along the line: a
tighter bend is one stretch, its two legs farther out are two. ``tasks.sim.track`` refuses what is too near,
``tasks.sim.grids`` stands a wall between the rest.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tasks.points.files import POINT_SPACING_M

FloatArray = NDArray[np.float64]
IndexArray = NDArray[np.int64]

_NODE_SPACING_M = 2.0


class Narrows(NamedTuple):
    """Where different stretches of a line are nearer to each other than some distance."""

    gap_m: float
    """The least distance between two stretches [m]."""
    first: int
    """Index of the point of the line there, on the stretch that comes first."""
    second: int
    """Index of the point on the other one."""
    num_places: int
    """How many such places there are."""


def apart_m(width_m: float) -> float:
    """Places that lie farther apart along a road of this width are different stretches [m]."""
    return math.pi / 2 * width_m


def round_m(line: FloatArray, width_m: float) -> float:
    """Length of a round of a line whose end leads into its start [m]; infinite for any other.

    Args:
        line: (x, z) every 0.1 m, shape (N, 2).
        width_m: Of the road.
    """
    heading, first_heading = line[-1] - line[-6], line[5] - line[0]
    heading, first_heading = heading / np.linalg.norm(heading), first_heading / np.linalg.norm(first_heading)
    gap = line[0] - line[-1]
    ahead, aside = float(gap @ heading), float(gap[0] * heading[1] - gap[1] * heading[0])
    is_closed = abs(aside) <= width_m / 2 and abs(ahead) <= apart_m(width_m) and heading @ first_heading > 0.5
    return (len(line) - 1) * POINT_SPACING_M + ahead if is_closed else math.inf


def narrows(line: FloatArray, width_m: float, below_m: float) -> Narrows | None:
    """The narrowest place of a line at which different stretches are less than ``below_m`` apart; None without one.

    Args:
        line: (x, z) every 0.1 m, shape (N, 2).
        width_m: Of the road.
        below_m: Distance of the middles of two stretches.
    """
    stride = round(_NODE_SPACING_M / POINT_SPACING_M)
    first, second, gap = _close_pairs(line[::stride], _NODE_SPACING_M, round_m(line, width_m), width_m, below_m)
    if len(gap) == 0:
        return None
    at = int(np.argmin(gap))
    nodes = np.unique(first)
    num_places = 1 + int(np.count_nonzero(np.diff(nodes) * _NODE_SPACING_M > apart_m(width_m)))
    return Narrows(float(gap[at]), int(first[at]) * stride, int(second[at]) * stride, num_places)


def gaps_to_others(nodes: FloatArray, spacing_m: float, round_m: float, width_m: float) -> FloatArray:
    """Distance of each node to the nearest different stretch [m]; infinite where that is not less than the width.

    Args:
        nodes: (x, z) at a regular distance along the line, shape (M, 2).
        spacing_m: That distance.
        round_m: Length of a round, infinite for a line that does not lead into its start.
        width_m: Of the road.
    """
    gaps = np.full(len(nodes), math.inf)
    first, second, gap = _close_pairs(nodes, spacing_m, round_m, width_m, width_m)
    np.minimum.at(gaps, first, gap)
    np.minimum.at(gaps, second, gap)
    return gaps


def near_pairs(points: FloatArray, radius: float) -> tuple[IndexArray, IndexArray]:
    """All pairs of points less than ``radius`` apart, as indices, the lower one first.

    Points are sorted into square cells, so that time and memory grow with their number.
    """
    cells = np.floor(points / radius).astype(np.int64)
    cells -= cells.min(axis=0)
    stride = int(cells[:, 1].max()) + 3
    key = cells[:, 0] * stride + cells[:, 1]
    order = np.argsort(key, kind="stable")
    key = key[order]
    firsts, seconds = [], []
    for offset in (0, 1, stride - 1, stride, stride + 1):
        low = np.searchsorted(key, key + offset, "left") if offset else np.arange(1, len(key) + 1)
        count = np.searchsorted(key, key + offset, "right") - low
        begin = np.cumsum(count) - count
        firsts.append(order[np.repeat(np.arange(len(key)), count)])
        seconds.append(order[np.arange(int(count.sum())) + np.repeat(low - begin, count)])
    a, b = np.concatenate(firsts), np.concatenate(seconds)
    is_near = np.linalg.norm(points[a] - points[b], axis=1) < radius
    a, b = a[is_near], b[is_near]
    return np.minimum(a, b), np.maximum(a, b)


def _close_pairs(
    nodes: FloatArray, spacing_m: float, round_m: float, width_m: float, below_m: float
) -> tuple[IndexArray, IndexArray, FloatArray]:
    """Pairs of nodes of different stretches less than ``below_m`` apart, and their distances."""
    first, second = near_pairs(nodes, below_m)
    along = (second - first) * spacing_m
    is_other = np.minimum(along, np.abs(round_m - along)) > apart_m(width_m)
    first, second = first[is_other], second[is_other]
    return first, second, np.linalg.norm(nodes[first] - nodes[second], axis=1)
