"""The learner's end of lock-step workers: commands to each and its replies, one at a time.

``gateway`` serves the method, on the port of this machine only; ``lock_step`` steps through the channels.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator

from tasks.remote.station.calls import Call
from tasks.remote.station.worker_service import HEARTBEAT_S, WorkerService
from tasks.remote.wire import link

_log = logging.getLogger(__name__)


class LockStepChannels:
    """A channel to the worker at each place; serves the method ``LockStep``.

    Args:
        service: Keeps the streams of workers.
        on_failure: Called when a reply cannot be read.
    """

    def __init__(self, service: WorkerService, on_failure: Callable[[BaseException], None]) -> None:
        self._service = service
        self._on_failure = on_failure
        self._lock = threading.Lock()
        self._channels: dict[int, LockStepChannel] = {}

    def channel(self, index: int) -> LockStepChannel:
        """The channel to the worker at this place, which may join later."""
        with self._lock:
            return self._channels.setdefault(index, LockStepChannel(index))

    def serve(self, requests: Iterator[bytes], call: Call) -> Iterator[bytes]:
        """Commands to one worker, while a thread of its own takes its replies."""
        with self._service.stream("lock_step", call) as peer:
            channel = self.channel(peer.hello.index)
            call.wakes(channel.wake)
            generation = channel.connect()
            reader = threading.Thread(
                target=self._take_replies, args=(channel, generation, requests), name="take-replies", daemon=True
            )
            reader.start()
            while call.is_open:
                message = channel.next_command(generation, lambda: not call.is_open, HEARTBEAT_S)
                if message is not None:
                    yield message

    def wake(self) -> None:
        """Makes all who wait look again."""
        for channel in list(self._channels.values()):
            channel.wake()

    def close(self) -> None:
        """Ends all waits."""
        for channel in list(self._channels.values()):
            channel.close()

    def _take_replies(self, channel: LockStepChannel, generation: int, requests: Iterator[bytes]) -> None:
        try:
            for message in requests:
                channel.put_reply(generation, link.decode_lock_step_reply(message))
        except link.LinkError as error:
            self._on_failure(error)
        except Exception:  # grpc ends the iterator of a dead stream with a bare Exception; a restart follows.
            _log.debug("lock-step stream %d ended", channel.index, exc_info=True)


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
