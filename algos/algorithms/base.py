"""The base of what learns from a replay memory: device, precision, optimisers, the acting network, saving.

``algos.algorithms.off_policy`` adds critics; ``algos.algorithms.dagger`` has none.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from algos.algorithms.optimizers import load_moments, make_optimizer, step
from algos.algorithms.update_modes import CapturedUpdate, Steps, chosen_mode
from algos.config import NetworkConfig, ReplayLearnerConfig, UpdateMode, check_combination
from algos.networks import ActingNetwork, Inputs, chosen_precision, copy_weights, products, random_shift
from algos.replay.memory import Batch, ReplayMemory
from tasks.experience.observation import ObservationSpec

logger = logging.getLogger(__name__)

LAST_LEARNING_RATE = 0.1
"""Fraction of the learning rates that is left at the end of ``lr_decay_updates``."""


class ReplayAlgorithm:
    """Owns the acting network, the optimisers and the generator of the noise.

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

    losses: ClassVar[tuple[str, ...]]
    """Methods that ``update_mode=compile`` compiles, with their derivatives."""
    acting: ActingNetwork

    def __init__(
        self,
        spec: ObservationSpec,
        config: ReplayLearnerConfig,
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
        self._optimizers: dict[str, torch.optim.Optimizer] = {}
        self._parameters: dict[str, list[Tensor]] = {}
        self.build(spec, seed)
        if self.mode is UpdateMode.compile:
            for name in self.losses:
                setattr(self, name, torch.compile(getattr(self, name)))
        self._run = self._runner()

    def build(self, spec: ObservationSpec, seed: int) -> None:
        """Makes the networks, ``acting`` among them, and their optimisers."""
        raise NotImplementedError

    def steps(self, batch: Batch, improves: bool) -> dict[str, Tensor]:
        """The part of an update that runs on the device: reads no tensor on the host, and gives metrics.

        Args:
            batch: Transitions of the replay memory, on any device.
            improves: Whether the actor makes a step, too.
        """
        raise NotImplementedError

    @property
    def actor_period(self) -> int:
        """Updates per step of the actor."""
        return 1

    def make_memory(self, spec: ObservationSpec, seed: int) -> ReplayMemory:
        """Builds the replay memory whose batches the algorithm learns from."""
        raise NotImplementedError

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One update.

        Args:
            batch: Transitions of the replay memory, on any device.

        Returns:
            Metrics as tensors on the device, which are good until the next update; nothing waits for the device.
        """
        self.decay_learning_rates()
        with products(self.precision, self.device):
            metrics = self._run(batch, self.num_updates % self.actor_period == 0)
        self.num_updates += 1
        return metrics

    def acting_weights(self) -> dict[str, np.ndarray]:
        """A copy of what acting needs: actor, its encoder, running statistics."""
        return {name: np.array(t.cpu().numpy(), order="C") for name, t in self.acting.state_dict().items()}

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on as if never interrupted; loads with ``weights_only=True``."""
        return {
            "acting": self.acting.state_dict(),
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self._optimizers.items()},
            "generator": self._generator.get_state(),
            "num_updates": self.num_updates,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Puts back what ``state_dict`` gave.

        Optimisers, learning rates, betas, weight decay and a fixed temperature stay those of the present configuration,
        so that a resumed run may change them.
        """
        self.acting.load_state_dict(state["acting"])
        for name, optimizer in self._optimizers.items():
            if name in state["optimizers"] and not load_moments(optimizer, state["optimizers"][name]):
                key = f"train.params.config.optimizer_{name}"
                logger.warning("%s differs from the checkpoint: the running averages of this optimiser begin anew", key)
        self._generator.set_state(state["generator"].cpu())
        self.num_updates = int(state["num_updates"])
        self._run = self._runner()

    def load_acting_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        """Starts from a trained policy."""
        copy_weights(self.acting, weights)

    def descend(self, name: str, loss: Tensor) -> None:
        """A gradient step on the parameters of one optimiser; no other gradient is computed."""
        parameters = self._parameters[name]
        with torch.autocast(self.device.type, enabled=False):  # every product again in the type that it had
            gradients = torch.autograd.grad(loss, parameters)
        step(self._optimizers[name], gradients)

    def decay_learning_rates(self) -> None:
        """Sets the learning rates for this update; they depend on ``num_updates`` alone."""
        config, num_decaying = self.config, self.config.lr_decay_updates
        if num_decaying == 0:
            return
        assert isinstance(num_decaying, int)  # ReplayLearnerConfig.over
        done = min(1.0, self.num_updates / num_decaying)
        fraction = 1.0 - (1.0 - LAST_LEARNING_RATE) * done
        for name in self._parameters:
            rate = getattr(config, f"lr_{name}")
            for group in self._optimizers[name].param_groups:
                if isinstance(group["lr"], Tensor):
                    group["lr"].fill_(rate * fraction)
                else:
                    group["lr"] = rate * fraction

    def add_optimizer(self, name: str, modules: Iterable[nn.Module]) -> None:
        """Gives some modules one optimiser, with the keys of the configuration that end in its name.

        Args:
            name: ``actor`` or ``critic``.
            modules: What it trains.
        """
        kind, rate, betas, decay = (getattr(self.config, f"{key}_{name}") for key in ("optimizer", "lr", "betas", "l2"))
        parameters = self._parameters[name] = parameters_of(modules)
        self._optimizers[name] = make_optimizer(kind, parameters, self._rate(rate), betas, decay)

    def inputs_of(self, observation: Mapping[str, Tensor]) -> Inputs:
        """What the acting network sees of a batch on the device, its images shifted where that is wanted."""
        pixels = self.network.random_shift
        shift = partial(random_shift, pixels=pixels, generator=self._generator) if pixels else None
        return self.acting.inputs(observation, shift)

    def _runner(self) -> Steps:
        """What makes the steps; a graph knows the tensors of the optimisers, so it is another one when these change."""
        if self.mode is UpdateMode.graph:
            return CapturedUpdate(self.steps, self._to_device, self._generator)
        return self.steps

    def _to_device(self, batch: Batch) -> Batch:
        return Batch(*(self._on_device(part) for part in batch))

    def _on_device(self, part: Tensor | Mapping[str, Tensor]) -> Any:
        """To the device; pixels stay bytes, everything else gets the type of the networks."""
        if isinstance(part, Mapping):
            return {name: self._on_device(values) for name, values in part.items()}
        dtype = part.dtype if part.dtype == torch.uint8 else self._dtype
        return part.to(self.device, dtype, non_blocking=True)

    def _rate(self, rate: float) -> float | Tensor:
        """A learning rate as the optimiser takes it; a graph reads the one that changes from a tensor."""
        return torch.tensor(rate, device=self.device) if self.mode is UpdateMode.graph else rate


def parameters_of(modules: Iterable[nn.Module]) -> list[Tensor]:
    """All parameters, one module after the other."""
    return [parameter for module in modules for parameter in module.parameters()]
