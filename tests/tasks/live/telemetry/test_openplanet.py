from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import accumulate

import pytest

from tasks.config import TelemetryRecord
from tasks.game.errors import TelemetryError, TelemetryState
from tasks.live.telemetry.openplanet import OpenPlanetClient, save_ghost, telemetry_arrives
from tests.tasks.live.plugin_server import TIMEOUT_S, PluginServer, Streaming, reset, until
from tests.tasks.live.telemetry_bytes import DRIVING, FINISHED, NAN, NUMBERS, STANDING, moving, with_float

CONFIRMED = 5 * STANDING
"""Records that make a connection trusted."""
LONG_S = 60.0


def speed(client: OpenPlanetClient) -> float | None:
    """Speed of the newest record; None when there is no usable one."""
    try:
        return client.newest()[0].speed
    except TelemetryError:
        return None


def error(client: OpenPlanetClient) -> TelemetryError:
    with pytest.raises(TelemetryError) as caught:
        client.newest()
    return caught.value


# --- how records arrive ---


@pytest.mark.parametrize("cuts", [[44], [4] * 11, [17, 27]], ids=["whole", "11x4", "17+27"])
def test_newest_record_is_complete_however_it_is_cut(cuts: list[int]) -> None:
    with PluginServer() as server, OpenPlanetClient(server.port, max_age_s=LONG_S) as client:
        peer = server.accept()
        peer.sendall(CONFIRMED)
        until(lambda: speed(client) == 0.0)
        for record in (FINISHED, DRIVING):
            for start, size in zip(accumulate(cuts, initial=0), cuts, strict=False):
                peer.sendall(record[start : start + size])
                time.sleep(0.005)
        until(lambda: speed(client) == 12.5)
        newest, age_s = client.newest()
        assert newest[:11] == (12.5, 100.25, 512.0, 10.0, -3.5, -0.25, 1.0, 0.0, 0.0, 3.0, 7000.0)
        assert 0.0 <= age_s < TIMEOUT_S
        assert client.status().num_records == 7


def test_partial_record_is_not_handed_out() -> None:
    with PluginServer() as server, OpenPlanetClient(server.port, max_age_s=LONG_S) as client:
        peer = server.accept()
        peer.sendall(CONFIRMED + DRIVING[:43])
        until(lambda: speed(client) == 0.0)
        with pytest.raises(TelemetryError):
            client.wait_newer(0.2)
        peer.sendall(DRIVING[43:])
        until(lambda: speed(client) == 12.5)


def test_last_record_of_a_burst_is_the_newest() -> None:
    with PluginServer() as server, OpenPlanetClient(server.port, max_age_s=LONG_S) as client:
        server.accept().sendall(CONFIRMED + 19 * DRIVING + FINISHED)
        until(lambda: speed(client) == 20.0)
        assert client.newest()[0].finished == 1.0
        assert client.status().num_records == 25


@pytest.mark.parametrize(("record", "num_floats"), [("floats8", 8), ("floats33", 33)])
def test_record_of_another_plugin_is_read_with_its_layout(record: str, num_floats: int) -> None:
    with (
        PluginServer() as server,
        OpenPlanetClient(server.port, record=TelemetryRecord[record], max_age_s=LONG_S) as client,
    ):
        speed_index = 0 if num_floats == 8 else 16
        server.accept().sendall(5 * with_float(bytes(4 * num_floats), speed_index, NUMBERS[7]))
        until(lambda: speed(client) == 7.0)


def test_receiving_is_reported_with_its_rate() -> None:
    with (
        PluginServer() as server,
        OpenPlanetClient(server.port, max_age_s=LONG_S) as client,
        Streaming(server.accept(), [STANDING]),
    ):
        until(lambda: client.status().num_records > 20)
        status = client.status()
        assert status.state is client.state is TelemetryState.receiving
        # A record every 10 ms, later ones when the machine is busy.
        assert 1.0 < status.rate_hz <= 110.0
        assert status.age_s is not None
        assert status.num_reconnects == 0
        assert status.message.startswith("telemetry arrives at ")


# --- waiting ---


