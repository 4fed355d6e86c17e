"""The interface of a policy: observation in, action out. Workers, evaluations and ``--benchmark`` use only this."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np


class ActingPolicy(Protocol):
    """What chooses the actions; ``algos.acting.policy.ActingPolicy`` is one."""

    def begin_episode(self) -> None:
        """Called after every reset of the environment: forgets what belongs to the previous episode."""
        ...

    def act(self, obs: Mapping[str, np.ndarray], deterministic: bool = False) -> np.ndarray:
        """Action for one dict observation, float32, shape (A,), each in [-1, 1]."""
        ...


class Policy(ActingPolicy, Protocol):
    """One whose weights arrive while it acts; built in the worker from a "module:function".

    A recurrent one also has ``recurrent_state``: what it remembers now, float32, shape (S,).
    """

    version: int
    """Version of the loaded weights; 0: none yet, the warm-up policy acts."""

    def load_weights(self, weights: Mapping[str, np.ndarray], version: int) -> None:
        """Acts with these weights from now on."""
        ...

    def state(self) -> dict[str, Any]:
        """Random generators and whatever else continues bit-identically; plain data, without the weights."""
        ...

    def load_state(self, state: Mapping[str, Any]) -> None:
        """The inverse of ``state``."""
        ...


class BatchPolicy(Policy, Protocol):
    """One that acts in many environments at once. A recurrent one also has ``recurrent_states``, shape (N, S)."""

    def explore_as(self, seeds: Sequence[int]) -> None:
        """Acts in so many environments from now on; in each it explores by itself, from its seed."""
        ...

    def begin_episodes(self, chosen: Sequence[int]) -> None:
        """``begin_episode`` of the chosen environments."""
        ...

    def act_batch(self, obs: Mapping[str, np.ndarray], deterministic: bool = False) -> np.ndarray:
        """``act`` in all: fields of shape (N, *field shape) to actions of shape (N, A)."""
        ...
