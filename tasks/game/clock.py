"""Clocks: environments and games read the time and wait only through these."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """A monotonic clock in seconds."""

    def now(self) -> float:
        """Current time [s]."""
        ...

    def sleep_until(self, deadline_s: float) -> None:
        """Returns at ``deadline_s`` or at once if that has passed."""
        ...


class WallClock:
    """Real time, on ``time.perf_counter``."""

    def now(self) -> float:
        """Current time [s]."""
        return time.perf_counter()

    def sleep_until(self, deadline_s: float) -> None:
        """Sleeps until ``deadline_s``."""
        delay = deadline_s - time.perf_counter()
        if delay > 0:
            time.sleep(delay)


class VirtualClock:
    """Simulated time: sleeping moves the clock."""

    def __init__(self) -> None:
        self._now = 0.0

    def now(self) -> float:
        """Current time [s]."""
        return self._now

    def sleep_until(self, deadline_s: float) -> None:
        """Moves the clock to ``deadline_s``."""
        if deadline_s > self._now:
            self._now = deadline_s