def test_wait_newer_returns_a_record_that_arrives_after_the_call() -> None:
    with PluginServer() as server, OpenPlanetClient(server.port, max_age_s=LONG_S) as client:
        peer = server.accept()
        peer.sendall(CONFIRMED)
        until(lambda: speed(client) == 0.0)
        with Streaming(peer, [DRIVING], interval_s=0.2):
            assert client.wait_newer(TIMEOUT_S)[0].speed == 12.5


def test_wait_newer_gives_up_after_its_time() -> None:
    with PluginServer() as server, OpenPlanetClient(server.port, max_age_s=LONG_S) as client:
        server.accept().sendall(CONFIRMED)
        until(lambda: speed(client) == 0.0)
        with pytest.raises(TelemetryError, match=r"no newer telemetry within 0.05 s; the newest is .* s old") as caught:
            client.wait_newer(0.05)
        assert caught.value.state is TelemetryState.receiving
        assert caught.value.age_s is not None


def test_wait_newer_waits_through_a_reconnection() -> None:
    with PluginServer() as server, OpenPlanetClient(server.port, max_age_s=LONG_S) as client:
        peer = server.accept()
        peer.sendall(CONFIRMED)
        until(lambda: speed(client) == 0.0)
        reset(peer)
        with Streaming(server.accept, [DRIVING]):
            assert client.wait_newer(TIMEOUT_S)[0].speed == 12.5


def test_waiter_finds_a_first_record_together_with_its_state(monkeypatch: pytest.MonkeyPatch) -> None:
    tell = OpenPlanetClient._tell

    def slow_tell(client: OpenPlanetClient, state: TelemetryState, message: str) -> None:
        time.sleep(0.1)
        tell(client, state, message)

    monkeypatch.setattr(OpenPlanetClient, "_tell", slow_tell)
    with PluginServer() as server, OpenPlanetClient(server.port, max_age_s=LONG_S) as client:
        assert error(client).state is TelemetryState.connecting
        with Streaming(server.accept, [STANDING]):
            assert client.wait_newer(TIMEOUT_S)[0].x == 512.0


# --- faults, their messages, and that reading continues ---


def test_silence_counts_as_a_menu_until_the_next_record() -> None:
    with PluginServer() as server, OpenPlanetClient(server.port, max_age_s=0.3) as client:
        peer = server.accept()
        peer.sendall(CONFIRMED)
        until(lambda: client.status().num_records == 5)
        until(lambda: client.state is TelemetryState.in_menu)
        caught = error(client)
        assert caught.state is TelemetryState.in_menu
        assert "in a menu" in str(caught)
        assert "Load a map" in str(caught)
        assert caught.age_s is not None
        assert caught.age_s > 0.3
        with Streaming(peer, [DRIVING]):
            until(lambda: speed(client) == 12.5)
            assert client.status().num_reconnects == 0


def test_a_menu_at_the_start_is_reported() -> None:
    with PluginServer() as server, OpenPlanetClient(server.port, max_age_s=0.2) as client:
        peer = server.accept()
        until(lambda: client.state is TelemetryState.in_menu)
        assert error(client).age_s is None
        with Streaming(peer, [STANDING]):
            until(lambda: speed(client) == 0.0)


@pytest.mark.parametrize("end", [reset, socket.socket.close], ids=["RST", "FIN"])
def test_broken_connection_is_made_again(end: object) -> None:
    with PluginServer() as server, OpenPlanetClient(server.port, max_age_s=LONG_S) as client:
        peer = server.accept()
        peer.sendall(CONFIRMED)
        until(lambda: speed(client) == 0.0)
        end(peer)  # type: ignore[operator]
        until(lambda: client.state is TelemetryState.lost)
        caught = error(client)
        assert caught.state is TelemetryState.lost
        assert f"127.0.0.1:{server.port} broke" in str(caught)
        assert "connecting again" in str(caught)
        server.accept().sendall(5 * DRIVING)
        until(lambda: speed(client) == 12.5)
        assert client.status().num_reconnects == 1
        assert client.status().num_records == 10


