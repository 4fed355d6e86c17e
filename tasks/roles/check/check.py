"""``--check``: shows the network's inputs over the screenshot that they were made of, and reports what looks wrong.

``train.py`` calls ``run``. The observations come from the task's own environment (``tasks.roles.check.task_check``). In
the live game nothing is pressed: you drive; in the simulator the scripted driver does.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from tasks.config import TaskConfig
from tasks.game.clock import WallClock
from tasks.game.errors import GameSetupError
from tasks.game.protocols import Telemetry
from tasks.pictures import write_png
from tasks.process.atomic_file import write_file
from tasks.process.dated_folder import new_dated_folder
from tasks.roles.check.findings import Finding, Problem
from tasks.roles.check.task_check import TaskCheck
from tasks.roles.check.track_picture import draw_own_line, own_line
from tasks.roles.config import CheckConfig
from tasks.roles.picture_window import PictureWindow

FOLDER = "checks"
"""What is written lies in this folder below runs."""
TRACK_PICTURE = "track.png"


def run(task: TaskConfig, config: CheckConfig, *, headless: bool, runs: Path) -> Path | None:
    """Shows or writes a task's observations and findings.

    Args:
        task: The task; its game is decided.
        config: How long, and how many pictures.
        headless: Whether pictures are written instead of shown in a window.
        runs: Folder of all runs.

    A track or path of the user's own is drawn first, with a window too.

    Returns:
        The folder of the pictures and findings.json; None with a window.

    Raises:
        ValueError: The track is refused, the game was lost at the end, this machine cannot look at it, or the task is
            not one of TrackMania.
    """
    folder = None if own_line(task) is None else _drawn_line(task, runs)
    try:
        with TaskCheck(task) as check:
            if headless:
                return _write(check, config, folder or _new_folder(task, runs))
            _show(check)
            _say(check.findings())
            return None
    except GameSetupError as error:
        raise ValueError(str(error)) from error


def _show(check: TaskCheck) -> None:
    """Looks until the window is closed."""
    check.look()
    height, width = check.picture().shape[:2]
    wall = WallClock()
    with PictureWindow(width, height, f"check {check.name}", beside=check.game_place()) as window:
        next_at_s = wall.now()
        while not window.events().wants_quit:
            check.look()
            window.show(check.picture())
            if not check.is_live:
                next_at_s = max(next_at_s + check.time_step_s, wall.now())
                wall.sleep_until(next_at_s)


def _new_folder(task: TaskConfig, runs: Path) -> Path:
    return new_dated_folder(runs / FOLDER, task.name, datetime.now())


def _drawn_line(task: TaskConfig, runs: Path) -> Path:
    """Draws the user's own line, before anything may refuse it; returns the folder of the picture."""
    folder = _new_folder(task, runs)
    draw_own_line(task, folder / TRACK_PICTURE)
    sys.stdout.write(f"the track as it was read: {folder / TRACK_PICTURE}\n")
    return folder


def _write(check: TaskCheck, config: CheckConfig, folder: Path) -> Path:
    """Looks for a while and writes pictures, evenly in time, and the findings."""
    started_at_s, taken = check.now(), 0
    while (elapsed_s := check.now() - started_at_s) < config.seconds or taken < config.pictures:
        check.look()
        if elapsed_s >= (taken + 1) * config.seconds / config.pictures - check.time_step_s and taken < config.pictures:
            taken += 1
            write_png(check.picture(), folder / f"check_{taken}.png")
    found = check.findings()
    write_file(folder / "findings.json", _as_json(check, found).encode())
    _say(found)
    sys.stdout.write(f"{folder}\n")
    if not check.looks or any(finding.problem is Problem.game_lost for finding in found):
        raise ValueError(f"--check could not look at the game: {found[0].message}")
    return folder


def _as_json(check: TaskCheck, found: Sequence[Finding]) -> str:
    data = {
        "task": check.name,
        "game": "live" if check.is_live else "sim",
        "looks": len(check.looks),
        "findings": [{"problem": finding.problem.name, "message": finding.message} for finding in found],
        "observation": {
            name: {"shape": list(value.shape), "min": float(value.min()), "max": float(value.max())}
            for name, value in check.observation.items()
        },
        "telemetry": None if check.seen is None else _known(check.seen.telemetry),
    }
    return json.dumps(data, indent=2, allow_nan=False) + "\n"


def _known(telemetry: Telemetry) -> dict[str, float | None]:
    """The record by name; what it lacks is null."""
    return {name: None if math.isnan(value) else value for name, value in telemetry._asdict().items()}


def _say(found: Sequence[Finding]) -> None:
    lines = [finding.message for finding in found] or ["nothing looks wrong"]
    sys.stdout.write("\n".join(lines) + "\n")
