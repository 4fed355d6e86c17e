"""The policy of DAgger's workers: every other episode without noise, as it is evaluated and played."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from algos.acting.policy import ActingPolicy, make_acting_policy


class ImitatingPolicy(ActingPolicy):
    """Samples its actions in one episode and takes their mean in the next; many environments do so by turns.

    Noise gets a car past places at which the mean alone fails. If it always drove with noise, what it meets when it is
    played would be missing from what it learns on.
    """

    def explore_as(self, seeds: Sequence[int]) -> None:
        """As ``ActingPolicy``; in every other environment the first episode is without noise."""
        super().explore_as(seeds)
        self._is_noisy = np.arange(len(seeds)) % 2 == 1

    def begin_episodes(self, chosen: Sequence[int]) -> None:
        """Called after every reset of these environments: it is the other one's turn."""
        super().begin_episodes(chosen)
        self._is_noisy[list(chosen)] ^= True

    def state(self) -> dict[str, Any]:
        """Everything but the weights that decides the next actions, as plain data."""
        return {**super().state(), "is_noisy": bool(self._is_noisy[0])}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Puts back what ``state`` gave."""
        super().load_state(state)
        self._is_noisy[0] = state["is_noisy"]

    def _noise(self) -> np.ndarray:
        return super()._noise() * self._is_noisy[:, None]


make_imitating_policy = partial(make_acting_policy, policy_type=ImitatingPolicy)
"""``algos.acting.policy.make_acting_policy`` of an ``ImitatingPolicy``."""
