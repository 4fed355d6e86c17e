"""Driving the stand-in game in tests: environments on it, and a scripted driver that sees what a task sees."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import tasks
from tests.tasks.live.stand_ins import StandIn


def live_env(game: StandIn, name: str = "TM20Full", **overrides: Any) -> Any:
    """A task on the stand-in as on the live game, by keyboard, with short time limits."""
    live = {
        "display": game.display,
        "port": game.port,
        "ghost_port": game.ghost_port,
        "window_title": game.title,
        "max_telemetry_age_s": 0.7,
        "wait_for_game_s": 60.0,
        **overrides.pop("live", {}),
    }
    settings = {"track": "short", "sleep_time_at_reset": 0.1, "rtgym": {"wait_on_done": False}, **overrides}
    return tasks.make(name, game="live", control="keyboard", live=live, **settings)


class PursuitDriver:
    """Steers towards a point of the path ahead of the newest telemetry; slow enough for late steps."""

    def __init__(self, path: np.ndarray, cruise_mps: float = 22.0) -> None:
        self._path = path[:, [0, 2]]
        self._cruise_mps = cruise_mps
        self._index = 0
        self._before: tuple[float, float] | None = None
        self._yaw = math.atan2(*(self._path[20] - self._path[0]))

    def act(self, info: dict[str, Any]) -> np.ndarray:
        x, z, speed = info["x"], info["z"], info["speed_mps"]
        if self._before is not None and math.dist(self._before, (x, z)) > 0.3:
            self._yaw = math.atan2(x - self._before[0], z - self._before[1])
        self._before = (x, z)
        window = self._path[self._index : self._index + 300]
        self._index += int(np.argmin(np.hypot(window[:, 0] - x, window[:, 1] - z)))
        ahead = self._path[min(self._index + int(10 * (6.0 + 0.5 * speed)), len(self._path) - 1)]
        turn = (math.atan2(ahead[0] - x, ahead[1] - z) - self._yaw + math.pi) % (2 * math.pi) - math.pi
        steer = float(np.clip(turn / 0.3, -1.0, 1.0))  # an arrow is pressed beyond 0.15 rad
        return np.array([speed < self._cruise_mps, speed > self._cruise_mps + 6.0, steer], np.float32)


def drive(env: Any, info: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Drives for a while or to the end of the episode; returns the last info with ``terminated`` and ``truncated``."""
    driver = PursuitDriver(env.interface.path)
    end = time.monotonic() + seconds
    while True:
        _, _, terminated, truncated, info = env.step(driver.act(info))
        if terminated or truncated or time.monotonic() > end:
            return {**info, "terminated": terminated, "truncated": truncated}


def drive_until_moved(env: Any, info: dict[str, Any], metres: float = 3.0, timeout_s: float = 20.0) -> dict[str, Any]:
    """Drives until the car is ``metres`` away from where it was; fails when it does not get there."""
    start, driver = (info["x"], info["z"]), PursuitDriver(env.interface.path)
    end = time.monotonic() + timeout_s
    while math.dist(start, (info["x"], info["z"])) < metres:
        assert time.monotonic() < end, f"the car has not moved {metres} m in {timeout_s} s"
        _, _, terminated, truncated, info = env.step(driver.act(info))
        assert not terminated, "the episode ended"
        assert not truncated, info.get("game_lost", "the episode was truncated")
    return info


def drive_until_lost(
    env: Any, info: dict[str, Any], fault: Callable[[], object], attempts: int = 1, timeout_s: float = 10.0
) -> dict[str, Any]:
    """Lets a fault happen and drives until the game is lost; returns the info that says so.

    Args:
        env: The environment, in mid-episode.
        info: Its newest info.
        fault: Begins the fault.
        attempts: More than one for a short fault, which may fall between two late steps.
        timeout_s: For each attempt [s].
    """
    for _ in range(attempts):
        fault()
        info = drive(env, info, timeout_s)
        if info["truncated"]:
            break
        if info["terminated"]:
            info = env.reset()[1]
    assert info["truncated"], f"the game was not lost in {attempts} x {timeout_s} s"
    assert "game_lost" in info, "the episode was truncated for another reason"
    return info


def wait_until(condition: Callable[[], bool], what: str, timeout_s: float = 20.0) -> None:
    """Waits until a condition holds."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, f"{what}: not within {timeout_s} s"
        time.sleep(0.02)
