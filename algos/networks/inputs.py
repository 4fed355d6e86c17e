"""The input layer: a dict of observation fields becomes what encoders see."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from algos.config import ENCODERS, EncoderKind, NetworkConfig, Normalization
from algos.networks.images import to_blocks
from algos.networks.matmul import product_dtype
from tasks.experience.observation import Field, ObservationSpec

RUNNING_CLIP = 10.0
"""Running normalisation clips to this many standard deviations."""
TMRL_CONVOLUTIONS = ((64, 8, 2), (64, 4, 2), (128, 4, 2), (128, 4, 2))
"""(output channels, kernel, stride) of TMRL's VanillaCNN."""
COMPACT_CONVOLUTIONS = ((16, 8, 4), (32, 4, 2), (32, 3, 2))
"""The first kernel is a multiple of its stride in both, as ``to_blocks`` needs."""
TMRL_SCALES = {"speed": 1000.0, "gear": 10.0, "rpm": 10000.0}
"""TMRL's preprocessor for tasks with images; an image is divided by 256."""


class Inputs(NamedTuple):
    """What the networks see of a batch of observations."""

    vector: Tensor
    """Scaled flat fields, shape (B, D)."""
    image: Tensor | None
    """Unscaled pixels 0..255 in blocks of stride x stride, shape (B, C*s*s, H/s, W/s), or None; see ``to_blocks``.
    For an encoder of a plugin scaled pixels, shape (B, C, H, W)."""
    privileged: Tensor | None = None
    """Scaled privileged fields, shape (B, P), for an asymmetric critic; None for everybody else."""


class InputLayer(nn.Module):
    """Turns a dict of fields into ``Inputs``: order, flattening and scale. Privileged fields are not looked at.

    Running statistics are buffers, so that they travel with the acting weights; only ``observe`` changes them.
    """

    mean: Tensor
    variance: Tensor
    count: Tensor
    _gain: Tensor
    _shift: Tensor

    def __init__(self, spec: ObservationSpec, config: NetworkConfig, dtype: torch.dtype = torch.float32) -> None:
        """Splits the visible fields of the spec into an image and a vector."""
        super().__init__()
        fields = spec.visible.all_fields()
        reads_images = ENCODERS[config.encoder].reads_images
        images = [f for f in fields if is_image(f)] if reads_images else []
        if reads_images:
            _check_one_image(images, config.encoder)
        self.image_field = images[0] if images else None
        self._kernel, self._stride = convolutions(config.encoder)[0][1:] if images else (1, 1)
        self._has_blocks = config.encoder in EncoderKind.__members__
        self.vector_fields = tuple(f for f in fields if f is not self.image_field)
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
            return Inputs(vector, to_blocks(image, self._kernel, self._stride).to(product_dtype(self._gain)))
        scale, offset = self.image_scale
        return Inputs(vector, (image.to(self._gain.dtype) - offset) / scale)

    def image(self, observation: Mapping[str, Tensor]) -> Tensor | None:
        """The image field with histories and colours as channels, shape (B, C, H, W), dtype as stored."""
        if self.image_field is None:
            return None
        image = observation[self.image_field.name]
        if _has_colours(self.image_field):  # (B, [history], H, W, 3) -> (B, [history], 3, H, W)
            image = image.movedim(image.dim() - 1, image.dim() - 3)  # not negative: for ONNX
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
        if not self.is_running or self.vector_size == 0:
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
        return _flattened(self.vector_fields, observation, self._gain.dtype)


class PrivilegedLayer(nn.Module):
    """The privileged fields as a vector: what an asymmetric critic sees beside the visible one.

    Each field is scaled by its own scale and offset, whatever ``observation_normalization`` says, so that there are no
    statistics that critics and their targets would have to share.
    """

    _gain: Tensor
    _shift: Tensor

    def __init__(self, spec: ObservationSpec) -> None:
        """Takes the privileged fields of the spec.

        Raises:
            ValueError: If it has none.
        """
        super().__init__()
        self._fields = spec.privileged_fields
        if not self._fields:
            raise ValueError(
                "network.asymmetric_critic must be false for an observation without privileged fields, got true; "
                "TrackMania tasks have them with task.privileged=true"
            )
        self.size = sum(field.size for field in self._fields)
        scales, offsets = _scales(self._fields, Normalization.fixed, has_image=False)
        self.register_buffer("_gain", 1.0 / scales, persistent=False)
        self.register_buffer("_shift", -offsets / scales, persistent=False)

    def forward(self, observation: Mapping[str, Tensor]) -> Tensor:
        """Scaled fields, shape (B, P), of every field of a batch, each (B, *field shape)."""
        return _flattened(self._fields, observation, self._gain.dtype) * self._gain + self._shift


def convolutions(encoder: str) -> Sequence[tuple[int, int, int]]:
    """(output channels, kernel, stride) of the layers of a built-in encoder with images."""
    return COMPACT_CONVOLUTIONS if encoder == EncoderKind.compact_cnn else TMRL_CONVOLUTIONS


def is_image(field: Field) -> bool:
    """Whether a field is an image: bytes with at least two axes beside the history."""
    return field.dtype == "uint8" and len(field.frame_shape) >= 2


def _flattened(fields: Sequence[Field], observation: Mapping[str, Tensor], dtype: torch.dtype) -> Tensor:
    """The fields one after the other, shape (B, D); D is 0 for an observation that is nothing but an image."""
    if not fields:
        some = next(iter(observation.values()))
        return some.new_empty((some.shape[0], 0), dtype=dtype)
    return torch.cat([observation[field.name].flatten(1).to(dtype) for field in fields], dim=1)


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
        advice = "stack them into one, in a task of your own" if names else "use network.encoder=mlp"
        raise ValueError(
            f"network.encoder {encoder} needs an observation with exactly one image, got {names}; {advice}"
        )
