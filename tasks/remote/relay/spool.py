"""The relay's spool: segments on their way from workers to the trainer, in one SQLite file (WAL mode).

The relay owns it. A segment stays until the trainer says that it is durable. The spool never holds the only copy of
what a worker has deleted, so it may lose its newest segments when the power fails, and all of them with the disk: the
next greeting tells each worker how far the spool really is, and the worker goes on from there.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import zlib
from collections.abc import Callable, Mapping
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

from tasks.remote.relay.spool_file import FILE_NAME, NoSpaceError, SpoolDamagedError, SpoolFile
from tasks.remote.station.fair_lock import FairLock

_log = logging.getLogger(__name__)

MAX_IDLE_WORKERS = 16_384
"""Workers without segments that are remembered."""

_RESERVED_BYTES = 16 << 20
"""Of the disk: what is left free, so that what is stored at the trainer can always be deleted."""
_ROWS_AT_ONCE = 64
_SET_WORKER = "INSERT OR REPLACE INTO workers VALUES (?, ?, ?)"
_INSERT_TASK = (
    "INSERT INTO tasks (fingerprint, spec) VALUES (?, ?) ON CONFLICT (fingerprint) DO UPDATE SET spec = excluded.spec"
)


class Outcome(Enum):
    """What came of a segment."""

    kept = "kept"
    repeated = "repeated"
    """It was kept before."""
    no_room = "no_room"
    stale = "stale"
    """The spool has begun anew with this worker, which must ask where to go on."""


class Position(NamedTuple):
    """How far the segments of a worker have come."""

    received: int
    """All up to this number that are not durable lie here."""
    durable: int
    """All up to this number are stored at the trainer, as it said."""
    epoch: int
    """Grows when ``received`` goes back."""


class SpooledSegment(NamedTuple):
    """A segment that waits for the trainer."""

    id: int
    """Grows in the order of arrival."""
    worker: str
    seq: int
    epoch: int
    """Of the worker's position."""
    message: bytes


class SpoolState(NamedTuple):
    """What lies here."""

    segments: int
    bytes: int
    is_full: bool
    """Whether the last segment had to be turned away."""


