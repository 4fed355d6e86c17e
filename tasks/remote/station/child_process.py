"""A process of a worker or of its station as its parent sees it: started, told its configuration, listened to.

``launch`` runs workers on this machine, ``ray_actor`` on the nodes of a cluster, and ``station_process`` the station
of a far worker. A closed standard input ends the process, so it never outlives its parent.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from typing import IO, NamedTuple, TextIO

_log = logging.getLogger(__name__)

WORKER = "tasks.remote.worker.worker"
"""The module that is a worker process."""
ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
"""Variables that are 1 for a worker: workers share their machine with one another and with the learner."""


class Exit(NamedTuple):
    """How a process ended."""

    status: int
    """Exit status; negative: the number of the signal that ended it."""
    said: tuple[str, ...]
    """Lines of its standard output: the failure that it reported, if it did."""


def spawn(
    module: str = WORKER, hidden: Sequence[str] = (), without: Sequence[str] = (), steps_back: bool = False
) -> subprocess.Popen[str]:
    """A process that waits for its configuration.

    Args:
        module: What it runs.
        hidden: Environment variables that are none of its business.
        without: Folders of this process's module path that it does not get.
        steps_back: Whether others come first, on Windows; elsewhere it sees to that itself.
    """
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    environment |= dict.fromkeys(ONE_THREAD, "1")
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
        configuration: ``WorkerConfig`` or ``StationConfig`` as one line.
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
    except OSError:  # It is dead already.
        _log.debug("process %d was gone", process.pid)


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
