"""What a learner gives to a relay: the newest weights and the newest request for an evaluation, each as soon as it can.

``relay_link`` owns one. What a slow or absent relay missed it never gets; a relay that was restarted gets again what is
still of use.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from enum import Enum

import grpc

from tasks.remote.access.dialing import Dialled
from tasks.remote.wire.methods import path_of

_log = logging.getLogger(__name__)

_TIMEOUT_S = 120.0
_PAUSE_S = 0.2
_POLL_S = 2.0


class Kind(Enum):
    """What is published."""

    weights = "weights"
    request = "request"


class RelayPublisher:
    """Publishes from a thread of its own.

    Args:
        relay: Where to.
        metadata: Who publishes.
        on_failure: Called once when the relay does not want something.
    """

    def __init__(
        self,
        relay: Dialled,
        metadata: tuple[tuple[str, str], ...],
        on_failure: Callable[[BaseException], None],
    ) -> None:
        self._relay = relay
        self._publish = relay.channel.unary_unary(path_of("Publish"))
        self._metadata = metadata
        self._on_failure = on_failure
        self._changed = threading.Condition()
        self._newest: dict[Kind, bytes] = {}
        self._unsent: dict[Kind, bytes] = {}
        self._is_connected = False
        self._is_closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="relay-publish", daemon=True)
        self._thread.start()

    def put(self, kind: Kind, message: bytes) -> None:
        """Replaces what there is of this kind; never waits."""
        with self._changed:
            self._newest[kind] = self._unsent[kind] = message
            self._changed.notify_all()

    def withdraw(self, kind: Kind) -> None:
        """What there is of this kind is of no use any more."""
        with self._changed:
            self._newest.pop(kind, None)
            self._unsent.pop(kind, None)

    def set_connected(self, is_connected: bool) -> None:
        """Says whether the relay is there; one that has come back may have been restarted since it got anything."""
        with self._changed:
            if is_connected and not self._is_connected:
                self._unsent.update(self._newest)
            self._is_connected = is_connected
            self._changed.notify_all()

    def close(self, grace_s: float) -> None:
        """Ends the thread; the channel must be closed, or it may still be sending."""
        self._is_closed.set()
        with self._changed:
            self._changed.notify_all()
        self._thread.join(grace_s)

    def _run(self) -> None:
        try:
            while not self._is_closed.is_set():
                found = self._take()
                if found is not None:
                    self._send(*found)
        except Exception as error:
            # gRPC answers calls on a closed channel with a ValueError.
            if not self._is_closed.is_set():
                self._on_failure(error)

    def _take(self) -> tuple[Kind, bytes] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._is_ready() or self._is_closed.is_set(), _POLL_S)
            if not self._is_ready():
                return None
            kind = next(iter(self._unsent))
            return kind, self._unsent.pop(kind)

    def _is_ready(self) -> bool:
        return self._is_connected and bool(self._unsent)

    def _send(self, kind: Kind, message: bytes) -> None:
        try:
            self._publish(message, metadata=self._metadata, timeout=_TIMEOUT_S)
        except grpc.RpcError as error:
            if self._is_closed.is_set():
                return
            self._relay.raise_final(error)
            _log.info("the %s did not reach the relay (%s)", kind.value, error.code().name)
            with self._changed:
                # Unless there is a newer one by now, or none is wanted any more.
                if self._newest.get(kind) is message:
                    self._unsent.setdefault(kind, message)
            self._is_closed.wait(_PAUSE_S)
