"""A live game that is lost while a task drives it: the episode is truncated, and the next one waits."""

from __future__ import annotations

import dataclasses
import logging
import threading
import time

import numpy as np
import pytest

from tasks.config import ClockKind, GameKind, LiveConfig, TaskConfig
from tasks.envs.interface import Interrupted
from tasks.envs.realtime import VirtualTimeEnv
from tasks.game.clock import VirtualClock
from tasks.game.errors import GameError, GameSetupError, TelemetryError, TelemetryState, WindowError, WindowState
from tasks.trackmania.full import FullInterface
from tasks.trackmania.lost_game import GameWait
from tests.tasks.fake_game import FakeGame, straight_path, task_config

GAS = np.array([1.0, 0.0, 0.0], np.float32)
MENU = TelemetryError(TelemetryState.in_menu, "a menu: load a map")
CLOSED = WindowError(WindowState.closed, "the window is closed: start the game")


class LosableGame(FakeGame):
    """Raises ``fault`` from the parts in ``faulty``, ``times`` times (None: until it is removed)."""

    fault: GameError | None = None
    faulty = ("telemetry",)
    times: int | None = None

    def telemetry(self):  # type: ignore[no-untyped-def]
        self._require("telemetry")
        return super().telemetry()

    def image(self) -> np.ndarray:
        self._require("image")
        return super().image()

    def frame(self) -> np.ndarray:
        self._require("image")
        return super().frame()

    def apply(self, control: np.ndarray | None) -> None:
        self._require("apply")
        super().apply(control)

    def restart(self, seed: int | None, from_start: bool = False) -> None:
        self._require("restart")
        super().restart(seed, from_start)

    def rest(self, save_replay: bool) -> None:
        super().rest(save_replay)
        self._require("rest")

    def _require(self, what: str) -> None:
        if self.fault is None or what not in self.faulty or self.times == 0:
            return
        if self.times is not None:
            self.times -= 1
        raise self.fault


def build(**changes: object) -> tuple[VirtualTimeEnv, LosableGame]:
    """TM20Full as on a live game, in virtual time."""
    clock = VirtualClock()
    config = live_config(**changes)
    game = LosableGame(clock, config)
    return VirtualTimeEnv(FullInterface(game, straight_path(), config, clock), config.rtgym, clock), game


