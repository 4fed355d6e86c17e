"""Environments of one worker that the learner steps together, in lock step."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tasks.envs.batch import BatchSimulator
from tasks.experience.observation import ObservationSpec
from tasks.remote.wire import link


class EnvGroup:
    """Answers the learner's commands with a batch of environments; one that ends begins its next episode at once.

    Args:
        batch: The environments.
        num_envs: How many they are.
        spec: What they observe; privileged fields stay here.
        is_flat: Whether observations are flattened.
    """

    def __init__(self, batch: BatchSimulator, num_envs: int, spec: ObservationSpec, is_flat: bool) -> None:
        self._batch = batch
        self._num_envs = num_envs
        self._spec = spec.visible
        self._is_flat = is_flat
        self._is_abandoned = False

    def abandon_episodes(self) -> None:
        """Has the next answer reset all environments, whatever is commanded: they were used otherwise."""
        self._is_abandoned = True

    def answer(self, command: link.LockStepCommand) -> link.LockStepReply:
        """Does what is commanded."""
        if command.actions is None or self._is_abandoned:
            return self._reset(command.id)
        expected = (self._num_envs, self._spec.action_size)
        if command.actions.shape != expected:
            raise link.LinkError(f"actions must have shape {expected}, got {command.actions.shape}")
        return self._step(command.id, command.actions)

    def _reset(self, command_id: int) -> link.LockStepReply:
        self._is_abandoned = False
        observation = self._seen(self._batch.reset())
        nothing = np.zeros(self._num_envs, np.bool_)
        return link.LockStepReply(
            command_id, True, observation, np.zeros(self._num_envs, np.float32), nothing, nothing
        )  # fmt: skip

    def _step(self, command_id: int, actions: np.ndarray) -> link.LockStepReply:
        step = self._batch.step(actions)
        reward = np.asarray(step.reward, np.float32)
        if not np.isfinite(reward).all():
            raise ValueError(f"rewards must be finite, got {reward.tolist()}")
        indices = tuple(int(index) for index, _ in step.episodes)
        episodes = tuple({name: float(value) for name, value in entry.items()} for _, entry in step.episodes)
        return link.LockStepReply(
            command_id, False, self._seen(step.observation), reward, np.asarray(step.terminated, np.bool_),
            np.asarray(step.truncated, np.bool_), episodes, indices,
        )  # fmt: skip

    def _seen(self, observation: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        if self._is_flat:
            return {"obs": self._spec.flatten_batch(observation)}
        return {name: np.ascontiguousarray(observation[name]) for name in self._spec.names}
