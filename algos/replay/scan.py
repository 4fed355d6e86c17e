"""The files of a stored replay: which there are, what can be read of them, and putting them in order.

``algos.replay.storage`` restores what ``ReplayScan`` reads. A file is believed by its content: its name counts only
where its beginning cannot be read. What cannot be read is left out and said; what is around it is read.
"""

from __future__ import annotations

import itertools
import logging
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from algos.replay.records import SegmentCodec, Start
from tasks.experience.samples import Segment
from tasks.process.atomic_file import sync_folder

LOGGER = logging.getLogger(__name__)

_SUFFIX = ".rows"
_NAME = re.compile(r"[0-9]{15,18}\.rows")
_NOTHING = -1
"""The number of the next row before any was read."""


def chunk_name(row: int) -> str:
    """Name of the file whose first row has this number."""
    return f"{row:015d}{_SUFFIX}"


def chunk_files(directory: Path) -> list[tuple[int, Path]]:
    """First row, as the name says it, and path of every file, in order."""
    paths = (path for path in directory.glob(f"*{_SUFFIX}") if _NAME.fullmatch(path.name) and path.is_file())
    return sorted((int(path.stem), path) for path in paths)


def copy_chunks(source: Path, directory: Path) -> None:
    """Copies the files of a stored replay to another directory, and nothing that lies among them."""
    directory.mkdir(parents=True, exist_ok=True)
    for _, path in chunk_files(source):
        shutil.copy2(path, directory / path.name)


class ReplayScan:
    """Reads the files of a directory in the order of their rows, and knows afterwards what has to be put in order.

    Args:
        directory: Where they lie; need not exist.
        codec: Reads the records.
        capacity: Rows that are needed at most; older files are not read.
        end: Number of the first row that is not wanted; None: all of them.

    Raises:
        ValueError: A file is of another version or observation, or may not be read.
    """

    def __init__(self, directory: Path, codec: SegmentCodec, capacity: int, end: int | None) -> None:
        self._directory = directory
        self._codec = codec
        self._end = end
        self._row = _NOTHING
        self._taken: dict[_Chunk, int] = {}
        self._empty: list[Path] = []
        self._unusable = _no_files(directory)
        self.first_row = 0
        """Number of the first row that was read."""
        chunks = sorted((self._open(row, path) for row, path in chunk_files(directory)), key=_place)
        newest = end if end is not None else max((chunk.row for chunk in chunks if chunk.start), default=0)
        oldest = max((chunk.row for chunk in chunks if chunk.row <= newest - capacity), default=0)
        self._chunks = [chunk for chunk in chunks if chunk.row >= oldest and (end is None or chunk.row < end)]
        self._later = [chunk.path for chunk in chunks if end is not None and chunk.row >= end]

    def items(self) -> Iterator[Start | Segment]:
        """A start and segments; another start before a segment whose forerunners are lost."""
        for chunk in self._chunks:
            yield from self._read(chunk)

    def tidy(self) -> None:
        """Removes what lies behind the last row that was read: a torn record, and rows that are not wanted.

        What is no part of the stored replay is set aside, and what has a wrong name is given the right one: the names
        of new files must be free.
        """
        for path in self._unusable:
            _set_aside(path)
        for path in (*self._empty, *reversed(self._later)):
            path.unlink()
        if self._later:
            LOGGER.info("%s: the rows from %d on are removed: the run repeats them", self._directory, self._end)
        if self._taken:
            last = next(reversed(self._taken))
            _cut(last.path, self._taken[last])
        _rename({chunk.path: self._directory / chunk_name(chunk.row) for chunk in self._taken})
        if self._directory.is_dir():
            sync_folder(self._directory)

    def _open(self, row: int, path: Path) -> _Chunk:
        try:
            with open(path, "rb") as file:
                start, offset = self._codec.read_start(file)
        except OSError as error:
            raise ValueError(_unreadable(path, error)) from error
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        if start is not None and start.row != row:
            LOGGER.warning("%s has the rows from %d on: it was renamed, swapped or copied", path, start.row)
        return _Chunk(row if start is None else start.row, path, start, offset)

    def _read(self, chunk: _Chunk) -> Iterator[Start | Segment]:
        """What is in one file; notes how far it was read, and says what is wrong with it."""
        try:
            data = chunk.path.read_bytes()
        except OSError as error:
            raise ValueError(_unreadable(chunk.path, error)) from error
        start = chunk.start
        row, damaged, doubled, lost = chunk.row, 0, 0, 0
        is_gap = False
        for found in self._codec.read_segments(data, chunk.offset):
            if found is None:
                damaged += 1
                is_gap = True
                continue
            first = row if found.row is None else found.row
            row = first + len(found.segment)
            if first < self._row:
                doubled += 1
                continue
            if self._end is not None and row > self._end:
                break
            if chunk not in self._taken:
                self._enter(chunk)
            if first != self._row or is_gap:
                lost += first - max(chunk.row, self._row)
                yield Start(first, {}, []) if start is None else start._replace(row=first)
            start, is_gap = None, False
            self._row, self._taken[chunk] = row, found.end
            yield found.segment
        if damaged and chunk in self._taken:
            LOGGER.warning("%s: damaged in %d places, %d rows there are left out", chunk.path, damaged, lost)
        if chunk not in self._taken:
            self._leave_out(chunk, len(data), doubled > 0)

    def _enter(self, chunk: _Chunk) -> None:
        """Takes note that rows of a file are about to be taken."""
        if self._row == _NOTHING:
            self.first_row = chunk.row
        elif chunk.row > self._row:
            LOGGER.warning("%s: the %d rows before it are lost", chunk.path, chunk.row - self._row)

    def _leave_out(self, chunk: _Chunk, size: int, is_copy: bool) -> None:
        """Decides what becomes of a file of which nothing was taken."""
        if not is_copy and (not size or (chunk.start is not None and chunk is self._chunks[-1])):
            self._empty.append(chunk.path)  # killed before its first segment was written
            return
        reason = "is a copy, its rows are there already" if is_copy else "has nothing that can be read"
        LOGGER.warning("%s %s: left out", chunk.path, reason)
        self._unusable.append(chunk.path)


