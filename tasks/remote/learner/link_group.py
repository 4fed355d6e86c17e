"""Several links as one: the gateway of this machine and a relay.

``vecenv`` uses it where ``remote.relay`` is given. Any ``LearnerLink`` can take part, your own too.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence

import numpy as np

from tasks.experience.evaluation_report import EvaluationReport
from tasks.experience.networking import LearnerLink
from tasks.experience.samples import Segment
from tasks.experience.worker_status import WorkerStatus
from tasks.remote.station import evaluation_queue

_LOOK_S = 2.0
_SLICE_S = 0.02
"""How long one link is waited for while nothing comes from any [s]."""
_LARGEST = ("gateway/weights_age_s", "gateway/round_trip_ms")
_SMALLEST = ("gateway/weights_lag",)


class LinkGroup:
    """Links in the order in which they are asked to evaluate: the first that has a worker for it.

    Args:
        links: At least one.
        has_evaluator: Whether the first has a process of this machine that evaluates, so that the others are never
            asked.
        patience_s: After this time without any worker, the link that was asked is given up for another one.
    """

    def __init__(
        self, links: Sequence[LearnerLink], has_evaluator: bool, patience_s: float = 2 * evaluation_queue.PATIENCE_S
    ) -> None:
        self._links = tuple(links)
        self._has_evaluator = has_evaluator
        self._patience_s = patience_s
        self._next = 0
        self._asked: LearnerLink | None = None
        self._request: tuple[Mapping[str, np.ndarray], int, Sequence[int], bool] | None = None
        self._looked_s = self._seen_s = -math.inf

    def receive(self, timeout_s: float, max_segments: int | None = None) -> list[Segment]:
        """As ``LearnerLink.receive``; of all links in turn."""
        deadline_s = time.monotonic() + timeout_s
        for link in self._in_turn():
            segments = link.receive(0.0, max_segments)
            if segments:
                return segments
        while (left_s := deadline_s - time.monotonic()) > 0:
            for link in self._in_turn():
                segments = link.receive(min(left_s, _SLICE_S), max_segments)
                if segments:
                    return segments
        return []

    def acknowledge(self, durable: Mapping[str, int]) -> None:
        """As ``LearnerLink.acknowledge``."""
        for link in self._links:
            link.acknowledge(durable)

    def publish(self, weights: Mapping[str, np.ndarray], version: int) -> None:
        """As ``LearnerLink.publish``."""
        for link in self._links:
            link.publish(weights, version)

    def request_evaluation(
        self, weights: Mapping[str, np.ndarray], version: int, seeds: Sequence[int], clip: bool = False
    ) -> None:
        """As ``LearnerLink.request_evaluation``; of one link."""
        self._asked = self._evaluating_link()
        self._request = (weights, version, seeds, clip)
        self._looked_s = self._seen_s = time.monotonic()
        self._asked.request_evaluation(weights, version, seeds, clip)

    def poll_evaluation(self) -> EvaluationReport | None:
        """As ``LearnerLink.poll_evaluation``; a report of a link that was not asked last is of no use any more."""
        reports = {id(link): link.poll_evaluation() for link in self._links}
        report = reports.get(id(self._asked))
        if report is not None:
            self._request = None
        elif not self._has_evaluator:
            self._pass_on_if_lost()
        return report

    def statistics(self) -> dict[str, float]:
        """Sums over the links; of ages and delays the largest."""
        merged: dict[str, float] = {}
        for statistics in (link.statistics() for link in self._links):
            for name, value in statistics.items():
                merge = max if name in _LARGEST else min if name in _SMALLEST else float.__add__
                merged[name] = merge(merged[name], value) if name in merged else value
        return merged

    def workers(self) -> list[WorkerStatus]:
        """As ``LearnerLink.workers``."""
        return [status for link in self._links for status in link.workers()]

    def close(self) -> None:
        """Closes all links. Calling it twice is fine."""
        for link in self._links:
            link.close()

    def _pass_on_if_lost(self) -> None:
        """Asks another link when the one that was asked has been without workers for too long."""
        now = time.monotonic()
        if self._request is None or self._asked is None or now - self._looked_s < min(_LOOK_S, self._patience_s):
            return
        self._looked_s = now
        if _has_worker(self._asked):
            self._seen_s = now
        elif now - self._seen_s >= self._patience_s and any(_has_worker(link) for link in self._links):
            self.request_evaluation(*self._request)

    def _in_turn(self) -> tuple[LearnerLink, ...]:
        """All links, each time beginning with another one."""
        self._next = (self._next + 1) % len(self._links)
        return self._links[self._next :] + self._links[: self._next]

    def _evaluating_link(self) -> LearnerLink:
        if self._has_evaluator:
            return self._links[0]
        return next((link for link in self._links if _has_worker(link)), self._links[-1])


def _has_worker(link: LearnerLink) -> bool:
    return any(status.connected for status in link.workers())
