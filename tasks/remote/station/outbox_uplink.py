"""The way out of a station: dials the next one, passes an outbox's segments on, holds the newest weights.

It only dials out. A connection that breaks is dialled again with growing pauses and goes on where the learner says; a
refusal (token, version, task) is final. ``uplink`` is the one of a worker, which is its own outbox, in memory; a remote
worker's station sends from its ``outbox.DiskOutbox``. Knows neither environments nor policies.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol

import grpc

from tasks.remote.access import dialing
from tasks.remote.wire import link, parts
from tasks.remote.wire.methods import path_of

if TYPE_CHECKING:
    from tasks.remote.access.credentials import ClientCredentials

_CALL_TIMEOUT_S = 10.0
_REPORT_TIMEOUT_S = 25.0
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 5.0
_CROWDED_PAUSE_S = 15.0
_PING_S = 5.0
_LOOK_S = 1.0
"""How soon a ping says that the environment begins or ceases to hang [s]."""


class Outbox(Protocol):
    """What an uplink sends from: segments that the learner has not stored yet, in the order of their numbers."""

    dropped: int
    """Segments lost so far because there was no room."""

    def after(self, seq: int) -> tuple[int, bytes] | None:
        """Number and message of the first segment behind ``seq``, if there is one."""
        ...

    def resume(self, received: int) -> None:
        """Notes what the learner has at the beginning of a stream; less than before after a crash of the learner."""
        ...

    def acknowledge(self, received: int, durable: int) -> bool:
        """Notes what the learner has received and forgets what it has stored; whether that was anything."""
        ...


class OutboxUplink:
    """The connection over which the segments of an outbox go out.

    Args:
        address: host:port of the learner.
        token: The secret of the run, or of this worker.
        hello: Who this worker is.
        stop: Ends every wait once it is set; ``wake`` makes the waits notice at once.
        outbox: What is sent; its owner calls ``wake`` when it has added to it.
        credentials: For TLS; None: plaintext.
        hangs_for_s: How long the environment has not come back; 0: it does not hang.
        peer: What it is called that is dialled.
    """

    def __init__(
        self,
        address: str,
        token: str,
        hello: link.Hello,
        stop: threading.Event,
        *,
        outbox: Outbox,
        credentials: ClientCredentials | None = None,
        hangs_for_s: Callable[[], float] = lambda: 0.0,
        peer: str = "the learner",
    ) -> None:
        self._dialled = dialing.Dialled(peer, address, credentials)
        self._channel = self._dialled.channel
        self._hello_message = link.encode_hello(hello)
        self._metadata = (("authorization", f"Bearer {token}"), ("worker", hello.worker))
        self._stop = stop
        self._outbox = outbox
        self._changed = threading.Condition()
        self._newest: bytes | bytearray | None = None
        self._request: bytes | bytearray | None = None
        self._last_request: bytes | bytearray = b""
        self._failure: BaseException | None = None
        self._is_connected = False
        self._round_trip_ms = math.nan
        self._hangs_for_s = hangs_for_s
        self._calls: list[grpc.Call] = []
        self._threads: list[threading.Thread] = []

    # --- connection ---

    def connect(self) -> None:
        """Greets the learner; tries until it answers or ``stop`` is set.

        Raises:
            RefusedError: If the learner does not want this worker.
        """
        pause = _FIRST_PAUSE_S
        while not self._stop.is_set() and self._failure is None:
            try:
                link.decode_hello_reply(self._method("Hello")(self._hello_message, **self._call_arguments()))
            except grpc.RpcError as error:
                self._dialled.raise_final(error)
                if dialing.is_crowded(error):
                    pause = max(pause, _CROWDED_PAUSE_S)
                self._dialled.note_trouble(f"cannot be reached ({dialing.describe(error)})", pause)
                self.wake()
                self._stop.wait(pause)
                pause = max(pause, min(2 * pause, _LONGEST_PAUSE_S))
            else:
                self._dialled.note_answer()
                self.wake()
                return

    def start(self, push: bool, requests: bool = False, weights: bool = True) -> None:
        """Opens the streams that belong to the worker's role.

        Args:
            push: Whether segments are sent.
            requests: Whether evaluation requests are received, for ``take_request``.
            weights: Whether the Weights stream is wanted: for an evaluator it brings requests.
        """
        streams: list[Callable[[], None]] = [self._receive_weights] if weights else []
        if push:
            streams.append(self._push)
        if requests:
            streams.append(self._receive_requests)
        for stream in streams:
            thread = threading.Thread(target=self._keep_up, args=(stream,), name=stream.__name__, daemon=True)
            thread.start()
            self._threads.append(thread)

    def start_pings(self) -> None:
        """Begins to say now and then how things are; after the greeting."""
        threading.Thread(target=self._ping, name="_ping", daemon=True).start()

    @property
    def is_connected(self) -> bool:
        """Whether segments can be sent now."""
        return self._is_connected

    @property
    def round_trip_ms(self) -> float:
        """What the last ping took; NaN: not known."""
        return self._round_trip_ms

    @property
    def trouble(self) -> str:
        """What keeps the learner from being reached; empty when nothing does."""
        return self._dialled.trouble

    def wake(self) -> None:
        """Makes all waits look again: at ``stop``, and at the outbox."""
        with self._changed:
            self._changed.notify_all()
            calls = list(self._calls)
        if self._stop.is_set():
            for call in calls:
                call.cancel()

    def wait_change(self, timeout_s: float) -> None:
        """Waits until something has happened on the link."""
        with self._changed:
            self._changed.wait(timeout_s)
        self.raise_failure()

    def close(self) -> None:
        """Hangs up; ``stop`` must be set."""
        self.wake()
        self._channel.close()
        for thread in list(self._threads):
            thread.join(0.5)

    def raise_failure(self) -> None:
        """Raises what ended the streams, if anything did."""
        if self._failure is not None:
            raise self._failure

    # --- what the learner says ---

    def take_newest(self) -> bytes | bytearray | None:
        """The newest message of the Weights stream, once."""
        with self._changed:
            newest, self._newest = self._newest, None
        return newest

    def wait_newest(self, poll_s: float = 1.0) -> bytes | bytearray | None:
        """Waits for a message of the Weights stream; None when ``stop`` was set instead."""
        with self._changed:
            while self._newest is None and not self._stop.is_set() and self._failure is None:
                self._changed.wait(poll_s)
        self.raise_failure()
        return self.take_newest()

    @property
    def has_request(self) -> bool:
        """Whether an evaluation request waits."""
        return self._request is not None

    def take_request(self) -> bytes | bytearray | None:
        """The newest evaluation request, once."""
        with self._changed:
            request, self._request = self._request, None
        return request

    def report(self, message: bytes) -> None:
        """Sends the report of an evaluation; tries until the learner has it or ``stop`` is set."""
        while not self._stop.is_set():
            try:
                self._method("Report")(message, **self._call_arguments(_REPORT_TIMEOUT_S))
            except grpc.RpcError as error:
                self._dialled.raise_final(error)
                self._stop.wait(_FIRST_PAUSE_S)
                self.connect()
            else:
                # Should it come again, the report was lost behind the other side.
                self._last_request = b""
                return

    # --- streams ---

    def _keep_up(self, stream: Callable[[], None]) -> None:
        """Runs a stream again and again until the worker stops."""
        pause = _FIRST_PAUSE_S
        try:
            while not self._stop.is_set() and self._failure is None:
                began = time.monotonic()
                try:
                    stream()
                except grpc.RpcError as error:
                    if self._stop.is_set():
                        return
                    self._dialled.raise_final(error)
                    self._dialled.note_trouble(f"closed the connection ({dialing.describe(error)})", pause)
                    self.wake()
                if time.monotonic() - began > _LONGEST_PAUSE_S:
                    pause = _FIRST_PAUSE_S
                self._stop.wait(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_S)
                self.connect()
        except ValueError as error:
            # gRPC's answer to calls on a closed channel; anything else is a message that cannot be read.
            if not self._stop.is_set():
                self.fail(error)
        except Exception as error:
            self.fail(error)

    def _receive_weights(self) -> None:
        for message in self._newest_messages(b""):
            with self._changed:
                self._newest = message
                self._changed.notify_all()

    def _receive_requests(self) -> None:
        for message in self._newest_messages(link.REQUESTS):
            with self._changed:
                if message == self._last_request:
                    continue  # It comes again with every new connection until it is answered.
                self._request = self._last_request = message
                self._changed.notify_all()

    def _newest_messages(self, which: bytes) -> Iterator[bytes | bytearray]:
        call = self._method("Weights")(which, metadata=self._metadata)
        with self._changed:
            self._calls.append(call)
        try:
            yield from parts.joined(call)
        finally:
            self._forget(call)

    def _push(self) -> None:
        stream = _PushStream()
        call = self._open("Push", self._outgoing(stream))
        try:
            for message in call:
                acknowledgement = link.decode_acknowledgement(message)
                with self._changed:
                    if stream.resumed_at is None:
                        # What the learner says in this stream, not what it said before: it may be another process.
                        self._outbox.resume(acknowledgement.received)
                        stream.resumed_at = acknowledgement.received
                        self._is_connected = True
                        self._changed.notify_all()
                    if self._outbox.acknowledge(*acknowledgement):
                        self._changed.notify_all()
        finally:
            stream.is_over = True
            with self._changed:
                self._is_connected = False
                self._changed.notify_all()
            self._forget(call)

    def _outgoing(self, stream: _PushStream) -> Iterator[bytes]:
        """Everything that the learner has not got, oldest first, as it comes."""
        sent = None
        while not stream.is_over and not self._stop.is_set():
            with self._changed:
                if sent is None:
                    sent = stream.resumed_at
                found = None if sent is None else self._outbox.after(sent)
                if found is None:
                    self._changed.wait(1.0)
                    continue
            sent, message = found
            yield from parts.split(message)

    def _ping(self) -> None:
        """Says now and then how long the saying takes, what was lost, and whether the environment hangs."""
        due_s, did_hang = -math.inf, False
        while not self._stop.wait(_LOOK_S):
            began, hangs_for_s = time.monotonic(), self._hangs_for_s()
            if began < due_s and bool(hangs_for_s) == did_hang:
                continue
            due_s, did_hang = began + _PING_S, bool(hangs_for_s)
            try:
                ping = link.Ping(self._round_trip_ms, self._outbox.dropped, round(1e3 * hangs_for_s))
                message = link.encode_ping(ping)
                self._method("Ping")(message, **self._call_arguments())
                self._round_trip_ms = 1e3 * (time.monotonic() - began)
            except (grpc.RpcError, ValueError):  # The streams notice what matters; a closed channel is a ValueError.
                self._round_trip_ms = math.nan

    def _open(self, method: str, requests: Iterator[bytes]) -> grpc.Call:
        stub = self._channel.stream_stream(path_of(method))
        call = stub(requests, metadata=self._metadata)
        with self._changed:
            self._calls.append(call)
        return call

    def _forget(self, call: grpc.Call) -> None:
        call.cancel()
        with self._changed:
            self._calls.remove(call)

    def _method(self, name: str) -> Callable[..., grpc.Call]:
        path = path_of(name)
        return self._channel.unary_stream(path) if name == "Weights" else self._channel.unary_unary(path)

    def _call_arguments(self, timeout_s: float = _CALL_TIMEOUT_S) -> dict[str, object]:
        return {"metadata": self._metadata, "timeout": timeout_s}

    def fail(self, error: BaseException) -> None:
        """Has every wait and later call raise ``error``."""
        with self._changed:
            self._failure = self._failure or error
            self._changed.notify_all()


class _PushStream:
    """What one Push stream knows of itself; guarded by the lock of its uplink."""

    resumed_at: int | None = None
    """Behind this number it begins to send."""
    is_over = False
