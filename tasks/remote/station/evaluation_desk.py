"""Who drives an evaluation, where several workers could: one at a time.

A gateway or a relay puts the newest request here; the streams of the workers that evaluate wait here for it. A worker
of the learner's own machine goes before those from elsewhere, and of these the one that has been there for longest.
Who is chosen keeps the request. Another one gets it only when the chosen one is gone: at once where it was a process
of this machine, and after some patience where the network may bring it back.
"""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

PATIENCE_S = 30.0
"""For how long a far worker that has a request may be gone before another one gets it [s]."""


class EvaluationDesk:
    """Holds the newest request and gives it to one worker. Its methods may be called from any thread.

    Args:
        patience_s: For how long a far worker that has the request may be gone.
    """

    def __init__(self, patience_s: float = PATIENCE_S) -> None:
        self._patience_s = patience_s
        self._changed = threading.Condition()
        self._orders = itertools.count()
        self._seats: list[Seat] = []
        self._serial = 0
        self._message: bytes | None = None
        self._driver = ""
        self._driver_is_lost_s = math.inf

    @property
    def driver(self) -> str:
        """Name of the worker that has the newest request, or had it; empty: nobody has had it."""
        return self._driver

    def put(self, message: bytes) -> None:
        """Replaces the request. Whoever has one that is not answered gets the new one, too."""
        with self._changed:
            if self._message is None:
                self._driver = ""
            self._serial += 1
            self._message = message
            self._changed.notify_all()

    def clear(self) -> None:
        """The request was answered."""
        with self._changed:
            self._message = None

    def wake(self) -> None:
        """Makes all who wait look again."""
        with self._changed:
            self._changed.notify_all()

    @contextmanager
    def seat(self, worker: str, is_far: bool) -> Iterator[Seat]:
        """The place of a worker while its stream is open.

        Args:
            worker: Its name; no two workers have the same, but a worker may come back while its old stream lingers.
            is_far: Whether it is from elsewhere.
        """
        with self._changed:
            seat = Seat(self, worker, is_far, next(self._orders))
            self._seats.append(seat)
            self._seats.sort(key=lambda other: (other.is_far, other.number))
            self._changed.notify_all()
        try:
            yield seat
        finally:
            with self._changed:
                self._seats.remove(seat)
                if worker == self._driver and self._newest_of(worker) is None:
                    self._driver_is_lost_s = time.monotonic() + (self._patience_s if is_far else 0.0)
                self._changed.notify_all()

    def _take(self, seat: Seat, is_over: Callable[[], bool], timeout_s: float) -> bytes | None:
        """What ``Seat.take`` returns."""
        deadline_s = time.monotonic() + timeout_s
        with self._changed:
            while not is_over():
                if self._message is not None and seat.seen < self._serial and self._chosen() is seat:
                    self._driver, self._driver_is_lost_s = seat.worker, math.inf
                    seat.seen = self._serial
                    return self._message
                now = time.monotonic()
                if now >= deadline_s:
                    break
                self._changed.wait(max(min(deadline_s, self._driver_is_lost_s) - now, 0.01))
        return None

    def _chosen(self) -> Seat | None:
        """Where the request goes."""
        if self._driver:
            own = self._newest_of(self._driver)
            if own is not None or time.monotonic() < self._driver_is_lost_s:
                return own
        # The newest stream of whoever goes first: an older one of its own is dead.
        return self._newest_of(self._seats[0].worker) if self._seats else None

    def _newest_of(self, worker: str) -> Seat | None:
        own = [seat for seat in self._seats if seat.worker == worker]
        return own[-1] if own else None


class Seat:
    """One open stream of a worker that evaluates; made by ``EvaluationDesk.seat``."""

    def __init__(self, desk: EvaluationDesk, worker: str, is_far: bool, number: int) -> None:
        self._desk = desk
        self.worker = worker
        self.is_far = is_far
        self.number = number
        """Who came first has the smallest."""
        self.seen = 0
        """Serial number of the request that went through this stream last."""

    def take(self, is_over: Callable[[], bool], timeout_s: float) -> bytes | None:
        """The request, once for each stream, when this worker is to drive it.

        Args:
            is_over: True ends the wait; ``EvaluationDesk.wake`` makes it look.
            timeout_s: How long to wait.

        Returns:
            None when there was none within ``timeout_s``, or it is another worker's.
        """
        return self._desk._take(self, is_over, timeout_s)
