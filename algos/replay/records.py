"""Records of the stored replay: segments and beginnings of files as bytes, each with its length and a checksum.

``algos.replay.storage`` writes and reads files of them. Nothing that is read is trusted: what does not fit the spec is
damage, as a wrong checksum is, and never an error.
"""

from __future__ import annotations

import itertools
import json
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any, NamedTuple

import numpy as np
import zstandard

from tasks.experience.observation import ObservationSpec
from tasks.experience.samples import Segment

SCHEMA = 1
COMPRESSED_FRAME_BYTES = 256
"""uint8 fields with frames of at least this size are compressed."""
WORTHWHILE = 0.9
"""Compressed data is kept when it is smaller than this part of the original."""

_FRAME = struct.Struct("<4sIIQ")  # magic, CRC-32 of what follows the frame, length of the JSON head, of the payload
_CHUNK_MAGIC = b"TMCH"
_SEGMENT_MAGIC = b"TMSG"
_MAX_HEAD_BYTES = 16 << 20
_MAX_FIELD_BYTES = 1 << 30
"""No field of a segment is larger, however few bytes claim to hold it."""
_MAX_NUMBER = 1 << 62
"""What the link lets in at most; a smaller bound would make a segment that was taken unreadable."""
_ZSTD_LEVEL = 1
_ANY = -1
"""A length that follows from the others."""
_MALFORMED = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError, zstandard.ZstdError)
"""What reading a record raises that was not written by this program, whatever its checksum says."""


class Start(NamedTuple):
    """What came before a row: before the first one of a chunk, or before the first after rows that are missing."""

    row: int
    received: Mapping[str, int]
    """Highest sequence number, by worker."""
    streams: Sequence[tuple[str, int]]
    """Worker and stream of every stream that had rows."""


class StoredSegment(NamedTuple):
    """A segment as it was found."""

    segment: Segment
    row: int | None
    """Number of its first row; None in files of versions that did not write it."""
    end: int
    """Offset behind it."""


class SegmentCodec:
    """Segments <-> records. Episode statistics are not stored: they were logged when they arrived.

    Args:
        spec: Fields of the observation.
    """

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

    def encode_start(self, start: Start) -> bytes:
        """The record at the beginning of a chunk."""
        head = {"schema": SCHEMA, "spec": self._fingerprint, "row": start.row}
        return _record(_CHUNK_MAGIC, head | {"received": dict(start.received), "streams": start.streams}, [])

    def encode(self, segment: Segment, row: int) -> bytes:
        """The record of a segment whose first row has this number."""
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
        head |= {"row": row, "version": segment.weights_version, "arrays": sizes, "frames": frame_sizes}
        return _record(_SEGMENT_MAGIC, head, parts)

    def read_start(self, file: IO[bytes]) -> tuple[Start | None, int]:
        """The beginning of a chunk, or None when it cannot be read, and the offset behind it.

        Raises:
            ValueError: The chunk is of another version or of another observation.
        """
        frame = file.read(_FRAME.size)
        data = frame + file.read(min(_FRAME.unpack(frame)[2], _MAX_HEAD_BYTES) if len(frame) == _FRAME.size else 0)
        record = _record_at(memoryview(data), 0, _CHUNK_MAGIC)
        if record is None:
            return None, 0
        head = record.head
        try:
            schema, spec = head["schema"], head["spec"]
            streams = [(str(worker), _number(stream)) for worker, stream in head["streams"]]
            received = {str(worker): _number(seq) for worker, seq in head["received"].items()}
            start = Start(_number(head["row"]), received, streams)
        except _MALFORMED:
            return None, 0
        if schema != SCHEMA:
            raise ValueError(f"it has schema {schema}, this version reads {SCHEMA}")
        if spec != self._fingerprint:
            raise ValueError(
                f"it was recorded with another observation (spec {spec}, now {self._fingerprint}): "
                "use the task configuration of that run, or start without its replay"
            )
        return start, record.end

    def read_segments(self, data: bytes, offset: int) -> Iterator[StoredSegment | None]:
        """What can be read from an offset on, in order; None where something between cannot be read."""
        view = memoryview(data)
        while (begin := data.find(_SEGMENT_MAGIC, offset)) >= 0:
            is_damaged = begin > offset
            record = _record_at(view, begin, _SEGMENT_MAGIC)
            while record is None and (begin := data.find(_SEGMENT_MAGIC, begin + 1)) >= 0:
                is_damaged = True
                record = _record_at(view, begin, _SEGMENT_MAGIC)
            if record is None:
                return
            if is_damaged:
                yield None
            offset = record.end
            yield self._decode(record)

    def _decode(self, record: _Record) -> StoredSegment | None:
        head = record.head
        try:
            rows = _number(head["rows"])
            parts = _split(record.payload, [*head["arrays"].values(), *head["frames"].values()])
            arrays: dict[str, Any] = {}
            for name, part in zip(head["arrays"], parts, strict=False):
                shape, dtype = self._layout[name]
                arrays[name] = np.frombuffer(part, dtype).reshape(rows, *shape)
            frames: dict[str, np.ndarray] = {}
            for name, part in zip(head["frames"], parts[len(arrays) :], strict=True):
                shape, dtype = self._frames[name]
                frames[name] = self._unpack(part, (rows, *shape), dtype)
            segment = Segment(
                worker=str(head["worker"]),
                stream=_number(head["stream"]),
                seq=_number(head["seq"]),
                frames=frames,
                weights_version=_number(head["version"]),
                **arrays,
            )
            return StoredSegment(segment, _number(head["row"]) if "row" in head else None, record.end)
        except _MALFORMED:
            return None

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
        if len(data) == size:
            return np.frombuffer(data, dtype).reshape(shape)
        if zstandard.frame_content_size(data) != size or size > _MAX_FIELD_BYTES:
            raise ValueError(f"a field of {size} bytes was expected")
        return np.frombuffer(self._decompressor.decompress(data), dtype).reshape(shape)


class _Record(NamedTuple):
    """A record with the right checksum."""

    head: Any
    payload: memoryview
    end: int


def _record(magic: bytes, head: dict[str, Any], parts: list[bytes]) -> bytes:
    """A framed record: magic, checksum, lengths, JSON head, payload."""
    encoded = json.dumps(head, separators=(",", ":")).encode()
    body = b"".join([encoded, *parts])
    return _FRAME.pack(magic, zlib.crc32(body), len(encoded), len(body) - len(encoded)) + body


def _record_at(data: memoryview, offset: int, magic: bytes) -> _Record | None:
    """The record at an offset; None when there is none, or not a whole and undamaged one."""
    begin = offset + _FRAME.size
    if begin > len(data):
        return None
    found, crc, head_size, payload_size = _FRAME.unpack_from(data, offset)
    end = begin + head_size + payload_size
    if found != magic or head_size > _MAX_HEAD_BYTES or end > len(data) or zlib.crc32(data[begin:end]) != crc:
        return None
    try:
        head = json.loads(bytes(data[begin : begin + head_size]))
    except _MALFORMED:
        head = None
    return _Record(head, data[begin + head_size : end], end)


def _split(payload: memoryview, sizes: list[int]) -> list[memoryview]:
    """Cuts a payload into consecutive parts."""
    ends = list(itertools.accumulate(sizes))
    return [payload[end - size : end] for size, end in zip(sizes, ends, strict=True)]


def _number(value: Any) -> int:
    """An integer of a head; ValueError for what no run ever counts to."""
    if type(value) is not int or abs(value) > _MAX_NUMBER:
        raise ValueError(f"an integer was expected, got {value!r}")
    return value
