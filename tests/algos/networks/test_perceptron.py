"""The written-out perceptron against autograd over plain products, and what it computes in bfloat16."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from algos.config import Precision
from algos.networks import StackedLinear, frozen, perceptron, products

CPU = torch.device("cpu")
CASES = {
    "one network": (None, (7, 3), False, 6),
    "one network, one part": (None, (7,), False, 1),
    "stack": (3, (7, 3), False, 1),
    "stack, several outputs": (3, (7, 3), False, 5),
    "stack, features of their own": (3, (7, 3), True, 1),
}
"""Networks, widths of the parts, whether the first part is (N, B, size), outputs."""


def build(case: str, dtype: torch.dtype = torch.float32) -> tuple[list[Tensor], list[nn.Linear | StackedLinear]]:
    num, sizes, has_own, outputs = CASES[case]
    torch.manual_seed(0)
    widths = [sum(sizes), 32, 24, outputs]
    pairs = list(pairwise(widths))
    layers: list[nn.Linear | StackedLinear] = [
        nn.Linear(a, b) if num is None else StackedLinear(num, a, b) for a, b in pairs
    ]
    parts = [torch.randn(*((num,) if has_own and not index else ()), 16, n) for index, n in enumerate(sizes)]
    return [p.to(dtype).requires_grad_() for p in parts], [layer.to(dtype) for layer in layers]


def by_autograd(parts: Sequence[Tensor], layers: Sequence[nn.Linear | StackedLinear]) -> Tensor:
    leading = max((part.shape[:-1] for part in parts), key=len)
    hidden = torch.cat([part.expand(*leading, -1) for part in parts], -1)
    for layer in layers:
        weight, bias = layer.weight, layer.bias
        hidden = hidden @ (weight if weight.dim() == 3 else weight.T) + bias
        hidden = hidden if layer is layers[-1] else hidden.clamp(min=0.0)
    return hidden


def gradients(outputs: Tensor, parts: Sequence[Tensor], layers: Sequence[nn.Module]) -> list[Tensor]:
    weight = torch.linspace(-1.0, 2.0, outputs.numel()).view(outputs.shape)
    parameters = [p for layer in layers for p in layer.parameters()]
    return list(torch.autograd.grad((outputs.square() * weight).sum(), [*parts, *parameters]))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_outputs_and_every_gradient_equal_those_of_autograd(case: str, dtype: torch.dtype, tolerance: float) -> None:
    parts, layers = build(case, dtype)
    outputs, expected = perceptron(parts, layers), by_autograd(parts, layers)
    assert outputs.shape == expected.shape
    assert relative_error(outputs, expected) < tolerance
    for got, wanted in zip(gradients(outputs, parts, layers), gradients(expected, parts, layers), strict=True):
        assert got.shape == wanted.shape
        assert got.dtype == wanted.dtype
        assert got.is_contiguous()
        assert relative_error(got, wanted) < tolerance


@pytest.mark.parametrize("case", CASES)
def test_in_bfloat16_the_products_are_rounded_and_what_comes_out_is_float32(case: str) -> None:
    parts, layers = build(case)
    expected = by_autograd(parts, layers)
    with products(Precision.bfloat16, CPU):
        outputs = perceptron(parts, layers)
    assert outputs.dtype == torch.float32
    assert 1e-5 < relative_error(outputs, expected) < 0.02
    for got, wanted in zip(gradients(outputs, parts, layers), gradients(expected, parts, layers), strict=True):
        assert got.dtype == torch.float32
        assert torch.cosine_similarity(got.flatten(), wanted.flatten(), dim=0) > 0.98


def test_float64_stays_float64_whatever_the_precision() -> None:
    parts, layers = build("stack", torch.float64)
    with products(Precision.bfloat16, CPU):
        assert relative_error(perceptron(parts, layers), by_autograd(parts, layers)) < 1e-12


def test_frozen_parameters_get_no_gradient_and_the_inputs_do() -> None:
    parts, layers = build("stack")
    parameters = [p for layer in layers for p in layer.parameters()]
    with frozen(parameters):
        outputs = perceptron(parts, layers)
    outputs.sum().backward()
    assert all(p.grad is None and p.requires_grad for p in parameters)
    assert all(part.grad is not None for part in parts)


def relative_error(got: Tensor, expected: Tensor) -> float:
    got, expected = got.detach(), expected.detach()
    return float((got - expected).norm() / expected.norm())
