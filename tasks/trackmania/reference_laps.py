"""Laps to compare a drive with: the reference lap, a person's, and where there is neither the scripted driver's.

``--play`` draws a driven lap against them.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from tasks.config import ROAD_WIDTH_M
from tasks.experience.compared_laps import HUMAN, REFERENCE, SCRIPTED
from tasks.experience.evaluation_report import EpisodeResult
from tasks.laps.files import ROAD_SPACING_M, ComparedLaps
from tasks.laps.lap import Lap, LapTrace
from tasks.points.files import POINT_SPACING_M
from tasks.recordings.ghost import is_gbx, read_ghost
from tasks.recordings.recording import COLUMNS, Recording, load_npz
from tasks.sim.random_tracks import any_track
from tasks.sim.reference_lap import replay, stations_m
from tasks.sim.vehicle import VehicleConstants
from tasks.sim.vehicle_files import load_vehicle
from tasks.trackmania.course import Course, reference_lap

logger = logging.getLogger(__name__)


def compared_laps(task: Mapping[str, Any], course: Course, episode: EpisodeResult) -> ComparedLaps | None:
    """An episode beside the laps that are known of its road; None: it says nothing of where the car was.

    Args:
        task: TaskConfig as plain data.
        course: Its road.
        episode: What was driven.
    """
    driven = _driven_lap(course, episode, is_keyboard=task.get("control") == "keyboard")
    if driven is None:
        return None
    stride = round(ROAD_SPACING_M / POINT_SPACING_M)
    ground = course.centre_line[:, [0, -1]]
    road = np.vstack([ground[:-1:stride], ground[-1]])
    return ComparedLaps(road, course.width_m, (len(ground) - 1) * POINT_SPACING_M, driven, reference_laps(task, course))


def reference_laps(task: Mapping[str, Any], course: Course) -> list[Lap]:
    """Laps of a task's road, the most telling first; the scripted driver's only in the simulator, and alone.

    Args:
        task: TaskConfig as plain data.
        course: Its road.
    """
    laps: list[Lap | None] = []
    try:
        laps += [driven_reference_lap(task), _human_lap(task, course)]
        if not any(laps) and task.get("game") == "sim":
            laps.append(_scripted_lap(task, course))
    except (ValueError, OSError) as error:
        logger.warning("a lap to compare with is left out: %s", error)
    return [lap for lap in laps if lap is not None]


def driven_reference_lap(task: Mapping[str, Any]) -> Lap | None:
    """The reference lap of a task as the simulator drives it; None: none is stored for its road and car.

    Args:
        task: TaskConfig as plain data.
    """
    stored = reference_lap(task)
    if stored is None:
        return None
    width_m, car = float(task.get("track_width_m", ROAD_WIDTH_M)), load_vehicle(task.get("vehicle"))
    return Lap(_name(REFERENCE), stored.lap_time_s, _replayed(task["track"], width_m, car, stored.actions.tobytes()))


@lru_cache(maxsize=16)
def _replayed(track: str, width_m: float, car: VehicleConstants, actions: bytes) -> LapTrace:
    """Driven once for film and comparison: it takes seconds."""
    trace, _ = replay(any_track(track, width_m), np.frombuffer(actions, np.float32).reshape(-1, 3), car)
    return trace


def _driven_lap(course: Course, episode: EpisodeResult, *, is_keyboard: bool) -> Lap | None:
    rows = np.asarray(episode.trajectory, np.float64)
    times_s, actions = np.asarray(episode.race_times_s, np.float64), np.asarray(episode.actions, np.float64)
    is_known = len(rows) > 0 and len(rows) == len(times_s) == len(actions) and actions.shape[1] == 3
    known = np.isfinite(rows[:, :3]).all(axis=1) & np.isfinite(times_s) if is_known else np.zeros(0, bool)
    if not known.any():
        return None
    if is_keyboard:
        from tasks.game.arrow_keys import press_arrows

        actions = press_arrows(actions)
    name = f"policy, seed {episode.seed}"
    return _lap(course, name, episode.lap_time_s, times_s[known], rows[known, :2], rows[known, 2], actions[known])


def _human_lap(task: Mapping[str, Any], course: Course) -> Lap | None:
    """The drive that the road was made of, where it is known."""
    path = (task.get("reward") or {}).get("path")
    for name in (path, task["track"]):
        pieces = _pieces(str(name)) if name is not None else []
        if pieces:
            columns = {
                key: np.concatenate([piece.column(key) for piece in pieces]).astype(np.float64) for key in COLUMNS
            }
            places = np.stack([-columns["x"], columns["z"]], axis=1)  # x of the game points to the left
            actions = np.stack([columns["gas"], columns["brake"], columns["steer"]], axis=1)
            times_s, speed_mps = columns["t_ms"] / 1000, columns["speed"]
            return _lap(course, _name(HUMAN), course.laps.get(HUMAN), times_s, places, speed_mps, actions)
    return None


def _pieces(name: str) -> Sequence[Recording]:
    """What was driven without a jump, of a file of the game or of the drive beside a recorded path."""
    if is_gbx(name):
        return read_ghost(name).pieces
    path = Path(name).expanduser()
    if path.suffix.lower() != ".npy":
        return []
    beside = sorted(path.parent.glob("drive*.npz"), key=lambda file: (len(file.name), file.name))
    return [load_npz(file) for file in beside]


def _scripted_lap(task: Mapping[str, Any], course: Course) -> Lap | None:
    from tasks.sim.scripted_driver import scripted_lap

    track = any_track(task["track"], course.width_m)
    lap, states, controls = scripted_lap(track, load_vehicle(task.get("vehicle")))
    if math.isnan(lap.finish_time_s):
        return None
    rows = np.array([(s.time_s, s.x, s.z, math.hypot(s.forward_mps, s.sideways_mps)) for s in states])
    return _lap(course, _name(SCRIPTED), lap.finish_time_s, rows[:, 0], rows[:, 1:3], rows[:, 3], controls)


def _lap(
    course: Course,
    name: str,
    lap_time_s: float | None,
    times_s: np.ndarray,
    places: np.ndarray,
    speed_mps: np.ndarray,
    actions: np.ndarray,
) -> Lap:
    """A lap of its samples, (x, z) and [gas, brake, steer] of each; the pedals are on or off, as in the game."""
    stations = stations_m(course.centre_line, places)
    gas, brake = ((actions[:, column] > 0.0).astype(np.float64) for column in (0, 1))
    steer = np.clip(actions[:, 2].astype(np.float64), -1.0, 1.0)
    x, z = np.asarray(places, np.float64).T
    return Lap(
        name, lap_time_s, LapTrace(times_s, stations, x, z, np.asarray(speed_mps, np.float64), gas, brake, steer)
    )


def _name(driver: str) -> str:
    """As the console and titles of pictures call it."""
    return f"{driver} lap"
