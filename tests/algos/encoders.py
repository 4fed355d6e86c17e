"""Encoders as a user registers them, for the tests."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from algos.config import ENCODERS, NetworkConfig
from algos.networks import InputLayer, Inputs
from algos.networks.encoders import _BUILDERS


class PooledEncoder(nn.Module):
    """One convolution over the image, pooled, beside the vector."""

    def __init__(self, inputs: InputLayer, config: NetworkConfig) -> None:
        super().__init__()
        channels, _, _ = inputs.image_shape
        self.layers = nn.Sequential(nn.Conv2d(channels, 4, 4, 2), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Tanh())
        self.size = inputs.vector_size + 16
        self.seen: Inputs | None = None

    def forward(self, inputs: Inputs) -> Tensor:
        self.seen = inputs
        assert inputs.image is not None
        return torch.cat((inputs.vector, self.layers(inputs.image)), dim=1)


class LinearEncoder(nn.Module):
    """A Linear and a tanh over the vector."""

    def __init__(self, inputs: InputLayer, config: NetworkConfig) -> None:
        super().__init__()
        self.layer = nn.Linear(inputs.vector_size, 5)
        self.size = 5

    def forward(self, inputs: Inputs) -> Tensor:
        return self.layer(inputs.vector).tanh()


def forget(*names: str) -> None:
    """Removes registrations."""
    for name in names:
        ENCODERS.pop(name, None)
        _BUILDERS.pop(name, None)
