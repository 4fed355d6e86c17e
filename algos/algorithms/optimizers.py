"""Optimisers of torch by the names of the configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from algos.config import OptimizerKind

DEFAULT_BETAS = (0.9, 0.999)


def make_optimizer(
    kind: OptimizerKind,
    parameters: Sequence[Tensor],
    learning_rate: float,
    betas: Sequence[float] | None,
    weight_decay: float,
) -> torch.optim.Optimizer:
    """Builds an optimiser in its fused form where there is one.

    Args:
        kind: Which optimiser.
        parameters: What it trains.
        learning_rate: Step size.
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


def load_moments(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Loads the running averages and keeps the hyper-parameters that the optimiser was built with."""
    built = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    optimizer.load_state_dict(dict(state))
    for group, values in zip(optimizer.param_groups, built, strict=True):
        group.update(values)
