"""Networks: inputs by name, encoders, the squashed-Gaussian actor and the stacked ensemble of critics.

Called by ``sac.py`` (and what derives from it) for training and by ``policy.py`` for acting. Pure functions of their
inputs: no optimiser, no random draw after construction except ``random_shift``, which is given its generator. A plugin
adds its own encoder with ``add_encoder``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from algos.config import ENCODERS, EncoderKind, EncoderTraits, NetworkConfig, Normalization, register_encoder_name
from tasks.observation import Field, ObservationSpec

LOG_STD_MIN = -20.0
LOG_STD_MAX = 2.0
RUNNING_CLIP = 10.0
"""Running normalisation clips to this many standard deviations."""

TMRL_CONVOLUTIONS = ((64, 8, 2), (64, 4, 2), (128, 4, 2), (128, 4, 2))
"""(output channels, kernel, stride) of TMRL's VanillaCNN."""
COMPACT_CONVOLUTIONS = ((16, 8, 4), (32, 4, 2), (32, 3, 2))
"""The first kernel is a multiple of its stride in both, as ``to_blocks`` needs."""
TMRL_SCALES = {"speed": 1000.0, "gear": 10.0, "rpm": 10000.0}
"""TMRL's preprocessor for tasks with images; an image is divided by 256."""

_MATMUL: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
"""torch's setting of the precision of oneDNN's matrix products."""
_BUILDERS: dict[str, Callable[[InputLayer, NetworkConfig], nn.Module]] = {}
"""What plugins registered."""


class Inputs(NamedTuple):
    """What the networks see of a batch of observations."""

    vector: Tensor
    """Scaled flat fields, shape (B, D)."""
    image: Tensor | None
    """Unscaled pixels 0..255 in blocks of stride x stride, shape (B, C*s*s, H/s, W/s), or None; see ``to_blocks``.
    For an encoder of a plugin scaled pixels, shape (B, C, H, W)."""


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


def build_networks(
    spec: ObservationSpec, config: NetworkConfig, num_critics: int, seed: int, dtype: torch.dtype = torch.float32
) -> Networks:
    """Builds all networks of an actor-critic algorithm; equal seeds give equal weights.

    Args:
        spec: Fields of the observation.
        config: Shape of the networks.
        num_critics: Members of the ensemble; each is initialised independently.
        seed: Seed of the initial weights; the global generator is left as it was.
        dtype: Type of weights and activations.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        acting = ActingNetwork(spec, config, dtype)
        critic = CriticNetwork(acting, spec, config, num_critics)
    for module in (acting.encoder, acting.actor, critic):
        module.to(dtype)
    return Networks(acting, critic)


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


def squashed_sample(mean: Tensor, log_std: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Reparameterised sample of a squashed Gaussian and its log-density (SAC, appendix C, eq. 21).

    Args:
        mean: Mean before the squashing, shape (B, A).
        log_std: Logarithm of the standard deviation before the squashing, shape (B, A).
        noise: Standard normal draws, shape (B, A).

    Returns:
        The action tanh(mean + std x noise), shape (B, A), and log pi(action), shape (B,). The correction
        log(1 - tanh(u)^2) is 2 (log 2 - u - softplus(-2u)), which is exact for large |u|.
    """
    return _SquashedSample.apply(mean, log_std, noise)  # type: ignore[no-untyped-call]


def random_shift(image: Tensor, pixels: int, generator: torch.Generator) -> Tensor:
    """Shifts each image by up to ``pixels`` along both axes, repeating edge pixels (DrQ).

    All channels, hence all frames of a stack, shift alike.

    Args:
        image: Shape (B, C, H, W), any dtype.
        pixels: Largest shift [px].
        generator: Where the shifts are drawn, on the CPU or on the image's device.
    """
    batch, _, height, width = image.shape
    shifts = torch.randint(-pixels, pixels + 1, (2, batch, 1), generator=generator, device=generator.device)
    shifts = shifts.to(image.device)
    rows = (torch.arange(height, device=image.device) + shifts[0]).clamp_(0, height - 1)  # (B, H)
    columns = (torch.arange(width, device=image.device) + shifts[1]).clamp_(0, width - 1)  # (B, W)
    index = (rows[:, :, None] * width + columns[:, None, :]).view(batch, 1, -1)  # (B, 1, H*W)
    return image.flatten(2).gather(2, index.expand(-1, image.shape[1], -1)).view(image.shape)


