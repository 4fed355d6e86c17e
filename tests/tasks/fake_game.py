"""A game for tests: a car on a straight line, in 10 ms ticks of the given clock."""

from __future__ import annotations

import math

import numpy as np

from tasks.config import ControlKind, GameKind, RandomizationConfig, RewardConfig, RtgymConfig, TaskConfig
from tasks.game.clock import Clock
from tasks.game.protocols import GameFacts, Telemetry

TICK_S = 0.01
LENGTH_M = 200.0


class FakeGame:
    """Speed follows 30 m/s x gas with a lag of ten ticks; the finish is at ``length_m``.

    Checks every control it is given. ``applied`` and ``seeds`` record the calls, pictures count the ticks.
    """

    def __init__(self, clock: Clock, config: TaskConfig, length_m: float = LENGTH_M) -> None:
        self._clock = clock
        self._config = config
        self._length_m = length_m
        self.applied: list[tuple[float, list[float]]] = []
        self.seeds: list[int | None] = []
        self.rests: list[bool] = []
        self.stale_finish = False
        self.closed = 0
        self._place()

    def telemetry(self) -> tuple[Telemetry, float]:
        self._advance()
        finished = float(self.stale_finish or self._x >= self._length_m)
        record = Telemetry(
            speed=self._speed, distance=self._x, x=self._x, y=0.0, z=0.0, steer=0.0, gas=self._gas, is_braking=0.0,
            finished=finished, gear=1.0, rpm=1000.0 + self._tick,
        )  # fmt: skip
        return record, 0.0

    def frame(self) -> np.ndarray:
        self._advance()
        shape = (self._config.window_height, self._config.window_width, 4)
        return np.full(shape, self._tick % 256, np.uint8)

    def image(self) -> np.ndarray:
        self._advance()
        channels = () if self._config.img_grayscale else (3,)
        return np.full((self._config.img_height, self._config.img_width, *channels), self._tick % 256, np.uint8)

    def lidar(self) -> np.ndarray:
        self._advance()
        return np.arange(19, dtype=np.float32) + self._tick

    def apply(self, control: np.ndarray | None) -> None:
        self._advance()
        if control is None:
            return
        if control.shape != (3,) or not np.isfinite(control).all() or np.abs(control).max() > 1.0:
            raise ValueError(f"control must be three numbers in [-1, 1], got {control}")
        self.applied.append((self._clock.now(), control.tolist()))
        self._gas = max(float(control[0]), 0.0)

    def restart(self, seed: int | None, from_start: bool = False) -> None:
        self.seeds.append(seed)
        self._place()

    def rest(self, save_replay: bool) -> None:
        self.rests.append(save_replay)

    def episode_facts(self) -> GameFacts:
        finish = self._finish_time_s if self._x >= self._length_m else math.nan
        return GameFacts(finish_time_s=finish, wall_contacts=self._tick // 50, wall_impact_mps=0.5, yaw=0.0)

    def close(self) -> None:
        self.closed += 1

    def _place(self) -> None:
        self._started_at = self._clock.now()
        self._tick = 0
        self._x = 0.0
        self._speed = 0.0
        self._gas = 0.0
        self._finish_time_s = math.nan

    def _advance(self) -> None:
        target = math.floor((self._clock.now() - self._started_at) / TICK_S + 1e-6)
        while self._tick < target:
            self._tick += 1
            self._speed += 0.1 * (30.0 * self._gas - self._speed)
            before, self._x = self._x, self._x + self._speed * TICK_S
            if before < self._length_m <= self._x:
                share = (self._length_m - before) / (self._x - before)
                self._finish_time_s = (self._tick - 1 + share) * TICK_S


def straight_path(length_m: float = LENGTH_M) -> np.ndarray:
    """Points every 0.1 m along x."""
    x = np.arange(round(length_m / 0.1) + 1) * 0.1
    return np.stack([x, np.zeros_like(x), np.zeros_like(x)], axis=1)


def task_config(name: str = "TM20Full", control: ControlKind = ControlKind.gamepad, **rtgym: object) -> TaskConfig:
    """A task without randomness."""
    is_lidar = name != "TM20Full"
    return TaskConfig(
        name=name,
        game=GameKind.sim,
        control=control,
        window_width=958 if is_lidar else 256,
        window_height=488 if is_lidar else 128,
        img_width=8,
        img_height=6,
        rtgym=RtgymConfig(**rtgym),  # type: ignore[arg-type]
        reward=RewardConfig(),
        randomization=RandomizationConfig(capture_jitter_s=0.0),
    )
