"""Reads recordings from files and folders: .npz files, and the game's own ghosts, replays and maps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tasks.recordings.ghost import is_gbx, read_ghosts
from tasks.recordings.recording import Recording, load_npz


class Source(NamedTuple):
    """One file."""

    name: str
    recordings: list[Recording]
    """What was driven, cut where the car jumped."""


def read_sources(paths: Sequence[str | Path]) -> list[Source]:
    """What the files hold, and the files of the folders; other files of a folder are left alone.

    Args:
        paths: Files and folders.

    Raises:
        ValueError: There is none, or a file cannot be read; the text names it.
    """
    files = [file for path in paths for file in _files(Path(path).expanduser())]
    return [Source(str(file), _recordings(file)) for file in dict.fromkeys(files)]


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        if not path.exists():
            raise ValueError(f"{path}: does not exist")
        return [path]
    found = sorted(file for file in path.iterdir() if file.suffix.lower() == ".npz" or is_gbx(file))
    if not found:
        raise ValueError(f"{path}: must hold recordings (.npz, .Ghost.Gbx, .Replay.Gbx or .Map.Gbx), has none")
    return found


def _recordings(file: Path) -> list[Recording]:
    if is_gbx(file):
        return [piece for ghost in read_ghosts(file) for piece in ghost.pieces]
    if file.suffix.lower() != ".npz":
        raise ValueError(f"{file}: must be a recording: .npz, .Ghost.Gbx, .Replay.Gbx or .Map.Gbx")
    return [load_npz(file)]
