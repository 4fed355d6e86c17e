"""One step of every optimiser equals that of torch, and their states fit each other."""

from __future__ import annotations

import copy
import itertools

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


@pytest.mark.parametrize(("stored", "kind"), list(itertools.permutations(OptimizerKind, 2)))
def test_running_averages_of_another_kind_are_left_out(stored: OptimizerKind, kind: OptimizerKind) -> None:
    """Those of adam and adamw are of one kind."""
    weights = parameters()
    one = make_optimizer(stored, parameters(), 0.1, None, 0.0)
    other, fresh = (make_optimizer(kind, trained, 0.1, None, 0.0) for trained in (weights, parameters()))
    step(one, gradients(0))
    is_one_kind = {stored, kind} == {OptimizerKind.adam, OptimizerKind.adamw}
    assert load_moments(other, copy.deepcopy(one.state_dict())) is is_one_kind
    assert is_one_kind or other.state_dict() == fresh.state_dict()
    step(other, gradients(1))
    assert all(torch.isfinite(weight).all() for weight in weights)
