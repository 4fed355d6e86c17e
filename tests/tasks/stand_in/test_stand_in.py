"""The stand-in game from outside: its window, keys and ports, and its faults."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, Self

import numpy as np
import pytest

from tasks.sim.camera import FRONT_LENS, draw_window
from tasks.sim.track import load_track
from tests.tasks.live.stand_ins import ROOT, PadControls, StandIn

TIMEOUT_S = 15.0


class Plugin:
    """A client of the telemetry that gets served: connected in a moment in which the plugin listens."""

    def __init__(self, port: int) -> None:
        self._buffer = b""
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            try:
                self.socket = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S)
            except ConnectionRefusedError:
                assert time.monotonic() < deadline, "the port stays closed"
                time.sleep(0.02)
            else:
                return

    def record(self) -> tuple[float, ...]:
        """The next record."""
        while len(self._buffer) < 44:
            data = self.socket.recv(1 << 16)
            if not data:
                raise EOFError("closed in good order")
            self._buffer += data
        record, self._buffer = self._buffer[:44], self._buffer[44:]
        return struct.unpack("<11f", record)

    def newest(self) -> tuple[float, ...]:
        """A record that was sent after this call."""
        self.socket.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while data := self.socket.recv(1 << 16):
                self._buffer += data
        self.socket.settimeout(TIMEOUT_S)
        self._buffer = self._buffer[len(self._buffer) // 44 * 44 :]
        return self.record()

    def read_to_the_end(self) -> None:
        while self.socket.recv(1 << 16):
            pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.socket.close()


@pytest.fixture(scope="module")
def running(display: str) -> Iterator[StandIn]:
    with StandIn(display) as game:
        yield game


@pytest.fixture
def game(running: StandIn) -> Iterator[StandIn]:
    """One game for many tests: without faults, the car at the start, the window in its first place."""
    running.clear()
    running.fault("resize", width=256, height=128)
    running.fault("move", x=60, y=40)
    with contextlib.closing(PadControls(running.pad_port)) as pad:
        pad.restart()
    yield running
    running.clear()


@pytest.fixture
def pad(game: StandIn) -> Iterator[PadControls]:
    with contextlib.closing(PadControls(game.pad_port)) as controls:
        yield controls


@pytest.fixture
def plugin(game: StandIn) -> Iterator[Plugin]:
    with Plugin(game.port) as client:
        client.record()
        yield client


@pytest.fixture
def x(display: str) -> Iterator[Any]:
    from Xlib import display as xlib

    connection = xlib.Display(display)
    yield connection
    connection.close()


def until(claim: Callable[[], Any], what: str) -> Any:
    """Waits until ``claim`` is true and returns it."""
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        value = claim()
        if value:
            return value
        time.sleep(0.01)
    raise AssertionError(f"not within {TIMEOUT_S} s: {what}")


def press(x: Any, name: str, is_down: bool) -> None:
    from Xlib import XK, X
    from Xlib.ext import xtest

    code = x.keysym_to_keycode(XK.string_to_keysym(name))
    xtest.fake_input(x, X.KeyPress if is_down else X.KeyRelease, code)
    x.sync()


def window_of(x: Any, game: StandIn) -> Any:
    return x.create_resource_object("window", game.state()["window"])


def geometry(x: Any, window: Any) -> tuple[int, int, int, int]:
    size = window.get_geometry()
    corner = x.screen().root.translate_coords(window, 0, 0)
    return corner.x, corner.y, size.width, size.height


def picture(window: Any) -> np.ndarray:
    """What the window shows, BGR; taken in another way than the project takes it."""
    from Xlib import X

    size = window.get_geometry()
    image = window.get_image(0, 0, size.width, size.height, X.ZPixmap, 0xFFFFFFFF)
    return np.frombuffer(image.data, np.uint8).reshape(size.height, size.width, 4)[:, :, :3]


def view_at_the_start(width: int, height: int) -> np.ndarray:
    track = load_track("short")
    pose = np.array([*track.start_position, track.start_yaw])
    return draw_window(pose, track.grids, width, height, FRONT_LENS)[:, :, :3]


def run_to_its_end(*arguments: str, display: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("DISPLAY", None)
    command = [sys.executable, "-m", "tasks.stand_in", "--ghost-port", "0", "--end-with-stdin", *arguments]
    command += [] if display is None else ["--display", display]
    return subprocess.run(
        command, env=environment, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=90
    )


def test_other_programs_find_the_window_by_either_of_its_names(game: StandIn, x: Any) -> None:
    window = window_of(x, game)
    modern = window.get_full_property(x.intern_atom("_NET_WM_NAME"), 0)
    old = window.get_full_property(x.intern_atom("WM_NAME"), 0)
    assert (modern.value, old.value) == (b"Trackmania", b"Trackmania")
    assert modern.property_type == x.intern_atom("UTF8_STRING")
    assert old.property_type == x.intern_atom("STRING")


def test_the_window_shows_the_view_of_the_simulator_exactly(game: StandIn, x: Any) -> None:
    window, expected = window_of(x, game), view_at_the_start(256, 128)
    until(lambda: np.array_equal(picture(window), expected), "the picture at the start")


@pytest.mark.parametrize(
    ("names", "controls"),
    [
        (("Up", "w"), (1.0, 0.0, 0.0)),
        (("Down", "s"), (0.0, 1.0, 0.0)),
        (("Left", "a"), (0.0, 0.0, -1.0)),
        (("Right", "d"), (0.0, 0.0, 1.0)),
    ],
)
def test_keys_act_while_they_are_held(game: StandIn, x: Any, names: tuple[str, str], controls: tuple) -> None:
    for name in names:
        press(x, name, True)
        until(lambda: tuple(game.state()["controls"].values()) == controls, f"{name} drives")
        press(x, name, False)
        until(lambda: game.state()["keys"] == [], f"{name} is let go")


@pytest.mark.parametrize("name", ["Delete", "BackSpace"])
def test_a_key_restarts_the_race(game: StandIn, x: Any, pad: PadControls, name: str) -> None:
    pad.send(np.array([1.0, 0.0, 0.0]))
    until(lambda: game.car().distance_m > 1.0, "the car drives")
    pad.release()
    restarts = game.state()["restarts"]
    press(x, name, True)
    press(x, name, False)
    state = until(lambda: (s := game.state())["restarts"] > restarts and s, "the race restarts")
    assert state["restarts"] == restarts + 1
    assert (state["car"]["x"], state["car"]["z"]) == load_track("short").start_position


def test_a_record_holds_what_the_car_does(game: StandIn, pad: PadControls, plugin: Plugin) -> None:
    pad.send(np.array([0.75, -1.0, -0.25], np.float32))
    until(lambda: game.car().forward_mps > 5.0, "the car drives")
    before, record, after = game.car(), plugin.newest(), game.car()
    speed, distance, _, height, car_z, steer, gas, braking, finished, gear, rpm = record
    assert before.forward_mps <= speed <= 1.01 * after.forward_mps
    assert before.distance_m <= distance <= after.distance_m + 0.01
    assert before.z <= car_z <= after.z + 0.01
    assert height == 10.0
    assert (steer, gas, braking, finished) == (-0.25, 0.75, 0.0, 0.0)
    assert before.gear <= gear <= after.gear
    assert 800.0 < rpm <= 11000.0


def test_the_car_runs_on_real_time_however_slow_the_frames_are(game: StandIn, pad: PadControls) -> None:
    game.fault("slow", fps=4.0)
    pad.send(np.array([1.0, 0.0, 0.0]))
    first, started = game.state(), time.monotonic()
    time.sleep(1.0)
    second, took = game.state(), time.monotonic() - started
    # Answers tell of the frame before, so either may be a quarter of a second old.
    assert second["car"]["time_s"] - first["car"]["time_s"] == pytest.approx(took, abs=0.6)
    assert second["car"]["distance_m"] > 2.0
    assert second["frames"] - first["frames"] <= 4.0 * took + 2.0


def test_each_frame_sends_a_record(game: StandIn, plugin: Plugin) -> None:
    before = game.state()
    time.sleep(0.5)
    after = game.state()
    assert after["records"] - before["records"] == after["frames"] - before["frames"] > 5


def test_the_black_fault_shows_a_black_picture(game: StandIn, x: Any) -> None:
    window = window_of(x, game)
    game.fault("black")
    until(lambda: picture(window).max() == 0, "black")
    game.clear("black")
    until(lambda: picture(window).max() > 200, "a picture again")


def test_the_frozen_fault_shows_one_picture_while_the_car_drives(game: StandIn, x: Any, pad: PadControls) -> None:
    window = window_of(x, game)
    game.fault("frozen")
    shown = picture(window)
    pad.send(np.array([1.0, 0.0, 0.0]))
    until(lambda: game.car().distance_m > 3.0, "the car drives")
    np.testing.assert_array_equal(picture(window), shown)
    game.clear()
    until(lambda: not np.array_equal(picture(window), shown), "the picture goes on")


def test_the_window_moves_and_takes_another_size(game: StandIn, x: Any) -> None:
    window = window_of(x, game)
    game.fault("move", x=200, y=150)
    until(lambda: geometry(x, window)[:2] == (200, 150), "moved")
    game.fault("resize", width=320, height=240)
    until(lambda: geometry(x, window)[2:] == (320, 240), "resized")
    until(lambda: np.array_equal(picture(window), view_at_the_start(320, 240)), "the picture in the new size")


def test_another_program_may_place_and_size_the_window(game: StandIn, x: Any) -> None:
    window = window_of(x, game)
    window.configure(x=0, y=0, width=400, height=200)
    x.sync()
    until(lambda: game.state()["size"] == [400, 200], "the game knows its new size")
    assert geometry(x, window) == (0, 0, 400, 200)
    until(lambda: np.array_equal(picture(window), view_at_the_start(400, 200)), "the picture in the new size")


def test_a_minimised_window_comes_back_with_its_keyboard(game: StandIn, x: Any) -> None:
    from Xlib import X

    window = window_of(x, game)
    press(x, "Right", True)
    until(lambda: game.state()["keys"] == ["right"], "the key is held")
    game.fault("minimise")
    until(lambda: window.get_attributes().map_state == X.IsUnmapped, "minimised")
    assert window.get_full_property(x.intern_atom("WM_STATE"), 0).value[0] == 3  # IconicState, ICCCM 4.1.3.1
    until(lambda: game.state()["keys"] == [], "a game that is not there sees no key")
    press(x, "Right", False)
    game.clear("minimise")
    until(lambda: window.get_attributes().map_state == X.IsViewable, "back on the screen")
    until(lambda: x.get_input_focus().focus == window, "it has the keyboard")
    until(lambda: np.array_equal(picture(window), view_at_the_start(256, 128)), "its picture")


def test_a_closed_window_opens_again(game: StandIn, x: Any, plugin: Plugin) -> None:
    from Xlib import error

    old = window_of(x, game)
    press(x, "Up", True)
    until(lambda: game.state()["keys"] == ["up"], "the key is held")
    assert game.fault("no_window", seconds=0.5)["window"] is None
    press(x, "Up", False)
    with pytest.raises(error.XError):
        old.get_geometry()
    plugin.newest()
    until(lambda: game.state()["window"], "another window")
    assert game.state()["keys"] == []
    press(x, "Right", True)
    until(lambda: game.state()["controls"]["steer"] == 1.0, "it has the keyboard")
    press(x, "Right", False)


def test_a_window_without_focus_gets_no_keys(game: StandIn, x: Any) -> None:
    window = window_of(x, game)
    game.fault("unfocus")
    until(lambda: x.get_input_focus().focus != window, "nobody has the keyboard")
    press(x, "Up", True)
    frames = game.state()["frames"]
    until(lambda: game.state()["frames"] > frames + 5, "frames go by")
    assert game.state()["keys"] == []
    press(x, "Up", False)
    window.set_input_focus(2, 0)
    x.sync()
    press(x, "Up", True)
    until(lambda: game.state()["keys"] == ["up"], "it has the keyboard again")
    press(x, "Up", False)


def test_the_silence_fault_stops_records_and_then_resumes_them(game: StandIn, plugin: Plugin) -> None:
    game.fault("silence", seconds=0.6)
    plugin.socket.settimeout(0.3)
    with pytest.raises(TimeoutError):
        plugin.read_to_the_end()
    plugin.socket.settimeout(TIMEOUT_S)
    plugin.newest()


def test_faults_send_impossible_values(game: StandIn, pad: PadControls, plugin: Plugin) -> None:
    pad.send(np.array([1.0, 0.0, 0.0]))
    until(lambda: game.car().forward_mps > 8.0, "the car drives")
    game.fault("nan")
    record = plugin.newest()
    assert all(np.isnan(record[i]) for i in (0, 2, 3, 4))
    game.clear()
    game.fault("kmh")
    before, record, after = game.car(), plugin.newest(), game.car()
    assert 3.6 * before.forward_mps <= record[0] <= 3.6 * 1.01 * after.forward_mps


def test_a_connection_closed_in_good_order_and_one_reset(game: StandIn) -> None:
    for fault, end in (("close", pytest.raises(EOFError)), ("rst", pytest.raises(ConnectionResetError))):
        with Plugin(game.port) as plugin:
            plugin.record()
            game.fault(fault)
            with end:
                while True:
                    plugin.record()


def test_an_unloaded_plugin_has_no_port(game: StandIn, plugin: Plugin) -> None:
    game.fault("unload")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", game.port), timeout=TIMEOUT_S)
    game.clear()
    with Plugin(game.port) as again:
        again.record()


def test_a_second_client_gets_nothing_and_is_then_reset(game: StandIn) -> None:
    game.fault("other_client")
    with Plugin(game.port) as waiting:
        waiting.socket.settimeout(0.3)
        with pytest.raises(TimeoutError):
            waiting.record()
        waiting.socket.settimeout(TIMEOUT_S)
        game.clear()
        with pytest.raises(ConnectionResetError):
            waiting.record()
    with Plugin(game.port) as served:
        served.record()


def test_ghosts_are_counted_and_their_port_can_be_closed(game: StandIn) -> None:
    ghosts = game.state()["ghosts"]
    socket.create_connection(("127.0.0.1", game.ghost_port), timeout=TIMEOUT_S).close()
    until(lambda: game.state()["ghosts"] == ghosts + 1, "the ghost is counted")
    game.fault("no_ghost")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", game.ghost_port), timeout=TIMEOUT_S)


def test_a_stalled_game_does_nothing(game: StandIn, plugin: Plugin) -> None:
    before = game.state()["frames"]
    after = game.fault("stall", seconds=0.5)["frames"]
    assert after == before + 1


@pytest.mark.parametrize(
    ("request_", "complaint"),
    [
        ({"fault": "rain"}, "fault.fault must be one of split, burst, .*got 'rain'"),
        ({"fault": "nan", "minutes": 2}, "fault.minutes"),
        ({"fault": "stall"}, "fault.seconds must say for how long"),
        ({"clear": "rain"}, "clear must be 'all' or one of"),
        ({"hello": 1}, "expected fault, clear or ask"),
    ],
)
def test_an_unknown_request_gives_an_error_and_the_game_continues(
    game: StandIn, request_: dict, complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        game.ask(request_)
    assert game.state()["frames"] > 0


def test_the_finish_screen_shows_until_it_is_closed(display: str, tmp_path: Any) -> None:
    straight = tmp_path / "straight.csv"
    straight.write_text("x,z\n" + "\n".join(f"0,{z}" for z in range(0, 106)), encoding="utf-8")
    with StandIn(display, track=str(straight)) as game, contextlib.closing(PadControls(game.pad_port)) as pad:
        with Plugin(game.port) as plugin:
            pad.send(np.array([1.0, 0.0, 0.0]))
            until(lambda: game.state()["shows_finish_screen"], "the finish")
            assert plugin.newest()[8] == 1.0
            until(lambda: game.state()["controls"]["gas"] == 0.0, "the finished car obeys nobody")
            pad.close_popup()
            assert plugin.newest()[8] == 0.0
            assert game.state()["popups_closed"] == 1
            pad.restart()
            assert plugin.newest()[8] == 0.0
            assert game.car().distance_m == 0.0
        assert game.quit() == 0


def test_faults_can_be_set_at_the_start(display: str) -> None:
    with StandIn(display, "--fault", '{"fault": "slow", "fps": 7}', "--fault", "silence") as game:
        assert game.state()["faults"] == ["silence", "slow"]


def test_people_may_close_the_window(display: str, x: Any) -> None:
    from Xlib.protocol import event

    with StandIn(display) as game:
        protocols, delete = x.intern_atom("WM_PROTOCOLS"), x.intern_atom("WM_DELETE_WINDOW")
        window = window_of(x, game)
        message = event.ClientMessage(window=window, client_type=protocols, data=(32, [delete, 0, 0, 0, 0]))
        window.send_event(message)
        x.sync()
        until(lambda: not game.is_running, "it has ended")
        assert game.exit_status == 0


def test_it_ends_when_its_console_is_closed(display: str) -> None:
    done = run_to_its_end("--port", "0", display=display)
    assert done.returncode == 0, done.stderr
    assert '"port"' in done.stdout


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--size", "big"), "expected WIDTHxHEIGHT"),
        (("--track", "nowhere"), "nowhere"),
        (("--fault", "rain"), "fault.fault must be one of"),
    ],
)
def test_a_wrong_command_line_is_explained(display: str, arguments: tuple[str, ...], complaint: str) -> None:
    done = run_to_its_end("--port", "0", *arguments, display=display)
    assert done.returncode == 2
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_display_is_reported() -> None:
    done = run_to_its_end("--port", "0")
    assert done.returncode == 2
    assert "--display" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_in_use_is_named(display: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run_to_its_end("--port", str(port), display=display)
    assert done.returncode == 2
    assert str(port) in done.stderr
