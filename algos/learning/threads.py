"""How many threads torch computes updates with: for ``torch_threads=auto`` the first updates of a training tell."""

from __future__ import annotations

import logging
import os
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

from algos.learning.learner import UpdatedAlgorithm
from algos.learning.wrapped import WrappedAlgorithm

logger = logging.getLogger(__name__)

FIRST_UPDATE = 5
"""Updates that are not timed: they make buffers."""
BLOCK = 4
"""Updates between two changes of the number of threads."""
NUM_BLOCKS = 6
LIMIT_S = 2.0
"""No further block is timed after this time."""
SMALLEST_GAIN = 0.1
"""Share of an update's time that more threads must save, since they take cores from all other processes."""


def num_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on Windows and macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class ThreadChoice(WrappedAlgorithm):
    """Makes the first updates, while workers drive, with one thread and with several in turn; then takes the faster.

    Args:
        algorithm: What learns.
        most: Threads to compare with one.
        now: Monotonic clock [s].
        set_threads: Sets the number of threads.
    """

    def __init__(
        self,
        algorithm: UpdatedAlgorithm,
        most: int,
        now: Callable[[], float] = time.perf_counter,
        set_threads: Callable[[int], None] = torch.set_num_threads,
    ) -> None:
        super().__init__(algorithm)
        self._now = now
        self._set_threads = set_threads
        self._times: dict[int, list[float]] = {1: [], most: []}
        self._most = most
        self._updates = 0
        self._is_chosen = False

    def update(self, batch: Any) -> Mapping[str, torch.Tensor]:
        """One update of the algorithm."""
        if self._is_chosen:
            return super().update(batch)
        timed = self._updates - FIRST_UPDATE
        count = (1, self._most)[timed // BLOCK % 2] if timed >= 0 else 1
        self._set_threads(count)
        begin = self._now()
        metrics = super().update(batch)
        self._updates += 1
        if timed >= 0:
            self._times[count].append(self._now() - begin)
            self._choose(timed + 1)
        return metrics

    def _choose(self, timed: int) -> None:
        """Ends the comparison when enough is known: both counts must have had as many updates."""
        spent_s = sum(sum(times) for times in self._times.values())
        is_even = timed % (2 * BLOCK) == 0
        if not is_even or (timed < NUM_BLOCKS * BLOCK and spent_s < LIMIT_S):
            return
        one, several = (statistics.median(self._times[count]) for count in (1, self._most))
        chosen = self._most if several < (1.0 - SMALLEST_GAIN) * one else 1
        self._set_threads(chosen)
        self._is_chosen = True
        text = "torch_threads=auto: %d, since an update took %.1f ms with 1 thread and %.1f ms with %d"
        logger.info(text, chosen, 1e3 * one, 1e3 * several, self._most)
