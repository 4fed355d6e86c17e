"""What Ray runs on a node for each worker: starts the worker process, passes on what it prints, ends it.

The worker is a process of its own, the same as on the learner's machine: one that crashes takes nothing of Ray with it,
its exit status and last lines are known, and its libraries keep to one thread. ``ray_process`` makes an actor of
``WorkerActor``; when Ray ends the actor, the worker's standard input closes, and so does the worker.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any

from tasks.remote.station import child_process

HIDDEN = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
"""Variables that a worker does not get: anybody who has the token of the cluster can run code on all of its nodes."""

_GRACE_S = 1.3
_MAX_LINES = 1000


def code_digest() -> str:
    """Changes with the code of this project, by which nodes can be compared with the learner."""
    digest = hashlib.sha256()
    for package in ("tasks", "algos"):
        found = importlib.util.find_spec(package)
        for folder in (found.submodule_search_locations or []) if found else []:
            for path in sorted(Path(folder).rglob("*.py")):
                digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


class WorkerActor:
    """Keeps one worker process. Its methods are called over Ray, several at a time; all data is plain."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._lines: deque[str] = deque(maxlen=_MAX_LINES)
        self._process: subprocess.Popen[str] | None = None
        self._exit: child_process.Exit | None = None
        self._started_s = 0.0

    def start(self, configuration: str) -> dict[str, Any]:
        """Starts the worker.

        Args:
            configuration: ``WorkerConfig`` as one line.

        Returns:
            node (Ray's id of it), host (its address), pid, and code: ``code_digest`` there.

        Raises:
            OSError: There is no process, no memory or no file left.
        """
        process = child_process.spawn(hidden=HIDDEN, without=_ray_folders())
        self._started_s = time.monotonic()
        self._process = process
        threading.Thread(target=self._attend, args=(process, configuration), name="attend", daemon=True).start()
        return {**_where(), "pid": process.pid, "code": code_digest()}

    def poll(self, timeout_s: float) -> dict[str, Any]:
        """What has happened since the last time; waits for something at most ``timeout_s``.

        Returns:
            lines that the worker printed; exit is None while it runs, then {status, said, lived_s}.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._lines or self._exit is not None, timeout_s)
            lines = list(self._lines)
            self._lines.clear()
            return {"lines": lines, "exit": self._ending()}

    def stop(self) -> None:
        """Ends the worker, kindly at first; returns when it has ended."""
        if self._process is not None:
            child_process.hang_up(self._process)
            child_process.end(self._process, _GRACE_S)

    def _attend(self, process: subprocess.Popen[str], configuration: str) -> None:
        ended = child_process.run(process, configuration, self._take_line)
        with self._changed:
            self._lived_s = time.monotonic() - self._started_s
            self._exit = ended
            self._changed.notify_all()

    def _take_line(self, line: str) -> None:
        with self._changed:
            self._lines.append(line)
            self._changed.notify_all()

    def _ending(self) -> dict[str, Any] | None:
        if self._exit is None:
            return None
        return {"status": self._exit.status, "said": list(self._exit.said), "lived_s": self._lived_s}


def _where() -> dict[str, Any]:
    import ray

    return {"node": ray.get_runtime_context().get_node_id(), "host": ray.util.get_node_ip_address()}


def _ray_folders() -> list[str]:
    """Folders that Ray has put in this process's module path for itself."""
    import ray

    package = Path(ray.__file__).resolve().parent
    return [path for path in sys.path if path and package in Path(os.path.realpath(path)).parents]
