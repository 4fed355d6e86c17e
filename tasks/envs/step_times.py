"""Timing statistics of an episode's steps: late steps, time-outs, percentiles of their duration.

The wall-clock environment owns one and puts its figures into ``info["episode_statistics"]``. It warns at most once a
minute, while rtgym warns at every late step.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping

import numpy as np

from tasks.experience.samples import TIMING_STATISTICS

LATE_FRACTION = 0.1
"""A step is late when its action is sent later than this share of a time step after it was due."""
WARN_INTERVAL_S = 60.0
_WARN_LATE_SHARE = 0.1
_WARN_MIN_STEPS = 20

_logger = logging.getLogger(__name__)


class StepTimes:
    """Times at which the actions of an episode were sent.

    Args:
        now: Clock of the warnings [s].
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._next_look_s = -math.inf
        self._unreported = _Counts()
        self.begin_episode()

    def begin_episode(self) -> None:
        """Clears the figures of the last episode."""
        self._last_sent_s: float | None = None
        self._time_step_s = 0.0
        self._durations_s: list[float] = []
        self._counts = _Counts()

    def add(self, due_s: float, sent_s: float, time_step_s: float, *, is_rebased: bool, is_paused: bool) -> None:
        """Takes the start of a step.

        Args:
            due_s: When its action was due: the planned end of the step before.
            sent_s: When its action was sent.
            time_step_s: Nominal duration of a step.
            is_rebased: Whether it was so late that the elastic clock restarts here (a time-out).
            is_paused: Whether the environment rested before it; then, as at the first step, it cannot be late.
        """
        last_s, self._last_sent_s = self._last_sent_s, sent_s
        self._time_step_s = time_step_s
        if last_s is None or is_paused:
            return
        self._durations_s.append(sent_s - last_s)
        self._counts.steps += 1
        self._counts.timeouts += is_rebased
        self._counts.late += is_rebased or sent_s - due_s > LATE_FRACTION * time_step_s

    def statistics(self) -> dict[str, float]:
        """Statistics of the episode; keys of ``TIMING_STATISTICS``, percentiles NaN for a single step."""
        p50, p99 = np.percentile(self._durations_s, (50, 99)) if self._durations_s else (math.nan, math.nan)
        values = (self._counts.late, self._counts.timeouts, p50, p99)
        return {name: float(value) for name, value in zip(TIMING_STATISTICS, values, strict=True)}

    def end_episode(self) -> dict[str, float]:
        """The statistics of the episode that just ended; warns when the steps since the last look were not punctual."""
        statistics = self.statistics()
        self._unreported.add(self._counts)
        if self._now() >= self._next_look_s:
            self._next_look_s = self._now() + WARN_INTERVAL_S
            counts, self._unreported = self._unreported, _Counts()
            if counts.is_worth_a_warning():
                self._warn(counts, statistics)
        return statistics

    def _warn(self, counts: _Counts, statistics: Mapping[str, float]) -> None:
        _logger.warning(
            "%d of %d steps began late, %d of them so late that the clock started anew; the last episode's steps took "
            "%.1f ms (median) and %.1f ms (p99) instead of %.1f ms. The policy, the capture or the machine is too "
            "slow: --benchmark shows which",
            counts.late,
            counts.steps,
            counts.timeouts,
            1e3 * statistics["step_p50_s"],
            1e3 * statistics["step_p99_s"],
            1e3 * self._time_step_s,
        )


class _Counts:
    """Steps, and how many of them were late."""

    def __init__(self) -> None:
        self.steps = 0
        self.late = 0
        self.timeouts = 0

    def add(self, other: _Counts) -> None:
        self.steps += other.steps
        self.late += other.late
        self.timeouts += other.timeouts

    def is_worth_a_warning(self) -> bool:
        has_enough = self.steps >= _WARN_MIN_STEPS
        return self.timeouts > 0 or (has_enough and self.late > _WARN_LATE_SHARE * self.steps)
