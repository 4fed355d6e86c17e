"""The process that talks to Ray: joins the cluster, places workers on its nodes, and reports their status.

It is not the learner's own process because Ray ends the process it is in when its cluster is gone. ``ray_launch``
starts it as ``python -m tasks.remote.launch.ray_process`` with one line of JSON on standard input, the
``RayProcessConfig``, and then one for each worker to run::

    {"run": 7, "worker": NAME, "configuration": LINE}

Standard input closes when everything shall end. It answers on standard output, each time with one line of JSON: first
``{"host": ADDRESS}``, under which the nodes reach this machine, or ``{"refused": WHY}``; then, with the number of the
run, ``placed`` {host, pid, has_same_code}, ``line`` (printed by the worker), ``waits`` (for what) and at last
``ended``: the fields of ``launch.Ending``.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import re
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TextIO

from tasks.remote.launch import ray_cluster
from tasks.remote.launch.launch import Ending
from tasks.remote.launch.ray_actor import WorkerActor, code_digest
from tasks.remote.station.child_process import Line, describe_status, take_standard_output

_POLL_S = 2.0
_UNREACHABLE_S = 10.0
"""A worker whose node has not answered for so long is given up and placed anew."""
_FIRST_WAIT_S = 15.0
_NEXT_WAIT_S = 120.0
_JOIN_GRACE_S = 1.0
_CLOSE_S = 2.5
_SHUTDOWN_S = 5.0
_REASON_CHARACTERS = 600
_TAIL_CHARACTERS = 8000
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class RayProcessConfig(Line):
    """What this process needs to know at first, as plain data."""

    address: str
    """local, auto or host:port, as ``ray.address``."""
    namespace: str
    """Under which the workers are shown."""
    resources: dict[str, float]
    """What one worker takes of a node."""
    num_workers: int
    """Workers that there will be: what a cluster of its own has room for."""


def main() -> int:
    """Serves the launcher until standard input closes; returns the exit code."""
    answers = Answers(take_standard_output())
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    config = RayProcessConfig.from_line(sys.stdin.readline())
    requests = _Requests()
    room = {name: amount * config.num_workers for name, amount in config.resources.items()}
    try:
        host = ray_cluster.join(config.address, config.namespace, room)
        workers = RayWorkers(config, answers)
    except (ray_cluster.NoClusterError, ValueError) as error:
        answers.say({"refused": str(error)})
        return 1
    answers.say({"host": host})
    for request in requests:
        workers.run(**request)
    workers.close()
    return 0


class _Requests:
    """What the launcher asks for, to the end of standard input; an end that comes before the first ends the process.

    Joining a cluster that does not answer cannot be broken off otherwise.
    """

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._is_awaited = threading.Event()
        threading.Thread(target=self._read, name="requests", daemon=True).start()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        self._is_awaited.set()
        while (request := self._queue.get()) is not None:
            yield request

    def _read(self) -> None:
        with contextlib.suppress(ValueError, OSError):
            for line in sys.stdin:
                self._queue.put(json.loads(line))
        self._queue.put(None)
        if not self._is_awaited.wait(_JOIN_GRACE_S):
            os._exit(0)


class Answers:
    """What is said to the launcher, a line at a time, from any thread."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def say(self, answer: Mapping[str, Any]) -> None:
        """Says it, unless the launcher is gone."""
        with self._lock, contextlib.suppress(OSError, ValueError):
            self._stream.write(json.dumps(answer) + "\n")
            self._stream.flush()


