"""CrossQ: SAC without target networks, whose networks have batch renormalisation.

Paper: Bhatt, Palenicek et al., "CrossQ: Batch Normalization in Deep Reinforcement Learning for Greater Sample
Efficiency and Simplicity", ICLR 2024, https://openreview.net/forum?id=PczQtTsTIX; reference: adityab/CrossQ.
docs/algorithms/crossq.md pairs equations and functions.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from algos.algorithms.sac import SAC, Metrics
from algos.config import CrossQConfig
from algos.networks import CriticNetwork, Inputs, batch_statistics
from algos.replay.memory import Batch


class CrossQ(SAC):
    """Overrides the critics' forward pass and says which pass uses the statistics of its batch.

    Those are the joint pass of the critics and the actor's pass in its own loss. Every other pass, and acting, uses the
    running statistics.
    """

    config: CrossQConfig

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Takes the arguments of ``SAC``."""
        super().__init__(*args, **kwargs)
        self.acting.actor.eval()
        self.critic.ensemble.eval()

    def make_target_critic(self) -> CriticNetwork:
        """The critics themselves."""
        return self.critic

    def policy_evaluation(self, batch: Batch, inputs: Inputs, next_inputs: Inputs) -> tuple[Tensor, Tensor, Metrics]:
        """The critics' loss from one pass over (s, a) and (s', a') together (figure 2 of the paper).

        The layers then see statistics of both kinds of actions; the values of (s', a') are a target without gradient.
        """
        with torch.no_grad():
            next_action, next_log_prob = self.sample_action(self.acting.encoder(next_inputs))
        features, next_features = self.critic.encode(inputs), self.critic.encode(next_inputs)
        with batch_statistics(self.critic.ensemble):
            both = self.critic(torch.cat((features, next_features), dim=-2), torch.cat((batch.action, next_action)))
        q, next_q = both.chunk(2, dim=1)  # (N, 2 B) -> (N, B), (N, B)
        target = self.bootstrap(batch, next_q.detach(), next_log_prob)
        loss = (q - target).square().mean()
        return loss, features, self.critic_metrics(loss.detach(), q.detach(), target)

    def actor_loss(self, actor_features: Tensor, features: Tensor) -> tuple[Tensor, Tensor, Metrics]:
        """SAC's, with the statistics of the batch in the actor."""
        with batch_statistics(self.acting.actor):
            return super().actor_loss(actor_features, features)
