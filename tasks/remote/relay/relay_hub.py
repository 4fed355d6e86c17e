"""The workers' side of a relay: takes their segments into the spool and gives them what the trainer publishes.

``worker_service`` serves the workers and asks here; ``relay_trainer`` says what the trainer says. Nothing is called
durable here that the trainer did not call so.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping

import grpc

from tasks.experience.observation import ObservationSpec
from tasks.remote.access.admission import Refusal
from tasks.remote.relay.spool import Outcome, Spool
from tasks.remote.relay.spool_file import SpoolDamagedError
from tasks.remote.station.calls import Call
from tasks.remote.station.evaluation_desk import EvaluationDesk
from tasks.remote.station.lock_step_channel import LockStepChannel
from tasks.remote.station.mailbox import Mailbox
from tasks.remote.station.peers import Peer
from tasks.remote.station.worker_service import WorkerService
from tasks.remote.wire import link, relay_messages
from tasks.remote.wire.relay_messages import RelayStatus

_log = logging.getLogger(__name__)

_ROOM_POLL_S = 0.5
_MAX_REPORTS = 4


class RelayHub:
    """What stands behind the relay's service for workers. All methods may be called from any thread.

    Args:
        spool: Where segments wait for the trainer.
        max_workers: Workers for which there is room at a time.
        on_damage: Called when the spool cannot be used any more.
    """

    def __init__(self, spool: Spool, max_workers: int, on_damage: Callable[[SpoolDamagedError], None]) -> None:
        self._spool = spool
        self._on_damage = on_damage
        self.weights = Mailbox()
        """The newest weights."""
        self.desk = EvaluationDesk()
        """The newest request for an evaluation."""
        self.service = WorkerService(self, max_workers)
        self._reports: deque[bytes] = deque(maxlen=_MAX_REPORTS)
        self._arrived = threading.Condition()
        self._arrivals = 0
        self._has_room = threading.Condition()
        self._task: tuple[str, ObservationSpec] | None = None
        self._newest_weights = b""
        self._request_id = -1
        self._load_task()

    # --- what the service for workers asks ---

    def objection(self, hello: link.Hello) -> Refusal | None:
        """Why a worker with a good token may not join; None: it may."""
        task = self._task
        if task is None:
            message = "no learner has been at this relay yet, so it does not know the task; it takes nothing until then"
            return Refusal(grpc.StatusCode.UNAVAILABLE, message)
        return _mismatch(hello, task[0])

    def greeted(self, peer: Peer) -> None:
        """Says how far a worker has come; the service's lock is held."""
        position = self._spool.position(peer.hello.worker)
        peer.received, peer.durable = position.received, position.durable

    def take_segment(self, peer: Peer, call: Call, message: bytes | bytearray) -> bool:
        """Takes a segment into the spool, waiting while there is no room. False: the call has ended.

        Raises:
            LinkError: It is not a segment of this worker and of its task.
        """
        worker = peer.hello.worker
        # Before the call is looked at: who resets the worker ends the call first, and then begins a new epoch.
        epoch = self._spool.position(worker).epoch
        task = self._task
        if not call.is_open or task is None or _mismatch(peer.hello, task[0]) is not None:
            return False
        received = link.decode_segment(message, task[1])
        segment = received.segment
        if segment.worker != worker:
            raise link.LinkError(f"{worker} sent a segment of {segment.worker!r}")
        while call.is_open:
            outcome = self._append(worker, segment.seq, message, task[0], epoch)
            if outcome is Outcome.stale:
                call.end()
                return False
            if outcome is not Outcome.no_room:
                self._count(peer, received, len(message), outcome is Outcome.repeated)
                return True
            self._make_room()
        return False

    def take_report(self, message: bytes) -> None:
        """Keeps the report of an evaluation for the trainer.

        Raises:
            LinkError: It is not one.
        """
        _, number = link.decode_evaluation_report(message)
        with self._arrived:
            self._reports.append(message)
            self._note_arrival()
            is_answer = number == self._request_id
        if is_answer:
            self.desk.clear()

    def lock_step_channel(self, index: int) -> LockStepChannel:
        """There is no lock step over a relay, and its port does not offer it."""
        raise NotImplementedError(f"lock step {index} at a relay")

    def fail(self, failure: BaseException) -> None:
        """No worker can bring the relay down."""
        _log.error("%s", failure)

    # --- what the trainer says ---

    def set_task(self, fingerprint: str, spec: ObservationSpec) -> None:
        """The trainer that is here now: workers of another task are turned away."""
        before = self._task
        self._spool.set_task(fingerprint, relay_messages.encode_spec(spec))
        self._task = (fingerprint, spec)
        if before is None or before[0] == fingerprint:
            return
        with self.service.lock:
            refused = [(peer, _mismatch(peer.hello, fingerprint)) for peer in self.service.peers]
            calls = [(call, refusal) for peer, refusal in refused for call in peer.calls.values() if refusal]
        for call, refusal in calls:
            call.end(refusal)

    def begin_anew(self) -> None:
        """Forgets what the trainer of before published: another one is here."""
        self.weights.clear()
        self.desk.clear()
        with self._arrived:
            self._reports.clear()
            self._newest_weights = b""
            self._request_id = -1

    def store(self, durable: Mapping[str, int]) -> None:
        """Lets go of what the trainer has stored, and tells the workers."""
        changed = self._spool.forget(durable)
        with self.service.lock:
            for worker in changed:
                self._tell(worker)
        if changed:
            with self._has_room:
                self._has_room.notify_all()

    def refuse(self, worker: str, epoch: int, reason: str) -> None:
        """Turns a worker away whose segments the trainer cannot use; what it sent is let go of."""
        if self._spool.position(worker).epoch == epoch:
            _log.warning("the learner refused the segments of %s: %s", worker, reason)
            self._reset(worker, Refusal(grpc.StatusCode.INVALID_ARGUMENT, f"segment refused: {reason}"))

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
                self.weights.put(message)
            return
        number = link.decode_evaluation_request(message).id
        with self._arrived:
            is_new, self._request_id = number != self._request_id, number
        if is_new:
            self.desk.put(message)

    # --- what the trainer gets ---

    @property
    def arrivals(self) -> int:
        """Grows with everything that there is for the trainer."""
        return self._arrivals

    def wait_arrival(self, arrivals: int, timeout_s: float, is_over: Callable[[], bool]) -> None:
        """Waits until there is more than there was."""
        with self._arrived:
            self._arrived.wait_for(lambda: self._arrivals != arrivals or is_over(), timeout_s)

    def wake(self) -> None:
        """Makes all who wait look again."""
        with self._arrived:
            self._arrived.notify_all()
        with self._has_room:
            self._has_room.notify_all()

    def take_report_for_trainer(self) -> bytes | None:
        """The oldest report that waits, once."""
        with self._arrived:
            return self._reports.popleft() if self._reports else None

    def status(self) -> RelayStatus:
        """How the relay is."""
        now = time.monotonic()
        with self.service.lock:
            shown = sorted(self.service.peers.shown(now), key=lambda peer: not peer.is_connected)
            rows = tuple(peer.status(now, math.nan) for peer in shown[: relay_messages.MAX_ROWS])
        state = self._spool.state()
        return RelayStatus(rows, state.segments, state.bytes, self.service.refusals.count)

    def close(self) -> None:
        """Ends all calls and frees the port. Calling it twice is fine."""
        self.weights.wake()
        self.desk.wake()
        self.service.close()
        self.wake()

    # --- inside ---

    def _load_task(self) -> None:
        stored = self._spool.task
        if stored is None:
            return
        try:
            self._task = (stored[0], relay_messages.decode_spec(stored[1]))
        except link.LinkError as error:
            _log.warning("the task of the learner that was here last cannot be read: %s", error)

    def _append(self, worker: str, seq: int, message: bytes | bytearray, fingerprint: str, epoch: int) -> Outcome:
        try:
            return self._spool.append(worker, seq, message, fingerprint, epoch)
        except SpoolDamagedError as error:
            self._on_damage(error)
            return Outcome.stale

    def _count(self, peer: Peer, received: link.ReceivedSegment, num_bytes: int, is_repeated: bool) -> None:
        with self.service.lock:
            peer.bytes += num_bytes
            peer.dropped = received.dropped
            if is_repeated:
                peer.duplicates += 1
                return
            peer.segments += 1
            peer.samples.add(received.segment.num_env_steps, time.monotonic())
            peer.weights_version = received.segment.weights_version
            self._tell(peer.hello.worker)
        with self._arrived:
            self._note_arrival()

    def _note_arrival(self) -> None:
        self._arrivals += 1
        self._arrived.notify_all()

    def _tell(self, worker: str) -> None:
        """Has a worker told how far it has come; the service's lock is held."""
        peer = self.service.peers.get(worker)
        if peer is not None:
            self.greeted(peer)
            peer.changed.notify_all()

    def _make_room(self) -> None:
        """Waits for room; segments of other tasks, which their workers still hold, make way."""
        others = self._spool.workers_of_other_tasks()
        if others:
            _log.warning("the spool is full: segments of another task, of %s, make room", ", ".join(others))
        for worker in others:
            self._reset(worker, None)
        if not others:
            with self._has_room:
                self._has_room.wait(_ROOM_POLL_S)

    def _reset(self, worker: str, refusal: Refusal | None) -> None:
        """Begins anew with a worker: it asks where to go on, and is told what is durable."""
        while True:
            with self.service.lock:
                peer = self.service.peers.get(worker)
                call = None if peer is None else peer.calls.get("push")
                if call is None or not call.is_open:
                    self._spool.reset(worker)
                    self._tell(worker)
                    return
            call.end(refusal)


def _mismatch(hello: link.Hello, fingerprint: str) -> Refusal | None:
    if hello.fingerprint == fingerprint:
        return None
    message = f"worker {hello.worker} {link.explain_mismatch(hello.fingerprint, fingerprint)}"
    return Refusal(grpc.StatusCode.FAILED_PRECONDITION, message)
