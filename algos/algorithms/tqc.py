"""Truncated Quantile Critics: SAC whose critics give a distribution of the return, and drop its largest part.

Paper: Kuznetsov et al., https://arxiv.org/abs/2005.04269, section 3. Without truncation (``dropped_quantiles=0``) it
is a distributional SAC in the manner of QR-SAC. Equations and functions: docs/algorithms/tqc.md.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from algos.algorithms.sac import SAC, Metrics
from algos.config import TQCConfig
from algos.networks import Networks, build_networks
from tasks.experience.observation import ObservationSpec


class TQC(SAC):
    """Overrides the critics' outputs, their loss and the two reductions over the ensemble.

    The critics give K quantiles each, shape (N, B, K); K = 1 is (N, B). Targets are T = N (K - d) atoms, (T, B).
    """

    config: TQCConfig

    def make_networks(self, spec: ObservationSpec, seed: int) -> Networks:
        """As SAC's, with K outputs per critic."""
        config = self.config
        return build_networks(spec, self.network, config.ensemble_size, seed, self._dtype, config.num_quantiles)

    def next_value(self, q: Tensor) -> Tensor:
        """All quantiles of all critics without the d N largest: (N, B, K) -> (T, B), ascending."""
        critics, batch = q.shape[:2]
        pooled = q.view(critics, batch, -1).transpose(0, 1).reshape(batch, -1)
        kept = critics * (self.config.num_quantiles - self.config.dropped_quantiles)
        return pooled.sort(-1).values[:, :kept].T

    def critic_loss(self, features: Tensor, action: Tensor, target: Tensor) -> tuple[Tensor, Metrics]:
        """Quantile Huber loss to the target's atoms (T, B), mean over critics, batch, quantiles and atoms."""
        q = self.critic(features, action)
        loss = quantile_huber_loss(q.view(*q.shape[:2], -1), target.T)
        return loss, self.critic_metrics(loss.detach(), q.detach(), target)

    def policy_value(self, q: Tensor) -> Tensor:
        """The mean of all quantiles of all critics, none dropped: (N, B, K) -> (B,)."""
        return q.view(*q.shape[:2], -1).mean((0, 2))

    def critic_metrics(self, loss: Tensor, q: Tensor, target: Tensor) -> Metrics:
        """SAC's, how far the critics' means disagree, and how wide the distributions are (standard deviations)."""
        quantiles = q.view(*q.shape[:2], -1)
        return super().critic_metrics(loss, q, target) | {
            "train/q_spread": quantiles.mean(2).std(0, correction=0).mean(),
            "train/quantile_spread": quantiles.std(2, correction=0).mean(),
        }


def quantile_huber_loss(quantiles: Tensor, atoms: Tensor) -> Tensor:
    """Mean of ``|tau_m - (u < 0)| huber(u)``, u = atom - quantile, threshold 1, tau_m = (m + 1/2) / K, m = 0 ... K - 1.

    Args:
        quantiles: Estimates to train, shape (N, B, K).
        atoms: Samples of the target distribution in any order, shape (B, T), without gradient.

    Returns:
        A scalar: the mean over N, B, K and T.
    """
    return _QuantileHuberLoss.apply(quantiles, atoms)  # type: ignore[no-untyped-call]


class _QuantileHuberLoss(torch.autograd.Function):
    """The loss from prefix sums over the sorted atoms, so that the N B K T pairs are never looked at one by one.

    A quantile q meets four stretches of atoms: below q - 1 and above q + 1 the Huber loss is linear, between them and q
    quadratic; sums of the atoms and of their squares give each stretch's loss and slope. In float64: they cancel.
    """

    @staticmethod
    def forward(ctx: Any, quantiles: Tensor, atoms: Tensor) -> Tensor:
        """The loss, and its gradient at once."""
        critics, batch, count = quantiles.shape
        q = quantiles.double().transpose(0, 1).reshape(batch, -1).contiguous()  # (B, N K)
        sorted_atoms = atoms.double().contiguous().sort(-1).values
        sums = functional.pad(torch.stack((sorted_atoms, sorted_atoms.square())).cumsum(-1), (1, 0))  # (2, B, T + 1)
        ends = [torch.searchsorted(sorted_atoms, q + shift) for shift in (-1.0, 0.0, 1.0)]
        ends = [torch.zeros_like(ends[0]), *ends, torch.full_like(ends[0], sorted_atoms.shape[1])]
        at_ends = [sums.gather(-1, end.expand(2, -1, -1)) for end in ends]
        far_below, below, above, far_above = (
            _Stretch((stop - start).double(), *(sum_stop - sum_start))
            for start, stop, sum_start, sum_stop in zip(ends, ends[1:], at_ends, at_ends[1:], strict=False)
        )
        loss_below = far_below.number * (q - 0.5) - far_below.total + below.half_square(q)
        loss_above = far_above.total - far_above.number * (q + 0.5) + above.half_square(q)
        slope_below = below.total - below.number * q - far_below.number
        slope_above = above.total - above.number * q + far_above.number
        tau = ((torch.arange(count, device=q.device, dtype=q.dtype) + 0.5) / count).repeat(critics)
        size = q.numel() * sorted_atoms.shape[1]
        gradient = -((1.0 - tau) * slope_below + tau * slope_above) / size
        ctx.save_for_backward(gradient.view(batch, critics, count).transpose(0, 1).to(quantiles.dtype))
        return (((1.0 - tau) * loss_below + tau * loss_above).sum() / size).to(quantiles.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        """The atoms are a target: they have none."""
        return gradients[0] * ctx.saved_tensors[0], None


class _Stretch(NamedTuple):
    """The atoms between two places: how many, their sum and the sum of their squares, shape (B, N K) each."""

    number: Tensor
    total: Tensor
    squares: Tensor

    def half_square(self, q: Tensor) -> Tensor:
        """Sum of (atom - q)^2 / 2."""
        return 0.5 * (self.squares + q * (self.number * q - 2.0 * self.total))
