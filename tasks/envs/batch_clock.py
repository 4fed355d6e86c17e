"""The elastic clocks of many environments in virtual time: ``VirtualTimeEnv``'s, an array entry for each.

Each environment has a time of its own. ``tasks.trackmania.fleet`` drives them.
"""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

from tasks.config import RtgymConfig

JITTER_STREAM = 1
"""Separates the draws of the environment from those of the game, which use the plain episode seed."""
_DRAWN = 256
"""Jitters drawn at a time."""

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


class BatchClock:
    """N clocks.

    Args:
        config: The elastic clock.
        capture_jitter_s: A capture is late by U(0, this), drawn from the seed of the episode.
        count: N.
    """

    def __init__(self, config: RtgymConfig, capture_jitter_s: float, count: int) -> None:
        self.now = np.zeros(count)
        """Present of each environment [s]."""
        self._duration, self._capture_after = config.time_step_duration, config.start_obs_capture
        self._patience = config.time_step_duration * config.time_step_timeout_factor
        self._jitter_s = capture_jitter_s
        self._rngs = [np.random.default_rng(0)] * count
        self._jitters = np.empty((count, _DRAWN))
        self._num_steps = np.zeros(count, np.int64)
        self._t_end, self._capture_at = np.zeros(count), np.zeros(count)
        self._has_rested = np.zeros(count, np.bool_)

    def leave(self, chosen: IntArray) -> None:
        """Moves these to the end of the step in flight, if there is one; nobody asks for its observation."""
        self.now[chosen] = np.maximum(self.now[chosen], self._t_end[chosen])

    def begin(self, index: int, seed: int) -> None:
        """An episode begins in one of them, at its present."""
        self._rngs[index] = np.random.default_rng([seed, JITTER_STREAM])
        self._num_steps[index] = 0

    def start(self, chosen: IntArray) -> None:
        """A time step begins in these; its action has been sent."""
        now, end = self.now[chosen], self._t_end[chosen]
        is_late = now - end > self._patience
        if is_late.any():
            for lateness in (now - end)[is_late & ~self._has_rested[chosen]].tolist():
                warnings.warn(f"Time-step timed out. Elapsed since last time-step: {lateness}", stacklevel=3)
            end = np.where(is_late, now, end)
            self._has_rested[chosen] &= ~is_late
        capture_at = end + self._capture_after
        if self._jitter_s > 0.0:
            capture_at += self._jitter_s * self._jitter(chosen)
        self._capture_at[chosen] = capture_at
        self._t_end[chosen] = end + self._duration

    def to_capture(self) -> FloatArray:
        """Moves all to the capture of their steps; their present."""
        return np.maximum(self.now, self._capture_at, out=self.now)

    def to_end(self) -> FloatArray:
        """Moves all to the end of their steps; their present."""
        return np.maximum(self.now, self._t_end, out=self.now)

    def rest(self, chosen: IntArray) -> None:
        """These pause: their clocks may be re-based without a warning."""
        self._has_rested[chosen] = True

    def _jitter(self, chosen: IntArray) -> FloatArray:
        """The next draw of U(0, 1) of each."""
        slots = self._num_steps[chosen] % _DRAWN
        for index in chosen[slots == 0].tolist():
            self._jitters[index] = self._rngs[index].random(_DRAWN)
        self._num_steps[chosen] += 1
        drawn: FloatArray = self._jitters[chosen, slots]
        return drawn
