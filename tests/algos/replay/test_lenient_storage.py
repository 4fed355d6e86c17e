"""The stored replay of a training whose disk is full: rows are left out and counted, the rest can be resumed."""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path

import pytest

from algos.replay.lenient_storage import RETRY_S, LenientStorage
from algos.replay.memory import ReplayMemory
from algos.replay.storage import ReplayStorage
from tasks.experience.samples import Segment
from tests.algos.replay.replay_reference import Run, make_spec

SPEC = make_spec(image_history=2, lidar_history=2, act_buf_len=1)


class Disk:
    """Refuses to make anything durable while it is full."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_full = False
        monkeypatch.setattr(os, "fsync", self.fsync)

    def fsync(self, descriptor: int) -> None:
        if self.is_full:
            raise OSError(errno.ENOSPC, "No space left on device")


class SteppedClock:
    now_s = 50.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


def segments(count: int) -> list[Segment]:
    run = Run(SPEC, 1, seed=0)
    return [run.next_segment(9) for _ in range(count)]


def rows_of(*parts: Segment) -> int:
    return sum(len(part) for part in parts)


def stored(folder: Path) -> tuple[ReplayMemory, ReplayStorage]:
    memory = ReplayMemory(SPEC, 10_000, 2, 0.9, seed=0)
    storage = ReplayStorage(folder, SPEC, 10_000)
    storage.load(memory)
    return memory, storage


def test_without_trouble_everything_is_stored(tmp_path: Path, disk: Disk) -> None:
    with LenientStorage(tmp_path, SPEC, 10_000) as storage:
        for segment in segments(3):
            assert storage.append(segment)
        assert storage.commit() == {"w0": 3}
        assert storage.left_out == 0
    assert stored(tmp_path)[1].received == {"w0": 3}


def test_rows_that_the_disk_refuses_are_left_out_and_counted(
    tmp_path: Path, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    clock = SteppedClock()
    parts = segments(8)
    with LenientStorage(tmp_path, SPEC, 10_000, clock) as storage:
        for segment in parts[:2]:
            storage.append(segment)
        storage.commit()
        disk.is_full = True
        storage.append(parts[2])
        storage.append(parts[3])
        assert storage.commit() == {"w0": 4}  # the workers go on
        storage.append(parts[4])  # not even tried
        assert storage.commit() == {"w0": 5}
        assert storage.left_out == rows_of(*parts[2:5])
        disk.is_full = False
        clock.now_s += RETRY_S
        for segment in parts[5:]:
            storage.append(segment)
        assert storage.commit() == {"w0": 8}
        position = storage.position()
    memory, loaded = stored(tmp_path)
    assert loaded.total_rows == memory.total_rows == rows_of(*parts[:2], *parts[5:]) == position["rows"]
    assert loaded.received == {"w0": 8}
    said = [
        r.getMessage()
        for r in caplog.records
        if r.name == "tasks.process.write_trouble" and r.levelno >= logging.WARNING
    ]
    assert len(said) == 2
    assert f"the stored replay in {tmp_path} cannot be written (No space left on device)" in said[0]
    assert said[1].endswith(f"is written again; {rows_of(*parts[2:5])} rows were left out")


def test_a_full_disk_from_the_beginning_leaves_nothing_in_the_way(tmp_path: Path, disk: Disk) -> None:
    clock = SteppedClock()
    parts = segments(3)
    disk.is_full = True
    with LenientStorage(tmp_path / "replay", SPEC, 10_000, clock) as storage:
        storage.append(parts[0])
        clock.now_s += RETRY_S
        storage.append(parts[1])
        storage.commit()
        assert list((tmp_path / "replay").iterdir()) == []
        disk.is_full = False
        clock.now_s += RETRY_S
        storage.append(parts[2])
        storage.commit()
        assert storage.left_out == rows_of(*parts[:2])
    assert stored(tmp_path / "replay")[1].total_rows == rows_of(parts[2])


def test_closing_on_a_full_disk_ends(tmp_path: Path, disk: Disk) -> None:
    storage = LenientStorage(tmp_path, SPEC, 10_000)
    (part,) = segments(1)
    storage.append(part)
    disk.is_full = True
    storage.close()
    storage.close()
    assert storage.left_out == rows_of(part)
