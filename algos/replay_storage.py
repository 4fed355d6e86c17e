"""Replay storage: the segments of the replay memory on disk, so that a resumed run does not start empty.

Owns a directory of append-only chunk files. The learner appends every segment it receives, commits when it wants to
acknowledge them, and restores the memory from here when a run is resumed. A checkpoint only records a position.

A chunk is a sequence of records, each with its length and a CRC-32: first one that says what came before the chunk
(row number, sequence numbers, streams), then one per segment, images compressed where that pays. A process that is
killed while it writes leaves at most a torn record at the end of the newest chunk, which is cut off when loading.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import os
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol, Self

import numpy as np
import zstandard

from tasks.observation import ObservationSpec
from tasks.samples import Segment

LOGGER = logging.getLogger(__name__)

SCHEMA = 1
CHUNK_BYTES = 64 << 20
"""A new chunk is begun beyond this size, or at an eighth of the capacity."""
PENDING_BYTES = 1 << 20
"""Records are handed to the operating system in portions of about this size."""
COMPRESSED_FRAME_BYTES = 256
"""uint8 fields with frames of at least this size are compressed."""
WORTHWHILE = 0.9
"""Compressed data is kept when it is smaller than this part of the original."""

_SUFFIX = ".rows"
_FRAME = struct.Struct("<4sIIQ")  # magic, CRC-32 of what follows the frame, length of the JSON head, of the payload
_CHUNK_MAGIC = b"TMCH"
_SEGMENT_MAGIC = b"TMSG"
_MAX_HEAD_BYTES = 16 << 20
_ZSTD_LEVEL = 1
_ANY = -1
"""A length that follows from the others."""


class RowReceiver(Protocol):
    """What rows are restored into; the replay memory is one."""

    def start_at(self, row: int, received: Mapping[str, int], streams: Iterable[tuple[str, int]], /) -> None:
        """Forgets all rows and numbers the next one."""

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
        self.spec = spec
        self.capacity = capacity
        self.received: dict[str, int] = {}
        """Highest sequence number appended, by worker."""
        self.total_rows = 0
        """Number of rows ever appended, removed ones included."""
        self._read_only = read_only
        self._chunk_bytes = chunk_bytes
        self._codec = _SegmentCodec(spec)
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
        self._must_load = bool(_chunks(self.directory))

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
        self._push(self._codec.encode(segment))
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

    def load(self, memory: RowReceiver | None, position: Mapping[str, Any] | None = None) -> int:
        """Restores the newest rows, and the numbering of all of them, into a memory.

        With a position the memory is exactly what it was there, and rows stored later are removed: the run repeats
        them. Without one, everything stored is restored: no acknowledged sample is lost.

        Args:
            memory: Where the rows go; what it held is forgotten. None: the storage only finds its end.
            position: What ``position`` returned when the checkpoint was made.

        Returns:
            The number of rows restored.

        Raises:
            ValueError: The rows at the position are no longer stored, or they belong to another observation spec.
        """
        self._abandon_chunk()
        self._start_at(_Start(0, {}, []), memory)
        end = None if position is None else int(position["rows"])
        scan = _Scan(self.directory, self._codec, self.capacity, end)
        for item in scan.items():
            if isinstance(item, _Start):
                self._start_at(item, memory)
            else:
                self._restore(item, memory)
        if end is not None:
            self._check_restored(scan.first_row, end)
        if not self._read_only:
            scan.cut()
        self._must_load = False
        self._note_durable()
        self._positions.clear()
        self._remember(self.total_rows)
        return self.total_rows - scan.first_row

    def close(self) -> None:
        """Commits and closes the files; closing twice is fine."""
        if self._file is not None:
            self._close_chunk()

    def _require_writable(self) -> None:
        if self._read_only:
            raise ValueError(f"the replay storage {self.directory} was opened read-only")
        if self._must_load:
            raise ValueError(f"{self.directory} holds stored rows: load() them first, or use another directory")

    def _start_at(self, start: _Start, memory: RowReceiver | None) -> None:
        """Begins with the rows of a chunk; what came before is only known by number."""
        self.total_rows = start.row
        self.received = dict(start.received)
        self._streams = set(start.streams)
        if memory is not None:
            memory.start_at(start.row, start.received, start.streams)

    def _restore(self, segment: Segment, memory: RowReceiver | None) -> None:
        self.total_rows += len(segment)
        self._streams.add((segment.worker, segment.stream))
        if segment.seq > 0:
            self.received[segment.worker] = segment.seq
        if memory is not None:
            memory.append(segment)

    def _check_restored(self, first_row: int, end: int) -> None:
        """Speaks up when rows before a position are missing: damage, or a checkpoint that is older than the ring."""
        if end and not self.total_rows:
            chunks = _chunks(self.directory)
            found = f"what is stored begins at row {chunks[0][0]}" if chunks else "nothing is stored"
            raise ValueError(
                f"{self.directory}: the replay of this checkpoint (up to row {end}) is not there, {found}; "
                "resume from the newest checkpoint, or take only the weights"
            )
        if self.total_rows != end or first_row > max(end - self.capacity, 0):
            LOGGER.warning(
                "%s has rows %d..%d, the checkpoint was made with %d..%d",
                *(self.directory, first_row, self.total_rows, max(end - self.capacity, 0), end),
            )

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
        self._file = open(self.directory / f"{self.total_rows:015d}{_SUFFIX}", "xb", buffering=0)  # noqa: SIM115
        self._file_bytes = self._durable_bytes = 0
        self._file_first_row = self.total_rows
        self._push(self._codec.encode_start(_Start(self.total_rows, self.received, sorted(self._streams))))
        _sync_directory(self.directory)
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
        chunks = _chunks(self.directory)
        for (_, path), (end_row, _) in itertools.pairwise(chunks):
            if end_row <= needed:
                path.unlink(missing_ok=True)


class _Start(NamedTuple):
    """What came before the first row of a chunk."""

    row: int
    received: Mapping[str, int]
    streams: list[tuple[str, int]]


class _Scan:
    """Reads the chunks of a directory in order, and knows afterwards what has to be cut off."""

    def __init__(self, directory: Path, codec: _SegmentCodec, capacity: int, end: int | None) -> None:
        self._directory = directory
        self._codec = codec
        self._end = end
        self._good: dict[Path, int] = {}
        chunks = _chunks(directory)
        newest = end if end is not None else (chunks[-1][0] if chunks else 0)
        oldest = max([row for row, _ in chunks if row <= newest - capacity], default=0)
        self._chunks = [(row, path) for row, path in chunks if row >= oldest and (end is None or row < end)]
        self._later = [path for row, path in chunks if end is not None and row >= end]
        self.first_row = 0

    def items(self) -> Iterator[_Start | Segment]:
        """Starts and segments; a start that does not follow what was read means: forget everything before."""
        row: int | None = None
        for first_row, path in self._chunks:
            with open(path, "rb") as file:
                start, offset = self._codec.read_start(file, path)
                if start is None:
                    LOGGER.warning("%s has no readable beginning, its rows are lost", path)
                    self._good[path] = 0
                    continue
                if row != first_row:
                    if row is not None:
                        LOGGER.warning("%s does not follow row %d: what came before is left out", path, row)
                    self.first_row = row = first_row
                    yield start
                for segment, after in self._codec.read_segments(file, offset):
                    if self._end is not None and row + len(segment) > self._end:
                        break
                    row += len(segment)
                    offset = after
                    yield segment
                self._good[path] = offset if row > first_row else 0

    def cut(self) -> None:
        """Removes what lies after the last row that was read: torn records and rows after the position."""
        for path in self._later:
            path.unlink()
        for index, (path, size) in enumerate(self._good.items()):
            is_last = index == len(self._good) - 1
            if size == 0:
                path.unlink()
            elif is_last and path.stat().st_size > size:
                LOGGER.info("cutting %s from %d to %d bytes", path, path.stat().st_size, size)
                with open(path, "r+b") as file:
                    file.truncate(size)
                    os.fsync(file.fileno())
        if self._good or self._later:
            _sync_directory(self._directory)


class _SegmentCodec:
    """Segments <-> records. Episode statistics are not stored: they were logged when they arrived."""

    def __init__(self, spec: ObservationSpec) -> None:
        self._fingerprint = spec.fingerprint()
        self._layout: dict[str, tuple[tuple[int, ...], str]] = {
            "action": ((spec.action_size,), "float32"),
            "reward": ((), "float32"),
            "terminated": ((), "bool"),
            "truncated": ((), "bool"),
            "is_first": ((), "bool"),
            "checksums": ((), "uint32"),
            "states": ((_ANY,), "float32"),
        }
        self._frames = {field.name: (field.frame_shape, field.dtype) for field in spec.fields}
        self._compressor = zstandard.ZstdCompressor(level=_ZSTD_LEVEL)
        self._decompressor = zstandard.ZstdDecompressor()

    def encode_start(self, start: _Start) -> bytes:
        """The record at the beginning of a chunk."""
        head = {"schema": SCHEMA, "spec": self._fingerprint, "row": start.row}
        return _record(_CHUNK_MAGIC, head | {"received": dict(start.received), "streams": start.streams}, [])

    def encode(self, segment: Segment) -> bytes:
        """The record of a segment."""
        arrays: dict[str, np.ndarray | None] = {name: getattr(segment, name) for name in self._layout}
        sizes: dict[str, int] = {}
        parts: list[bytes] = []
        for name, array in arrays.items():
            if array is not None:
                parts.append(np.ascontiguousarray(array).tobytes())
                sizes[name] = len(parts[-1])
        frame_sizes: dict[str, int] = {}
        for name, (shape, dtype) in self._frames.items():
            parts.append(self._pack(segment.frames[name], shape, dtype))
            frame_sizes[name] = len(parts[-1])
        head = {"worker": segment.worker, "stream": segment.stream, "seq": segment.seq, "rows": len(segment)}
        head |= {"version": segment.weights_version, "arrays": sizes, "frames": frame_sizes}
        return _record(_SEGMENT_MAGIC, head, parts)

    def read_start(self, file: IO[bytes], path: Path) -> tuple[_Start | None, int]:
        """The beginning of a chunk, or None when it is torn, and the offset after it."""
        record = _read_record(file, _CHUNK_MAGIC)
        if record is None:
            return None, 0
        head = record[0]
        if head["schema"] != SCHEMA:
            raise ValueError(f"{path} has schema {head['schema']}, this version reads {SCHEMA}")
        if head["spec"] != self._fingerprint:
            raise ValueError(
                f"{path} was recorded with another observation (spec {head['spec']}, now {self._fingerprint}): "
                "use the task configuration of that run, or start without its replay"
            )
        streams = [(str(worker), int(stream)) for worker, stream in head["streams"]]
        return _Start(int(head["row"]), head["received"], streams), file.tell()

    def read_segments(self, file: IO[bytes], offset: int) -> Iterator[tuple[Segment, int]]:
        """Segments and the offset after each, up to the end or the first record that is torn."""
        while (record := _read_record(file, _SEGMENT_MAGIC)) is not None:
            offset = file.tell()
            yield self._decode(*record), offset

    def _decode(self, head: dict[str, Any], payload: bytes) -> Segment:
        rows = int(head["rows"])
        parts = _split(payload, [*head["arrays"].values(), *head["frames"].values()])
        arrays: dict[str, Any] = {}
        for name, part in zip(head["arrays"], parts, strict=False):
            shape, dtype = self._layout[name]
            arrays[name] = np.frombuffer(part, dtype).reshape(rows, *shape)
        frames: dict[str, np.ndarray] = {}
        for name, part in zip(head["frames"], parts[len(arrays) :], strict=True):
            shape, dtype = self._frames[name]
            frames[name] = self._unpack(part, (rows, *shape), dtype)
        return Segment(
            worker=str(head["worker"]),
            stream=int(head["stream"]),
            seq=int(head["seq"]),
            frames=frames,
            weights_version=int(head["version"]),
            **arrays,
        )

    def _pack(self, frames: np.ndarray, shape: tuple[int, ...], dtype: str) -> bytes:
        """Bytes of a field, compressed where that pays."""
        data = np.ascontiguousarray(frames, dtype).tobytes()
        if dtype != "uint8" or np.prod(shape) < COMPRESSED_FRAME_BYTES:
            return data
        packed = self._compressor.compress(data)
        return packed if len(packed) < WORTHWHILE * len(data) else data

    def _unpack(self, data: memoryview, shape: tuple[int, ...], dtype: str) -> np.ndarray:
        """The inverse of ``_pack``; data of full length was not compressed."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        raw = data if len(data) == size else self._decompressor.decompress(data, max_output_size=size)
        return np.frombuffer(raw, dtype).reshape(shape)


