"""Shared by every link at the learner: a queue of segments, evaluations by number, and counters.

``gateway`` and ``relay_link`` are two such ways; each fills it from its own connections.
"""

from __future__ import annotations

import math
import secrets
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from tasks.experience.evaluation_report import EvaluationReport
from tasks.experience.samples import Segment
from tasks.experience.worker_status import RateMeter, WorkerStatus
from tasks.remote.station.segment_queue import SegmentQueue, size_of
from tasks.remote.wire import link

_MAX_VERSIONS = 1024


class Receiver:
    """Its public methods may be called from any thread; those with an underscore expect the lock to be held.

    Args:
        lock: Guards all of it.
        queue_segments: Segments that wait for ``receive`` at most; beyond them workers wait.
        queue_bytes: The same, in bytes.
    """

    def __init__(self, lock: threading.Lock, queue_segments: int, queue_bytes: int) -> None:
        self._lock = lock
        self._queue: SegmentQueue[Segment] = SegmentQueue(lock, queue_segments, queue_bytes)
        # Not from 0: a remote worker's report for the learner before this one must not pass for an answer to it.
        self._requested = self._answered = secrets.randbits(40)
        self._reports: deque[EvaluationReport] = deque()
        self._failure: BaseException | None = None
        self._is_closed = threading.Event()
        self._segments = 0
        self._bytes = 0
        self._duplicates = 0
        self._samples = RateMeter()
        self._published_s: dict[int, float] = {}
        self._newest_version = 0
        self._seen_version = 0

    def receive(self, timeout_s: float, max_segments: int | None = None) -> list[Segment]:
        """Segments that have come in, in the order of each worker; waits for the first one.

        Args:
            timeout_s: After this time the list is empty.
            max_segments: No more than so many; the rest stays in the queue.

        Raises:
            BaseException: What ``fail`` was called with.
        """
        with self._lock:
            self._queue.wait(timeout_s, lambda: self._failure is not None or self._is_closed.is_set())
            self._raise_failure()
            return self._queue.take(max_segments)

    def fail(self, failure: BaseException) -> None:
        """Makes every waiting and later call raise ``failure``."""
        with self._lock:
            self._failure = self._failure or failure
            self._queue.wake()

    def raise_failure(self) -> None:
        """Raises what ``fail`` was called with, if it was."""
        with self._lock:
            self._raise_failure()

    def poll_evaluation(self) -> EvaluationReport | None:
        """The next report that has come in, or None."""
        with self._lock:
            self._raise_failure()
            return self._reports.popleft() if self._reports else None

    # --- inside ---

    def _request(
        self, weights: Mapping[str, np.ndarray], version: int, seeds: Sequence[int], clip: bool
    ) -> link.EvaluationRequest:
        """A new request for an evaluation; it takes the place of the one before."""
        self._requested += 1
        return link.EvaluationRequest(self._requested, link.Weights(dict(weights), version), tuple(seeds), clip)

    def _take(self, report: EvaluationReport, number: int) -> bool:
        """Keeps the report of a request that was made and not answered before; whether it is of the newest one."""
        if self._answered < number <= self._requested:
            self._answered = number
            self._reports.append(report)
        return number == self._requested

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _put(self, segment: Segment) -> int:
        """Queues a segment and counts it; returns the version of the weights that it was driven with."""
        self._queue.put(segment, segment.worker, size_of(segment))
        # What a worker claims of itself must not go beyond what there is.
        version = min(segment.weights_version, self._newest_version)
        self._segments += 1
        self._samples.add(segment.num_env_steps, time.monotonic())
        self._seen_version = max(self._seen_version, version)
        return version

    def _note_published(self, version: int) -> None:
        self._newest_version = version
        self._published_s[version] = time.monotonic()
        while len(self._published_s) > _MAX_VERSIONS:
            self._published_s.pop(next(iter(self._published_s)))

    def _age_s(self, version: int, now: float) -> float:
        """Since these weights were published; NaN: never, or too long ago."""
        return now - self._published_s.get(version, math.nan)

    def _statistics(self, workers: Iterable[WorkerStatus], unacknowledged: int) -> dict[str, float]:
        """Metrics under ``gateway/``.

        Args:
            workers: Those that are connected.
            unacknowledged: Segments that were received and are not stored.
        """
        now = time.monotonic()
        connected = [worker for worker in workers if worker.connected and worker.role != "evaluator"]
        round_trips_ms = [worker.round_trip_ms for worker in connected if not math.isnan(worker.round_trip_ms)]
        age_s = self._age_s(self._seen_version, now)
        return {
            "gateway/workers": float(len(connected)),
            "gateway/remote_workers": float(sum(bool(worker.address) for worker in connected)),
            "gateway/samples_per_s": self._samples.per_second(now),
            "gateway/segments": float(self._segments),
            "gateway/megabytes": self._bytes / 1e6,
            "gateway/duplicates": float(self._duplicates),
            "gateway/queue_depth": float(len(self._queue)),
            "gateway/queue_megabytes": self._queue.num_bytes / 1e6,
            "gateway/unacknowledged": float(max(unacknowledged, 0)),
            "gateway/round_trip_ms": max(round_trips_ms, default=0.0),
            "gateway/weights_age_s": 0.0 if math.isnan(age_s) else age_s,
            "gateway/weights_lag": float(self._newest_version - self._seen_version),
        }
