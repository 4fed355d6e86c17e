"""A worker's end of the link: dials the learner, keeps what is not stored there yet, holds the newest weights.

It only dials out. A connection that breaks is dialled again with growing pauses and goes on where the learner says; a
refusal (token, version, task) is final. Knows neither environments nor policies.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import grpc
import numpy as np

from tasks.remote import link
from tasks.samples import Segment

_log = logging.getLogger(__name__)

_REFUSALS = (
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.UNIMPLEMENTED,
)
_CALL_TIMEOUT_S = 10.0
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 5.0


class RefusedError(ConnectionError):
    """Raised when the learner refuses this worker; trying again is of no use."""


class Uplink:
    """The connection of one worker.

    Args:
        address: host:port of the learner.
        token: The secret of the run.
        hello: Who this worker is.
        stop: Ends every wait once it is set; ``wake`` makes the waits notice at once.
        window: Unacknowledged segments at which ``wait_for_room`` waits.
        buffer_segments: Unacknowledged segments kept at most; beyond them the oldest are dropped.
        compress: Whether images are compressed.
    """

    def __init__(
        self,
        address: str,
        token: str,
        hello: link.Hello,
        stop: threading.Event,
        *,
        window: int = 4,
        buffer_segments: int = 512,
        compress: bool = False,
    ) -> None:
        self._hello_message = link.encode_hello(hello)
        self._metadata = (("authorization", f"Bearer {token}"), ("worker", hello.worker))
        self._stop = stop
        self._window = window
        self._compress = compress
        self._outbox = Outbox(buffer_segments)
        self._changed = threading.Condition()
        self._received = 0
        self._newest: bytes | None = None
        self._failure: BaseException | None = None
        self._calls: list[Any] = []
        self._threads: list[threading.Thread] = []
        self._channel = grpc.insecure_channel(
            address,
            options=[
                ("grpc.max_receive_message_length", link.MAX_MESSAGE_BYTES),
                ("grpc.max_send_message_length", link.MAX_MESSAGE_BYTES),
                ("grpc.keepalive_time_ms", 20_000),
                ("grpc.keepalive_timeout_ms", 10_000),
                ("grpc.keepalive_permit_without_calls", 1),
                ("grpc.http2.max_pings_without_data", 0),
                ("grpc.max_reconnect_backoff_ms", 5_000),
                ("grpc.initial_reconnect_backoff_ms", 100),
                # A proxy of the environment must not see what goes to this machine.
                ("grpc.enable_http_proxy", 0),
            ],
        )

    # --- connection ---

    def connect(self) -> None:
        """Greets the learner; tries until it answers or ``stop`` is set.

        Raises:
            RefusedError: If the learner does not want this worker.
        """
        pause = _FIRST_PAUSE_S
        while not self._stop.is_set():
            try:
                reply = link.decode_hello_reply(self._method("Hello")(self._hello_message, **self._call_arguments()))
            except grpc.RpcError as error:
                self._raise_refusal(error)
                _log.warning("the learner cannot be reached (%s); next try in %.1f s", error.code().name, pause)
                self._stop.wait(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_S)
            else:
                with self._changed:
                    self._received = max(self._received, reply.received)
                return

    def start(self, push: bool) -> None:
        """Begins to receive weights (or requests) and, with ``push``, to send segments."""
        streams: list[Callable[[], None]] = [self._receive_weights]
        if push:
            streams.append(self._push)
        for stream in streams:
            thread = threading.Thread(target=self._keep_up, args=(stream,), name=stream.__name__, daemon=True)
            self._threads.append(thread)
            thread.start()

    def wake(self) -> None:
        """Makes all waits look at ``stop`` again."""
        with self._changed:
            self._changed.notify_all()
            calls = list(self._calls)
        if self._stop.is_set():
            for call in calls:
                call.cancel()

    def close(self) -> None:
        """Hangs up; ``stop`` must be set."""
        self.wake()
        self._channel.close()
        for thread in self._threads:
            thread.join(0.5)

    # --- segments ---

    def wait_for_room(self, poll_s: float = 1.0) -> bool:
        """Waits while ``window`` segments are unacknowledged.

        Returns:
            False when ``stop`` was set instead.
        """
        with self._changed:
            while len(self._outbox) >= self._window and not self._stop.is_set() and self._failure is None:
                self._changed.wait(poll_s)
        self.raise_failure()
        return not self._stop.is_set()

    def send(self, segment: Segment) -> None:
        """Numbers a segment and sends it when it can; never waits."""
        with self._changed:
            self._outbox.append(segment, self._received)
            self._changed.notify_all()
        self.raise_failure()

    def raise_failure(self) -> None:
        """Raises what ended the streams, if anything did."""
        if self._failure is not None:
            raise self._failure

    @property
    def dropped(self) -> int:
        """Segments dropped because the buffer was full."""
        return self._outbox.dropped

    # --- what the learner says ---

    def take_newest(self) -> bytes | None:
        """The newest message of the Weights stream, once."""
        with self._changed:
            newest, self._newest = self._newest, None
        return newest

    def wait_newest(self, poll_s: float = 1.0) -> bytes | None:
        """Waits for a message of the Weights stream; None when ``stop`` was set instead."""
        with self._changed:
            while self._newest is None and not self._stop.is_set() and self._failure is None:
                self._changed.wait(poll_s)
        self.raise_failure()
        return self.take_newest()

    def report(self, message: bytes) -> None:
        """Sends the report of an evaluation; tries until the learner has it or ``stop`` is set."""
        while not self._stop.is_set():
            try:
                self._method("Report")(message, **self._call_arguments())
            except grpc.RpcError as error:
                self._raise_refusal(error)
                self._stop.wait(_FIRST_PAUSE_S)
                self.connect()
            else:
                return

    def serve_lock_step(self, answer: Callable[[bytes], bytes]) -> None:
        """Answers commands until ``stop`` is set or the learner hangs up."""
        replies = _Outgoing()
        call = self._open("LockStep", iter(replies.take, None))
        try:
            for message in call:
                replies.put(answer(message))
        except grpc.RpcError as error:
            if not self._stop.is_set():
                self._raise_refusal(error)
                raise ConnectionError(f"the learner hung up: {error.code().name} {error.details()}") from error
        finally:
            replies.put(None)
            call.cancel()

    # --- streams ---

    def _keep_up(self, stream: Callable[[], None]) -> None:
        """Runs a stream again and again until the worker stops."""
        pause = _FIRST_PAUSE_S
        try:
            while not self._stop.is_set():
                try:
                    stream()
                    pause = _FIRST_PAUSE_S
                except grpc.RpcError as error:
                    if self._stop.is_set():
                        return
                    self._raise_refusal(error)
                    _log.warning("connection lost (%s); next try in %.1f s", error.code().name, pause)
                self._stop.wait(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_S)
                self.connect()
        except ValueError as error:
            # gRPC's answer to calls on a closed channel; anything else is a message that cannot be read.
            if not self._stop.is_set():
                self._fail(error)
        except Exception as error:
            self._fail(error)

    def _receive_weights(self) -> None:
        call = self._method("Weights")(b"", metadata=self._metadata)
        with self._changed:
            self._calls.append(call)
        try:
            for message in call:
                with self._changed:
                    self._newest = message
                    self._changed.notify_all()
        finally:
            self._forget(call)

    def _push(self) -> None:
        is_over = threading.Event()
        call = self._open("Push", self._outgoing(is_over))
        try:
            for message in call:
                acknowledgement = link.decode_acknowledgement(message)
                with self._changed:
                    self._received = max(self._received, acknowledgement.received)
                    if self._outbox.forget(acknowledgement.durable):
                        self._changed.notify_all()
        finally:
            is_over.set()
            with self._changed:
                self._changed.notify_all()
            self._forget(call)

    def _outgoing(self, is_over: threading.Event) -> Iterator[bytes]:
        """Everything that the learner has not got, oldest first, as it comes."""
        with self._changed:
            sent = self._received
        while not is_over.is_set() and not self._stop.is_set():
            with self._changed:
                segment = self._outbox.after(sent)
                if segment is None:
                    self._changed.wait(1.0)
                    continue
            sent = segment.seq
            yield link.encode_segment(segment, self._outbox.dropped, self._compress)

    def _open(self, method: str, requests: Iterator[bytes]) -> Any:
        stub = self._channel.stream_stream(f"/{link.SERVICE}/{method}")
        call = stub(requests, metadata=self._metadata)
        with self._changed:
            self._calls.append(call)
        return call

    def _forget(self, call: Any) -> None:
        call.cancel()
        with self._changed:
            self._calls.remove(call)

    def _method(self, name: str) -> Any:
        path = f"/{link.SERVICE}/{name}"
        return self._channel.unary_stream(path) if name == "Weights" else self._channel.unary_unary(path)

    def _call_arguments(self) -> dict[str, Any]:
        return {"metadata": self._metadata, "timeout": _CALL_TIMEOUT_S}

    def _fail(self, error: BaseException) -> None:
        with self._changed:
            self._failure = error
            self._changed.notify_all()

    @staticmethod
    def _raise_refusal(error: grpc.RpcError) -> None:
        if error.code() in _REFUSALS:
            raise RefusedError(f"the learner refused this worker: {error.details()}") from error


class Outbox:
    """Segments that the learner has not stored yet, in order; not thread-safe.

    When it is full the oldest is dropped. One that the learner had not received leaves a gap in its stream, so the
    stream is cut: the rows up to the next start of an episode are dropped too, and what is left is right.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._segments: deque[Segment] = deque()
        self._last_seq = 0
        self._cut_streams: set[int] = set()
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._segments)

    def append(self, segment: Segment, received: int) -> None:
        """Numbers and keeps a segment.

        Args:
            segment: The next rows of its stream.
            received: Sequence number up to which the learner has everything.
        """
        kept = self._after_cut(segment)
        if kept is None:
            return
        self._last_seq += 1
        self._segments.append(replace(kept, seq=self._last_seq))
        while len(self._segments) > self._capacity:
            self._drop_oldest(received)

    def after(self, seq: int) -> Segment | None:
        """The first segment behind this number."""
        return next((segment for segment in self._segments if segment.seq > seq), None)

    def forget(self, seq: int) -> bool:
        """Forgets everything up to this number; whether there was anything."""
        before = len(self._segments)
        while self._segments and self._segments[0].seq <= seq:
            self._segments.popleft()
        return len(self._segments) < before

    def _drop_oldest(self, received: int) -> None:
        oldest = self._segments.popleft()
        if oldest.seq <= received:
            return
        self.dropped += 1
        self._cut_streams.add(oldest.stream)
        kept = []
        for segment in self._segments:
            rest = self._after_cut(segment)
            if rest is not None:
                kept.append(rest)
        self._segments = deque(kept)

    def _after_cut(self, segment: Segment) -> Segment | None:
        """What is left of a segment whose stream was cut: its rows from the first start of an episode."""
        if segment.stream not in self._cut_streams:
            return segment
        starts = np.flatnonzero(segment.is_first)
        if not len(starts):
            self.dropped += 1
            return None
        self._cut_streams.discard(segment.stream)
        return _rows_from(segment, int(starts[0]))


def _rows_from(segment: Segment, start: int) -> Segment:
    columns = {
        name: getattr(segment, name)[start:] for name in ("action", "reward", "terminated", "truncated", "is_first")
    }
    return replace(
        segment,
        frames={name: frames[start:] for name, frames in segment.frames.items()},
        checksums=None if segment.checksums is None else segment.checksums[start:],
        **columns,
    )


class _Outgoing:
    """A queue of one stream's requests; None ends it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._messages: deque[bytes | None] = deque()

    def put(self, message: bytes | None) -> None:
        with self._changed:
            self._messages.append(message)
            self._changed.notify()

    def take(self) -> bytes | None:
        with self._changed:
            while not self._messages:
                self._changed.wait(1.0)
            return self._messages.popleft()
