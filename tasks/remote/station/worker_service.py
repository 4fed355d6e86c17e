"""The service that workers dial: greetings, segments, weights, evaluations, lock step, on one port or two.

It checks who calls, keeps their streams and says what came of their segments. What becomes of the segments, and where
weights come from, is decided by what stands behind it: ``gateway`` at the learner, ``relay`` between the two.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import NoReturn, Protocol

import grpc

from tasks.remote.access.admission import Caller, Door, Refusal, Refusals, read_one
from tasks.remote.access.listener import CALLS_PER_WORKER, SPARE_CALLS, FarListener, Listener
from tasks.remote.access.tokens import WORKER, RunToken
from tasks.remote.station.calls import SHORT_CALL_S, Call, OpenCalls
from tasks.remote.station.evaluation_desk import EvaluationDesk
from tasks.remote.station.lock_step_channel import LockStepChannel
from tasks.remote.station.mailbox import Mailbox
from tasks.remote.station.peers import Peer, Peers
from tasks.remote.wire import link, parts

_log = logging.getLogger(__name__)

_HEARTBEAT_S = 2.0


class Hub(Protocol):
    """What stands behind the service."""

    weights: Mailbox
    """The newest weights."""
    desk: EvaluationDesk
    """The newest request for an evaluation."""

    def objection(self, hello: link.Hello) -> Refusal | None:
        """Why a worker with a good token may not join; None: it may."""

    def greeted(self, peer: Peer) -> None:
        """A worker has greeted; may set how far its segments have come. The service's ``lock`` is held."""

    def take_segment(self, peer: Peer, call: Call, message: bytes | bytearray) -> bool:
        """Takes a segment, waiting while there is no room. False: the call has ended. Raises ``LinkError``."""

    def take_report(self, message: bytes) -> None:
        """Takes the report of an evaluation. Raises ``LinkError``."""

    def lock_step_channel(self, index: int) -> LockStepChannel:
        """The channel to the lock-step worker at this place."""

    def fail(self, failure: BaseException) -> None:
        """A worker of this machine, or the service, cannot go on."""


