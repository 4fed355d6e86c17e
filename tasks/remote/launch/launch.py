"""Keeps worker processes alive: starts them, restarts those that die, and says when one cannot go on.

``WorkerLauncher`` decides that for each place in a thread of its own: a process that is killed is started again after a
growing pause; an exception in an environment or a policy is no accident and goes to the user with its traceback.
``LocalLauncher`` runs the processes on this machine, ``ray_launch.RayLauncher`` on the nodes of a cluster.
"""

from __future__ import annotations

import json
import logging
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tasks.remote.station import child_process
from tasks.remote.station.child_process import QUICK_DEATH_S, TAIL_LINES, Restarts
from tasks.remote.worker.worker import WorkerConfig

_log = logging.getLogger(__name__)

_LOOPBACK = "127.0.0.1"
_CLOSE_GRACE_S = 1.3


class WorkerFailed(RuntimeError):  # noqa: N818 - it names what happened, and receive() raises it
    """Raised when a worker process cannot go on; holds its traceback."""


class WorkerRefused(WorkerFailed):
    """Raised when the game, the link or an environment refuses what a worker does; a traceback adds nothing to that."""


@dataclass(frozen=True)
class Place:
    """Where one worker process belongs."""

    role: str
    index: int


class Ending(NamedTuple):
    """How a worker process ended that nobody asked to."""

    reason: str
    """For people: "by signal 9"."""
    said: tuple[str, ...] = ()
    """What it reported on its standard output."""
    tail: str = ""
    """The last lines that it printed."""
    lived_s: float = 0.0
    """How long it ran [s]."""
    is_own: bool = True
    """Whether it died by itself; otherwise what it ran on was lost, and it is not counted against it."""


class WorkerLauncher(ABC):
    """Worker processes, kept alive one thread for each.

    Args:
        places: The processes to keep alive.
        make_config: Configuration for a place and an incarnation 1, 2, 3, ...
        on_failure: Called once for each worker that cannot go on, from a thread of the launcher.
    """

    def __init__(
        self,
        places: Sequence[Place],
        make_config: Callable[[Place, int], WorkerConfig],
        on_failure: Callable[[WorkerFailed], None],
    ) -> None:
        self._make_config = make_config
        self._on_failure = on_failure
        self._is_closing = threading.Event()
        self._restarts = 0
        self._threads = [
            threading.Thread(
                target=self._keep_alive, args=(place,), name=f"keep-{place.role}-{place.index}", daemon=True
            )
            for place in places
        ]

    def prepare(self) -> str:
        """Gets ready to start processes; returns the host under which they reach this process.

        Raises:
            WorkerRefused: There is nothing to start them on.
        """
        return _LOOPBACK

    def start(self) -> None:
        """Starts all processes; returns at once."""
        for thread in self._threads:
            thread.start()

    @property
    def restarts(self) -> int:
        """How many times a process was started again."""
        return self._restarts

    @abstractmethod
    def process_ids(self) -> dict[Place, int]:
        """Processes that run now, by their number on the machine that they are on."""

    def close(self) -> None:
        """Ends all processes within two seconds, what they ran on within some more. Calling it twice is fine."""
        self._is_closing.set()
        self._end_all()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(0.5)

    # --- one process ---

    @abstractmethod
    def _run(self, place: Place, config: WorkerConfig) -> Ending:
        """Runs a process to its end.

        Raises:
            OSError: It could not be started, and cannot be.
            WorkerFailed: Nor can any other.
        """

    @abstractmethod
    def _end_all(self) -> None:
        """Ends all processes; ``_is_closing`` is set, so that none is started again."""

    def _keep_alive(self, place: Place) -> None:
        """Runs one process after another at this place."""
        restarts, incarnation = Restarts(), 0
        while not self._is_closing.is_set():
            incarnation += 1
            config = self._make_config(place, incarnation)
            try:
                ending = self._run(place, config)
            except OSError as error:  # no process, no memory, no file left
                self._on_failure(WorkerFailed(f"{config.worker} could not be started: {error}"))
                return
            except WorkerFailed as failure:
                if not self._is_closing.is_set():
                    self._on_failure(failure)
                return
            if self._is_closing.is_set():
                return
            reported = [found for line in ending.said if (found := _failure(config, line)) is not None]
            if reported:
                self._on_failure(reported[-1])
                return
            pause = restarts.pause_s(ending.lived_s, ending.is_own)
            if pause is None:
                self._on_failure(_given_up(config, restarts.quick_deaths, ending))
                return
            _log.warning("%s ended %s; it is started again in %.1f s", config.worker, ending.reason, pause)
            if not self._is_closing.wait(pause):
                self._restarts += 1


class LocalLauncher(WorkerLauncher):
    """Worker processes on this machine; arguments as of ``WorkerLauncher``."""

    def __init__(
        self,
        places: Sequence[Place],
        make_config: Callable[[Place, int], WorkerConfig],
        on_failure: Callable[[WorkerFailed], None],
    ) -> None:
        super().__init__(places, make_config, on_failure)
        self._lock = threading.Lock()
        self._processes: dict[Place, subprocess.Popen[str]] = {}

    def process_ids(self) -> dict[Place, int]:
        """Processes that run now."""
        with self._lock:
            return {place: process.pid for place, process in self._processes.items() if process.poll() is None}

    def _run(self, place: Place, config: WorkerConfig) -> Ending:
        tail: deque[str] = deque(maxlen=TAIL_LINES)

        def take_line(line: str) -> None:
            tail.append(line)
            _log.info("%s | %s", config.worker, line)

        started = time.monotonic()
        process = child_process.spawn()
        with self._lock:
            self._processes[place] = process
        if self._is_closing.is_set():
            child_process.hang_up(process)
        status, said = child_process.run(process, config.to_line(), take_line)
        reason = child_process.describe_status(status)
        return Ending(reason, said, "\n".join(tail), time.monotonic() - started)

    def _end_all(self) -> None:
        with self._lock:
            processes = list(self._processes.values())
        for process in processes:
            child_process.hang_up(process)
        deadline = time.monotonic() + _CLOSE_GRACE_S
        for process in processes:
            child_process.end(process, max(deadline - time.monotonic(), 0.0))


def _failure(config: WorkerConfig, line: str) -> WorkerFailed | None:
    try:
        said = json.loads(line)
        kind, message, trace = said["kind"], said["message"], said["traceback"]
    except (ValueError, KeyError, TypeError):
        _log.warning("%s said %r", config.worker, line[:200])
        return None
    if kind == "refused":
        return WorkerRefused(f"{config.worker}: {message}")
    return WorkerFailed(f"{config.role} {config.worker} failed: {message}\n\nIts traceback:\n{trace}")


def _given_up(config: WorkerConfig, deaths: int, ending: Ending) -> WorkerFailed:
    return WorkerFailed(
        f"{config.role} {config.index} died {deaths} times in a row, each time within {QUICK_DEATH_S:.0f} s, the last "
        f"time {ending.reason}; its last lines:\n{ending.tail or '(nothing was printed)'}"
    )
