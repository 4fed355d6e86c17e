"""DAgger: the policy learns to act as a teacher would, on what it meets when it drives by itself.

Paper: Ross, Gordon and Bagnell, "A Reduction of Imitation Learning and Structured Prediction to No-Regret Online
Learning", AISTATS 2011, https://arxiv.org/abs/1011.0686, algorithm 3.1 with beta_1 = 0. A teacher that sees more than
the policy: Chen et al., "Learning by Cheating", CoRL 2019, https://arxiv.org/abs/1912.12294. The loss is that of policy
distillation: Rusu et al., https://arxiv.org/abs/1511.06295, eq. 3, for Gaussians. docs/algorithms/dagger.md pairs
equations and functions.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from algos.algorithms.base import ReplayAlgorithm
from algos.algorithms.replay_device import chosen_replay_device
from algos.config import DAggerConfig
from algos.networks import ActingNetwork, Inputs
from algos.replay.memory import Batch, ReplayMemory
from tasks.experience.observation import ObservationSpec

LEAST_LOG_STD = -3.0
"""A teacher that is surer than this counts as this sure: where the squashing saturates, its exact mean says nothing."""
Metrics = dict[str, Tensor]


class DAgger(ReplayAlgorithm):
    """Supervised learning of the teacher's distribution; built as ``ReplayAlgorithm`` is, then ``follow`` a teacher."""

    losses = ("imitation_loss",)
    config: DAggerConfig

    def build(self, spec: ObservationSpec, seed: int) -> None:
        """The acting network alone."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.acting = ActingNetwork(spec, self.network, self._dtype)
        trained = [self.acting.actor, self.acting.encoder]
        for module in trained:
            module.to(self._dtype)
        self.acting.to(self.device)
        self.add_optimizer("actor", trained)

    def follow(self, teacher: nn.Module) -> None:
        """Imitates this policy from now on.

        Args:
            teacher: From a batch of observations to mean and log-std of a Gaussian before the tanh, (B, A) each.
        """
        self._teacher = teacher.to(self.device).eval().requires_grad_(False)

    def make_memory(self, spec: ObservationSpec, seed: int) -> ReplayMemory:
        """Builds the replay memory: the aggregated data set of the paper, its oldest rows dropped when it is full."""
        config = self.config
        return ReplayMemory(
            spec,
            config.memory_size,
            n_step=1,
            gamma=1.0,
            seed=seed,
            check_samples=config.debug.check_samples,
            device=chosen_replay_device(config, spec, self.device),
        )

    def steps(self, batch: Batch, improves: bool) -> Metrics:
        """A step of the policy towards the teacher."""
        del improves  # every update does
        observation = self._to_device(batch._replace(next_observation={})).observation
        self.acting.inputs.observe(observation)
        with torch.no_grad():
            mean, log_std = self._teacher(observation)
        loss, metrics = self.imitation_loss(self.inputs_of(observation), mean, log_std)
        self.descend("actor", loss)
        return metrics

    def imitation_loss(self, inputs: Inputs, teacher_mean: Tensor, teacher_log_std: Tensor) -> tuple[Tensor, Metrics]:
        """KL(teacher, policy) of the Gaussians before the tanh, summed over actions, mean over the batch.

        The tanh is the same for both, so this is the divergence of the squashed distributions too.

        Args:
            inputs: What the policy sees.
            teacher_mean: The teacher's mean, shape (B, A).
            teacher_log_std: Its log-std, shape (B, A).

        Returns:
            The loss, and metrics without gradient.
        """
        mean, log_std = self.acting.actor(self.acting.encoder(inputs))
        floored = teacher_log_std.clamp(min=LEAST_LOG_STD)
        apart = (2.0 * floored).exp() + (teacher_mean - mean).square()
        divergence = log_std - floored + 0.5 * apart * (-2.0 * log_std).exp() - 0.5
        loss = divergence.sum(-1).mean()
        difference = (teacher_mean.tanh() - mean.detach().tanh()).abs().mean()
        return loss, {"losses/actor": loss.detach(), "train/action_difference": difference}
