"""Which worker drives an evaluation, where several could: one at a time.

A gateway or a relay puts the newest request here; the streams of the workers that evaluate wait here for it. A worker
of the learner's own machine goes before remote ones, and of these the one that has been there for longest.
The chosen one keeps the request. Another one gets it only when that one is gone: at once where it was a process
of this machine, and after some patience where the network may bring it back.
"""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

PATIENCE_S = 30.0
"""For how long a remote worker that has a request may be gone before another one gets it [s]."""


class EvaluationQueue:
    """Holds the newest request and gives it to one worker. Its methods may be called from any thread.

    Args:
        patience_s: For how long a remote worker that has the request may be gone.
    """

    def __init__(self, patience_s: float = PATIENCE_S) -> None:
        self._patience_s = patience_s
        self._changed = threading.Condition()
        self._orders = itertools.count()
        self._candidates: list[Candidate] = []
        self._serial = 0
        self._message: bytes | None = None
        self._assigned = ""
        self._assigned_lost_s = math.inf

    @property
    def assigned(self) -> str:
        """Name of the worker that has the newest request, or had it; empty: nobody has had it."""
        return self._assigned

    def put(self, message: bytes) -> None:
        """Replaces the request. A worker whose request is not answered gets the new one, too."""
        with self._changed:
            if self._message is None:
                self._assigned = ""
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
    def candidate(self, worker: str, is_remote: bool) -> Iterator[Candidate]:
        """The place of a worker while its stream is open.

        Args:
            worker: Its name; no two workers have the same, but a worker may come back while its old stream lingers.
            is_remote: Whether it is on another machine.
        """
        with self._changed:
            candidate = Candidate(worker, is_remote, next(self._orders))
            self._candidates.append(candidate)
            self._candidates.sort(key=lambda other: (other.is_remote, other.number))
            self._changed.notify_all()
        try:
            yield candidate
        finally:
            with self._changed:
                self._candidates.remove(candidate)
                if worker == self._assigned and self._newest_of(worker) is None:
                    self._assigned_lost_s = time.monotonic() + (self._patience_s if is_remote else 0.0)
                self._changed.notify_all()

    def take(self, candidate: Candidate, is_over: Callable[[], bool], timeout_s: float) -> bytes | None:
        """The request, once for each stream, when this worker is to drive it.

        Args:
            candidate: Of the stream.
            is_over: True ends the wait; ``wake`` makes it look.
            timeout_s: How long to wait.

        Returns:
            None when there was none within ``timeout_s``, or it is another worker's.
        """
        deadline_s = time.monotonic() + timeout_s
        with self._changed:
            while not is_over():
                if self._message is not None and candidate.seen < self._serial and self._chosen() is candidate:
                    self._assigned, self._assigned_lost_s = candidate.worker, math.inf
                    candidate.seen = self._serial
                    return self._message
                now = time.monotonic()
                if now >= deadline_s:
                    break
                self._changed.wait(max(min(deadline_s, self._assigned_lost_s) - now, 0.01))
        return None

    def _chosen(self) -> Candidate | None:
        """Where the request goes."""
        if self._assigned:
            own = self._newest_of(self._assigned)
            if own is not None or time.monotonic() < self._assigned_lost_s:
                return own
        # The newest stream of the first worker: an older one of its own is dead.
        return self._newest_of(self._candidates[0].worker) if self._candidates else None

    def _newest_of(self, worker: str) -> Candidate | None:
        own = [candidate for candidate in self._candidates if candidate.worker == worker]
        return own[-1] if own else None


@dataclass(eq=False)
class Candidate:
    """One open stream of a worker that evaluates; made by ``EvaluationQueue.candidate``."""

    worker: str
    is_remote: bool
    number: int
    """The first to come has the smallest."""
    seen: int = 0
    """Serial number of the request that went through this stream last."""
