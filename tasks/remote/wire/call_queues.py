"""The two directions of a gRPC call as queues: what it brings, read by a thread, and what it shall send.

``uplink`` answers lock-step commands with them.
"""

from __future__ import annotations

import threading
from collections import deque

import grpc


class IncomingMessages:
    """What a stream brings, read by a thread of its own.

    Args:
        call: The stream.
        changed: Guards ``messages``; notified of each, and of the end.
    """

    def __init__(self, call: grpc.Call, changed: threading.Condition) -> None:
        self.messages: deque[bytes] = deque()
        self.is_over = False
        """Whether none will come any more."""
        self.error: BaseException | None = None
        """What ended the stream."""
        self._call = call
        self._changed = changed
        threading.Thread(target=self._read, name="lock-step-commands", daemon=True).start()

    @property
    def is_ready(self) -> bool:
        """Whether there is a message, or none will come any more."""
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


class OutgoingMessages:
    """A queue of one stream's requests; None ends it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._messages: deque[bytes | None] = deque()

    def put(self, message: bytes | None) -> None:
        """Adds a message."""
        with self._changed:
            self._messages.append(message)
            self._changed.notify()

    def take(self) -> bytes | None:
        """Waits for the next message; ends with the one that ends the stream."""
        with self._changed:
            while not self._messages:
                self._changed.wait(1.0)
            return self._messages.popleft()
