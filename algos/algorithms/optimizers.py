"""Optimisers of torch by the names of the configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from algos.config import OptimizerKind

DEFAULT_BETAS = (0.9, 0.999)
_OF_ONE_KIND = frozenset({"betas", "alpha", "dampening"})
"""Hyper-parameters that only adam and adamw have, only rmsprop, and only sgd."""


def make_optimizer(
    kind: OptimizerKind,
    parameters: Sequence[Tensor],
    learning_rate: float | Tensor,
    betas: Sequence[float] | None,
    weight_decay: float,
) -> torch.optim.Optimizer:
    """Builds an optimiser in its fused form where there is one.

    Args:
        kind: Which optimiser.
        parameters: What it trains.
        learning_rate: Step size; a tensor where it shall change within a CUDA graph.
        betas: Averaging factors of adam and adamw; None: (0.9, 0.999).
        weight_decay: Added to the gradient, except adamw: decoupled from it.
    """
    first, second = betas or DEFAULT_BETAS
    if kind is OptimizerKind.sgd:
        return torch.optim.SGD(parameters, learning_rate, weight_decay=weight_decay, fused=True)
    if kind is OptimizerKind.rmsprop:
        return torch.optim.RMSprop(parameters, learning_rate, weight_decay=weight_decay, foreach=True)
    kinds = {OptimizerKind.adam: torch.optim.Adam, OptimizerKind.adamw: torch.optim.AdamW}
    return kinds[kind](parameters, learning_rate, betas=(first, second), weight_decay=weight_decay, fused=True)


@torch.no_grad()
def step(optimizer: torch.optim.Optimizer, gradients: Sequence[Tensor]) -> None:
    """A step of an optimiser of ``make_optimizer``, with the gradients of its parameters in their order.

    For Adam what ``optimizer.step()`` does from its second time on, without its search through groups, devices and
    hooks, which takes as long as the arithmetic of a small network.
    """
    (group,) = optimizer.param_groups
    parameters = group["params"]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    if not isinstance(optimizer, torch.optim.Adam) or not optimizer.state:
        optimizer.step()
        return
    steps, first, second = (
        [optimizer.state[parameter][name] for parameter in parameters] for name in ("step", "exp_avg", "exp_avg_sq")
    )
    torch._foreach_add_(steps, 1)
    fused = torch._fused_adamw_ if group["decoupled_weight_decay"] else torch._fused_adam_
    beta1, beta2 = group["betas"]
    fused(
        parameters, list(gradients), first, second, [], steps, lr=group["lr"], beta1=beta1, beta2=beta2,
        weight_decay=group["weight_decay"], eps=group["eps"], amsgrad=False, maximize=False,
    )  # fmt: skip


def load_moments(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> bool:
    """Loads the running averages and keeps the hyper-parameters that the optimiser was built with.

    Returns:
        Whether they are loaded; False: those of ``state`` are of another kind of optimiser.
    """
    stored_kind, kind = (_OF_ONE_KIND & groups[0].keys() for groups in (state["param_groups"], optimizer.param_groups))
    if stored_kind != kind:
        return False
    built = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    optimizer.load_state_dict(dict(state))
    for group, values in zip(optimizer.param_groups, built, strict=True):
        group.update(values)
    return True
