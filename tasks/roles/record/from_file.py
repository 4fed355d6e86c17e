"""``--record record.from=FILE``: makes a reference path from the drive in one of the game's own files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tasks.config import TaskConfig
from tasks.recordings.driven_line import driven_line
from tasks.recordings.ghost import read_ghost
from tasks.roles.config import RecordConfig
from tasks.roles.recording import RecordedPath, RecordingRefused, Refusal
from tasks.roles.recording_files import GameDrive, write_recording
from tasks.trackmania.reference_path import resample

_DRAWN_EVERY = 8
"""One of so many points is drawn."""


def write_from_file(task: TaskConfig, config: RecordConfig, runs: Path) -> Path:
    """Writes the path of the fastest drive in ``config.from_file``.

    Raises:
        ValueError: There is no drive in it, it is damaged, or the drive makes no path.
    """
    assert config.from_file is not None
    source = Path(config.from_file)
    ghost = read_ghost(source)
    try:
        line = driven_line(ghost)
    except ValueError as error:
        raise ValueError(f"{source} {error}") from error
    trajectory = np.column_stack([line.points[:, 0], line.points[:, 2], line.speeds])[::_DRAWN_EVERY]
    duration_s = float(line.times_s[-1] - line.times_s[0])
    has_finished = ghost.race_time_s is not None
    recorded = RecordedPath(resample(line.points), trajectory.astype(np.float32), duration_s, has_finished)
    if recorded.length_m < config.min_length_m:
        raise RecordingRefused(
            Refusal.too_short,
            f"too short: the car in {source} drove {recorded.length_m:.1f} m, record.min_length_m is "
            f"{config.min_length_m:g} m",
        )
    drive = GameDrive(ghost.pieces, ghost.checkpoint_times_s, ghost.map_uid, source.name)
    lap_time_s = duration_s if ghost.race_time_s is None else ghost.race_time_s
    return write_recording(recorded, task, config, runs, lap_time_s=lap_time_s, drive=drive)
