"""The interface of a simulator with a batch axis: many environments of one task that step together in one process.

A GPU simulator, or any that computes hundreds of scenes at once, gains nothing from worker processes. Registered with
the task (``tasks.registry.register(..., batch=...)``) it serves algorithms in lock step, such as PPO, through
``tasks.remote.learner.batch_vecenv``. Algorithms that act in workers, evaluations and --play use the task's single
environment.
"""

from __future__ import annotations

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
