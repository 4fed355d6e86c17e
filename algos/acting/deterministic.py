"""The deterministic actor of a policy as one network, for a graph that runs elsewhere (``algos.export``).

A policy that can be exported has ``deterministic_actor()``, which gives one of these.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from torch import Tensor, nn

from algos.networks import ActingNetwork, RecurrentEncoder


class DeterministicActor(nn.Module):
    """From a batch of raw fields, and what is remembered, to the action and what is remembered then."""

    memory_size: int = 0
    """How many numbers it remembers from step to step; zeros when an episode begins."""

    def forward(self, observation: Mapping[str, Tensor], memory: Tensor) -> tuple[Tensor, Tensor]:
        """Chooses actions.

        Args:
            observation: Every visible field, shape (B, *field shape).
            memory: Shape (B, memory_size).

        Returns:
            The action in [-1, 1], shape (B, A), and the memory of the next step.
        """
        raise NotImplementedError


class SquashedMean(DeterministicActor):
    """tanh of the mean of the squashed Gaussian; remembers nothing."""

    def __init__(self, network: nn.Module) -> None:
        """Takes what maps a batch of observations to mean and log-std."""
        super().__init__()
        self.network = network

    def forward(self, observation: Mapping[str, Tensor], memory: Tensor) -> tuple[Tensor, Tensor]:
        """The action; the memory as it is."""
        mean, _ = self.network(observation)
        return mean.tanh(), memory


class RecurrentMean(DeterministicActor):
    """The same behind a memory."""

    def __init__(self, network: ActingNetwork) -> None:
        """Takes a network whose encoder remembers."""
        super().__init__()
        self.network = network
        self.memory_size = cast("RecurrentEncoder", network.encoder).state_size

    def forward(self, observation: Mapping[str, Tensor], memory: Tensor) -> tuple[Tensor, Tensor]:
        """The action and the state after the observation."""
        encoder = cast("RecurrentEncoder", self.network.encoder)
        features, after = encoder.step(self.network.inputs(observation), memory)
        mean, _ = self.network.actor(features)
        return mean.tanh(), after
