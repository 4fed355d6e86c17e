"""A child process as its parent sees it: started, told its configuration, listened to, started again.

``launch`` runs workers on this machine, ``ray_actor`` on the nodes of a cluster, ``station_process`` the station of a
remote worker, and ``ray_launch`` the process that talks to Ray. A closed standard input ends the process, so it never
outlives its parent.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import IO, NamedTuple, Self, TextIO

_log = logging.getLogger(__name__)

WORKER = "tasks.remote.worker.worker"
"""The module that is a worker process."""
ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
"""Variables that are 1 for a worker: workers share their machine with one another and with the learner."""
MAX_QUICK_DEATHS = 5
"""A process that dies so often in a row, each time young, is given up."""
QUICK_DEATH_S = 20.0
"""A process that lived shorter than this died young [s]."""
TAIL_LINES = 60
"""Of what a process printed, the last lines that are shown when it is given up."""
FIRST_PAUSE_S = 0.2
"""Before a process is started again for the first time [s]."""

_LONGEST_PAUSE_S = 10.0


class Line:
    """A dataclass of plain data that parent and child tell each other as one line of JSON."""

    def to_line(self) -> str:
        """One line."""
        return json.dumps(asdict(self)) + "\n"  # type: ignore[call-overload]

    @classmethod
    def from_line(cls, line: str) -> Self:
        """The inverse of ``to_line``."""
        return cls(**json.loads(line))


class Exit(NamedTuple):
    """How a process ended."""

    status: int
    """Exit status; negative: the number of the signal that ended it."""
    said: tuple[str, ...]
    """Lines of its standard output: the failure that it reported, if it did."""


class Restarts:
    """When a process that has ended is started again: after a pause that grows while it dies young."""

    def __init__(self) -> None:
        self.quick_deaths = 0
        """How often in a row it has died young."""
        self._quick_endings = 0

    def pause_s(self, lived_s: float, is_own: bool = True) -> float | None:
        """What comes before the next start [s]; None: the process is given up.

        Args:
            lived_s: How long it ran [s].
            is_own: Whether it died by itself; otherwise that is not counted against it.
        """
        is_quick = lived_s < QUICK_DEATH_S
        self._quick_endings = self._quick_endings + 1 if is_quick else 1
        if is_own:
            self.quick_deaths = self.quick_deaths + 1 if is_quick else 1
        if self.quick_deaths >= MAX_QUICK_DEATHS:
            return None
        return min(FIRST_PAUSE_S * 2 ** (self._quick_endings - 1), _LONGEST_PAUSE_S)


def spawn(
    module: str = WORKER,
    hidden: Sequence[str] = (),
    without: Sequence[str] = (),
    steps_back: bool = False,
    variables: Mapping[str, str] | None = None,
) -> subprocess.Popen[str]:
    """A process that waits for its configuration.

    Args:
        module: What it runs.
        hidden: Environment variables that are none of its business.
        without: Folders of this process's module path that it does not get.
        steps_back: Whether others come first, on Windows; elsewhere it sees to that itself.
        variables: Of the environment, besides those of this process.
    """
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    environment |= dict.fromkeys(ONE_THREAD, "1") | dict(variables or {})
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path and path not in without)
    environment["PYTHONUNBUFFERED"] = "1"
    return subprocess.Popen(
        [sys.executable, "-m", module],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        errors="replace",
        env=environment,
        # Out of the reach of Ctrl-C; the closing of standard input ends it.
        start_new_session=os.name == "posix",
        creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)
        | (getattr(subprocess, "BELOW_NORMAL_PRIORITY_CLASS", 0) if steps_back else 0),
    )


def run(
    process: subprocess.Popen[str],
    configuration: str,
    on_line: Callable[[str], None],
    on_answer: Callable[[str], None] | None = None,
) -> Exit:
    """Tells a process its configuration and stays until it has ended.

    Args:
        process: From ``spawn``.
        configuration: What it does, as one line.
        on_line: Called with each line that it prints, from a thread.
        on_answer: Called with each line of its standard output; None: they are in what is returned.
    """
    tell(process, configuration)
    assert process.stdout is not None
    assert process.stderr is not None
    reader = threading.Thread(target=_read, args=(process.stderr, on_line), name="worker-output", daemon=True)
    reader.start()
    said: list[str] = []
    with process.stdout:
        for line in process.stdout:
            (on_answer or said.append)(line.rstrip("\n"))
    status = process.wait()
    hang_up(process)  # closes the last of its pipes
    reader.join(1.0)
    return Exit(status, tuple(said))


def take_standard_output() -> TextIO:
    """A private handle on standard output for such a process, so that nothing that is printed mixes with answers."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


def tell(process: subprocess.Popen[str], line: str) -> None:
    """Writes a line to its standard input."""
    assert process.stdin is not None
    try:
        process.stdin.write(line)
        process.stdin.flush()
    except (OSError, ValueError):  # It has died, or somebody has hung up.
        _log.debug("process %d could not be told %r", process.pid, line[:20])


def hang_up(process: subprocess.Popen[str]) -> None:
    """Closes its standard input, which ends it."""
    assert process.stdin is not None
    try:
        process.stdin.close()
    except (OSError, ValueError):  # It is dead already, or another thread hangs up at this moment.
        _log.debug("process %d had ended", process.pid)


def end(process: subprocess.Popen[str], grace_s: float) -> None:
    """Waits for its end, and kills it after ``grace_s``."""
    try:
        process.wait(grace_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(5.0)


def describe_status(status: int) -> str:
    """An exit status for people."""
    return f"by signal {-status}" if status < 0 else f"with exit status {status}"


def _read(stream: IO[str], on_line: Callable[[str], None]) -> None:
    with stream:
        for line in stream:
            on_line(line.rstrip())
