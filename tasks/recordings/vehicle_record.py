"""The record of a ghost: its cars, sampled every 50 ms, in the two versions that the game writes."""

from __future__ import annotations

import zlib
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tasks.recordings.cursor import ByteCursor, GbxError

MAX_RECORD_BYTES = 64 * 2**20
"""A larger record is not unpacked; an hour of driving has 8 MB."""
RECORD_CLASS = 0x0911F000
VEHICLE_CLASS = 0x0A018000
VERSIONS = (10, 11)
_MAX_ITEMS = 100_000
_MAX_SAMPLES = 500_000


class VehicleSamples(NamedTuple):
    """The samples of one car, as stored."""

    times_ms: NDArray[np.int64]
    """Shape (samples,)."""
    rows: NDArray[np.uint8]
    """Shape (samples, bytes)."""


def read_record(cursor: ByteCursor) -> tuple[int, list[VehicleSamples]]:
    """Unpacks and reads the record that begins behind its class.

    Returns:
        Its version, and the cars that have samples, in the order of the file.

    Raises:
        GbxError: It is damaged, or larger than the bounds allow.
    """
    version = cursor.u32("version of the record")
    if version not in VERSIONS:
        raise GbxError(f"version of the record must be 10 or 11, got {version}")
    size = cursor.u32("size of the record")
    packed = cursor.take(cursor.u32("size of the packed record"), "packed record")
    if size > MAX_RECORD_BYTES:
        raise GbxError(f"record must unpack to at most {MAX_RECORD_BYTES >> 20} MB, got {size >> 20} MB")
    return version, _vehicles(ByteCursor(_unpacked(packed, size), "the record"), version)


def _unpacked(packed: bytes, size: int) -> bytes:
    unpacker = zlib.decompressobj()
    try:
        record = unpacker.decompress(packed, size + 1)
    except zlib.error as error:
        raise GbxError(f"packed record must be zlib data: {error}") from error
    if len(record) != size:
        raise GbxError(f"record must unpack to {size} bytes, got {'more' if len(record) > size else len(record)}")
    return record


def _vehicles(cursor: ByteCursor, version: int) -> list[VehicleSamples]:
    cursor.take(8, "start and end")
    classes = [_described_class(cursor) for _ in range(cursor.count("kinds", item_bytes=21, at_most=_MAX_ITEMS))]
    cursor.take(12 * cursor.count("notices", item_bytes=12, at_most=_MAX_ITEMS), "notices")
    vehicles = []
    has_more = cursor.u8("mark of an entity")
    while has_more:
        kind = cursor.i32("kind of an entity")
        cursor.take(16, "head of an entity")
        is_vehicle = 0 <= kind < len(classes) and classes[kind] == VEHICLE_CLASS
        samples = _columns(cursor) if version >= 11 else _rows(cursor, is_vehicle)
        if is_vehicle and len(samples.times_ms):
            vehicles.append(samples)
        has_more = cursor.u8("mark of an entity")
        _skip_events(cursor)
    return vehicles


def _described_class(cursor: ByteCursor) -> int:
    class_id = cursor.u32("class of a kind")
    cursor.take(12, "kind")
    cursor.take(cursor.u32("size of a kind"), "kind")
    cursor.take(4, "kind")
    return class_id


def _skip_events(cursor: ByteCursor) -> None:
    while cursor.u8("mark of an event"):
        cursor.take(8, "event")
        cursor.take(cursor.u32("size of an event"), "event")


def _columns(cursor: ByteCursor) -> VehicleSamples:
    """Version 11: the differences of the times, then each byte of all samples, as differences."""
    count = cursor.count("samples", item_bytes=4, at_most=_MAX_SAMPLES)
    size = cursor.u32("bytes of a sample")
    times_ms = np.cumsum(np.frombuffer(cursor.take(4 * count, "times"), "<i4"), dtype=np.int64)
    columns = np.frombuffer(cursor.take(count * size, "samples"), np.uint8).reshape(size, count)
    return VehicleSamples(times_ms, np.cumsum(columns, axis=1, dtype=np.uint8).T)


def _rows(cursor: ByteCursor, is_kept: bool) -> VehicleSamples:
    """Version 10: one sample after the other."""
    times, rows = [], []
    while cursor.u8("mark of a sample"):
        time_ms = cursor.i32("time of a sample")
        row = cursor.take(cursor.u32("bytes of a sample"), "sample")
        if is_kept:
            times.append(time_ms)
            rows.append(row)
    if len({len(row) for row in rows}) > 1:
        raise GbxError("samples of a car must all have the same number of bytes")
    size = len(rows[0]) if rows else 0
    return VehicleSamples(np.array(times, np.int64), np.frombuffer(b"".join(rows), np.uint8).reshape(len(rows), size))
