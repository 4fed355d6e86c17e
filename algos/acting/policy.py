"""Acting: observation in, action out, with weights that arrive as plain arrays. Used by workers and by players.

Holds the actor and, where there is one, its encoder; never a critic, an optimiser or a replay memory. A worker gets
``make_acting_policy`` as a "module:function" with plain keyword arguments.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from algos.acting.deterministic import DeterministicActor, SquashedMean
from algos.acting.exploration import Explorer
from algos.config import NetworkConfig, WarmUp, network_from_plain
from algos.networks import ActingNetwork, copy_weights
from tasks.experience.observation import ObservationSpec
from tasks.words.nested import Plain
from tasks.words.references import resolve


def build_policy(policy: Plain, seed: int) -> Any:
    """Builds an acting policy from ``{"function": "module:function", "kwargs": {...}}``.

    Args:
        policy: What builds it, and with what.
        seed: Seed of its exploration.
    """
    return resolve(policy["function"], "policy.function")(**policy["kwargs"], seed=seed)


def make_acting_policy(
    spec: Plain,
    network: Plain,
    seed: int,
    warm_up: str = "driving",
    device: str = "cpu",
    policy_type: type[ActingPolicy] | None = None,
    held_pedals: float = 0.0,
) -> ActingPolicy:
    """Builds an ActingPolicy from plain data.

    Args:
        spec: ``ObservationSpec.to_json()``.
        network: A NetworkConfig as plain data, enums by member name.
        seed: Seed of the exploration.
        warm_up: Name of the WarmUp that acts until weights are loaded.
        device: torch device of the forward pass.
        policy_type: What a plugin derived from ActingPolicy; None: ActingPolicy.
        held_pedals: Probability per step that an exploring policy holds pedals drawn at random.
    """
    policy_type = ActingPolicy if policy_type is None else policy_type
    config = network_from_plain(network, policy_type.network_type)
    policy = policy_type(ObservationSpec.from_json(spec), config, seed, warm_up_named(warm_up), torch.device(device))
    if held_pedals:
        policy.hold_pedals(held_pedals, seed)
    return policy


def warm_up_named(name: str) -> WarmUp:
    """The WarmUp of that name.

    Raises:
        ValueError: If there is none.
    """
    names = [kind.name for kind in WarmUp]
    if name not in names:
        raise ValueError(f"warm_up must be one of {names}, got {name!r}")
    return WarmUp[name]


class ActingPolicy:
    """Acts with the warm-up policy until weights are loaded, then with the squashed Gaussian actor.

    It acts in one environment, or in as many as ``explore_as`` names, all in one forward pass.

    Args:
        spec: Fields of the observation; privileged ones are left out.
        config: Shape of the networks; must be the learner's.
        seed: Seed of the exploration; the same seed and weights give the same actions.
        warm_up: What acts until weights are loaded.
        device: Where the forward pass runs.
    """

    network_type: type[NetworkConfig] = NetworkConfig

    def __init__(
        self, spec: ObservationSpec, config: NetworkConfig, seed: int, warm_up: WarmUp, device: torch.device
    ) -> None:
        self.version = 0
        """Version of the weights that act; 0: the warm-up policy."""
        self._device = device
        self._action_size = spec.action_size
        self._names = spec.visible.names
        self._warm_up, self._held_pedals = warm_up, 0.0
        self.explore_as([seed])
        with torch.random.fork_rng(devices=[]):
            self.network = self.make_network(spec, config).to(device).eval().requires_grad_(False)
            """From a batch of observations to mean and log-std of a Gaussian before the tanh, (N, A) each."""
        self._has_weights = False

    def make_network(self, spec: ObservationSpec, config: NetworkConfig) -> nn.Module:
        """What acts: ``Networks.acting`` of the learner, from a batch of observations to mean and log-std."""
        return ActingNetwork(spec, config)

    def explore_as(self, seeds: Sequence[int]) -> None:
        """Acts in so many environments from now on; in each it explores by itself, from its seed."""
        self._explorers = [Explorer(self._warm_up, self._action_size, seed, self._held_pedals) for seed in seeds]

    def hold_pedals(self, rate: float, seed: int) -> None:
        """Holds pedals drawn at random now and then while it explores, as ``HeldPedals``; acts in one environment."""
        self._held_pedals = rate
        self.explore_as([seed])

    def act(self, obs: Mapping[str, np.ndarray], deterministic: bool = False) -> np.ndarray:
        """Chooses an action for one observation.

        Args:
            obs: The named fields, unbatched and unscaled.
            deterministic: tanh of the mean instead of a sample; without weights still the warm-up policy.

        Returns:
            The action in [-1, 1], shape (A,), float32.
        """
        action: np.ndarray = self.act_batch({name: obs[name][None] for name in self._names}, deterministic)[0]
        return action

    def act_batch(self, obs: Mapping[str, np.ndarray], deterministic: bool = False) -> np.ndarray:
        """``act`` in all environments: fields of shape (N, *field shape) to actions of shape (N, A)."""
        if not self._has_weights:
            return np.stack([explorer.warm_up.act() for explorer in self._explorers])
        mean, log_std = self._forward(obs)
        if deterministic:
            return np.tanh(mean)
        actions = np.tanh(mean + np.exp(log_std) * self._noise())
        for explorer, action in zip(self._explorers, actions, strict=True):
            explorer.pedals.press(action)
        return actions

    def deterministic_actor(self) -> DeterministicActor:
        """What ``act`` does with ``deterministic``, as one network that shares the weights."""
        return SquashedMean(self.network)

    def weights(self) -> dict[str, np.ndarray]:
        """A copy of the weights, as ``load_weights`` takes them; random ones before it was called."""
        return {name: tensor.cpu().numpy().copy() for name, tensor in self.network.state_dict().items()}

    def load_weights(self, weights: Mapping[str, np.ndarray], version: int) -> None:
        """Copies the weights in, all or none.

        Args:
            weights: ``SAC.acting_weights()``.
            version: What ``version`` shows from now on; must be at least 1.
        """
        if version < 1:
            raise ValueError(f"version must be >= 1 (0 is the warm-up policy), got {version}")
        copy_weights(self.network, weights)
        self._has_weights = True
        self.version = version

    def begin_episode(self) -> None:
        """Called after every reset of the environment."""
        self.begin_episodes([0])

    def begin_episodes(self, chosen: Sequence[int]) -> None:
        """``begin_episode`` of the chosen environments."""
        for index in chosen:
            self._explorers[index].begin_episode()

    def state(self) -> dict[str, Any]:
        """Everything but the weights that decides the next actions in the first environment, as plain data."""
        return self._explorers[0].state()

    def load_state(self, state: Plain) -> None:
        """Puts back what ``state`` gave."""
        self._explorers[0].load_state(state)

    def _noise(self) -> np.ndarray:
        """What is added to the means, in units of the standard deviations, shape (N, A)."""
        return np.stack([explorer.noise() for explorer in self._explorers])

    @torch.inference_mode()
    def _forward(self, obs: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        mean, log_std = self._distribution({name: _tensor(obs[name]).to(self._device) for name in self._names})
        return mean.cpu().numpy(), log_std.cpu().numpy()

    def _distribution(self, batch: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and log-std of a batch of observations, (N, A) each."""
        return self.network(batch)


def _tensor(array: np.ndarray) -> torch.Tensor:
    """A tensor over the array, or over a copy where torch cannot use the array itself."""
    array = np.asarray(array)
    is_plain = array.flags.writeable and array.flags.c_contiguous
    return torch.from_numpy(array if is_plain else np.array(array, order="C"))