class Spool:
    """Segments in the order of their arrival; its methods may be called from any thread.

    Args:
        folder: Where the file lies; made when it does not exist, for its owner only.
        capacity_bytes: Size of all segments beyond which there is no room.

    Raises:
        SpoolTakenError: Another process has it.
        SpoolDamagedError: The file is not one of a spool.
        OSError: The file cannot be written.
        ValueError: The file is of another version of this program.
    """

    def __init__(self, folder: str | Path, capacity_bytes: int) -> None:
        self.folder = Path(folder)
        self._capacity_bytes = capacity_bytes
        self._lock = FairLock()
        self._positions: dict[str, Position] = {}
        self._epochs: dict[str, int] = {}
        self._task: tuple[int, str, str] | None = None
        self._segments = 0
        self._bytes = 0
        self._is_full = False
        self._file = SpoolFile(self.folder)
        try:
            self._load()
        except BaseException:
            self._file.close()
            raise

    # --- the task ---

    @property
    def task(self) -> tuple[str, str] | None:
        """Fingerprint and observation spec of the trainer that was here last."""
        with self._lock:
            return None if self._task is None else self._task[1:]

    def set_task(self, fingerprint: str, spec: str) -> None:
        """From now on segments are of this task, and only such are given out."""
        with self._lock:
            if self._task is not None and self._task[1:] == (fingerprint, spec):
                return
            with self._file.transaction() as run:
                run(_INSERT_TASK, (fingerprint, spec))
                (number,) = run("SELECT id FROM tasks WHERE fingerprint = ?", (fingerprint,)).fetchone()
                run("INSERT OR REPLACE INTO facts VALUES ('task', ?)", (number,))
                run("DELETE FROM tasks WHERE id != ? AND id NOT IN (SELECT task FROM segments)", (number,))
            self._task = (number, fingerprint, spec)

    # --- in ---

    def position(self, worker: str) -> Position:
        """How far a worker has come; never waits for the disk."""
        return self._positions.get(worker) or Position(0, 0, self._epochs.get(worker, 0))

    def append(self, worker: str, seq: int, message: bytes | bytearray, fingerprint: str, epoch: int) -> Outcome:
        """Keeps a segment.

        Args:
            worker: Who sent it.
            seq: Its number; larger than those of the worker that were kept before.
            message: As it was sent.
            fingerprint: Of the task that it belongs to.
            epoch: Of the worker's position when it was told where to go on.
        """
        with self._lock:
            position = self.position(worker)
            if self._task is None or self._task[1] != fingerprint or epoch != position.epoch:
                return Outcome.stale
            if seq <= position.received:
                return Outcome.repeated
            is_kept = self._has_room(len(message)) and self._insert(worker, seq, message, position)
            self._is_full = not is_kept
            return Outcome.kept if is_kept else Outcome.no_room

    def _has_room(self, size: int) -> bool:
        # The log takes a message first, then the file, which uses its own free pages before it grows.
        if shutil.disk_usage(self.folder).free + self._file.unused_bytes() < _RESERVED_BYTES + 3 * size:
            return False
        # One that is larger than the whole spool must come through, too.
        return not self._bytes or self._bytes + size <= self._capacity_bytes

    def _insert(self, worker: str, seq: int, message: bytes | bytearray, position: Position) -> bool:
        """Writes; False: the disk is full."""
        assert self._task is not None
        row = (self._task[0], worker, seq, len(message), zlib.crc32(message), message)
        try:
            with self._file.transaction() as run:
                run("INSERT INTO segments (task, worker, seq, size, crc, message) VALUES (?, ?, ?, ?, ?, ?)", row)
                run(_SET_WORKER, (worker, seq, position.durable))
        except NoSpaceError as error:
            if not self._is_full:
                _log.error("the spool cannot be written, workers wait: %s", error)
            return False
        self._positions[worker] = position._replace(received=seq)
        self._segments += 1
        self._bytes += len(message)
        return True

    # --- out ---

    def after(self, last_id: int, skip: Callable[[str, int], bool]) -> SpooledSegment | None:
        """The first segment of the present task behind ``last_id``, if there is one.

        Args:
            last_id: Of the segment before; 0: none.
            skip: Says, given worker and number, which segments are left out.

        Raises:
            SpoolDamagedError: It cannot be read.
        """
        query = "SELECT id, worker, seq FROM segments WHERE task = ? AND id > ? ORDER BY id LIMIT ?"
        with self._lock:
            while self._task is not None:
                rows = self._file.read(query, (self._task[0], last_id, _ROWS_AT_ONCE))
                for number, worker, seq in rows:
                    if not skip(worker, seq):
                        return SpooledSegment(number, worker, seq, self.position(worker).epoch, self._message(number))
                if len(rows) < _ROWS_AT_ONCE:
                    return None
                last_id = rows[-1][0]
        return None

    def _message(self, number: int) -> bytes:
        ((crc, message),) = self._file.read("SELECT crc, message FROM segments WHERE id = ?", (number,))
        if not isinstance(message, bytes) or zlib.crc32(message) != crc:
            raise SpoolDamagedError(f"{self.folder / FILE_NAME}: the checksum of segment {number} is wrong")
        return message

    def forget(self, durable: Mapping[str, int]) -> dict[str, Position]:
        """Lets go of what is stored at the trainer.

        Args:
            durable: Sequence numbers by worker.

        Returns:
            The new positions of the workers for whom something has changed.
        """
        changed = {}
        task = -1 if self._task is None else self._task[0]
        for worker, seq in durable.items():
            if seq <= self.position(worker).durable:
                continue
            # A long backlog must not hold up who writes: the lock is passed on between the parts. Where the disk is
            # too full to delete anything it is tried again with the next number.
            deleted = _ROWS_AT_ONCE
            while deleted == _ROWS_AT_ONCE:
                with self._lock:
                    deleted = self._delete_some("worker = ? AND seq <= ? AND task = ?", (worker, seq, task))
            if deleted < 0:
                continue
            with self._lock:
                if self._set_worker(worker, max(self.position(worker).received, seq), seq):
                    changed[worker] = self.position(worker)
        self._tidy_up()
        return changed

    def reset(self, worker: str) -> Position:
        """Lets go of all segments of a worker, which still holds them and must send them again.

        Whoever calls this ends the worker's stream before, so that it asks where to go on.

        Returns:
            The new position: what is durable.
        """
        with self._lock:
            durable = self.position(worker).durable
            self._epochs[worker] = self._epochs.get(worker, 0) + 1
            self._positions[worker] = Position(durable, durable, self._epochs[worker])
            while self._delete_some("worker = ?", (worker,)) == _ROWS_AT_ONCE:
                pass
            self._set_worker(worker, durable, durable)
            return self.position(worker)

    def workers_of_other_tasks(self) -> list[str]:
        """Workers whose segments wait for the trainer of another task than the present one."""
        with self._lock:
            task = -1 if self._task is None else self._task[0]
            return [
                name for (name,) in self._file.read("SELECT DISTINCT worker FROM segments WHERE task != ?", (task,))
            ]

    def state(self) -> SpoolState:
        """What lies here."""
        with self._lock:
            return SpoolState(self._segments, self._bytes, self._is_full)

    # --- the file ---

    def close(self) -> None:
        """Closes the file and gives the folder up. Calling it twice is fine."""
        with self._lock:
            self._file.close()

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _load(self) -> None:
        ((self._segments, self._bytes),) = self._file.read("SELECT COUNT(*), COALESCE(SUM(size), 0) FROM segments")
        rows = self._file.read("SELECT name, received, durable FROM workers")
        self._positions = {name: Position(received, durable, 0) for name, received, durable in rows}
        found = self._file.read("SELECT id, fingerprint, spec FROM tasks JOIN facts ON name = 'task' AND value = id")
        self._task = found[0] if found else None

    def _set_worker(self, worker: str, received: int, durable: int) -> bool:
        try:
            with self._file.transaction() as run:
                run(_SET_WORKER, (worker, received, durable))
        except NoSpaceError as error:
            _log.warning("the spool cannot be written: %s", error)
            return False
        self._positions[worker] = Position(received, durable, self._epochs.get(worker, 0))
        return True

    def _delete_some(self, condition: str, values: tuple[Any, ...]) -> int:
        """Deletes ``_ROWS_AT_ONCE`` segments or, of the last ones, fewer; how many, -1: the disk is too full."""
        rows = self._file.read(f"SELECT id, size FROM segments WHERE {condition} LIMIT {_ROWS_AT_ONCE}", values)
        if not rows:
            return 0
        marks = ", ".join("?" * len(rows))
        try:
            with self._file.transaction() as run:
                run(f"DELETE FROM segments WHERE id IN ({marks})", [number for number, _ in rows])
        except NoSpaceError as error:
            _log.warning("nothing can be deleted from the spool: %s", error)
            return -1
        self._segments -= len(rows)
        self._bytes -= sum(size for _, size in rows)
        return len(rows)

    def _tidy_up(self) -> None:
        """Forgets workers of whom nothing is left, and gives the room of an empty file back."""
        with self._lock:
            if len(self._positions) > MAX_IDLE_WORKERS:
                self._forget_idle()
            if not self._segments:
                self._file.give_room_back()

    def _forget_idle(self) -> None:
        """Forgets half of those of whom everything is durable: they are remembered at the trainer."""
        present = {name for (name,) in self._file.read("SELECT DISTINCT worker FROM segments")}
        idle = [name for name in self._positions if name not in present]
        idle = idle[: len(idle) // 2]
        with contextlib.suppress(NoSpaceError), self._file.transaction() as run:
            for worker in idle:
                run("DELETE FROM workers WHERE name = ?", (worker,))
        for worker in idle:
            del self._positions[worker]