def test_half_a_record_of_a_broken_connection_does_not_shift_the_next_one() -> None:
    with PluginServer() as server, OpenPlanetClient(server.port, max_age_s=LONG_S) as client:
        peer = server.accept()
        peer.sendall(CONFIRMED + DRIVING[:20])
        until(lambda: speed(client) == 0.0)
        peer.close()
        server.accept().sendall(5 * FINISHED)
        until(lambda: speed(client) == 20.0)


@pytest.mark.skipif(sys.platform != "linux", reason="reads the processor time of another thread")
def test_server_that_closes_at_once_is_asked_with_growing_pauses_and_without_spinning() -> None:
    with PluginServer() as server, OpenPlanetClient(server.port) as client:
        thread = next(entry for entry in threading.enumerate() if entry.name.endswith(f":{server.port}"))
        assert thread.ident is not None
        clock = time.pthread_getcpuclockid(thread.ident)
        deadline = time.monotonic() + 1.5
        while time.monotonic() < deadline:
            server.accept().close()
        # 50, 100, 200, 400, 800 ms and then 1 s: 5 pauses fit. A loop without them makes thousands of connections.
        assert client.status().num_reconnects <= 6
        assert time.clock_gettime(clock) < 0.3
        assert client.state is TelemetryState.lost


@pytest.mark.skipif(sys.platform != "linux", reason="reads the processor time of another thread")
def test_port_that_refuses_is_asked_without_spinning() -> None:
    with PluginServer(listening=False) as server, OpenPlanetClient(server.port):
        thread = next(entry for entry in threading.enumerate() if entry.name.endswith(f":{server.port}"))
        assert thread.ident is not None
        time.sleep(1.0)
        assert time.clock_gettime(time.pthread_getcpuclockid(thread.ident)) < 0.3


@pytest.mark.parametrize(
    ("is_game_running", "state", "found", "advice"),
    [
        (lambda: False, TelemetryState.not_running, "TrackMania has no window", "Start TrackMania with Openplanet"),
        (None, TelemetryState.not_running, "the game or its plugin does not run", "task.game=sim"),
        (lambda: True, TelemetryState.plugin_not_loaded, "its plugin is not loaded", "--install-plugin"),
    ],
    ids=["no game", "unknown", "no plugin"],
)
def test_a_refused_connection_is_reported_and_made_when_the_plugin_starts(
    is_game_running: object, state: TelemetryState, found: str, advice: str
) -> None:
    with (
        PluginServer(listening=False) as server,
        OpenPlanetClient(server.port, max_age_s=LONG_S, is_game_running=is_game_running) as client,  # type: ignore[arg-type]
    ):
        until(lambda: client.state is state)
        caught = error(client)
        assert caught.state is state
        assert found in str(caught)
        assert advice in str(caught)
        assert f"127.0.0.1:{server.port}" in str(caught)
        server.listen()
        server.accept().sendall(CONFIRMED)
        until(lambda: speed(client) == 0.0)
        assert client.status().num_reconnects == 0


def test_an_unloaded_plugin_is_reported_after_the_broken_connection() -> None:
    server = PluginServer()
    with OpenPlanetClient(server.port, max_age_s=LONG_S, is_game_running=lambda: True) as client:
        server.accept().sendall(CONFIRMED)
        until(lambda: speed(client) == 0.0)
        server.close()
        until(lambda: client.state is TelemetryState.lost)
        until(lambda: client.state is TelemetryState.plugin_not_loaded)
        with PluginServer(port=server.port) as again:
            again.accept().sendall(5 * DRIVING)
            until(lambda: speed(client) == 12.5)


def test_other_program_on_the_port_is_named_and_followed_when_it_leaves() -> None:
    server = PluginServer()
    with socket.create_connection(("127.0.0.1", server.port)):
        served = server.accept()
        with OpenPlanetClient(server.port, max_age_s=0.2) as client, Streaming(served, [STANDING]):
            # Connected, but only in the queue of the plugin, which serves the other program.
            until(lambda: client.state is TelemetryState.port_taken)
            caught = error(client)
            assert caught.state is TelemetryState.port_taken
            assert f"(process {os.getpid()}) is connected" in str(caught)
            assert "serves only one program" in str(caught)
            # The plugin notices that its program has left, closes its socket with all who wait, and listens again.
            server.close()
            with PluginServer(port=server.port) as again, Streaming(again.accept(), [DRIVING]):
                until(lambda: speed(client) == 12.5)


