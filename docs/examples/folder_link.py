"""A networking interface of your own: segments and weights as files in a folder, for example on a network drive.

python docs/examples/folder_link.py      library.py's workers and learner, over a folder instead of a connection

``docs/library.md`` explains it. The learner removes a segment's file when it has stored the segment, so nothing is lost
when one end is killed. It knows which numbers it has received, so nothing is stored twice.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
from library import SPEC, act, learn

from tasks.experience.evaluation_report import EvaluationReport
from tasks.experience.observation import ObservationSpec
from tasks.experience.samples import Segment
from tasks.experience.worker_status import WorkerStatus
from tasks.remote.wire.link import decode_segment, encode_segment, encode_weights

_POLL_S = 0.01


class FolderWorkerLink:
    """A ``WorkerLink`` for one worker, whose name must be new in this folder."""

    def __init__(self, folder: Path, worker: str, stop: threading.Event, window: int = 4) -> None:
        self._segments = folder / "segments" / worker
        self._segments.mkdir(parents=True)
        self._weights = folder / "weights"
        self._stop = stop
        self._window = window
        self._last_seq = 0
        self._seen = (0, 0)

    def wait_for_room(self) -> bool:
        """Waits while the learner has not stored ``window`` segments."""
        while len(list(self._segments.glob("*.segment"))) >= self._window and not self._stop.wait(_POLL_S):
            pass
        return not self._stop.is_set()

    def send(self, segment: Segment) -> None:
        """Writes the segment's file."""
        self._last_seq += 1
        message = encode_segment(replace(segment, seq=self._last_seq), compress=True)
        _write(self._segments / _name(self._last_seq), message)

    def take_newest(self) -> bytes | None:
        """The weights, if they have changed since the last time."""
        if not self._weights.exists():
            return None
        status = self._weights.stat()
        seen, self._seen = self._seen, (status.st_mtime_ns, status.st_ino)
        return self._weights.read_bytes() if self._seen != seen else None

    def close(self) -> None:
        """There is no connection to close."""


class FolderLearnerLink:
    """A ``LearnerLink`` without evaluations.

    Args:
        folder: Where the segments are.
        spec: The observation that workers must send.
        received: After a restart, the newest stored number of each worker (``ReplayStorage.received``).
    """

    def __init__(self, folder: Path, spec: ObservationSpec, received: Mapping[str, int] | None = None) -> None:
        self._folder = folder
        self._spec = spec
        self._received = dict(received or {})

    def receive(self, timeout_s: float, max_segments: int | None = None) -> list[Segment]:
        """The new segments, in the order of each worker."""
        deadline_s = time.monotonic() + timeout_s
        while not (found := list(islice(self._new(), max_segments))) and time.monotonic() < deadline_s:
            time.sleep(_POLL_S)
        return found

    def acknowledge(self, durable: Mapping[str, int]) -> None:
        """Removes the files of stored segments."""
        for path in self._files():
            if int(path.stem) <= durable.get(path.parent.name, 0):
                path.unlink(missing_ok=True)

    def publish(self, weights: Mapping[str, np.ndarray], version: int) -> None:
        """Replaces the weights."""
        _write(self._folder / "weights", encode_weights(weights, version))

    def request_evaluation(
        self, weights: Mapping[str, np.ndarray], version: int, seeds: Sequence[int], clip: bool = False
    ) -> None:
        """Refused: no worker evaluates over a folder."""
        raise ValueError("evaluation_interval must be 0: no worker evaluates over a folder")

    def poll_evaluation(self) -> EvaluationReport | None:
        """Always None."""
        return None

    def statistics(self) -> dict[str, float]:
        """Number of waiting segments."""
        return {"gateway/queue_depth": float(len(self._files()))}

    def workers(self) -> list[WorkerStatus]:
        """Always empty: the folder has no status of workers."""
        return []

    def close(self) -> None:
        """There is no connection to close."""

    def _files(self) -> list[Path]:
        return sorted((self._folder / "segments").glob("*/*.segment"))

    def _new(self) -> Iterator[Segment]:
        for worker in sorted((self._folder / "segments").glob("*")):
            seq = self._received.get(worker.name, 0)
            while (path := worker / _name(seq + 1)).exists():
                seq += 1
                self._received[worker.name] = seq
                yield decode_segment(path.read_bytes(), self._spec).segment


def work(folder: str, index: int) -> None:
    """A worker process."""
    act(FolderWorkerLink(Path(folder), f"worker-{index}", threading.Event()), f"worker-{index}", seed=index)


def main() -> None:
    """Starts two worker processes and learns in this one."""
    with tempfile.TemporaryDirectory() as folder:
        spawn = multiprocessing.get_context("spawn")
        workers = [spawn.Process(target=work, args=(folder, index), daemon=True) for index in range(2)]
        for worker in workers:
            worker.start()
        learn(FolderLearnerLink(Path(folder), SPEC), env_steps=4000)
        for worker in workers:
            worker.terminate()
            worker.join()


def _name(seq: int) -> str:
    return f"{seq:010}.segment"


def _write(path: Path, message: bytes) -> None:
    """Writes atomically: readers see the old file or the new one."""
    unfinished = path.with_suffix(".unfinished")
    with unfinished.open("wb") as file:
        file.write(message)
        file.flush()
        os.fsync(file.fileno())
    os.replace(unfinished, path)


if __name__ == "__main__":
    main()
