"""The critics: N of them as one stacked ensemble, with their encoder(s)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from algos.config import NetworkConfig
from algos.networks.actor import ActingNetwork
from algos.networks.encoders import build_encoder
from algos.networks.ensemble import build_ensemble
from algos.networks.inputs import Inputs, PrivilegedLayer
from tasks.experience.observation import ObservationSpec


class Networks(NamedTuple):
    """Everything that an actor-critic algorithm trains."""

    acting: ActingNetwork
    critic: CriticNetwork


def build_networks(
    spec: ObservationSpec,
    config: NetworkConfig,
    num_critics: int,
    seed: int,
    dtype: torch.dtype = torch.float32,
    num_outputs: int = 1,
) -> Networks:
    """Builds all networks of an actor-critic algorithm; equal seeds give equal weights.

    Args:
        spec: Fields of the observation.
        config: Shape of the networks.
        num_critics: Members of the ensemble; each is initialised independently.
        seed: Seed of the initial weights; the global generator is left as it was.
        dtype: Type of weights and activations.
        num_outputs: Outputs of each critic: 1, or its quantiles.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        acting = ActingNetwork(spec, config, dtype)
        critic = CriticNetwork(acting, spec, config, num_critics, num_outputs)
    for module in (acting.encoder, acting.actor, critic):
        module.to(dtype)
    return Networks(acting, critic)


def build_estimator(acting: ActingNetwork, critic: CriticNetwork, config: NetworkConfig, seed: int) -> nn.Linear | None:
    """What the actor's encoder learns by: from what the actor sees, (B, F), to what only the critics are told, (B, P).

    Equal seeds give equal weights. None: the critics are told no more, or nothing in the encoder can be trained.
    """
    if critic.privileged is None or not config.has_encoder:
        return None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Linear(acting.encoder.size, critic.privileged.size)


class CriticNetwork(nn.Module):
    """N critics: their encoder(s) and the stacked ensemble of heads.

    A shared encoder is the one of the acting network: the critics train it, the actor sees it detached. Otherwise, as
    in TMRL's layout, there is one encoder per critic. Asymmetric critics have none: they see the vector of all fields
    but the image, the privileged ones too.
    """

    def __init__(
        self,
        acting: ActingNetwork,
        spec: ObservationSpec,
        config: NetworkConfig,
        num_critics: int,
        num_outputs: int = 1,
    ) -> None:
        """Builds encoders and heads."""
        super().__init__()
        self.is_separate = not (config.shares_encoder or config.asymmetric_critic)
        """Whether the actor trains the encoder that it sees, and the critics do not."""
        self.privileged = PrivilegedLayer(spec) if config.asymmetric_critic else None
        self.encoders = nn.ModuleList()
        if self.privileged is not None:
            feature_size = acting.inputs.vector_size + self.privileged.size
        else:
            own = [build_encoder(acting.inputs, config) for _ in range(num_critics)] if self.is_separate else []
            self.encoders.extend(own or [acting.encoder])
            feature_size = acting.encoder.size
        self.ensemble = build_ensemble(num_critics, feature_size + spec.action_size, config, num_outputs)

    def complete(self, inputs: Inputs, observation: Mapping[str, Tensor]) -> Inputs:
        """Adds to what the actor sees of a batch what only these critics see of it."""
        return inputs if self.privileged is None else inputs._replace(privileged=self.privileged(observation))

    def encode(self, inputs: Inputs) -> Tensor:
        """Features, shape (B, F), the same for all critics, or (N, B, F) when every critic has its own encoder."""
        if self.privileged is not None:
            assert inputs.privileged is not None
            return torch.cat((inputs.vector, inputs.privileged), dim=-1)
        if not self.is_separate:
            return self.encoders[0](inputs)
        return torch.stack([encoder(inputs) for encoder in self.encoders])

    def forward(self, features: Tensor, action: Tensor) -> Tensor:
        """Q values, shape (N, B); with several outputs (N, B, outputs)."""
        return self.ensemble(features, action)