def test_single_bad_record_is_dropped_and_nothing_else_happens() -> None:
    with PluginServer() as server, OpenPlanetClient(server.port, max_age_s=LONG_S) as client:
        peer = server.accept()
        peer.sendall(CONFIRMED + with_float(DRIVING, 0, NAN))
        until(lambda: client.status().num_records == 6)
        assert speed(client) == 0.0
        assert client.state is TelemetryState.receiving
        peer.sendall(DRIVING)
        until(lambda: speed(client) == 12.5)


def test_nan_drops_the_connection_and_is_reported_until_good_records_arrive() -> None:
    with PluginServer() as server, OpenPlanetClient(server.port, max_age_s=LONG_S) as client:
        peer = server.accept()
        peer.sendall(CONFIRMED)
        until(lambda: speed(client) == 0.0)
        peer.sendall(10 * with_float(DRIVING, 0, NAN))
        until(lambda: client.state is TelemetryState.implausible)
        caught = error(client)
        assert caught.state is TelemetryState.implausible
        assert "speed is nan" in str(caught)
        assert "task.live.record" in str(caught)
        # The next connection has the same state as long as it sends such records.
        peer = server.accept()
        peer.sendall(10 * with_float(DRIVING, 0, NAN))
        peer = server.accept()
        assert client.state is TelemetryState.implausible
        peer.sendall(5 * DRIVING)
        until(lambda: speed(client) == 12.5)
        assert client.status().num_reconnects == 2


def test_record_of_another_size_is_named() -> None:
    with PluginServer() as server, OpenPlanetClient(server.port, max_age_s=LONG_S) as client:
        other = with_float(bytes(80), 4, NUMBERS[10])
        with Streaming(server.accept(), [with_float(other, 3, "00000044")]):
            until(lambda: client.state is TelemetryState.implausible)
        assert "it sends 80 bytes at a time: set task.live.record=floats20" in str(error(client))


def test_speed_in_kmh_is_reported_until_it_fits_again() -> None:
    with PluginServer() as server, OpenPlanetClient(server.port, max_age_s=LONG_S) as client:
        peer = server.accept()
        # 1 m each 0.1 s and 36 "m/s", there and back.
        there = [moving("00001042", x) for x in NUMBERS]
        with Streaming(peer, [*there, *reversed(there)], interval_s=0.1):
            until(lambda: client.state is TelemetryState.implausible)
            caught = error(client)
            assert caught.state is TelemetryState.implausible
            assert "km/h" in str(caught)
            assert "given as 36.0" in str(caught)
        there = [moving(NUMBERS[10], x) for x in NUMBERS]
        with Streaming(peer, [*there, *reversed(there)], interval_s=0.1):
            until(lambda: client.state is TelemetryState.receiving)
            assert speed(client) == 10.0
        assert client.status().num_reconnects == 0


def test_an_old_record_is_an_error_before_the_reader_notices() -> None:
    with PluginServer() as server, OpenPlanetClient(server.port, max_age_s=1e-9) as client:
        server.accept().sendall(CONFIRMED)
        until(lambda: client.status().num_records == 5)
        assert error(client).state is TelemetryState.in_menu


def test_fault_of_the_reader_reaches_the_caller() -> None:
    def fails() -> bool:
        raise ZeroDivisionError("a fault of the window look-up")

    with (
        PluginServer(listening=False) as server,
        OpenPlanetClient(server.port, is_game_running=fails) as client,
    ):
        with pytest.raises(RuntimeError, match="has failed") as caught:
            client.wait_newer(TIMEOUT_S)
        assert isinstance(caught.value.__cause__, ZeroDivisionError)
        assert not isinstance(caught.value, TelemetryError)


# --- closing ---


