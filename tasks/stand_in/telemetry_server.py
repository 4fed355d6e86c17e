"""The plugin's side of the telemetry connection: a server for one client, a record per frame. ``game.py`` owns one.

Like the real plugin it serves one client only. It notices at the next failed write that the client has disconnected,
and then listens again, which resets waiting connections.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Sequence

from tasks.game.protocols import Telemetry
from tasks.stand_in.ports import HOST, Listener, reset

_PIECE_GAP_S = 0.0003


class TelemetryServer:
    """Sends records to the one client that is served."""

    def __init__(self, port: int, num_floats: int = 11) -> None:
        """Opens the port.

        Args:
            port: 0: a free one.
            num_floats: How much of a record is sent, from its beginning.
        """
        self._record = struct.Struct(f"<{num_floats}f")
        self._num_floats = num_floats
        self._listener = Listener(port)
        self._client: socket.socket | None = None
        self._other: socket.socket | None = None
        self._is_loaded = True
        self._held: list[bytes] = []
        self._unsent = b""
        self._skip = 0
        self.num_records = 0
        """Written so far."""
        self.num_clients = 0
        """Served so far, one after the other."""

    @property
    def port(self) -> int:
        """The port, also while it is closed."""
        return self._listener.port

    @property
    def has_client(self) -> bool:
        """Whether a client is connected."""
        return self._client is not None

    def serve(self) -> None:
        """Takes the next client when there is none. Called once a frame."""
        if not self._is_loaded or self._client is not None or not self._listener.try_open():
            return
        self._client = self._listener.accept()
        self.num_clients += self._client is not None

    def publish(self, telemetry: Telemetry, pieces: Sequence[int] = (), burst: int = 1) -> None:
        """Writes a record.

        Args:
            telemetry: What the record holds.
            pieces: Sizes of the writes [bytes]; empty: one write.
            burst: Records are held back until there are so many.
        """
        if self._client is None:
            return
        self._held.append(self._record.pack(*telemetry[: self._num_floats]))
        if len(self._held) < burst:
            return
        records, self._held = self._held, []
        if not self._flush():
            return  # the client does not read: these records are lost to it
        data = b"".join(records)
        self.num_records += len(records)
        if self._skip:
            data, self._skip = data[self._skip :], max(0, self._skip - len(data))
        for piece in _cut(data, pieces):
            self._write(piece)
            if pieces:
                time.sleep(_PIECE_GAP_S)

    def skip(self, num_bytes: int) -> None:
        """Leaves out the next bytes."""
        self._skip = num_bytes

    def close_client(self) -> None:
        """Ends the connection in good order."""
        if self._client is not None:
            self._client.close()
        self._forget_client()

    def reset_client(self) -> None:
        """Ends the connection with RST."""
        if self._client is not None:
            reset(self._client)
        self._forget_client()

    def occupy(self) -> None:
        """Drops the client and serves another one, which stays until ``vacate``; it reads nothing that it must."""
        if self._other is not None:
            return
        self.close_client()
        self._listener.open()
        self._other = socket.create_connection((HOST, self.port), timeout=5.0)
        self._client = self._listener.accept()

    def vacate(self) -> None:
        """Disconnects the other client."""
        if self._other is not None:
            self._other.close()
            self._other = None

    def drain_other(self) -> None:
        """The other client reads what it was sent."""
        if self._other is not None:
            self._other.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                self._other.recv(1 << 16)

    def unload(self) -> None:
        """Closes the port and the connection, as when the plugin is unloaded."""
        self._is_loaded = False
        self.close_client()

    def load(self) -> None:
        """Opens the port again, at the next frame."""
        self._is_loaded = True

    def close(self) -> None:
        """Closes everything. Calling it twice is fine."""
        self.vacate()
        self.unload()

    def _flush(self) -> bool:
        """Sends the rest of an earlier write; False while the client does not read."""
        rest, self._unsent = self._unsent, b""
        self._write(rest)
        return self._client is not None and not self._unsent

    def _write(self, data: bytes) -> None:
        """Writes without blocking; what does not fit is kept, so that records stay whole."""
        if self._client is None or not data:
            return
        if self._unsent:
            self._unsent += data
            return
        try:
            sent = self._client.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.close_client()
            return
        self._unsent = data[sent:]

    def _forget_client(self) -> None:
        """Forgets the client and stops listening, which resets the connections that wait, until the next frame."""
        self._client = None
        self._unsent = b""
        self._held.clear()
        self._listener.close()


def _cut(data: bytes, pieces: Sequence[int]) -> list[bytes]:
    """Cuts each record's worth of ``data`` at the same places."""
    if not pieces:
        return [data]
    cut = []
    start = index = 0
    while start < len(data):
        size = pieces[index % len(pieces)]
        cut.append(data[start : start + size])
        start, index = start + size, index + 1
    return cut
