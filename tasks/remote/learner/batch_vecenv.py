"""rl_games' vectorised environment over a ``tasks.envs.batch.BatchSimulator``: lock step without worker processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from rl_games.common.ivecenv import IVecEnv

from tasks import registry
from tasks.config import AnyTaskConfig
from tasks.envs.batch import BatchSimulator


class BatchVecEnv(IVecEnv):
    """The environments of a task that steps them itself; speaks as ``RemoteVecEnv`` in lock step does.

    Args:
        task: The configuration of a task registered with a batch.
        num_envs: Environments.
        seed: Seed of all that the simulator draws.
        observation: "flat" or "dict".
    """

    is_single_game = False

    def __init__(self, task: AnyTaskConfig, num_envs: int, seed: int, observation: str = "flat") -> None:
        simulator_class = registry.batch_class(task)
        if simulator_class is None:
            raise ValueError(f"task {task.name!r} is registered without a batch")
        self._make_simulator: Callable[[int], BatchSimulator] = lambda seed: simulator_class(task, num_envs, seed)
        self._simulator = self._make_simulator(seed)
        expected = registry.observation_spec(task.name, task)
        if self._simulator.observation_spec.to_json() != expected.to_json():
            raise ValueError(f"the batch of task {task.name!r} observes other fields than its single environment")
        self._spec = expected.visible
        self._num_envs = num_envs
        self._is_flat = observation == "flat"

    def reset(self) -> np.ndarray | dict[str, np.ndarray]:
        """Begins an episode in every environment."""
        return self._seen(self._simulator.reset())

    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray | dict[str, np.ndarray], np.ndarray, np.ndarray, dict[str, Any]]:
        """Steps all environments; as ``RemoteVecEnv.step``."""
        actions = np.asarray(actions, np.float32)
        expected = (self._num_envs, self._spec.action_size)
        if actions.shape != expected:
            raise ValueError(f"actions must have shape {expected}, got {actions.shape}")
        observation, reward, terminated, truncated, episodes = self._simulator.step(actions)
        time_outs = truncated & ~terminated
        infos = {
            "time_outs": time_outs,
            "episode_statistics": [dict(statistics) for _, statistics in episodes],
            "episode_indices": [index for index, _ in episodes],
        }
        return self._seen(observation), np.asarray(reward, np.float32), terminated | time_outs, infos

    def get_env_info(self) -> dict[str, Any]:
        """Spaces and what else rl_games asks for."""
        return {
            "observation_space": self._spec.flat_space() if self._is_flat else self._spec.dict_space(),
            "action_space": spaces.Box(-1.0, 1.0, (self._spec.action_size,)),
            "state_space": None,
            "use_global_observations": False,
            "agents": 1,
            "value_size": 1,
            "observation_spec": self._spec.to_json(),
        }

    def get_number_of_agents(self) -> int:
        """One per environment."""
        return 1

    def has_action_masks(self) -> bool:
        """No action is ever forbidden."""
        return False

    def seed(self, seed: int) -> None:
        """Sets the seed; before ``reset``."""
        self._simulator.close()
        self._simulator = self._make_simulator(seed)

    def watch(self, stop: Callable[[], bool]) -> None:
        """Nothing: no step waits for anybody."""

    def statistics(self) -> dict[str, float]:
        """There is no link to tell of."""
        return {}

    def workers(self) -> list[Any]:
        """None: the batch is in this process."""
        return []

    def close(self) -> None:
        """Releases the simulator. Calling it twice is fine."""
        self._simulator.close()

    def _seen(self, observation: Mapping[str, np.ndarray]) -> np.ndarray | dict[str, np.ndarray]:
        if self._is_flat:
            return self._spec.flatten_batch(observation)
        return {name: np.asarray(observation[name]) for name in self._spec.names}
