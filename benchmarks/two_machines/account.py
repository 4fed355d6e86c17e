"""Counts segments: those that workers drove, compared by number with the learner's stored replay."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from algos.replay.storage import ReplayStorage
from tasks.experience.observation import ObservationSpec
from tasks.experience.samples import Segment
from tasks.remote.station.outbox import FILE_NAME


class Account(NamedTuple):
    """Numbers of segments, of all workers."""

    driven: int
    """Segments that workers made; of workers without an outbox, those up to the last stored one."""
    stored: int
    """Distinct segments in the stored replay."""
    waiting: int
    """Not stored, and still in an outbox."""
    dropped: int
    """Discarded by a full outbox."""
    doubled: int
    """Stored more than once."""
    env_steps: int
    """Environment steps in the stored segments."""
    workers: int
    """Workers with at least one stored segment."""

    @property
    def lost(self) -> int:
        """Neither stored, nor waiting, nor dropped."""
        return self.driven - self.stored - self.waiting - self.dropped


class Outbox(NamedTuple):
    """State of an outbox on disk."""

    identity: str
    last_seq: int
    dropped: int
    waiting: frozenset[int]


def account(replay: Path, spec: ObservationSpec, capacity: int, outboxes: Mapping[str, Path]) -> Account:
    """Compares; all processes must have ended.

    Args:
        replay: Folder of the stored replay; nothing in it may have been overwritten yet.
        spec: The observation.
        capacity: Rows that it may hold.
        outboxes: Folder of each remote worker's outbox, by its name; empty: the workers were the learner's own.
    """
    memory = _Numbers()
    with ReplayStorage(replay, spec, capacity, read_only=True) as storage:
        storage.load(memory)
    driven = {worker: max(numbers) for worker, numbers in memory.numbers.items()}
    waiting = dropped = 0
    for name, folder in outboxes.items():
        outbox = read_outbox(folder)
        worker = f"{name}.{outbox.identity}"
        driven[worker] = outbox.last_seq
        waiting += len(outbox.waiting - set(memory.numbers.get(worker, ())))
        dropped += outbox.dropped
    stored = sum(len(numbers) for numbers in memory.numbers.values())
    doubled = sum(numbers.total() - len(numbers) for numbers in memory.numbers.values())
    return Account(sum(driven.values()), stored, waiting, dropped, doubled, memory.env_steps, len(memory.numbers))


def read_outbox(folder: Path) -> Outbox:
    """Reads the outbox of a worker that has ended."""
    with closing(sqlite3.connect(folder / FILE_NAME)) as db:
        facts = dict(db.execute("SELECT name, value FROM facts"))
        waiting = frozenset(seq for (seq,) in db.execute("SELECT seq FROM segments WHERE message IS NOT NULL"))
    return Outbox(str(facts["identity"]), int(facts.get("last_seq", 0)), int(facts.get("dropped", 0)), waiting)


class _Numbers:
    """Takes the segments of a stored replay as a memory does, and keeps their numbers."""

    def __init__(self) -> None:
        self.numbers: dict[str, Counter[int]] = {}
        self.env_steps = 0

    def start_at(self, row: int, received: Mapping[str, int], streams: Any) -> None:
        if row:
            raise ValueError(f"the first {row} rows of the stored replay have been overwritten")

    def note_gap(self, received: Mapping[str, int], streams: Any) -> None:
        raise ValueError("rows in the middle of the stored replay are lost")

    def append(self, segment: Segment) -> bool:
        self.numbers.setdefault(segment.worker, Counter())[segment.seq] += 1
        self.env_steps += segment.num_env_steps
        return True
