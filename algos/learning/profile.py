"""A trace of some updates of a training, for ``profile=true``: where the time of an update goes.

``algos.faces.agent`` puts it between the learner and the algorithm.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from algos.learning.learner import UpdatedAlgorithm
from algos.learning.wrapped import WrappedAlgorithm

logger = logging.getLogger(__name__)

FIRST_UPDATE = 50
"""Updates before the trace begins: in the first ones buffers are made and code is compiled."""
NUM_UPDATES = 50
"""Updates in the trace."""
NUM_OPERATORS = 25
"""Rows of the table."""


class ProfiledAlgorithm(WrappedAlgorithm):
    """Makes the updates of an algorithm, and writes a trace and a table of the operators of some of them.

    Args:
        algorithm: What learns.
        directory: Where ``trace.json`` and ``operators.txt`` go; made when they are written.
    """

    def __init__(self, algorithm: UpdatedAlgorithm, directory: Path) -> None:
        super().__init__(algorithm)
        self._directory = directory
        self._updates = 0
        self._profile: profile | None = None
        self._is_written = False

    def update(self, batch: Any) -> Mapping[str, torch.Tensor]:
        """One update of the algorithm, named ``update`` in the trace."""
        if self._updates == FIRST_UPDATE:
            gpu = [ProfilerActivity.CUDA] if torch.cuda.is_available() else []
            self._profile = profile(activities=[ProfilerActivity.CPU, *gpu])
            self._profile.start()
        with record_function("update"):
            metrics = super().update(batch)
        self._updates += 1
        if self._updates == FIRST_UPDATE + NUM_UPDATES:
            self._write()
        return metrics

    def close(self) -> None:
        """Writes what there is when training ends earlier."""
        self._write()
        if not self._is_written:
            text = "profile=true wrote no trace: it begins after %d updates, and training ended after %d"
            logger.warning(text, FIRST_UPDATE, self._updates)

    def _write(self) -> None:
        if self._profile is None:
            return
        ended, self._profile = self._profile, None
        self._is_written = True
        ended.stop()
        trace, table = self._directory / "trace.json", self._directory / "operators.txt"
        try:
            self._directory.mkdir(exist_ok=True)
            ended.export_chrome_trace(str(trace))
            averages = ended.key_averages()
            table.write_text(averages.table(sort_by="self_cpu_time_total", row_limit=NUM_OPERATORS), encoding="utf-8")
        except (OSError, RuntimeError) as error:  # of the profiler: it could not write
            logger.warning("profile=true: %s was not written (%s); training goes on", self._directory, error)
            return
        last, first = self._updates, FIRST_UPDATE + 1
        text = "profile of updates %d to %d: %s (open it at https://ui.perfetto.dev or in chrome://tracing) and %s"
        logger.info(text, first, last, trace, table)
