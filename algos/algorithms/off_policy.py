"""The base of the off-policy algorithms: networks, target networks, optimisers, the device, saving.

An algorithm derives from ``OffPolicyAlgorithm`` by way of ``algos.algorithms.sac.SAC``, which has the losses.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from algos.algorithms.optimizers import load_moments, make_optimizer, step
from algos.algorithms.replay_device import chosen_replay_device
from algos.algorithms.update_modes import CapturedUpdate, Steps, chosen_mode
from algos.config import NetworkConfig, OffPolicyConfig, OptimizerKind, UpdateMode, check_combination
from algos.networks import (
    CriticNetwork,
    Inputs,
    Networks,
    build_networks,
    chosen_precision,
    copy_weights,
    draw_from,
    random_shift,
    squashed_sample,
)
from algos.replay.memory import Batch, ReplayMemory
from tasks.experience.observation import ObservationSpec

LAST_LEARNING_RATE = 0.1
"""Fraction of the learning rates that is left at the end of ``lr_decay_updates``."""
LOSSES = ("policy_evaluation", "actor_loss")
"""Methods that ``update_mode=compile`` compiles, with their derivatives."""


class OffPolicyAlgorithm:
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
        self.precision = chosen_precision(config.precision, self.device)
        """float32 or bfloat16."""
        self.mode = chosen_mode(config.update_mode, self.device)
        """eager, compile or graph."""
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
        if self.mode is UpdateMode.compile:
            for name in LOSSES:
                setattr(self, name, torch.compile(getattr(self, name)))
        self._run = self._runner()

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

    def steps(self, batch: Batch, improves: bool) -> dict[str, Tensor]:
        """The part of an update that runs on the device: reads no tensor on the host, and gives metrics.

        Args:
            batch: Transitions of the replay memory, on any device.
            improves: Whether actor and temperature make a step, too.
        """
        raise NotImplementedError

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
                load_moments(optimizer, state["optimizers"][name])
        self._generator.set_state(state["generator"].cpu())
        self.num_updates = int(state["num_updates"])
        self._run = self._runner()

    def load_acting_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        """Starts from a trained policy with fresh critics (fine-tuning)."""
        copy_weights(self.acting, weights)
        self.target_critic.load_state_dict(self.critic.state_dict())

    def descend(self, name: str, loss: Tensor) -> None:
        """A gradient step on the parameters of one optimiser; no other gradient is computed."""
        parameters = self._parameters[name]
        with torch.autocast(self.device.type, enabled=False):  # every product again in the type that it had
            gradients = torch.autograd.grad(loss, parameters)
        step(self._optimizers[name], gradients)

    @torch.no_grad()
    def update_targets(self) -> None:
        """Polyak average of all critic parameters, the encoder's included."""
        if self.config.target_polyak is not None:
            weight = 1.0 - self.config.target_polyak
            torch._foreach_lerp_(self._target_parameters, self._parameters["critic"], weight)

    def decay_learning_rates(self) -> None:
        """Sets the rates of actor and critic for this update; they depend on ``num_updates`` alone."""
        config = self.config
        if config.lr_decay_updates == 0:
            return
        done = min(1.0, self.num_updates / config.lr_decay_updates)
        fraction = 1.0 - (1.0 - LAST_LEARNING_RATE) * done
        for name, rate in (("critic", config.lr_critic), ("actor", config.lr_actor)):
            for group in self._optimizers[name].param_groups:
                if isinstance(group["lr"], Tensor):
                    group["lr"].fill_(rate * fraction)
                else:
                    group["lr"] = rate * fraction

    def _runner(self) -> Steps:
        """What makes the steps; a graph knows the tensors of the optimisers, so it is another one when these change."""
        if self.mode is UpdateMode.graph:
            return CapturedUpdate(self.steps, self._to_device, self._generator)
        return self.steps

    def _inputs(self, observation: Mapping[str, Tensor]) -> Inputs:
        pixels = self.network.random_shift
        shift = partial(random_shift, pixels=pixels, generator=self._generator) if pixels else None
        return self.critic.complete(self.acting.inputs(observation, shift), observation)

    def _to_device(self, batch: Batch) -> Batch:
        return Batch(*(self._on_device(part) for part in batch))

    def _on_device(self, part: Tensor | Mapping[str, Tensor]) -> Any:
        """To the device; pixels stay bytes, everything else gets the type of the networks."""
        if isinstance(part, Mapping):
            return {name: self._on_device(values) for name, values in part.items()}
        dtype = part.dtype if part.dtype == torch.uint8 else self._dtype
        return part.to(self.device, dtype, non_blocking=True)

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
        critics, actors = _parameters([self.critic]), _parameters(actor)
        self._parameters = {"critic": critics, "actor": actors}
        self._target_parameters = _parameters([self.target_critic])
        self._optimizers: dict[str, torch.optim.Optimizer] = {
            "critic": make_optimizer(
                config.optimizer_critic, critics, self._rate(config.lr_critic), config.betas_critic, config.l2_critic
            ),
            "actor": make_optimizer(
                config.optimizer_actor, actors, self._rate(config.lr_actor), config.betas_actor, config.l2_actor
            ),
        }
        if config.learn_entropy_coef:
            self._optimizers["temperature"] = make_optimizer(
                OptimizerKind.adam, [self.log_alpha], config.lr_entropy, config.betas_entropy, 0.0
            )

    def _rate(self, rate: float) -> float | Tensor:
        """A learning rate as the optimiser takes it; a graph reads the one that changes from a tensor."""
        return torch.tensor(rate, device=self.device) if self.mode is UpdateMode.graph else rate


def _parameters(modules: Iterable[nn.Module]) -> list[Tensor]:
    return [parameter for module in modules for parameter in module.parameters()]
