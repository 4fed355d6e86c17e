"""The files of a recording: path.npy with its description and a map; and the messages during the recording."""

from __future__ import annotations

import io
import json
import logging
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tasks.config import GameKind, RandomizationConfig, TaskConfig
from tasks.game.clock import Clock
from tasks.pictures import plot_driven_line
from tasks.points.files import POINT_SPACING_M, Frame
from tasks.process.atomic_file import write_file
from tasks.process.dated_folder import new_dated_folder
from tasks.recordings.recording import Recording, save_npz
from tasks.roles.config import Driver, RecordConfig
from tasks.roles.recording import RecordedPath, Recorder, RecordingState

_logger = logging.getLogger(__name__)

FOLDER = "recorded"
"""Recordings lie in this folder below runs."""


_PROGRESS_EVERY_S = 5.0


def undisturbed(task: TaskConfig) -> TaskConfig:
    """The task whose simulated car starts in the middle of the road, straight on, and obeys at once."""
    still = RandomizationConfig(
        frame_phase=False, capture_jitter_s=0.0, input_delay_ticks=[0, 0], start_offset_m=0.0, start_yaw_deg=0.0
    )
    return replace(task, randomization=still)


class GameDrive(NamedTuple):
    """What else is known of a drive in the game."""

    recordings: Sequence[Recording]
    """States and inputs, one for each piece without a jump."""
    checkpoint_times_s: Sequence[float] = ()
    """The finish last [s]."""
    map_uid: str = ""
    source: str = ""
    """Name of the file that it was read from; empty: it was driven now."""


def write_recording(
    recorded: RecordedPath,
    task: TaskConfig,
    config: RecordConfig,
    runs: Path,
    *,
    lap_time_s: float,
    drive: GameDrive | None = None,
) -> Path:
    """Writes path.npy, path.json and map.png into a new folder and says where; of a drive in the game drive.npz too.

    Args:
        recorded: The path.
        task: The task in which it was driven.
        config: Its name.
        runs: Folder of all runs.
        lap_time_s: As the simulator or the file knows it [s]; NaN: from driving off to the finish.
        drive: A drive in the game; None: in the simulator.

    Returns:
        The path.npy.
    """
    now = datetime.now().astimezone()
    folder = new_dated_folder(runs / FOLDER, config.name, now)
    file = folder / "path.npy"
    packed = io.BytesIO()
    np.save(packed, recorded.points)
    write_file(file, packed.getbuffer())
    if math.isnan(lap_time_s):
        lap_time_s = recorded.duration_s
    lap = round(lap_time_s, 3) if recorded.has_finished else None
    is_in_game = drive is not None or task.game is GameKind.live
    is_human = is_in_game or config.driver is Driver.human
    description: dict[str, Any] = {
        "name": config.name,
        "game": GameKind.live.name if is_in_game else task.game.name,
        "frame": (Frame.game if is_in_game else Frame.simulator).value,
        "track": None if is_in_game else task.track,
        "date": now.isoformat(timespec="seconds"),
        "length_m": round(recorded.length_m, 2),
        "points": len(recorded.points),
        "point_spacing_m": POINT_SPACING_M,
        "has_finished": recorded.has_finished,
        "lap_time_s": lap,
        "human_lap_time_s": lap if is_human else None,
    }
    if drive is not None:
        description |= {
            "checkpoint_times_s": list(drive.checkpoint_times_s),
            "map_uid": drive.map_uid,
            "source": drive.source,
        }
    _write_description(folder, description)  # the simulator asks it for the frame of the path
    obstacle = _why_no_track(file, task.track_width_m)
    _write_description(folder, description | {"is_simulator_track": obstacle is None})
    names = [] if drive is None else _write_drive(folder, drive.recordings)
    draw_map(recorded, task, folder / "map.png", title=_title(description), is_in_game=is_in_game)
    sys.stdout.write(_summary(description, file, obstacle, names) + "\n")
    return file


def _write_description(folder: Path, description: Mapping[str, Any]) -> None:
    write_file(folder / "path.json", (json.dumps(description, indent=2, allow_nan=False) + "\n").encode())


def _write_drive(folder: Path, recordings: Sequence[Recording]) -> list[str]:
    names = [f"drive_{number}.npz" if number > 1 else "drive.npz" for number in range(1, len(recordings) + 1)]
    for name, recording in zip(names, recordings, strict=True):
        save_npz(folder / name, recording)
    return names


def draw_map(
    recorded: RecordedPath, task: TaskConfig, file: Path | None, *, title: str, is_in_game: bool = False
) -> np.ndarray:
    """The driven line, coloured by speed, over the road of the simulator or the width around it in the live game.

    Args:
        recorded: The path.
        task: Where it was driven.
        file: PNG to write; None: none.
        title: Text above the map.
        is_in_game: Whether it was driven in the game whatever ``task.game`` is: it was read from a file.

    Returns:
        The picture, uint8 RGB, shape (h, w, 3).
    """
    line, width_m = recorded.points, task.track_width_m
    is_in_game = is_in_game or task.game is GameKind.live
    if not is_in_game:
        from tasks.sim.random_tracks import any_track

        track = any_track(task.track, task.track_width_m)
        line, width_m = track.centre_line, track.width_m
    return plot_driven_line(line, width_m, [recorded.trajectory], file, title=title, is_x_left=is_in_game)


class RecordingProgress:
    """Says how a recording goes: each change of its state, and its length every few seconds."""

    def __init__(self, recorder: Recorder, clock: Clock, how_to_end: str) -> None:
        self._recorder = recorder
        self._clock = clock
        self._how_to_end = how_to_end
        self._told: tuple[RecordingState, int] | None = None
        self._told_at_s = 0.0

    def tell(self) -> None:
        """Prints news of the recording."""
        recorder, now = self._recorder, self._clock.now()
        state = (recorder.state, recorder.num_restarts)
        if state == self._told and (
            recorder.state is RecordingState.waiting or now - self._told_at_s < _PROGRESS_EVERY_S
        ):
            return
        is_news = state != self._told
        self._told, self._told_at_s = state, now
        if recorder.state is RecordingState.waiting:
            _logger.info("ready to record: let the car stand at the start, then drive to the finish")
        elif recorder.state is RecordingState.recording:
            _logger.info("recording%s", f"; {self._how_to_end}" if is_news else f": {recorder.length_m:.0f} m")


def _why_no_track(file: Path, width_m: float) -> str | None:
    """Why the simulator cannot build a road along a path; None when it can."""
    from tasks.sim.track import load_track

    try:
        load_track(str(file), width_m)
    except ValueError as error:
        return str(error)
    return None


def _title(description: Mapping[str, Any]) -> str:
    where = description.get("source") or description["track"] or "live game"
    lap = "" if description["lap_time_s"] is None else f", {description['lap_time_s']:.2f} s"
    return f"{description['name']} ({where}): {description['length_m']:.0f} m{lap}"


def _summary(description: Mapping[str, Any], file: Path, obstacle: str | None, drives: Sequence[str]) -> str:
    lap = f" in {description['lap_time_s']:.2f} s" if description["has_finished"] else ", the finish was not reached"
    lines = [f"recorded {description['length_m']:.1f} m{lap}: {file}"]
    is_live = description["track"] is None
    lines.append(f"drive along it: task.track={file}" if is_live else f"rewards along it: task.reward.path={file}")
    if drives:
        lines.append(f"states and inputs of the drive: {', '.join(drives)}")
    if obstacle is not None:
        lines.append(f"the simulator can build no road along it: {obstacle}")
    return "\n".join(lines)
