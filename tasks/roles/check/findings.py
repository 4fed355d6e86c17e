"""Finds what looks wrong in a series of observations ("looks"); each finding says what to do.

``tasks.roles.check.task_check`` takes the looks. This module uses no game and no clock: the same looks always give the
same findings.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from enum import Enum
from typing import NamedTuple

import numpy as np

from tasks.game.protocols import Telemetry
from tasks.pictures import MPS_TO_KMH

MIN_LOOKS = 10
"""Fewer looks of a kind say nothing."""
_MOST = 0.9
"""What holds for this part of the looks is called lasting."""
_DRIVING_MPS = 2.0
_OLD_TELEMETRY_S = 0.1
_LOW_RATE_HZ = 25.0
_FAR_M = 30.0
_MIN_CONTRAST = 3.0
"""A screenshot whose brightness has a smaller standard deviation shows nothing."""


class Problem(Enum):
    """Kinds of findings."""

    game_lost = "game_lost"
    black_screen = "black_screen"
    no_contrast = "no_contrast"
    covered_window = "covered_window"
    frozen_picture = "frozen_picture"
    no_border = "no_border"
    blocked_beams = "blocked_beams"
    speed_in_kmh = "speed_in_kmh"
    speed_does_not_fit = "speed_does_not_fit"
    old_telemetry = "old_telemetry"
    low_rate = "low_rate"
    far_from_path = "far_from_path"
    not_driven = "not_driven"
    nothing_seen = "nothing_seen"


class Finding(NamedTuple):
    """One finding, with advice."""

    problem: Problem
    message: str
    """What was seen and what to do."""


class Look(NamedTuple):
    """What one observation was made of, reduced to what can look wrong."""

    time_s: float
    """When it was taken [s]."""
    telemetry: Telemetry
    age_s: float
    """Of the record [s]."""
    is_black: bool
    """Whether the screenshot is black."""
    contrast: float
    """Standard deviation of the screenshot's brightness, 0 to 255."""
    is_same_picture: bool
    """Whether the screenshot equals that of the look before."""
    beams: np.ndarray | None
    """Newest LIDAR scan [px], shape (19,); None: the task has none."""
    path_distance_m: float
    """From the car to the nearest point of the reference path [m]."""


class Surroundings(NamedTuple):
    """What is known beside the looks."""

    beam_lengths: np.ndarray | None = None
    """Value of each beam that meets no border [px]."""
    covered_fraction: float = 0.0
    """Part of the game's window that others hide."""
    rate_hz: float = math.nan
    """Records of telemetry per second; NaN when unknown."""
    game_lost: str = ""
    """Why no observation could be made, when the game was lost at the end."""
    path_name: str = "the reference path"
    """Name of the reference path."""


def findings(looks: Sequence[Look], around: Surroundings) -> list[Finding]:
    """Everything that looks wrong, the gravest first.

    Args:
        looks: In order.
        around: What is known beside them.
    """
    found = [Finding(Problem.game_lost, around.game_lost)] if around.game_lost else []
    if len(looks) < MIN_LOOKS and not found:
        found.append(Finding(Problem.nothing_seen, f"only {len(looks)} observations were made: look for longer"))
    if len(looks) < MIN_LOOKS:
        return found
    for check in _CHECKS:
        problem = check(looks, around)
        if problem is not None:
            found.append(problem)
    return found


def _black(looks: Sequence[Look], around: Surroundings) -> Finding | None:
    del around
    if _share(looks, lambda look: look.is_black) < _MOST:
        return None
    return Finding(
        Problem.black_screen,
        "the screenshot is black: play in a window (not full screen), on X11 rather than Wayland, not minimised, "
        "with the game on the display of task.live.display",
    )


def _contrast(looks: Sequence[Look], around: Surroundings) -> Finding | None:
    del around
    if (
        _share(looks, lambda look: look.is_black) >= _MOST
        or float(np.median([x.contrast for x in looks])) >= _MIN_CONTRAST
    ):
        return None
    return Finding(
        Problem.no_contrast, "the screenshot has one colour: another window is captured, or the game is loading"
    )


def _covered(looks: Sequence[Look], around: Surroundings) -> Finding | None:
    del looks
    if around.covered_fraction < 0.005:
        return None
    return Finding(
        Problem.covered_window,
        f"{around.covered_fraction:.0%} of the game's window is covered by others, which are seen instead: move them",
    )


def _frozen(looks: Sequence[Look], around: Surroundings) -> Finding | None:
    del around
    driving = [look for look in looks[1:] if abs(look.telemetry.speed) > _DRIVING_MPS]
    is_black = _share(looks, lambda look: look.is_black) >= _MOST
    if len(driving) < MIN_LOOKS or is_black or _share(driving, lambda look: look.is_same_picture) < 0.5:
        return None
    share = _share(driving, lambda look: look.is_same_picture)
    return Finding(
        Problem.frozen_picture,
        f"the picture stood still in {share:.0%} of the looks while the car drove: the game hangs, draws less than "
        "20 frames/s, or another window is captured",
    )


