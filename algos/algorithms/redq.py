"""Randomized Ensembled Double Q-Learning: SAC with N critics, random minima of M, and many updates per step.

Paper: Chen et al., https://arxiv.org/abs/2101.05982, algorithm 1. Equations and functions: docs/algorithms/redq.md.
"""

from __future__ import annotations

import torch
from torch import Tensor

from algos.algorithms.sac import SAC, Metrics
from algos.config import PolicyValue, REDQConfig


class REDQ(SAC):
    """Overrides the two reductions over the ensemble; how often the actor is updated is ``config.actor_period``."""

    config: REDQConfig

    def next_value(self, q: Tensor) -> Tensor:
        """The smallest of M critics, drawn anew for each update: (N, B) -> (B,); with M = N nothing is drawn."""
        if self.config.redq_m < q.shape[0]:
            drawn = torch.randperm(q.shape[0], generator=self._generator, device=self.device)
            q = q[drawn[: self.config.redq_m]]
        return q.amin(0)

    def policy_value(self, q: Tensor) -> Tensor:
        """The mean over all N critics, or their minimum: (N, B) -> (B,)."""
        return q.mean(0) if self.config.policy_value is PolicyValue.mean else q.amin(0)

    def critic_metrics(self, loss: Tensor, q: Tensor, target: Tensor) -> Metrics:
        """SAC's, and how far the critics disagree: their standard deviation, mean over the batch."""
        return super().critic_metrics(loss, q, target) | {"train/q_spread": q.std(0, correction=0).mean()}
