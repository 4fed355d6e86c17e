"""The base of the off-policy algorithms: critics, target networks, the temperature.

An algorithm derives from ``OffPolicyAlgorithm`` by way of ``algos.algorithms.sac.SAC``, which has the losses.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from algos.algorithms.base import ReplayAlgorithm, parameters_of
from algos.algorithms.optimizers import make_optimizer
from algos.algorithms.replay_device import chosen_replay_device
from algos.config import OffPolicyConfig, OptimizerKind
from algos.networks import (
    CriticNetwork,
    Inputs,
    Networks,
    build_estimator,
    build_networks,
    draw_from,
    squashed_sample,
)
from algos.replay.memory import Batch, ReplayMemory
from tasks.experience.observation import ObservationSpec


class OffPolicyAlgorithm(ReplayAlgorithm):
    """Owns critics, their targets and the temperature, beside what ``ReplayAlgorithm`` owns; built as that is."""

    losses = ("policy_evaluation", "estimation_loss", "actor_loss")
    config: OffPolicyConfig

    def build(self, spec: ObservationSpec, seed: int) -> None:
        """Actor and critics, targets, temperature."""
        self.acting, self.critic = self.make_networks(spec, seed)
        self.estimator = build_estimator(self.acting, self.critic, self.network, seed)
        for module in (self.acting, self.critic):
            module.to(self.device)
        if self.estimator is not None:
            self.estimator.to(self.device, self._dtype)
        self.target_critic = self.make_target_critic()
        for critic in (self.critic, self.target_critic):
            draw_from(critic, self._generator)
        self._build_temperature(spec.action_size)
        self._build_optimizers()

    def make_memory(self, spec: ObservationSpec, seed: int) -> ReplayMemory:
        """Builds the replay memory whose batches the algorithm learns from."""
        config = self.config
        return ReplayMemory(
            spec,
            config.memory_size,
            config.n_step,
            config.gamma,
            seed,
            check_samples=config.debug.check_samples,
            device=chosen_replay_device(config, spec, self.device),
        )

    def make_networks(self, spec: ObservationSpec, seed: int) -> Networks:
        """Builds actor and critics, on the CPU."""
        return build_networks(spec, self.network, self.config.ensemble_size, seed, self._dtype)

    def make_target_critic(self) -> CriticNetwork:
        """A copy of the critics that no optimiser trains."""
        return copy.deepcopy(self.critic).requires_grad_(False)

    def prepare(self, batch: Batch) -> tuple[Batch, Inputs, Inputs]:
        """The batch on the device, and what the networks see of its observations and of those that follow."""
        batch = self._to_device(batch)
        self.acting.inputs.observe(batch.observation)
        return batch, self._inputs(batch.observation), self._inputs(batch.next_observation)

    def sample_action(self, actor_features: Tensor) -> tuple[Tensor, Tensor]:
        """An action of the current policy, (B, A), and its log-density, (B,)."""
        mean, log_std = self.acting.actor(actor_features)
        noise = torch.randn(mean.shape, generator=self._generator, device=self.device, dtype=self._dtype)
        return squashed_sample(mean, log_std, noise)

    @property
    def alpha(self) -> Tensor:
        """The temperature, without gradient."""
        return self.log_alpha.detach().exp()

    @property
    def actor_period(self) -> int:
        """That of the configuration."""
        return self.config.actor_period

    def state_dict(self) -> dict[str, Any]:
        """What the base has, critics, targets, the estimate where there is one, and temperature."""
        return {
            **super().state_dict(),
            "critic": self.critic.state_dict(),
            "target_critic": self.target_critic.state_dict(),
            **({} if self.estimator is None else {"estimator": self.estimator.state_dict()}),
            "log_alpha": self.log_alpha.detach().clone(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Puts back what ``state_dict`` gave; a fixed temperature stays that of the present configuration."""
        self.critic.load_state_dict(state["critic"])
        self.target_critic.load_state_dict(state["target_critic"])
        if self.estimator is not None:
            self.estimator.load_state_dict(state.get("estimator", {}))
        if self.config.learn_entropy_coef:
            with torch.no_grad():
                self.log_alpha.copy_(state["log_alpha"]).clamp_(*self._log_alpha_bounds)
        super().load_state_dict(state)

    def load_acting_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        """Starts from a trained policy with fresh critics (fine-tuning)."""
        super().load_acting_weights(weights)
        self.target_critic.load_state_dict(self.critic.state_dict())

    @torch.no_grad()
    def update_targets(self) -> None:
        """Polyak average of all critic parameters, the encoder's included."""
        if self.config.target_polyak is not None:
            weight = 1.0 - self.config.target_polyak
            torch._foreach_lerp_(self._target_parameters, self._critic_parameters, weight)

    def _inputs(self, observation: Mapping[str, Tensor]) -> Inputs:
        return self.critic.complete(self.inputs_of(observation), observation)

    def _build_temperature(self, action_size: int) -> None:
        config = self.config
        start = math.log(config.alpha) if config.alpha > 0 else -math.inf
        self.log_alpha = torch.tensor(start, device=self.device, dtype=self._dtype)
        self.log_alpha.requires_grad_(config.learn_entropy_coef)
        self.target_entropy = -float(action_size) if config.target_entropy is None else config.target_entropy
        self._log_alpha_bounds = (math.log(config.alpha_min), math.log(config.alpha_max))

    def _build_optimizers(self) -> None:
        config = self.config
        self._critic_parameters = parameters_of([self.critic])
        self._target_parameters = parameters_of([self.target_critic])
        estimates = [] if self.estimator is None else [self.acting.encoder, self.estimator]
        self.add_optimizer("critic", [self.critic, *estimates])
        self.add_optimizer("actor", [self.acting.actor] + ([self.acting.encoder] if self.critic.is_separate else []))
        if config.learn_entropy_coef:
            self._optimizers["temperature"] = make_optimizer(
                OptimizerKind.adam, [self.log_alpha], config.lr_entropy, config.betas_entropy, 0.0
            )