class _Chunk(NamedTuple):
    """A file."""

    row: int
    """Number of its first row: as its beginning says it, or its name where that cannot be read."""
    path: Path
    start: Start | None
    """Its beginning; None: it cannot be read."""
    offset: int
    """Where its segments begin."""

    def __hash__(self) -> int:
        return hash(self.path)


def _place(chunk: _Chunk) -> tuple[int, bool, Path]:
    """Order of the files; one with the right name goes before its copies."""
    return chunk.row, chunk.path.name != chunk_name(chunk.row), chunk.path


def _no_files(directory: Path) -> list[Path]:
    """What has the name of a file of the stored replay and is none; also speaks up about names that are similar."""
    found = []
    for path in sorted(directory.glob(f"*{_SUFFIX}")):
        is_named = _NAME.fullmatch(path.name) is not None
        if is_named and path.is_file():
            continue
        LOGGER.warning("%s is no file of the stored replay: ignored", path)
        if is_named:
            found.append(path)
    return found


def _unreadable(path: Path, error: OSError) -> str:
    return f"{path} cannot be read ({error.strerror}); make it readable, or move it away to go on without its rows"


def _set_aside(path: Path) -> None:
    """Gives another name to what would be in the way."""
    names = (path.with_name(f"{path.name}.unused{number or ''}") for number in itertools.count())
    target = next(name for name in names if not name.exists())
    LOGGER.warning("%s is renamed to %s", path, target.name)
    path.rename(target)


def _cut(path: Path, size: int) -> None:
    if path.stat().st_size <= size:
        return
    LOGGER.info("cutting %s from %d to %d bytes", path, path.stat().st_size, size)
    with open(path, "r+b") as file:
        file.truncate(size)
        os.fsync(file.fileno())


def _rename(targets: Mapping[Path, Path]) -> None:
    """Renames files that may have each other's names; does nothing where that would overwrite one."""
    moved = {path: target for path, target in targets.items() if path != target}
    is_free = all(target in targets or not target.exists() for target in moved.values())
    if not is_free or len(set(targets.values())) < len(targets):
        return
    for path in moved:
        path.rename(path.with_name(f"{path.name}.moving"))
    for path, target in moved.items():
        path.with_name(f"{path.name}.moving").rename(target)
