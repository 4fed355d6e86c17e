"""The squashed Gaussian: a reparameterised sample and its log-density."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


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
