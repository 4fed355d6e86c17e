"""The networking interface: the methods of a link that workers and a learner call.

``uplink.Uplink`` and ``gateway.Gateway`` are one implementation; ``docs/library.md`` explains how to write another, and
``docs/examples/folder_link.py`` is one. Neither end knows environments, policies or algorithms, and neither protocol
prescribes how bytes travel: an implementation may use the messages of ``tasks.remote.wire.link``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from tasks.experience.evaluation_report import EvaluationReport
from tasks.experience.samples import Segment
from tasks.experience.worker_status import WorkerStatus


class WorkerLink(Protocol):
    """A worker's end. One thread uses it: the one that acts."""

    def wait_for_room(self) -> bool:
        """Waits while too many segments are unacknowledged, so that no worker runs ahead; False: it must stop.

        In real time nothing may wait: always True there, and ``send`` drops the oldest segments when it has to.
        """
        ...

    def send(self, segment: Segment) -> None:
        """Numbers a segment (``seq``: 1, 2, 3, ... of this worker) and delivers it once, in order; never waits.

        It is kept until the learner reports it stored, and sent again if the connection breaks before that.
        """
        ...

    def take_newest(self) -> bytes | bytearray | None:
        """The newest weights (``link.decode_weights``), once; versions in between are skipped."""
        ...

    def close(self) -> None:
        """Hangs up. Calling it twice is fine."""
        ...


class LearnerLink(Protocol):
    """The learner's end of a link to workers."""

    def receive(self, timeout_s: float, max_segments: int | None = None) -> list[Segment]:
        """Segments that have come in, in the order of each worker; waits for the first one."""
        ...

    def acknowledge(self, durable: Mapping[str, int]) -> None:
        """Says up to which number the segments of each worker are stored; workers that are not its own are ignored."""
        ...

    def publish(self, weights: Mapping[str, np.ndarray], version: int) -> None:
        """Offers new weights to all workers."""
        ...

    def request_evaluation(
        self, weights: Mapping[str, np.ndarray], version: int, seeds: Sequence[int], clip: bool = False
    ) -> None:
        """Asks one worker for an evaluation; replaces a request that was not begun."""
        ...

    def poll_evaluation(self) -> EvaluationReport | None:
        """The next report that has come in, or None."""
        ...

    def statistics(self) -> dict[str, float]:
        """Metrics under ``gateway/``."""
        ...

    def workers(self) -> list[WorkerStatus]:
        """A row for each worker."""
        ...

    def close(self) -> None:
        """Ends all connections. Calling it twice is fine."""
        ...
