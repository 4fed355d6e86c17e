"""Keeps worker processes alive on the nodes of a Ray cluster (``launcher=ray``); the extra ``cluster``.

Ray places each worker where its resources are and shows it by name; when it or its node dies it is placed anew, under a
new name. Only that goes over Ray: segments and weights go over the link, straight between worker and learner. Who talks
to Ray is a process of its own (``ray_driver``), so that a cluster that dies does not take the learner along; nothing
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
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tasks.remote.config import RayConfig
from tasks.remote.launch.launch import TAIL_LINES, Ending, Place, WorkerFailed, WorkerLauncher, WorkerRefused
from tasks.remote.launch.ray_cluster import LOCAL
from tasks.remote.launch.ray_driver import DriverConfig
from tasks.remote.worker.worker import WorkerConfig

_log = logging.getLogger(__name__)

CLUSTER_GONE_S = 600.0
"""A cluster that was there and cannot be joined again for so long is given up [s]."""

_ANSWER_S = 90.0
_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 30.0
_CLOSE_S = 10.0
_TOKEN_BYTES = 32
_DRIVER = "tasks.remote.launch.ray_driver"


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
        self._driver_config = DriverConfig(ray.address, ray.namespace, ray.worker_resources, len(places))
        self._joining = threading.Lock()
        self._driver: _Driver | None = None
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
        self._driver = _Driver(self._driver_config)
        host = self._driver.wait_host(self._is_closing)
        _log.info("workers run on the Ray cluster ray.address=%s; this machine is %s to it", self._address, host)
        return host

    def process_ids(self) -> dict[Place, int]:
        """Processes that run now, by their number on the node that they are on."""
        return dict(self._placed)

    def _run(self, place: Place, config: WorkerConfig) -> Ending:
        driver = self._joined()
        if driver is None:
            return Ending("before it was placed", is_own=False)
        tail: deque[str] = deque(maxlen=TAIL_LINES)
        try:
            return self._follow(driver.run(config.worker, config.to_line()), place, config, tail)
        finally:
            self._placed.pop(place, None)

    def _follow(
        self, answers: queue.SimpleQueue[dict[str, Any]], place: Place, config: WorkerConfig, tail: deque[str]
    ) -> Ending:
        """Takes note of what is said of one worker, to its end."""
        started_s = time.monotonic()
        while True:
            answer = answers.get()  # The end of the driver, too, is an answer.
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

    def _joined(self) -> _Driver | None:
        """The driver; joins the cluster anew when it was lost. None: everything shall end.

        Raises:
            WorkerRefused: It has not been there for ``CLUSTER_GONE_S``.
        """
        with self._joining:
            gone_s, pause = time.monotonic(), _FIRST_PAUSE_S
            while not self._is_closing.is_set():
                if self._driver is not None:
                    if self._driver.is_alive:
                        return self._driver
                    self._driver.close()
                try:
                    driver = self._driver = _Driver(self._driver_config)
                    driver.wait_host(self._is_closing)
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
        if self._driver is not None:
            self._driver.close()


class _Driver:
    """The process that talks to Ray, and what it says about each run.

    Args:
        config: What it needs to know at first.
    """

    def __init__(self, config: DriverConfig) -> None:
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._runs: dict[int, queue.SimpleQueue[dict[str, Any]]] = {}
        self._last_run = 0
        self._address = config.address
        self._first: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._is_over = False
        self._process = _spawn_driver(config.address)
        for target in (self._read_answers, self._read_errors):
            threading.Thread(target=target, name=f"ray{target.__name__}", daemon=True).start()
        self._tell(config.to_line())

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
        """Has a worker run; what is said of it comes from the queue, an empty answer when the driver is gone."""
        answers: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        with self._lock:
            self._last_run += 1
            run = self._last_run
            self._runs[run] = answers
            if self._is_over:
                answers.put({})
        self._tell(json.dumps({"run": run, "worker": worker, "configuration": configuration}) + "\n")
        return answers

    def close(self) -> None:
        """Ends all workers and the driver. Calling it twice is fine."""
        self._hang_up()
        try:
            self._process.wait(_CLOSE_S)
        except subprocess.TimeoutExpired:
            # What it has started on this machine ends with it.
            self._process.kill()
            self._process.wait(5.0)

    def _hang_up(self) -> None:
        assert self._process.stdin is not None
        # Not to be had while the driver does not take what it is told.
        if not self._writing.acquire(timeout=1.0):
            self._process.kill()
            return
        try:
            self._process.stdin.close()
        except OSError:
            _log.debug("the driver was gone")
        finally:
            self._writing.release()

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        with self._writing:
            try:
                self._process.stdin.write(line)
                self._process.stdin.flush()
            except (OSError, ValueError):  # It is dead, which the end of its output says, too.
                _log.debug("the driver could not be told")

    def _read_answers(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self._take(line)
        self._sweep()
        with self._lock:
            self._is_over = True
            runs = [self._first, *self._runs.values()]
        for answers in runs:
            answers.put({})

    def _sweep(self) -> None:
        """Ends what a driver that was killed has left of a cluster of its own: all that is in its process group."""
        if self._address == LOCAL and os.name == "posix":
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def _take(self, line: str) -> None:
        try:
            answer: Mapping[str, Any] = json.loads(line)
            run = answer.get("run")
        except (ValueError, AttributeError):
            _log.warning("the driver said %r", line[:200])
            return
        with self._lock:
            answers = self._first if run is None else self._runs.get(run)
            if "ended" in answer and run is not None:
                self._runs.pop(run, None)
        if answers is not None:
            answers.put(dict(answer))

    def _read_errors(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as lines:
            for line in lines:
                self._tail.append(line.rstrip())
                _log.debug("ray | %s", line.rstrip())


def _spawn_driver(address: str) -> subprocess.Popen[str]:
    environment = dict(os.environ)
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    environment["PYTHONUNBUFFERED"] = "1"
    if address == LOCAL:
        # A cluster of this run alone: a secret of its own, and no port that another machine can reach.
        environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(_TOKEN_BYTES)}
        environment["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    else:
        # Without it Ray only shows its token to clusters that it has found by itself.
        environment.setdefault("RAY_AUTH_MODE", "token")
    return subprocess.Popen(
        [sys.executable, "-m", _DRIVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        errors="replace",
        env=environment,
        # Out of the reach of Ctrl-C, with all that it starts; the closing of standard input ends it.
        start_new_session=os.name == "posix",
        creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
    )
