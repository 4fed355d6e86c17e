"""The policy of recurrent SAC, which acts with a memory. Used by workers and by players.

A worker gets ``make_recurrent_policy`` as a "module:function".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from algos.acting.deterministic import RecurrentMean
from algos.acting.policy import ActingPolicy, make_acting_policy
from algos.config import RecurrentNetworkConfig, WarmUp
from algos.networks import ActingNetwork, RecurrentEncoder
from tasks.experience.observation import ObservationSpec


class RecurrentPolicy(ActingPolicy):
    """Acts with the squashed Gaussian actor on what it sees and what it remembers of the episode.

    The state is zeros at the start of an episode and while the warm-up policy acts. New weights do not change it:
    what the learner does about states of older weights is its burn-in.

    Args:
        spec: Fields of the observation.
        config: Shape of the networks; must be the learner's.
        seed: Seed of the exploration; the same seed and weights give the same actions.
        warm_up: What acts until weights are loaded.
        device: Where the forward pass runs.
    """

    network: ActingNetwork
    network_type = RecurrentNetworkConfig

    def __init__(
        self, spec: ObservationSpec, config: RecurrentNetworkConfig, seed: int, warm_up: WarmUp, device: torch.device
    ) -> None:
        self._gru_size = config.gru_size
        super().__init__(spec, config, seed, warm_up, device)
        assert isinstance(self.network.encoder, RecurrentEncoder)
        self._encoder = self.network.encoder

    def explore_as(self, seeds: Sequence[int]) -> None:
        """Acts in so many environments from now on, and remembers nothing of any."""
        super().explore_as(seeds)
        self._memory = torch.zeros(len(seeds), self._gru_size, device=self._device)

    @property
    def recurrent_state(self) -> np.ndarray:
        """What is remembered now, before the next observation is seen: shape (S,), float32."""
        return self.recurrent_states[0]

    @property
    def recurrent_states(self) -> np.ndarray:
        """The same of all environments: shape (N, S), float32."""
        return self._memory.cpu().numpy()

    def deterministic_actor(self) -> RecurrentMean:
        """What ``act`` does with ``deterministic``, as one network that shares the weights."""
        return RecurrentMean(self.network)

    def begin_episodes(self, chosen: Sequence[int]) -> None:
        """Called after every reset of these environments: forgets."""
        super().begin_episodes(chosen)
        self._memory = self._memory.clone()
        self._memory[list(chosen)] = 0.0

    def state(self) -> dict[str, Any]:
        """Everything but the weights that decides the next actions, as plain data."""
        return {**super().state(), "recurrent_state": self.recurrent_state.tolist()}

    def load_state(self, state: Mapping[str, object]) -> None:
        """Puts back what ``state`` gave."""
        super().load_state(state)
        remembered = torch.from_numpy(np.array(state["recurrent_state"], np.float32))
        self._memory = remembered[None].to(self._device)  # (S,) -> (1, S)

    def _distribution(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        features, self._memory = self._encoder.step(self.network.inputs(batch), self._memory)
        return self.network.actor(features)


make_recurrent_policy = partial(make_acting_policy, policy_type=RecurrentPolicy)
"""``algos.acting.policy.make_acting_policy`` of a ``RecurrentPolicy``."""
