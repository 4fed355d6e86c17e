"""The whole live path against the stand-in game: a real window, real keys, real sockets, real time.

All time limits are generous: the tests check what happens, not how soon.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tasks
from tasks import registry
from tasks.config import GameKind, LiveConfig, RandomizationConfig, TaskConfig
from tasks.game.clock import VirtualClock
from tasks.game.errors import TelemetryError, TelemetryState, WindowError, WindowState
from tasks.live.screen import is_black
from tasks.sim.game import SimulatedGame
from tasks.sim.track import load_track
from tests.tasks.live.live_driving import (
    PursuitDriver,
    drive,
    drive_until_lost,
    drive_until_moved,
    live_env,
    wait_until,
)
from tests.tasks.live.stand_ins import ROOT, StandIn

CHECKPOINT = ROOT / "runs" / "zoo" / "TM20Lidar" / "policy.pth"
LIDAR_WINDOW = "958x488"
ATTEMPTS = 3
"""Laps that the scripted driver may try: a busy machine stalls for moments."""


@pytest.fixture(scope="module")
def small_game(display: str) -> Iterator[StandIn]:
    """One game for the tests of faults."""
    with StandIn(display) as game:
        yield game


@pytest.fixture
def game(small_game: StandIn) -> Iterator[StandIn]:
    # It notices late that the client of an earlier test has gone, and listens again a frame later.
    wait_until(lambda: not small_game.state()["has_client"], "the earlier client is gone")
    small_game.state()
    yield small_game
    small_game.clear()


@pytest.fixture
def env(game: StandIn) -> Iterator[Any]:
    env = live_env(game)
    yield env
    env.close()


def test_a_scripted_driver_finishes_through_window_screen_keys_and_telemetry(display: str) -> None:
    with StandIn(display, size=LIDAR_WINDOW, title="Lap") as game:
        rtgym = {"wait_on_done": True}
        env = live_env(game, "TM20Lidar", rtgym=rtgym, save_replays=True)
        for attempt in range(1, ATTEMPTS + 1):
            observation, info = env.reset()
            if attempt == 1:
                assert_the_start_is_seen(observation)
            driver, terminated, truncated = PursuitDriver(env.interface.path), False, False
            while not (terminated or truncated):
                observation, _, terminated, truncated, info = env.step(driver.act(info))
            assert not truncated
            if info["episode_statistics"]["finished"]:
                break
        state = game.state()
        env.close()
    statistics = info["episode_statistics"]
    assert statistics["finished"] == 1.0
    assert info["progress"] == 1.0
    length_m = load_track("short").length_m
    assert 0.9 * length_m < statistics["distance_m"] < 1.4 * length_m
    # The driver lets go of the gas at 22 m/s.
    assert statistics["max_speed_mps"] < 28.0
    assert statistics["lap_time_s"] > statistics["distance_m"] / 28.0
    # One restart at each reset and one at each rest, which also saves a ghost.
    assert state["restarts"] == 2 * attempt
    assert state["ghosts"] == attempt
    assert not state["shows_finish_screen"]


def assert_the_start_is_seen(observation: tuple[np.ndarray, ...]) -> None:
    """The LIDAR on the captured window equals the simulator's for a car at the start."""
    random = RandomizationConfig(frame_phase=False, start_offset_m=0.0, start_yaw_deg=0.0)
    config = TaskConfig(name="TM20Lidar", window_width=958, window_height=488, randomization=random)
    simulated = SimulatedGame(VirtualClock(), load_track("short"), config)
    np.testing.assert_array_equal(observation[1], np.tile(simulated.lidar(), (4, 1)))


def test_the_road_ahead_is_that_of_the_simulator(game: StandIn) -> None:
    env = live_env(game, "TM20Track", observation="dict")
    observation, info = env.reset()
    random = {"frame_phase": False, "start_offset_m": 0.0, "start_yaw_deg": 0.0, "rolling_starts": 0.0}
    simulated = tasks.make("TM20Track", observation="dict", game="sim", track="short", randomization=random)
    for name, value in simulated.reset(seed=0)[0].items():
        np.testing.assert_allclose(observation[name], value, atol=0.01, rtol=1e-3, err_msg=name)
    drive_until_moved(env, info, metres=10.0)
    env.close()


