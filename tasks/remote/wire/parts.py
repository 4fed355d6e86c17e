"""Large messages of a stream in parts, so that one part is encrypted, sent, decrypted and copied while others are.

A message of more than two parts goes in parts of ``PART_BYTES``, the first of them behind a head with the size of the
whole; a smaller one goes as it is. It is put together in memory that is taken once, and what comes out is writable.
"""

from __future__ import annotations

import struct
from collections.abc import Generator, Iterable, Iterator
from itertools import islice

from tasks.remote.wire import link

PART_BYTES = 1 << 20
"""Measured (``benchmarks.link``): less costs time for each part, more leaves less to be done at the same time."""

BETWEEN = b""
"""Between two parts of a message: the next is not a part, but a whole message."""

_MAGIC = b"TMLP"
"""No message of ``link`` begins so."""
_HEAD = struct.Struct("<4sQ")


def split(message: bytes | bytearray) -> Iterator[bytes]:
    """What is sent of a message, in this order."""
    if len(message) <= 2 * PART_BYTES:
        yield bytes(message)
        return
    with memoryview(message) as content:
        yield b"".join((_HEAD.pack(_MAGIC, len(message)), content[:PART_BYTES]))
        for start in range(PART_BYTES, len(message), PART_BYTES):
            yield bytes(content[start : start + PART_BYTES])


def joined(stream: Iterable[bytes], max_bytes: int = link.MAX_MESSAGE_BYTES) -> Iterator[bytes | bytearray]:
    """The messages of a stream whose sender sends what ``split`` gives.

    A message whose rest does not come is left out; that happens when the stream ends.

    Args:
        stream: What comes in.
        max_bytes: A message that claims to be larger is an error.

    Raises:
        LinkError: If the parts are not those of a message.
    """
    incoming = iter(stream)
    for first in incoming:
        if not first.startswith(_MAGIC):
            yield first
            continue
        message = bytearray(_claimed_size(first, max_bytes))
        with memoryview(first) as content:
            message[:PART_BYTES] = content[_HEAD.size :]
        if (yield from _fill(message, incoming)):
            yield message


def _claimed_size(first: bytes, max_bytes: int) -> int:
    if len(first) != _HEAD.size + PART_BYTES:
        raise link.LinkError(f"first part of {len(first)} bytes, expected {_HEAD.size + PART_BYTES}")
    size: int = _HEAD.unpack_from(first)[1]
    if not 2 * PART_BYTES < size <= max_bytes:
        raise link.LinkError(f"message in parts of {size} bytes, expected {2 * PART_BYTES + 1} to {max_bytes}")
    return size


def _fill(message: bytearray, parts: Iterator[bytes]) -> Generator[bytes, None, bool]:
    """Copies the parts behind the first into their places; False: the stream has ended before the last.

    Gives the whole messages that come between them.
    """
    for start in range(PART_BYTES, len(message), PART_BYTES):
        while (part := next(parts, None)) == BETWEEN:
            yield from islice(parts, 1)
        if part is None:
            return False
        expected = min(PART_BYTES, len(message) - start)
        if len(part) != expected:
            raise link.LinkError(f"part of {len(part)} bytes at {start}, expected {expected}")
        message[start : start + expected] = part
    return True
