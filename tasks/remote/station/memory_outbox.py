"""The outbox of a worker beside its learner: segments in memory; what is not stored when the process ends is lost."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from tasks.experience.samples import Segment
from tasks.remote.station.segment_queue import size_of
from tasks.remote.wire import link


class MemoryOutbox:
    """Segments that the learner has not stored yet, in order; not thread-safe.

    When it is full the oldest is dropped. One that the learner had not received leaves a gap in its stream, so the
    stream is cut: the rows up to the next start of an episode are dropped too, and what is left is right.

    Args:
        capacity: Segments kept at most.
        compress: Whether images are compressed on the way.
    """

    def __init__(self, capacity: int, compress: bool = False) -> None:
        self._capacity = capacity
        self._compress = compress
        self._segments: deque[Segment] = deque()
        self._last_seq = 0
        self._received = 0
        self._cut_streams: set[int] = set()
        self.dropped = 0
        """Segments dropped so far."""

    def __len__(self) -> int:
        return len(self._segments)

    @property
    def unreceived(self) -> int:
        """Numbers that the learner has not received."""
        return max(self.last_seq - self._received, 0)

    @property
    def last_seq(self) -> int:
        """Number of the newest segment that is kept, or was."""
        return self._segments[-1].seq if self._segments else self._received

    def bytes_after(self, seq: int) -> int:
        """What the segments behind ``seq`` hold."""
        return sum(size_of(segment) for segment in self._segments if segment.seq > seq)

    def append(self, segment: Segment) -> None:
        """Numbers and keeps a segment: the next rows of its stream."""
        # One that is dropped has a number too, so that the other side can count what is missing.
        self._last_seq += 1
        kept = self._after_cut(segment)
        if kept is None:
            return
        self._segments.append(replace(kept, seq=self._last_seq))
        while len(self._segments) > self._capacity:
            self._drop_oldest()

    def after(self, seq: int) -> tuple[int, Callable[[], bytes]] | None:
        """Number of the first segment behind ``seq`` and what makes its message, if there is one."""
        for segment in self._segments:
            if segment.seq > seq:
                return segment.seq, partial(link.encode_segment, segment, self.dropped, self._compress)
        return None

    def resume(self, received: int) -> None:
        """Notes what the learner has at the beginning of a stream."""
        self._received = received

    def acknowledge(self, received: int, durable: int) -> bool:
        """Notes what the learner has received and forgets what it has stored; whether that was anything."""
        self._received = received
        before = len(self._segments)
        while self._segments and self._segments[0].seq <= durable:
            self._segments.popleft()
        return len(self._segments) < before

    def _drop_oldest(self) -> None:
        oldest = self._segments.popleft()
        if oldest.seq <= self._received:
            return
        self.dropped += 1
        self._cut_streams.add(oldest.stream)
        kept = []
        for segment in self._segments:
            rest = self._after_cut(segment)
            if rest is not None:
                kept.append(rest)
        self._segments = deque(kept)

    def _after_cut(self, segment: Segment) -> Segment | None:
        """What is left of a segment whose stream was cut: its rows from the first start of an episode."""
        if segment.stream not in self._cut_streams:
            return segment
        starts = np.flatnonzero(segment.is_first)
        if not len(starts):
            self.dropped += 1
            return None
        self._cut_streams.discard(segment.stream)
        return _rows_from(segment, int(starts[0]))


def _rows_from(segment: Segment, start: int) -> Segment:
    columns = {
        name: getattr(segment, name)[start:] for name in ("action", "reward", "terminated", "truncated", "is_first")
    }
    return replace(
        segment,
        frames={name: frames[start:] for name, frames in segment.frames.items()},
        checksums=None if segment.checksums is None else segment.checksums[start:],
        states=None if segment.states is None else segment.states[start:],
        **columns,
    )