def test_auto_chooses_the_live_game_when_it_runs(game: StandIn) -> None:
    config = TaskConfig(game=GameKind.auto, live=LiveConfig(port=game.port, display=game.display))
    assert registry.resolve_game(config, timeout_s=20.0).game is GameKind.live
    # The plugin notices the end of the probe late; driving starts nevertheless.
    env = live_env(game)
    drive_until_moved(env, env.reset()[1])
    env.close()


def test_auto_refuses_telemetry_without_the_games_window(display: str, caplog: pytest.LogCaptureFixture) -> None:
    with StandIn(display, title="Another game") as game:
        live = LiveConfig(port=game.port, display=game.display, window_title="My game")
        assert registry.resolve_game(TaskConfig(live=live), timeout_s=20.0).game is GameKind.sim
    assert "but not from the game: the window 'My game' was not found" in caplog.text


@pytest.mark.parametrize(
    "fault",
    [
        {"name": "split"},
        {"name": "split", "pieces": [17, 27]},
        {"name": "burst", "count": 20},
        {"name": "slow", "fps": 5.0},
        {"name": "move", "x": 300, "y": 200},
        {"name": "resize", "width": 640, "height": 360},
        {"name": "unfocus"},
    ],
    ids=lambda fault: "-".join(map(str, fault.values())),
)
def test_driving_survives(fault: dict[str, Any], game: StandIn, env: Any) -> None:
    info = drive_until_moved(env, env.reset()[1])
    game.fault(**fault)
    info = drive(env, info, 1.5)
    assert not info["truncated"], info.get("game_lost")
    info = drive_until_moved(env, info)
    parts = env.interface.game.open()
    assert parts.telemetry.state is TelemetryState.receiving
    assert parts.window.state() is WindowState.ready
    assert parts.window.geometry().size == (256, 128)
    if fault["name"] == "move":
        assert (parts.window.geometry().left, parts.window.geometry().top) == (300, 200)
    if fault["name"] == "resize":
        assert game.state()["size"] == [256, 128]
    if fault["name"] == "unfocus":
        assert parts.window.is_focused()


LOST = {
    "silence": (TelemetryState.in_menu, "is connected, but silent, as it is in a menu"),
    "nan": (TelemetryState.implausible, r"makes no sense: .* task\.live\.record"),
    "skip": (TelemetryState.implausible, r"makes no sense: .* task\.live\.record"),
    "rst": (TelemetryState.lost, r"broke \(.*\); connecting again"),
    "close": (TelemetryState.lost, r"broke \(the plugin closed it\); connecting again"),
    "unload": (TelemetryState.lost, r"broke \(.*\); connecting again"),
    "other_client": (TelemetryState.lost, r"broke \(.*\); connecting again"),
    "minimise": (WindowState.minimised, "is minimised .* restore it"),
    "no_window": (WindowState.closed, "is closed: start the game again"),
}
"""Faults that end the episode, with their message."""
MOMENTARY = ("skip", "rst", "close")
WAITING = {
    "silence": "connected, but silent",
    "nan": "makes no sense",
    "unload": "its plugin is not loaded: .* F3",
    "other_client": r"as well, and the plugin serves only one program at a time\. End the other one",
    "minimise": "is minimised",
    "no_window": "is closed",
}
"""Message of the next reset while the fault lasts; other faults have ended by then."""


@pytest.mark.parametrize("fault", LOST)
def test_a_lost_game_truncates_and_driving_resumes_when_it_is_back(
    fault: str, game: StandIn, env: Any, caplog: pytest.LogCaptureFixture
) -> None:
    state, message = LOST[fault]
    info = drive_until_moved(env, env.reset()[1])
    attempts, timeout_s = (5, 2.0) if fault in MOMENTARY else (1, 15.0)
    info = drive_until_lost(env, info, lambda: game.fault(fault), attempts, timeout_s)
    error = env.interface.game_error
    assert isinstance(error, TelemetryError | WindowError)
    assert error.state is state
    assert re.search(message, info["game_lost"]), info["game_lost"]
    assert info["episode_statistics"]["finished"] == 0.0
    wait_until(lambda: game.state()["keys"] == [], "all keys are released")
    if fault in WAITING:
        with clear_once_said(game, f"^waiting for the game: .*{WAITING[fault]}", caplog):
            info = env.reset()[1]
        assert "the game is back" in caplog.text
    else:
        info = env.reset()[1]
    assert info["speed_mps"] < 5.0
    drive_until_moved(env, info)


