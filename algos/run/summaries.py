"""TensorBoard's event files on a disk that may be full: logging neither ends nor delays training.

tensorboardX writes in a thread that ends with the first error; the next call that logs then waits without end. Here the
file accepts all data: when the disk is full, writing is tried again, and data is dropped when too much is waiting. All
agents log through ``open_summaries``, rl_games' own as well (``algos.faces.registration``).
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import IO, TYPE_CHECKING

from tasks.process.write_trouble import WriteTrouble

if TYPE_CHECKING:
    from tensorboardX import SummaryWriter

FLUSH_S = 5
"""Between two writes to the disk [s]."""
MAX_PENDING_BYTES = 1 << 20
"""What is kept at most of what the disk refuses."""

_SCHEME = "events"
_QUEUED_EVENTS = 1000
"""How far the disk may lag behind before a record waits for it."""


def open_summaries(folder: str | os.PathLike[str]) -> SummaryWriter:
    """A SummaryWriter whose file is an ``EventFile``; the folder is there."""
    # At use: it sets an environment variable.
    from tensorboardX import SummaryWriter
    from tensorboardX.record_writer import register_writer_factory

    register_writer_factory(_SCHEME, _EventFiles())
    return SummaryWriter(f"{_SCHEME}:{os.fspath(folder)}", max_queue=_QUEUED_EVENTS, flush_secs=FLUSH_S)


class EventFile:
    """What tensorboardX writes records to; a record is never written in part, so the file stays readable.

    ``flush`` is called between records only, and never at once with ``write``.

    Args:
        path: Of the file; made when it is written for the first time.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[bytes] | None = None
        self._size = 0
        self._pending = bytearray()
        self._dropped = 0
        self._trouble = WriteTrouble(f"the log for TensorBoard in {path.parent}", "training goes on without it")

    def write(self, data: bytes) -> None:
        """Takes a part of a record."""
        self._pending += data

    def flush(self) -> None:
        """Writes what is pending, durably, if the disk takes it."""
        if not self._pending:
            return
        try:
            self._append(bytes(self._pending))
        except OSError as error:
            self._trouble.failed(error)
            if len(self._pending) > MAX_PENDING_BYTES:
                self._dropped += len(self._pending)
                self._pending.clear()
            return
        self._pending.clear()
        self._trouble.worked(f"{self._dropped / 1e6:.1f} MB of it were dropped" if self._dropped else "")
        self._dropped = 0

    def close(self) -> None:
        """Writes pending data if the disk has space. Calling it twice is fine."""
        self.flush()
        self._pending.clear()
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
            self._file = None

    def _append(self, records: bytes) -> None:
        """Writes whole records, or none."""
        if self._file is None:
            self._file = open(self._path, "wb", buffering=0)  # noqa: SIM115
        view = memoryview(records)
        try:
            while view:
                view = view[self._file.write(view) :]
            os.fsync(self._file.fileno())
        except OSError:
            with contextlib.suppress(OSError):
                self._file.truncate(self._size)
                self._file.seek(self._size)
            raise
        self._size += len(records)


class _EventFiles:
    """What tensorboardX asks for files whose path begins with ``_SCHEME``."""

    def open(self, path: str) -> EventFile:
        return EventFile(Path(path.removeprefix(f"{_SCHEME}:")))

    def directory_check(self, path: str) -> None:
        """Nothing to check: the folder exists."""
