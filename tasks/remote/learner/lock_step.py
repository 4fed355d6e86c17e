"""Environments in worker processes, stepped together with the learner's actions.

``vecenv`` owns one when it has no policy. Each step is one command to each worker, and one reply.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tasks.envs.interface import Interrupted
from tasks.experience.observation import ObservationSpec
from tasks.remote.learner.gateway import Gateway
from tasks.remote.wire import link

STEP_TIMEOUT_S = 120.0
"""How long a lock-step worker may take, its start included [s]."""

Observation = np.ndarray | dict[str, np.ndarray]


class LockStep:
    """The learner's side of lock-step workers.

    Args:
        spec: What the environments observe.
        num_envs: Environments of each worker.
        is_flat: Whether observations are flat.
        timeout_s: How long a worker may take for a step, its start included.
        gateway: To which the workers are connected; asked for at each step.
    """

    def __init__(
        self,
        spec: ObservationSpec,
        num_envs: Sequence[int],
        is_flat: bool,
        timeout_s: float,
        gateway: Callable[[], Gateway],
    ) -> None:
        self._num_envs = list(num_envs)
        self._action_size = spec.action_size
        self._names = ["obs"] if is_flat else [field.name for field in spec.all_fields()]
        self._is_flat = is_flat
        self._timeout_s = timeout_s
        self._gateway = gateway
        self._command_id = 0
        self._is_closed = False
        self._is_stopping: Callable[[], bool] = lambda: False

    def watch(self, stop: Callable[[], bool]) -> None:
        """Has ``reset`` and ``step`` raise ``Interrupted`` soon after ``stop()`` becomes true while they wait."""
        self._is_stopping = stop

    def close(self) -> None:
        """Ends a step that waits."""
        self._is_closed = True

    def reset(self) -> Observation:
        """Resets all environments."""
        return self._observation(self._exchange([None] * len(self._num_envs)))

    def step(self, actions: np.ndarray) -> tuple[Observation, np.ndarray, np.ndarray, dict[str, Any]]:
        """Steps all environments; as ``RemoteVecEnv.step``."""
        actions = np.asarray(actions, np.float32)
        expected = (sum(self._num_envs), self._action_size)
        if actions.shape != expected:
            raise ValueError(f"actions must have shape {expected}, got {actions.shape}")
        bounds = np.cumsum(self._num_envs)[:-1]
        replies = self._exchange(np.split(actions, bounds))
        terminated = np.concatenate([reply.terminated for reply in replies])
        time_outs = np.concatenate([reply.truncated | reply.is_reset for reply in replies]) & ~terminated
        rewards = np.concatenate([reply.reward for reply in replies])
        firsts = [0, *bounds.tolist()]
        infos = {
            "time_outs": time_outs,
            "episode_statistics": [episode for reply in replies for episode in reply.episodes],
            "episode_indices": [
                first + index for first, reply in zip(firsts, replies, strict=True) for index in reply.episode_indices
            ],
        }
        return self._observation(replies), rewards, terminated | time_outs, infos

    def _exchange(self, actions: Sequence[np.ndarray | None]) -> list[link.LockStepReply]:
        """One command to each worker and its reply."""
        gateway = self._gateway()
        gateway.raise_failure()
        self._command_id += 1
        channels = [gateway.lock_step.channel(index) for index in range(len(actions))]
        for channel, part in zip(channels, actions, strict=True):
            channel.send(link.LockStepCommand(self._command_id, part))
        deadline = time.monotonic() + self._timeout_s
        return [self._reply(gateway, index, deadline) for index in range(len(actions))]

    def _reply(self, gateway: Gateway, index: int, deadline: float) -> link.LockStepReply:
        channel = gateway.lock_step.channel(index)
        while True:
            reply = channel.wait_reply(self._command_id, timeout_s=0.5)
            if reply is not None:
                if len(reply.reward) != self._num_envs[index]:
                    raise link.LinkError(f"worker {index} answered for {len(reply.reward)} environments")
                return reply
            gateway.raise_failure()
            if self._is_closed:
                raise RuntimeError("the vectorised environment was closed while it was stepping")
            if self._is_stopping():
                raise Interrupted("stopped while waiting for the environments")
            if time.monotonic() > deadline:
                raise TimeoutError(f"lock-step worker {index} has not answered for {self._timeout_s:.0f} s")

    def _observation(self, replies: Sequence[link.LockStepReply]) -> Observation:
        observation = {name: np.concatenate([reply.observation[name] for reply in replies]) for name in self._names}
        return observation["obs"] if self._is_flat else observation
