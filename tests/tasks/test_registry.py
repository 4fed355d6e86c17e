"""Tasks by name: configurations, fingerprints, which game is driven, building."""

from __future__ import annotations

import dataclasses
import logging
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tasks
from tasks import registry
from tasks.config import (
    ClockKind,
    GameKind,
    LiveConfig,
    RewardCompat,
    TaskConfig,
    TelemetryRecord,
    config_to_dict,
)
from tasks.envs.realtime import VirtualTimeEnv, WallClockEnv
from tasks.game.errors import GameError, GameSetupError, WindowState
from tasks.live.window.window import window_error

FAKE = "FakeDrive"


@pytest.fixture(autouse=True)
def _fake_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_TASKS", dict(registry._TASKS))
    registry.register(FAKE, "tests.tasks.fake_task:FakeFull", defaults={"img_width": 12, "game": "sim"})


@contextmanager
def plugin(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server on this machine that answers its first client; yields its port."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(5.0)

        def run() -> None:
            try:
                connection, _ = server.accept()
                with connection:
                    serve(connection)
            except OSError:
                return

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        thread.join(5.0)


def record(speed: float = 30.0, gear: float = 3.0, rpm: float = 8000.0, x: float = 500.0) -> bytes:
    return struct.pack("<11f", speed, 12.0, x, 10.0, 300.0, 0.0, 1.0, 0.0, 0.0, gear, rpm)


def test_every_task_of_tmrl_is_registered() -> None:
    assert registry.names()[:3] == ("TM20Full", "TM20Lidar", "TM20LidarProgress")
    assert registry.default_config("TM20Lidar").window_width == 958
    assert registry.default_config("TM20Full").window_width == 256
    assert registry.default_config("TM20LidarProgress").name == "TM20LidarProgress"


def test_a_task_is_described_without_building_it() -> None:
    assert registry.observation_spec("TM20Full").names == ("speed", "gear", "rpm", "images", "action_0", "action_1")
    spec = registry.observation_spec("TM20Lidar", registry.default_config("TM20Lidar"))
    assert spec.flat_space().shape == (83,)
    assert registry.observation_spec("TM20LidarProgress").flat_space().shape == (84,)
    assert registry.observation_spec("TM20Track").flat_space().shape == (132,)
    assert registry.action_space("TM20Full").shape == (3,)


def test_fields_are_scaled_to_the_order_of_one() -> None:
    scales = {f.name: (f.scale, f.offset) for f in registry.observation_spec("TM20Full").fields}
    assert scales == {"speed": (55.6, 0.0), "gear": (5.0, 0.0), "rpm": (11000.0, 0.0), "images": (255.0, 102.0)}
    lidar = registry.observation_spec("TM20Lidar").fields[1]
    assert lidar.scale == pytest.approx(383.2)


def test_an_unknown_task_names_those_that_exist() -> None:
    with pytest.raises(ValueError, match=r"unknown task 'TM20FULL'; registered: TM20Full, TM20Lidar"):
        tasks.make("TM20FULL")


def test_a_registered_class_becomes_an_environment() -> None:
    env: Any = tasks.make(FAKE, rtgym={"act_buf_len": 3})
    assert isinstance(env, VirtualTimeEnv)
    assert env.observation_spec.act_buf_len == 3
    assert env.reset(seed=1)[0][3].shape == (4, 64, 12)
    env.close()


def test_a_name_cannot_be_taken_twice_and_needs_a_class() -> None:
    registry.register(FAKE, "tests.tasks.fake_task:FakeFull", defaults={"img_width": 12, "game": "sim"})
    with pytest.raises(ValueError, match="already registered"):
        registry.register("TM20Full", "tests.tasks.fake_task:FakeFull")
    with pytest.raises(ValueError, match="'module:Class' or 'module:function', got 'fake_task'"):
        registry.register("Other", "fake_task")


def test_configurations_are_taken_as_objects_or_plain_data() -> None:
    config = dataclasses.replace(registry.default_config(FAKE), img_hist_len=2)
    for given in (config, config_to_dict(config), {"img_hist_len": 2}):
        env = tasks.make(FAKE, config=given)
        assert env.observation_spec.fields[3].shape == (2, 64, 12)
        env.close()


def test_overrides_come_last_and_are_checked() -> None:
    env: Any = tasks.make(FAKE, config={"img_hist_len": 2}, img_hist_len=3, reward={"compat": "tmrl"})
    assert env.observation_spec.fields[3].history == 3
    assert env.interface._config.reward.compat is RewardCompat.tmrl
    assert env.interface._config.reward.MIN_STEPS == 70
    with pytest.raises(ValueError, match=r"unknown key task\.rtgym\.act_buf_length"):
        tasks.make(FAKE, rtgym={"act_buf_length": 3})
    with pytest.raises(ValueError, match=r"observation must be one of tuple, dict, flat, got 'list'"):
        tasks.make(FAKE, observation="list")


def test_the_wall_clock_is_rtgyms() -> None:
    env = tasks.make(FAKE, clock=ClockKind.wall, rtgym={"time_step_duration": 0.02, "start_obs_capture": 0.01})
    assert isinstance(env, WallClockEnv)
    env.reset(seed=1)
    started = time.perf_counter()
    for _ in range(11):
        env.step(np.zeros(3))
    assert time.perf_counter() - started > 0.15
    env.wait()
    env.close()


def auto(port: int, **changes: Any) -> TaskConfig:
    """A task with game=auto and the plugin on ``port``."""
    return dataclasses.replace(TaskConfig(game=GameKind.auto, live=LiveConfig(port=port)), **changes)


def test_auto_chooses_the_simulator_when_nothing_listens(caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed_soon:
        port = closed_soon.getsockname()[1]
    with caplog.at_level(logging.WARNING):
        resolved = registry.resolve_game(auto(port), timeout_s=0.3)
    assert (resolved.game, resolved.clock) == (GameKind.sim, ClockKind.virtual)
    assert f"driving the embedded simulator (no telemetry arrives on 127.0.0.1:{port})" in caplog.text


class AnyWindow:
    """A fake of the game's window."""

    def close(self) -> None:
        """Nothing to close."""


@pytest.fixture
def _window_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.live.window.finder.open_window", lambda title, display: AnyWindow())


@pytest.mark.usefixtures("_window_is_open")
def test_auto_chooses_the_live_game_with_telemetry_and_a_window(caplog: pytest.LogCaptureFixture) -> None:
    with plugin(lambda connection: connection.sendall(record() * 10)) as port:
        resolved = registry.resolve_game(auto(port), timeout_s=5.0)
    assert (resolved.game, resolved.clock) == (GameKind.live, ClockKind.wall)
    found = f"driving the live game (telemetry arrives on 127.0.0.1:{port}, and the window 'Trackmania' is open)"
    assert found in caplog.text


@pytest.mark.parametrize("error", [GameSetupError("no display"), window_error(WindowState.not_found, "Trackmania")])
def test_telemetry_without_the_games_window_is_not_the_game(
    error: GameError, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_window(*_: object) -> None:
        raise error

    monkeypatch.setattr("tasks.live.window.finder.open_window", no_window)
    with plugin(lambda connection: connection.sendall(record() * 10)) as port:
        resolved = registry.resolve_game(auto(port), timeout_s=5.0)
    assert (resolved.game, resolved.clock) == (GameKind.sim, ClockKind.virtual)
    place = f"telemetry arrives on 127.0.0.1:{port}, but not from the game"
    assert f"driving the embedded simulator ({place}: {error}; task.game=live drives it nevertheless)" in caplog.text


@pytest.mark.usefixtures("_window_is_open")
def test_a_record_may_come_in_pieces() -> None:
    def trickle(connection: socket.socket) -> None:
        for k in range(110):
            connection.sendall((record() * 10)[4 * k : 4 * k + 4])
            time.sleep(0.005)

    with plugin(trickle) as port:
        assert registry.resolve_game(auto(port), timeout_s=5.0).game is GameKind.live


@pytest.mark.usefixtures("_window_is_open")
def test_another_record_of_the_plugin_is_understood() -> None:
    with plugin(
        lambda connection: connection.sendall(struct.pack("<8f", 30.0, 12.0, 500.0, 10.0, 300.0, 0, 1, 0) * 10)
    ) as port:
        config = TaskConfig(game=GameKind.auto, live=LiveConfig(port=port, record=TelemetryRecord.floats8))
        assert registry.resolve_game(config, timeout_s=5.0).game is GameKind.live


def test_virtual_time_chooses_the_simulator_without_a_probe(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "create_connection", pytest.fail)
    resolved = registry.resolve_game(TaskConfig(game=GameKind.auto, clock=ClockKind.virtual))
    assert resolved.game is GameKind.sim
    assert "the embedded simulator (task.clock=virtual" in caplog.text


@pytest.mark.parametrize(
    "sent",
    [
        b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
        record(speed=500.0) * 10,
        record(gear=99.0) * 10,
        record(rpm=-1.0) * 10,
        record(x=float("nan")) * 10,
        record()[:40],
        b"",
    ],
)
def test_anything_else_on_the_port_is_not_the_game(sent: bytes) -> None:
    with plugin(lambda connection: connection.sendall(sent)) as port:
        resolved = registry.resolve_game(auto(port), timeout_s=0.5)
    assert resolved.game is GameKind.sim


def test_the_probe_of_a_silent_server_ends_in_time() -> None:
    is_given_up = threading.Event()

    def stay_silent(_: socket.socket) -> None:
        is_given_up.wait(60.0)

    started = time.perf_counter()
    with plugin(stay_silent) as port:
        resolved = registry.resolve_game(auto(port), timeout_s=0.2)
        is_given_up.set()
    assert time.perf_counter() - started < 20.0
    assert resolved.game is GameKind.sim


def test_game_sim_is_used_without_a_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "create_connection", pytest.fail)
    assert registry.resolve_game(TaskConfig(game=GameKind.sim)).game is GameKind.sim


def test_the_clock_follows_the_game_unless_it_is_set() -> None:
    kinds = {
        (GameKind.sim, ClockKind.auto): ClockKind.virtual,
        (GameKind.sim, ClockKind.wall): ClockKind.wall,
        (GameKind.live, ClockKind.auto): ClockKind.wall,
        (GameKind.live, ClockKind.wall): ClockKind.wall,
    }
    for (game, clock), resolved in kinds.items():
        assert registry.resolve_game(TaskConfig(game=game, clock=clock)).clock is resolved


def test_the_live_game_does_not_run_in_virtual_time() -> None:
    with pytest.raises(ValueError, match=r"task\.clock must be 'auto' or 'wall' when task\.game is 'live'"):
        TaskConfig(game=GameKind.live, clock=ClockKind.virtual)


def test_building_a_live_task_needs_no_game_and_no_display(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    threads = set(threading.enumerate())
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        env: Any = tasks.make("TM20Full", game="live", live={"port": server.getsockname()[1]}, track="short")
        assert isinstance(env, WallClockEnv)
        env.close()
        with pytest.raises(BlockingIOError):
            server.accept()
    assert set(threading.enumerate()) == threads


def test_a_reset_of_the_live_game_may_take_as_long_as_the_game_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(registry, "make_wall_env", lambda interface, config, **kwargs: asked.append(kwargs))
    live = LiveConfig(wait_for_game_s=1000.0)
    registry._build("TM20Full", TaskConfig(game=GameKind.live, clock=ClockKind.wall, live=live))
    registry._build("TM20Full", TaskConfig(game=GameKind.sim, clock=ClockKind.wall, track="short"))
    assert asked == [{"reset_timeout_s": 1060.0}, {}]


def test_a_live_task_takes_a_path_that_no_simulator_could_drive(tmp_path: Path) -> None:
    up = np.stack([np.zeros(61), np.full(61, 10.0), np.arange(61.0)], axis=1)
    angle = np.linspace(0.0, np.pi, 20)[1:-1]
    turn = np.stack([3.0 - 3.0 * np.cos(angle), np.full(18, 10.0), 60.0 + 3.0 * np.sin(angle)], axis=1)
    np.save(tmp_path / "path.npy", np.concatenate([up, turn, up[::-1] + np.array([6.0, 0.0, 0.0])]))
    with pytest.raises(ValueError, match="radius"):
        tasks.make("TM20Full", game="sim", track=str(tmp_path / "path.npy"))
    env: Any = tasks.make("TM20Full", game="live", track=str(tmp_path / "path.npy"))
    assert 0.1 * (len(env.interface.path) - 1) == pytest.approx(120.0 + 3.0 * np.pi, abs=0.2)
    env.close()


@pytest.mark.parametrize(
    "change", [{"track": "long"}, {"img_hist_len": 3}, {"game": GameKind.sim}, {"rtgym": {"act_buf_len": 3}}]
)
def test_different_tasks_have_different_fingerprints(change: dict[str, object]) -> None:
    base = registry.default_config("TM20Full")
    changed = registry._merged("TM20Full", base, change)
    assert registry.fingerprint("TM20Full", base) != registry.fingerprint("TM20Full", changed)


def test_the_fingerprint_leaves_out_what_a_machine_may_choose() -> None:
    base = registry.default_config("TM20Full")
    other = registry._merged(
        "TM20Full",
        base,
        {"clock": "wall", "sleep_time_at_reset": 0.0, "rtgym": {"benchmark": True}, "live": {"port": 9001}},
    )
    assert registry.fingerprint("TM20Full", base) == registry.fingerprint("TM20Full", other)


def test_the_fingerprint_tells_what_is_captured_and_not_how_that_was_said() -> None:
    null, said, captured = (registry.fingerprint("TM20Full", TaskConfig(privileged=p)) for p in (None, False, True))
    assert null == said != captured


def test_the_fingerprint_depends_on_the_content_of_a_track_file(tmp_path: Path) -> None:
    def mark(name: str, content: str) -> str:
        (tmp_path / name).write_text(content)
        return registry.fingerprint("TM20Full", TaskConfig(track=str(tmp_path / name)))

    assert mark("a.csv", "0,0\n") == mark("b.csv", "0,0\n") != mark("c.csv", "0,1\n")


def test_the_fingerprint_depends_on_the_values_of_a_vehicle_file_which_is_then_not_needed(tmp_path: Path) -> None:
    for name, content in (("a", "yaw_lag_s: 0.2"), ("b", "# slow\nyaw_lag_s: 0.20"), ("c", "yaw_lag_s: 0.3")):
        (tmp_path / name).write_text(content, encoding="utf-8")
    tasks = [TaskConfig(vehicle=str(tmp_path / name)) for name in "abc"]
    marks = [registry.fingerprint("TM20Full", task) for task in tasks]
    assert marks[0] == marks[1] != marks[2]
    assert registry.fingerprint("TM20Full", TaskConfig()) not in marks
    kept = registry.keep_vehicle(tasks[0])
    (tmp_path / "a").unlink()
    assert kept.vehicle == '{"yaw_lag_s": 0.2}'
    assert registry.fingerprint("TM20Full", kept) == marks[0]
    assert registry.keep_vehicle(kept) == kept
