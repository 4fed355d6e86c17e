"""Layers of N networks side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional


class StackedLinear(nn.Module):
    """N Linear layers side by side; each is initialised on its own, as ``nn.Linear`` or by ``initialise``."""

    def __init__(
        self, num: int, input_size: int, output_size: int, initialise: Callable[[nn.Linear], None] | None = None
    ) -> None:
        """Draws each layer's weights on its own."""
        super().__init__()
        layers = [nn.Linear(input_size, output_size) for _ in range(num)]
        if initialise is not None:
            for layer in layers:
                initialise(layer)
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


class Dropout(nn.Module):
    """Zeroes a share of its inputs at random and scales the rest, in training and evaluation mode alike.

    ``draw_from`` says which generator decides; without it torch's global one does.
    """

    def __init__(self, share: float) -> None:
        """Takes the probability that a unit is dropped, in [0, 1); at 0 nothing is drawn."""
        super().__init__()
        self._share = share
        self.generator: torch.Generator | None = None

    def forward(self, inputs: Tensor) -> Tensor:
        """Inputs of any shape, each on its own times 0 or 1 / (1 - share)."""
        if self._share == 0:
            return inputs
        kept = torch.empty_like(inputs, requires_grad=False).bernoulli_(1.0 - self._share, generator=self.generator)
        return (inputs * kept).div_(1.0 - self._share)


def draw_from(module: nn.Module, generator: torch.Generator) -> None:
    """Makes the generator decide in every ``Dropout`` of the module."""
    for layer in module.modules():
        if isinstance(layer, Dropout):
            layer.generator = generator


def in_full(layer: nn.Linear | StackedLinear, inputs: Tensor) -> Tensor:
    """What a last layer gives, with products in the precision of its weights."""
    kind = inputs.device.type
    with torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext():
        outputs: Tensor = layer(inputs.to(layer.weight.dtype))
        return outputs


@contextmanager
def frozen(parameters: Sequence[Tensor]) -> Iterator[None]:
    """Inside, these parameters are constants: what is computed with them has no gradient in them."""
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
