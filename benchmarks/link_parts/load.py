"""CPU time that real-time workers cost the learner: 20 steps a second each, with images of TM20Full, over TLS.

One other process simulates the workers: it has an uplink for each and sends the segments that a worker would have
driven meanwhile. The learner receives, stores (with the replay memory and its files) and acknowledges the segments, and
publishes weights once a second; it makes no updates.
"""

from __future__ import annotations

import contextlib
import math
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from algos.replay.memory import ReplayMemory
from algos.replay.storage import ReplayStorage
from benchmarks.link_parts import pairs
from benchmarks.link_parts.ends import Setting, open_gateway, open_uplink
from benchmarks.link_parts.traffic import SPEC, bytes_per_row, segment_of, weights_of
from tasks.experience.samples import Segment

STEPS_PER_S = 20.0
ROWS = 32
WEIGHTS_BYTES = 1_000_000
COMMIT_PERIOD_S = 0.1
SETTLE_S = 4.0


class Load(NamedTuple):
    """The load of a number of workers."""

    link: float
    """Share of one core, without the replay."""
    stored: float
    """Share of one core, with it."""
    samples_per_s: float
    num_threads: int
    """Threads of the learner's process."""
    memory_mb: float
    """Memory of the learner's process, without the replay."""


def measured(setting: Setting, num_workers: int, seconds: float) -> Load:
    """Two turns, in new processes."""
    turns = [pairs.answers(_learn, _work, setting, num_workers, seconds, stores)[0] for stores in (False, True)]
    (link, _, num_threads, memory_mb), (stored, samples_per_s, _, _) = turns
    return Load(link, stored, samples_per_s, num_threads, memory_mb)


class _Learner:
    """The part of a learner that takes segments.

    Args:
        folder: Of the stored replay; None: there is none.
    """

    def __init__(self, folder: Path | None) -> None:
        self._memory = None if folder is None else ReplayMemory(SPEC, 100_000, n_step=3, gamma=0.99, seed=0)
        self._storage = None if folder is None else ReplayStorage(folder, SPEC, 100_000)
        self._received: dict[str, int] = {}
        self._committed_s = 0.0

    def take(self, segments: list[Segment]) -> int:
        for segment in segments:
            self._received[segment.worker] = segment.seq
            if self._memory is not None and self._storage is not None:
                self._memory.append(segment)
                self._storage.append(segment)
        return sum(segment.num_env_steps for segment in segments)

    def durable(self) -> Mapping[str, int]:
        """The newest stored segments, updated a few times a second."""
        if time.monotonic() - self._committed_s < COMMIT_PERIOD_S:
            return {}
        self._committed_s = time.monotonic()
        return self._received if self._storage is None else self._storage.commit()


def _learn(connection: Connection, setting: Setting, num_workers: int, seconds: float, stores: bool) -> None:
    weights = weights_of(WEIGHTS_BYTES)
    folder = Path(tempfile.mkdtemp()) if stores else None
    learner = _Learner(folder)
    with contextlib.ExitStack() as stack:
        if folder is not None:
            stack.callback(shutil.rmtree, folder)
        gateway = stack.enter_context(open_gateway(setting, max(num_workers, 1)))
        connection.send(gateway.remote_address)
        while gateway.statistics()["gateway/workers"] < num_workers:
            time.sleep(0.05)
        began_s = time.monotonic()
        cpu_s, published_s, version, samples = 0.0, 0.0, 0, 0
        is_measuring = False
        while (now := time.monotonic()) - began_s < SETTLE_S + seconds:
            if not is_measuring and now - began_s >= SETTLE_S:
                is_measuring, cpu_s, samples = True, time.process_time(), 0
            if now - published_s >= 1.0:
                version, published_s = version + 1, now
                gateway.publish(weights, version)
            samples += learner.take(gateway.receive(0.05))
            gateway.acknowledge(learner.durable())
        share = (time.process_time() - cpu_s) / seconds
        connection.send((share, samples / seconds, _num_threads(), _memory_mb()))
        pairs.wait_done(connection)


def _work(
    connection: Connection, address: str, setting: Setting, num_workers: int, seconds: float, stores: bool
) -> None:
    template = driven_segment()
    with contextlib.ExitStack() as stack:
        uplinks = [
            stack.enter_context(open_uplink(setting, address, window=64, index=index, compress=True))
            for index in range(num_workers)
        ]
        period_s = ROWS / STEPS_PER_S
        began_s = time.monotonic()
        turn = 0
        while uplinks and time.monotonic() - began_s < SETTLE_S + seconds + 2.0:
            uplink, name = uplinks[turn % num_workers]
            uplink.take_newest()
            uplink.send(replace(template, worker=name))
            turn += 1
            time.sleep(max(began_s + turn * period_s / num_workers - time.monotonic(), 0.0))
        connection.send(None)
        pairs.wait_done(connection)


def _num_threads() -> int:
    """Threads, also those that are not Python's, where the system reports them."""
    tasks = Path("/proc/self/task")
    return len(list(tasks.iterdir())) if tasks.is_dir() else threading.active_count()


def _memory_mb() -> float:
    """Resident memory; NaN where the system does not report it."""
    status = Path("/proc/self/status")
    if not status.exists():
        return math.nan
    found = re.search(r"VmRSS:\s+(\d+) kB", status.read_text(encoding="ascii"))
    return math.nan if found is None else int(found.group(1)) / 1024


def driven_segment() -> Segment:
    """A segment of the simulator's pictures."""
    import tasks

    env: Any = tasks.make("TM20Full", observation="dict", game="sim")
    images = []
    with contextlib.closing(env):
        observation, _ = env.reset(seed=1)
        for _ in range(ROWS):
            observation, *_ = env.step(np.array([1.0, -1.0, 0.1], np.float32))
            images.append(observation["images"][-1])
    segment = segment_of(ROWS * bytes_per_row())
    return replace(segment, frames={**segment.frames, "images": np.stack(images)})