class RayWorkers:
    """Places workers on the nodes of the cluster that this process has joined.

    Args:
        config: What each worker takes.
        answers: Where it says how they fare.

    Raises:
        ValueError: Ray does not know such resources.
    """

    def __init__(self, config: RayProcessConfig, answers: Answers) -> None:
        import ray

        self._ray = ray
        self._answers = answers
        self._resources = config.resources
        self._code = code_digest()
        # It is for the launcher to start a worker again, under a new name.
        options = {"max_restarts": 0, "max_task_retries": 0, "max_concurrency": 4, "scheduling_strategy": "SPREAD"}
        options |= _demand(config.resources)
        self._actor_class = ray.remote(**options)(WorkerActor)
        self._is_closing = threading.Event()
        self._lock = threading.Lock()
        self._actors: dict[int, Any] = {}
        self._threads: list[threading.Thread] = []

    def run(self, run: int, worker: str, configuration: str) -> None:
        """Places a worker and stays with it in a thread until it has ended."""
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        thread = threading.Thread(target=self._attend, args=(run, worker, configuration), name=worker, daemon=True)
        self._threads.append(thread)
        thread.start()

    def close(self) -> None:
        """Ends all workers, kindly at first."""
        self._is_closing.set()
        with self._lock:
            actors = list(self._actors.values())
        for actor in actors:
            actor.stop.remote()
        deadline = time.monotonic() + _CLOSE_S
        for thread in self._threads:
            thread.join(max(deadline - time.monotonic(), 0.0))

    # --- one worker ---

    def _attend(self, run: int, worker: str, configuration: str) -> None:
        try:
            ending = self._run(run, worker, configuration)
        except Exception as error:  # What Ray cannot do for this worker it may do for the next.
            ending = self._not_placed(error)
        self._answers.say({"run": run, "ended": ending._asdict()})

    def _run(self, run: int, worker: str, configuration: str) -> Ending:
        actor = self._actor_class.options(name=worker).remote()
        with self._lock:
            self._actors[run] = actor
        try:
            placed = self._place(run, actor, configuration)
            if placed is None:
                return Ending("before there was room for it", is_own=False)
            has_same_code = placed["code"] == self._code
            self._answers.say(
                {"run": run, "placed": {"host": placed["host"], "pid": placed["pid"], "has_same_code": has_same_code}}
            )
            return self._follow(run, actor, placed)
        finally:
            with self._lock:
                del self._actors[run]
            self._ray.kill(actor)

    def _place(self, run: int, actor: Any, configuration: str) -> dict[str, Any] | None:
        """Waits for a node with room; None: everything shall end."""
        started = actor.start.remote(configuration)
        says_at = time.monotonic() + _FIRST_WAIT_S
        while not self._is_ready(started, 1.0):
            if self._is_closing.is_set():
                return None
            if time.monotonic() > says_at:
                says_at = time.monotonic() + _NEXT_WAIT_S
                self._answers.say({"run": run, "waits": self._shortage()})
        placed: dict[str, Any] = self._ray.get(started)
        return placed

    def _follow(self, run: int, actor: Any, placed: Mapping[str, Any]) -> Ending:
        """Passes on what the worker prints until it has ended, or its node."""
        answered_s = started_s = time.monotonic()
        while True:
            try:
                news = self._poll(actor)
            except self._ray.exceptions.ActorUnavailableError:
                news = None
            except self._ray.exceptions.RayActorError as error:
                return self._lost(placed, error, time.monotonic() - started_s)
            if news is None:
                if time.monotonic() - answered_s > _UNREACHABLE_S:
                    return _lost_with(placed, ", which does not answer", time.monotonic() - started_s)
                time.sleep(0.5)
                continue
            answered_s = time.monotonic()
            for line in news["lines"]:
                self._answers.say({"run": run, "line": line})
            if news["exit"] is not None:
                ended = news["exit"]
                reason = f"{describe_status(ended['status'])} on {placed['host']}"
                return Ending(reason, tuple(ended["said"]), lived_s=ended["lived_s"])

    def _poll(self, actor: Any) -> dict[str, Any] | None:
        """News of a worker; None when its node has not answered."""
        news = actor.poll.remote(_POLL_S)
        return self._ray.get(news) if self._is_ready(news, _POLL_S + _UNREACHABLE_S) else None

    def _lost(self, placed: Mapping[str, Any], error: Exception, lived_s: float) -> Ending:
        """Ray's process for a worker has died: alone, or with its node."""
        alive = {node["NodeID"] for node in self._ray.nodes() if node["Alive"]}
        if placed["node"] not in alive:
            return _lost_with(placed, "", lived_s)
        return Ending(f"with Ray's process for it on {placed['host']}", (), _short(str(error)), lived_s)

    def _not_placed(self, error: Exception) -> Ending:
        """A worker that could not be started on its node, or Ray that could not be asked."""
        text = _COLOUR.sub("", str(error)).strip() or type(error).__name__
        if not isinstance(error, self._ray.exceptions.RayTaskError) and not getattr(error, "actor_init_failed", False):
            return Ending(f"before it ran: {_short(text)}", is_own=False)
        found = re.search(r"\bip=([^,)\s]+)", text)
        where = f"on {found.group(1)} before it ran" if found else "before it ran"
        why = f"{_short(text.splitlines()[-1])}; every node needs this project: pip install -e '.[cluster]'"
        return Ending(f"{where}: {why}", tail=text[-_TAIL_CHARACTERS:])

    def _is_ready(self, reference: Any, timeout_s: float) -> bool:
        ready, _ = self._ray.wait([reference], timeout=timeout_s)
        return bool(ready)

    def _shortage(self) -> str:
        names = sorted(self._resources)
        free = self._ray.available_resources()
        every = self._ray.cluster_resources()
        wanted = ", ".join(f"{name}: {self._resources[name]:g}" for name in names)
        there = ", ".join(f"{free.get(name, 0.0):g} of {every.get(name, 0.0):g} {name}" for name in names)
        return f"a node with {{{wanted}}} free; all nodes together have {there} free"


def _demand(resources: Mapping[str, float]) -> dict[str, Any]:
    """What a worker takes, in the words of Ray."""
    named = {"CPU": "num_cpus", "GPU": "num_gpus", "memory": "memory"}
    # Ray's default would be one CPU to start on and none to stay.
    demand: dict[str, Any] = {"num_cpus": 0}
    demand |= {named[name]: amount for name, amount in resources.items() if name in named}
    return demand | {"resources": {name: amount for name, amount in resources.items() if name not in named}}


def _lost_with(placed: Mapping[str, Any], how: str, lived_s: float) -> Ending:
    return Ending(f"with its node {placed['host']}{how}", lived_s=lived_s, is_own=False)


def _short(text: str) -> str:
    """One line."""
    line = " ".join(text.split())
    return line if len(line) <= _REASON_CHARACTERS else f"{line[:_REASON_CHARACTERS]}..."


def _leave(status: int) -> None:
    """Ends the process: Ray's own way out may wait for a cluster that is gone."""

    def shut_down() -> None:
        import ray

        with contextlib.suppress(Exception):
            ray.shutdown()

    thread = threading.Thread(target=shut_down, name="shutdown", daemon=True)
    thread.start()
    thread.join(_SHUTDOWN_S)
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    _leave(main())
