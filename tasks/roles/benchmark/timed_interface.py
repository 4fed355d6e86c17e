"""Times the calls of a task: when actions were sent, how long captures took, how old the telemetry was.

``tasks.roles.benchmark.benchmark`` wraps the task of an environment in it.
"""

from __future__ import annotations

import math
import time
from typing import Any, NamedTuple

import numpy as np

from tasks.envs.interface import TaskInterface
from tasks.experience.observation import Info
from tasks.game.clock import Clock
from tasks.game.protocols import Game, Telemetry


class Send(NamedTuple):
    """One action."""

    started_s: float
    """When it was sent, in real time [s]."""
    duration_s: float


class Capture(NamedTuple):
    """One observation."""

    duration_s: float
    """In real time [s]."""
    telemetry_s: float
    """Time of the newest record in it, on the clock of the task [s]; NaN for a task without telemetry."""


class TimedInterface:
    """A ``TaskInterface`` that passes all calls on and records their times, for one episode after the other.

    Args:
        inner: The task.
        clock: The clock it runs on.
    """

    def __init__(self, inner: TaskInterface, clock: Clock) -> None:
        self.inner = inner
        self._game = _TimedGame(inner.game, clock) if hasattr(inner, "game") else None
        if self._game is not None:
            inner.game = self._game  # type: ignore[attr-defined]
        self.sends: list[Send] = []
        self.captures: list[Capture] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def send_control(self, control: np.ndarray | None) -> None:
        """Sends a control and records the time."""
        started_s = time.perf_counter()
        self.inner.send_control(control)
        self.sends.append(Send(started_s, time.perf_counter() - started_s))

    def reset(self, seed: int | None = None, options: Info | None = None) -> tuple[list[np.ndarray], Info]:
        """Starts an episode, whose sends and captures are noted from now on."""
        answer = self.inner.reset(seed=seed, options=options)
        self.sends, self.captures = [], []
        return answer

    def get_obs_rew_terminated_info(self) -> tuple[list[np.ndarray], float, bool, Info]:
        """Captures an observation and records its times."""
        started_s = time.perf_counter()
        answer = self.inner.get_obs_rew_terminated_info()
        telemetry_s = self._game.telemetry_s if self._game is not None else math.nan
        self.captures.append(Capture(time.perf_counter() - started_s, telemetry_s))
        return answer


class _TimedGame:
    """A game that remembers when its newest record was made."""

    def __init__(self, inner: Game, clock: Clock) -> None:
        self._inner = inner
        self._clock = clock
        self.telemetry_s = math.nan

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def telemetry(self) -> tuple[Telemetry, float]:
        record, age_s = self._inner.telemetry()
        self.telemetry_s = self._clock.now() - age_s
        return record, age_s
