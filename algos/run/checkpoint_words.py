"""The names that ``checkpoint=`` takes beside a file: ``latest`` and ``zoo:<name>``. ``train.py`` calls it first."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from algos.run.folder import RUNS
from algos.run.zoo import entries, entry_file
from tasks.process.dated_folder import newest_folders
from tasks.words.command_line import Role
from tasks.words.path_words import quote

LATEST, ZOO_PREFIX = "latest", "zoo:"
_NAME = re.compile(rf"""(?P<mark>['"])(?P<name>{LATEST}|{ZOO_PREFIX}[^'"]*)(?P=mark)""")


def with_checkpoint_files(words: Sequence[str], role: Role, runs: Path = RUNS) -> list[str]:
    """The words with files in place of names.

    Args:
        words: What was typed, values quoted (``tasks.words.command_line.parse``).
        role: What the process does.
        runs: Folder of all runs.

    Raises:
        ValueError: There is no such file; says what there is.
    """
    goes_on = role is Role.train and "checkpoint_mode=weights" not in words

    def as_file(found: re.Match[str]) -> str:
        name = found["name"]
        is_latest = name == LATEST
        path = latest(runs, goes_on=goes_on) if is_latest else named_file(name)
        sys.stdout.write(f"checkpoint {name}: {path}\n")
        return quote(str(path))

    return [_NAME.sub(as_file, word) if word.startswith("checkpoint=") else word for word in words]


def named_file(name: str) -> Path:
    """The file of ``zoo:<name>``; everything else is a path.

    Raises:
        ValueError: The zoo has no such entry.
    """
    return entry_file(name.removeprefix(ZOO_PREFIX)) if name.startswith(ZOO_PREFIX) else Path(name)


def latest(runs: Path = RUNS, *, goes_on: bool) -> Path:
    """The checkpoint of the run that saved last: its best, or its last where it has none yet.

    Args:
        runs: Folder of all runs.
        goes_on: Whether the run is resumed: then its last goes before its best.

    Raises:
        ValueError: No run has saved one.
    """
    names = ("last.pth", "best.pth") if goes_on else ("best.pth", "last.pth")
    saved = newest_folders(runs, *(f"nn/{name}" for name in names))
    if not saved:
        zoo = ", ".join(ZOO_PREFIX + name for name in entries()) or "nothing"
        raise ValueError(
            f"checkpoint {LATEST}: no run in {runs.resolve()} has saved one; train first, or play one of the zoo: {zoo}"
        )
    return next(file for name in names if (file := saved[0] / "nn" / name).is_file())
