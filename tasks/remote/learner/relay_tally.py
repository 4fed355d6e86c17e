"""What a learner counts of the segments that come through a relay, and what the relay says of its workers.

``relay_link`` owns one and guards it with its lock.
"""

from __future__ import annotations

import math
import time
from dataclasses import replace

from tasks.experience.samples import Segment
from tasks.experience.worker_status import RateMeter, WorkerStatus
from tasks.remote.wire.relay_messages import RelayStatus

_MAX_VERSIONS = 1024


class RelayTally:
    """Counters, rates, and the relay's newest status."""

    def __init__(self) -> None:
        self.status = RelayStatus((), 0, 0, 0)
        """What the relay said last."""
        self.duplicates = 0
        self.refused = 0
        self._segments = 0
        self._bytes = 0
        self._samples = RateMeter()
        self._published_s: dict[int, float] = {}
        self._newest_version = 0
        self._seen_version = 0

    def count(self, segment: Segment, num_bytes: int) -> None:
        """A segment was taken."""
        self._segments += 1
        self._bytes += num_bytes
        self._samples.add(segment.num_env_steps, time.monotonic())
        # What a worker claims of itself must not go beyond what there is.
        self._seen_version = max(self._seen_version, min(segment.weights_version, self._newest_version))

    def published(self, version: int) -> None:
        """Weights were published."""
        self._newest_version = version
        self._published_s[version] = time.monotonic()
        while len(self._published_s) > _MAX_VERSIONS:
            self._published_s.pop(next(iter(self._published_s)))

    def workers(self, is_connected: bool) -> list[WorkerStatus]:
        """A row for each worker behind the relay, as the relay saw it last.

        Args:
            is_connected: Whether the relay is there.
        """
        return [
            replace(
                worker,
                connected=worker.connected and is_connected,
                weights_age_s=self._age_s(worker.weights_version),
            )
            for worker in self.status.workers
        ]

    def statistics(self, is_connected: bool) -> dict[str, float]:
        """Metrics under ``gateway/``.

        Args:
            is_connected: Whether the relay is there.
        """
        connected = [worker for worker in self.workers(is_connected) if worker.connected]
        round_trips_ms = [worker.round_trip_ms for worker in connected if not math.isnan(worker.round_trip_ms)]
        age_s = self._age_s(self._seen_version)
        return {
            "gateway/workers": float(len(connected)),
            "gateway/far_workers": float(len(connected)),
            "gateway/samples_per_s": self._samples.per_second(time.monotonic()),
            "gateway/segments": float(self._segments),
            "gateway/megabytes": self._bytes / 1e6,
            "gateway/duplicates": float(self.duplicates),
            "gateway/refused": float(self.refused + self.status.refused),
            "gateway/dropped": float(sum(worker.dropped for worker in self.status.workers)),
            "gateway/round_trip_ms": max(round_trips_ms, default=0.0),
            "gateway/weights_age_s": 0.0 if math.isnan(age_s) else age_s,
            "gateway/weights_lag": float(self._newest_version - self._seen_version),
            "gateway/relay_connected": float(is_connected),
            "gateway/relay_segments": float(self.status.spooled_segments),
            "gateway/relay_megabytes": self.status.spooled_bytes / 1e6,
        }

    def _age_s(self, version: int) -> float:
        """Since these weights were published; NaN: never, or too long ago."""
        return time.monotonic() - self._published_s.get(version, math.nan)
