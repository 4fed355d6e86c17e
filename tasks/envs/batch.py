"""The interface of a simulator with a batch axis: many environments of one task that step together in one process.

A GPU simulator, or any that computes hundreds of scenes at once, gains nothing from worker processes. Registered with
the task (``tasks.registry.register(..., batch=...)``) it serves algorithms in lock step, such as PPO, through
``tasks.remote.learner.batch_vecenv``. One that derives from ``EpisodeBatch`` also drives the environments of a worker
(``tasks.acting.batch_rollout``). Evaluations and --play use the task's single environment.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from tasks.experience.observation import ObservationSpec


class BatchStep(NamedTuple):
    """What a step of N environments led to."""

    observation: Mapping[str, np.ndarray]
    """Every field of the spec, shape (N, *field shape); where an episode ended, the first one of the next episode."""
    reward: np.ndarray
    """Shape (N,)."""
    terminated: np.ndarray
    """Whether an episode ended for good, bool, shape (N,)."""
    truncated: np.ndarray
    """Whether it was cut off, bool, shape (N,); not where it terminated."""
    episodes: Sequence[tuple[int, Mapping[str, float]]] = ()
    """Of each episode that ended: which environment, and ``tasks.experience.samples.EPISODE_STATISTICS``."""


class BatchSimulator(Protocol):
    """N environments. Built with (config, num_envs, seed): the task's configuration, N, and a seed for all it draws."""

    observation_spec: ObservationSpec

    def __init__(self, config: Any, num_envs: int, seed: int) -> None: ...

    def reset(self) -> Mapping[str, np.ndarray]:
        """Begins an episode in every environment; its first observation, every field of shape (N, *field shape)."""
        ...

    def step(self, actions: np.ndarray) -> BatchStep:
        """Acts in all, shape (N, A), in [-1, 1]; an environment whose episode ends begins its next one."""
        ...

    def close(self) -> None:
        """Releases the simulator. Calling it twice is fine."""
        ...


Observations = Mapping[str, np.ndarray]
"""Every field of the spec, shape (N, *field shape); the arrays never change afterwards."""
_MAX_EPISODE_SEED = 2**31 - 1


class Outcome(NamedTuple):
    """What a step of N environments led to, before any of them begins its next episode."""

    observation: Observations
    """Where an episode ended, its last one."""
    reward: np.ndarray
    """Shape (N,)."""
    terminated: np.ndarray
    """Whether an episode ended for good, bool, shape (N,)."""
    truncated: np.ndarray
    """Whether it was cut off, bool, shape (N,); not where it terminated."""


class EpisodeBatch(ABC):
    """A ``BatchSimulator`` whose episodes are begun one by one, each from its own seed.

    Args:
        num_envs: N.
        seed: What ``reset`` and ``step`` draw the seeds of the episodes from.
    """

    observation_spec: ObservationSpec

    def __init__(self, num_envs: int, seed: int) -> None:
        sequence = np.random.SeedSequence(seed)
        self._rngs = [np.random.default_rng(entry) for entry in sequence.spawn(num_envs)]

    @abstractmethod
    def begin(self, chosen: Sequence[int], seeds: Sequence[int]) -> Observations:
        """Begins an episode in the chosen environments, each with its seed; the present observation of all."""

    @abstractmethod
    def act(self, actions: np.ndarray) -> Outcome:
        """Acts in all, shape (N, A), in [-1, 1]. One whose episode ended must begin another before the next ``act``."""

    @abstractmethod
    def statistics(self, index: int) -> dict[str, float]:
        """``tasks.experience.samples.EPISODE_STATISTICS`` of the episode of an environment."""

    def close(self) -> None:  # noqa: B027 (most have nothing to release)
        """Releases the simulator. Calling it twice is fine."""

    def reset(self) -> Observations:
        """Begins an episode in every environment."""
        return self._begin(range(len(self._rngs)))

    def step(self, actions: np.ndarray) -> BatchStep:
        """Acts in all; an environment whose episode ends begins its next one."""
        observation, reward, terminated, truncated = self.act(actions)
        ended = np.flatnonzero(terminated | truncated).tolist()
        episodes = [(index, self.statistics(index)) for index in ended]
        if ended:
            observation = self._begin(ended)
        return BatchStep(observation, reward, terminated, truncated, episodes)

    def _begin(self, chosen: Sequence[int]) -> Observations:
        return self.begin(chosen, [int(self._rngs[index].integers(_MAX_EPISODE_SEED)) for index in chosen])
