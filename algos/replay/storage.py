"""Replay storage: the segments of the replay memory on disk, so that a resumed run does not start empty.

Owns a directory of append-only chunk files. The learner appends every segment it receives, commits when it wants to
acknowledge them, and restores the memory from here when a run is resumed. A checkpoint only records a position.

A chunk is a sequence of records (``algos.replay.records``): first one that says what came before the chunk (row number,
sequence numbers, streams), then one per segment. A process that is killed while it writes leaves at most a torn record
at the end of the newest chunk, which is cut off when loading. Other damage costs the segments that it hits, no more
(``algos.replay.scan``). Such a segment was acknowledged, so its worker no longer has it: ``received`` goes on behind it
as soon as a later record tells so, and what follows is neither refused nor taken twice.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any, Protocol, Self

from algos.replay.records import SegmentCodec, Start
from algos.replay.scan import ReplayScan, chunk_files, chunk_name
from tasks.experience.observation import ObservationSpec
from tasks.experience.samples import Segment
from tasks.process.atomic_file import sync_folder

LOGGER = logging.getLogger(__name__)

CHUNK_BYTES = 64 << 20
"""A new chunk is begun beyond this size, or at an eighth of the capacity."""
PENDING_BYTES = 1 << 20
"""Records are handed to the operating system in portions of about this size."""


class RowReceiver(Protocol):
    """What rows are restored into; the replay memory is one."""

    def start_at(self, row: int, received: Mapping[str, int], streams: Iterable[tuple[str, int]], /) -> None:
        """Forgets all rows and numbers the next one."""

    def note_gap(self, received: Mapping[str, int], streams: Iterable[tuple[str, int]], /) -> None:
        """Rows are lost before the next one."""

    def append(self, segment: Segment, /) -> bool:
        """Takes the next segment."""


class ReplayStorage:
    """Append-only chunk files of segments, bounded by the capacity of the memory they belong to.

    Old chunks are removed when no row of them is needed by the ring of rows, neither now nor at the last two positions
    that were asked for: a run killed before it has written the checkpoint of a position resumes from the one before.

    Args:
        directory: Where the chunks lie; made when the first segment is appended.
        spec: Fields of the observation; a storage of another spec is refused when loading.
        capacity: Capacity of the memory, in rows.
        chunk_bytes: Size beyond which a new chunk is begun.
        read_only: Whether loading leaves the files as they are and appending is refused.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        spec: ObservationSpec,
        capacity: int,
        chunk_bytes: int = CHUNK_BYTES,
        read_only: bool = False,
    ) -> None:
        if capacity < 1:
            raise ValueError(f"capacity must be >= 1 row, got {capacity}")
        self.directory = Path(directory)
        if self.directory.exists() and not self.directory.is_dir():
            raise ValueError(f"{directory} must be a folder, the one of the stored replay, and is a file")
        self.spec = spec
        self.capacity = capacity
        self.received: dict[str, int] = {}
        """Highest sequence number appended, by worker."""
        self.total_rows = 0
        """Number of rows ever appended, removed ones included."""
        self.newer_rows = 0
        """Restored rows that were stored after the position that was given to ``load``."""
        self._read_only = read_only
        self._chunk_bytes = chunk_bytes
        self._codec = SegmentCodec(spec)
        self._streams: set[tuple[str, int]] = set()
        self._positions: list[int] = []
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._file: IO[bytes] | None = None
        self._file_bytes = 0
        self._file_first_row = 0
        self._is_dirty = False
        self._durable_bytes = 0
        self._durable_rows = 0
        self._durable_received: dict[str, int] = {}
        self._must_load = bool(chunk_files(self.directory))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def append(self, segment: Segment) -> bool:
        """Adds a segment; it is durable after the next ``commit``.

        Returns:
            False when its sequence number was stored before and it is ignored; numbers of 0 or less are not counted.

        Raises:
            ValueError: The directory holds rows that were not loaded, or the storage is read-only.
            OSError: The disk is full or broken; what could not be written is kept and tried again.
        """
        self._require_writable()
        if 0 < segment.seq <= self.received.get(segment.worker, 0):
            return False
        if self._file is None:
            self._open_chunk()
        self._push(self._codec.encode(segment, self.total_rows))
        self.total_rows += len(segment)
        self._streams.add((segment.worker, segment.stream))
        if segment.seq > 0:
            self.received[segment.worker] = segment.seq
        if self._pending_bytes >= PENDING_BYTES:
            self._flush()
        if self._is_chunk_full():
            self._close_chunk()
        return True

    def commit(self) -> dict[str, int]:
        """Makes everything appended durable.

        Returns:
            The highest durable sequence number, by worker: what may be acknowledged.
        """
        if self._file is not None and self._is_dirty:
            self._flush()
            os.fsync(self._file.fileno())
            self._is_dirty = False
            self._note_durable()
        return dict(self.received)

    def roll_back(self) -> int:
        """Forgets what is not durable, after an error of the disk; the next segment begins a chunk.

        Returns:
            The number of rows that are forgotten.
        """
        num_rows = self.total_rows - self._durable_rows
        self.total_rows, self.received = self._durable_rows, dict(self._durable_received)
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.truncate(self._durable_bytes)
                if not self._durable_bytes:
                    Path(self._file.name).unlink()
            self._abandon_chunk()
        return num_rows

    def position(self, keep: bool = True) -> dict[str, Any]:
        """Commits and says how far the storage has come: what a checkpoint records, plain data.

        Args:
            keep: Whether the rows needed to go on from here are kept until two newer positions were asked for; False
                for copies that are rarely resumed, which would otherwise push out the position of the newest one.
        """
        received = self.commit()
        if keep:
            self._remember(self.total_rows)
        return {"rows": self.total_rows, "received": received}

    def load(
        self, memory: RowReceiver | None, position: Mapping[str, Any] | None = None, keeps_newer: bool = False
    ) -> int:
        """Restores the newest rows, and the numbering of all of them, into a memory.

        With a position the memory is exactly what it was there, and rows stored later are removed: the run repeats
        them. Without one, everything stored is restored: no acknowledged sample is lost. What cannot be read is left
        out, counted and said.

        Args:
            memory: Where the rows go; what it held is forgotten. None: the storage only finds its end.
            position: What ``position`` returned when the checkpoint was made.
            keeps_newer: Whether rows stored after the position are restored, too, instead of removed.

        Returns:
            The number of rows restored.

        Raises:
            ValueError: The rows at the position are no longer stored, they belong to another observation spec, or a
                file may not be read.
        """
        self._abandon_chunk()
        self._begin(Start(0, {}, []), memory)
        end = None if position is None else int(position["rows"])
        scan = ReplayScan(self.directory, self._codec, self.capacity, None if keeps_newer else end)
        num_rows = self.newer_rows = 0
        for item in scan.items():
            if isinstance(item, Segment):
                restored = self._restore(item, memory)
                num_rows += restored
                self.newer_rows += restored if end is not None and self.total_rows > end else 0
            elif self.total_rows:
                self._go_on(item, memory)
            else:
                self._begin(item, memory)
        if end is not None:
            self._check_restored(scan.first_row, end, keeps_newer)
        self._say_what_is_lost(scan.first_row, num_rows)
        if not self._read_only:
            scan.tidy()
        self._must_load = False
        self._note_durable()
        self._positions.clear()
        self._remember(self.total_rows)
        return num_rows

    def close(self) -> None:
        """Commits and closes the files; closing twice is fine."""
        if self._file is not None:
            self._close_chunk()

    def _require_writable(self) -> None:
        if self._read_only:
            raise ValueError(f"the replay storage {self.directory} was opened read-only")
        if self._must_load:
            raise ValueError(f"{self.directory} holds stored rows: load() them first, or use another directory")

    def _begin(self, start: Start, memory: RowReceiver | None) -> None:
        """Begins with the rows of a chunk; what came before is only known by number."""
        self.total_rows = start.row
        self.received = dict(start.received)
        self._streams = set(start.streams)
        if memory is not None:
            memory.start_at(start.row, start.received, start.streams)

    def _go_on(self, start: Start, memory: RowReceiver | None) -> None:
        """Goes on behind rows that are lost."""
        self.total_rows = start.row
        for worker, seq in start.received.items():
            self.received[worker] = max(seq, self.received.get(worker, 0))
        self._streams.update(start.streams)
        if memory is not None:
            memory.note_gap(start.received, start.streams)

    def _restore(self, segment: Segment, memory: RowReceiver | None) -> int:
        """Takes a stored segment; returns the number of its rows, 0 when it contradicts itself."""
        self.total_rows += len(segment)
        self._streams.add((segment.worker, segment.stream))
        if segment.seq > 0:
            self.received[segment.worker] = max(segment.seq, self.received.get(segment.worker, 0))
        try:
            if memory is not None:
                memory.append(segment)
        except ValueError as error:
            LOGGER.warning("%s: %s: left out", self.directory, error)
            self._go_on(Start(self.total_rows, self.received, []), memory)
            return 0
        return len(segment)

    def _check_restored(self, first_row: int, end: int, keeps_newer: bool) -> None:
        """Speaks up when rows before a position are missing: damage, or a checkpoint that is older than the ring."""
        if end and not self.total_rows and not keeps_newer:
            chunks = chunk_files(self.directory)
            found = f"what is stored begins at row {chunks[0][0]}" if chunks else "nothing is stored"
            raise ValueError(
                f"{self.directory}: the replay of this checkpoint (up to row {end}) is not there, {found}; "
                "resume from the newest checkpoint, or take only the weights"
            )
        if self.total_rows < end:
            LOGGER.warning(
                "%s has rows %d..%d, the checkpoint was made with %d..%d",
                *(self.directory, first_row, self.total_rows, max(end - self.capacity, 0), end),
            )

    def _say_what_is_lost(self, first_row: int, num_rows: int) -> None:
        wanted = max(self.total_rows - self.capacity, 0)
        if first_row > wanted:
            LOGGER.warning("%s: the rows %d to %d are not stored", self.directory, wanted, first_row - 1)
        num_lost = self.total_rows - first_row - num_rows
        if num_lost:
            LOGGER.warning("%s: %d rows are lost, %d are kept", self.directory, num_lost, num_rows)

    def _note_durable(self) -> None:
        self._durable_bytes, self._durable_rows = self._file_bytes, self.total_rows
        self._durable_received = dict(self.received)

    def _remember(self, row: int) -> None:
        """Keeps what the last two checkpoints need."""
        self._positions = [*self._positions, row][-2:]

    def _push(self, record: bytes) -> None:
        self._pending.append(record)
        self._pending_bytes += len(record)
        self._is_dirty = True

    def _flush(self) -> None:
        """Hands pending records to the operating system; after an error the file ends where it ended before."""
        assert self._file is not None
        data = b"".join(self._pending)
        try:
            _write_all(self._file, data)
        except OSError:
            self._file.truncate(self._file_bytes)
            self._file.seek(self._file_bytes)
            raise
        self._file_bytes += len(data)
        self._pending.clear()
        self._pending_bytes = 0

    def _is_chunk_full(self) -> bool:
        num_rows = self.total_rows - self._file_first_row
        is_large = self._file_bytes + self._pending_bytes >= self._chunk_bytes
        return is_large or num_rows >= max(self.capacity // 8, 1)

    def _open_chunk(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        self._file = open(self.directory / chunk_name(self.total_rows), "xb", buffering=0)  # noqa: SIM115
        self._file_bytes = self._durable_bytes = 0
        self._file_first_row = self.total_rows
        self._push(self._codec.encode_start(Start(self.total_rows, self.received, sorted(self._streams))))
        sync_folder(self.directory)
        self._drop_old()

    def _close_chunk(self) -> None:
        self.commit()
        if self._file is not None:
            self._file.close()
            self._file = None

    def _abandon_chunk(self) -> None:
        """Closes the open file without writing what is pending: loading begins from what is on disk."""
        self._pending.clear()
        self._pending_bytes = 0
        self._is_dirty = False
        if self._file is not None:
            self._file.close()
            self._file = None

    def _drop_old(self) -> None:
        """Removes chunks whose rows left the ring at every point from which the run may go on."""
        needed = min([self.total_rows, *self._positions]) - self.capacity
        chunks = chunk_files(self.directory)
        for (_, path), (end_row, _) in itertools.pairwise(chunks):
            if end_row <= needed:
                path.unlink(missing_ok=True)


def _write_all(file: IO[bytes], data: bytes) -> None:
    """Writes everything: an unbuffered file may take only a part at a time."""
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]
