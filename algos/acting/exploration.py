"""The warm-up policies, which act before the first weights arrive. Called by ``policy.py``; numpy only.

A warm-up is a small state machine with its own generator, whose state can be taken and put back, so that a resumed
synchronous run draws the same actions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from algos.config import WarmUp

GAS, BRAKE, STEER = 0, 1, 2
"""Positions in TrackMania's action [gas, brake, steer]."""
STEER_HOLD_STEPS = 6
"""A drawn steer is kept for this many steps on average: 0.3 s at 20 Hz."""


class Explorer:
    """What one environment draws by itself: the noise on its actions, and the warm-up policy before there are weights.

    Args:
        kind: Of the warm-up policy.
        action_size: Number of actions.
        seed: Seed of its generators.
    """

    def __init__(self, kind: WarmUp, action_size: int, seed: int) -> None:
        self.warm_up = make_warm_up(kind, action_size, seed)
        self._action_size = action_size
        self._rng = np.random.default_rng(seed)

    def noise(self) -> np.ndarray:
        """The next normal noise, float32, shape (A,)."""
        return self._rng.standard_normal(self._action_size, dtype=np.float32)

    def state(self) -> dict[str, Any]:
        """Everything that decides what comes next, as plain data."""
        return {"rng": self._rng.bit_generator.state, "warm_up": self.warm_up.state()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Puts back what ``state`` gave."""
        self._rng.bit_generator.state = state["rng"]
        self.warm_up.load_state(state["warm_up"])


def make_warm_up(kind: WarmUp, action_size: int, seed: int) -> UniformWarmUp:
    """The warm-up policy that the configuration names.

    Args:
        kind: uniform or driving; driving needs TrackMania's three actions.
        action_size: Number of actions.
        seed: Seed of its generator.
    """
    if kind is WarmUp.uniform:
        return UniformWarmUp(action_size, seed)
    if action_size != 3:
        raise ValueError(
            f"warm_up driving needs the three actions [gas, brake, steer], got {action_size} actions; "
            "set warm_up: uniform"
        )
    return DrivingWarmUp(action_size, seed)


class UniformWarmUp:
    """Uniform in [-1, 1] for every action, independent at every step."""

    def __init__(self, action_size: int, seed: int) -> None:
        """Starts the generator."""
        self._action_size = action_size
        self._rng = np.random.default_rng(seed)

    def begin_episode(self) -> None:
        """Forgets what was held over from the previous episode."""

    def act(self) -> np.ndarray:
        """The next action, shape (A,), float32."""
        return self._rng.uniform(-1.0, 1.0, self._action_size).astype(np.float32)

    def state(self) -> dict[str, Any]:
        """Everything that decides the next action, as plain data."""
        return {"rng": self._rng.bit_generator.state}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Puts back what ``state`` gave."""
        self._rng.bit_generator.state = state["rng"]


class DrivingWarmUp(UniformWarmUp):
    """Gas U(-0.2, 1), brake U(-1, 0.3), a steer U(-1, 1) that is held for 0.3 s on average.

    Uniform actions press the brake half of the time and a car barely leaves the start; with these it drives about
    100 m, so that the replay memory has something to learn from.
    """

    def __init__(self, action_size: int, seed: int) -> None:
        """Starts with no steer held."""
        super().__init__(action_size, seed)
        self._steer: float | None = None

    def begin_episode(self) -> None:
        """The first step of an episode draws a new steer."""
        self._steer = None

    def act(self) -> np.ndarray:
        """The next action, shape (3,), float32."""
        is_new = self._rng.random() < 1.0 / STEER_HOLD_STEPS
        steer = float(self._rng.uniform(-1.0, 1.0))
        if self._steer is None or is_new:
            self._steer = steer
        action = np.empty(3, np.float32)
        action[GAS] = self._rng.uniform(-0.2, 1.0)
        action[BRAKE] = self._rng.uniform(-1.0, 0.3)
        action[STEER] = self._steer
        return action

    def state(self) -> dict[str, Any]:
        """Everything that decides the next action, as plain data."""
        return {**super().state(), "steer": self._steer}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Puts back what ``state`` gave."""
        super().load_state(state)
        self._steer = state["steer"]
