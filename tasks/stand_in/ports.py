"""Listening sockets of the stand-in game, on this machine only, never blocking its frames.

``TelemetryServer``, ``GhostPort`` and ``PadPort`` are built on it.
"""

from __future__ import annotations

import contextlib
import socket
import struct

HOST = "127.0.0.1"


class Listener:
    """A port that others can connect to; it can be closed for a while and opened again under the same number."""

    def __init__(self, port: int) -> None:
        """Opens the port.

        Args:
            port: Its number; 0: a free one.

        Raises:
            OSError: It is in use.
        """
        self._socket: socket.socket | None = None
        self.port = port
        self.open()
        assert self._socket is not None
        self.port = self._socket.getsockname()[1]

    def open(self) -> None:
        """Listens; does nothing when it does already."""
        if self._socket is not None:
            return
        listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((HOST, self.port))
            listening.listen(8)
            listening.setblocking(False)
        except OSError as error:
            listening.close()
            raise OSError(error.errno, f"port {self.port} cannot be opened ({error.strerror}): name another") from error
        self._socket = listening

    def try_open(self) -> bool:
        """Listens unless another program has taken the port; returns whether it does."""
        try:
            self.open()
        except OSError:
            return False
        return True

    def accept(self) -> socket.socket | None:
        """The next connection, not blocking, or None."""
        if self._socket is None:
            return None
        try:
            connection, _ = self._socket.accept()
        except (BlockingIOError, ConnectionError):
            return None
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def close(self) -> None:
        """Stops listening; who waits in the backlog is reset. Calling it twice is fine."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def reset(connection: socket.socket) -> None:
    """Ends a connection with RST."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