def to_blocks(image: Tensor, kernel: int, stride: int) -> Tensor:
    """Cuts images into blocks of stride x stride pixels, one channel per pixel of a block.

    A convolution with kernel k and stride s is one with kernel k/s and stride 1 over these blocks. Moving bytes so
    is much cheaper than converting a strided image to channels-last float32.

    Args:
        image: uint8, shape (B, C, H, W).
        kernel: Kernel of the convolution, a multiple of the stride.
        stride: Its stride.

    Returns:
        uint8, shape (B, C*s*s, H', W') in channels-last order, without the pixels that the convolution never reaches.
    """
    batch, channels, height, width = image.shape
    rows, columns = ((size - kernel) // stride + kernel // stride for size in (height, width))
    image = image[:, :, : rows * stride, : columns * stride]
    word = {2: torch.int16, 4: torch.int32, 8: torch.int64}.get(stride)
    if word is None:  # moved byte by byte, (B, C, Y, y, X, x) -> (B, Y, X, C, y, x)
        blocks = image.reshape(batch, channels, rows, stride, columns, stride).permute(0, 2, 4, 1, 3, 5).contiguous()
    else:  # moved word by word, (B, C, Y, y, X) -> (B, Y, X, C, y)
        words = _aligned(image, stride).view(word).unflatten(2, (rows, stride))
        blocks = words.permute(0, 2, 4, 1, 3).contiguous().view(torch.uint8)
    return blocks.view(batch, rows, columns, channels * stride * stride).permute(0, 3, 1, 2)


def block_kernel(weight: Tensor, stride: int) -> Tensor:
    """The weight (O, C, k, k) of a strided convolution for blocks: (O, C*s*s, k/s, k/s)."""
    outputs, channels, kernel, _ = weight.shape
    count = kernel // stride
    split = weight.reshape(outputs, channels, count, stride, count, stride)
    blocks = split.permute(0, 2, 4, 1, 3, 5).reshape(outputs, count, count, channels * stride * stride)
    return blocks.permute(0, 3, 1, 2)


@contextmanager
def fast_matmul() -> Iterator[None]:
    """Inside, float32 matrix products on the CPU use oneDNN where that is faster and loses no precision.

    torch sends them to MKL, which leaves half of an AMD processor's vector units idle. The setting that routes them
    to oneDNN also permits bfloat16 inside, so it is used only where a test product shows full float32 precision.
    """
    if not _onednn_keeps_precision():
        yield
        return
    before = _MATMUL.fp32_precision
    _MATMUL.fp32_precision = "bf16"
    try:
        yield
    finally:
        _MATMUL.fp32_precision = before


class Networks(NamedTuple):
    """Everything that an actor-critic algorithm trains."""

    acting: ActingNetwork
    critic: CriticNetwork


class InputLayer(nn.Module):
    """Turns a dict of fields into ``Inputs``: order, flattening and scale.

    Running statistics are buffers, so that they travel with the acting weights; only ``observe`` changes them.
    """

    mean: Tensor
    variance: Tensor
    count: Tensor
    _gain: Tensor
    _shift: Tensor

    def __init__(self, spec: ObservationSpec, config: NetworkConfig, dtype: torch.dtype = torch.float32) -> None:
        """Splits the fields of the spec into an image and a vector."""
        super().__init__()
        reads_images = ENCODERS[config.encoder].reads_images
        images = [f for f in spec.all_fields() if is_image(f)] if reads_images else []
        if reads_images:
            _check_one_image(images, config.encoder)
        self.image_field = images[0] if images else None
        self._kernel, self._stride = convolutions(config.encoder)[0][1:] if images else (1, 1)
        self._has_blocks = config.encoder not in _BUILDERS
        self.vector_fields = tuple(f for f in spec.all_fields() if f is not self.image_field)
        self.vector_size = sum(f.size for f in self.vector_fields)
        self.is_running = config.observation_normalization is Normalization.running
        self.image_scale = _image_scale(self.image_field, config.observation_normalization)
        scales, offsets = _scales(self.vector_fields, config.observation_normalization, has_image=bool(images))
        self.register_buffer("_gain", (1.0 / scales).to(dtype), persistent=False)
        self.register_buffer("_shift", (-offsets / scales).to(dtype), persistent=False)
        if self.is_running:
            self.register_buffer("mean", torch.zeros(self.vector_size, dtype=torch.float64))
            self.register_buffer("variance", torch.ones(self.vector_size, dtype=torch.float64))
            self.register_buffer("count", torch.zeros((), dtype=torch.float64))

    def forward(self, observation: Mapping[str, Tensor], augment: Callable[[Tensor], Tensor] | None = None) -> Inputs:
        """Scales a batch of observations.

        Args:
            observation: Every field, shape (B, *field shape).
            augment: Applied to the image (B, C, H, W), uint8.
        """
        raw = self._raw_vector(observation)
        vector = raw * self._gain + self._shift
        if self.is_running:
            vector = (raw - self._running_mean) * self._running_gain
            vector = vector.clamp_(-RUNNING_CLIP, RUNNING_CLIP)
        image = self.image(observation)
        if image is None:
            return Inputs(vector, None)
        image = image if augment is None else augment(image)
        if self._has_blocks:
            return Inputs(vector, to_blocks(image, self._kernel, self._stride).to(self._gain.dtype))
        scale, offset = self.image_scale
        return Inputs(vector, (image.to(self._gain.dtype) - offset) / scale)

    def image(self, observation: Mapping[str, Tensor]) -> Tensor | None:
        """The image field with histories and colours as channels, shape (B, C, H, W), dtype as stored."""
        if self.image_field is None:
            return None
        image = observation[self.image_field.name]
        if _has_colours(self.image_field):  # (B, [history], H, W, 3) -> (B, [history], 3, H, W)
            image = image.movedim(-1, -3)
        height, width = image.shape[-2:]
        return image.reshape(image.shape[0], -1, height, width)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the image."""
        if self.image_field is None:
            raise ValueError("this observation has no image")
        shape = self.image_field.shape
        height, width = shape[-3:-1] if _has_colours(self.image_field) else shape[-2:]
        return math.prod(shape) // (height * width), height, width

    @torch.no_grad()
    def observe(self, observation: Mapping[str, Tensor]) -> None:
        """Merges a batch into the running mean and variance (Chan's form of Welford's method)."""
        if not self.is_running:
            return
        batch = self._raw_vector(observation).double()
        variance, mean = torch.var_mean(batch, dim=0, correction=0)
        total = self.count + batch.shape[0]
        share = batch.shape[0] / total
        delta = mean - self.mean
        self.variance.add_((variance - self.variance + delta.square() * (1.0 - share)) * share)
        self.mean.add_(delta * share)
        self.count.copy_(total)

    @property
    def _running_mean(self) -> Tensor:
        return self.mean.to(self._gain.dtype)

    @property
    def _running_gain(self) -> Tensor:
        return (self.variance + 1e-8).rsqrt().to(self._gain.dtype)

    def _raw_vector(self, observation: Mapping[str, Tensor]) -> Tensor:
        parts = [observation[f.name].flatten(1).to(self._gain.dtype) for f in self.vector_fields]
        return torch.cat(parts, dim=1)


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
            feature_size = config.feature_size
            self.trunk = nn.Sequential(nn.Linear(flat_size, feature_size), nn.LayerNorm(feature_size), nn.Tanh())
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


class ActorNetwork(nn.Module):
    """Features to mean and log-std of a Gaussian before the tanh."""

    def __init__(self, feature_size: int, action_size: int, config: NetworkConfig) -> None:
        """Builds hidden layers and one Linear for mean and log-std together."""
        super().__init__()
        widths = [feature_size, *config.hidden]
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in config.hidden if config.layer_norm_actor)
        self.head = nn.Linear(widths[-1], 2 * action_size)
        # TMRL's CNN actor has no activation after the last hidden layer; its MLP actor has.
        self._has_last_activation = config.encoder != EncoderKind.tmrl_cnn

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-std, shape (B, A) each; log-std clamped to [-20, 2]."""
        hidden = features
        for index, layer in enumerate(self.hidden):
            hidden = layer(hidden)
            if self.norms:
                hidden = self.norms[index](hidden)
            if self._has_last_activation or index < len(self.hidden) - 1:
                hidden = hidden.relu_()
        mean, log_std = self.head(hidden).chunk(2, dim=-1)
        return mean, log_std.clamp(LOG_STD_MIN, LOG_STD_MAX)


class ActingNetwork(nn.Module):
    """What acting needs and nothing else: input layer, the encoder that the actor sees, actor."""

    def __init__(self, spec: ObservationSpec, config: NetworkConfig, dtype: torch.dtype = torch.float32) -> None:
        """Builds the three parts; the weights are float32 until they are converted."""
        super().__init__()
        self.inputs = InputLayer(spec, config, dtype)
        self.encoder = build_encoder(self.inputs, config)
        self.actor = ActorNetwork(self.encoder.size, spec.action_size, config)

    def forward(self, observation: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Mean and log-std of a batch of observations, shape (B, A) each."""
        return self.actor(self.encoder(self.inputs(observation)))


class CriticNetwork(nn.Module):
    """N critics: their encoder(s) and the stacked ensemble of heads.

    A shared encoder is the one of the acting network: the critics train it, the actor sees it detached. Otherwise, as
    in TMRL's layout, there is one encoder per critic.
    """

    def __init__(self, acting: ActingNetwork, spec: ObservationSpec, config: NetworkConfig, num_critics: int) -> None:
        """Builds encoders and heads."""
        super().__init__()
        self.is_separate = not ENCODERS[config.encoder].is_shared
        own = [build_encoder(acting.inputs, config) for _ in range(num_critics)] if self.is_separate else []
        self.encoders = nn.ModuleList(own or [acting.encoder])
        self.ensemble = CriticEnsemble(num_critics, acting.encoder.size + spec.action_size, config)

    def encode(self, inputs: Inputs) -> Tensor:
        """Features, shape (B, F) when shared, (N, B, F) when every critic has its own encoder."""
        if not self.is_separate:
            return self.encoders[0](inputs)
        return torch.stack([encoder(inputs) for encoder in self.encoders])

    def forward(self, features: Tensor, action: Tensor) -> Tensor:
        """Q values, shape (N, B)."""
        if self.is_separate:
            action = action.expand(features.shape[0], -1, -1)
        return self.ensemble(torch.cat((features, action), dim=-1))


class CriticEnsemble(nn.Module):
    """N multilayer perceptrons with one output each, as batched matrix products."""

    def __init__(self, num_critics: int, input_size: int, config: NetworkConfig) -> None:
        """Builds the stacked layers; every critic is initialised on its own."""
        super().__init__()
        widths = [input_size, *config.hidden]
        self.hidden = nn.ModuleList(StackedLinear(num_critics, a, b) for a, b in pairwise(widths))
        self.norms = nn.ModuleList(StackedLayerNorm(num_critics, w) for w in config.hidden if config.layer_norm)
        self.head = StackedLinear(num_critics, widths[-1], 1)

    def forward(self, inputs: Tensor) -> Tensor:
        """Q values, shape (N, B), of inputs (B, F + A), the same for all, or (N, B, F + A)."""
        hidden = inputs
        for index, layer in enumerate(self.hidden):
            hidden = layer(hidden)
            if self.norms:
                hidden = self.norms[index](hidden)
            hidden = hidden.relu_()
        return self.head(hidden).squeeze(-1)  # (N, B, 1) -> (N, B)


class _SquashedSample(torch.autograd.Function):
    """``squashed_sample`` with its derivative written out: a tenth of the nodes that autograd would record."""

    @staticmethod
    def forward(ctx: Any, mean: Tensor, log_std: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """With u = mean + std x noise: tanh(u) and sum(-noise^2 / 2 - log_std - log(2 pi) / 2 - log(1 - tanh(u)^2))."""
        scaled_noise = log_std.exp().mul_(noise)
        unsquashed = mean + scaled_noise
        action = unsquashed.tanh()
        log_prob = functional.softplus(-2.0 * unsquashed).add_(unsquashed).mul_(2.0).sub_(log_std)
        log_prob = log_prob.addcmul_(noise, noise, value=-0.5).sum(-1)
        constant = 0.5 * math.log(2.0 * math.pi) + 2.0 * math.log(2.0)
        ctx.save_for_backward(action, scaled_noise)
        return action, log_prob.sub_(constant * mean.shape[-1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:  # type: ignore[override]
        """Uses d tanh(u) / du = 1 - tanh(u)^2 and -d log(1 - tanh(u)^2) / du = 2 tanh(u)."""
        action, scaled_noise = ctx.saved_tensors
        in_action, in_log_prob = gradients[0], gradients[1].unsqueeze(-1)
        in_unsquashed = torch.addcmul(in_action, action, 2.0 * in_log_prob - in_action * action)
        return in_unsquashed, in_unsquashed * scaled_noise - in_log_prob, None


class StackedLinear(nn.Module):
    """N Linear layers side by side; initialised as N ``nn.Linear``."""

    def __init__(self, num: int, input_size: int, output_size: int) -> None:
        """Draws each layer's weights on its own."""
        super().__init__()
        layers = [nn.Linear(input_size, output_size) for _ in range(num)]
        self.weight = nn.Parameter(torch.stack([layer.weight.detach().T for layer in layers]))  # (N, in, out)
        self.bias = nn.Parameter(torch.stack([layer.bias.detach() for layer in layers])[:, None])  # (N, 1, out)

    def forward(self, inputs: Tensor) -> Tensor:
        """Maps (B, in) or (N, B, in) to (N, B, out)."""
        if self.weight.shape[-1] == 1:  # a product and a sum: faster than a matrix product with one column
            return (inputs * self.weight.mT).sum(-1, keepdim=True) + self.bias
        if inputs.dim() == 2:
            inputs = inputs.expand(self.weight.shape[0], -1, -1)
        return torch.baddbmm(self.bias, inputs, self.weight)


class StackedLayerNorm(nn.Module):
    """N LayerNorms side by side."""

    def __init__(self, num: int, size: int) -> None:
        """Starts as the identity after normalising."""
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num, 1, size))
        self.bias = nn.Parameter(torch.zeros(num, 1, size))

    def forward(self, inputs: Tensor) -> Tensor:
        """Normalises the last axis of (N, B, size)."""
        return torch.addcmul(self.bias, functional.layer_norm(inputs, inputs.shape[-1:]), self.weight)


