"""A stored replay that neither ends nor delays a training when the disk is full.

``algos.faces.agent`` stores through it. The learner also learns from rows that the disk does not take, as without a
stored replay; a run that is resumed later does not have these rows.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from algos.replay.storage import ReplayStorage
from tasks.experience.observation import ObservationSpec
from tasks.experience.samples import Segment
from tasks.process.write_trouble import WriteTrouble

RETRY_S = 5.0
"""Between an error of the disk and the next attempt to write [s]."""


class LenientStorage(ReplayStorage):
    """Leaves rows out, and counts them, where ``ReplayStorage`` raises OSError.

    Args:
        directory: As of ``ReplayStorage``.
        spec: As of ``ReplayStorage``.
        capacity: As of ``ReplayStorage``.
        now: Monotonic clock [s].
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        spec: ObservationSpec,
        capacity: int,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(directory, spec, capacity)
        self.left_out = 0
        """Rows that were not stored."""
        self._now = now
        self._retry_at_s = now()
        self._left_out_before = 0
        self._newest: dict[str, int] = {}
        self._trouble = WriteTrouble(
            f"the stored replay in {self.directory}",
            "training goes on, and a run that is resumed will not have the rows of this time",
        )

    def append(self, segment: Segment) -> bool:
        """As ``ReplayStorage.append``, but that a segment may be left out."""
        if segment.seq > 0:
            self._newest[segment.worker] = segment.seq
        rows = self.total_rows
        try:
            if not self._trouble.reason or self._now() >= self._retry_at_s:
                return super().append(segment)
        except OSError as error:
            was_counted = self.total_rows > rows
            self._roll_back(error)
            if was_counted:
                return True
        self.left_out += len(segment)
        return True

    def commit(self) -> dict[str, int]:
        """As ``ReplayStorage.commit``; what is left out counts as if it were durable: it does not come again."""
        is_attempt = self._is_dirty
        try:
            super().commit()
        except OSError as error:
            self._roll_back(error)
        else:
            if is_attempt:
                self._trouble.worked(f"{self.left_out - self._left_out_before:,} rows were left out")
                self._left_out_before = self.left_out
        return self.received | self._newest

    def _roll_back(self, error: OSError) -> None:
        self._trouble.failed(error)
        self._retry_at_s = self._now() + RETRY_S
        self.left_out += self.roll_back()
