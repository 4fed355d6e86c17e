"""The times at which frames are due, and how late they are. ``game.py`` owns one ``FramePace``."""

from __future__ import annotations

import itertools
from collections import deque

from tasks.game.clock import Clock

_REMEMBERED_S = 2.0


class FramePace:
    """Frames on a fixed grid; a frame that is late by more than one period moves the grid, so that none is made up."""

    def __init__(self, clock: Clock, fps: float) -> None:
        """Starts the grid now.

        Args:
            clock: Source of the time.
            fps: Frames per second.
        """
        self._clock = clock
        self._fps = fps
        self._due = clock.now()
        self._times: deque[float] = deque([self._due])
        self.num_frames = 0
        """So far."""

    def wait(self, fps: float | None = None) -> None:
        """Returns when the next frame is due, at another rate than usual if given."""
        period = 1.0 / (self._fps if fps is None else fps)
        self._due += period
        now = self._clock.now()
        if now > self._due + period:
            self._due = now
        self._clock.sleep_until(self._due)
        self.num_frames += 1
        self._times.append(self._clock.now())
        while self._times[-1] - self._times[0] > _REMEMBERED_S and len(self._times) > 2:
            self._times.popleft()

    @property
    def measured_fps(self) -> float:
        """Frames per second over the last two seconds."""
        duration = self._times[-1] - self._times[0]
        return (len(self._times) - 1) / duration if duration > 0.0 else 0.0

    @property
    def longest_s(self) -> float:
        """The longest of these frames [s]."""
        return max((later - earlier for earlier, later in itertools.pairwise(self._times)), default=0.0)
