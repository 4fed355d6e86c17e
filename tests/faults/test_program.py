"""The whole program, as people start it: ``train.py`` and ``train.py --worker``, killed and resumed."""

from __future__ import annotations

import contextlib
import re
import sqlite3
import time
from pathlib import Path

import numpy as np
import pytest

from algos.replay.storage import ReplayStorage
from algos.run.checkpoint import load_checkpoint
from tests.faults.audit import SegmentNumbers, account_of
from tests.faults.conftest import AddRow
from tests.faults.rig import Process, Rig, wait_until
from tests.faults.small_disk import SmallDisk

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

TASK = "TM20Lidar"
SEGMENT_ROWS = 8
WORDS = (
    *(f"task={TASK}", "train=TM20LidarSAC", "task.game=sim", "task.track=short", "task.rtgym.ep_max_length=100"),
    "train.params.network.hidden=[16,16]",
)
LEARNER_WORDS = (
    *("num_workers=0", "remote.listen=127.0.0.1:0", "max_env_steps=1000000", "headless=true", "seed=1"),
    *("train.params.config.batch_size=16", "train.params.config.env_steps_before_training=300"),
    *("train.params.config.memory_size=100000", "train.params.config.evaluation_interval=0"),
    *("train.params.config.checkpoint_interval=500", "train.params.config.min_updates_per_env_step=0"),
    "train.params.config.max_updates_per_env_step=0.2",
)


SMALL_TRAININGS = {
    "ppo": (
        *("train=TM20LidarPPO", "train.params.network.hidden=[16,16]"),
        "train.params.config.checkpoint_interval=10240",
    ),
    "sac": (
        *("train=TM20LidarSAC", "train.params.network.hidden=[16,16]", "train.params.config.checkpoint_interval=500"),
        "train.params.config.save_replay=false",
    ),
    "sac-logs-often": (
        *("train=TM20LidarSAC", "train.params.network.hidden=[16,16]", "train.params.config.checkpoint_interval=500"),
        "train.params.config.log_interval=20",
    ),
}
ENDS_WITHIN_S = 5.0


@pytest.mark.parametrize("name", SMALL_TRAININGS)
def test_training_continues_on_a_full_disk(name: str, tmp_path: Path, credentials: Path) -> None:
    with SmallDisk(tmp_path / "disk", 12) as disk, Rig(disk.folder, credentials, log_folder=tmp_path) as rig:
        training = rig.program("train", f"task={TASK}", "task.game=sim", "task.track=short", *SMALL_TRAININGS[name])
        training.launch()
        wait_until(lambda: list(disk.folder.glob("runs/*/nn/last.pth")), training)
        disk.fill_up()
        wait_until(lambda: "the log for TensorBoard in" in training.tail(), training)
        wait_until(lambda: "last.pth cannot be written (No space left on device)" in training.log.read_text(), training)
        steps = steps_logged(training)
        wait_until(lambda: steps_logged(training) > steps, training)
        disk.free()
        wait_until(lambda: training.log.read_text().count("is written again") >= 2, training)
        began_s = time.monotonic()
        assert training.interrupt() == 0, training.tail()
        assert time.monotonic() - began_s < ENDS_WITHIN_S
        (newest,) = disk.folder.glob("runs/*/nn/last.pth")
        assert load_checkpoint(newest).counters["env_steps"] > steps


@pytest.mark.parametrize("name", ["ppo", "sac-logs-often"])
def test_ctrl_c_ends_a_training_whose_disk_stays_full(name: str, tmp_path: Path, credentials: Path) -> None:
    with SmallDisk(tmp_path / "disk", 12) as disk, Rig(disk.folder, credentials, log_folder=tmp_path) as rig:
        training = rig.program("train", f"task={TASK}", "task.game=sim", "task.track=short", *SMALL_TRAININGS[name])
        training.launch()
        wait_until(lambda: steps_logged(training) > 0, training)
        disk.fill_up()
        wait_until(lambda: "last.pth cannot be written" in training.log.read_text(), training)
        began_s = time.monotonic()
        assert training.interrupt() == 1, training.tail()
        assert time.monotonic() - began_s < ENDS_WITHIN_S
        assert "train.py: not saved: " in training.tail()
        assert "Traceback" not in training.log.read_text()


