"""One environment as rl_games' own players step it: ``reset()`` returns the observation, ``step`` four values.

``tasks.registration`` gives it to rl_games as ``env_creator``; everything here uses the Gymnasium environment inside.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np

from tasks.experience.observation import Info, ObservationSpec


class ClassicEnv:
    """Gym's interface before Gymnasium, which rl_games kept.

    Args:
        env: Observes by name, and has an ``observation_spec``.
        observation: "flat" or "dict", without the privileged fields: as in lock step.
    """

    def __init__(self, env: gymnasium.Env, observation: str = "flat") -> None:
        spec: ObservationSpec = env.get_wrapper_attr("observation_spec")
        self.env = env
        self.observation_spec = spec.visible
        self._is_flat = observation == "flat"
        self.observation_space = self.observation_spec.flat_space() if self._is_flat else spec.visible.dict_space()
        self.action_space = env.action_space
        self._seed: int | None = None

    def seed(self, seed: int) -> None:
        """Sets the seed of the next reset."""
        self._seed = int(seed)

    def reset(self) -> np.ndarray | dict[str, np.ndarray]:
        """Begins an episode."""
        observation, _ = self.env.reset(seed=self._seed)
        self._seed = None
        return self._seen(observation)

    def step(self, action: np.ndarray) -> tuple[np.ndarray | dict[str, np.ndarray], float, bool, Info]:
        """Acts; ``time_outs`` in the info says whether the episode was truncated."""
        observation, reward, terminated, truncated, info = self.env.step(np.asarray(action))
        return self._seen(observation), float(reward), terminated or truncated, {**info, "time_outs": truncated}

    def render(self, mode: str = "rgb_array") -> Any:
        """A picture, whatever the mode: nothing here opens a window."""
        del mode
        return self.env.render()

    def close(self) -> None:
        """Closes the environment."""
        self.env.close()

    def _seen(self, observation: Mapping[str, np.ndarray]) -> np.ndarray | dict[str, np.ndarray]:
        if self._is_flat:
            return self.observation_spec.to_flat(observation)
        return {name: observation[name] for name in self.observation_spec.names}
