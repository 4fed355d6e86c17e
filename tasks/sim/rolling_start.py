"""Rolling starts: training episodes that begin anywhere on the road, in motion.

A policy that always begins at the start line meets a corner only on the line and at the speed at which it already
drives there, and so settles for what it found first. Episodes that begin wider, faster or slower show it the rest, and
some of them begin in a slide, which a car that brakes early never meets: only gas, brake and steer together start one.
This is reference state initialization (Peng et al. 2018, DeepMimic, section 6) with the middle of the road as the
reference.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

from tasks.sim.speed_profile import speed_profile
from tasks.sim.track import Track
from tasks.sim.vehicle import VehicleConstants

_SPACING_M = 2.0
_FIRST_M, _LAST_SHARE = 5.0, 0.95
"""No closer to the start line, and not behind this share of the road."""
_FROM_BORDER_M = 3.0
_MOST_YAW = math.radians(15.0)
_PACE = 0.2, 1.3
"""Of the speed at which the middle of the road can be driven, least and most."""
_SLIDING_SHARE, _SLIDING_PACE = 0.4, (0.5, 1.8)
_LEAST_SLIP, _MOST_SLIP = math.radians(8.0), math.radians(35.0)


class RollingDraw(NamedTuple):
    """What such an episode drew: five numbers in [0, 1)."""

    along: float
    across: float
    yaw: float
    pace: float
    slide: float


class EpisodeStart(NamedTuple):
    """Where and how fast an episode begins."""

    x: float
    """[m]"""
    z: float
    """[m]"""
    yaw: float
    """Heading [rad]."""
    speed_mps: float
    """Along the heading."""
    along_m: float
    """From the start, along the middle of the road [m]."""
    sideways_mps: float = 0.0
    """To the right of the heading."""


class RollingStarts:
    """The starts on one track.

    Up to 3 m from the borders, moving up to 15 degrees from the direction of the road, at 0.2 to 1.3 times the speed at
    which the middle of the road can be driven. Four in ten slide: the car heads 8 to 35 degrees to the left or right of
    where it moves, at 0.5 to 1.8 times that speed.

    Args:
        track: The road.
        car: The car.
    """

    def __init__(self, track: Track, car: VehicleConstants) -> None:
        self._line = track.middle(_SPACING_M)
        self._speed = speed_profile(self._line, car)
        self._spacing_m = track.length_m / (len(self._line) - 1)
        self._half_m = max(track.width_m / 2 - _FROM_BORDER_M, 0.0)

    def start(self, draw: RollingDraw) -> EpisodeStart:
        """The start that was drawn."""
        last_m = _LAST_SHARE * self._spacing_m * (len(self._line) - 1)
        along_m = _FIRST_M + draw.along * (last_m - _FIRST_M)
        i = min(int(along_m / self._spacing_m), len(self._line) - 2)
        share = along_m / self._spacing_m - i
        dx, dz = (self._line[i + 1] - self._line[i]).tolist()
        x, z = (self._line[i] + share * (self._line[i + 1] - self._line[i])).tolist()
        along = math.atan2(dx, dz)
        across_m = self._half_m * (2.0 * draw.across - 1.0)
        slip = _slip(draw.slide)
        slowest, fastest = _SLIDING_PACE if slip else _PACE
        speed_mps = float(self._speed[i]) * (slowest + draw.pace * (fastest - slowest))
        return EpisodeStart(
            x + across_m * math.cos(along),
            z - across_m * math.sin(along),
            along + _MOST_YAW * (2.0 * draw.yaw - 1.0) - slip,
            speed_mps * math.cos(slip),
            along_m,
            speed_mps * math.sin(slip),
        )


def _slip(drawn: float) -> float:
    """How far to the right of its heading the car moves [rad], 0 for most."""
    side = 2.0 * drawn / _SLIDING_SHARE - 1.0
    if side >= 1.0:
        return 0.0
    return math.copysign(_LEAST_SLIP + abs(side) * (_MOST_SLIP - _LEAST_SLIP), side)


@lru_cache(maxsize=1)
def rolling_starts(track: Track, car: VehicleConstants) -> RollingStarts:
    """``RollingStarts``, made once for all cars on one track."""
    return RollingStarts(track, car)
