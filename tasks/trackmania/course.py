"""The course that a drive is compared with: line and width of the track, and the laps that others drove there.

Pictures and results use it (``algos.faces.agent``, ``algos.faces.players``), and ``train.py``, which logs what it read
from the user's files. It needs no environment.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tasks.config import ROAD_WIDTH_M, GameKind, TaskConfig, config_from_dict
from tasks.experience.compared_laps import HUMAN, REFERENCE, Laps
from tasks.points.files import Frame, PointFile, is_point_file, read_points

if TYPE_CHECKING:
    from tasks.sim.reference_lap import ReferenceLap
    from tasks.sim.track import Track

LEAST_HEIGHT_M = 1.0
"""A track whose heights span less is flat for people [m]."""


class Course(NamedTuple):
    """The course of a task, for pictures and comparisons."""

    name: str
    """As given in ``task.track``."""
    centre_line: np.ndarray
    """x, y, z [m] with x to the right of z, in the live game too, shape (N, 3)."""
    width_m: float
    laps: Laps = MappingProxyType({})
    """As ``laps_to_compare`` gives them."""


def has_course(task: Mapping[str, Any]) -> bool:
    """Whether a task is driven on a track.

    Args:
        task: Its configuration as plain data.
    """
    return "track" in task


def course(task: Mapping[str, Any]) -> Course:
    """Loads the track of a task; of the live game only the reference path is known.

    Args:
        task: TaskConfig as plain data.
    """
    if task.get("game") == "live":
        return _live_course(task)
    track = track_of(task)
    line = np.asarray(track.centre_line)
    return Course(str(task["track"]), line, float(track.width_m), laps_to_compare(task))


def on_track(task: Mapping[str, Any], track: str | None) -> Mapping[str, Any]:
    """The task of an episode that has a track of its own.

    Args:
        task: TaskConfig as plain data.
        track: Name of the track (``EpisodeResult.track``); None: that of the task.

    Raises:
        ValueError: It is a file, which a worker's report must not make anybody read.
    """
    if track is not None and is_point_file(track):
        raise ValueError(f"the track of one episode must be such as random:10, not a file, got {track!r}")
    return task if track is None else {**task, "track": track}


def file_notes(task: TaskConfig) -> list[str]:
    """Notes on each file of points that a task reads: its columns, and what is ignored.

    Args:
        task: Its configuration; its game is decided.

    Raises:
        ValueError: A file cannot be read.
    """
    is_live = task.game is GameKind.live
    notes = []
    if is_point_file(task.track) and not (is_live and task.reward.path):
        file = read_points(task.track)
        notes.append(_file_note("track", task.track, file))
        if not is_live and file.frame is not Frame.game and file.height_range_m >= LEAST_HEIGHT_M:
            notes[-1] += (
                f"; its heights span {file.height_range_m:.1f} m, and they are ignored: the simulator's road is "
                "flat, without slopes and jumps"
            )
        if not is_live:
            notes += _narrows_notes(task)
    if task.reward.path:
        notes.append(_file_note("reference path", task.reward.path, read_points(task.reward.path)))
    return notes


def _narrows_notes(task: TaskConfig) -> list[str]:
    """Places where the road is narrower than configured; undrivable lines are refused when they are loaded."""
    from tasks.sim.track import load_track, narrows_note

    with suppress(ValueError):
        note = narrows_note(load_track(task.track, task.track_width_m))
        return [note] if note else []
    return []


def _file_note(what: str, name: str, file: PointFile) -> str:
    length_m = float(np.linalg.norm(np.diff(file.ground, axis=0), axis=1).sum())
    return f"{what} {name}: {length_m:,.0f} m in {len(file.points):,} points, {file.columns}"


def _live_course(task: Mapping[str, Any]) -> Course:
    from tasks.trackmania.reference_path import path_of_task

    keys = ("track", "track_width_m", "reward")
    config = config_from_dict(TaskConfig, {"name": "live", **{key: task[key] for key in keys if key in task}}, "task")
    return Course(config.track, path_of_task(config), config.track_width_m, laps_to_compare(task))


def laps_to_compare(task: Mapping[str, Any]) -> Laps:
    """Laps with which those of a task are compared: the reference lap and the human's, where one is known.

    Args:
        task: TaskConfig as plain data.
    """
    reference, human_s = reference_lap(task), _human_lap_time_s(task)
    found = {} if reference is None else {REFERENCE: reference.lap_time_s}
    return found if human_s is None else {**found, HUMAN: human_s}


def reference_lap(task: Mapping[str, Any]) -> ReferenceLap | None:
    """The best lap that is known of a task's road with its car in the simulator; None: none is, or the game is live.

    Args:
        task: TaskConfig as plain data.
    """
    if task.get("game") == "live":
        return None
    from tasks.sim.reference_lap import load_reference_lap
    from tasks.sim.vehicle_files import load_vehicle

    width_m, car = float(task.get("track_width_m", ROAD_WIDTH_M)), load_vehicle(task.get("vehicle"))
    return load_reference_lap(str(task["track"]), width_m, car)


def scripted_lap_time_s(task: Mapping[str, Any]) -> float:
    """Lap of the shipped scripted driver with the car of a task on its track [s]."""
    from tasks.sim.scripted_driver import scripted_lap_time_s as lap_time_s
    from tasks.sim.vehicle_files import load_vehicle

    return float(lap_time_s(track_of(task), load_vehicle(task.get("vehicle"))))


def track_of(task: Mapping[str, Any]) -> Track:
    """The track of a task in the simulator.

    Args:
        task: TaskConfig as plain data.
    """
    from tasks.sim.random_tracks import any_track

    return any_track(task["track"], float(task.get("track_width_m", ROAD_WIDTH_M)))


def _human_lap_time_s(task: Mapping[str, Any]) -> float | None:
    """Lap of the person who drove the line of a task in the game [s]; None: unknown."""
    path = (task.get("reward") or {}).get("path")
    for name in (path, task["track"]):
        if name is not None and is_point_file(str(name)):
            lap_time_s = read_points(str(name)).human_lap_time_s
            if lap_time_s is not None:
                return lap_time_s
    return None