@contextlib.contextmanager
def clear_once_said(game: StandIn, message: str, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Waits until ``message`` is logged, then ends all faults."""
    was_said = threading.Event()

    def watch() -> None:
        end = time.monotonic() + 30.0
        while time.monotonic() < end:
            if any(re.search(message, record.getMessage()) for record in list(caplog.records)):
                was_said.set()
                break
            time.sleep(0.05)
        game.clear()

    watcher = threading.Thread(target=watch)
    watcher.start()
    yield
    watcher.join()
    assert was_said.is_set(), f"{message!r} is not in {caplog.text}"


def test_a_game_that_ends_is_waited_for_until_it_is_started_again(
    display: str, caplog: pytest.LogCaptureFixture
) -> None:
    with StandIn(display, title="Restarted") as first:
        env = live_env(first)
        info = drive_until_moved(env, env.reset()[1])
        info = drive_until_lost(env, info, first.quit)
        assert re.search("connecting again|is closed", info["game_lost"])
        port = first.port
    answers: list[Any] = []
    reset = threading.Thread(target=lambda: answers.append(env.reset()))
    reset.start()
    wait_until(lambda: "TrackMania has no window. Start TrackMania" in caplog.text, "what to do is said", 30.0)
    with StandIn(display, port=port, title="Restarted"):
        reset.join(60.0)
        assert answers, "reset() did not come back with the game"
        assert "the game is back" in caplog.text
        drive_until_moved(env, answers[0][1])
        env.close()


def test_a_game_that_hangs_truncates_and_driving_resumes(game: StandIn, env: Any) -> None:
    info = drive_until_moved(env, env.reset()[1])
    hung = threading.Thread(target=game.fault, args=("stall", 3.0))  # it answers when the fault is over
    info = drive_until_lost(env, info, hung.start)
    error = env.interface.game_error
    assert isinstance(error, TelemetryError)
    assert error.state is TelemetryState.in_menu
    assert re.search(r"no telemetry for \d\.\d s: .* is connected, but silent", info["game_lost"])
    hung.join(20.0)
    wait_until(lambda: game.state()["keys"] == [], "all keys are released")
    drive_until_moved(env, env.reset()[1])


def test_a_ghost_that_cannot_be_saved_is_only_a_warning(game: StandIn, caplog: pytest.LogCaptureFixture) -> None:
    ghosts = game.fault("no_ghost")["ghosts"]
    with contextlib.closing(live_env(game, save_replays=True)) as env:
        drive_until_moved(env, env.reset()[1])
        env.wait()
        assert re.search(
            rf"no ghost saved: nothing answers on 127\.0\.0\.1:{game.ghost_port} .*save_replays", caplog.text
        )
        assert env.interface.game.open().telemetry.state is TelemetryState.receiving
        assert game.state()["ghosts"] == ghosts
        drive_until_moved(env, env.reset()[1])
        game.clear("no_ghost")
        env.wait()
        wait_until(lambda: game.state()["ghosts"] == ghosts + 1, "a ghost is saved")


def test_a_speed_in_another_unit_is_reported(game: StandIn, env: Any) -> None:
    info = drive_until_lost(env, env.reset()[1], lambda: game.fault("kmh"), timeout_s=20.0)
    assert env.interface.game_error.state is TelemetryState.implausible
    assert "the plugin seems to send km/h, and m/s are needed" in info["game_lost"]
    game.clear()
    drive_until_moved(env, env.reset()[1])


def test_a_frozen_picture_is_reported(game: StandIn, env: Any) -> None:
    info = drive_until_moved(env, env.reset()[1])
    live = env.interface.game
    game.fault("frozen")
    assert any(frozen(env, live, info) for _ in range(3)), "frozen"
    game.clear()
    info = drive_until_moved(env, env.reset()[1])
    assert not frozen(env, live, info)


def frozen(env: Any, live: Any, info: dict[str, Any]) -> bool:
    """Whether the picture is the same for six steps of driving, within some more."""
    seen, same, driver = live.frame().copy(), 0, PursuitDriver(env.interface.path)
    for _ in range(20):
        *_, terminated, truncated, info = env.step(driver.act(info))
        same = same + 1 if np.array_equal(live.frame(), seen) and info["speed_mps"] > 1.0 else 0
        seen = live.frame().copy()
        if same == 6:
            return True
        if terminated or truncated:
            info = env.reset()[1]
            driver = PursuitDriver(env.interface.path)
    return False


def test_a_black_picture_is_reported(game: StandIn, env: Any) -> None:
    drive_until_moved(env, env.reset()[1])
    live = env.interface.game
    assert not is_black(live.frame())
    game.fault("black")
    wait_until(lambda: is_black(live.frame()), "the picture is black")
    game.clear()
    drive_until_moved(env, env.reset()[1])
    assert not is_black(live.frame())


def test_the_doctor_describes_the_game(game: StandIn, env: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        env.reset()
    (line,) = [entry.getMessage() for entry in caplog.records if entry.getMessage().startswith("live game:")]
    assert re.search(r"window 'Trackmania' 256x128 at \(\d+, \d+\), focused", line)
    assert re.search(r"pictures in \d+\.\d ms", line)
    assert re.search(r"telemetry \d+ records/s \(one a frame\), \d+ ms old", line)
    assert f"record floats11 on port {game.port}" in line
    assert line.endswith("controls keyboard")


def live_words(game: StandIn) -> list[str]:
    """Arguments with which a user drives this game."""
    live = {"display": game.display, "port": game.port, "window_title": game.title}
    return ["task.game=live", *(f"task.live.{name}={value}" for name, value in live.items())]


def play(display: str, folder: Path, episodes: int) -> dict[str, Any]:
    """Plays the shipped checkpoint on the stand-in with a user's command; returns its results."""
    with StandIn(display, size=LIDAR_WINDOW, title="Played") as game:
        command = [sys.executable, str(ROOT / "train.py"), "--play", "--checkpoint", str(CHECKPOINT)]
        command += live_words(game)
        command += ["task.track=short", "task.control=keyboard", f"play.episodes={episodes}"]
        environment = {name: value for name, value in os.environ.items() if name != "DISPLAY"}
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60.0 + 30.0 * episodes
        )
    assert done.returncode == 0, done.stderr
    assert "live game: window 'Played' 958x488" in done.stderr
    (written,) = folder.glob("runs/**/play/*/results.json")
    assert (written.parent / "episode.mp4").stat().st_size > 0
    assert (written.parent / "driven_line.png").stat().st_size > 0
    return dict(json.loads(written.read_text()))


