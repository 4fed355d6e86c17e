"""The whole program, as people start it: ``train.py`` and ``train.py --worker``, killed and resumed."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from algos.replay_storage import ReplayStorage
from tasks import registry
from tests.faults.audit import SegmentNumbers, account_of
from tests.faults.conftest import AddRow
from tests.faults.rig import Rig, wait_until

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

TASK = "TM20Lidar"
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


@pytest.mark.fault("train.py killed (kill -9), resumed from its checkpoint")
def test_a_killed_training_resumes_with_exactly_what_it_had_acknowledged(rig: Rig, add_row: AddRow) -> None:
    words = [*WORDS, *LEARNER_WORDS, f"remote.credentials={rig.credentials / 'learner'}"]
    learner = rig.program("train", *words)
    worker = rig.program(
        "worker",
        *WORDS,
        "--worker",
        f"remote.address={rig.proxy.address}",
        f"remote.credentials={rig.credentials / 'workers' / 'w0'}",
        *("worker.episodes=60", "link.segment_rows=8", "headless=true"),
    )
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
    add_row(account, "in segments of up to 8 rows; the worker is train.py --worker")


def sent_segments(outbox: Path) -> int:
    """Segments that an outbox has ever taken."""
    with contextlib.closing(sqlite3.connect(outbox)) as db:
        ((count,),) = db.execute("SELECT value FROM facts WHERE name = 'last_seq'").fetchall()
    return int(count)


def stored_numbers(folder: Path) -> np.ndarray:
    """Numbers of the segments of the one worker whose rows are in a stored replay."""
    numbers = SegmentNumbers()
    with ReplayStorage(folder, registry.observation_spec(TASK), 100_000, read_only=True) as storage:
        storage.load(numbers)
    assert len(numbers.by_worker) == 1
    return np.array(next(iter(numbers.by_worker.values())))
