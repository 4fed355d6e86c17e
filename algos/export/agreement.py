"""Whether an exported file acts as the policy does: both see the observations of a simulated drive."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from algos.export.graph import MEMORY
from tasks import registry
from tasks.config import AnyTaskConfig, ClockKind, GameKind, RealTimeTaskConfig, TaskConfig

MAX_DIFFERENCE = 1e-4
"""Of an action in [-1, 1]; float32 in another order of sums differs by about 1e-6."""
SEED = 0


class ExportedPolicy:
    """Acts with the bytes of a file in onnxruntime; nothing of torch.

    Args:
        model: The file.
        memory_size: Numbers that it remembers.
    """

    def __init__(self, model: bytes, memory_size: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._names = [entry.name for entry in self._session.get_inputs() if entry.name != MEMORY]
        self._memory_size = memory_size
        self.begin_episode()

    def begin_episode(self) -> None:
        """Forgets."""
        size = self._memory_size
        self._memory = {MEMORY: np.zeros((1, size), np.float32)} if size else {}

    def act(self, observation: dict[str, np.ndarray]) -> np.ndarray:
        """The action for one observation, shape (A,)."""
        fields = {name: np.asarray(observation[name])[None] for name in self._names}
        action, *after = self._session.run(None, {**fields, **self._memory})
        self._memory = dict(zip(self._memory, after, strict=True))
        return np.asarray(action)[0]


def largest_difference(policy: Any, exported: ExportedPolicy, task: AnyTaskConfig, steps: int) -> float:
    """The largest difference of two actions on what the policy sees while it drives.

    Args:
        policy: Drives.
        exported: Sees the same.
        task: What is driven, in the simulator where it has one.
        steps: Of the environment, over episodes.
    """
    env = registry.make(task.name, observation="dict", config=simulated(task))
    differences, is_over = [0.0], True
    try:
        for step in range(steps):
            if is_over:
                observation, _ = env.reset(seed=SEED + step)
                policy.begin_episode()
                exported.begin_episode()
            action = policy.act(observation, deterministic=True)
            differences.append(float(np.abs(action - exported.act(observation)).max()))
            observation, _, terminated, truncated, _ = env.step(action)
            is_over = bool(terminated or truncated)
    finally:
        env.close()
    return float(np.max(differences))  # NaN where one is


def simulated(task: AnyTaskConfig) -> AnyTaskConfig:
    """The task in virtual time, in the simulator where it has a game."""
    if isinstance(task, TaskConfig):
        return dataclasses.replace(task, game=GameKind.sim, clock=ClockKind.virtual)
    return dataclasses.replace(task, clock=ClockKind.virtual) if isinstance(task, RealTimeTaskConfig) else task