def build_encoder(inputs: InputLayer, config: NetworkConfig) -> Encoder:
    """The encoder that the configuration names.

    Raises:
        ValueError: If the image does not suit it, or a plugin's builder gives something else than an encoder.
    """
    builder = _BUILDERS.get(config.encoder)
    if builder is None:
        return FlatEncoder(inputs) if config.encoder == EncoderKind.mlp else ConvEncoder(inputs, config)
    encoder = builder(inputs, config)
    size = getattr(encoder, "size", None)
    if not isinstance(encoder, nn.Module) or not isinstance(size, int) or size < 1:
        raise ValueError(
            f"the builder of network.encoder {config.encoder} must give an nn.Module whose size is an int >= 1, "
            f"got {type(encoder).__name__} with size {size!r}"
        )
    return cast("Encoder", encoder)


def convolutions(encoder: str) -> Sequence[tuple[int, int, int]]:
    """(output channels, kernel, stride) of the layers of a built-in encoder with images."""
    return COMPACT_CONVOLUTIONS if encoder == EncoderKind.compact_cnn else TMRL_CONVOLUTIONS


def is_image(field: Field) -> bool:
    """Whether a field is an image: bytes with at least two axes beside the history."""
    return field.dtype == "uint8" and len(field.frame_shape) >= 2