def test_close_ends_the_thread_and_the_connection_twice() -> None:
    with PluginServer() as server:
        client = OpenPlanetClient(server.port)
        peer = server.accept()
        thread = next(entry for entry in threading.enumerate() if entry.name.endswith(f":{server.port}"))
        client.close()
        client.close()
        assert not thread.is_alive()
        peer.settimeout(TIMEOUT_S)
        assert peer.recv(1) == b""
        assert "is closed" in str(error(client))


def test_close_ends_a_wait() -> None:
    with PluginServer() as server, OpenPlanetClient(server.port) as client:
        server.accept()
        timer = threading.Timer(0.1, client.close)
        timer.start()
        with pytest.raises(TelemetryError, match="is closed"):
            client.wait_newer(LONG_S)
        timer.join()


def test_close_while_nobody_listens() -> None:
    with PluginServer(listening=False) as server:
        client = OpenPlanetClient(server.port)
        until(lambda: client.state is TelemetryState.not_running)
        client.close()
        assert not any(entry.name.endswith(f":{server.port}") for entry in threading.enumerate())


# --- probe and ghost ---


def test_probe_sees_plausible_records() -> None:
    with PluginServer() as server:
        thread = threading.Thread(target=lambda: server.accept().sendall(CONFIRMED))
        thread.start()
        assert telemetry_arrives(server.port, TIMEOUT_S)
        thread.join()


def test_probe_waits_for_a_plugin_that_closes_its_port_behind_an_earlier_client() -> None:
    server = PluginServer()

    def close_and_listen_again() -> None:
        server.accept()
        server.close()
        time.sleep(0.7)
        with PluginServer(port=server.port) as again, Streaming(again.accept(), [STANDING]):
            done.wait(TIMEOUT_S)

    done = threading.Event()
    with beside(close_and_listen_again, done):
        assert telemetry_arrives(server.port, TIMEOUT_S)


def test_probe_finds_a_plugin_that_does_not_listen_for_a_frame() -> None:
    def listen_a_frame_later() -> None:
        time.sleep(0.1)
        server.listen()
        with Streaming(server.accept(), [STANDING]):
            done.wait(TIMEOUT_S)

    with PluginServer(listening=False) as server:
        done = threading.Event()
        with beside(listen_a_frame_later, done):
            assert telemetry_arrives(server.port, TIMEOUT_S)


@contextmanager
def beside(plugin: Callable[[], None], done: threading.Event) -> Iterator[None]:
    """Runs a plugin in a thread; ``done`` tells it that the probe is over."""
    thread = threading.Thread(target=plugin)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def test_probe_needs_more_than_one_record() -> None:
    with PluginServer() as server:
        thread = threading.Thread(target=lambda: server.accept().sendall(4 * STANDING))
        thread.start()
        assert not telemetry_arrives(server.port, 0.3)
        thread.join()


def test_probe_of_a_port_that_refuses_says_no() -> None:
    with PluginServer(listening=False) as server:
        assert not telemetry_arrives(server.port, TIMEOUT_S)


@pytest.mark.parametrize("data", [b"", 40 * with_float(STANDING, 0, NAN), b"HTTP/1.1 400 Bad Request\r\n" * 40])
def test_probe_refuses_other_bytes(data: bytes) -> None:
    with PluginServer() as server:
        thread = threading.Thread(target=lambda: server.accept().sendall(data))
        thread.start()
        assert not telemetry_arrives(server.port, 0.3)
        thread.join()


def test_probe_reads_the_configured_record() -> None:
    with PluginServer() as server:
        thread = threading.Thread(target=lambda: server.accept().sendall(5 * bytes(80)))
        thread.start()
        assert telemetry_arrives(server.port, TIMEOUT_S, TelemetryRecord.floats20)
        thread.join()


def test_ghost_is_asked_for_by_a_connection_without_a_byte() -> None:
    with PluginServer() as server:
        save_ghost(server.port)
        peer = server.accept()
        peer.settimeout(TIMEOUT_S)
        assert peer.recv(1) == b""


def test_ghost_port_that_refuses_is_an_oserror() -> None:
    with PluginServer(listening=False) as server, pytest.raises(ConnectionRefusedError):
        save_ghost(server.port)
