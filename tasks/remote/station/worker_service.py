"""The service that workers dial: greetings, segments, weights and evaluations, on one port or two.

It keeps the streams of workers, says how far their segments have come, and hands out the newest weights and the newest
request for an evaluation. What happens to the segments is decided by what stands behind it: ``gateway`` at the learner,
``relay_hub`` between the two, ``worker_station`` beside a remote worker.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

import grpc

from tasks.remote.access.admission import Admission, Refusal, Refusals
from tasks.remote.access.listener import CALLS_PER_WORKER, SPARE_CALLS, Handler, Listener, Port
from tasks.remote.station.calls import Call, OpenCalls
from tasks.remote.station.evaluation_queue import EvaluationQueue
from tasks.remote.station.mailbox import Mailbox
from tasks.remote.station.peers import Peer, Peers
from tasks.remote.wire import link, parts

_log = logging.getLogger(__name__)

HEARTBEAT_S = 2.0
"""How often a stream that has nothing to send looks whether it shall end [s]."""


class Hub(Protocol):
    """What stands behind the service."""

    def objection(self, hello: link.Hello) -> Refusal | None:
        """Why a worker with a good token may not join; None: it may."""

    def greeted(self, peer: Peer) -> None:
        """A worker has greeted; may set how far its segments have come. The service's ``lock`` is held."""

    def take_segments(self, peer: Peer, call: Call, messages: Iterable[bytes | bytearray]) -> None:
        """Takes segments until they or the call end, waiting while there is no room. Raises ``LinkError``."""

    def take_report(self, message: bytes) -> None:
        """Takes the report of an evaluation. Raises ``LinkError``."""

    def fail(self, failure: BaseException) -> None:
        """A worker of this machine, or the service, cannot go on."""