def _aligned(image: Tensor, size: int) -> Tensor:
    """The image itself where its bytes can be seen as words of this size, else a copy that can."""
    strides = (*image.stride()[:-1], image.storage_offset())
    fits = image.stride(-1) == 1 and all(step % size == 0 for step in strides)
    return image if fits else image.contiguous()


def _has_colours(field: Field) -> bool:
    return len(field.frame_shape) == 3


def _scales(fields: Sequence[Field], kind: Normalization, has_image: bool) -> tuple[Tensor, Tensor]:
    """Scale and offset of every scalar of the vector."""
    scales, offsets = [], []
    for field in fields:
        scale, offset = _field_scale(field, kind, has_image)
        scales += [scale] * field.size
        offsets += [offset] * field.size
    return torch.tensor(scales, dtype=torch.float64), torch.tensor(offsets, dtype=torch.float64)


def _field_scale(field: Field, kind: Normalization, has_image: bool) -> tuple[float, float]:
    if kind is Normalization.fixed:
        return field.scale, field.offset
    if kind is Normalization.tmrl and has_image:
        return TMRL_SCALES.get(field.name, 1.0), 0.0
    return 1.0, 0.0


def _image_scale(field: Field | None, kind: Normalization) -> tuple[float, float]:
    """Scale and offset of the pixels."""
    if field is None or kind is Normalization.none:
        return 1.0, 0.0
    return (256.0, 0.0) if kind is Normalization.tmrl else (field.scale, field.offset)


