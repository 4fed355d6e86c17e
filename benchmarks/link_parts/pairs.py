"""Runs the two ends of a connection in separate processes, and returns their answers."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

TIMEOUT_S = 120.0

_spawn = multiprocessing.get_context("spawn")


def answers(learner: Callable[..., None], worker: Callable[..., None], *arguments: Any) -> tuple[Any, Any]:
    """Starts ``learner(connection, *arguments)`` and, with the address that it sends first, ``worker``.

    Returns:
        The answer of each; both processes wait (``wait_done``) until both have answered.
    """
    processes: list[Any] = []
    try:
        learning = _start(learner, processes, *arguments)
        address = _receive(learning, processes)
        working = _start(worker, processes, address, *arguments)
        answer = _receive(learning, processes)
        worker_answer = _receive(working, processes)
        for connection, process in ((working, processes[1]), (learning, processes[0])):
            connection.send("done")
            process.join(10.0)
        return answer, worker_answer
    finally:
        for process in processes:
            _kill(process)


def wait_done(connection: Connection) -> None:
    """Called by each end after its answer, before it closes the connection."""
    if connection.poll(TIMEOUT_S):
        connection.recv()


def _start(end: Callable[..., None], processes: list[Any], *arguments: Any) -> Connection:
    ours, theirs = _spawn.Pipe()
    process = _spawn.Process(target=_run, args=(end, theirs, *arguments))
    process.start()
    theirs.close()
    processes.append(process)
    return ours


def _run(end: Callable[..., None], connection: Connection, *arguments: Any) -> None:
    """The body of the new process."""
    with contextlib.suppress(AttributeError):  # Windows
        os.setpgrp()  # so that its child processes end with it
    threading.Thread(target=_end_with_parent, daemon=True).start()
    end(connection, *arguments)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        _kill_group(os.getpid())
        os._exit(1)


def _kill(process: Any) -> None:
    """Ends the process, if it still runs, and its child processes."""
    process.kill()
    _kill_group(process.pid)
    process.join(5.0)


def _kill_group(leader: int) -> None:
    with contextlib.suppress(AttributeError, OSError):
        os.killpg(leader, signal.SIGKILL)


def _receive(connection: Connection, processes: Sequence[Any]) -> Any:
    """The next answer; an error when a process has failed instead."""
    deadline_s = time.monotonic() + TIMEOUT_S
    while not connection.poll(0.2):
        if any(process.exitcode for process in processes):
            raise RuntimeError("a measuring process failed; its error is above")
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"no answer within {TIMEOUT_S:.0f} s")
    return connection.recv()