def live_config(**changes: object) -> TaskConfig:
    live = LiveConfig(wait_for_game_s=5.0)
    base = dataclasses.replace(task_config(), game=GameKind.live, clock=ClockKind.auto, live=live)
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("faulty", ["telemetry", "image", "apply"])
def test_a_game_lost_in_mid_episode_truncates_it(faulty: str) -> None:
    env, game = build()
    env.reset(seed=1)
    for _ in range(5):
        before, reward, *_, info_before = env.step(GAS)
    assert reward > 0.0
    game.fault, game.faulty = MENU, (faulty,)
    observation, reward, terminated, truncated, info = env.step(GAS)
    if not truncated:  # a control that cannot be sent is known one step later
        before, info_before = observation, info
        observation, reward, terminated, truncated, info = env.step(GAS)
    assert (reward, terminated, truncated) == (0.0, False, True)
    for one, other in zip(observation[:3], before[:3], strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(observation[3], before[3][[1, 2, 3, 3]])
    assert info["game_lost"] == "a menu: load a map"
    assert {key: info[key] for key in ("progress", "x", "z", "speed_mps")} == {
        key: info_before[key] for key in ("progress", "x", "z", "speed_mps")
    }
    assert info["episode_statistics"]["length"] == (6.0 if faulty != "apply" else 7.0)
    assert info["episode_statistics"]["finished"] == 0.0


def test_waiting_for_the_game_is_not_a_hang() -> None:
    env, game = build()
    seen: list[bool] = []

    class Stop(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            seen.append(env.interface.is_waiting)
            return False

    env.interface._stop = Stop()  # type: ignore[attr-defined]
    game.fault, game.times, game.faulty = CLOSED, 2, ("restart",)
    env.reset(seed=1)
    assert seen == [True, True]
    assert env.interface.is_waiting is False


def test_a_lost_game_is_logged_at_once(caplog: pytest.LogCaptureFixture) -> None:
    env, game = build()
    env.reset(seed=1)
    game.fault = MENU
    env.step(GAS)
    assert [record.getMessage() for record in caplog.records] == [
        "the game is lost, so the episode ends: a menu: load a map"
    ]


def test_nothing_stays_pressed_when_the_game_is_lost() -> None:
    env, game = build()
    env.reset(seed=1)
    env.step(GAS)
    game.fault, game.faulty = MENU, ("telemetry",)
    env.step(GAS)
    assert game.applied[-1][1] == [0.0, 0.0, 0.0]


def test_the_next_episode_waits_until_the_game_is_back(caplog: pytest.LogCaptureFixture) -> None:
    env, game = build()
    game.fault, game.times, game.faulty = CLOSED, 2, ("restart",)
    with caplog.at_level(logging.WARNING):
        env.reset(seed=1)
    said = [record.getMessage() for record in caplog.records if record.name.startswith("tasks.")]
    assert len(said) == 2
    assert said[0].startswith("waiting for the game: the window is closed: start the game (5 s left)")
    assert said[1].startswith("the game is back after")
    caplog.clear()
    assert not env.step(GAS)[3]
    assert env.step(GAS)[1] >= 0.0
    assert not caplog.records


def test_a_picture_that_is_missing_at_the_start_is_waited_for() -> None:
    env, game = build()
    game.fault, game.times, game.faulty = CLOSED, 1, ("image",)
    observation, _ = env.reset(seed=1)
    assert observation[3].shape == (4, 6, 8)
    assert len(game.seeds) == 2


def test_waiting_ends_when_the_game_does_not_come_back() -> None:
    env, game = build(live=LiveConfig(wait_for_game_s=0.2))
    game.fault, game.faulty = MENU, ("restart",)
    with pytest.raises(GameError, match=r"within 0 s \(task\.live\.wait_for_game_s\): a menu: load a map"):
        env.reset(seed=1)


def test_a_fault_of_the_machine_is_not_waited_for() -> None:
    env, game = build()
    game.fault, game.faulty = GameSetupError("install it"), ("restart",)
    with pytest.raises(GameSetupError, match="install it"):
        env.reset(seed=1)


def test_a_waiting_reset_can_be_interrupted() -> None:
    env, game = build(live=LiveConfig(wait_for_game_s=100.0))
    game.fault, game.faulty = MENU, ("restart",)
    threading.Timer(0.2, env.interface.interrupt).start()
    started = time.monotonic()
    with pytest.raises(Interrupted, match="a menu: load a map"):
        env.reset(seed=1)
    assert time.monotonic() - started < 10.0


def test_a_reset_that_fails_because_the_program_stops_logs_no_waiting(caplog: pytest.LogCaptureFixture) -> None:
    env, game = build(live=LiveConfig(wait_for_game_s=100.0))
    game.fault, game.faulty = GameError("the live game is closed"), ("restart",)
    env.interface.interrupt()
    with pytest.raises(Interrupted):
        env.reset(seed=1)
    assert not caplog.records


def test_a_game_lost_between_episodes_is_no_error_yet() -> None:
    env, game = build(save_replays=True)
    env.reset(seed=1)
    game.fault, game.faulty = MENU, ("rest",)
    env.wait()
    assert game.rests == [True]


def test_rendering_a_lost_game_gives_no_picture() -> None:
    env, game = build()
    env.reset(seed=1)
    game.fault, game.faulty = CLOSED, ("image",)
    assert env.render() is None


def test_the_car_of_a_live_game_stands_still_before_the_first_step() -> None:
    env, _ = build(sleep_time_at_reset=1.5)
    env.reset(seed=1)
    # The picture of the first observation counts ticks of 10 ms since the restart.
    assert env.step(GAS)[0][3][0, 0, 0] == 150


def test_a_path_of_another_map_is_refused() -> None:
    env, game = build(sleep_time_at_reset=0.0)
    game.restart = lambda *_: setattr(game, "_x", 60.0)  # type: ignore[assignment, method-assign]
    with pytest.raises(GameSetupError, match=r"the car starts at \(60\.0, 0\.0, 0\.0\) m, but the reference path of "):
        env.reset(seed=1)
    env.reset(seed=1, options={"anywhere": True})
    game.restart = lambda *_: setattr(game, "_x", 40.0)  # type: ignore[assignment, method-assign]
    env.reset(seed=1)


def test_waiting_logs_each_state_once_and_then_every_half_minute(caplog: pytest.LogCaptureFixture) -> None:
    times = iter([0.0, 1.0, 2.0, 3.0, 20.0, 32.5, 33.0, 40.0])
    wait = GameWait(100.0, threading.Event(), now=lambda: next(times), retry_s=0.0)
    for error in (MENU, MENU, CLOSED, CLOSED, CLOSED, CLOSED, CLOSED):
        wait.after(error)
    wait.is_over()
    assert [record.getMessage() for record in caplog.records] == [
        "waiting for the game: a menu: load a map (100 s left)",
        "waiting for the game: the window is closed: start the game (98 s left)",
        "still waiting: the window is closed: start the game (68 s left)",
        "the game is back after 40 s: driving continues",
    ]


def test_a_game_that_was_never_lost_is_not_logged_as_back(caplog: pytest.LogCaptureFixture) -> None:
    GameWait(100.0, threading.Event()).is_over()
    assert not caplog.records
