"""Truncated Quantile Critics: SAC whose critics give a distribution of the return, and drop its largest part.

Paper: Kuznetsov et al., https://arxiv.org/abs/2005.04269, section 3. Without truncation (``dropped_quantiles=0``) it
is a distributional SAC in the manner of QR-SAC. Equations and functions: docs/algorithms/tqc.md.
"""

from __future__ import annotations

import torch
from torch import Tensor

from algos.config import TQCConfig
from algos.networks import Networks, build_networks
from algos.sac import SAC, Metrics
from tasks.observation import ObservationSpec


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
        atoms: Samples of the target distribution, shape (B, T), without gradient.

    Returns:
        A scalar: the mean over N, B, K and T.
    """
    count = quantiles.shape[-1]
    tau = (torch.arange(count, device=quantiles.device, dtype=quantiles.dtype) + 0.5) / count
    difference = atoms[:, None, :] - quantiles[..., None]  # (N, B, K, T)
    with torch.no_grad():
        slope = difference.clamp(-1.0, 1.0)
        weight = torch.where(difference < 0, 1.0 - tau[:, None], tau[:, None])
    # huber(u) = slope (u - slope / 2), and its derivative is the slope, so that slope may be held constant.
    return (weight * slope * (difference - 0.5 * slope)).mean()
