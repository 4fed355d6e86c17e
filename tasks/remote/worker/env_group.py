"""Environments of one worker that the learner steps together, in lock step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import gymnasium
import numpy as np

from tasks.acting.env_source import EnvDescription
from tasks.remote.wire import link


class EnvGroup:
    """Environments stepped together; one that ends is reset at once.

    Args:
        envs: Dict-observation environments.
        description: Their spec; privileged fields stay here.
        is_flat: Whether observations are flattened.
        seeds: One for each environment, from which the seeds of its episodes are drawn.
    """

    def __init__(
        self, envs: Sequence[gymnasium.Env], description: EnvDescription, is_flat: bool, seeds: Sequence[int]
    ) -> None:
        self._envs = envs
        self._spec = description.spec.visible
        self._is_flat = is_flat
        self._rngs = [np.random.default_rng(seed) for seed in seeds[: len(envs)]]
        self._is_abandoned = False
        count = len(envs)
        if is_flat:
            size = sum(f.size for f in self._spec.all_fields())
            self._observation = {"obs": np.empty((count, size), np.float32)}
        else:
            self._observation = {
                f.name: np.empty((count, *f.shape), np.dtype(f.dtype)) for f in self._spec.all_fields()
            }

    def abandon_episodes(self) -> None:
        """Has the next answer reset all environments, whatever is commanded: they were used otherwise."""
        self._is_abandoned = True

    def answer(self, command: link.LockStepCommand) -> link.LockStepReply:
        """Does what is commanded."""
        if command.actions is None or self._is_abandoned:
            return self._reset(command.id)
        expected = (len(self._envs), self._spec.action_size)
        if command.actions.shape != expected:
            raise link.LinkError(f"actions must have shape {expected}, got {command.actions.shape}")
        return self._step(command.id, command.actions)

    def _reset(self, command_id: int) -> link.LockStepReply:
        self._is_abandoned = False
        for i in range(len(self._envs)):
            self._begin_episode(i)
        nothing = np.zeros(len(self._envs), np.bool_)
        rewards = np.zeros(len(self._envs), np.float32)
        return link.LockStepReply(command_id, True, self._observation, rewards, nothing, nothing)

    def _step(self, command_id: int, actions: np.ndarray) -> link.LockStepReply:
        count = len(self._envs)
        reward = np.empty(count, np.float32)
        terminated, truncated = np.empty(count, np.bool_), np.empty(count, np.bool_)
        episodes, indices = [], []
        for i, env in enumerate(self._envs):
            observation, reward[i], terminated[i], truncated[i], info = env.step(actions[i])
            if terminated[i] or truncated[i]:
                episodes.append({name: float(value) for name, value in info.get("episode_statistics", {}).items()})
                indices.append(i)
                self._begin_episode(i)
            else:
                self._store(i, observation)
        if not np.isfinite(reward).all():
            raise ValueError(f"rewards must be finite, got {reward.tolist()}")
        return link.LockStepReply(
            command_id, False, self._observation, reward, terminated, truncated, tuple(episodes), tuple(indices)
        )

    def _begin_episode(self, index: int) -> None:
        observation, _ = self._envs[index].reset(seed=int(self._rngs[index].integers(2**31 - 1)))
        self._store(index, observation)

    def _store(self, index: int, observation: Mapping[str, np.ndarray]) -> None:
        if self._is_flat:
            self._observation["obs"][index] = self._spec.to_flat(observation)
            return
        for name, array in self._observation.items():
            array[index] = observation[name]
