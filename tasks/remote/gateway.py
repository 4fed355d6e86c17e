"""The learner's end of the link: takes segments from workers and hands out weights, evaluations and commands.

One gRPC server on one port. It owns what was received of whom, the bounded queue and the newest weights; it knows
neither processes (``launch``) nor rl_games (``vecenv``). All public methods may be called from any thread.
"""

from __future__ import annotations

import hmac
import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from typing import Any, NoReturn

import grpc
import numpy as np

from tasks.evaluation import EvaluationReport
from tasks.observation import ObservationSpec
from tasks.remote import link
from tasks.samples import Segment

_log = logging.getLogger(__name__)

_HEARTBEAT_S = 2.0
_STATISTICS_SPAN_S = 10.0


class Gateway:
    """Serves the link on this machine.

    Args:
        spec: The observation that workers must send.
        fingerprint: What workers must agree on; another one is refused.
        host: Address to listen on.
        max_workers: Connections for which there is room at a time.
        queue_segments: Segments that wait for ``receive`` at most; beyond them workers wait.
        token: The secret that workers must know; None: a random one.
    """

    def __init__(
        self,
        spec: ObservationSpec,
        fingerprint: str,
        *,
        host: str = "127.0.0.1",
        max_workers: int = 8,
        queue_segments: int = 256,
        token: str | None = None,
    ) -> None:
        self._spec = spec
        self._fingerprint = fingerprint
        self._queue_segments = queue_segments
        self.token = token if token is not None else secrets.token_urlsafe(32)
        self._lock = threading.Lock()
        self._arrived = threading.Condition(self._lock)
        self._has_room = threading.Condition(self._lock)
        self._queue: deque[Segment] = deque()
        self._peers: dict[str, _Peer] = {}
        self._mailboxes = {"worker": _Mailbox(), "evaluator": _Mailbox()}
        self._reports: deque[EvaluationReport] = deque()
        self._requested = 0
        self._answered = 0
        self._lock_steps: dict[int, LockStepChannel] = {}
        self._failure: BaseException | None = None
        self._is_closed = threading.Event()
        self._counters = dict.fromkeys(("segments", "bytes", "duplicates", "refused"), 0)
        self._recent: deque[tuple[float, int]] = deque()
        self._first_arrival = 0.0
        self._published_at: dict[int, float] = {}
        self._newest_version = 0
        self._seen_version = 0
        self._server = self._make_server(max_workers)
        self.address = f"{host}:{self._listen(host)}"
        self._server.start()

    # --- samples ---

    def receive(self, timeout_s: float, max_segments: int | None = None) -> list[Segment]:
        """Segments that have come in, in the order of each worker; waits for the first one.

        Args:
            timeout_s: After this time the list is empty.
            max_segments: No more than so many; the rest stays in the queue.

        Raises:
            BaseException: What ``fail`` was called with.
        """
        with self._arrived:
            self._arrived.wait_for(lambda: self._queue or self._failure or self._is_closed.is_set(), timeout_s)
            self._raise_failure()
            count = len(self._queue) if max_segments is None else min(max_segments, len(self._queue))
            segments = [self._queue.popleft() for _ in range(count)]
            self._has_room.notify_all()
        return segments

    def acknowledge(self, durable: Mapping[str, int]) -> None:
        """Tells workers that their segments up to this number are stored; they may forget them and go on."""
        with self._lock:
            peers = [(self._peers.get(worker), seq) for worker, seq in durable.items()]
            for peer, seq in peers:
                if peer is not None and seq > peer.durable:
                    peer.durable = min(seq, peer.received)
                    peer.changed.notify_all()

    def fail(self, failure: BaseException) -> None:
        """Makes every waiting and later call raise ``failure``."""
        with self._lock:
            self._failure = self._failure or failure
            self._arrived.notify_all()
        for channel in list(self._lock_steps.values()):
            channel.wake()

    # --- weights and evaluation ---

    def publish(self, weights: Mapping[str, np.ndarray], version: int) -> None:
        """Offers new weights to all workers; a worker that is slow skips to the newest ones."""
        message = link.encode_weights(weights, version)
        with self._lock:
            self._newest_version = version
            self._published_at[version] = time.monotonic()
            while len(self._published_at) > 1024:
                self._published_at.pop(next(iter(self._published_at)))
        self._mailboxes["worker"].put(message)

    def request_evaluation(
        self, weights: Mapping[str, np.ndarray], version: int, seeds: Sequence[int], clip: bool = False
    ) -> None:
        """Asks the evaluator for one episode per seed; replaces a request that it has not begun."""
        with self._lock:
            self._requested += 1
            number = self._requested
        request = link.EvaluationRequest(number, link.Weights(dict(weights), version), tuple(seeds), clip)
        self._mailboxes["evaluator"].put(link.encode_evaluation_request(request))

    def poll_evaluation(self) -> EvaluationReport | None:
        """The next report that has come in, or None."""
        with self._lock:
            self._raise_failure()
            return self._reports.popleft() if self._reports else None

    @property
    def is_evaluating(self) -> bool:
        """Whether the newest request has not been answered yet."""
        with self._lock:
            return self._answered < self._requested

    # --- lock step ---

    def lock_step_channel(self, index: int) -> LockStepChannel:
        """The channel to the lock-step worker at this place, which may join later."""
        with self._lock:
            return self._lock_steps.setdefault(index, LockStepChannel(index))

    def raise_failure(self) -> None:
        """Raises what ``fail`` was called with, if it was."""
        with self._lock:
            self._raise_failure()

    # --- state ---

    def received(self) -> dict[str, int]:
        """Sequence number up to which segments of each worker have come in."""
        with self._lock:
            return {name: peer.received for name, peer in self._peers.items() if peer.hello.role == "worker"}

    def num_connected(self, role: str = "worker") -> int:
        """Workers of this role that are connected now."""
        with self._lock:
            return sum(peer.streams > 0 for peer in self._peers.values() if peer.hello.role == role)

    def statistics(self) -> dict[str, float]:
        """Metrics under ``gateway/``."""
        now = time.monotonic()
        with self._lock:
            peers = list(self._peers.values())
            while self._recent and self._recent[0][0] < now - _STATISTICS_SPAN_S:
                self._recent.popleft()
            span_s = min(max(now - self._first_arrival, 1.0), _STATISTICS_SPAN_S)
            published_at = self._published_at.get(self._seen_version)
            return {
                "gateway/workers": float(sum(p.streams > 0 for p in peers if p.hello.role != "evaluator")),
                "gateway/samples_per_s": sum(steps for _, steps in self._recent) / span_s,
                "gateway/segments": float(self._counters["segments"]),
                "gateway/megabytes": self._counters["bytes"] / 1e6,
                "gateway/duplicates": float(self._counters["duplicates"]),
                "gateway/refused": float(self._counters["refused"]),
                "gateway/dropped": float(sum(peer.dropped for peer in peers)),
                "gateway/queue_depth": float(len(self._queue)),
                "gateway/unacknowledged": float(sum(peer.received - peer.durable for peer in peers)),
                "gateway/weights_age_s": now - published_at if published_at is not None else 0.0,
                "gateway/weights_lag": float(self._newest_version - self._seen_version),
            }

    def close(self) -> None:
        """Ends all connections. Calling it twice is fine."""
        if self._is_closed.is_set():
            return
        self._is_closed.set()
        with self._lock:
            self._arrived.notify_all()
            self._has_room.notify_all()
            for peer in self._peers.values():
                peer.changed.notify_all()
        for mailbox in self._mailboxes.values():
            mailbox.wake()
        for channel in list(self._lock_steps.values()):
            channel.close()
        self._server.stop(grace=0.2).wait(1.0)

    def __enter__(self) -> Gateway:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- the service ---

    def _make_server(self, max_workers: int) -> grpc.Server:
        # Every worker holds two streams; the rest is room for greetings and for streams whose worker has just died.
        num_threads = 2 * max_workers + 8
        options = [
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", link.MAX_MESSAGE_BYTES),
            ("grpc.max_send_message_length", link.MAX_MESSAGE_BYTES),
            ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
        ]
        server = grpc.server(_DaemonThreads(), options=options, maximum_concurrent_rpcs=num_threads)
        handlers = {
            "Hello": grpc.unary_unary_rpc_method_handler(self._hello),
            "Push": grpc.stream_stream_rpc_method_handler(self._push),
            "Weights": grpc.unary_stream_rpc_method_handler(self._newest),
            "Report": grpc.unary_unary_rpc_method_handler(self._report),
            "LockStep": grpc.stream_stream_rpc_method_handler(self._lock_step),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(link.SERVICE, handlers),))
        return server

    def _listen(self, host: str) -> int:
        try:
            return self._server.add_insecure_port(f"{host}:0")
        except RuntimeError as error:
            raise OSError(f"the gateway cannot listen on {host}: {error}") from error

    def _hello(self, message: bytes, context: grpc.ServicerContext) -> bytes:
        self._authenticate(context)
        try:
            hello = link.decode_hello(message)
        except link.LinkError as error:
            self._refuse(context, grpc.StatusCode.FAILED_PRECONDITION, str(error))
        if hello.fingerprint != self._fingerprint:
            self._refuse(
                context,
                grpc.StatusCode.FAILED_PRECONDITION,
                f"worker {hello.worker} has another task than the learner: fingerprint {hello.fingerprint!r}, "
                f"expected {self._fingerprint!r}; start both with the same task configuration and version",
            )
        with self._lock:
            peer = self._peers.get(hello.worker)
            if peer is None:
                peer = self._peers[hello.worker] = _Peer(hello, threading.Condition(self._lock))
            reply = link.HelloReply(peer.received)
        _log.info("%s joined as %s %s", hello.worker, hello.role, dict(hello.software))
        return link.encode_hello_reply(reply)

    def _push(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        """Acknowledgements to one worker, while a thread of its own takes what it sends."""
        peer = self._peer(context)
        with self._lock:
            # A worker that has come back takes over from a connection that does not know yet that it is dead.
            peer.generation += 1
            generation = peer.generation
        reader = threading.Thread(
            target=self._take_segments, args=(peer, generation, requests, context), name="gateway-push", daemon=True
        )
        reader.start()
        with self._stream_of(peer, context):
            sent = None
            while self._is_open(context) and peer.generation == generation:
                with self._lock:
                    peer.changed.wait_for(
                        lambda: peer.is_changed(sent, generation) or not self._is_open(context),  # noqa: B023
                        _HEARTBEAT_S,
                    )
                    refusal, acknowledgement = peer.refusal, peer.acknowledgement()
                if refusal is not None:
                    self._refuse(context, grpc.StatusCode.INVALID_ARGUMENT, refusal)
                sent = acknowledgement
                yield link.encode_acknowledgement(acknowledgement)

    def _take_segments(
        self, peer: _Peer, generation: int, requests: Iterator[bytes], context: grpc.ServicerContext
    ) -> None:
        try:
            for message in requests:
                received = link.decode_segment(message, self._spec)
                if received.segment.worker != peer.hello.worker:
                    raise link.LinkError(f"{peer.hello.worker} sent a segment of {received.segment.worker!r}")
                if not self._enqueue(peer, generation, received, len(message), context):
                    return
        except link.LinkError as error:
            with self._lock:
                peer.refusal = f"segment refused: {error}"
                peer.changed.notify_all()
        except grpc.RpcError:
            pass  # The worker is gone; it comes back or it is restarted.
        except Exception as error:  # grpc ends the iterator of a dead stream with a bare Exception.
            if self._is_open(context):
                _log.exception("the stream of %s broke", peer.hello.worker)
                self.fail(error)

    def _enqueue(
        self,
        peer: _Peer,
        generation: int,
        received: link.ReceivedSegment,
        num_bytes: int,
        context: grpc.ServicerContext,
    ) -> bool:
        """Queues a segment once; waits while the queue is full. False: this stream has ended."""
        segment = received.segment
        with self._lock:
            while len(self._queue) >= self._queue_segments:
                if not self._is_open(context) or peer.generation != generation:
                    return False
                self._has_room.wait(0.5)
            if peer.generation != generation:
                return False
            self._counters["bytes"] += num_bytes
            peer.dropped = received.dropped
            if segment.seq <= peer.received:
                self._counters["duplicates"] += 1
                return True
            peer.received = segment.seq
            self._queue.append(segment)
            self._count(segment)
            self._arrived.notify()
            peer.changed.notify_all()
        return True

    def _count(self, segment: Segment) -> None:
        self._counters["segments"] += 1
        self._first_arrival = self._first_arrival or time.monotonic()
        self._recent.append((time.monotonic(), segment.num_env_steps))
        while len(self._recent) > 10_000:
            self._recent.popleft()
        self._seen_version = max(self._seen_version, segment.weights_version)

    def _newest(self, _: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        peer = self._peer(context)
        mailbox = self._mailboxes.get(peer.hello.role)
        if mailbox is None:
            return
        context.add_callback(mailbox.wake)
        with self._stream_of(peer, context):
            seen = 0
            while self._is_open(context):
                seen, message = mailbox.newer_than(seen, lambda: not self._is_open(context), _HEARTBEAT_S)
                if message is not None:
                    yield message

    def _report(self, message: bytes, context: grpc.ServicerContext) -> bytes:
        peer = self._peer(context)
        try:
            report, number = link.decode_evaluation_report(message)
        except link.LinkError as error:
            self._refuse(context, grpc.StatusCode.INVALID_ARGUMENT, str(error))
        with self._lock:
            is_new = self._answered < number <= self._requested and peer.hello.role == "evaluator"
            if is_new:
                self._answered = number
                self._reports.append(report)
            if number == self._requested:
                # An evaluator that is restarted shall not do it again.
                self._mailboxes["evaluator"].clear()
        return b""

    def _lock_step(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        peer = self._peer(context)
        channel = self.lock_step_channel(peer.hello.index)
        context.add_callback(channel.wake)
        with self._stream_of(peer, context):
            generation = channel.connect()
            reader = threading.Thread(
                target=self._take_replies, args=(channel, generation, requests), name="gateway-lock-step", daemon=True
            )
            reader.start()
            while self._is_open(context):
                message = channel.next_command(generation, lambda: not self._is_open(context), _HEARTBEAT_S)
                if message is not None:
                    yield message

    def _take_replies(self, channel: LockStepChannel, generation: int, requests: Iterator[bytes]) -> None:
        try:
            for message in requests:
                channel.put_reply(generation, link.decode_lock_step_reply(message))
        except link.LinkError as error:
            self.fail(error)
        except Exception:  # grpc ends the iterator of a dead stream with a bare Exception; a restart follows.
            _log.debug("lock-step stream %d ended", channel.index, exc_info=True)

    # --- who is it ---

    def _authenticate(self, context: grpc.ServicerContext) -> dict[str, str]:
        metadata = {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}
        given = metadata.get("authorization", "").encode()
        if not hmac.compare_digest(given, f"Bearer {self.token}".encode()):
            self._refuse(context, grpc.StatusCode.UNAUTHENTICATED, "the token is not the one of this run")
        return metadata

    def _peer(self, context: grpc.ServicerContext) -> _Peer:
        name = self._authenticate(context).get("worker", "")
        with self._lock:
            peer = self._peers.get(name)
        if peer is None:
            # Not a refusal: the learner was restarted and the worker greets it again.
            context.abort(grpc.StatusCode.ABORTED, "say hello first")
            raise AssertionError("abort raises")
        return peer

    def _refuse(self, context: grpc.ServicerContext, code: grpc.StatusCode, message: str) -> NoReturn:
        with self._lock:
            self._counters["refused"] += 1
        _log.warning("refused %s: %s", context.peer(), message)
        context.abort(code, message)
        raise AssertionError("abort raises")

    def _stream_of(self, peer: _Peer, context: grpc.ServicerContext) -> _CountedStream:
        stream = _CountedStream(peer, self._lock)
        context.add_callback(stream.wake)
        return stream

    def _is_open(self, context: grpc.ServicerContext) -> bool:
        return not self._is_closed.is_set() and context.is_active()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure


class LockStepChannel:
    """Commands to one lock-step worker and its replies, one at a time."""

    def __init__(self, index: int) -> None:
        self.index = index
        self._changed = threading.Condition()
        self._generation = 0
        self._needs_reset = True
        self._command: link.LockStepCommand | None = None
        self._is_sent = False
        self._reply: link.LockStepReply | None = None
        self._is_closed = False

    def send(self, command: link.LockStepCommand) -> None:
        """Gives the worker its next command."""
        with self._changed:
            self._command, self._is_sent, self._reply = command, False, None
            self._changed.notify_all()

    def wait_reply(self, command_id: int, timeout_s: float) -> link.LockStepReply | None:
        """The reply to this command; None when it has not come in time."""
        with self._changed:
            self._changed.wait_for(lambda: self._has_reply(command_id) or self._is_closed, timeout_s)
            return self._reply if self._has_reply(command_id) else None

    def connect(self) -> int:
        """A worker has joined. It is reset first, whatever is commanded, and what was sent before it is sent again."""
        with self._changed:
            self._generation += 1
            self._needs_reset = True
            self._is_sent = False
            self._changed.notify_all()
            return self._generation

    def next_command(self, generation: int, is_over: Callable[[], bool], timeout_s: float) -> bytes | None:
        """Waits for a command that this connection has to send."""
        with self._changed:
            self._changed.wait_for(lambda: self._has_command(generation) or is_over(), timeout_s)
            if not self._has_command(generation) or self._command is None:
                return None
            command = self._command
            if self._needs_reset:
                command = command._replace(actions=None)
            self._needs_reset = False
            self._is_sent = True
        return link.encode_lock_step_command(command)

    def put_reply(self, generation: int, reply: link.LockStepReply) -> None:
        """Takes a reply of this connection."""
        with self._changed:
            if generation == self._generation:
                self._reply = reply
                self._changed.notify_all()

    def wake(self) -> None:
        """Makes all who wait look again."""
        with self._changed:
            self._changed.notify_all()

    def close(self) -> None:
        """Ends all waits."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def _has_command(self, generation: int) -> bool:
        return generation == self._generation and self._command is not None and not self._is_sent

    def _has_reply(self, command_id: int) -> bool:
        return self._reply is not None and self._reply.id == command_id


class _DaemonThreads(Executor):
    """A thread for each call; gRPC bounds their number.

    A ThreadPoolExecutor would hold up the exit of a program that forgot to close the gateway, because the calls last as
    long as their workers.
    """

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()

        def run() -> None:
            try:
                future.set_result(fn(*args, **kwargs))
            except BaseException as error:
                future.set_exception(error)

        threading.Thread(target=run, name="gateway", daemon=True).start()
        return future


class _Peer:
    """What the learner knows of one worker; guarded by the gateway's lock."""

    def __init__(self, hello: link.Hello, changed: threading.Condition) -> None:
        self.hello = hello
        self.changed = changed
        self.received = 0
        self.durable = 0
        self.dropped = 0
        self.generation = 0
        self.streams = 0
        self.refusal: str | None = None

    def acknowledgement(self) -> link.Acknowledgement:
        return link.Acknowledgement(self.received, self.durable)

    def is_changed(self, sent: link.Acknowledgement | None, generation: int) -> bool:
        return self.acknowledgement() != sent or self.refusal is not None or self.generation != generation


class _CountedStream:
    """Counts an open stream of a worker while it is entered."""

    def __init__(self, peer: _Peer, lock: threading.Lock) -> None:
        self._peer = peer
        self._lock = lock

    def wake(self) -> None:
        with self._lock:
            self._peer.changed.notify_all()

    def __enter__(self) -> None:
        with self._lock:
            self._peer.streams += 1

    def __exit__(self, *_: Any) -> None:
        with self._lock:
            self._peer.streams -= 1


class _Mailbox:
    """Holds the newest message only; encoded once and shared by all who read it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._serial = 0
        self._message: bytes | None = None

    def put(self, message: bytes) -> None:
        with self._changed:
            self._serial += 1
            self._message = message
            self._changed.notify_all()

    def clear(self) -> None:
        with self._changed:
            self._message = None

    def newer_than(self, serial: int, is_over: Callable[[], bool], timeout_s: float) -> tuple[int, bytes | None]:
        """The newest message if it was put after ``serial``, which is then replaced by its own."""
        with self._changed:
            self._changed.wait_for(lambda: self._serial > serial or is_over(), timeout_s)
            return self._serial, self._message if self._serial > serial else None

    def wake(self) -> None:
        with self._changed:
            self._changed.notify_all()