@pytest.mark.fault("disk full under train.py")
def test_training_counts_rows_that_a_full_disk_leaves_out(tmp_path: Path, credentials: Path, add_row: AddRow) -> None:
    with SmallDisk(tmp_path / "disk", 40) as disk, Rig(disk.folder, credentials, log_folder=tmp_path) as rig:
        outbox = tmp_path / "outbox"
        learner = rig.program("train", *WORDS, *LEARNER_WORDS, f"remote.credentials={rig.credentials / 'learner'}")
        worker = rig.program("worker", *WORDS, *worker_words(rig), f"worker.outbox={outbox}")
        learner.launch()
        rig.proxy.target = learner.announced_address()
        worker.launch()
        wait_until(lambda: list(disk.folder.glob("runs/*/nn/step_*.pth")), learner, worker)
        disk.fill_up()
        wait_until(lambda: "the stored replay in" in learner.log.read_text(), learner, worker)
        assert worker.is_running, "everything had been delivered before the disk was full"
        disk.free()
        assert worker.wait() == 0, worker.tail()
        assert learner.interrupt() == 0, learner.tail()
        (replay,) = disk.folder.glob("runs/*/replay")
        account = account_of(stored_numbers(replay), sent_segments(outbox / "outbox.sqlite3"))
    counts = re.findall(r"is written again; ([\d,]+) rows were left out", learner.log.read_text())
    rows = sum(int(count.replace(",", "")) for count in counts)
    assert 0 < account.lost <= rows <= SEGMENT_ROWS * account.lost
    counted = account._replace(lost=0, dropped=account.lost)
    add_row(counted, f"in segments of up to {SEGMENT_ROWS} rows; the log reports {rows:,} rows left out")


def steps_logged(training: Process) -> int:
    """Environment steps in the last plain line of a training."""
    told = re.findall(r"([\d,]+) of [\d,]+ steps", training.log.read_text())
    return int(told[-1].replace(",", "")) if told else 0


def worker_words(rig: Rig) -> list[str]:
    """Arguments of a worker that connects through the proxy."""
    return [
        "--worker",
        f"remote.address={rig.proxy.address}",
        f"remote.credentials={rig.credentials / 'workers' / 'w0'}",
        *("worker.episodes=60", f"link.segment_rows={SEGMENT_ROWS}", "headless=true"),
    ]


@pytest.mark.fault("train.py killed (kill -9), resumed from its checkpoint")
def test_a_killed_training_resumes_with_exactly_the_acknowledged_segments(rig: Rig, add_row: AddRow) -> None:
    words = [*WORDS, *LEARNER_WORDS, f"remote.credentials={rig.credentials / 'learner'}"]
    learner = rig.program("train", *words)
    worker = rig.program("worker", *WORDS, *worker_words(rig))
    learner.launch()
    rig.proxy.target = learner.announced_address()
    worker.launch()
    wait_until(lambda: sorted(rig.folder.glob("runs/*/nn/step_*.pth"))[1:], learner, worker)
    learner.kill()
    assert worker.is_running, "everything had been delivered before the learner was killed"
    (checkpoint,) = rig.folder.glob("runs/*/nn/last.pth")
    learner.launch(f"checkpoint={checkpoint}")
    rig.proxy.target = learner.announced_address()
    assert worker.wait() == 0, worker.tail()
    assert learner.stop() == 0, learner.tail()
    (outbox,) = rig.folder.glob("runs/outbox/*/outbox.sqlite3")
    stored = stored_numbers(checkpoint.parents[1] / "replay")
    account = account_of(stored, sent_segments(outbox))
    add_row(account, f"in segments of up to {SEGMENT_ROWS} rows; the worker is train.py --worker")


def sent_segments(outbox: Path) -> int:
    """How many segments an outbox has ever taken."""
    with contextlib.closing(sqlite3.connect(outbox)) as db:
        ((count,),) = db.execute("SELECT value FROM facts WHERE name = 'last_seq'").fetchall()
    return int(count)


def stored_numbers(folder: Path) -> np.ndarray:
    """Numbers of the segments of the one worker whose rows are in a stored replay."""
    numbers = SegmentNumbers()
    spec = load_checkpoint(folder.parent / "nn" / "last.pth").spec()
    with ReplayStorage(folder, spec, 100_000, read_only=True) as storage:
        storage.load(numbers)
    assert len(numbers.by_worker) == 1
    return np.array(next(iter(numbers.by_worker.values())))
