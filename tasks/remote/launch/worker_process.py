"""One worker process as its parent sees it: started, told its configuration, listened to until it ends.

``launch`` runs them on this machine, and ``ray_keeper`` on the nodes of a cluster. A closed standard input ends the
process, so it never outlives its parent.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from typing import IO, NamedTuple

_log = logging.getLogger(__name__)

ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
"""Variables that are 1 for a worker: workers share their machine with one another and with the learner."""


class Exit(NamedTuple):
    """How a worker process ended."""

    status: int
    """Exit status; negative: the number of the signal that ended it."""
    said: tuple[str, ...]
    """Lines of its standard output: the failure that it reported, if it did."""


def spawn(hidden: Sequence[str] = (), without: Sequence[str] = ()) -> subprocess.Popen[str]:
    """A worker process that waits for its configuration.

    Args:
        hidden: Environment variables that are none of its business.
        without: Folders of this process's module path that it does not get.
    """
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    environment |= dict.fromkeys(ONE_THREAD, "1")
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path and path not in without)
    environment["PYTHONUNBUFFERED"] = "1"
    return subprocess.Popen(
        [sys.executable, "-m", "tasks.remote.worker.worker"],
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


def run(process: subprocess.Popen[str], configuration: str, on_line: Callable[[str], None]) -> Exit:
    """Tells a process its configuration and stays until it has ended.

    Args:
        process: From ``spawn``.
        configuration: ``WorkerConfig`` as one line.
        on_line: Called with each line that it prints, from a thread.
    """
    _tell(process, configuration)
    assert process.stdout is not None
    assert process.stderr is not None
    reader = threading.Thread(target=_read, args=(process.stderr, on_line), name="worker-output", daemon=True)
    reader.start()
    with process.stdout:
        said = tuple(line.rstrip("\n") for line in process.stdout)
    status = process.wait()
    hang_up(process)  # closes the last of its pipes
    reader.join(1.0)
    return Exit(status, said)


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


def _tell(process: subprocess.Popen[str], configuration: str) -> None:
    assert process.stdin is not None
    try:
        process.stdin.write(configuration)
        process.stdin.flush()
    except (OSError, ValueError):  # It died at once, or somebody has hung up.
        _log.debug("process %d could not be told its configuration", process.pid)


def _read(stream: IO[str], on_line: Callable[[str], None]) -> None:
    with stream:
        for line in stream:
            on_line(line.rstrip())
