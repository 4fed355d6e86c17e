"""The folder of a run: ``runs/<experiment>_<date>``, or the existing folder of a resumed run."""

from __future__ import annotations

import shutil
from datetime import datetime
from pathlib import Path

from algos.config.schema import CheckpointMode, RunConfig
from tasks.process.dated_folder import new_dated_folder, newest_folders

RUNS = Path("runs")
"""Folder of all runs, in the folder where the command is given."""


def run_folder(config: RunConfig, *, is_playing: bool, is_renamed: bool = False) -> Path:
    """The folder of a command: the checkpoint's when its run is resumed or played, else a new one, created here.

    Args:
        config: The configuration.
        is_playing: Whether the checkpoint is only played.
        is_renamed: Whether ``experiment`` was typed: then a resumed run goes on in a new folder, as does one whose
            checkpoint lies outside a run folder.
    """
    own = run_folder_of(config.checkpoint) if config.checkpoint else None
    if is_playing:
        is_ours = own is not None and own.is_relative_to(RUNS.resolve())
        return own if own is not None and is_ours else RUNS / "play"
    if own is not None and not is_renamed and config.checkpoint_mode is CheckpointMode.resume:
        return own
    return new_dated_folder(RUNS, config.experiment, datetime.now())


def run_folder_of(checkpoint: str) -> Path | None:
    """The run folder that a checkpoint lies in (``<run>/nn/<file>``); None for a file elsewhere."""
    folder = Path(checkpoint).resolve().parent
    return folder.parent if folder.name == "nn" else None


def remove_unused(folder: Path, checkpoint: str | None) -> None:
    """Removes the folder of a training that ended before it saved anything.

    Args:
        folder: Run folder of the command.
        checkpoint: What the command started from; the folder of a run that goes on was there before and stays.
    """
    is_new = checkpoint is None or folder.resolve() != run_folder_of(checkpoint)
    if is_new and folder.is_dir() and not any(folder.glob("nn/*")):
        shutil.rmtree(folder, ignore_errors=True)


def newest_checkpoints(count: int = 3, runs: Path = RUNS) -> list[str]:
    """Paths of the best checkpoints of the newest runs, newest first."""
    return [str(folder / "nn" / "best.pth") for folder in newest_folders(runs, "nn/best.pth")[:count]]
