"""Keeps a process that drives in real time on time while others compute: priority, and no long garbage collections.

Workers, evaluations and the roles at the game drive inside ``punctual()``. It changes the whole process, so long
computations must run elsewhere: learning has its own process.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

_REALTIME_PRIORITY = 1
"""The least of Linux's real-time priorities, which still comes before every ordinary thread."""
_HINT = (
    "allow it with the line '{user} - rtprio 1' in /etc/security/limits.d/99-realtime.conf and log in again, "
    "or expect late steps while the machine is busy"
)

_logger = logging.getLogger(__name__)


@contextlib.contextmanager
def punctual() -> Iterator[str]:
    """Gives this process precedence while it drives; enter it when everything is loaded.

    On Linux its threads are scheduled in real time (SCHED_RR), which the system must permit; on Windows the process
    gets the high priority class, which everybody may (never run there). What exists already is left out of garbage
    collection: a full collection takes longer than a time step once torch is loaded.

    Yields:
        What was done, for the log.
    """
    done, undo = _take_precedence()
    is_nested = gc.get_freeze_count() > 0
    if not is_nested:
        gc.collect()
        gc.freeze()
    try:
        yield done
    finally:
        if not is_nested:
            gc.unfreeze()
        undo()


def _take_precedence() -> tuple[str, Callable[[], None]]:
    """Raises the priority; returns what was done and how to undo it."""
    if sys.platform == "win32":
        return _high_priority_class()
    if hasattr(os, "sched_setscheduler"):
        return _realtime_scheduling()
    return "normal priority", lambda: None


def _realtime_scheduling() -> tuple[str, Callable[[], None]]:
    before, parameter = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        _schedule(os.SCHED_RR, os.sched_param(_REALTIME_PRIORITY))
    except OSError:  # PermissionError, or a container that knows no scheduling
        _say_how_to_allow_it()
        return "normal priority", lambda: None
    return "real-time priority", lambda: _schedule(before, parameter)


@functools.cache
def _say_how_to_allow_it() -> None:
    """Logs once per process how to permit real-time scheduling."""
    user = os.environ.get("USER") or os.getuid()
    _logger.info("this process may not be scheduled in real time: %s", _HINT.format(user=user))


def _schedule(policy: int, parameter: os.sched_param) -> None:
    """Schedules all threads of this process so; threads that they start inherit it."""
    os.sched_setscheduler(0, policy, parameter)
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(ProcessLookupError):  # the thread has ended
            os.sched_setscheduler(int(task.name), policy, parameter)


def _high_priority_class() -> tuple[str, Callable[[], None]]:
    import psutil

    process = psutil.Process()
    before = process.nice()
    process.nice(getattr(psutil, "HIGH_PRIORITY_CLASS"))  # noqa: B009 (exists on Windows only)
    return "high priority", lambda: process.nice(before)
