"""Encoders: from ``Inputs`` to features. A plugin adds its own with ``add_encoder``."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from algos.config import EncoderKind, EncoderTraits, NetworkConfig, RecurrentNetworkConfig, register_encoder_name
from algos.networks.images import block_kernel
from algos.networks.inputs import InputLayer, Inputs, convolutions
from algos.networks.recurrent import RecurrentEncoder

DENSE_WIDTH = 256
_BUILDERS: dict[str, Callable[[InputLayer, NetworkConfig], nn.Module]] = {}
"""What plugins registered."""


def add_encoder(
    name: str,
    builder: Callable[[InputLayer, NetworkConfig], nn.Module],
    *,
    reads_images: bool,
    is_shared: bool = True,
) -> None:
    """Adds an encoder, for ``train.params.network.encoder`` of SAC; a plugin file calls it when it is imported.

    Args:
        name: A name that is not taken.
        builder: Builds a module with ``size``, the width F of its features, and a ``forward`` that maps ``Inputs`` to
            features of shape (B, F). Weights are drawn from torch's global generator, seeded; every parameter must
            serve the features. ``inputs.vector_size``, ``inputs.vector_fields`` and ``inputs.image_shape`` say what
            comes in.
        reads_images: Whether it needs an observation with an image. Then ``Inputs.image`` has the pixels, scaled as
            ``observation_normalization`` says, shape (B, C, H, W), history and colours as channels, and
            ``Inputs.vector`` all other fields.
        is_shared: Whether the critics train one that the actor sees detached, or actor and each critic have their own.

    Raises:
        ValueError: If the name is taken.
    """
    if _BUILDERS.get(name, builder) is not builder:
        raise ValueError(f"the encoder name {name!r} is taken; choose another one")
    register_encoder_name(name, EncoderTraits(reads_images, is_shared))
    _BUILDERS[name] = builder


def build_encoder(inputs: InputLayer, config: NetworkConfig) -> Encoder:
    """The encoder that the configuration names, with a GRU behind it where that has one.

    Raises:
        ValueError: If the image does not suit it, or a plugin's builder gives something else than an encoder.
    """
    encoder = _frame_encoder(inputs, config)
    if isinstance(config, RecurrentNetworkConfig):
        return cast("Encoder", RecurrentEncoder(encoder, encoder.size, config.gru_size))
    return encoder


def _frame_encoder(inputs: InputLayer, config: NetworkConfig) -> Encoder:
    builder = _BUILDERS.get(config.encoder)
    if builder is None:
        if config.encoder == EncoderKind.mlp:
            return FlatEncoder(inputs)
        return DenseEncoder(inputs, config) if config.encoder == EncoderKind.dense else ConvEncoder(inputs, config)
    encoder = builder(inputs, config)
    size = getattr(encoder, "size", None)
    if not isinstance(encoder, nn.Module) or not isinstance(size, int) or size < 1:
        raise ValueError(
            f"the builder of network.encoder {config.encoder} must give an nn.Module whose size is an int >= 1, "
            f"got {type(encoder).__name__} with size {size!r}"
        )
    return cast("Encoder", encoder)


class Encoder(nn.Module):
    """Maps ``Inputs`` to features, shape (B, size)."""

    size: int


class FlatEncoder(Encoder):
    """No encoder: the features are the vector."""

    def __init__(self, inputs: InputLayer) -> None:
        """Takes its width from the input layer."""
        super().__init__()
        self.size = inputs.vector_size

    def forward(self, inputs: Inputs) -> Tensor:
        """Features, shape (B, D)."""
        return inputs.vector


class DenseEncoder(Encoder):
    """Two layers over the vector, then the vector beside what they give."""

    def __init__(self, inputs: InputLayer, config: NetworkConfig) -> None:
        """Sizes the layers for the vector of the input layer."""
        super().__init__()
        first = nn.Linear(inputs.vector_size, DENSE_WIDTH)
        self.layers = nn.Sequential(first, nn.ReLU(), _trunk(DENSE_WIDTH, config.feature_size))
        self.size = inputs.vector_size + config.feature_size

    def forward(self, inputs: Inputs) -> Tensor:
        """Features, shape (B, D + feature_size)."""
        return torch.cat((inputs.vector, self.layers(inputs.vector)), dim=-1)


class ConvEncoder(Encoder):
    """Convolutions with ReLU over the image, an optional Linear-LayerNorm-tanh trunk, then the vector beside it."""

    def __init__(self, inputs: InputLayer, config: NetworkConfig) -> None:
        """Sizes the layers for the image of the input layer."""
        super().__init__()
        channels, height, width = inputs.image_shape
        self._scale, self._offset = inputs.image_scale
        self.convolutions = nn.ModuleList()
        for out_channels, kernel, stride in convolutions(config.encoder):
            self.convolutions.append(nn.Conv2d(channels, out_channels, kernel, stride))
            height, width, channels = (height - kernel) // stride + 1, (width - kernel) // stride + 1, out_channels
        _check_image_size(height, width, inputs, config.encoder)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        flat_size = channels * height * width
        self.trunk: nn.Module | None = None
        if config.encoder != EncoderKind.tmrl_cnn:
            self.trunk = _trunk(flat_size, config.feature_size)
        self.size = inputs.vector_size + (flat_size if self.trunk is None else config.feature_size)

    def forward(self, inputs: Inputs) -> Tensor:
        """Features, shape (B, D + image features)."""
        first = self.convolutions[0]
        assert inputs.image is not None
        assert isinstance(first, nn.Conv2d)
        assert first.bias is not None
        # (pixel - offset) / scale is linear and there is no padding, so the first layer absorbs it exactly.
        weight = block_kernel(first.weight, first.stride[0]) / self._scale
        bias = first.bias - self._offset * weight.sum((1, 2, 3))
        hidden = functional.conv2d(inputs.image, weight, bias).relu_()
        for layer in self.convolutions[1:]:
            hidden = layer(hidden).relu_()
        features = hidden.flatten(1)
        if self.trunk is not None:
            features = self.trunk(features)
        return torch.cat((inputs.vector, features), dim=1)


def _trunk(size: int, feature_size: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(size, feature_size), nn.LayerNorm(feature_size), nn.Tanh())


def _check_image_size(height: int, width: int, inputs: InputLayer, encoder: str) -> None:
    if height < 1 or width < 1:
        _, image_height, image_width = inputs.image_shape
        smallest = 64 if encoder != EncoderKind.compact_cnn else 36
        raise ValueError(
            f"network.encoder {encoder} needs an image of at least {smallest}x{smallest} pixels, "
            f"got {image_width}x{image_height}; observe a larger one (TrackMania: task.img_width, task.img_height)"
        )