def test_the_shipped_checkpoint_plays_the_live_game(display: str, tmp_path: Path) -> None:
    results = play(display, tmp_path, episodes=2)
    assert (results["task"], results["track"], results["game"]) == ("TM20Lidar", "short", "live")
    assert "scripted_lap_time_s" not in results
    # The slow test checks how often it finishes.
    assert len(results["episodes"]) == 2
    assert results["finish_rate"] >= 0.5
    assert results["mean_lap_time_s"] < 15.0


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_shipped_checkpoint_finishes_8_of_10_live_episodes(display: str, tmp_path: Path) -> None:
    results = play(display, tmp_path, episodes=10)
    assert len(results["episodes"]) == 10
    assert sum(episode["finished"] for episode in results["episodes"]) >= 8


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_training_continues_after_the_game_was_lost_in_mid_episode(display: str, tmp_path: Path) -> None:
    with StandIn(display, size=LIDAR_WINDOW, title="Trained") as game:
        words = ["task=TM20Lidar", "train=TM20LidarSAC", "task.track=short", "max_env_steps=400", "--headless"]
        words += ["task.sleep_time_at_reset=0.1", "task.live.max_telemetry_age_s=0.7", "task.control=keyboard"]
        sac = "train.params.config"
        # Every stored sample is rebuilt and compared with what the worker saw, also that of the lost step.
        words += [
            f"{sac}.env_steps_before_training=100",
            f"{sac}.evaluation_interval=0",
            f"{sac}.debug.check_samples=true",
        ]
        command = [sys.executable, str(ROOT / "train.py"), *words, *live_words(game)]
        with open(tmp_path / "said.txt", "w") as said:
            training = subprocess.Popen(command, cwd=tmp_path, stdout=said, stderr=subprocess.STDOUT)
            try:
                for fault in ("silence", "no_window"):
                    wait_until(lambda: game.state()["car"]["forward_mps"] > 8.0, "the worker drives", 120.0)
                    game.fault(fault, seconds=3.0)
                    wait_until(lambda: not game.state()["faults"], "the fault is over")
                assert training.wait(200.0) == 0
            finally:
                training.kill()
                training.wait(10.0)
        assert game.state()["keys"] == []
    text = (tmp_path / "said.txt").read_text()
    assert text.count("the game is lost, so the episode ends") == 2, text
    assert text.count("the game is back") == 2
    assert list(tmp_path.glob("runs/*/nn/last.pth"))
