"""The learner's side of a relay: the method ``Pull``, for one learner at a time.

The learner dials in with a token of its role. It gets the segments that workers send, and says what is stored; what it
publishes goes to the workers. Its silence, or its coming back, makes room for its successor.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator

import grpc

from tasks.remote.access.admission import Refusal
from tasks.remote.access.listener import Handler
from tasks.remote.relay.relay_hub import RelayHub
from tasks.remote.station.calls import Call
from tasks.remote.wire import link, parts, relay_messages
from tasks.remote.wire.relay_messages import Content, Item

_log = logging.getLogger(__name__)

STATUS_EVERY_S = 2.0
SILENCE_S = 15.0
"""A learner that has said nothing for so long, though it should every two seconds, has to make way for another."""


class RelayLearner:
    """Serves the learner.

    Args:
        hub: The workers' side.
    """

    def __init__(self, hub: RelayHub) -> None:
        self._hub = hub
        self._lock = threading.Lock()
        self._connection: _Connection | None = None
        self._last_session = ""

    @property
    def connected(self) -> str:
        """Where the learner that is here now calls from; empty: none is."""
        with self._lock:
            connection = self._connection
            return connection.call.peer if connection is not None and connection.call.is_open else ""

    def handlers(self) -> dict[str, Handler]:
        """What answers each method."""
        return {"Pull": self._pull}

    def _pull(self, requests: Iterator[bytes], call: Call) -> Iterator[bytes]:
        try:
            request = relay_messages.decode_pull_request(call.read_one(requests))
        except link.LinkError as error:
            call.refuse(Refusal(grpc.StatusCode.FAILED_PRECONDITION, str(error)))
        connection = _Connection(request.session, call)
        self._take_over(connection)
        call.take_up()
        call.wakes(self._hub.wake)
        try:
            self._hub.begin(request, request.session != self._last_session)
            self._last_session = request.session
            _log.info("the learner connected from %s", call.peer)
            threading.Thread(
                target=self._listen, args=(connection, requests), name="listen-to-learner", daemon=True
            ).start()
            yield from self._items(call)
        finally:
            self._leave(connection)

    def _take_over(self, connection: _Connection) -> None:
        """Makes this connection the one that is served; refuses it while another learner is."""
        with self._lock:
            former = self._connection
            is_taken = former is not None and former.session != connection.session and former.is_alive
            if not is_taken:
                self._connection = connection
        if former is not None and is_taken:
            message = (
                f"another learner is connected to this relay, from {former.call.peer}; a relay serves one at a time"
            )
            connection.call.refuse(Refusal(grpc.StatusCode.ALREADY_EXISTS, message))
        if former is not None:
            former.call.end()

    def _items(self, call: Call) -> Iterator[bytes]:
        """Everything for the learner, as it comes."""
        status_due_s = 0.0
        while call.is_open:
            now = time.monotonic()
            if now >= status_due_s:
                status_due_s = now + STATUS_EVERY_S
                yield relay_messages.encode_item(Item(Content.status, status=self._hub.status()))
            report = self._hub.take_report_for_learner()
            if report is not None:
                yield relay_messages.encode_item(Item(Content.report))
                yield from parts.split(report)
            segment = self._hub.take_segment_for_learner()
            if segment is not None:
                yield relay_messages.encode_item(Item(Content.segment, segment.worker, segment.seq, segment.epoch))
                yield from parts.split(segment.message)
            else:
                self._hub.wait_arrival(status_due_s - now, lambda: not call.is_open)

    def _listen(self, connection: _Connection, requests: Iterator[bytes]) -> None:
        """What the learner says meanwhile; it ends when the learner hangs up."""
        try:
            for message in parts.joined(connection.heard(requests), connection.call.admission.max_message_bytes):
                with self._lock:
                    if self._connection is not connection:
                        return
                if link.kind_of(message) != "marks":
                    self._hub.publish(bytes(message))
                    continue
                marks = relay_messages.decode_marks(message)
                self._hub.store(marks.durable)
                for worker, (epoch, reason) in marks.refused.items():
                    self._hub.refuse(worker, epoch, reason)
        except link.LinkError as error:
            connection.call.end(Refusal(grpc.StatusCode.INVALID_ARGUMENT, str(error)))
        except Exception:  # gRPC ends the iterator of a dead stream with a bare Exception.
            if connection.call.is_open:
                _log.exception("what the learner says cannot be handled")
        finally:
            connection.call.end()

    def _leave(self, connection: _Connection) -> None:
        with self._lock:
            if self._connection is not connection:
                return
            self._connection = None
            self._hub.leave()
        _log.info("the learner at %s disconnected; workers keep their segments for it", connection.call.peer)


class _Connection:
    """One connection of a learner."""

    def __init__(self, session: str, call: Call) -> None:
        self.session = session
        self.call = call
        self.heard_s = time.monotonic()

    def heard(self, requests: Iterator[bytes]) -> Iterator[bytes]:
        """What comes from the learner; each message, or part of one, is a sign of life."""
        for message in requests:
            self.heard_s = time.monotonic()
            yield message

    @property
    def is_alive(self) -> bool:
        return self.call.is_open and time.monotonic() - self.heard_s < SILENCE_S
