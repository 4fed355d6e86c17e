"""The update-to-data ratio, bounded on both sides. Owns the counts that decide who waits: the learner or its workers.

``algos.learning.learner`` asks it before every update and before it takes new samples. It knows no clock and never
waits itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

_ROUNDING = 1e-9
"""Relative slack, so that 0.29 updates x 100 steps are 29 and not 28.999999999999996."""


class Pace:
    """Holds ``min <= updates / (env_steps - env_steps_before_training) <= max``.

    Args:
        min_updates_per_env_step: Below this ratio no new samples are taken, so that workers on the virtual clock wait.
        max_updates_per_env_step: Above this ratio no update is made: the learner waits for samples.
        env_steps_before_training: Steps that are collected before the first update and do not count in the ratio.
        ignore_min: True where samples cannot wait (real time).
    """

    def __init__(
        self,
        min_updates_per_env_step: float,
        max_updates_per_env_step: float,
        env_steps_before_training: int,
        ignore_min: bool = False,
    ) -> None:
        if not 0 <= min_updates_per_env_step <= max_updates_per_env_step or max_updates_per_env_step <= 0:
            raise ValueError(
                "min_updates_per_env_step and max_updates_per_env_step must hold 0 <= min <= max and max > 0, "
                f"got {min_updates_per_env_step} and {max_updates_per_env_step}"
            )
        if env_steps_before_training < 0:
            raise ValueError(f"env_steps_before_training must be >= 0, got {env_steps_before_training}")
        self._min = 0.0 if ignore_min else min_updates_per_env_step
        self._max = max_updates_per_env_step
        self._warm_up = env_steps_before_training
        self.env_steps = 0
        self.updates = 0
        self._first_env_step = env_steps_before_training
        self._first_update = 0

    @property
    def counted_env_steps(self) -> int:
        """Environment steps that count in the ratio."""
        return self._counted(self.env_steps)

    @property
    def ratio(self) -> float:
        """Achieved updates per environment step since the end of the warm-up; NaN before."""
        counted = self.counted_env_steps
        return (self.updates - self._first_update) / counted if counted else math.nan

    def may_update(self) -> bool:
        """Whether one more update keeps the ratio at or below its maximum."""
        return self.may_update_at(self.env_steps)

    def may_update_at(self, env_steps: int) -> bool:
        """Whether one more update keeps it there once so many environment steps are taken."""
        return self.updates - self._first_update < self._whole_updates(self._max, env_steps)

    @property
    def next_update_at(self) -> int:
        """Environment steps from which one more update keeps the ratio at or below its maximum."""
        counted = math.ceil((self.updates - self._first_update + 1) / self._max * (1 - _ROUNDING))
        return self._first_env_step + max(1, counted)

    def may_receive(self) -> bool:
        """Whether the ratio is at or above its minimum, so that new samples may be taken."""
        return self.updates - self._first_update >= self._whole_updates(self._min, self.env_steps)

    def add_env_steps(self, count: int) -> None:
        """Counts environment steps that were taken into the memory."""
        self.env_steps += count

    def add_updates(self, count: int = 1) -> None:
        """Counts gradient updates."""
        self.updates += count

    def restart_ratio(self, available_env_steps: int = 0) -> None:
        """Begins the ratio anew from here, for a run that goes on with another agent or another memory.

        Args:
            available_env_steps: Steps that the memory already holds; they shorten the warm-up.
        """
        self._first_env_step = self.env_steps + max(0, self._warm_up - available_env_steps)
        self._first_update = self.updates

    def state_dict(self) -> dict[str, int]:
        """The counts, for a checkpoint."""
        return {
            "env_steps": self.env_steps,
            "updates": self.updates,
            "first_env_step": self._first_env_step,
            "first_update": self._first_update,
        }

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """The inverse of ``state_dict``; the bounds stay those of the configuration."""
        self.env_steps = int(state["env_steps"])
        self.updates = int(state["updates"])
        self._first_env_step = int(state["first_env_step"])
        self._first_update = int(state["first_update"])

    def _counted(self, env_steps: int) -> int:
        return max(0, env_steps - self._first_env_step)

    def _whole_updates(self, ratio: float, env_steps: int) -> float:
        updates = ratio * self._counted(env_steps) * (1 + _ROUNDING)
        return math.floor(updates) if math.isfinite(updates) else updates
