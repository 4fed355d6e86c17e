"""Dropout Q-functions: SAC whose few critics have dropout and LayerNorm, and many updates per step.

Paper: Hiraoka et al., https://arxiv.org/abs/2110.02034, algorithm 2. Dropout and LayerNorm are layers of the critics
(``network.dropout``, ``network.layer_norm``): they act in the critics' update, in the target and in the actor's loss.
docs/algorithms/droq.md pairs equations and functions.
"""

from __future__ import annotations

from torch import Tensor

from algos.algorithms.sac import SAC
from algos.config import DroQConfig


class DroQ(SAC):
    """Overrides the value that the actor maximises; how often it is updated is ``config.policy_delay``."""

    config: DroQConfig

    def policy_value(self, q: Tensor) -> Tensor:
        """The mean over the critics (algorithm 2, line 10): (N, B) -> (B,)."""
        return q.mean(0)
