"""Logs that something cannot be written: once when that begins, once when it ends.

A full disk ends no training. Code that writes reports each attempt here and continues.
"""

from __future__ import annotations

import logging
import threading

logger = logging.getLogger(__name__)


class NotSavedError(RuntimeError):
    """Raised at the end of a command when something that it was to leave behind could not be written."""


def reason(error: Exception) -> str:
    """Why something failed, short: what the operating system says, or the first line of the message."""
    text = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return text.splitlines()[0] if text else type(error).__name__


class WriteTrouble:
    """Tells of one thing that may not be writable. Any thread.

    Args:
        what: Its name.
        meanwhile: Message that says what happens until it can be written again.
    """

    def __init__(self, what: str, meanwhile: str) -> None:
        self._what = what
        self._meanwhile = meanwhile
        self._lock = threading.Lock()
        self._reason = ""

    @property
    def reason(self) -> str:
        """Why it cannot be written now; empty: as far as is known it can."""
        return self._reason

    def failed(self, error: Exception) -> None:
        """Reports a failed attempt."""
        with self._lock:
            is_news, self._reason = not self._reason, reason(error)
        if is_news:
            logger.warning("%s cannot be written (%s): %s", self._what, self._reason, self._meanwhile)

    def worked(self, missing: str = "") -> None:
        """Reports a successful attempt.

        Args:
            missing: What was left out while attempts failed.
        """
        with self._lock:
            was_failing, self._reason = bool(self._reason), ""
        if was_failing:
            logger.warning("%s is written again%s", self._what, f"; {missing}" if missing else "")
