"""Holds one message, the newest, for any number of readers: what a slow reader missed it never sees."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Mailbox:
    """Holds the newest message only; encoded once and shared by all who read it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._serial = 0
        self._message: bytes | None = None

    def put(self, message: bytes) -> None:
        """Replaces the message."""
        with self._changed:
            self._serial += 1
            self._message = message
            self._changed.notify_all()

    def clear(self) -> None:
        """Takes the message away from those who have not read it."""
        with self._changed:
            self._message = None

    def newer_than(self, serial: int, is_over: Callable[[], bool], timeout_s: float) -> tuple[int, bytes | None]:
        """The newest message if it was put after ``serial``, which is then replaced by its own."""
        with self._changed:
            self._changed.wait_for(lambda: self._serial > serial or is_over(), timeout_s)
            return self._serial, self._message if self._serial > serial else None

    def wake(self) -> None:
        """Makes all who wait look again."""
        with self._changed:
            self._changed.notify_all()
