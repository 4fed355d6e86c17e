"""The newest frames of an episode, stacked, for the image and LIDAR observations."""

from __future__ import annotations

import numpy as np

_CHUNK = 64
"""Frames written before the window moves back to the start of the buffer."""


class FrameHistory:
    """A sliding window over one preallocated buffer.

    Each frame is written once; every stack is one contiguous copy that never changes afterwards.
    """

    def __init__(self, length: int, frame_shape: tuple[int, ...], dtype: str) -> None:
        """Allocates the buffer.

        Args:
            length: Number of stacked frames, H.
            frame_shape: Shape of one frame.
            dtype: Of the frames.
        """
        self._length = length
        self._buffer = np.zeros((length + _CHUNK, *frame_shape), dtype)
        self._end = length

    def fill(self, frame: np.ndarray) -> np.ndarray:
        """Starts an episode: the whole history is this frame. Returns the stack, shape (H, *frame_shape)."""
        self._buffer[: self._length] = frame
        self._end = self._length
        return self._buffer[: self._length].copy()

    def append(self, frame: np.ndarray) -> np.ndarray:
        """Adds the newest frame, last. Returns the stack, shape (H, *frame_shape)."""
        if self._end == len(self._buffer):
            self._buffer[: self._length] = self._buffer[self._end - self._length :]
            self._end = self._length
        self._buffer[self._end] = frame
        self._end += 1
        return self._buffer[self._end - self._length : self._end].copy()
