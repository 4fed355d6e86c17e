"""Reads untrusted bytes: each length is checked against the remaining bytes before anything is read."""

from __future__ import annotations

import struct


class GbxError(ValueError):
    """Raised when a file of the game cannot be read; says what was expected and what was found."""


class ByteCursor:
    """Bytes with a read position.

    Args:
        data: The bytes.
        what: What they are, for messages.
    """

    def __init__(self, data: bytes, what: str) -> None:
        self._data = data
        self._what = what
        self._at = 0

    @property
    def left(self) -> int:
        """Number of bytes that follow."""
        return len(self._data) - self._at

    def take(self, count: int, name: str) -> bytes:
        """The next ``count`` bytes."""
        if not 0 <= count <= self.left:
            raise GbxError(f"{self._what}: {name} must have {count} bytes, {self.left} are left")
        self._at += count
        return self._data[self._at - count : self._at]

    def u8(self, name: str) -> int:
        """An unsigned byte."""
        return self.take(1, name)[0]

    def u16(self, name: str) -> int:
        """An unsigned number of two bytes."""
        return int(struct.unpack("<H", self.take(2, name))[0])

    def u32(self, name: str) -> int:
        """An unsigned number of four bytes."""
        return int(struct.unpack("<I", self.take(4, name))[0])

    def i32(self, name: str) -> int:
        """A signed number of four bytes."""
        return int(struct.unpack("<i", self.take(4, name))[0])

    def count(self, name: str, *, item_bytes: int, at_most: int) -> int:
        """The number of items that follow, checked against the remaining bytes and a limit."""
        count = self.u32(name)
        fitting = min(at_most, self.left // item_bytes)
        if count > fitting:
            raise GbxError(f"{self._what}: number of {name} must be at most {fitting}, got {count}")
        return count


class BitCursor:
    """A place in a stream of bits, least significant first.

    Args:
        data: The bytes.
        what: What they are, for messages.
    """

    def __init__(self, data: bytes, what: str) -> None:
        self._bits = memoryview(data)
        self._what = what
        self._at = 0

    def take(self, count: int) -> int:
        """The next ``count`` bits as a number; at most 56."""
        begin, shift = divmod(self._at, 8)
        end = (self._at + count + 7) // 8
        if end > len(self._bits):
            raise GbxError(f"{self._what}: must go on for {count} bits, {8 * len(self._bits) - self._at} are left")
        self._at += count
        return (int.from_bytes(self._bits[begin:end], "little") >> shift) & ((1 << count) - 1)
