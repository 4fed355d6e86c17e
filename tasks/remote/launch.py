"""Starts the worker processes of this machine, restarts those that die, and says when one cannot go on.

Each has a thread that waits for its end. A process that is killed is started again after a growing pause; an exception
in an environment or a policy is no accident and goes to the user with its traceback.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import IO

from tasks.remote.worker import WorkerConfig

_log = logging.getLogger(__name__)

MAX_QUICK_DEATHS = 5
"""A worker that dies so often in a row, each time young, is given up."""
QUICK_DEATH_S = 20.0
"""A process that lived shorter than this died young [s]."""

_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 10.0
_CLOSE_GRACE_S = 1.3
_TAIL_LINES = 60


class WorkerFailed(RuntimeError):  # noqa: N818 - it names what happened, and receive() raises it
    """Raised when a worker process cannot go on; holds its traceback."""


@dataclass(frozen=True)
class Place:
    """Where one worker process belongs."""

    role: str
    index: int


class LocalLauncher:
    """Worker processes on this machine.

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
        self._lock = threading.Lock()
        self._processes: dict[Place, subprocess.Popen[str]] = {}
        self._restarts = 0
        self._threads = [
            threading.Thread(
                target=self._keep_alive, args=(place,), name=f"keep-{place.role}-{place.index}", daemon=True
            )
            for place in places
        ]

    def start(self) -> None:
        """Starts all processes; returns at once."""
        for thread in self._threads:
            thread.start()

    @property
    def restarts(self) -> int:
        """How many times a process was started again."""
        return self._restarts

    def process_ids(self) -> dict[Place, int]:
        """Processes that run now."""
        with self._lock:
            return {place: process.pid for place, process in self._processes.items() if process.poll() is None}

    def close(self) -> None:
        """Ends all processes within two seconds. Calling it twice is fine."""
        self._is_closing.set()
        with self._lock:
            processes = list(self._processes.values())
        for process in processes:
            _hang_up(process)
        deadline = time.monotonic() + _CLOSE_GRACE_S
        for process in processes:
            _end(process, max(deadline - time.monotonic(), 0.0))
        for thread in self._threads:
            if thread.is_alive():
                thread.join(0.5)

    # --- one process ---

    def _keep_alive(self, place: Place) -> None:
        """Runs one process after another at this place."""
        quick_deaths = 0
        incarnation = 0
        while not self._is_closing.is_set():
            incarnation += 1
            config = self._make_config(place, incarnation)
            started = time.monotonic()
            try:
                failure, status, tail = self._run(place, config)
            except OSError as error:  # no process, no memory, no file left
                self._on_failure(WorkerFailed(f"{config.worker} could not be started: {error}"))
                return
            if self._is_closing.is_set():
                return
            if failure is not None:
                self._on_failure(failure)
                return
            quick_deaths = quick_deaths + 1 if time.monotonic() - started < QUICK_DEATH_S else 1
            if quick_deaths >= MAX_QUICK_DEATHS:
                self._on_failure(_given_up(config, quick_deaths, status, tail))
                return
            pause = min(_FIRST_PAUSE_S * 2 ** (quick_deaths - 1), _LONGEST_PAUSE_S)
            _log.warning("%s ended %s; it is started again in %.1f s", config.worker, _reason(status), pause)
            if not self._is_closing.wait(pause):
                self._restarts += 1

    def _run(self, place: Place, config: WorkerConfig) -> tuple[WorkerFailed | None, int, str]:
        """Runs a process to its end: what it failed with, its exit status, the last lines that it printed."""
        tail: deque[str] = deque(maxlen=_TAIL_LINES)
        process = _spawn()
        with self._lock:
            self._processes[place] = process
        if self._is_closing.is_set():
            _hang_up(process)
        _tell(process, config)
        assert process.stdout is not None
        assert process.stderr is not None
        reader = threading.Thread(target=_forward, args=(process.stderr, tail, config.worker), daemon=True)
        reader.start()
        failure = None
        with process.stdout:
            for line in process.stdout:
                failure = _failure(config, line) or failure
        status = process.wait()
        _hang_up(process)  # closes the last of its pipes
        reader.join(1.0)
        return failure, status, "\n".join(tail)


def _spawn() -> subprocess.Popen[str]:
    environment = dict(os.environ)
    # One thread each: workers share the machine with the learner.
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
        environment[name] = "1"
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    environment["PYTHONUNBUFFERED"] = "1"
    return subprocess.Popen(
        [sys.executable, "-m", "tasks.remote.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        errors="replace",
        env=environment,
        # Out of the reach of Ctrl-C; the closing of standard input ends it.
        start_new_session=os.name == "posix",
        creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
    )


def _tell(process: subprocess.Popen[str], config: WorkerConfig) -> None:
    assert process.stdin is not None
    try:
        process.stdin.write(config.to_line())
        process.stdin.flush()
    except (OSError, ValueError):  # It died at once, or the launcher is closing.
        _log.debug("%s could not be told its configuration", config.worker)


def _hang_up(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    try:
        process.stdin.close()
    except OSError:  # It is dead already.
        _log.debug("process %d was gone", process.pid)


def _end(process: subprocess.Popen[str], grace_s: float) -> None:
    try:
        process.wait(grace_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(5.0)


def _forward(stream: IO[str], tail: deque[str], worker: str) -> None:
    """What the process prints goes to the log, and its end is kept."""
    with stream:
        for line in stream:
            tail.append(line.rstrip())
            _log.info("%s | %s", worker, line.rstrip())


def _failure(config: WorkerConfig, line: str) -> WorkerFailed | None:
    try:
        said = json.loads(line)
        kind, message, trace = said["kind"], said["message"], said["traceback"]
    except (ValueError, KeyError, TypeError):
        _log.warning("%s said %r", config.worker, line[:200])
        return None
    if kind == "refused":
        return WorkerFailed(f"{config.worker}: {message}")
    return WorkerFailed(f"{config.role} {config.worker} failed: {message}\n\nIts traceback:\n{trace}")


def _given_up(config: WorkerConfig, deaths: int, status: int, tail: str) -> WorkerFailed:
    return WorkerFailed(
        f"{config.role} {config.index} died {deaths} times in a row, each time within {QUICK_DEATH_S:.0f} s, the last "
        f"time {_reason(status)}; its last lines:\n{tail or '(nothing was printed)'}"
    )


def _reason(status: int) -> str:
    return f"by signal {-status}" if status < 0 else f"with exit status {status}"
