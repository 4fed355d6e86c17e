"""Ordinary environments as a batch: they step one after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import gymnasium
import numpy as np

from tasks.envs.batch import EpisodeBatch, Observations, Outcome
from tasks.experience.observation import ObservationSpec


class EnvBatch(EpisodeBatch):
    """Environments that step in turn.

    Args:
        envs: Dict-observation environments; closed by who made them.
        spec: What they observe.
        seed: What ``reset`` and ``step`` draw the seeds of the episodes from.
    """

    def __init__(self, envs: Sequence[gymnasium.Env], spec: ObservationSpec, seed: int) -> None:
        super().__init__(len(envs), seed)
        self.observation_spec = spec
        self._envs = envs
        self._rows: list[Mapping[str, np.ndarray]] = [{}] * len(envs)
        self._statistics: list[dict[str, float]] = [{}] * len(envs)

    def begin(self, chosen: Sequence[int], seeds: Sequence[int]) -> Observations:
        """Begins an episode in the chosen environments."""
        for index, seed in zip(chosen, seeds, strict=True):
            self._rows[index] = self._envs[index].reset(seed=seed)[0]
        return self._observation()

    def act(self, actions: np.ndarray) -> Outcome:
        """Acts in all."""
        answers = [env.step(action) for env, action in zip(self._envs, actions, strict=True)]
        self._rows = [answer[0] for answer in answers]
        infos = [answer[4].get("episode_statistics", {}) for answer in answers]
        self._statistics = [{name: float(value) for name, value in info.items()} for info in infos]
        reward = np.array([answer[1] for answer in answers], np.float64)
        terminated, truncated = (np.array([answer[k] for answer in answers], np.bool_) for k in (2, 3))
        return Outcome(self._observation(), reward, terminated, truncated & ~terminated)

    def statistics(self, index: int) -> dict[str, float]:
        """Of the episode that ended with the last step."""
        return self._statistics[index]

    def _observation(self) -> Observations:
        fields = self.observation_spec.all_fields()
        return {
            field.name: np.stack([np.asarray(row[field.name], field.dtype) for row in self._rows]) for field in fields
        }