class WorkerService:
    """Serves workers.

    Args:
        hub: What stands behind it.
        max_remote: Remote workers for which there is room at a time.
        received: Sequence numbers up to which segments of earlier workers are stored.
    """

    def __init__(self, hub: Hub, max_remote: int = 0, received: Mapping[str, int] | None = None) -> None:
        self._hub = hub
        self.lock = threading.Lock()
        """Guards ``peers`` and what they hold."""
        self.peers = Peers(self.lock, max_remote, received or {})
        self.refusals = Refusals()
        self.weights = Mailbox()
        """The newest weights."""
        self.evaluation_queue = EvaluationQueue()
        """The newest request for an evaluation."""
        self.calls = OpenCalls()
        self._listeners: list[Listener] = []

    # --- ports ---

    def listen(self, port: Port, more: Mapping[str, Handler] | None = None) -> str:
        """Opens a port; returns host:port.

        Args:
            port: Where, and who is let in.
            more: Further methods to serve there.
        """
        handlers: dict[str, Handler] = {
            "Hello": self._hello,
            "Ping": self._ping,
            "Push": self._push,
            "Weights": self._newest,
            "Report": self._report,
        }
        admission = Admission(
            port.tokens,
            self.refusals,
            is_remote=port.is_remote,
            handshakes=port.handshakes,
            max_message_bytes=port.max_message_bytes,
        )
        listener = Listener(
            port.address,
            handlers | dict(more or {}),
            self.calls.check_at(admission),
            CALLS_PER_WORKER * port.max_workers + SPARE_CALLS,
            credentials=port.credentials,
            max_message_bytes=port.max_message_bytes,
            is_remote=port.is_remote or port.credentials is not None,
        )
        self._listeners.append(listener)
        return listener.address

    def close(self) -> None:
        """Ends all calls and frees the ports. Calling it twice is fine."""
        self.calls.close()
        for listener in self._listeners:
            listener.close()

    def num_senders(self) -> int:
        """Workers that have a stream of segments open; expects ``lock`` to be held."""
        return sum("push" in peer.calls for peer in self.peers)

    @contextmanager
    def stream(self, kind: str, call: Call) -> Iterator[Peer]:
        """A stream of a worker that has greeted; takes over from the one of this kind that it had before.

        A worker that has come back does not wait for a connection that does not know yet that it is dead.
        """
        peer = self._peer(call)
        with self.lock:
            refusal = self.peers.room(peer, call.admission.is_remote, time.monotonic())
            former = peer.calls.get(kind)
            if refusal is None:
                peer.calls[kind] = call
                peer.address = call.peer
        if refusal is not None:
            call.refuse(refusal)
        if former is not None:
            former.end()
        call.take_up()
        call.wakes(functools.partial(self._wake, peer))
        try:
            yield peer
        finally:
            with self.lock:
                if peer.calls.get(kind) is call:
                    del peer.calls[kind]
                peer.seen_s = time.monotonic()

    # --- greetings ---

    def _hello(self, requests: Iterator[bytes], call: Call) -> bytes:
        try:
            hello = link.decode_hello(call.read_one(requests))
        except link.LinkError as error:
            call.refuse(Refusal(grpc.StatusCode.FAILED_PRECONDITION, str(error)))
        if refusal := self._objection(hello, call):
            call.refuse(refusal)
        with self.lock:
            peer = self.peers.greet(hello, call.admission.is_remote, call.peer)
            if isinstance(peer, Peer):
                self._hub.greeted(peer)
        if isinstance(peer, Refusal):
            call.refuse(peer)
        _log.info("%s joined as %s %s", hello.worker, hello.role, dict(hello.software))
        return link.encode_hello_reply(link.HelloReply(peer.received))

    def _objection(self, hello: link.Hello, call: Call) -> Refusal | None:
        identity = call.caller.identity
        if hello.worker != identity:
            message = f"{identity} greets under the name of another worker: {hello.worker!r}"
            return Refusal(grpc.StatusCode.PERMISSION_DENIED, message)
        if call.admission.is_remote and hello.role != "worker":
            message = f"{identity} wants to be {hello.role}, which is only for the learner's own processes"
            return Refusal(grpc.StatusCode.PERMISSION_DENIED, message)
        return self._hub.objection(hello)

    def _ping(self, requests: Iterator[bytes], call: Call) -> bytes:
        peer = self._peer(call)
        try:
            ping = link.decode_ping(call.read_one(requests))
        except link.LinkError as error:
            call.refuse(Refusal(grpc.StatusCode.INVALID_ARGUMENT, str(error)))
        with self.lock:
            peer.note_ping(ping, time.monotonic())
        return b""

    # --- segments ---

    def _push(self, requests: Iterator[bytes], call: Call) -> Iterator[bytes]:
        """Acknowledgements to one worker, while a thread of its own takes what it sends."""
        with self.stream("push", call) as peer:
            reader = threading.Thread(
                target=self._take_segments, args=(peer, call, requests), name="take-segments", daemon=True
            )
            reader.start()
            sent = None
            while call.is_open:
                with self.lock:
                    peer.changed.wait_for(
                        lambda: peer.acknowledgement() != sent or not call.is_open,  # noqa: B023
                        HEARTBEAT_S,
                    )
                    acknowledgement = peer.acknowledgement()
                if call.is_open:
                    sent = acknowledgement
                    yield link.encode_acknowledgement(acknowledgement)

    def _take_segments(self, peer: Peer, call: Call, requests: Iterator[bytes]) -> None:
        try:
            self._hub.take_segments(peer, call, parts.joined(requests, call.admission.max_message_bytes))
        except link.LinkError as error:
            call.end(Refusal(grpc.StatusCode.INVALID_ARGUMENT, f"segment refused: {error}"))
        except grpc.RpcError:
            pass  # The worker is gone; it comes back or it is restarted.
        except Exception as error:  # grpc ends the iterator of a dead stream with a bare Exception.
            if call.is_open:
                _log.exception("the stream of %s broke", peer.hello.worker)
                call.end(Refusal(grpc.StatusCode.INVALID_ARGUMENT, "segment refused: it could not be handled"))
                # No remote worker can bring the learner down.
                if not peer.is_remote:
                    self._hub.fail(error)

    # --- weights and evaluation ---

    def _newest(self, requests: Iterator[bytes], call: Call) -> Iterator[bytes]:
        """Weights as they are published or, to an evaluator, requests for evaluations."""
        is_evaluator = self._peer(call).hello.role == "evaluator"
        if call.read_one(requests) == link.REQUESTS or is_evaluator:
            yield from self._evaluation_requests(call)
        else:
            yield from self._newest_weights(call)

    def _newest_weights(self, call: Call) -> Iterator[bytes]:
        with self.stream("weights", call):
            call.wakes(self.weights.wake)
            seen = 0
            while call.is_open:
                seen, message = self.weights.newer_than(seen, lambda: not call.is_open, HEARTBEAT_S)
                if message is not None and call.is_open:
                    yield from parts.split(message)

    def _evaluation_requests(self, call: Call) -> Iterator[bytes]:
        with self.stream("requests", call) as peer:
            call.wakes(self.evaluation_queue.wake)
            with self.evaluation_queue.candidate(peer.hello.worker, peer.is_remote) as candidate:
                while call.is_open:
                    message = self.evaluation_queue.take(candidate, lambda: not call.is_open, HEARTBEAT_S)
                    if message is not None and call.is_open:
                        yield from parts.split(message)

    def _report(self, requests: Iterator[bytes], call: Call) -> bytes:
        peer = self._peer(call)
        message = call.read_one(requests)
        if peer.is_remote and self.evaluation_queue.assigned != call.caller.identity:
            # The request was given to another worker while this one was away.
            return b""
        try:
            self._hub.take_report(message)
        except link.LinkError as error:
            call.refuse(Refusal(grpc.StatusCode.INVALID_ARGUMENT, str(error)))
        return b""

    # --- inside ---

    def _peer(self, call: Call) -> Peer:
        with self.lock:
            peer = self.peers.get(call.caller.identity)
        if peer is None:
            # Not a refusal: the learner was restarted and the worker greets it again.
            call.abort(grpc.StatusCode.ABORTED, "the first call must be Hello")
        return peer

    def _wake(self, peer: Peer) -> None:
        with self.lock:
            peer.changed.notify_all()
