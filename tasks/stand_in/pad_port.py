"""Analog controls over a socket, for tests on machines without a virtual gamepad. ``inputs.py`` reads it.

Only the stand-in game has it; no code that drives the real game uses it. A client connects to the port and
writes records of 16 bytes, little-endian: gas, brake, steer as float32, then the buttons as uint32, with the gamepad's
bits (A 0x1000, B 0x2000). The newest record holds until the next; when the client disconnects, everything is released.
"""

from __future__ import annotations

import math
import socket
import struct
from typing import NamedTuple

from tasks.stand_in.ports import Listener

RECORD = struct.Struct("<3fI")
BUTTON_A = 0x1000
BUTTON_B = 0x2000


class PadReading(NamedTuple):
    """How the pad is held, and what was pressed since the last reading."""

    gas: float = 0.0
    brake: float = 0.0
    steer: float = 0.0
    pressed: int = 0
    """Bits of the buttons that went down."""


class PadPort:
    """Reads the newest record of the newest client."""

    def __init__(self, port: int) -> None:
        """Opens the port; 0: a free one."""
        self._listener = Listener(port)
        self._client: socket.socket | None = None
        self._buffer = b""
        self._held = 0
        self._reading = PadReading()

    @property
    def port(self) -> int:
        """Number of the port."""
        return self._listener.port

    def read(self) -> PadReading:
        """How the pad is held now. Called once a frame."""
        newer = self._listener.accept()
        if newer is not None:
            self._drop_client()
            self._client = newer
        has_left = self._receive()
        pressed = 0
        whole = len(self._buffer) - len(self._buffer) % RECORD.size
        for gas, brake, steer, buttons in RECORD.iter_unpack(self._buffer[:whole]):
            pressed |= buttons & ~self._held
            self._held = buttons
            if math.isfinite(gas + brake + steer):
                self._reading = PadReading(gas, brake, steer)
        self._buffer = self._buffer[whole:]
        if has_left:
            self._drop_client()
        return self._reading._replace(pressed=pressed)

    def close(self) -> None:
        """Closes the port and the connection. Calling it twice is fine."""
        self._drop_client()
        self._listener.close()

    def _receive(self) -> bool:
        """Takes what has arrived; returns whether the client has left."""
        while self._client is not None:
            try:
                data = self._client.recv(1 << 14)
            except BlockingIOError:
                return False
            except OSError:
                return True
            if not data:
                return True
            self._buffer += data
        return False

    def _drop_client(self) -> None:
        """Releases everything."""
        if self._client is not None:
            self._client.close()
        self._client = None
        self._buffer = b""
        self._held = 0
        self._reading = PadReading()
