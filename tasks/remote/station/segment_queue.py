"""Segments that have come in and wait for the learner: bounded, and fair to workers that send little.

The gateway puts and takes under its own lock, because what is queued and what counts as received must change together.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable

from tasks.experience.samples import Segment

_POLL_S = 0.5


class SegmentQueue:
    """First in, first out. Every method expects ``lock`` to be held.

    Args:
        lock: Guards it.
        max_segments: That wait at most.
        max_bytes: That they hold at most, as far as there are several.
    """

    def __init__(self, lock: threading.Lock, max_segments: int, max_bytes: int) -> None:
        self._max_segments = max_segments
        self._max_bytes = max_bytes
        self._arrived = threading.Condition(lock)
        self._has_room = threading.Condition(lock)
        self._segments: deque[Segment] = deque()
        self._counts: Counter[str] = Counter()
        self.num_bytes = 0
        """What the waiting segments hold."""

    def __len__(self) -> int:
        return len(self._segments)

    def wait_for_room(self, worker: str, num_senders: Callable[[], int], is_open: Callable[[], bool]) -> bool:
        """Waits until a segment of this worker may be put; False: ``is_open`` has become false.

        No worker takes more than its share of the room, so that one with a backlog leaves some to the others.
        """
        while is_open():
            if not self._is_full(worker, num_senders()):
                return True
            self._has_room.wait(_POLL_S)
        return False

    def put(self, segment: Segment) -> None:
        """Adds a segment."""
        self._segments.append(segment)
        self._counts[segment.worker] += 1
        self.num_bytes += _size(segment)
        self._arrived.notify()

    def wait(self, timeout_s: float, is_over: Callable[[], bool]) -> None:
        """Waits for a segment to take, or until ``is_over``."""
        self._arrived.wait_for(lambda: self._segments or is_over(), timeout_s)

    def take(self, max_segments: int | None) -> list[Segment]:
        """Takes the oldest segments out, all or so many."""
        count = len(self._segments) if max_segments is None else min(max_segments, len(self._segments))
        taken = [self._segments.popleft() for _ in range(count)]
        for segment in taken:
            self._counts[segment.worker] -= 1
            if not self._counts[segment.worker]:
                del self._counts[segment.worker]
            self.num_bytes -= _size(segment)
        if taken:
            self._has_room.notify_all()
        return taken

    def wake(self) -> None:
        """Makes all who wait look again."""
        self._arrived.notify_all()
        self._has_room.notify_all()

    def _is_full(self, worker: str, num_senders: int) -> bool:
        share = max(self._max_segments // max(num_senders, 1), 1)
        is_over_share = self._counts.get(worker, 0) >= share
        return len(self._segments) >= self._max_segments or self.num_bytes >= self._max_bytes or is_over_share


def _size(segment: Segment) -> int:
    return segment.action.nbytes + sum(frames.nbytes for frames in segment.frames.values())
