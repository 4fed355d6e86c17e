"""Keeps worker processes alive on the nodes of a Ray cluster (``launcher=ray``); the extra ``cluster``.

Ray places each worker where its resources are and shows it by name; when it or its node dies it is placed anew, under a
new name. Only that goes over Ray: segments and weights go over the link, straight between worker and learner. Who talks
to Ray is a process of its own (``ray_process``), so that a cluster that dies does not take the learner along; nothing
here imports ray.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import os
import queue
import secrets
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tasks.remote.config import RayConfig
from tasks.remote.launch.launch import Ending, Place, WorkerFailed, WorkerLauncher, WorkerRefused
from tasks.remote.launch.ray_cluster import LOCAL
from tasks.remote.launch.ray_process import RayProcessConfig
from tasks.remote.station import child_process
from tasks.remote.station.child_process import TAIL_LINES
from tasks.remote.worker.worker import WorkerConfig

_log = logging.getLogger(__name__)

CLUSTER_GONE_S = 600.0
"""A cluster that was there and cannot be joined again for so long is given up [s]."""

_ANSWER_S = 90.0
_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 30.0
_CLOSE_S = 10.0
_TOKEN_BYTES = 32
_MODULE = "tasks.remote.launch.ray_process"


def check_ray() -> None:
    """Refuses to go on without Ray.

    Raises:
        ValueError: It is not installed; names the command.
    """
    if importlib.util.find_spec("ray") is None:
        raise ValueError("launcher=ray needs the package ray: pip install -e '.[cluster]'")


class RayLauncher(WorkerLauncher):
    """Worker processes on a Ray cluster.

    Args:
        places: The processes to keep alive.
        make_config: Configuration for a place and an incarnation 1, 2, 3, ...
        on_failure: Called once for each worker that cannot go on, from a thread of the launcher.
        ray: Which cluster, and what a worker takes of a node.

    Raises:
        ValueError: Ray is not installed.
    """

    def __init__(
        self,
        places: Sequence[Place],
        make_config: Callable[[Place, int], WorkerConfig],
        on_failure: Callable[[WorkerFailed], None],
        ray: RayConfig,
    ) -> None:
        check_ray()
        super().__init__(places, make_config, on_failure)
        self._address = ray.address
        self._process_config = RayProcessConfig(ray.address, ray.namespace, ray.worker_resources, len(places))
        self._joining = threading.Lock()
        self._process: _RayProcess | None = None
        self._placed: dict[Place, int] = {}
        self._other_code: set[str] = set()

    def prepare(self) -> str:
        """Joins the cluster; returns the address under which its nodes reach this machine.

        Raises:
            WorkerRefused: There is no such cluster, or it does not let this machine in.
        """
        if os.environ.get("RAY_AUTH_MODE", "token").lower() != "token" and self._address != LOCAL:
            _log.warning(
                "RAY_AUTH_MODE=%s: anybody who reaches the ports of this Ray cluster can run code on all of its nodes",
                os.environ["RAY_AUTH_MODE"],
            )
        self._process = _RayProcess(self._process_config)
        host = self._process.wait_host(self._is_closing)
        _log.info("workers run on the Ray cluster ray.address=%s; this machine is %s to it", self._address, host)
        return host

    def process_ids(self) -> dict[Place, int]:
        """Processes that run now, by their number on the node that they are on."""
        return dict(self._placed)

    def _run(self, place: Place, config: WorkerConfig) -> Ending:
        process = self._joined()
        if process is None:
            return Ending("before it was placed", is_own=False)
        tail: deque[str] = deque(maxlen=TAIL_LINES)
        try:
            return self._follow(process.run(config.worker, config.to_line()), place, config, tail)
        finally:
            self._placed.pop(place, None)

    def _follow(
        self, answers: queue.SimpleQueue[dict[str, Any]], place: Place, config: WorkerConfig, tail: deque[str]
    ) -> Ending:
        """Takes note of what is said of one worker, to its end."""
        started_s = time.monotonic()
        while True:
            answer = answers.get()  # The end of the process, too, is an answer.
            if "placed" in answer:
                self._placed[place] = answer["placed"]["pid"]
                self._note_placed(config.worker, answer["placed"])
            elif "waits" in answer:
                _log.warning("%s waits for %s", config.worker, answer["waits"])
            elif "line" in answer:
                tail.append(answer["line"])
                _log.info("%s | %s", config.worker, answer["line"])
            elif "ended" in answer:
                ended = answer["ended"]
                ending = Ending(**{**ended, "said": tuple(ended["said"])})
                return ending._replace(tail="\n".join([*tail, *filter(None, [ending.tail])]))
            else:
                return Ending("with the Ray cluster", lived_s=time.monotonic() - started_s, is_own=False)

    def _note_placed(self, worker: str, placed: Mapping[str, Any]) -> None:
        host = placed["host"]
        _log.info("%s runs on %s", worker, host)
        if not placed["has_same_code"] and host not in self._other_code:
            self._other_code.add(host)
            _log.warning(
                "the code of this project on %s is not the learner's; what its workers send may mean something else: "
                "install the same version there",
                host,
            )

    # --- the cluster ---

    def _joined(self) -> _RayProcess | None:
        """The process; joins the cluster anew when it was lost. None: everything shall end.

        Raises:
            WorkerRefused: It has not been there for ``CLUSTER_GONE_S``.
        """
        with self._joining:
            gone_s, pause = time.monotonic(), _FIRST_PAUSE_S
            while not self._is_closing.is_set():
                if self._process is not None:
                    if self._process.is_alive:
                        return self._process
                    self._process.close()
                try:
                    process = self._process = _RayProcess(self._process_config)
                    process.wait_host(self._is_closing)
                    _log.info("joined the Ray cluster again")
                except WorkerRefused as refused:
                    if time.monotonic() - gone_s > CLUSTER_GONE_S:
                        raise
                    if self._is_closing.is_set():
                        break
                    _log.warning("%s; tried again in %.0f s", refused, pause)
                    self._is_closing.wait(pause)
                    pause = min(2 * pause, _LONGEST_PAUSE_S)
            return None

    def _end_all(self) -> None:
        if self._process is not None:
            self._process.close()


class _RayProcess:
    """The process that talks to Ray, and what it says about each run.

    Args:
        config: What it needs to know at first.
    """

    def __init__(self, config: RayProcessConfig) -> None:
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._runs: dict[int, queue.SimpleQueue[dict[str, Any]]] = {}
        self._last_run = 0
        self._address = config.address
        self._first: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._is_over = False
        self._process = child_process.spawn(_MODULE, variables=_variables(config.address))
        threading.Thread(target=self._attend, args=(config.to_line(),), name="ray-process", daemon=True).start()

    @property
    def is_alive(self) -> bool:
        """Whether it can be asked to run something."""
        return not self._is_over

    def wait_host(self, is_closing: threading.Event) -> str:
        """Waits until it has joined the cluster; returns the address of this machine in it.

        Raises:
            WorkerRefused: It has not.
        """
        deadline = time.monotonic() + _ANSWER_S
        answer: dict[str, Any] | None = None
        while answer is None and not is_closing.is_set():
            try:
                answer = self._first.get(timeout=0.5)
            except queue.Empty:
                if time.monotonic() > deadline:
                    answer = {"refused": f"no answer for {_ANSWER_S:.0f} s"}
        answer = answer or {}
        if "host" in answer:
            return str(answer["host"])
        self.close()
        why = answer.get("refused") or "the process that talks to Ray died:\n" + "\n".join(self._tail)
        raise WorkerRefused(f"no Ray cluster at ray.address={self._address}: {why}")

    def run(self, worker: str, configuration: str) -> queue.SimpleQueue[dict[str, Any]]:
        """Has a worker run; what is said of it comes from the queue, an empty answer when this process is gone."""
        answers: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        with self._lock:
            self._last_run += 1
            run = self._last_run
            self._runs[run] = answers
            if self._is_over:
                answers.put({})
        with self._writing:
            request = {"run": run, "worker": worker, "configuration": configuration}
            child_process.tell(self._process, json.dumps(request) + "\n")
        return answers

    def close(self) -> None:
        """Ends all workers and the process. Calling it twice is fine."""
        # Not to be had while the process does not take what it is told.
        if self._writing.acquire(timeout=1.0):
            child_process.hang_up(self._process)
            self._writing.release()
        else:
            self._process.kill()
        # What it has started on this machine ends with it.
        child_process.end(self._process, _CLOSE_S)

    def _attend(self, configuration: str) -> None:
        """Stays with the process until it has ended."""
        child_process.run(self._process, configuration, self._take_line, self._take)
        if self._address == LOCAL and os.name == "posix":
            # What a process that was killed has left of a cluster of its own: all that is in its process group.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        with self._lock:
            self._is_over = True
            runs = [self._first, *self._runs.values()]
        for answers in runs:
            answers.put({})

    def _take(self, line: str) -> None:
        try:
            answer: dict[str, Any] = json.loads(line)
            run = answer.get("run")
        except (ValueError, AttributeError):
            _log.warning("the process that talks to Ray said %r", line[:200])
            return
        with self._lock:
            answers = self._first if run is None else self._runs.get(run)
            if "ended" in answer and run is not None:
                self._runs.pop(run, None)
        if answers is not None:
            answers.put(answer)

    def _take_line(self, line: str) -> None:
        self._tail.append(line)
        _log.debug("ray | %s", line)


def _variables(address: str) -> dict[str, str]:
    """What the process that talks to Ray is told by its environment."""
    if address != LOCAL:
        # Without it Ray only shows its token to clusters that it has found by itself.
        return {"RAY_AUTH_MODE": os.environ.get("RAY_AUTH_MODE", "token")}
    # A cluster of this run alone: a secret of its own, and no port that another machine can reach.
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(_TOKEN_BYTES),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    }