class WorkerService:
    """Serves workers.

    Args:
        hub: What stands behind it.
        max_far: Workers from elsewhere for which there is room at a time.
        received: Sequence numbers up to which segments of earlier workers are stored.
    """

    def __init__(self, hub: Hub, max_far: int = 0, received: Mapping[str, int] | None = None) -> None:
        self._hub = hub
        self.lock = threading.Lock()
        """Guards ``peers`` and what they hold."""
        self.peers = Peers(self.lock, max_far, received or {})
        self.refusals = Refusals()
        self._doors: list[Door] = []
        self._listeners: list[Listener] = []
        self.calls = OpenCalls(self._doors)

    # --- ports ---

    def listen_near(
        self, address: str, token: str, max_workers: int, credentials: grpc.ServerCredentials | None = None
    ) -> str:
        """Opens a port for workers that were given the token of the run; returns host:port.

        Args:
            address: host:port to listen on.
            token: The secret of the run.
            max_workers: Connections for which there is room at a time.
            credentials: TLS, where these workers may be on other machines; None: plaintext.
        """
        stranger = "the token is not the one of this run"
        door = Door(RunToken(token), WORKER, self.refusals, stranger=stranger, is_far=False)
        listener = Listener(
            address,
            self._handlers(door),
            CALLS_PER_WORKER * max_workers + SPARE_CALLS,
            credentials=credentials,
            is_far=credentials is not None,
        )
        return self._listen(door, listener)

    def listen_far(self, far: FarListener, more: Mapping[str, grpc.RpcMethodHandler] | None = None) -> str:
        """Opens a port for workers from elsewhere; returns host:port.

        Args:
            far: Who is let in, and how.
            more: Further methods to serve there, each of which checks its callers itself.
        """
        door = Door(
            far.tokens, WORKER, self.refusals, handshakes=far.handshakes, max_message_bytes=far.max_message_bytes
        )
        listener = Listener(
            far.address,
            self._handlers(door) | dict(more or {}),
            CALLS_PER_WORKER * far.max_workers + SPARE_CALLS,
            credentials=far.credentials,
            max_message_bytes=far.max_message_bytes,
            is_far=True,
        )
        return self._listen(door, listener)

    def close(self) -> None:
        """Ends all calls and frees the ports. Calling it twice is fine."""
        self.calls.close()
        for listener in self._listeners:
            listener.close()

    def num_senders(self) -> int:
        """Workers that have a stream of segments open; expects ``lock`` to be held."""
        return sum("push" in peer.calls for peer in self.peers)

    def _listen(self, door: Door, listener: Listener) -> str:
        self._doors.append(door)
        self._listeners.append(listener)
        return listener.address

    def _handlers(self, door: Door) -> dict[str, grpc.RpcMethodHandler]:
        # All take a stream of requests, of which nothing is read before the token was checked.
        unary: dict[str, Callable[[Door, Iterator[bytes], grpc.ServicerContext], bytes]] = {
            "Hello": self._hello,
            "Ping": self._ping,
            "Report": self._report,
        }
        streams: dict[str, Callable[[Door, Iterator[bytes], grpc.ServicerContext], Iterator[bytes]]] = {
            "Push": self._push,
            "Weights": self._newest,
        }
        if not door.is_far:
            streams["LockStep"] = self._lock_step
        handlers = {name: grpc.stream_unary_rpc_method_handler(functools.partial(m, door)) for name, m in unary.items()}
        for name, method in streams.items():
            handlers[name] = grpc.stream_stream_rpc_method_handler(functools.partial(method, door))
        return handlers

    # --- greetings ---

    def _hello(self, door: Door, requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        caller = door.admit(context)
        with self.calls.opened(context, caller, door, SHORT_CALL_S):
            try:
                hello = link.decode_hello(read_one(requests, context))
            except link.LinkError as error:
                self._refuse(context, grpc.StatusCode.FAILED_PRECONDITION, str(error))
            if refusal := self._objection(hello, caller, door):
                self.refusals.refuse(context, refusal)
            with self.lock:
                peer = self.peers.greet(hello, door, context.peer())
                if isinstance(peer, Peer):
                    self._hub.greeted(peer)
            if isinstance(peer, Refusal):
                self.refusals.refuse(context, peer)
            _log.info("%s joined as %s %s", hello.worker, hello.role, dict(hello.software))
            return link.encode_hello_reply(link.HelloReply(peer.received))

    def _objection(self, hello: link.Hello, caller: Caller, door: Door) -> Refusal | None:
        if hello.worker != caller.identity:
            message = f"{caller.identity} greets under the name of another worker: {hello.worker!r}"
            return Refusal(grpc.StatusCode.PERMISSION_DENIED, message)
        if door.is_far and hello.role != "worker":
            message = f"{caller.identity} wants to be {hello.role}, which is only for the learner's own processes"
            return Refusal(grpc.StatusCode.PERMISSION_DENIED, message)
        return self._hub.objection(hello)

    def _ping(self, door: Door, requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        caller = door.admit(context)
        with self.calls.opened(context, caller, door, SHORT_CALL_S):
            peer = self._peer(caller, context)
            try:
                ping = link.decode_ping(read_one(requests, context))
            except link.LinkError as error:
                self._refuse(context, grpc.StatusCode.INVALID_ARGUMENT, str(error))
        with self.lock:
            peer.note_ping(ping, time.monotonic())
        return b""

    # --- segments ---

    def _push(self, door: Door, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        """Acknowledgements to one worker, while a thread of its own takes what it sends."""
        segments = parts.joined(requests, door.max_message_bytes)
        with self._stream("push", door, context) as (peer, call):
            reader = threading.Thread(
                target=self._take_segments, args=(peer, call, segments), name="take-segments", daemon=True
            )
            reader.start()
            sent = None
            while call.is_open:
                with self.lock:
                    peer.changed.wait_for(
                        lambda: peer.acknowledgement() != sent or not call.is_open,  # noqa: B023
                        _HEARTBEAT_S,
                    )
                    acknowledgement = peer.acknowledgement()
                if call.is_open:
                    sent = acknowledgement
                    yield link.encode_acknowledgement(acknowledgement)

    def _take_segments(self, peer: Peer, call: Call, segments: Iterator[bytes | bytearray]) -> None:
        try:
            for message in segments:
                if not call.is_open or not self._hub.take_segment(peer, call, message):
                    return
        except link.LinkError as error:
            call.end(Refusal(grpc.StatusCode.INVALID_ARGUMENT, f"segment refused: {error}"))
        except grpc.RpcError:
            pass  # The worker is gone; it comes back or it is restarted.
        except Exception as error:  # grpc ends the iterator of a dead stream with a bare Exception.
            if call.is_open:
                _log.exception("the stream of %s broke", peer.hello.worker)
                call.end(Refusal(grpc.StatusCode.INVALID_ARGUMENT, "segment refused: it could not be handled"))
                # No worker from elsewhere can bring the learner down.
                if not peer.is_far:
                    self._hub.fail(error)

    # --- weights and evaluation ---

    def _newest(self, door: Door, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        """Weights as they are published or, to whoever evaluates, requests for evaluations."""
        caller = door.admit(context)
        with self.calls.opened(context, caller, door, SHORT_CALL_S):
            is_evaluator = self._peer(caller, context).hello.role == "evaluator"
            asks_for_requests = read_one(requests, context) == link.REQUESTS or is_evaluator
        if asks_for_requests:
            yield from self._evaluation_requests(door, context)
        else:
            yield from self._newest_weights(door, context)

    def _newest_weights(self, door: Door, context: grpc.ServicerContext) -> Iterator[bytes]:
        mailbox = self._hub.weights
        with self._stream("weights", door, context) as (_, call):
            call.wakes(mailbox.wake)
            seen = 0
            while call.is_open:
                seen, message = mailbox.newer_than(seen, lambda: not call.is_open, _HEARTBEAT_S)
                if message is not None and call.is_open:
                    yield from parts.split(message)

    def _evaluation_requests(self, door: Door, context: grpc.ServicerContext) -> Iterator[bytes]:
        desk = self._hub.desk
        with self._stream("requests", door, context) as (peer, call):
            call.wakes(desk.wake)
            with desk.seat(peer.hello.worker, peer.is_far) as seat:
                while call.is_open:
                    message = seat.take(lambda: not call.is_open, _HEARTBEAT_S)
                    if message is not None and call.is_open:
                        yield from parts.split(message)

    def _report(self, door: Door, requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        caller = door.admit(context)
        with self.calls.opened(context, caller, door, SHORT_CALL_S):
            peer = self._peer(caller, context)
            message = read_one(requests, context)
            if peer.is_far and self._hub.desk.driver != caller.identity:
                # The request was given to another worker while this one was away.
                return b""
            try:
                self._hub.take_report(message)
            except link.LinkError as error:
                self._refuse(context, grpc.StatusCode.INVALID_ARGUMENT, str(error))
        return b""

    # --- lock step ---

    def _lock_step(self, door: Door, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        with self._stream("lock_step", door, context) as (peer, call):
            channel = self._hub.lock_step_channel(peer.hello.index)
            call.wakes(channel.wake)
            generation = channel.connect()
            reader = threading.Thread(
                target=self._take_replies, args=(channel, generation, requests), name="take-replies", daemon=True
            )
            reader.start()
            while call.is_open:
                message = channel.next_command(generation, lambda: not call.is_open, _HEARTBEAT_S)
                if message is not None:
                    yield message

    def _take_replies(self, channel: LockStepChannel, generation: int, requests: Iterator[bytes]) -> None:
        try:
            for message in requests:
                channel.put_reply(generation, link.decode_lock_step_reply(message))
        except link.LinkError as error:
            self._hub.fail(error)
        except Exception:  # grpc ends the iterator of a dead stream with a bare Exception; a restart follows.
            _log.debug("lock-step stream %d ended", channel.index, exc_info=True)

    # --- inside ---

    @contextmanager
    def _stream(self, kind: str, door: Door, context: grpc.ServicerContext) -> Iterator[tuple[Peer, Call]]:
        """A stream of a worker that has greeted; takes over from the one of this kind that it had before.

        A worker that has come back does not wait for a connection that does not know yet that it is dead. A refusal
        that came up meanwhile is told at the end.
        """
        caller = door.admit(context)
        with self.calls.opened(context, caller, door) as call:
            peer = self._peer(caller, context)
            with self.lock:
                refusal = self.peers.room(peer, door, time.monotonic())
                former = peer.calls.get(kind)
                if refusal is None:
                    peer.calls[kind] = call
                    peer.address = context.peer()
            if refusal is not None:
                self.refusals.refuse(context, refusal)
            if former is not None:
                former.end()
            call.wakes(functools.partial(self._wake, peer))
            try:
                yield peer, call
            finally:
                with self.lock:
                    if peer.calls.get(kind) is call:
                        del peer.calls[kind]
                    peer.seen_s = time.monotonic()
            if call.refusal is not None:
                self.refusals.refuse(context, call.refusal)

    def _peer(self, caller: Caller, context: grpc.ServicerContext) -> Peer:
        with self.lock:
            peer = self.peers.get(caller.identity)
        if peer is None:
            # Not a refusal: the learner was restarted and the worker greets it again.
            context.abort(grpc.StatusCode.ABORTED, "say hello first")
            raise AssertionError("abort raises")
        return peer

    def _wake(self, peer: Peer) -> None:
        with self.lock:
            peer.changed.notify_all()

    def _refuse(self, context: grpc.ServicerContext, code: grpc.StatusCode, message: str) -> NoReturn:
        self.refusals.refuse(context, Refusal(code, message))
