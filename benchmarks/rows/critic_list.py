"""N critics as a plain Python list with N optimisers, as TMRL's and the authors' REDQ have them: the peer of ours."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor, nn

from algos.algorithms.sac import SAC
from algos.config import EncoderKind, REDQConfig
from algos.replay.memory import Batch
from benchmarks.rows.updates import LIDAR, Update, filled_memory, our_agent
from tasks.experience.observation import ObservationSpec


class CriticList:
    """Updates of the critics alone: targets, N losses, N steps, N averages.

    Args:
        spec: Fields of the observation.
        config: N, M, rates and so on.
        actor: Whose policy is evaluated; the same network as ours has.
    """

    def __init__(self, spec: ObservationSpec, config: REDQConfig, actor: SAC) -> None:
        size = sum(field.size for field in spec.all_fields()) + spec.action_size
        self._config = config
        self._actor = actor
        self._rng = np.random.default_rng(0)
        self.critics = [_critic(size) for _ in range(config.redq_n)]
        self.targets = [copy.deepcopy(critic).requires_grad_(False) for critic in self.critics]
        self._optimizers = [torch.optim.Adam(critic.parameters(), config.lr_critic) for critic in self.critics]

    def update(self, batch: Batch) -> Tensor:
        """One update of all critics and their targets; the loss."""
        inputs = self._actor.acting.inputs(batch.observation).vector
        target = self._target(batch)
        seen = torch.cat((inputs, batch.action), 1)
        loss = torch.stack([(critic(seen).squeeze(1) - target).square().mean() for critic in self.critics]).sum()
        for optimizer in self._optimizers:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in self._optimizers:
            optimizer.step()
        self._average()
        return loss.detach()

    @torch.no_grad()
    def _target(self, batch: Batch) -> Tensor:
        inputs = self._actor.acting.inputs(batch.next_observation)
        action, log_prob = self._actor.sample_action(self._actor.acting.encoder(inputs))
        seen = torch.cat((inputs.vector, action), 1)
        drawn = self._rng.choice(len(self.targets), self._config.redq_m, replace=False)
        value = torch.cat([self.targets[index](seen) for index in drawn], 1).amin(1)
        bootstrap = batch.discount * (1 - batch.terminated)
        return batch.reward + bootstrap * (value - self._actor.alpha * log_prob)

    @torch.no_grad()
    def _average(self) -> None:
        for critic, target in zip(self.critics, self.targets, strict=True):
            for new, old in zip(critic.parameters(), target.parameters(), strict=True):
                old.mul_(self._config.polyak).add_((1 - self._config.polyak) * new)


def critic_list_update(config: REDQConfig) -> Update:
    """One sampled update of the critics, LIDAR."""
    memory = filled_memory(LIDAR, config.n_step, config.gamma)
    critics = CriticList(LIDAR, config, our_agent(LIDAR, EncoderKind.mlp, config))
    return lambda: critics.update(memory.sample(config.batch_size))


def _critic(size: int) -> nn.Module:
    return nn.Sequential(nn.Linear(size, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 1))