def _no_border(looks: Sequence[Look], around: Surroundings) -> Finding | None:
    scans, lengths = _scans(looks), around.beam_lengths
    if scans is None or lengths is None or np.mean((scans >= lengths).all(axis=1)) < _MOST:
        return None
    return Finding(
        Problem.no_border,
        "no beam met a border: LIDAR needs a plain road with black borders, seen by the camera without a car (press 3)",
    )


def _blocked(looks: Sequence[Look], around: Surroundings) -> Finding | None:
    del around
    scans = _scans(looks)
    if scans is None or _share(looks, lambda look: look.is_black) >= _MOST:
        return None
    blocked = int(((scans == 0).mean(axis=0) >= _MOST).sum())
    if blocked < 5:
        return None
    return Finding(
        Problem.blocked_beams,
        f"{blocked} of {scans.shape[1]} beams end at their first pixel: something dark is in front, often the car "
        "(hide it: camera 3), or the picture is too dark",
    )


def _speed_unit(looks: Sequence[Look], around: Surroundings) -> Finding | None:
    del around
    ratios = _speed_ratios(looks)
    if len(ratios) < MIN_LOOKS:
        return None
    ratio = float(np.median(ratios))
    if abs(ratio - MPS_TO_KMH) < 0.4:
        return Finding(
            Problem.speed_in_kmh,
            f"the speed is {ratio:.1f} times what the positions say: it is in km/h, use a plugin that sends m/s",
        )
    if not 0.7 < ratio < 1.4:
        return Finding(
            Problem.speed_does_not_fit,
            f"the speed is {ratio:.2f} times what the positions say: set task.live.record to the record of your plugin",
        )
    return None


def _old(looks: Sequence[Look], around: Surroundings) -> Finding | None:
    del around
    age = float(np.mean([look.age_s for look in looks]))
    if age <= _OLD_TELEMETRY_S:
        return None
    return Finding(
        Problem.old_telemetry,
        f"telemetry is {age * 1000:.0f} ms old on average: the game is paused or draws few frames",
    )


def _rate(looks: Sequence[Look], around: Surroundings) -> Finding | None:
    del looks
    if math.isnan(around.rate_hz) or around.rate_hz >= _LOW_RATE_HZ:
        return None
    return Finding(
        Problem.low_rate,
        f"only {around.rate_hz:.0f} records of telemetry arrive per second (one a frame): lower the graphics settings, "
        "or have the game draw at full speed in the background too",
    )


def _far(looks: Sequence[Look], around: Surroundings) -> Finding | None:
    distance = float(np.median([look.path_distance_m for look in looks[-MIN_LOOKS:]]))
    if distance <= _FAR_M:
        return None
    car = looks[-1].telemetry
    return Finding(
        Problem.far_from_path,
        f"the car at ({car.x:.0f}, {car.y:.0f}, {car.z:.0f}) m is {distance:.0f} m from {around.path_name}: "
        "load its map, or record a path on this one (--record) and set task.track to it",
    )


def _not_driven(looks: Sequence[Look], around: Surroundings) -> Finding | None:
    del around
    if max(abs(look.telemetry.speed) for look in looks) > _DRIVING_MPS:
        return None
    return Finding(
        Problem.not_driven, "the car stood still: drive while this looks, so that speed and picture can be compared"
    )


_CHECKS: tuple[Callable[[Sequence[Look], Surroundings], Finding | None], ...] = (
    _black,
    _contrast,
    _covered,
    _frozen,
    _no_border,
    _blocked,
    _speed_unit,
    _old,
    _rate,
    _far,
    _not_driven,
)


def _share(looks: Sequence[Look], holds: Callable[[Look], bool]) -> float:
    return sum(map(holds, looks)) / len(looks)


def _scans(looks: Sequence[Look]) -> np.ndarray | None:
    """All scans, shape (looks, 19); None where the task has no LIDAR."""
    scans = [look.beams for look in looks if look.beams is not None]
    return np.stack(scans) if len(scans) >= MIN_LOOKS else None


def _speed_ratios(looks: Sequence[Look]) -> list[float]:
    """Reported speed over the speed between two records, wherever the car drove."""
    ratios = []
    for before, after in itertools.pairwise(looks):
        elapsed_s = (after.time_s - after.age_s) - (before.time_s - before.age_s)
        moved_m = math.dist(before.telemetry[2:5], after.telemetry[2:5])
        if moved_m > 0.2:
            reported = 0.5 * (abs(before.telemetry.speed) + abs(after.telemetry.speed))
            ratios.append(reported * elapsed_s / moved_m)
    return ratios
