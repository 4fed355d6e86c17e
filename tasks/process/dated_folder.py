"""Folders of runs and of the roles' files: ``<parent>/<name>_<date>``, one per command."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path


def new_dated_folder(parent: Path, name: str, now: datetime) -> Path:
    """Creates ``<parent>/<name>_<YYYY-MM-DD_HH-MM-SS>``; a number is added when two commands start in one second."""
    stem = f"{name}_{now:%Y-%m-%d_%H-%M-%S}"
    for number in range(1, 1000):
        folder = parent / (stem if number == 1 else f"{stem}_{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        return folder
    raise OSError(f"1000 folders are called {stem} in {parent}")
