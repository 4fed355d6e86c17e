"""Soft Actor-Critic: the losses and the update, nothing else.

Paper: Haarnoja et al., "Soft Actor-Critic Algorithms and Applications", https://arxiv.org/abs/1812.05905.
Called by the learner with a batch of the replay memory. docs/algorithms/sac.md pairs equations, functions and metrics.
A sibling (REDQ, DroQ, TQC, CrossQ) derives from ``SAC`` and overrides what its paper changes: ``next_value``,
``policy_value``, ``critic_loss``, ``judge`` or ``make_networks``.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from algos.config import NetworkConfig, OffPolicyConfig, OptimizerKind, check_combination
from algos.networks import (
    CriticNetwork,
    Inputs,
    Networks,
    build_networks,
    copy_weights,
    draw_from,
    fast_matmul,
    random_shift,
    squashed_sample,
)
from algos.replay.memory import Batch
from tasks.experience.observation import ObservationSpec

Metrics = dict[str, Tensor]
DEFAULT_BETAS = (0.9, 0.999)
LAST_LEARNING_RATE = 0.1
"""Fraction of the learning rates that is left at the end of ``lr_decay_updates``."""


class SAC:
    """Owns the networks, their targets, their optimisers and the generator of the noise.

    Args:
        spec: Fields of the observation.
        config: Hyper-parameters.
        network: Shape of the networks.
        device: Where everything lives.
        seed: Seed of the initial weights and of the noise.
        dtype: float32, or float64 to compare with a derivation.

    Raises:
        ValueError: If the network does not go with the algorithm (``algos.config.combinations``).
    """

    def __init__(
        self,
        spec: ObservationSpec,
        config: OffPolicyConfig,
        network: NetworkConfig,
        device: torch.device,
        seed: int,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        check_combination(network, config)
        self.config = config
        self.network = network
        self.device = torch.device(device)
        self.num_updates = 0
        self._dtype = dtype
        self._generator = torch.Generator(self.device).manual_seed(seed)
        self.acting, self.critic = self.make_networks(spec, seed)
        for module in (self.acting, self.critic):
            module.to(self.device)
        self.target_critic = self.make_target_critic()
        for critic in (self.critic, self.target_critic):
            draw_from(critic, self._generator)
        self._build_temperature(spec.action_size)
        self._build_optimizers()

    def update(self, batch: Batch) -> Metrics:
        """One update of critics, actor, temperature and targets, in the paper's order (algorithm 1).

        Args:
            batch: Transitions of the replay memory, on any device.

        Returns:
            Metrics as tensors on the device; nothing waits for the device.
        """
        self._decay_learning_rates()
        with fast_matmul():
            batch, inputs, next_inputs = self.prepare(batch)
            loss, features, metrics = self.judge(batch, inputs, next_inputs)
            self._descend("critic", loss)
            if self.num_updates % self.config.actor_period == 0:
                metrics |= self._update_policy(inputs, features.detach())
            self._update_targets()
        self.num_updates += 1
        return metrics

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

    def judge(self, batch: Batch, inputs: Inputs, next_inputs: Inputs) -> tuple[Tensor, Tensor, Metrics]:
        """The critics' loss on a batch, the features that they saw of its observations, and metrics."""
        features = self.critic.encode(inputs)
        loss, metrics = self.critic_loss(features, batch.action, self.target(batch, next_inputs))
        return loss, features, metrics

    @torch.no_grad()
    def target(self, batch: Batch, next_inputs: Inputs) -> Tensor:
        """Soft Bellman target of eq. 3, after n steps: R + gamma^n (1 - terminated) (Q'(s', a') - alpha log pi(a'|s')).

        The entropy of the n - 1 steps between is left out. Truncated is not terminated: it bootstraps.

        Returns:
            Shape (B,); (T, B) where ``next_value`` gives T atoms of a distribution.
        """
        features = self.acting.encoder(next_inputs)
        action, log_prob = self.sample_action(features)
        if self.network.target_encoder:
            features = self.target_critic.encode(next_inputs)
        return self.bootstrap(batch, self.target_critic(features, action), log_prob)

    def bootstrap(self, batch: Batch, next_q: Tensor, next_log_prob: Tensor) -> Tensor:
        """The target from the values of the next action, (N, B), and its log-density, (B,): the right side of eq. 3."""
        value = self.next_value(next_q) - self.alpha * next_log_prob
        return batch.reward + batch.discount * (1.0 - batch.terminated) * value

    def critic_loss(self, features: Tensor, action: Tensor, target: Tensor) -> tuple[Tensor, Metrics]:
        """Eq. 5: squared error to the target, mean over critics and batch."""
        q = self.critic(features, action)
        loss = (q - target).square().mean()
        return loss, self.critic_metrics(loss.detach(), q.detach(), target)

    def critic_metrics(self, loss: Tensor, q: Tensor, target: Tensor) -> Metrics:
        """What is logged of a critic update; nothing given has a gradient."""
        metrics = {"losses/critic": loss, "train/q_mean": q.mean()}
        if self.config.debug.extra_metrics:
            metrics |= _spread("train/q", q) | _spread("train/target", target)
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
        value = self.policy_value(self.critic(features, action))
        loss = (self.alpha * log_prob - value).mean()
        log_prob = log_prob.detach()
        metrics = {"losses/actor": loss.detach(), "train/entropy": -log_prob.mean(), "train/alpha": self.alpha}
        if self.config.debug.extra_metrics:
            metrics |= _spread("train/action", action.detach())
        return loss, log_prob, metrics

    def temperature_loss(self, log_prob: Tensor) -> tuple[Tensor, Metrics]:
        """Eq. 18 with log alpha in place of alpha: -log alpha (log pi(a|s) + target entropy).

        The gradient in log alpha is then independent of alpha, so that a small temperature can grow again.
        """
        loss = -(self.log_alpha * (log_prob + self.target_entropy)).mean()
        return loss, {"losses/temperature": loss.detach()}

    def next_value(self, q: Tensor) -> Tensor:
        """Value of the next action from the target critics' q (N, B) -> (B,): the smallest."""
        return q.amin(0)

    def policy_value(self, q: Tensor) -> Tensor:
        """Value of the policy's action from the critics' q (N, B) -> (B,): the smallest."""
        return q.amin(0)

    def sample_action(self, actor_features: Tensor) -> tuple[Tensor, Tensor]:
        """An action of the current policy, (B, A), and its log-density, (B,)."""
        mean, log_std = self.acting.actor(actor_features)
        noise = torch.randn(mean.shape, generator=self._generator, device=self.device, dtype=self._dtype)
        return squashed_sample(mean, log_std, noise)

    @property
    def alpha(self) -> Tensor:
        """The temperature, without gradient."""
        return self.log_alpha.detach().exp()

    def acting_weights(self) -> dict[str, np.ndarray]:
        """A copy of what acting needs: actor, its encoder, running statistics."""
        return {name: np.array(t.cpu().numpy(), order="C") for name, t in self.acting.state_dict().items()}

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on as if never interrupted; loads with ``weights_only=True``."""
        return {
            "acting": self.acting.state_dict(),
            "critic": self.critic.state_dict(),
            "target_critic": self.target_critic.state_dict(),
            "log_alpha": self.log_alpha.detach().clone(),
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self._optimizers.items()},
            "generator": self._generator.get_state(),
            "num_updates": self.num_updates,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Puts back what ``state_dict`` gave.

        Learning rates, betas, weight decay and a fixed temperature stay those of the present configuration, so that
        a resumed run may change them.
        """
        self.acting.load_state_dict(state["acting"])
        self.critic.load_state_dict(state["critic"])
        self.target_critic.load_state_dict(state["target_critic"])
        if self.config.learn_entropy_coef:
            with torch.no_grad():
                self.log_alpha.copy_(state["log_alpha"]).clamp_(*self._log_alpha_bounds)
        for name, optimizer in self._optimizers.items():
            if name in state["optimizers"]:
                _load_moments(optimizer, state["optimizers"][name])
        self._generator.set_state(state["generator"].cpu())
        self.num_updates = int(state["num_updates"])

    def load_acting_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        """Starts from a trained policy with fresh critics (fine-tuning)."""
        copy_weights(self.acting, weights)
        self.target_critic.load_state_dict(self.critic.state_dict())

    def _update_policy(self, inputs: Inputs, features: Tensor) -> Metrics:
        if self.critic.is_separate:  # TMRL: the critics' encoders have just changed, and the actor has its own
            with torch.no_grad():
                features = self.critic.encode(inputs)
            actor_features = self.acting.encoder(inputs)
        else:  # as in DrQ-v2, the shared features of the critic update serve the actor too
            actor_features = features
        loss, log_prob, metrics = self.actor_loss(actor_features, features)
        self._descend("actor", loss)
        if self.config.learn_entropy_coef:
            temperature_loss, more = self.temperature_loss(log_prob)
            self._descend("temperature", temperature_loss)
            with torch.no_grad():
                self.log_alpha.clamp_(*self._log_alpha_bounds)
            metrics |= more
        return metrics

    @torch.no_grad()
    def _update_targets(self) -> None:
        """Polyak average of all critic parameters, the encoder's included."""
        if self.config.target_polyak is not None:
            weight = 1.0 - self.config.target_polyak
            torch._foreach_lerp_(self._target_parameters, self._parameters["critic"], weight)

    def _descend(self, name: str, loss: Tensor) -> None:
        """A gradient step on the parameters of one optimiser; no other gradient is computed."""
        parameters = self._parameters[name]
        for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            parameter.grad = gradient
        self._optimizers[name].step()

    def _decay_learning_rates(self) -> None:
        """Sets the rates of actor and critic for this update; they depend on ``num_updates`` alone."""
        config = self.config
        if config.lr_decay_updates == 0:
            return
        done = min(1.0, self.num_updates / config.lr_decay_updates)
        fraction = 1.0 - (1.0 - LAST_LEARNING_RATE) * done
        for name, rate in (("critic", config.lr_critic), ("actor", config.lr_actor)):
            for group in self._optimizers[name].param_groups:
                group["lr"] = rate * fraction

    def _inputs(self, observation: Mapping[str, Tensor]) -> Inputs:
        pixels = self.network.random_shift
        shift = partial(random_shift, pixels=pixels, generator=self._generator) if pixels else None
        return self.critic.complete(self.acting.inputs(observation, shift), observation)

    def _to_device(self, batch: Batch) -> Batch:
        return Batch(
            {name: self._move(tensor) for name, tensor in batch.observation.items()},
            self._move(batch.action),
            self._move(batch.reward),
            self._move(batch.discount),
            {name: self._move(tensor) for name, tensor in batch.next_observation.items()},
            self._move(batch.terminated),
        )

    def _move(self, tensor: Tensor) -> Tensor:
        """To the device; pixels stay bytes, everything else gets the type of the networks."""
        dtype = tensor.dtype if tensor.dtype == torch.uint8 else self._dtype
        return tensor.to(self.device, dtype, non_blocking=True)

    def _build_temperature(self, action_size: int) -> None:
        config = self.config
        start = math.log(config.alpha) if config.alpha > 0 else -math.inf
        self.log_alpha = torch.tensor(start, device=self.device, dtype=self._dtype)
        self.log_alpha.requires_grad_(config.learn_entropy_coef)
        self.target_entropy = -float(action_size) if config.target_entropy is None else config.target_entropy
        self._log_alpha_bounds = (math.log(config.alpha_min), math.log(config.alpha_max))

    def _build_optimizers(self) -> None:
        config = self.config
        actor: list[nn.Module] = [self.acting.actor] + ([self.acting.encoder] if self.critic.is_separate else [])
        self._parameters = {"critic": _parameters([self.critic]), "actor": _parameters(actor)}
        self._target_parameters = _parameters([self.target_critic])
        self._optimizers: dict[str, torch.optim.Optimizer] = {
            "critic": make_optimizer(
                config.optimizer_critic,
                self._parameters["critic"],
                config.lr_critic,
                config.betas_critic,
                config.l2_critic,
            ),
            "actor": make_optimizer(
                config.optimizer_actor, self._parameters["actor"], config.lr_actor, config.betas_actor, config.l2_actor
            ),
        }
        if config.learn_entropy_coef:
            self._parameters["temperature"] = [self.log_alpha]
            self._optimizers["temperature"] = make_optimizer(
                OptimizerKind.adam, [self.log_alpha], config.lr_entropy, config.betas_entropy, 0.0
            )


