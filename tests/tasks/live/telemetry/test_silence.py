from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from tasks.game.errors import TelemetryState
from tasks.live.telemetry.silence import Silence
from tests.tasks.live.plugin_server import PluginServer


@pytest.fixture
def server() -> Iterator[PluginServer]:
    with PluginServer() as server:
        yield server


@pytest.fixture
def connection(server: PluginServer) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        yield connection


def test_short_silence_needs_no_reason(connection: socket.socket) -> None:
    silence = Silence(connection, "127.0.0.1:9000", 1.0, now_s=100.0)
    assert silence.reason(101.0) is None


def test_silence_is_counted_from_the_last_bytes(connection: socket.socket) -> None:
    silence = Silence(connection, "127.0.0.1:9000", 1.0, now_s=100.0)
    silence.end(104.0)
    assert silence.reason(104.5) is None
    found = silence.reason(107.0)
    assert found is not None
    assert found[0] is TelemetryState.in_menu
    assert found[1].startswith("no telemetry for 3.0 s: the plugin on 127.0.0.1:9000 is connected, but silent")


def test_another_program_is_noticed_when_it_connects_and_disconnects(
    server: PluginServer, connection: socket.socket
) -> None:
    silence = Silence(connection, "127.0.0.1:9000", 1.0, now_s=0.0)
    assert state(silence, 2.0) is TelemetryState.in_menu
    with socket.create_connection(("127.0.0.1", server.port)):
        # It is looked for every two seconds.
        assert state(silence, 3.0) is TelemetryState.in_menu
        found = silence.reason(4.0)
        assert found is not None
        assert found[0] is TelemetryState.port_taken
        assert f"(process {os.getpid()}) is connected to the plugin" in found[1]
    assert state(silence, 5.0) is TelemetryState.port_taken
    assert state(silence, 6.0) is TelemetryState.in_menu


def test_without_permission_silence_counts_as_a_menu(
    connection: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    import psutil

    def denied(kind: str) -> None:
        raise psutil.AccessDenied

    monkeypatch.setattr(psutil, "net_connections", denied)
    assert state(Silence(connection, "127.0.0.1:9000", 1.0, now_s=0.0), 2.0) is TelemetryState.in_menu


def state(silence: Silence, now_s: float) -> TelemetryState | None:
    found = silence.reason(now_s)
    return None if found is None else found[0]
