"""A learner in its own process: the product's loop, replay and link, with an algorithm that learns nothing.

Started by ``rig`` with one JSON argument. It resumes as the product does: it loads everything that is stored, and
workers continue after that. It writes its status to a file several times a second.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from algos.learning.learner import Learner, LearnerSchedule
from algos.learning.pace import Pace
from algos.replay.lenient_storage import LenientStorage
from algos.replay.memory import ReplayMemory
from tasks.experience.evaluation_report import EvaluationReport
from tasks.experience.samples import Segment
from tasks.remote.access.invitation import read_remote_port
from tasks.remote.config import RemoteConfig
from tasks.remote.learner.gateway import Gateway
from tests.faults.numbered_env import fingerprint, make_spec
from tests.faults.status_file import write_status

CAPACITY = 1_000_000
_STATUS_S = 0.1


@dataclass(frozen=True)
class LearnerConfig:
    """Settings of a learner process, as plain data."""

    folder: str
    """Folder of the stored replay."""
    status: str
    """File for its status."""
    credentials: str
    picture_bytes: int
    listen: str | None = "127.0.0.1:0"
    relay: str | None = None
    """host:port of a relay, instead of listening."""
    max_workers: int = 32
    segment_s: float = 0.0
    """Extra time for each segment [s]."""

    def to_json(self) -> str:
        """The settings as one line of JSON."""
        return json.dumps(dataclasses.asdict(self))


class NoAlgorithm:
    """Weights that contain only their version."""

    def __init__(self) -> None:
        self.version = 0

    def update(self, batch: Any) -> Mapping[str, torch.Tensor]:
        return {"critic_loss": torch.zeros(())}

    def acting_weights(self) -> dict[str, np.ndarray]:
        # Asked for once for each version, which begins at 1.
        self.version += 1
        return {"version": np.array([self.version], np.int64)}

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Nothing to load."""


class SlowListener:
    """A memory that waits at each segment."""

    def __init__(self, segment_s: float, stop: threading.Event) -> None:
        self._segment_s = segment_s
        self._stop = stop

    def on_segments(self, segments: Sequence[Segment]) -> None:
        if self._segment_s:
            self._stop.wait(self._segment_s * len(segments))

    def on_log(self, metrics: Mapping[str, float]) -> None:
        """Nothing to do."""

    def on_evaluation_request(self) -> None:
        """Nothing to do."""

    def on_evaluation(self, report: EvaluationReport) -> None:
        """Nothing to do."""

    def on_checkpoint(self, is_periodic: bool) -> None:
        """Nothing to do: tests read the replay."""


def main() -> int:
    """Learns until SIGTERM."""
    config = LearnerConfig(**json.loads(sys.argv[1]))
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="learner %(levelname)s %(name)s: %(message)s")
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    spec = make_spec(config.picture_bytes)
    memory = ReplayMemory(spec, CAPACITY, n_step=1, gamma=0.99, seed=0)
    with contextlib.ExitStack() as stack:
        storage = stack.enter_context(LenientStorage(config.folder, spec, CAPACITY))
        rows = storage.load(memory)
        link = _open_link(config, storage.received)
        stack.callback(link.close)
        learner = Learner(
            memory,
            storage,
            NoAlgorithm(),
            Pace(0.0, 0.02, env_steps_before_training=10),
            _schedule(),
            SlowListener(config.segment_s, stop),
            stop,
        )
        learner.link = link
        learner.publishes_first = True
        reporter = threading.Thread(target=_report, args=(config, link, storage, rows, stop), daemon=True)
        reporter.start()
        learner.run()
    return 0


def _open_link(config: LearnerConfig, received: Mapping[str, int]) -> Any:
    remote = RemoteConfig(
        listen=config.listen if config.relay is None else None,
        relay=config.relay,
        credentials=config.credentials,
        max_workers=config.max_workers,
        max_message_mb=4,
    )
    spec, agreed = make_spec(config.picture_bytes), fingerprint(config.picture_bytes)
    if config.relay is None:
        return Gateway(spec, agreed, remote=read_remote_port(remote), received=received)
    from tasks.remote.learner.relay_link import open_relay_link

    return open_relay_link(remote, spec, agreed, received)


def _schedule() -> LearnerSchedule:
    return LearnerSchedule(
        batch_size=4,
        max_env_steps=10**9,
        update_model_interval=5,
        log_interval=10**9,
        evaluation_interval=0,
        evaluation_seeds=(),
        checkpoint_interval=0,
        save_period_s=10**9,
        warm_up_log_period_s=10**9,
    )


def _report(config: LearnerConfig, link: Any, storage: LenientStorage, loaded: int, stop: threading.Event) -> None:
    """Writes the status at intervals."""
    while not stop.is_set():
        write_status(
            Path(config.status),
            pid=os.getpid(),
            address=getattr(link, "remote_address", None),
            loaded=loaded,
            rows=storage.total_rows,
            left_out=storage.left_out,
            workers=sum(worker.connected for worker in link.workers()),
            statistics=link.statistics(),
            at_s=time.monotonic(),
        )
        stop.wait(_STATUS_S)


if __name__ == "__main__":
    sys.exit(main())
