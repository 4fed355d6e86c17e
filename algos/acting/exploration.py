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
PEDALS_HOLD_STEPS = 2, 8
"""Drawn pedals are held for so many steps, least and most: 0.1 to 0.4 s at 20 Hz."""


class Explorer:
    """What one environment draws by itself: noise, held pedals, and the warm-up policy before there are weights.

    Args:
        kind: Of the warm-up policy.
        action_size: Number of actions.
        seed: Seed of its generators.
        held_pedals: Probability per step of ``HeldPedals``.
    """

    def __init__(self, kind: WarmUp, action_size: int, seed: int, held_pedals: float = 0.0) -> None:
        self.warm_up = make_warm_up(kind, action_size, seed)
        self.pedals = HeldPedals(held_pedals, action_size, seed)
        self._action_size = action_size
        self._rng = np.random.default_rng(seed)

    def begin_episode(self) -> None:
        """Forgets what was held over from the previous episode."""
        self.warm_up.begin_episode()
        self.pedals.begin_episode()

    def noise(self) -> np.ndarray:
        """The next normal noise, float32, shape (A,)."""
        return self._rng.standard_normal(self._action_size, dtype=np.float32)

    def state(self) -> dict[str, Any]:
        """Everything that decides what comes next, as plain data."""
        return {
            "rng": self._rng.bit_generator.state,
            "warm_up": self.warm_up.state(),
            "pedals": self.pedals.state(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Puts back what ``state`` gave."""
        self._rng.bit_generator.state = state["rng"]
        self.warm_up.load_state(state["warm_up"])
        if "pedals" in state:  # older ones held none
            self.pedals.load_state(state["pedals"])


class HeldPedals:
    """Now and then presses gas and brake as drawn at random, for 2 to 8 steps, and leaves the steer to the policy.

    Temporally extended epsilon-greedy exploration (Dabney et al. 2021, arXiv:2006.01782, section 3). A good driver's
    pedals are at an end of their range, where the noise of a squashed Gaussian no longer moves them; what takes both
    for some steps, as the start of a slide, it would never try.

    Args:
        rate: Probability per step that pedals are drawn while none are held; 0: never.
        action_size: Number of actions.
        seed: Seed of its generator.

    Raises:
        ValueError: If there is a rate, but not TrackMania's three actions.
    """

    def __init__(self, rate: float, action_size: int, seed: int) -> None:
        if rate:
            _require_driving(action_size, "held_pedals", "set held_pedals: 0")
        self._rate = rate
        self._rng = np.random.default_rng((seed, *b"pedals"))
        self._pedals, self._steps_left = [0.0, 0.0], 0

    def begin_episode(self) -> None:
        """Forgets what was held over from the previous episode."""
        self._steps_left = 0

    def press(self, action: np.ndarray) -> None:
        """Replaces gas and brake of the next action, shape (3,), while they are held."""
        if not self._rate:
            return
        if not self._steps_left and self._rng.random() < self._rate:
            self._pedals = self._rng.choice([-1.0, 1.0], 2).tolist()
            self._steps_left = int(self._rng.integers(*PEDALS_HOLD_STEPS, endpoint=True))
        if self._steps_left:
            self._steps_left -= 1
            action[[GAS, BRAKE]] = self._pedals

    def state(self) -> dict[str, Any]:
        """Everything that decides what comes next, as plain data."""
        return {"rng": self._rng.bit_generator.state, "held": self._pedals, "steps_left": self._steps_left}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Puts back what ``state`` gave."""
        self._rng.bit_generator.state = state["rng"]
        self._pedals, self._steps_left = list(state["held"]), int(state["steps_left"])


def make_warm_up(kind: WarmUp, action_size: int, seed: int) -> UniformWarmUp:
    """The warm-up policy that the configuration names.

    Args:
        kind: uniform or driving; driving needs TrackMania's three actions.
        action_size: Number of actions.
        seed: Seed of its generator.
    """
    if kind is WarmUp.uniform:
        return UniformWarmUp(action_size, seed)
    _require_driving(action_size, "warm_up driving", "set warm_up: uniform")
    return DrivingWarmUp(action_size, seed)


def _require_driving(action_size: int, what: str, remedy: str) -> None:
    """Refuses what presses TrackMania's pedals where the actions are others."""
    if action_size != 3:
        raise ValueError(f"{what} needs the three actions [gas, brake, steer], got {action_size} actions; {remedy}")


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
