"""One step of every optimiser equals that of torch, and their states fit each other."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from algos.algorithms.optimizers import load_moments, make_optimizer, step
from algos.config import OptimizerKind


def parameters() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator).requires_grad_() for shape in ((3, 4), (5,), ())]


def gradients(seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(p.shape, generator=generator) for p in parameters()]


@pytest.mark.parametrize("kind", OptimizerKind)
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_steps_equal_those_of_torch_and_the_state_goes_both_ways(kind: OptimizerKind, weight_decay: float) -> None:
    ours, theirs = parameters(), parameters()
    betas = [0.8, 0.9] if kind in (OptimizerKind.adam, OptimizerKind.adamw) else None
    one, other = (make_optimizer(kind, p, 0.1, betas, weight_decay) for p in (ours, theirs))
    for seed in range(6):
        if seed == 3:  # saved by either, loaded by the other
            saved = [copy.deepcopy(optimizer.state_dict()) for optimizer in (one, other)]
            load_moments(one, saved[1])
            load_moments(other, saved[0])
        step(one, gradients(seed))
        for parameter, gradient in zip(theirs, gradients(seed), strict=True):
            parameter.grad = gradient
        other.step()
        for got, expected in zip(ours, theirs, strict=True):
            assert torch.equal(got, expected)
