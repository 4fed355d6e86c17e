"""A multilayer perceptron, or N side by side, as one node of autograd with its derivative written out."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from algos.networks.layers import StackedLinear
from algos.networks.matmul import product_dtype


def perceptron(parts: Sequence[Tensor], layers: Sequence[nn.Linear | StackedLinear]) -> Tensor:
    """Linear layers with a ReLU between them; autograd would record some thirty nodes for it, and more copies.

    The products have the type of ``products``, but for those that give the outputs; outputs and gradients are float32.

    Args:
        parts: What comes in, (B, size) or (N, B, size) each; laid side by side they are as wide as the first layer.
        layers: ``nn.Linear``, or ``StackedLinear`` for N networks.

    Returns:
        Outputs of the last layer, (B, out) or (N, B, out).
    """
    parameters = list(chain.from_iterable((layer.weight, layer.bias) for layer in layers))
    dtype = product_dtype(parameters[0])
    with torch.autocast(parameters[0].device.type, enabled=False):
        return _Perceptron.apply(dtype, len(parts), *parts, *parameters)  # type: ignore[no-untyped-call, no-any-return]


class _Perceptron(torch.autograd.Function):
    """``perceptron``; inside, one network is a stack of one: weights (N, in, out), biases (N, 1, out)."""

    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, num_parts: int, *tensors: Tensor) -> Tensor:
        """Keeps what each layer saw, and the weights as they were multiplied."""
        parts, weights, biases = tensors[:num_parts], tensors[num_parts::2], tensors[num_parts + 1 :: 2]
        ctx.is_stacked = weights[0].dim() == 3
        ctx.parts = [(part.dim(), part.shape[-1], part.dtype) for part in parts]
        hidden = _side_by_side(parts).to(dtype)
        hidden = hidden.expand(len(weights[0]) if ctx.is_stacked else 1, -1, -1)
        seen, multiplied = [hidden], [_stack(weight).to(dtype) for weight in weights[:-1]]
        for weight, bias in zip(multiplied, biases, strict=False):
            hidden = torch.baddbmm(_row(bias).to(dtype), hidden, weight).relu_()
            seen.append(hidden)
        head = _stack(weights[-1])
        ctx.save_for_backward(*seen, *multiplied, head.to(dtype))
        ctx.dtype = head.dtype
        outputs = _product(hidden.to(head.dtype), head) + _row(biases[-1])
        return outputs if ctx.is_stacked else outputs[0]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        """The chain rule from the last layer to the first."""
        num_layers = len(ctx.saved_tensors) // 2
        seen, weights = ctx.saved_tensors[:num_layers], ctx.saved_tensors[num_layers:]
        needs_parameters = ctx.needs_input_grad[2 + len(ctx.parts)]
        of_parameters: list[Tensor | None] = []
        gradient = (gradients[0] if ctx.is_stacked else gradients[0][None]).to(weights[0].dtype)
        for index in reversed(range(num_layers)):
            if needs_parameters:
                one_layer = _parameter_gradients(seen[index], gradient, ctx.is_stacked, ctx.dtype)
                of_parameters = [*one_layer, *of_parameters]
            if index > 0:
                gradient = _before_relu(gradient, weights[index], seen[index])
        of_parameters = of_parameters or [None] * (2 * num_layers)
        return None, None, *_part_gradients(ctx, gradient, weights[0]), *of_parameters


def _side_by_side(parts: Sequence[Tensor]) -> Tensor:
    """(B, size) each, or (N, B, size) as soon as one of them is."""
    if len({part.dim() for part in parts}) > 1:
        leading = max((part.shape[:-1] for part in parts), key=len)
        parts = [part.expand(*leading, -1) for part in parts]
    return torch.cat(tuple(parts), dim=-1) if len(parts) > 1 else parts[0]


def _stack(weight: Tensor) -> Tensor:
    return weight if weight.dim() == 3 else weight.T[None]


def _row(bias: Tensor) -> Tensor:
    return bias if bias.dim() == 3 else bias[None, None]


def _product(hidden: Tensor, weight: Tensor) -> Tensor:
    """A product and a sum are faster than a matrix product with one column."""
    return (hidden * weight.mT).sum(-1, keepdim=True) if weight.shape[-1] == 1 else torch.bmm(hidden, weight)


def _before_relu(gradient: Tensor, weight: Tensor, outputs: Tensor) -> Tensor:
    """The gradient before a ReLU that gave ``outputs``, from the one behind the layer that follows it."""
    inside = gradient * weight.mT if weight.shape[-1] == 1 else torch.bmm(gradient, weight.mT)
    return torch.ops.aten.threshold_backward(inside, outputs, 0)  # type: ignore[no-any-return]


def _parameter_gradients(
    inputs: Tensor, gradient: Tensor, is_stacked: bool, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Of weight and bias, laid out as the parameters are."""
    bias = gradient.sum(-2, keepdim=True).to(dtype)
    if not is_stacked:
        return torch.bmm(gradient.mT, inputs)[0].to(dtype), bias[0, 0]
    is_column = gradient.shape[-1] == 1  # a row is faster, and lies in memory as the column does
    weight = torch.bmm(gradient.mT, inputs).mT if is_column else torch.bmm(inputs.mT, gradient)
    return weight.to(dtype), bias


def _part_gradients(ctx: Any, gradient: Tensor, weight: Tensor) -> list[Tensor | None]:
    """Of the parts that need one, each from its own rows of the first weight."""
    found: list[Tensor | None] = []
    start = 0
    for (dim, size, dtype), is_needed in zip(ctx.parts, ctx.needs_input_grad[2:], strict=False):
        rows = weight[:, start : start + size]
        start += size
        product = torch.bmm(gradient, rows.mT) if is_needed else None
        if product is not None:
            product = (product if dim == 3 else product.sum(0)).to(dtype)
        found.append(product)
    return found
