"""A lock that lets the others in: whoever waits for it comes before whoever has just had it."""

from __future__ import annotations

import threading
from types import TracebackType


class FairLock:
    """A context manager like ``threading.Lock``, which whoever asks again at once would keep for itself.

    It is not reentrant. Of those who wait for it at the same time any may be next.
    """

    def __init__(self) -> None:
        self._held = threading.Lock()
        self._next = threading.Lock()
        """Held by the one who waits for ``_held``: who wants it again stands in line behind it."""

    @property
    def has_waiter(self) -> bool:
        """Whether somebody waits for it."""
        return self._next.locked()

    def __enter__(self) -> None:
        with self._next:
            self._held.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._held.release()