def _check_one_image(images: Sequence[Field], encoder: str) -> None:
    if len(images) != 1:
        names = [field.name for field in images]
        raise ValueError(
            f"network.encoder {encoder} needs an observation with exactly one image, got {names}; "
            "use network.encoder=mlp for tasks without images"
        )


def _check_image_size(height: int, width: int, inputs: InputLayer, encoder: str) -> None:
    if height < 1 or width < 1:
        _, image_height, image_width = inputs.image_shape
        smallest = 64 if encoder != EncoderKind.compact_cnn else 36
        raise ValueError(
            f"network.encoder {encoder} needs an image of at least {smallest}x{smallest} pixels, "
            f"got {image_width}x{image_height}; raise task.img_width and task.img_height"
        )


@cache
def _onednn_keeps_precision() -> bool:
    """Whether oneDNN serves float32 products with float32 arithmetic on this processor."""
    if not torch.backends.mkldnn.is_available():
        return False
    left = torch.linspace(-1.0, 1.0, 256 * 256).sin().view(256, 256)
    right = torch.linspace(1.0, 3.0, 256 * 256).cos().view(256, 256)
    exact = left.double() @ right.double()
    before = _MATMUL.fp32_precision
    _MATMUL.fp32_precision = "bf16"
    try:
        error = (left @ right - exact).abs().max() / exact.abs().max()
    finally:
        _MATMUL.fp32_precision = before
    return error.item() < 1e-5
