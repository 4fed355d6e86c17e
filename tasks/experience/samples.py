"""Segments of experience, and the statistics of finished episodes. Numpy only.

Rows follow TMRL's sample convention (its custom_memories.py): row t has the action that was passed to the step and what
that step returned, so the true last observation of an episode is always stored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Segment:
    """A run of n consecutive rows of one environment (a *stream*).

    Row t is ``(action_t, frame_t, reward_t, terminated_t, truncated_t, is_first_t)``. At the first row of an episode
    (``is_first``) the action is the one that reset() applied, the reward is 0 and the frame comes from reset().
    A transition is two neighbouring rows: o_t, a_{t+1}, r_{t+1}, o_{t+1}, terminated_{t+1}; it exists unless row t+1
    is a first row. Rows of consecutive segments of one stream follow each other without a gap.
    """

    worker: str
    """Name of the worker, unique within the run."""
    stream: int
    """Index of the environment within the worker."""
    seq: int
    """1, 2, 3, ... per worker; what is acknowledged."""
    frames: Mapping[str, np.ndarray]
    """Newest part of every observation field except the actions, shape (n, *frame_shape), dtype of the field."""
    action: np.ndarray
    """float32, shape (n, A)."""
    reward: np.ndarray
    """float32, shape (n,)."""
    terminated: np.ndarray
    """bool, shape (n,)."""
    truncated: np.ndarray
    """bool, shape (n,)."""
    is_first: np.ndarray
    """bool, shape (n,)."""
    weights_version: int = 0
    """Version of the weights that chose the last action; 0: the warm-up policy."""
    episodes: tuple[Mapping[str, float], ...] = field(default=())
    """Statistics of the episodes that ended in this segment; keys of ``EPISODE_STATISTICS``, ``TIMING_STATISTICS``."""
    checksums: np.ndarray | None = None
    """debug.check_samples: uint32 CRC of each row's whole stacked observation, shape (n,), else None."""
    states: np.ndarray | None = None
    """What a recurrent policy remembered before it saw each row's observation, float32, shape (n, S); zeros at a first
    row. None of a policy that remembers nothing."""

    def __len__(self) -> int:
        return len(self.reward)

    @property
    def num_env_steps(self) -> int:
        """Number of environment steps: rows that are not first rows."""
        return int(len(self.reward) - np.count_nonzero(self.is_first))


EPISODE_STATISTICS = (
    "return",
    "length",
    "finished",
    "lap_time_s",
    "progress",
    "distance_m",
    "max_speed_mps",
    "mean_speed_mps",
    "wall_contacts",
    "wall_impact_mps",
    "started_at_m",
)
"""What a task says of an episode: ``info["episode_statistics"]`` at its last step, all floats; lap_time_s is NaN unless
finished from the start; progress is the fraction of the path covered; wall_impact_mps is the summed speed lost into
walls; started_at_m is how far along the road it began, 0 at the start."""

TIMING_STATISTICS = ("late_steps", "timeouts", "step_p50_s", "step_p99_s")
"""What the environment adds to them on the wall clock: steps whose action was sent late, those so late that the clock
started anew, median and 99th percentile of the time from one action to the next [s]."""
