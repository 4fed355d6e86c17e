"""The link of a worker: numbers segments, keeps their bytes in memory, and sends them over an ``OutboxUplink``.

What is not stored when the process ends is lost: a worker beside its learner may, and a remote one hands its segments
to its station. Also takes the commands of a learner that steps the environments itself (``serve_lock_step``).
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import grpc

from tasks.experience.samples import Segment
from tasks.remote.station.outbox_uplink import OutboxUplink
from tasks.remote.wire import link

if TYPE_CHECKING:
    from tasks.remote.access.credentials import ClientCredentials


class Uplink(OutboxUplink):
    """A ``WorkerLink`` to a learner, a relay or a station; it is its own outbox.

    Args:
        address: host:port of the learner.
        token: The secret of the run, or of this worker.
        hello: Who this worker is.
        stop: Ends every wait once it is set; ``wake`` makes the waits notice at once.
        window: Segments that are not stored, at which ``wait_for_room`` waits.
        buffer_segments: Segments that are not stored kept at most; beyond them the oldest are dropped.
        compress: Whether images are compressed.
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
        window: int = 4,
        buffer_segments: int = 512,
        compress: bool = False,
        credentials: ClientCredentials | None = None,
        hangs_for_s: Callable[[], float] = lambda: 0.0,
        peer: str = "the learner",
    ) -> None:
        super().__init__(
            address, token, hello, stop, outbox=self, credentials=credentials, hangs_for_s=hangs_for_s, peer=peer
        )
        self._window = window
        self._buffer_segments = buffer_segments
        self._compress = compress
        self._kept: deque[tuple[int, bytes]] = deque()
        self._received = 0
        self.last_seq = 0
        """Number of the last segment given to ``send``."""
        self.dropped = 0
        """Segments dropped because there was no room, before the other side had them."""
        self._commands: grpc.Call | None = None
        self._replies: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()

    # --- segments ---

    def wait_for_room(self, poll_s: float = 1.0, is_over: Callable[[], bool] = lambda: False) -> bool:
        """Waits while ``window`` segments are not stored.

        Args:
            poll_s: How often ``is_over`` is asked.
            is_over: True ends the wait.

        Returns:
            False when ``stop`` was set instead.
        """
        with self._changed:
            while not (self.has_room or self._stop.is_set() or self._failure is not None or is_over()):
                self._changed.wait(poll_s)
        self.raise_failure()
        return not self._stop.is_set()

    @property
    def has_room(self) -> bool:
        """Whether ``wait_for_room`` would not wait."""
        return len(self._kept) < self._window

    def send(self, segment: Segment) -> None:
        """Numbers a segment, makes bytes of it and keeps them until they are stored; never waits.

        Where the oldest is dropped to make room, a number is missing: that is how the learner knows that its rows are.
        """
        with self._changed:
            self.last_seq += 1
            numbered = replace(segment, seq=self.last_seq)
            self._kept.append((self.last_seq, link.encode_segment(numbered, self.dropped, self._compress)))
            if len(self._kept) > self._buffer_segments:
                oldest, _ = self._kept.popleft()
                self.dropped += oldest > self._received
            self._changed.notify_all()
        self.raise_failure()

    @property
    def unreceived(self) -> int:
        """Segments given to ``send`` that the other side has not got."""
        return max(self.last_seq - self._received, 0)

    def bytes_after(self, seq: int) -> int:
        """What the segments given to ``send`` behind this number hold."""
        with self._changed:
            return sum(len(message) for number, message in self._kept if number > seq)

    # --- its own outbox ---

    def after(self, seq: int) -> tuple[int, bytes] | None:
        """As ``Outbox.after``."""
        return next((entry for entry in self._kept if entry[0] > seq), None)

    def resume(self, received: int) -> None:
        """As ``Outbox.resume``."""
        self._received = received

    def acknowledge(self, received: int, durable: int) -> bool:
        """As ``Outbox.acknowledge``."""
        self._received = received
        before = len(self._kept)
        while self._kept and self._kept[0][0] <= durable:
            self._kept.popleft()
        return len(self._kept) < before

    # --- lock step ---

    def start_lock_step(self) -> None:
        """Says that this worker takes commands, which wait for ``serve_lock_step``."""
        self._commands = self._open("LockStep", iter(self._replies.get, None))

    def serve_lock_step(
        self, answer: Callable[[bytes], bytes], evaluate: Callable[[bytes | bytearray], None] | None = None
    ) -> None:
        """Answers commands until ``stop`` is set or the learner hangs up; after ``start_lock_step``.

        Args:
            answer: Makes the reply to a command.
            evaluate: Called with an evaluation request, between two commands and in the same thread.
        """
        call, replies = self._commands, self._replies
        assert call is not None
        try:
            if evaluate is not None:
                self._answer_and_evaluate(call, lambda message: replies.put(answer(message)), evaluate)
            else:
                for message in call:
                    replies.put(answer(message))
        except grpc.RpcError as error:
            if not self._stop.is_set():
                self._dialled.raise_final(error)
                raise ConnectionError(
                    f"the learner closed the connection: {error.code().name} {error.details()}"
                ) from error
        finally:
            replies.put(None)
            call.cancel()

    def _answer_and_evaluate(
        self, call: grpc.Call, answer: Callable[[bytes], None], evaluate: Callable[[bytes | bytearray], None]
    ) -> None:
        """Takes commands and evaluation requests as they come."""
        commands = _Commands(call, self._changed)
        while not self._stop.is_set():
            with self._changed:
                self._changed.wait_for(lambda: commands.is_ready or self.has_request or self._stop.is_set(), 1.0)
                command = commands.messages.popleft() if commands.messages else None
            if command is not None:
                answer(command)
            elif (request := self.take_request()) is not None:
                evaluate(request)
            elif commands.is_over:
                if commands.error is not None:
                    raise commands.error
                return


class _Commands:
    """What a stream of commands brings, read by a thread of its own; ``changed`` guards it and is notified."""

    def __init__(self, call: grpc.Call, changed: threading.Condition) -> None:
        self.messages: deque[bytes] = deque()
        self.is_over = False
        self.error: BaseException | None = None
        """What ended the stream."""
        self._call = call
        self._changed = changed
        threading.Thread(target=self._read, name="lock-step-commands", daemon=True).start()

    @property
    def is_ready(self) -> bool:
        """Whether there is a command, or none will come any more."""
        return bool(self.messages) or self.is_over

    def _read(self) -> None:
        try:
            for message in self._call:
                with self._changed:
                    self.messages.append(message)
                    self._changed.notify_all()
        except Exception as error:
            self.error = error
        finally:
            with self._changed:
                self.is_over = True
                self._changed.notify_all()
