"""Counts the rows of a stored replay by their numbers: every fault test is decided by this.

It reads the replay as a resumed run would, and counts for each worker which numbers are there how often.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from algos.replay.storage import ReplayStorage
from tasks.experience.samples import Segment
from tests.faults.learner_process import CAPACITY
from tests.faults.numbered_env import make_spec, numbers_of, picture_of, reward_of

FUZZ = ".fuzz"
"""Suffix of the identity of a worker whose rows are random and not counted."""


class Account(NamedTuple):
    """How many sent rows were stored, lost, doubled and dropped."""

    sent: int
    stored: int
    """Distinct rows in the stored replay."""
    lost: int
    """Sent, not stored, and not dropped on purpose."""
    doubled: int
    """Rows stored more than once."""
    dropped: int = 0
    """Dropped by the policy of a full outbox, and counted there."""

    @property
    def is_exact(self) -> bool:
        """Whether every row is stored exactly once."""
        return self.lost == 0 and self.doubled == 0

    def __add__(self, other: Account) -> Account:  # type: ignore[override]
        return Account(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))


class StoredRows:
    """The stored replay, by worker; rows in the order in which they were appended."""

    def __init__(self, folder: Path, picture_bytes: int) -> None:
        self._picture_bytes = picture_bytes
        self._numbers: dict[str, list[np.ndarray]] = {}
        self._streams: dict[tuple[str, int], bool] = {}
        self.damage: list[str] = []
        """Faults of rows other than their numbers."""
        with ReplayStorage(folder, make_spec(picture_bytes), CAPACITY, read_only=True) as storage:
            storage.load(self)

    @property
    def numbers(self) -> Mapping[str, np.ndarray]:
        """Numbers of the rows of each worker, in the order in which they are stored."""
        return {worker: np.concatenate(parts) for worker, parts in self._numbers.items()}

    def account(self, sent: Mapping[str, int]) -> Account:
        """Counts the rows.

        Args:
            sent: Rows that each worker sent, numbered from 1; name, or name and identity of its outbox.
        """
        total = Account(0, 0, 0, 0)
        for worker, count in sent.items():
            numbers = [found for name, found in self.numbers.items() if name == worker or name.startswith(f"{worker}.")]
            total += account_of(np.concatenate(numbers) if numbers else np.empty(0, np.int64), count)
        return total

    # --- RowReceiver ---

    def start_at(self, row: int, received: Mapping[str, int], streams: Iterable[tuple[str, int]]) -> None:
        """The beginning of a chunk."""
        if row and not self._numbers:
            self.damage.append(f"the replay begins at row {row}")

    def note_gap(self, received: Mapping[str, int], streams: Iterable[tuple[str, int]]) -> None:
        """Rows are lost."""
        self.damage.append("rows are lost")

    def append(self, segment: Segment) -> bool:
        """The next segment."""
        numbers = numbers_of(segment.frames["number"])
        self._numbers.setdefault(segment.worker, []).append(numbers)
        self._check(segment, numbers)
        return True

    def _check(self, segment: Segment, numbers: np.ndarray) -> None:
        if segment.worker.endswith(FUZZ):
            return
        where = f"segment {segment.seq} of {segment.worker}"
        if not (segment.frames["picture"] == picture_of(numbers, self._picture_bytes)).all():
            self.damage.append(f"{where}: a picture is not that of its row")
        if not (segment.reward == np.where(segment.is_first, 0.0, reward_of(numbers))).all():
            self.damage.append(f"{where}: a reward is not that of its row")
        if not self._streams.setdefault((segment.worker, segment.stream), bool(segment.is_first[0])):
            self.damage.append(f"{where}: stream {segment.stream} begins in the middle of an episode")


class SegmentNumbers:
    """The sequence numbers in a stored replay, by worker, in the order in which they are stored."""

    def __init__(self) -> None:
        self.by_worker: dict[str, list[int]] = {}

    def start_at(self, row: int, received: Mapping[str, int], streams: Iterable[tuple[str, int]]) -> None:
        """The beginning of a chunk."""

    def note_gap(self, received: Mapping[str, int], streams: Iterable[tuple[str, int]]) -> None:
        """Rows are lost: their numbers are missing."""

    def append(self, segment: Segment) -> bool:
        """The next segment."""
        self.by_worker.setdefault(segment.worker, []).append(segment.seq)
        return True


def account_of(numbers: np.ndarray, sent: int) -> Account:
    """Counts rows 1 to ``sent``.

    Raises:
        AssertionError: There are rows that were never sent, or not in their order.
    """
    different, places = np.unique(numbers, return_index=True)
    if len(different):
        assert different[0] >= 1, f"row {different[0]} was never sent"
        assert different[-1] <= sent, f"row {different[-1]} of {sent} was never sent"
        assert (np.diff(places) > 0).all(), "rows are not in their order"
    doubled = len(numbers) - len(different)
    return Account(sent, len(different), sent - len(different), doubled)
