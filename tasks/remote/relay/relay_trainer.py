"""The trainer's side of a relay: the methods ``Pull`` and ``Publish``, for one trainer at a time.

The trainer dials in with a token of its role. It gets everything in the spool that it has not got yet, and says what is
stored; what it publishes goes to the workers. Its silence, or its coming back, makes room for its successor.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import NoReturn

import grpc

from tasks.remote.access.admission import Door, Refusal, read_one
from tasks.remote.relay.relay_hub import RelayHub
from tasks.remote.relay.spool import Spool
from tasks.remote.relay.spool_file import SpoolDamagedError
from tasks.remote.station.calls import Call
from tasks.remote.wire import link, parts, relay_messages
from tasks.remote.wire.relay_messages import Content, Item, PullRequest

_log = logging.getLogger(__name__)

STATUS_EVERY_S = 2.0
SILENCE_S = 15.0
"""A trainer that has said nothing for so long, though it should every two seconds, has to make way for another."""

_PUBLISH_LIMIT_S = 300.0


class RelayTrainer:
    """Serves the trainer.

    Args:
        hub: The workers' side.
        spool: What the trainer gets.
        door: Checks the trainer's token.
        on_damage: Called when the spool cannot be used any more.
    """

    def __init__(self, hub: RelayHub, spool: Spool, door: Door, on_damage: Callable[[SpoolDamagedError], None]) -> None:
        self._hub = hub
        self._spool = spool
        self._door = door
        self._on_damage = on_damage
        self._lock = threading.Lock()
        self._turn: _Turn | None = None
        self._last_session = ""

    @property
    def connected(self) -> str:
        """Where the trainer that is here now calls from; empty: none is."""
        with self._lock:
            turn = self._turn
            return turn.address if turn is not None and turn.call.is_open else ""

    def handlers(self) -> dict[str, grpc.RpcMethodHandler]:
        """What answers each method."""
        return {
            "Pull": grpc.stream_stream_rpc_method_handler(self._pull),
            "Publish": grpc.stream_unary_rpc_method_handler(self._publish),
        }

    # --- pull ---

    def _pull(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        caller = self._door.admit(context)
        with self._hub.service.calls.opened(context, caller, self._door) as call:
            request = self._greeting(requests, context)
            turn = _Turn(request.session, call, context.peer())
            self._take_turn(turn, context)
            call.wakes(self._hub.wake)
            try:
                yield from self._serve(turn, request, requests)
            except SpoolDamagedError as error:
                self._on_damage(error)
            finally:
                self._leave(turn)
            if call.refusal is not None:
                self._hub.service.refusals.refuse(context, call.refusal)

    def _greeting(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> PullRequest:
        try:
            return relay_messages.decode_pull_request(read_one(requests, context))
        except link.LinkError as error:
            self._refuse(context, grpc.StatusCode.FAILED_PRECONDITION, str(error))

    def _take_turn(self, turn: _Turn, context: grpc.ServicerContext) -> None:
        """Makes this trainer the one that is served; refuses it while another is."""
        with self._lock:
            former = self._turn
            is_taken = former is not None and former.session != turn.session and former.is_alive
            if not is_taken:
                self._turn = turn
        if is_taken and former is not None:
            message = f"another learner is connected to this relay, from {former.address}; a relay serves one at a time"
            self._refuse(context, grpc.StatusCode.ALREADY_EXISTS, message)
        if former is not None:
            former.call.end()

    def _serve(self, turn: _Turn, request: PullRequest, requests: Iterator[bytes]) -> Iterator[bytes]:
        if request.session != self._last_session:
            self._last_session = request.session
            self._hub.begin_anew()
        self._hub.set_task(request.fingerprint, request.spec)
        self._hub.store(request.durable)
        _log.info("the learner is here, from %s", turn.address)
        reader = threading.Thread(target=self._take_marks, args=(turn, requests), name="take-marks", daemon=True)
        reader.start()
        yield from self._items(turn, request)

    def _items(self, turn: _Turn, request: PullRequest) -> Iterator[bytes]:
        """Everything for the trainer, as it comes."""
        received = request.received
        last_id = 0
        status_due_s = 0.0
        while turn.call.is_open:
            now = time.monotonic()
            if now >= status_due_s:
                status_due_s = now + STATUS_EVERY_S
                yield relay_messages.encode_item(Item(Content.status, status=self._hub.status()))
            arrivals = self._hub.arrivals
            report = self._hub.take_report_for_trainer()
            if report is not None:
                yield relay_messages.encode_item(Item(Content.report))
                yield from parts.split(report)
            segment = self._spool.after(last_id, lambda worker, seq: seq <= received.get(worker, 0))
            if segment is None:
                self._hub.wait_arrival(arrivals, status_due_s - now, lambda: not turn.call.is_open)
            else:
                last_id = segment.id
                yield relay_messages.encode_item(Item(Content.segment, segment.worker, segment.seq, segment.epoch))
                yield from parts.split(segment.message)

    def _take_marks(self, turn: _Turn, requests: Iterator[bytes]) -> None:
        """What the trainer says meanwhile; it ends when the trainer hangs up."""
        try:
            for message in requests:
                marks = relay_messages.decode_marks(message)
                turn.heard_s = time.monotonic()
                if not self._is_turn(turn):
                    return
                self._hub.store(marks.durable)
                for worker, (epoch, reason) in marks.refused.items():
                    self._hub.refuse(worker, epoch, reason)
        except link.LinkError as error:
            turn.call.end(Refusal(grpc.StatusCode.INVALID_ARGUMENT, str(error)))
        except SpoolDamagedError as error:
            self._on_damage(error)
        except Exception:  # gRPC ends the iterator of a dead stream with a bare Exception.
            if turn.call.is_open:
                _log.exception("the marks of the learner cannot be handled")
        finally:
            turn.call.end()

    def _is_turn(self, turn: _Turn) -> bool:
        with self._lock:
            return self._turn is turn

    def _leave(self, turn: _Turn) -> None:
        with self._lock:
            was_turn = self._turn is turn
            if was_turn:
                self._turn = None
        if was_turn:
            _log.info("the learner from %s is gone; segments wait for it on the disk", turn.address)

    # --- publish ---

    def _publish(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        caller = self._door.admit(context)
        with self._hub.service.calls.opened(context, caller, self._door, _PUBLISH_LIMIT_S):
            session = dict(context.invocation_metadata()).get("session", "")
            with self._lock:
                turn = self._turn
            if turn is None or turn.session != session:
                # Not a refusal: the relay was restarted, and the trainer pulls again.
                context.abort(grpc.StatusCode.ABORTED, "pull first")
            try:
                self._hub.publish(read_one(requests, context))
            except link.LinkError as error:
                self._refuse(context, grpc.StatusCode.INVALID_ARGUMENT, str(error))
        return b""

    def _refuse(self, context: grpc.ServicerContext, code: grpc.StatusCode, message: str) -> NoReturn:
        self._hub.service.refusals.refuse(context, Refusal(code, message))


class _Turn:
    """One connection of the trainer."""

    def __init__(self, session: str, call: Call, address: str) -> None:
        self.session = session
        self.call = call
        self.address = address
        self.heard_s = time.monotonic()

    @property
    def is_alive(self) -> bool:
        return self.call.is_open and time.monotonic() - self.heard_s < SILENCE_S