def make_optimizer(
    kind: OptimizerKind,
    parameters: Sequence[Tensor],
    learning_rate: float,
    betas: Sequence[float] | None,
    weight_decay: float,
) -> torch.optim.Optimizer:
    """Builds an optimiser in its fused form where there is one.

    Args:
        kind: Which optimiser.
        parameters: What it trains.
        learning_rate: Step size.
        betas: Averaging factors of adam and adamw; None: (0.9, 0.999).
        weight_decay: Added to the gradient, except adamw: decoupled from it.
    """
    first, second = betas or DEFAULT_BETAS
    if kind is OptimizerKind.sgd:
        return torch.optim.SGD(parameters, learning_rate, weight_decay=weight_decay, fused=True)
    if kind is OptimizerKind.rmsprop:
        return torch.optim.RMSprop(parameters, learning_rate, weight_decay=weight_decay, foreach=True)
    kinds = {OptimizerKind.adam: torch.optim.Adam, OptimizerKind.adamw: torch.optim.AdamW}
    return kinds[kind](parameters, learning_rate, betas=(first, second), weight_decay=weight_decay, fused=True)


def _load_moments(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Loads the running averages and keeps the hyper-parameters that the optimiser was built with."""
    built = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    optimizer.load_state_dict(dict(state))
    for group, values in zip(optimizer.param_groups, built, strict=True):
        group.update(values)


def _parameters(modules: Iterable[nn.Module]) -> list[Tensor]:
    return [parameter for module in modules for parameter in module.parameters()]


def _spread(name: str, values: Tensor) -> Metrics:
    return {f"{name}_std": values.std(), f"{name}_min": values.amin(), f"{name}_max": values.amax()}
