"""The acting network: the squashed-Gaussian actor with its input layer and encoder."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from algos.config import BodyKind, EncoderKind, NetworkConfig
from algos.networks.batch_renorm import BatchRenorm
from algos.networks.encoders import build_encoder
from algos.networks.inputs import InputLayer
from algos.networks.layers import in_full
from algos.networks.residual import ResidualBody, orthogonal, plain_linear
from tasks.experience.observation import ObservationSpec

LOG_STD_MIN = -20.0
LOG_STD_MAX = 2.0


def build_actor(feature_size: int, action_size: int, config: NetworkConfig) -> ActorNetwork | ResidualActor:
    """The actor that the configuration names, for features of the given width."""
    kind = ResidualActor if config.actor is BodyKind.simba else ActorNetwork
    return kind(feature_size, action_size, config)


class ActorNetwork(nn.Module):
    """Features to mean and log-std of a Gaussian before the tanh."""

    def __init__(self, feature_size: int, action_size: int, config: NetworkConfig) -> None:
        """Builds hidden layers and one Linear for mean and log-std together."""
        super().__init__()
        widths = [feature_size, *config.hidden]
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in config.hidden if config.layer_norm_actor)
        self.renorms = nn.ModuleList(BatchRenorm(w, config.batch_renorm_warm_up) for w in widths if config.batch_renorm)
        self.head = nn.Linear(widths[-1], 2 * action_size)
        # TMRL's CNN actor has no activation after the last hidden layer; its MLP actor has.
        self._has_last_activation = config.encoder != EncoderKind.tmrl_cnn

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-std, shape (B, A) each; log-std clamped to [-20, 2]."""
        hidden = self.renorms[0](features) if self.renorms else features
        for index, layer in enumerate(self.hidden):
            hidden = layer(hidden)
            if self.norms:
                hidden = self.norms[index](hidden)
            if self._has_last_activation or index < len(self.hidden) - 1:
                hidden = hidden.relu_()
            if self.renorms:
                hidden = self.renorms[index + 1](hidden)
        return _mean_and_log_std(in_full(self.head, hidden))


class ResidualActor(nn.Module):
    """The same with SimBa's body."""

    def __init__(self, feature_size: int, action_size: int, config: NetworkConfig) -> None:
        """Builds the body, one residual block per width of ``hidden``, and one Linear for mean and log-std together."""
        super().__init__()
        self.body = ResidualBody(feature_size, config.hidden, plain_linear, nn.LayerNorm)
        self.head = plain_linear(config.hidden[-1], 2 * action_size, orthogonal)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """As that of ``ActorNetwork``."""
        return _mean_and_log_std(in_full(self.head, self.body(features)))


class ActingNetwork(nn.Module):
    """What acting needs and nothing else: input layer, the encoder that the actor sees, actor."""

    def __init__(self, spec: ObservationSpec, config: NetworkConfig, dtype: torch.dtype = torch.float32) -> None:
        """Builds the three parts; the weights are float32 until they are converted."""
        super().__init__()
        self.inputs = InputLayer(spec, config, dtype)
        self.encoder = build_encoder(self.inputs, config)
        self.actor = build_actor(self.encoder.size, spec.action_size, config)

    def forward(self, observation: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Mean and log-std of a batch of observations, shape (B, A) each."""
        return self.actor(self.encoder(self.inputs(observation)))


@torch.no_grad()
def copy_weights(network: nn.Module, weights: Mapping[str, np.ndarray]) -> None:
    """Copies plain arrays into parameters and buffers by name: all, or none where any does not fit."""
    own = network.state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in own.items()}
    given = {name: tuple(np.shape(array)) for name, array in weights.items()}
    wrong = sorted(name for name in shapes.keys() | given.keys() if shapes.get(name) != given.get(name))
    if wrong:
        name = wrong[0]
        raise ValueError(
            f"weights do not fit this network: {name} must have shape {shapes.get(name)}, got {given.get(name)} "
            f"({len(wrong)} of {len(shapes)} entries differ); the network configuration must be the learner's"
        )
    for name, tensor in own.items():
        tensor.copy_(torch.from_numpy(np.array(weights[name])))


def _mean_and_log_std(outputs: Tensor) -> tuple[Tensor, Tensor]:
    mean, log_std = outputs.chunk(2, dim=-1)
    return mean, log_std.clamp(LOG_STD_MIN, LOG_STD_MAX)
