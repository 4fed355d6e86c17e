"""A full disk, at the worker or at the learner."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest

from tests.faults.conftest import AddRow
from tests.faults.rig import Rig, wait_until
from tests.faults.small_disk import SmallDisk

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

SEGMENT_ROWS = 16


@pytest.fixture
def large_rows(rig: Rig) -> Rig:
    """Processes whose rows have 8 kB and whose segments have 130 kB."""
    rig.picture_bytes = 8_192
    return rig


@pytest.mark.fault("disk full at the worker, it pauses")
def test_a_worker_with_a_full_disk_waits_for_space(large_rows: Rig, tmp_path: Path, add_row: AddRow) -> None:
    rig = large_rows
    with SmallDisk(tmp_path / "disk", 16) as disk:
        learner = rig.learner()
        worker = rig.worker(outbox=disk.folder / "outbox", episodes=60, step_s=0.002)
        learner.start()
        worker.start()
        learner.await_rows(320, worker)
        rig.proxy.cut()
        wait_until(lambda: "the disk is full" in worker.log.read_text(), worker)
        rig.proxy.restore()
        worker.finish()
        add_row(rig.account(learner, w0=3_840), "tmpfs of 16 MB, learner unreachable")


@pytest.mark.fault("disk full at the worker, it drops")
def test_a_worker_with_a_full_disk_drops_and_counts_segments(large_rows: Rig, tmp_path: Path, add_row: AddRow) -> None:
    rig = large_rows
    with SmallDisk(tmp_path / "disk", 16) as disk:
        learner = rig.learner()
        worker = rig.worker(outbox=disk.folder / "outbox", episodes=60, step_s=0.002, policy="drop_oldest")
        learner.start()
        worker.start()
        learner.await_rows(320, worker)
        rig.proxy.cut()
        # More than fits on the disk: 16 MB are 2,000 rows.
        worker.await_made(3_400)
        rig.proxy.restore()
        worker.finish()
        with contextlib.closing(sqlite3.connect(worker.outbox / "outbox.sqlite3")) as db:
            ((dropped,),) = db.execute("SELECT value FROM facts WHERE name = 'dropped'").fetchall()
        known = learner.status["statistics"]["gateway/dropped"]
        account = rig.account(learner, w0=3_840)
        assert dropped > 0
        assert known == dropped
        # Segments that arrived without the worker learning of it are counted as dropped, too.
        arrived = dropped * SEGMENT_ROWS - account.lost
        assert 0 <= arrived <= 4 * SEGMENT_ROWS
        add_row(account._replace(lost=0, dropped=account.lost), f"tmpfs of 16 MB; the counters say {dropped} segments")


@pytest.mark.fault("disk full at the learner")
def test_a_learner_with_a_full_disk_continues_and_counts_the_rows_it_leaves_out(
    large_rows: Rig, tmp_path: Path, add_row: AddRow
) -> None:
    rig = large_rows
    with SmallDisk(tmp_path / "disk", 64) as disk:
        disk.fill(58)
        learner = rig.learner(replay=disk.folder / "replay")
        # So slow that it still drives when the learner tries the disk again, five seconds later.
        worker = rig.worker(episodes=60, step_s=0.008)
        learner.start()
        worker.start()
        wait_until(lambda: learner.status["left_out"] > 0, learner, worker)
        assert "the stored replay in" in learner.tail()
        assert "No space left on device" in learner.tail()
        disk.free()
        learner.await_more(320, worker)
        worker.finish()
        wait_until(lambda: learner.rows + learner.status["left_out"] == 3_840, learner)
        left_out = learner.status["left_out"]
        account = rig.account(learner, w0=3_840)
        counted = account._replace(lost=account.lost - left_out, dropped=left_out)
        add_row(counted, "tmpfs; it continued without storing, and stored again when there was space")
