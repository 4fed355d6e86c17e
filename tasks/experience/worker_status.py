"""The status of a gateway's or relay's workers: sample rates, and a row for each worker of the live table."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

SPAN_S = 10.0
"""Rates are means over this time."""
MAX_NAMES = 64
"""Names that have their own metrics."""


@dataclass(frozen=True)
class WorkerStatus:
    """One worker, as the learner or the relay sees it."""

    name: str
    """NAME, or NAME.SUFFIX for each outbox of this name."""
    role: str
    """worker, evaluator or lock_step."""
    address: str
    """From where it called last, as gRPC writes it; empty for a worker of this machine."""
    samples_per_s: float
    """Environment steps that arrived, over the last ten seconds."""
    segments: int
    """Segments that were taken."""
    dropped: int
    """Segments that the worker says it had to drop because its buffer was full."""
    duplicates: int
    """Segments that came twice, and were taken once."""
    unacknowledged: int
    """Numbers received and not stored yet."""
    bytes: int
    """Of all its segments, as they came."""
    round_trip_ms: float
    """From sending a segment to hearing that it was received, as the worker measures it; NaN: not known."""
    weights_version: int
    """Of the weights with which it acted last."""
    weights_age_s: float
    """Since these were published; NaN: not known."""
    connected: bool
    """Whether it is connected now."""
    hangs_for_s: float = 0.0
    """How long its environment has not stepped although it could [s]; 0: it does not hang."""


def samples_by_name(workers: Iterable[WorkerStatus]) -> dict[str, float]:
    """Metrics under ``gateway_samples_per_s/``: what each name sends, all of its outboxes and starts together.

    Args:
        workers: Rows of the table; of very many names the first ``MAX_NAMES`` in the order of rows are told.
    """
    rates: dict[str, float] = {}
    for worker in workers:
        name = f"gateway_samples_per_s/{worker.name.partition('.')[0]}"
        if worker.role != "evaluator" and (name in rates or len(rates) < MAX_NAMES):
            rates[name] = rates.get(name, 0.0) + worker.samples_per_s
    return rates


class RateMeter:
    """Events per second over the last ``SPAN_S``. Bounded memory, any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._buckets: deque[tuple[int, float]] = deque()
        self._started_s: float | None = None

    def add(self, count: float, now: float) -> None:
        """Counts what happened at ``now``, in seconds of a clock that never goes back."""
        with self._lock:
            if self._started_s is None:
                self._started_s = now
            if self._buckets and self._buckets[-1][0] == int(now):
                self._buckets[-1] = (int(now), self._buckets[-1][1] + count)
            else:
                self._buckets.append((int(now), count))
            self._forget(now)

    def per_second(self, now: float) -> float:
        """The mean rate; over the time since the first event while that is shorter, but at least a second."""
        with self._lock:
            if self._started_s is None:
                return 0.0
            self._forget(now)
            span_s = min(max(now - self._started_s, 1.0), SPAN_S)
            return sum(count for _, count in self._buckets) / span_s

    def _forget(self, now: float) -> None:
        while self._buckets and self._buckets[0][0] < now - SPAN_S:
            self._buckets.popleft()
