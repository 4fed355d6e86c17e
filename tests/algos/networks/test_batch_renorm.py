"""Batch renormalisation against torch's batch normalisation, against its own paper's property, and looped networks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from algos.networks import BatchRenorm, batch_statistics

EPSILON = 1e-3


def rows(seed: int = 0, spread: float = 2.0, offset: float = 0.5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(16, 5, generator=generator, dtype=torch.float64) * spread + offset


def make(warm_up: int, num: int | None = None) -> BatchRenorm:
    """With scale and shift that are not the identity."""
    layer = BatchRenorm(5, warm_up, num).double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator, dtype=torch.float64))
        layer.bias.copy_(torch.randn(layer.bias.shape, generator=generator, dtype=torch.float64))
    return layer


def test_warm_up_is_batch_normalisation_gradients_included() -> None:
    layer: Any = make(warm_up=10)
    other: Any = nn.BatchNorm1d(5, eps=EPSILON, momentum=0.01).double()
    other.load_state_dict({"weight": layer.weight[0], "bias": layer.bias[0]}, strict=False)
    for seed in range(3):
        inputs = [rows(seed).requires_grad_() for _ in range(2)]
        outputs = layer(inputs[0]), other(inputs[1])
        assert torch.allclose(outputs[0], outputs[1], rtol=0, atol=1e-12)
        for output in outputs:
            output.pow(3).sum().backward()
        assert inputs[0].grad is not None
        assert inputs[1].grad is not None
        assert torch.allclose(inputs[0].grad, inputs[1].grad, rtol=0, atol=1e-10)
    assert torch.allclose(layer.weight.grad[0], other.weight.grad, rtol=0, atol=1e-10)
    assert torch.allclose(layer.mean[0], other.running_mean, rtol=0, atol=1e-12)
    # torch merges the variance with Bessel's correction, the papers without.
    share = 15 / 16
    assert torch.allclose(layer.variance[0] - 0.99**3, (other.running_var - 0.99**3) * share, rtol=0, atol=1e-12)


def test_after_the_warm_up_training_gives_what_evaluation_gives() -> None:
    """The paper's point: with r and d inside their bounds the correction undoes the statistics of the batch."""
    layer = make(warm_up=300)
    for seed in range(400):
        layer(rows(seed))
    inputs = rows(1000)
    layer.eval()
    expected = layer(inputs)
    layer.train()
    assert torch.allclose(layer(inputs), expected, rtol=0, atol=1e-10)
    plain = nn.functional.batch_norm(inputs, None, None, layer.weight[0], layer.bias[0], training=True, eps=EPSILON)
    assert not torch.allclose(plain, expected, atol=0.05)


@pytest.mark.parametrize(
    ("spread", "offset", "r", "d"),
    [(100.0, 0.0, 3.0, None), (1e-6, 0.0, 1 / 3, None), (1.0, 50.0, None, 5.0), (1.0, -50.0, None, -5.0)],
)
def test_correction_is_bounded(spread: float, offset: float, r: float | None, d: float | None) -> None:
    layer = BatchRenorm(5, 0).double()  # running mean 0, variance 1
    inputs = rows()
    inputs = (inputs - inputs.mean(0)) * spread + offset
    mean, variance = inputs.mean(0), inputs.var(0, correction=0)
    normal = (inputs - mean) / (variance + EPSILON).sqrt()
    one_over_running = 1 / np.sqrt(1 + EPSILON)
    ratio = r if r is not None else (variance + EPSILON).sqrt() * one_over_running
    shift = d if d is not None else mean * one_over_running
    assert torch.allclose(layer(inputs), normal * ratio + shift, rtol=0, atol=1e-10)


def test_correction_is_a_constant_for_the_gradient() -> None:
    layer = BatchRenorm(5, 0).double()
    inputs = rows().requires_grad_()
    layer(inputs).pow(3).sum().backward()
    mean, deviation = rows().mean(0), (rows().var(0, correction=0) + EPSILON).sqrt()
    running = np.sqrt(1 + EPSILON)
    again = rows().requires_grad_()
    normal = nn.functional.batch_norm(again, None, None, training=True, eps=EPSILON)
    (normal * (deviation / running).clamp(1 / 3, 3) + mean / running).pow(3).sum().backward()
    assert inputs.grad is not None
    assert again.grad is not None
    assert torch.allclose(inputs.grad, again.grad, rtol=0, atol=1e-10)


def test_evaluation_changes_nothing_and_takes_a_single_row() -> None:
    layer = make(warm_up=1)
    for seed in range(3):
        layer(rows(seed))
    layer.eval()
    before = {name: t.clone() for name, t in layer.state_dict().items()}
    many = layer(rows(7))
    assert torch.allclose(layer(rows(7)[:1]), many[:1], rtol=0, atol=1e-12)
    deviation = (layer.variance + EPSILON).sqrt()
    assert torch.allclose(many, (rows(7) - layer.mean) / deviation * layer.weight + layer.bias, rtol=0, atol=1e-12)
    assert all(torch.equal(before[name], t) for name, t in layer.state_dict().items())


@pytest.mark.parametrize("is_shared", [True, False])
def test_stacked_layer_equals_one_layer_per_network(is_shared: bool) -> None:
    stacked = make(warm_up=1, num=3)
    singles = [make(warm_up=1) for _ in range(3)]
    for index, single in enumerate(singles):
        with torch.no_grad():
            single.weight.copy_(stacked.weight[index])
            single.bias.copy_(stacked.bias[index])
    for seed in range(3):
        inputs = rows(seed) if is_shared else torch.stack([rows(10 * seed + i, 1.0 + i) for i in range(3)])
        each = [inputs] * 3 if is_shared else list(inputs)
        expected = torch.stack([single(one) for single, one in zip(singles, each, strict=True)])
        assert torch.allclose(stacked(inputs), expected, rtol=0, atol=1e-12)
    for name in ("mean", "variance"):
        expected = torch.stack([getattr(single, name) for single in singles])
        assert torch.allclose(getattr(stacked, name), expected, rtol=0, atol=1e-12)
    assert stacked.num_batches.item() == 3


def test_batch_statistics_are_used_inside_the_block_only() -> None:
    layer = make(warm_up=1)
    layer.eval()
    with batch_statistics(layer):
        layer(rows())
    assert layer.num_batches.item() == 1
    layer(rows())
    assert layer.num_batches.item() == 1
    with pytest.raises(RuntimeError, match="stop"), batch_statistics(layer):
        raise RuntimeError("stop")
    assert not layer.training