def _record(magic: bytes, head: dict[str, Any], parts: list[bytes]) -> bytes:
    """A framed record: magic, checksum, lengths, JSON head, payload."""
    encoded = json.dumps(head, separators=(",", ":")).encode()
    body = b"".join([encoded, *parts])
    return _FRAME.pack(magic, zlib.crc32(body), len(encoded), len(body) - len(encoded)) + body


def _split(payload: bytes, sizes: list[int]) -> list[memoryview]:
    """Cuts a payload into consecutive parts."""
    view = memoryview(payload)
    ends = list(itertools.accumulate(sizes))
    return [view[end - size : end] for size, end in zip(sizes, ends, strict=True)]


def _read_record(file: IO[bytes], magic: bytes) -> tuple[dict[str, Any], bytes] | None:
    """Head and payload of the next record, or None at the end of the file or of what is readable."""
    frame = file.read(_FRAME.size)
    if len(frame) < _FRAME.size:
        return None
    found, crc, head_size, payload_size = _FRAME.unpack(frame)
    remaining = os.fstat(file.fileno()).st_size - file.tell()
    if found != magic or head_size > _MAX_HEAD_BYTES or head_size + payload_size > remaining:
        return None
    body = file.read(head_size + payload_size)
    if zlib.crc32(body) != crc:
        return None
    return json.loads(body[:head_size]), body[head_size:]


def _chunks(directory: Path) -> list[tuple[int, Path]]:
    """First row and path of every chunk, in order."""
    paths = (path for path in directory.glob(f"*{_SUFFIX}") if path.stem.isdigit())
    return sorted((int(path.stem), path) for path in paths)


def _write_all(file: IO[bytes], data: bytes) -> None:
    """Writes everything: an unbuffered file may take only a part at a time."""
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def _sync_directory(directory: Path) -> None:
    """Makes new and removed names durable, where the operating system has that."""
    if os.name != "posix":
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
