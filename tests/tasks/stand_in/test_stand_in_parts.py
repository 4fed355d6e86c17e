"""The parts of the stand-in game on their own, without a window: bytes on the wire, controls, rules, the frame grid."""

from __future__ import annotations

import contextlib
import math
import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.config import GameKind, TaskConfig
from tasks.game.clock import VirtualClock
from tasks.game.protocols import Telemetry
from tasks.roles.config import RecordConfig
from tasks.roles.recording import Sample, path_of
from tasks.roles.recording_files import write_recording
from tasks.sim.scripted_driver import ScriptedDriver
from tasks.sim.track import load_track
from tasks.stand_in.faults import Fault, FaultBoard, FaultRequest, request_from_dict
from tasks.stand_in.frame_pace import FramePace
from tasks.stand_in.inputs import Controls, Inputs
from tasks.stand_in.options import parse_options
from tasks.stand_in.pad_port import BUTTON_A, BUTTON_B, PadPort
from tasks.stand_in.ports import Listener
from tasks.stand_in.race import Race
from tasks.stand_in.telemetry_server import TelemetryServer
from tasks.trackmania.reference_path import load_reference_path

TIMEOUT_S = 10.0
CAR = Telemetry(
    speed=2.0,
    distance=0.5,
    x=-1.0,
    y=10.0,
    z=0.0,
    steer=-0.5,
    gas=1.0,
    is_braking=0.0,
    finished=0.0,
    gear=1.0,
    rpm=800.0,
)
CAR_BYTES = bytes.fromhex(
    "00000040 0000003f 000080bf 00002041 00000000 000000bf 0000803f 00000000 00000000 0000803f 00004844"
)
"""IEEE 754 single precision, little-endian, by hand."""


@pytest.fixture
def server() -> Iterator[TelemetryServer]:
    with contextlib.closing(TelemetryServer(0)) as open_server:
        yield open_server


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S)


def serve(server: TelemetryServer) -> None:
    """Lets the server take the client that has just connected."""
    deadline = time.monotonic() + TIMEOUT_S
    while not server.has_client:
        server.serve()
        assert time.monotonic() < deadline


