"""A Gymnasium environment of your own, by its id.

python train.py task=Gym train=GymSAC task.id=Tank-v0 'plugins=[docs/examples/own_gym.py]'

``docs/own_environments.md`` explains it.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces


class TankEnv(gymnasium.Env):
    """Hold a water tank at a level that changes from episode to episode. Action: the pump; reward: minus the error."""

    def __init__(self, leak: float = 0.05) -> None:
        self.observation_space = spaces.Dict({"level": spaces.Box(0.0, 1.0), "wanted": spaces.Box(0.0, 1.0)})
        self.action_space = spaces.Box(0.0, 0.2)
        self._leak = leak
        self._level = self._wanted = 0.0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """An empty tank and a new level to hold."""
        super().reset(seed=seed)
        self._level, self._wanted = 0.0, float(self.np_random.uniform(0.2, 0.8))
        return self._observe(), {}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Pumps water in; some leaks out."""
        self._level = float(np.clip(self._level + action[0] - self._leak * (1.0 + self._level), 0.0, 1.0))
        return self._observe(), -abs(self._level - self._wanted), False, False, {}

    def _observe(self) -> dict[str, np.ndarray]:
        return {"level": np.array([self._level], np.float32), "wanted": np.array([self._wanted], np.float32)}


gymnasium.register("Tank-v0", f"{__name__}:TankEnv", max_episode_steps=50)
