"""Segments that have come in and wait to go on: bounded, and fair to workers that send little.

Its owner puts and takes under its own lock, because what is queued and what counts as received must change together.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable
from typing import Generic, TypeVar

from tasks.experience.samples import Segment

Item = TypeVar("Item")
_POLL_S = 0.5


class SegmentQueue(Generic[Item]):
    """First in, first out, of segments in any form. Every method expects ``lock`` to be held.

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
        self._items: deque[tuple[str, int, Item]] = deque()
        self._counts: Counter[str] = Counter()
        self.num_bytes = 0
        """What the waiting segments hold."""
        self.is_paused = False
        """Whether there is room for nobody at the moment."""

    def __len__(self) -> int:
        return len(self._items)

    def wait_for_room(self, worker: str, num_senders: Callable[[], int], is_open: Callable[[], bool]) -> bool:
        """Waits until a segment of this worker may be put; False: ``is_open`` has become false.

        No worker takes more than its share of the room, so that one with a backlog leaves some to the others.
        """
        while is_open():
            share = max(self._max_segments // max(num_senders(), 1), 1)
            if not (self.is_paused or self.is_full or self._counts[worker] >= share):
                return True
            self._has_room.wait(_POLL_S)
        return False

    def put(self, item: Item, worker: str, num_bytes: int) -> None:
        """Adds a segment of this worker and size."""
        self._items.append((worker, num_bytes, item))
        self._counts[worker] += 1
        self.num_bytes += num_bytes
        self._arrived.notify()

    def wait(self, timeout_s: float, is_over: Callable[[], bool]) -> None:
        """Waits for a segment to take, or until ``is_over``."""
        self._arrived.wait_for(lambda: self._items or is_over(), timeout_s)

    def take(self, max_segments: int | None = None) -> list[Item]:
        """Takes the oldest segments out, all or so many."""
        count = len(self._items) if max_segments is None else min(max_segments, len(self._items))
        taken = [self._items.popleft() for _ in range(count)]
        for worker, num_bytes, _ in taken:
            self._counts[worker] -= 1
            if not self._counts[worker]:
                del self._counts[worker]
            self.num_bytes -= num_bytes
        if taken:
            self._has_room.notify_all()
        return [item for _, _, item in taken]

    def forget(self, worker: str) -> None:
        """Leaves out what waits of one worker."""
        entries = list(self._items)
        self.take()
        for name, num_bytes, item in entries:
            if name != worker:
                self.put(item, name, num_bytes)

    @property
    def is_full(self) -> bool:
        """Whether nobody may put anything more."""
        return len(self._items) >= self._max_segments or self.num_bytes >= self._max_bytes

    def wake(self) -> None:
        """Makes all who wait look again."""
        self._arrived.notify_all()
        self._has_room.notify_all()


def size_of(segment: Segment) -> int:
    """Bytes that a segment holds in memory."""
    return segment.action.nbytes + sum(frames.nbytes for frames in segment.frames.values())
