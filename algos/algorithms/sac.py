"""Soft Actor-Critic: the losses and the update, nothing else.

Paper: Haarnoja et al., "Soft Actor-Critic Algorithms and Applications", https://arxiv.org/abs/1812.05905.
Called by the learner with a batch of the replay memory. docs/algorithms/sac.md pairs equations, functions and metrics.
Networks, optimisers, devices and what is saved: ``algos.algorithms.off_policy``.

A variant (REDQ, DroQ, TQC, CrossQ, RSAC) derives from ``SAC`` and overrides what its paper changes: ``next_value``,
``policy_value``, ``critic_loss``, ``policy_evaluation``, ``make_networks`` or ``make_memory``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from algos.algorithms.off_policy import OffPolicyAlgorithm
from algos.algorithms.optimizers import step
from algos.networks import Inputs, frozen, in_full
from algos.replay.memory import Batch

LEAST_VARIANCE = 1e-6
"""Of the errors of an estimate: below a thousandth of the field's scale, no number becomes more important."""
Metrics = dict[str, Tensor]


class SAC(OffPolicyAlgorithm):
    """Algorithm 1 of the paper; built as ``OffPolicyAlgorithm`` is."""

    def steps(self, batch: Batch, improves: bool) -> Metrics:
        """Critics, then actor and temperature where ``improves``, then targets: the order of algorithm 1."""
        batch, inputs, next_inputs = self.prepare(batch)
        loss, features, metrics = self.policy_evaluation(batch, inputs, next_inputs)
        actor_features = features  # shared: as in DrQ-v2, those of the critic update serve the actor too
        if self.estimator is not None:
            error, actor_features = self.estimation_loss(inputs)
            loss, metrics = loss + error, metrics | {"losses/estimation": error.detach()}
        elif self.network.asymmetric_critic:
            actor_features = self.acting.encoder(inputs)
        self.descend("critic", loss)
        if improves:
            metrics |= self.policy_improvement(inputs, features.detach(), actor_features.detach())
        self.update_targets()
        return metrics

    def policy_evaluation(self, batch: Batch, inputs: Inputs, next_inputs: Inputs) -> tuple[Tensor, Tensor, Metrics]:
        """The critics' loss on a batch, the features that they saw of its observations, and metrics."""
        features = self.critic.encode(inputs)
        loss, metrics = self.critic_loss(features, batch.action, self.target(batch, next_inputs))
        return loss, features, metrics

    @torch.no_grad()
    def target(self, batch: Batch, next_inputs: Inputs) -> Tensor:
        """The right side of eq. 3 for the policy's next action a' and the target critics Q'.

        Returns:
            Shape (B,); (T, B) where ``next_value`` gives T atoms of a distribution.
        """
        features = self.acting.encoder(next_inputs)
        next_action, next_log_prob = self.sample_action(features)
        if self.network.target_encoder:
            features = self.target_critic.encode(next_inputs)
        return self.bootstrap(batch, self.target_critic(features, next_action), next_log_prob)

    def bootstrap(self, batch: Batch, next_q: Tensor, next_log_prob: Tensor) -> Tensor:
        """Eq. 3 after n steps: R + gamma^n (1 - terminated) (Q'(s', a') - alpha log pi(a'|s')).

        The entropy of the n - 1 steps between is left out. Truncated is not terminated: it bootstraps.

        Args:
            batch: R, gamma^n and terminated, (B,) each.
            next_q: Values of the next action, (N, B).
            next_log_prob: Its log-density, (B,).
        """
        next_value = self.next_value(next_q) - self.alpha * next_log_prob
        return batch.reward + batch.discount * (1.0 - batch.terminated) * next_value

    def next_value(self, q: Tensor) -> Tensor:
        """Value of the next action from the target critics' q (N, B) -> (B,): the smallest."""
        return q.amin(0)

    def critic_loss(self, features: Tensor, action: Tensor, target: Tensor) -> tuple[Tensor, Metrics]:
        """Eq. 5: squared error to the target, mean over critics and batch."""
        q = self.critic(features, action)
        loss = (q - target).square().mean()
        return loss, self.critic_metrics(loss.detach(), q.detach(), target)

    def estimation_loss(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """What the actor's encoder learns beside an asymmetric critic: to show what only the critics are told.

        An auxiliary loss as in Mirowski et al., "Learning to Navigate in Complex Environments",
        https://arxiv.org/abs/1611.03673, which predicts the depth of an image. Nothing else trains the encoder. It is
        the negative log-likelihood of a Gaussian whose variance, one for each number, is that of the errors in the
        batch: so what an image cannot show, such as the road behind the next corner, does not outweigh what it shows.

        Args:
            inputs: What the networks see of the observations, with the scaled privileged fields.

        Returns:
            Half the log of the mean squared error over the batch, mean over the P numbers; what the actor sees, (B, F).
        """
        assert self.estimator is not None
        assert inputs.privileged is not None
        actor_features = self.acting.encoder(inputs)
        error = (in_full(self.estimator, actor_features) - inputs.privileged).square().mean(0)
        return 0.5 * (error + LEAST_VARIANCE).log().mean(), actor_features

    def policy_improvement(self, inputs: Inputs, features: Tensor, actor_features: Tensor) -> Metrics:
        """A step of the actor and of the temperature.

        Args:
            inputs: What the networks see of the observations.
            features: What the critics saw of them in their update; no gradient.
            actor_features: What the actor saw of them there; no gradient.
        """
        if self.critic.is_separate:  # TMRL: the critics' encoders have just changed, and the actor has its own
            with torch.no_grad():
                features = self.critic.encode(inputs)
            actor_features = self.acting.encoder(inputs)
        loss, log_prob, metrics = self.actor_loss(actor_features, features)
        self.descend("actor", loss)
        if self.config.learn_entropy_coef:
            metrics |= self.adapt_temperature(log_prob)
        return metrics

    def actor_loss(self, actor_features: Tensor, features: Tensor) -> tuple[Tensor, Tensor, Metrics]:
        """Eq. 7: alpha log pi(a|s) - Q(s, a) for a reparameterised action.

        Args:
            actor_features: What the actor sees, shape (B, F).
            features: What the critics see, shape (B, F) or (N, B, F); no gradient.

        Returns:
            The loss, log pi(a|s) of shape (B,) without gradient, metrics.
        """
        action, log_prob = self.sample_action(actor_features)
        with frozen(self._parameters["critic"]):
            value = self.policy_value(self.critic(features, action))
        loss = (self.alpha * log_prob - value).mean()
        log_prob = log_prob.detach()
        metrics = {"losses/actor": loss.detach(), "train/entropy": -log_prob.mean(), "train/alpha": self.alpha}
        if self.config.debug.extra_metrics:
            metrics |= _spread("train/action", action.detach())
        return loss, log_prob, metrics

    def policy_value(self, q: Tensor) -> Tensor:
        """Value of the policy's action from the critics' q (N, B) -> (B,): the smallest."""
        return q.amin(0)

    @torch.no_grad()
    def adapt_temperature(self, log_prob: Tensor) -> Metrics:
        """A step on eq. 18 with log alpha in place of alpha: -log alpha (log pi(a|s) + target entropy), mean over (B,).

        The gradient in log alpha is then independent of alpha, so that a small temperature can grow again.
        """
        gradient = -(log_prob.mean() + self.target_entropy)
        loss = self.log_alpha * gradient
        step(self._optimizers["temperature"], [gradient])
        self.log_alpha.clamp_(*self._log_alpha_bounds)
        return {"losses/temperature": loss}

    def critic_metrics(self, loss: Tensor, q: Tensor, target: Tensor) -> Metrics:
        """What is logged of a critic update; nothing given has a gradient."""
        metrics = {"losses/critic": loss, "train/q_mean": q.mean()}
        if self.config.debug.extra_metrics:
            metrics |= _spread("train/q", q) | _spread("train/target", target)
        return metrics


def _spread(name: str, values: Tensor) -> Metrics:
    return {f"{name}_std": values.std(), f"{name}_min": values.amin(), f"{name}_max": values.amax()}
