"""The workers' side of a relay: hands their segments on to the learner and gives them what the learner publishes.

``worker_service`` serves the workers and asks here; ``relay_learner`` says what the learner says. Nothing is called
durable here that the learner did not call so, so workers keep everything until then, and a relay keeps nothing: what
waits in its bounded memory is forgotten with each new connection of the learner, and sent again by the workers.
"""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import grpc

from tasks.experience.observation import ObservationSpec
from tasks.remote.access.admission import Refusal, mismatch
from tasks.remote.station.calls import Call
from tasks.remote.station.peers import Peer
from tasks.remote.station.segment_queue import SegmentQueue
from tasks.remote.station.worker_service import WorkerService
from tasks.remote.wire import link, relay_messages
from tasks.remote.wire.relay_messages import PullRequest, RelayStatus

_log = logging.getLogger(__name__)

MAX_QUEUE_SEGMENTS = 1024
MAX_QUEUE_BYTES = 256 * 1024 * 1024
"""What waits for the learner at most; beyond it workers wait."""

_MAX_REPORTS = 4


class WaitingSegment(NamedTuple):
    """A segment on its way to the learner."""

    worker: str
    seq: int
    epoch: int
    """Of the worker, when it was taken."""
    message: bytes | bytearray


class RelayHub:
    """What stands behind the relay's service for workers. All methods may be called from any thread.

    Args:
        max_workers: Workers for which there is room at a time.
        queue_bytes: What waits for the learner at most.
    """

    def __init__(self, max_workers: int, queue_bytes: int = MAX_QUEUE_BYTES) -> None:
        self.service = WorkerService(self, max_workers)
        self._lock = self.service.lock
        self._queue: SegmentQueue[WaitingSegment] = SegmentQueue(self._lock, MAX_QUEUE_SEGMENTS, queue_bytes)
        self._received: dict[str, int] = {}
        self._durable: dict[str, int] = {}
        self._epochs: dict[str, int] = {}
        self._queue.is_paused = True
        self._reports: deque[bytes] = deque(maxlen=_MAX_REPORTS)
        self._task: tuple[str, ObservationSpec] | None = None
        self._newest_weights = b""
        self._request_id = -1

    # --- what the service for workers asks ---

    def objection(self, hello: link.Hello) -> Refusal | None:
        """Why a worker with a good token may not join; None: it may."""
        task = self._task
        if task is None:
            message = "no learner has been at this relay yet, so it does not know the task; it takes nothing until then"
            return Refusal(grpc.StatusCode.UNAVAILABLE, message)
        return mismatch(hello, task[0])

    def greeted(self, peer: Peer) -> None:
        """Says how far a worker has come; the service's lock is held."""
        worker = peer.hello.worker
        peer.received, peer.durable = self._received.get(worker, 0), self._durable.get(worker, 0)

    def take_segments(self, peer: Peer, call: Call, messages: Iterable[bytes | bytearray]) -> None:
        """Checks each segment and queues it once, waiting while there is no room or no learner.

        Raises:
            LinkError: It is not a segment of this worker and of its task.
        """
        worker = peer.hello.worker

        def may_go_on() -> bool:
            # A stream that began before the learner came back goes on where that learner does not.
            return call.is_open and peer.calls.get("push") is call

        for message in messages:
            task = self._task
            if task is None or mismatch(peer.hello, task[0]) is not None:
                return
            segment, dropped = link.decode_segment(message, task[1])
            if segment.worker != worker:
                raise link.LinkError(f"{worker} sent a segment of {segment.worker!r}")
            with self._lock:
                if not self._queue.wait_for_room(worker, self.service.num_senders, may_go_on):
                    return
                peer.bytes += len(message)
                peer.dropped = dropped
                if segment.seq <= self._received.get(worker, 0):
                    peer.duplicates += 1
                    continue
                self._received[worker] = segment.seq
                waiting = WaitingSegment(worker, segment.seq, self._epochs.get(worker, 0), message)
                self._queue.put(waiting, worker, len(message))
                peer.segments += 1
                peer.samples.add(segment.num_env_steps, time.monotonic())
                peer.weights_version = segment.weights_version
                self._tell(worker)

    def take_report(self, message: bytes) -> None:
        """Keeps the report of an evaluation for the learner.

        Raises:
            LinkError: It is not one.
        """
        _, number = link.decode_evaluation_report(message)
        with self._lock:
            self._reports.append(message)
            is_answer = number == self._request_id
            self._queue.wake()
        if is_answer:
            self.service.evaluation_queue.clear()

    def fail(self, failure: BaseException) -> None:
        """No worker can bring the relay down."""
        _log.error("%s", failure)

    # --- what the learner says ---

    def begin(self, request: PullRequest, is_new_learner: bool) -> None:
        """The learner has come, or come back: workers go on behind what it has, and those of another task may not.

        Args:
            request: What it said.
            is_new_learner: Whether what another one published is of no use any more.
        """
        if is_new_learner:
            self.service.weights.clear()
            self.service.evaluation_queue.clear()
        with self._lock:
            self._task = (request.fingerprint, request.spec)
            self._received, self._durable = dict(request.received), dict(request.durable)
            self._queue.take()
            if is_new_learner:
                self._reports.clear()
                self._newest_weights = b""
                self._request_id = -1
            ended: list[tuple[Call, Refusal | None]] = []
            for peer in self.service.peers:
                refusal = mismatch(peer.hello, request.fingerprint)
                push = peer.calls.pop("push", None)
                ended += [(call, refusal) for call in (push, *(peer.calls.values() if refusal else ())) if call]
            self._queue.is_paused = False
            self._queue.wake()
        for call, refusal in ended:
            call.end(refusal)

    def leave(self) -> None:
        """The learner is gone: workers keep what they have until it is back."""
        with self._lock:
            self._queue.is_paused = True

    def store(self, durable: Mapping[str, int]) -> None:
        """Tells workers what the learner has stored."""
        with self._lock:
            for worker, seq in durable.items():
                if seq > self._durable.get(worker, 0):
                    self._durable[worker] = seq
                    self._received[worker] = max(seq, self._received.get(worker, 0))
                    self._tell(worker)

    def refuse(self, worker: str, epoch: int, reason: str) -> None:
        """Turns a worker away whose segments the learner cannot use; what waits of it is forgotten."""
        with self._lock:
            if self._epochs.get(worker, 0) != epoch:
                return
            self._epochs[worker] = epoch + 1
            self._received[worker] = self._durable.get(worker, 0)
            self._queue.forget(worker)
            peer = self.service.peers.get(worker)
            call = None if peer is None else peer.calls.pop("push", None)
        _log.warning("the learner refused the segments of %s: %s", worker, reason)
        if call is not None:
            call.end(Refusal(grpc.StatusCode.INVALID_ARGUMENT, f"segment refused: {reason}"))

    def publish(self, message: bytes) -> None:
        """Offers weights or a request for an evaluation to the workers; what they have already is not sent again.

        Raises:
            LinkError: It is neither.
        """
        kind = link.kind_of(message)
        if kind == "weights":
            link.unpack(message, kind)
            if message != self._newest_weights:
                self._newest_weights = message
                self.service.weights.put(message)
            return
        number = link.decode_evaluation_request(message).id
        with self._lock:
            is_new, self._request_id = number != self._request_id, number
        if is_new:
            self.service.evaluation_queue.put(message)

    # --- what the learner gets ---

    def wait_arrival(self, timeout_s: float, is_over: Callable[[], bool]) -> None:
        """Waits until there is something for the learner."""
        with self._lock:
            self._queue.wait(timeout_s, lambda: bool(self._reports) or is_over())

    def take_segment_for_learner(self) -> WaitingSegment | None:
        """The oldest segment that waits, once; its worker has it until it is durable."""
        with self._lock:
            return next(iter(self._queue.take(1)), None)

    def take_report_for_learner(self) -> bytes | None:
        """The oldest report that waits, once."""
        with self._lock:
            return self._reports.popleft() if self._reports else None

    @property
    def is_full(self) -> bool:
        """Whether workers wait because the learner does not keep up."""
        with self._lock:
            return self._queue.is_full

    def status(self) -> RelayStatus:
        """How the relay is."""
        now = time.monotonic()
        with self._lock:
            shown = sorted(self.service.peers.shown(now), key=lambda peer: not peer.is_connected)
            rows = tuple(peer.status(now, math.nan) for peer in shown[: relay_messages.MAX_ROWS])
            return RelayStatus(rows, len(self._queue), self._queue.num_bytes, self.service.refusals.count)

    def wake(self) -> None:
        """Makes all who wait look again."""
        with self._lock:
            self._queue.wake()

    def close(self) -> None:
        """Ends all calls and frees the port. Calling it twice is fine."""
        self.service.weights.wake()
        self.service.evaluation_queue.wake()
        self.service.close()
        self.wake()

    # --- inside ---

    def _tell(self, worker: str) -> None:
        """Has a worker told how far it has come; the lock is held."""
        peer = self.service.peers.get(worker)
        if peer is not None:
            self.greeted(peer)
            peer.changed.notify_all()
