"""The container of the game's files (.Gbx): its class, its user header, and its body, unpacked with a size limit."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from tasks.recordings.cursor import ByteCursor, GbxError

MAX_FILE_BYTES = 64 * 2**20
"""A larger file is refused; maps have up to 7 MB, replays hold a map."""
MAX_BODY_BYTES = 256 * 2**20
"""A larger body is not unpacked."""
LZO_EXPANSION = 255
"""Largest number of bytes that one byte of LZO can produce."""
_VERSION = 6
CLASSES = {0x03092000: "ghost", 0x03093000: "replay", 0x03043000: "map"}


class GbxFile(NamedTuple):
    """A file, unpacked."""

    kind: str
    """ghost, replay or map."""
    user_header: bytes
    body: bytes


def read_container(path: Path) -> GbxFile:
    """Reads and unpacks a file.

    Raises:
        GbxError: It is none or damaged, or larger than the bounds allow.
        OSError: It cannot be opened.
    """
    _refuse_large_file(path.stat().st_size)
    return unpack(path.read_bytes())


def unpack(data: bytes) -> GbxFile:
    """Unpacks the bytes of a file.

    Raises:
        GbxError: They are none or damaged, or larger than the bounds allow.
    """
    _refuse_large_file(len(data))
    cursor = ByteCursor(data, "the file")
    magic = cursor.take(3, "the mark GBX")
    if magic != b"GBX":
        raise GbxError(f"must begin with GBX, got {magic!r}")
    version, flags = cursor.u16("version"), cursor.take(4, "flags")
    if version != _VERSION:
        raise GbxError(f"version must be {_VERSION}, got {version}")
    if flags[:1] != b"B" or flags[2:3] not in (b"C", b"U"):
        raise GbxError(f"must be a binary file, packed or not (BUCR, BUUR), got the flags {flags!r}")
    class_id = cursor.u32("class")
    if class_id not in CLASSES:
        raise GbxError(f"must be a ghost, replay or map, got the class 0x{class_id:08X}")
    user_header = cursor.take(cursor.u32("size of the user header"), "user header")
    cursor.u32("number of nodes")
    external = cursor.u32("external references")
    if external:
        raise GbxError(f"number of external references must be 0, got {external}")
    body = _packed_body(cursor) if flags[2:3] == b"C" else cursor.take(cursor.left, "body")
    return GbxFile(CLASSES[class_id], user_header, body)


def _refuse_large_file(size: int) -> None:
    if size > MAX_FILE_BYTES:
        raise GbxError(f"must be at most {MAX_FILE_BYTES >> 20} MB, got {size >> 20} MB")


def _packed_body(cursor: ByteCursor) -> bytes:
    from lzallright import LZOCompressor, LZOError

    size, packed_size = cursor.u32("size of the body"), cursor.u32("size of the packed body")
    packed = cursor.take(packed_size, "packed body")
    if size > MAX_BODY_BYTES:
        raise GbxError(f"body must unpack to at most {MAX_BODY_BYTES >> 20} MB, got {size >> 20} MB")
    # The file states the size; the true unpacked size is checked before memory is allocated.
    if LZO_EXPANSION * packed_size > MAX_BODY_BYTES:
        _refuse_larger(packed, size)
    try:
        body = bytes(LZOCompressor.decompress(packed, size))
    except LZOError as error:  # its text may hold the whole rest of the body
        raise GbxError("packed body must be LZO1X, it is damaged") from error
    if len(body) != size:
        raise GbxError(f"body must unpack to {size} bytes, got {len(body)}")
    return body


def _refuse_larger(packed: bytes, size: int) -> None:
    """Walks the instructions of LZO1X without carrying them out."""
    try:
        unpacked = unpacked_size(packed, size)
    except IndexError as error:
        raise GbxError("packed body must be LZO1X, it ends within an instruction") from error
    if unpacked > size:
        raise GbxError(f"body must unpack to {size} bytes, got more")


def unpacked_size(packed: bytes, at_most: int) -> int:
    """Unpacked size of LZO1X data; stops counting beyond ``at_most``.

    Raises:
        IndexError: The data ends within an instruction.
    """
    at = total = literals = 0
    if packed[0] > 17:
        total = literals = packed[0] - 17
        at, literals = 1 + literals, min(literals, 4)
    while total <= at_most:
        code, at = packed[at], at + 1
        if code < 16 and literals == 0:
            length, at = _long(packed, at, code, 15)
            total, at, literals = total + length + 3, at + length + 3, 4
            continue
        if code < 16:
            length, at, literals = 2 + literals // 4, at + 1, code & 3
        elif code < 64:
            mask = 7 if code < 32 else 31
            length, at = _long(packed, at, code & mask, mask)
            last, literals, is_near = packed[at + 1], packed[at] & 3, packed[at] < 4
            if code < 32 and not code & 8 and is_near and last == 0:
                return total
            length, at = length + 2, at + 2
        else:
            length, at, literals = 3 + (code >> 5 & 1) if code < 128 else 5 + (code >> 5 & 3), at + 1, code & 3
        total, at = total + length + literals, at + literals
    return total


def _long(packed: bytes, at: int, length: int, base: int) -> tuple[int, int]:
    """A length, and the position after it; 0 is followed by bytes that are summed."""
    if length:
        return length, at
    while packed[at] == 0:
        base, at = base + 255, at + 1
    return base + packed[at], at + 1
