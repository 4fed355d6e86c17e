"""Your own network as the actor, also in workers, evaluations and --play.

python train.py task=TM20Lidar train=LinearSAC 'plugins=[docs/examples/own_network.py]'

``docs/own_algorithms.md`` explains it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from algos.acting.policy import ActingPolicy, make_acting_policy
from algos.algorithms.sac import SAC
from algos.config import NetworkConfig, SACConfig
from algos.config.algorithms import add_off_policy
from algos.networks import LOG_STD_MAX, LOG_STD_MIN, ActingNetwork, Networks
from tasks.experience.observation import ObservationSpec


@dataclass
class LinearNetworkConfig(NetworkConfig):
    """The keys of all networks, and one of its own, below ``train.params.network``."""

    squares: bool = True
    """Whether the actor sees the squares of its features too."""


class LinearActor(nn.Module):
    """Mean and log-std as weighted sums of the features."""

    def __init__(self, feature_size: int, action_size: int, config: LinearNetworkConfig) -> None:
        super().__init__()
        self.squares = config.squares
        self.layer = nn.Linear(feature_size * (2 if config.squares else 1), 2 * action_size)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, F) to mean and log-std, (B, A) each."""
        seen = torch.cat((features, features.square()), dim=-1) if self.squares else features
        mean, log_std = self.layer(seen).chunk(2, dim=-1)
        return mean, log_std.clamp(LOG_STD_MIN, LOG_STD_MAX)


class LinearActingNetwork(ActingNetwork):
    """The acting network: the usual inputs and encoder, and a linear actor."""

    def __init__(self, spec: ObservationSpec, config: LinearNetworkConfig, dtype: torch.dtype = torch.float32) -> None:
        super().__init__(spec, config, dtype)
        self.actor = LinearActor(self.encoder.size, spec.action_size, config)  # type: ignore[assignment]


class LinearSAC(SAC):
    """SAC that teaches a linear actor."""

    network: LinearNetworkConfig

    def make_networks(self, spec: ObservationSpec, seed: int) -> Networks:
        """SAC's critics, and our actor in place of its own."""
        networks = super().make_networks(spec, seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            actor = LinearActor(networks.acting.encoder.size, spec.action_size, self.network)
        networks.acting.actor = actor.to(self._dtype)  # type: ignore[assignment]
        return networks


class LinearPolicy(ActingPolicy):
    """Acts with the linear actor."""

    network_type = LinearNetworkConfig

    def make_network(self, spec: ObservationSpec, config: NetworkConfig) -> LinearActingNetwork:
        """The same network as ``LinearSAC`` has in ``acting``."""
        assert isinstance(config, LinearNetworkConfig)
        return LinearActingNetwork(spec, config)


make_policy = partial(make_acting_policy, policy_type=LinearPolicy)

add_off_policy(
    "linear_sac",
    f"{__name__}:LinearSAC",
    SACConfig,
    network=LinearNetworkConfig,
    policy=f"{__name__}:make_policy",
)
