"""Logging on a full disk: training neither waits nor ends, and the file stays readable."""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from algos.run import summaries
from algos.run.summaries import EventFile, open_summaries


class Disk:
    """A disk on which a write fails halfway."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_full = False
        self._sync = os.fsync
        monkeypatch.setattr(os, "fsync", self.fsync)

    def fsync(self, descriptor: int) -> None:
        if self.is_full:
            raise OSError(errno.ENOSPC, "No space left on device")
        self._sync(descriptor)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    monkeypatch.setattr(summaries, "FLUSH_S", 0)
    return Disk(monkeypatch)


def steps_in(folder: Path, tag: str) -> list[int]:
    events = EventAccumulator(str(folder))
    events.Reload()
    return [scalar.step for scalar in events.Scalars(tag)] if tag in events.Tags()["scalars"] else []


def test_what_is_logged_can_be_read(tmp_path: Path) -> None:
    writer = open_summaries(tmp_path)
    for step in range(5):
        writer.add_scalar("a/b", float(step), step)
    writer.close()
    assert steps_in(tmp_path, "a/b") == [0, 1, 2, 3, 4]


@pytest.mark.timeout(30)
def test_a_full_disk_delays_nothing_and_logging_continues_when_there_is_space(
    tmp_path: Path, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    writer = open_summaries(tmp_path)
    writer.add_scalar("a", 0.0, 0)
    writer.flush()
    disk.is_full = True
    for step in range(1, 2500):  # more than any queue holds
        writer.add_scalar("a", 0.0, step)
    disk.is_full = False
    writer.add_scalar("a", 0.0, 2500)
    writer.close()
    steps = steps_in(tmp_path, "a")
    assert steps[0] == 0
    assert steps[-1] == 2500
    said = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(said) == 2
    assert f"the log for TensorBoard in {tmp_path} cannot be written (No space left on device)" in said[0]
    assert "is written again" in said[1]


def test_records_that_cannot_be_written_for_too_long_are_dropped_whole(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(summaries, "MAX_PENDING_BYTES", 10)
    file = EventFile(tmp_path / "events")
    file.write(b"first.")
    file.flush()
    disk.is_full = True
    file.write(b"seven..")
    file.flush()
    file.write(b"more..")
    file.flush()
    assert (tmp_path / "events").read_bytes() == b"first."
    disk.is_full = False
    file.write(b"last.")
    file.close()
    file.close()
    assert (tmp_path / "events").read_bytes() == b"first.last."
    assert "0.0 MB of it were dropped" in caplog.records[-1].getMessage()


def test_a_file_that_cannot_be_created_is_created_later(tmp_path: Path) -> None:
    file = EventFile(tmp_path / "gone" / "events")
    file.write(b"first.")
    file.flush()
    (tmp_path / "gone").mkdir()
    file.write(b"second.")
    file.close()
    assert (tmp_path / "gone" / "events").read_bytes() == b"first.second."