def until(claim: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + TIMEOUT_S
    while not (value := claim()):
        assert time.monotonic() < deadline
        time.sleep(0.001)
    return value


def received(client: socket.socket) -> bytes:
    with contextlib.suppress(BlockingIOError):
        return client.recv(1000)
    return b""


def until_it_notices(server: TelemetryServer) -> None:
    """Publishes until the server notices that its client has left."""

    def has_noticed() -> bool:
        server.publish(CAR)
        return not server.has_client

    until(has_noticed)


def test_a_record_is_eleven_little_endian_floats(server: TelemetryServer) -> None:
    with connect(server.port) as client:
        serve(server)
        server.publish(CAR)
        assert client.recv(1000) == CAR_BYTES


def test_nothing_is_kept_for_a_client_that_comes_later(server: TelemetryServer) -> None:
    server.publish(CAR)
    with connect(server.port) as client:
        serve(server)
        server.publish(CAR._replace(speed=4.0))
        assert client.recv(1000)[:4] == bytes.fromhex("00008040")
    assert server.num_records == 1


def test_pieces_arrive_one_by_one_and_make_up_the_record(
    server: TelemetryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connect(server.port) as client:
        serve(server)
        received: list[bytes] = []
        monkeypatch.setattr(time, "sleep", lambda _: received.append(client.recv(1000)))
        server.publish(CAR, pieces=(17, 27))
        server.publish(CAR, pieces=(4,) * 11)
    assert [len(part) for part in received] == [17, 27] + [4] * 11
    assert b"".join(received) == CAR_BYTES + CAR_BYTES


def test_a_burst_is_one_write_of_many_records(server: TelemetryServer) -> None:
    with connect(server.port) as client:
        serve(server)
        for _ in range(3):
            server.publish(CAR, burst=4)
        client.setblocking(False)
        with pytest.raises(BlockingIOError):
            client.recv(1000)
        server.publish(CAR, burst=4)
        assert client.recv(1000) == 4 * CAR_BYTES


def test_skipped_bytes_shift_everything_after_them(server: TelemetryServer) -> None:
    with connect(server.port) as client:
        serve(server)
        server.skip(6)
        server.publish(CAR)
        server.publish(CAR)
        assert client.recv(1000) == (CAR_BYTES + CAR_BYTES)[6:]


def test_a_client_that_does_not_read_delays_no_frame_and_loses_only_whole_records(server: TelemetryServer) -> None:
    num_published = 200_000
    with connect(server.port) as client:
        serve(server)
        for _ in range(num_published):
            server.publish(CAR)
        assert server.has_client
        assert server.num_records < num_published  # 8.8 MB do not fit
        data = bytearray()
        client.setblocking(False)
        while len(data) < server.num_records * 44:
            try:
                data += client.recv(1 << 20)
            except BlockingIOError:
                server.publish(CAR)
    assert bytes(data) == CAR_BYTES * server.num_records


def test_only_one_client_is_served_and_when_it_leaves_the_waiting_one_is_reset(server: TelemetryServer) -> None:
    with connect(server.port) as first:
        serve(server)
        with connect(server.port) as second:
            second.setblocking(False)
            server.serve()
            server.publish(CAR)
            assert first.recv(1000) == CAR_BYTES
            with pytest.raises(BlockingIOError):
                second.recv(1000)
            first.close()
            # The first write after the end still succeeds; the answer to it is what tells.
            until_it_notices(server)
            with pytest.raises(ConnectionResetError):
                until(lambda: received(second))
    server.serve()
    with connect(server.port) as third:
        serve(server)
        server.publish(CAR)
        assert third.recv(1000) == CAR_BYTES


def test_an_occupied_server_serves_the_other_client(server: TelemetryServer) -> None:
    server.occupy()
    with connect(server.port) as client:
        client.setblocking(False)
        for _ in range(3):
            server.serve()
            server.publish(CAR)
            server.drain_other()
        with pytest.raises(BlockingIOError):
            client.recv(1000)
        server.vacate()
        until_it_notices(server)
        with pytest.raises(ConnectionResetError):
            until(lambda: received(client))


def test_a_listener_keeps_its_port_while_it_is_closed() -> None:
    with contextlib.closing(Listener(0)) as listener:
        port = listener.port
        listener.close()
        with pytest.raises(ConnectionRefusedError):
            connect(port)
        listener.open()
        listener.open()
        connect(port).close()
        assert listener.port == port


def pad_bytes(gas: float, brake: float, steer: float, buttons: int = 0) -> bytes:
    return struct.pack("<3fI", gas, brake, steer, buttons)


def test_the_newest_record_of_the_pad_holds_until_the_client_leaves() -> None:
    with contextlib.closing(PadPort(0)) as pad:
        assert pad.read() == (0.0, 0.0, 0.0, 0)
        with connect(pad.port) as client:
            record = pad_bytes(0.75, 0.25, -0.5)
            client.sendall(pad_bytes(1.0, 0.0, 0.0) + record[:5])
            until(lambda: pad.read().gas == 1.0)
            client.sendall(record[5:])
            until(lambda: pad.read() == (0.75, 0.25, -0.5, 0))
            client.sendall(pad_bytes(math.nan, 0.0, 0.0) + pad_bytes(0.5, 0.0, 0.0))
            until(lambda: pad.read() == (0.5, 0.0, 0.0, 0))
        until(lambda: pad.read() == (0.0, 0.0, 0.0, 0))


def test_a_button_counts_when_it_goes_down_even_within_one_frame() -> None:
    with contextlib.closing(PadPort(0)) as pad, connect(pad.port) as client:
        client.sendall(pad_bytes(0, 0, 0, BUTTON_B) + pad_bytes(0, 0, 0))
        assert until(lambda: pad.read().pressed) == 0x2000
        client.sendall(pad_bytes(0, 0, 0, BUTTON_A) + pad_bytes(0.5, 0, 0, BUTTON_A))
        assert until(lambda: pad.read().pressed) == 0x1000
        until(lambda: pad.read().gas == 0.5)
        assert pad.read().pressed == 0  # still held


def test_a_newer_pad_takes_over() -> None:
    with contextlib.closing(PadPort(0)) as pad, connect(pad.port) as older:
        older.sendall(pad_bytes(1.0, 0, 0))
        until(lambda: pad.read().gas == 1.0)
        with connect(pad.port) as newer:
            newer.sendall(pad_bytes(0, 0, 0.25))
            until(lambda: pad.read() == (0.0, 0.0, 0.25, 0))


@pytest.fixture
def pygame() -> Any:
    return pytest.importorskip("pygame")


def test_the_joysticks_triggers_rest_until_they_move(pygame: Any) -> None:
    inputs = Inputs(None)
    assert inputs.read([]).controls == (0.0, 0.0, 0.0)
    axis = [pygame.event.Event(pygame.JOYAXISMOTION, axis=a, value=v) for a, v in ((5, 1.0), (2, -0.5), (0, -0.25))]
    assert inputs.read(axis).controls == (1.0, 0.25, -0.25)
    released = [pygame.event.Event(pygame.JOYAXISMOTION, axis=a, value=-1.0) for a in (5, 2)]
    assert inputs.read(released).controls == (0.0, 0.0, -0.25)


def test_buttons_and_keys_restart_and_close_the_finish_screen(pygame: Any) -> None:
    inputs = Inputs(None)
    for event in (
        pygame.event.Event(pygame.KEYDOWN, key=pygame.K_DELETE),
        pygame.event.Event(pygame.KEYDOWN, key=pygame.K_BACKSPACE),
        pygame.event.Event(pygame.JOYBUTTONDOWN, button=1),
    ):
        player = inputs.read([event])
        assert (player.restarts, player.closes_finish_screen) == (True, False)
    for event in (
        pygame.event.Event(pygame.KEYDOWN, key=pygame.K_RETURN),
        pygame.event.Event(pygame.JOYBUTTONDOWN, button=0),
    ):
        player = inputs.read([event])
        assert (player.restarts, player.closes_finish_screen) == (False, True)
    assert inputs.read([]) == (Controls(), False, False)


def test_devices_add_up_within_their_range(pygame: Any) -> None:
    inputs = Inputs(None)
    keys = [pygame.event.Event(pygame.KEYDOWN, key=key) for key in (pygame.K_UP, pygame.K_w, pygame.K_RIGHT)]
    axes = [pygame.event.Event(pygame.JOYAXISMOTION, axis=a, value=v) for a, v in ((5, 0.0), (0, -0.25))]
    assert inputs.read(keys + axes).controls == (1.0, 0.0, 0.75)
    left = pygame.event.Event(pygame.KEYDOWN, key=pygame.K_LEFT)
    assert inputs.read([left]).controls == (1.0, 0.0, -0.25)


def test_controls_act_from_the_frame_that_sees_them() -> None:
    clock = VirtualClock()
    race = Race(load_track("short"), clock)
    clock.sleep_until(1.0)
    assert race.step(Controls()).distance_m == 0.0
    clock.sleep_until(1.5)
    race.step(Controls(gas=1.0))  # not for the half second before
    assert race.state.distance_m == 0.0
    assert race.telemetry().gas == 1.0
    clock.sleep_until(1.51)
    # One tick of 15.8 m/s2, the car's acceleration at standstill; it moves by the speed before the tick.
    assert race.step(Controls(gas=1.0)).forward_mps == pytest.approx(0.158)
    clock.sleep_until(1.52)
    race.step(Controls(gas=1.0))
    assert race.telemetry().distance == pytest.approx(0.00158)


def test_the_finish_flag_is_a_level_that_lasts_until_the_screen_is_closed_or_the_race_restarts() -> None:
    clock = VirtualClock()
    race = Race(load_track("short"), clock)
    for leave in (race.close_finish_screen, race.restart):
        race.restart()
        driver = ScriptedDriver(race.track)
        assert not race.close_finish_screen()
        while not race.shows_finish_screen:
            assert race.telemetry().finished == 0.0
            assert race.state.time_s < 60.0
            race.step(Controls(*(float(value) for value in driver.act(race.state))))
            clock.sleep_until(clock.now() + 1 / 60)
        for _ in range(5):
            clock.sleep_until(clock.now() + 1 / 60)
            race.step(Controls(gas=1.0))
            assert race.telemetry().finished == 1.0
            assert race.controls == Controls()
        leave()
        race.step(Controls())
        assert race.telemetry().finished == 0.0
    assert race.state.distance_m == 0.0


def test_another_car_is_driven_and_an_impossible_one_is_refused() -> None:
    clock = VirtualClock()
    slow = parse_options(["--vehicle", "{acceleration: [5.0, 4.0, 3.0, 2.0]}"]).vehicle
    race = Race(load_track("short"), clock, slow)
    race.step(Controls(gas=1.0))
    clock.sleep_until(0.01)
    assert race.step(Controls(gas=1.0)).forward_mps == pytest.approx(0.05)
    with pytest.raises(ValueError, match="yaw_lag_s must be > 0"):
        Race(load_track("short"), clock, "{yaw_lag_s: 0.0}")


def test_a_path_recorded_there_is_the_simulators_road_again(tmp_path: Path) -> None:
    clock = VirtualClock()
    race = Race(load_track("short"), clock)
    driver, samples = ScriptedDriver(race.track), list[Sample]()
    while not race.shows_finish_screen:
        samples.append(Sample.from_telemetry(clock.now(), race.telemetry()))
        race.step(Controls(*(float(value) for value in driver.act(race.state))))
        clock.sleep_until(clock.now() + 1 / 60)
    samples.append(Sample.from_telemetry(clock.now(), race.telemetry()))
    recorded = path_of(samples, RecordConfig())
    live = TaskConfig(game=GameKind.live, track="short")
    file = write_recording(recorded, live, RecordConfig(), tmp_path, lap_time_s=math.nan)
    for line in (load_track(str(file)).centre_line, load_reference_path(file)):
        offsets = [np.hypot(*(race.track.centre_line[:, [0, 2]] - point).T).min() for point in line[::50, [0, 2]]]
        assert max(offsets) < race.track.width_m / 2


def test_a_file_that_does_not_tell_its_frame_is_in_the_games(tmp_path: Path) -> None:
    file = tmp_path / "bend.csv"
    along = np.linspace(0.0, np.pi / 2, 200)
    points = np.column_stack([100.0 - 100.0 * np.cos(along), 100.0 * np.sin(along)])
    np.savetxt(file, points, delimiter=",", header="x,z")
    race = Race(load_track(str(file), is_in_game=True), VirtualClock())
    record = race.telemetry()
    assert (record.x, record.z) == pytest.approx((-race.state.x, race.state.z))
    assert np.hypot(*(points - (record.x, record.z)).T).min() < 1.0


def test_each_restart_is_the_same() -> None:
    clock = VirtualClock()
    race = Race(load_track("short"), clock)
    poses = []
    for _ in range(2):
        race.restart()
        for _ in range(30):
            race.step(Controls(gas=1.0, steer=0.5))
            clock.sleep_until(clock.now() + 0.02)
        poses.append((race.state.x, race.state.z, race.state.yaw))
    assert poses[0] == poses[1]


def test_frames_keep_to_their_grid() -> None:
    clock = VirtualClock()
    pace = FramePace(clock, 50.0)
    for _ in range(10):
        clock.sleep_until(clock.now() + 0.013)  # what a frame takes
        pace.wait()
    assert clock.now() == pytest.approx(0.2)
    assert pace.num_frames == 10
    assert pace.measured_fps == pytest.approx(50.0)


def test_a_frame_that_is_late_is_made_up_only_within_one_period() -> None:
    clock = VirtualClock()
    pace = FramePace(clock, 50.0)
    clock.sleep_until(0.03)
    pace.wait()
    pace.wait()
    assert clock.now() == pytest.approx(0.04)  # back on the grid
    clock.sleep_until(1.0)
    pace.wait()
    pace.wait()
    assert clock.now() == pytest.approx(1.02)  # a new grid
    assert pace.longest_s == pytest.approx(0.96)


def test_faults_last_for_their_time_or_until_they_are_cleared() -> None:
    board = FaultBoard()
    board.begin(FaultRequest(Fault.nan, seconds=2.0), now_s=10.0)
    board.begin(FaultRequest(Fault.slow, fps=3.0), now_s=10.0)
    assert board.names() == ["nan", "slow"]
    assert board.expire(11.9) == []
    assert board.expire(12.0) == [Fault.nan]
    slow = board.get(Fault.slow)
    assert slow is not None
    assert slow.fps == 3.0
    assert board.expire(1e9) == []
    assert board.clear(Fault.nan) == []
    assert board.clear() == [Fault.slow]
    assert not board.has(Fault.slow)


@pytest.mark.parametrize(
    ("request_", "complaint"),
    [
        ({}, "fault.fault is required"),
        ({"fault": "nan", "seconds": 0}, "fault.seconds must be > 0 s"),
        ({"fault": "nan", "seconds": "two"}, "fault.seconds"),
        ({"fault": "split", "pieces": [40]}, "add up to 44 bytes"),
        ({"fault": "split", "pieces": [0, 44]}, "add up to 44 bytes"),
        ({"fault": "burst", "count": 0}, "fault.count must be >= 1"),
        ({"fault": "slow", "fps": 0}, "fault.fps must be"),
    ],
)
def test_a_wrong_request_is_refused_by_the_name_of_what_is_wrong(request_: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        request_from_dict(request_)


def test_the_command_line_sets_every_option() -> None:
    options = parse_options(
        ["--track", "long", "--size", "640x480", "--position=-5,7", "--fault", "rst", "--fps", "30"]
    )
    assert (options.track, options.width, options.height, options.left, options.top) == ("long", 640, 480, -5, 7)
    assert options.faults == (FaultRequest(Fault.rst),)
    assert (options.port, options.ghost_port, options.pad_port) == (9000, 10000, None)
    assert (options.fps, options.title) == (30.0, "Trackmania")


@pytest.mark.parametrize(
    "wrong", [["--port", "70000"], ["--fps", "0"], ["--size", "8x8"], ["--position", "1"], ["--siz"]]
)
def test_a_wrong_option_ends_the_program(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        parse_options(wrong)
    assert end.value.code == 2
    assert "error" in capsys.readouterr().err
