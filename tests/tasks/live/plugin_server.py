"""The plugin's side of the telemetry connection, controlled by the test: it listens, accepts and sends on request."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Sequence

TIMEOUT_S = 20.0
"""Limit of every wait [s]."""


class PluginServer:
    """A listening socket on this machine; ``listening=False`` binds the port and refuses connections."""

    def __init__(self, *, listening: bool = True, port: int = 0) -> None:
        self._server = socket.socket()
        self._server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._server.bind(("127.0.0.1", port))
        self._server.settimeout(TIMEOUT_S)
        self.port: int = self._server.getsockname()[1]
        self.peers: list[socket.socket] = []
        if listening:
            self.listen()

    def __enter__(self) -> PluginServer:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def listen(self) -> None:
        self._server.listen(5)

    def accept(self) -> socket.socket:
        """The next client."""
        peer, _ = self._server.accept()
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.peers.append(peer)
        return peer

    def close(self) -> None:
        """Like the end of the game: connected clients are closed, waiting ones are reset."""
        self._server.close()
        for peer in self.peers:
            peer.close()


class Streaming:
    """Sends pieces one after the other at an interval, in a loop, as a running game does.

    To a client, or to the next one: ``server.accept``.
    """

    def __init__(
        self, peer: socket.socket | Callable[[], socket.socket], pieces: Sequence[bytes], interval_s: float = 0.01
    ) -> None:
        self._peer = peer
        self._pieces = pieces
        self._interval_s = interval_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Streaming:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join(TIMEOUT_S)

    def _run(self) -> None:
        # The client may leave first.
        with contextlib.suppress(OSError):
            peer = self._peer if isinstance(self._peer, socket.socket) else self._peer()
            while True:
                for piece in self._pieces:
                    peer.sendall(piece)
                    if self._stop.wait(self._interval_s):
                        return


def reset(peer: socket.socket) -> None:
    """Ends a connection with RST instead of FIN, as a killed game does."""
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()


def until(condition: Callable[[], bool], timeout_s: float = TIMEOUT_S) -> None:
    """Waits for a condition, in small steps."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"did not come true within {timeout_s} s")
        time.sleep(0.005)
