"""The reason why a connection to the plugin is silent: a menu, or another program that the plugin serves instead.

``tasks.live.telemetry.openplanet`` calls it while nothing arrives.
"""

from __future__ import annotations

import math
import socket

from tasks.game.errors import TelemetryState
from tasks.live.telemetry import status as telemetry_status

_HOLDER_CHECK_S = 2.0
"""Interval between searches for other connected programs, which take 10 ms and more [s]."""


class Silence:
    """How long a connection has been silent, and why."""

    def __init__(self, connection: socket.socket, name: str, max_age_s: float, now_s: float) -> None:
        """Starts to measure silence with the connection.

        Args:
            connection: To the plugin.
            name: Of the plugin's address, for people.
            max_age_s: So long a silence needs no reason [s].
            now_s: The present time [s].
        """
        self._connection = connection
        self._name = name
        self._max_age_s = max_age_s
        self.end(now_s)

    def end(self, now_s: float) -> None:
        """Ends the silence: bytes have arrived."""
        self._since_s = now_s
        self._holder: str | None = None
        self._next_check_s = -math.inf

    def reason(self, now_s: float) -> tuple[TelemetryState, str] | None:
        """State and message; None while the silence is short."""
        silent_s = now_s - self._since_s
        if silent_s <= self._max_age_s:
            return None
        if now_s >= self._next_check_s:
            self._holder = _other_program(self._connection)
            self._next_check_s = now_s + _HOLDER_CHECK_S
        if self._holder is not None:
            return TelemetryState.port_taken, telemetry_status.port_taken(self._name, silent_s, self._holder)
        return TelemetryState.in_menu, telemetry_status.in_menu(self._name, silent_s)


def _other_program(connection: socket.socket) -> str | None:
    """Another program that is connected to the peer of this connection, for people; None: none, or unknown."""
    try:
        import psutil
    except ImportError:
        return None
    try:
        own, peer = connection.getsockname(), connection.getpeername()
        for entry in psutil.net_connections("tcp"):
            is_to_peer = bool(entry.raddr) and tuple(entry.raddr) == peer and tuple(entry.laddr) != own
            if is_to_peer and entry.status == psutil.CONN_ESTABLISHED:
                return _program_name(entry.pid)
    except (psutil.Error, OSError):
        # Not allowed everywhere; then a taken port looks like a menu.
        return None
    return None


def _program_name(pid: int | None) -> str:
    import psutil

    if pid is None:
        return "another program"
    try:
        return f"{psutil.Process(pid).name()} (process {pid})"
    except psutil.Error:
        return f"another program (process {pid})"
