"""Ctrl-C, SIGTERM and a closed terminal ask an agent to stop: it saves, ends its workers, and returns."""

from __future__ import annotations

import atexit
import logging
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

from tasks.process.stop_signals import stop_signals

logger = logging.getLogger(__name__)

REPEAT_WINDOW_S = 2.0
"""A second signal within this time is the same request: people press Ctrl-C twice, and parents pass it on."""


class StopOnInterrupt:
    """Sets an event on the first stop signal; one after the repeat window raises KeyboardInterrupt.

    On leaving, the previous handlers come back unless a signal arrived. Outside the main thread it does nothing.

    Args:
        stop: What is set.
        now: Monotonic clock [s].
    """

    def __init__(self, stop: threading.Event, now: Callable[[], float] = time.monotonic) -> None:
        self._stop = stop
        self._now = now
        self._first_s: float | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopOnInterrupt:
        if threading.current_thread() is threading.main_thread():
            for number in stop_signals():
                self._previous[number] = signal.signal(number, self.handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # After an interrupt the handler stays: the second press may come when everything is saved already.
        if not self.was_interrupted:
            for number, handler in self._previous.items():
                signal.signal(number, handler)
        self._previous.clear()

    @property
    def was_interrupted(self) -> bool:
        """Whether a signal arrived."""
        return self._first_s is not None

    def handle(self, number: int, frame: FrameType | None) -> None:
        """The signal handler."""
        if self._first_s is None:
            self._first_s = self._now()
            self._stop.set()
            # While the interpreter shuts down it has no handlers any more, and a second press would kill the process.
            atexit.register(signal.signal, number, signal.SIG_IGN)
            logger.warning("%s: saving and stopping", signal.Signals(number).name)
        elif self._now() - self._first_s > REPEAT_WINDOW_S:
            raise KeyboardInterrupt
