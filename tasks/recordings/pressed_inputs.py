"""The driver's inputs: the chunk of a ghost with steering, gas and brake of every 10 ms tick."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tasks.recordings.cursor import BitCursor, ByteCursor, GbxError

CHUNK = 0x0309201D
_WITH_START = 4
"""From this version of the chunk on it says when its first tick is."""
_WORD_BITS = {11: 33, 12: 34}
"""Bits of a whole word by format."""
_ON_FOOT = 1
_DRIVING = (2, 3)
"""What the last two bits of the first word say of the whole stream; 0: nothing follows the mouse."""
_ACTION_KEYS = ((15, 0.2), (17, 0.4), (19, 0.6), (21, 0.8), (23, 1.0))
"""Bit of a word, and the share of the steering to which the key limits it."""
_MAX_TICKS = 1_000_000


class PressedInputs(NamedTuple):
    """The inputs of a whole ghost."""

    start_ms: int
    """Time of the first tick, before the race begins [ms]."""
    rows: NDArray[np.float32]
    """steer in -1..1 (right is positive, action keys applied), gas and brake 0 or 1, shape (ticks, 3)."""


def read_inputs(chunk: bytes) -> PressedInputs | None:
    """The inputs of a chunk; None: there are none, or they do not say when they begin.

    Raises:
        GbxError: The chunk is damaged.
    """
    cursor = ByteCursor(chunk, "inputs")
    version = cursor.u32("version")
    if version < _WITH_START or cursor.count("inputs", item_bytes=20, at_most=16) == 0:
        return None
    layout = cursor.u32("format")
    if layout not in _WORD_BITS:
        raise GbxError(f"inputs: format must be 11 or 12, got {layout}")
    cursor.u32("number")
    start_ms = cursor.i32("start")
    ticks, size = cursor.u32("ticks"), cursor.u32("bytes")
    if ticks > min(_MAX_TICKS, 8 * size):
        raise GbxError(f"inputs: {size} bytes must hold at most {min(_MAX_TICKS, 8 * size)} ticks, got {ticks}")
    bits = BitCursor(cursor.take(size, "stream"), "inputs")
    return PressedInputs(start_ms, _ticks(bits, ticks, _WORD_BITS[layout]))


def _ticks(bits: BitCursor, count: int, word_bits: int) -> NDArray[np.float32]:
    rows = np.zeros((count, 3), np.float32)
    keys = _ActionKeys()
    kind = word = 0
    steer = gas = brake = 0.0
    for tick in range(count):
        if not bits.take(1):
            word = bits.take(2) if bits.take(1) else bits.take(word_bits)
            kind = kind or word & 3
        if not bits.take(1):
            bits.take(32)  # the mouse
        if kind == _ON_FOOT and not bits.take(1):
            bits.take(8)
        elif kind in _DRIVING and not bits.take(1):
            steer = _signed_byte(bits.take(8)) / 127
            gas, brake = float(bits.take(1)), float(bits.take(1))
        rows[tick] = max(-1.0, steer) * keys.limit(word), gas, brake
    return rows


class _ActionKeys:
    """Limits of the steering: a press switches one on, the same key again switches it off."""

    def __init__(self) -> None:
        self._word = 0
        self._limit = 1.0

    def limit(self, word: int) -> float:
        """The share of the steering that acts in the tick of a word."""
        for bit, share in _ACTION_KEYS:
            if (word & ~self._word) >> bit & 1:
                self._limit = 1.0 if self._limit == share else share
        self._word = word
        return self._limit


def _signed_byte(value: int) -> int:
    return value - 256 if value > 127 else value
