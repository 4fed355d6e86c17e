"""The newest frames of an episode, stacked, for the image and LIDAR observations."""

from __future__ import annotations

from collections.abc import Mapping

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


class FrameHistories:
    """Sliding windows over the frames of many cars.

    Each frame is written once, where ``next`` says. Stacks are views of the buffer that never change, because
    another buffer takes its place before frames that they show are overwritten.
    """

    def __init__(self, count: int, length: int, frame_shape: tuple[int, ...], dtype: str) -> None:
        """Allocates the buffer.

        Args:
            count: Number of cars, N.
            length: Number of stacked frames, H.
            frame_shape: Shape of one frame.
            dtype: Of the frames.
        """
        self._length = length
        self._buffer = np.zeros((count, length + _CHUNK, *frame_shape), dtype)
        self._end = length

    @property
    def stacks(self) -> np.ndarray:
        """The newest H frames of each car, newest last, shape (N, H, *frame_shape)."""
        return self._buffer[:, self._end - self._length : self._end]

    def next(self) -> tuple[np.ndarray, int]:
        """The buffer (N, any number, *frame_shape) and the slot in which the newest frame of each car belongs."""
        if self._end == self._buffer.shape[1]:
            self._renew()
        self._end += 1
        return self._buffer, self._end - 1

    def fill(self, frames: Mapping[int, np.ndarray]) -> None:
        """Starts episodes: the whole history of each of these cars is its frame."""
        self._renew()
        for car, frame in frames.items():
            self._buffer[car, : self._length] = frame

    def _renew(self) -> None:
        """Goes on in another buffer."""
        stacks, self._buffer, self._end = self.stacks, np.empty_like(self._buffer), self._length
        self._buffer[:, : self._length] = stacks
