"""What a person at a remote worker sees: one line about connection, driving, outbox and weights, kept up to date.

Reading it costs the loop that drives nothing: a thread of its own writes it.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import IO

from tasks.remote.station.live_line import show
from tasks.remote.station.station_config import StationStatus
from tasks.remote.worker.acting_loop import Progress

LINE_EVERY_S = 10.0
"""Between two plain lines [s]."""
RATE_SPAN_S = 10.0
"""Over which the rate of acting is taken [s]."""


class WorkerDisplay:
    """Shows the line while it is entered.

    Args:
        address: Of the learner or relay.
        status: How the station is.
        progress: How far driving has come.
        is_plain: Plain lines on a terminal, too.
        stream: Where to write; default: standard error, where the log goes.
    """

    def __init__(
        self,
        address: str,
        status: Callable[[], StationStatus],
        progress: Progress,
        is_plain: bool = False,
        stream: IO[str] | None = None,
    ) -> None:
        self._address = address
        self._status = status
        self._progress = progress
        self._is_plain = is_plain
        self._stream = stream
        self._marks: deque[tuple[float, int]] = deque()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._show, name="worker-display", daemon=True)

    def __enter__(self) -> WorkerDisplay:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join(2.0)

    def line(self, now_s: float) -> str:
        """The line as plain text.

        Args:
            now_s: Monotonic time.
        """
        status, progress = self._status(), self._progress
        parts = [self._connection(status), f"{self._acts_per_s(now_s):.1f} acts/s"]
        if progress.num_episodes:
            parts.append(f"{progress.num_episodes} episodes")
        if not math.isnan(progress.last_return):
            parts.append(f"last return {progress.last_return:.1f}")
        parts.append(f"outbox {status.segments} ({status.num_bytes / 1e6:.1f} MB)")
        parts.append(f"weights {status.weights_version}" if status.weights_version else "no weights yet")
        parts.append(f"dropped {status.dropped}")
        if progress.is_waiting:
            parts.append(f"waiting: {status.full or 'the learner is behind'}")
        return " | ".join(parts)

    def _connection(self, status: StationStatus) -> str:
        if status.is_connected:
            trip = "" if status.round_trip_ms is None else f" ({status.round_trip_ms:.0f} ms)"
            return f"{status.worker} connected to {self._address}{trip}"
        if status.trouble:
            return f"{self._address} {status.trouble}"
        return f"connecting to {self._address}"

    def _acts_per_s(self, now_s: float) -> float:
        self._marks.append((now_s, self._progress.num_acts))
        while len(self._marks) > 2 and now_s - self._marks[1][0] >= RATE_SPAN_S:
            self._marks.popleft()
        (first_s, first), (last_s, last) = self._marks[0], self._marks[-1]
        return (last - first) / (last_s - first_s) if last_s > first_s else 0.0

    def _show(self) -> None:
        show(
            lambda: (self.line(time.monotonic()), None),
            self._is_over,
            LINE_EVERY_S,
            is_plain=self._is_plain,
            stream=self._stream,
        )
