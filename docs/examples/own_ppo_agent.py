"""The agent and the network builder for rl_games that own_ppo.py registers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from rl_games.algos_torch.network_builder import A2CBuilder
from torch import Tensor, nn

from algos.faces.ppo import RemotePPOAgent


class CalmingPPOAgent(RemotePPOAgent):
    """PPO that explores less and less: the weight of the entropy bonus falls during training."""

    algorithm_name = "calming_ppo"

    def train_epoch(self) -> Any:
        """One epoch of rl_games, with the current weight."""
        done = min(self.frame / self.max_frames, 1.0)
        first, last = self.config["entropy_coef"], self.config["final_entropy_coef"]
        self.entropy_coef = first + done * (last - first)
        return super().train_epoch()


class SkipBuilder(A2CBuilder):
    """A network builder of rl_games: its network for flat observations, with a skip connection around hidden layers."""

    def build(self, name: str, **kwargs: Any) -> SkipNetwork:
        """Called by rl_games' model."""
        return SkipNetwork(self.params, **kwargs)


class SkipNetwork(A2CBuilder.Network):
    """Adds a linear function of the observation to the mean."""

    def __init__(self, params: Mapping[str, Any], **kwargs: Any) -> None:
        super().__init__(params, **kwargs)
        self.skip = nn.Linear(kwargs["input_shape"][0], kwargs["actions_num"])
        nn.init.zeros_(self.skip.weight)

    def forward(self, obs_dict: Mapping[str, Any]) -> tuple[Tensor, Tensor, Tensor, Any]:
        """Mean, log-std, value and state of the parent; the skip connection is added to the mean."""
        mean, log_std, value, states = super().forward(obs_dict)
        observation: torch.Tensor = obs_dict["obs"]
        return mean + self.skip(observation), log_std, value, states
