"""Failed connections to a TLS port: plaintext, a client that does not trust the certificate, a scan.

gRPC tells a server nothing of them. It asks for the certificate at each new connection, though, so those after which
nobody calls can be counted. ``credentials`` makes the watch together with the certificate, the listening process reads
it.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

PATIENCE_S = 12.0
"""A connection from which nobody has called after this time has come to nothing [s]; handshakes may take 10."""

_MAX_PENDING = 4096
_MAX_CALLERS = 4096


class HandshakeWatch:
    """Counts connections and those from which somebody calls. Its methods may be called from any thread.

    Args:
        now: Seconds of a clock that never goes back.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._pending: deque[float] = deque()
        self._callers: dict[str, None] = {}
        self._lost = 0

    def began(self) -> None:
        """A connection was made."""
        with self._lock:
            if len(self._pending) >= _MAX_PENDING:
                self._pending.popleft()
                self._lost += 1
            self._pending.append(self._now())

    def called(self, peer: str) -> None:
        """Somebody called from this address and port."""
        with self._lock:
            if peer in self._callers:
                return
            self._callers[peer] = None
            if len(self._callers) > _MAX_CALLERS:
                self._callers.pop(next(iter(self._callers)))
            if self._pending:
                # The newest: who calls does so right after the handshake.
                self._pending.pop()

    def take_lost(self) -> int:
        """Connections that have come to nothing since the last time."""
        with self._lock:
            while self._pending and self._now() - self._pending[0] > PATIENCE_S:
                self._pending.popleft()
                self._lost += 1
            lost, self._lost = self._lost, 0
        return lost
