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


def newest_folders(parent: Path, *patterns: str) -> list[Path]:
    """The folders in ``parent`` that were written to last, the last first.

    Args:
        parent: Folder of all.
        patterns: Which of their files count, such as ``nn/*.pth``; a folder without any is left out.
    """
    files = [file for pattern in patterns for file in parent.glob(f"*/{pattern}")]
    files.sort(key=lambda file: file.stat().st_mtime, reverse=True)
    return list(dict.fromkeys(parent / file.relative_to(parent).parts[0] for file in files))
