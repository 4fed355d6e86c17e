"""A remote worker's handle on its station: starts the process, keeps it alive, and knows how it is.

A station that dies is started again at the same port and with the same outbox; the worker's link dials it again and
goes on behind what the outbox has taken.
"""

from __future__ import annotations

import logging
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace

from tasks.remote.access.dialing import RefusedError
from tasks.remote.station import child_process
from tasks.remote.station.child_process import TAIL_LINES, Restarts
from tasks.remote.station.station_config import LEAVE, StationConfig, StationStatus

_log = logging.getLogger(__name__)

MODULE = "tasks.remote.station.worker_station"
_POLL_S = 0.5


class StationFailedError(RuntimeError):
    """Raised when the station cannot go on; holds its traceback or its last lines."""


class StationProcess:
    """A station that is kept alive. All public methods may be called from any thread.

    Args:
        config: What it does.
    """

    def __init__(self, config: StationConfig) -> None:
        self._config = config
        self._changed = threading.Condition()
        self._status = StationStatus()
        self._error: Exception | None = None
        self._on_failure: Callable[[Exception], None] = lambda _: None
        self._is_closing = False
        self._process: subprocess.Popen[str] | None = None
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._thread = threading.Thread(target=self._keep_alive, name="station", daemon=True)

    def start(self) -> None:
        """Starts the process; returns at once."""
        self._thread.start()

    @property
    def status(self) -> StationStatus:
        """How things are."""
        return self._status

    @property
    def process_id(self) -> int | None:
        """Of the process that runs now."""
        process = self._process
        return None if process is None or process.poll() is not None else process.pid

    def on_failure(self, tell: Callable[[Exception], None]) -> None:
        """Has ``tell`` called with what ends the station, at once if it already has."""
        self._on_failure = tell
        if self._error is not None:
            tell(self._error)

    def wait(self, condition: Callable[[StationStatus], bool], stop: threading.Event) -> None:
        """Waits until things are as they should be, or ``stop`` is set.

        Raises:
            RefusedError: There is something that the user has to put right.
            StationFailedError: The station cannot go on.
        """
        with self._changed:
            while not condition(self._status) and not stop.is_set() and self._error is None:
                self._changed.wait(_POLL_S)
        if self._error is not None:
            raise self._error

    def wake(self) -> None:
        """Makes all waits look at their ``stop`` again."""
        with self._changed:
            self._changed.notify_all()

    def close(self, grace_s: float = 3.0) -> None:
        """Ends the process; what is not delivered stays in the outbox. Calling it twice is fine."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
            process = self._process
        if process is not None:
            child_process.tell(process, f"{LEAVE}\n")
            child_process.hang_up(process)
            child_process.end(process, grace_s)
        if self._thread.ident is not None:
            self._thread.join(1.0)

    # --- the process ---

    def _keep_alive(self) -> None:
        """Runs one process after another until there is no need for one."""
        restarts = Restarts()
        while not self._is_closing and self._error is None:
            began_s = time.monotonic()
            reason = self._run()
            if self._is_closing or self._error is not None:
                return
            pause = restarts.pause_s(time.monotonic() - began_s)
            if pause is None:
                lines, count = "\n".join(self._tail) or "(nothing was printed)", restarts.quick_deaths
                self._fail(StationFailedError(f"the station process died {count} times in a row:\n{lines}"))
                return
            _log.warning("the station process ended %s; it is started again in %.1f s", reason, pause)
            with self._changed:
                self._changed.wait_for(lambda: self._is_closing, pause)

    def _run(self) -> str:
        """Runs a process to its end; returns how it ended."""
        try:
            process = child_process.spawn(MODULE, steps_back=True)
        except OSError as error:  # no process, no memory, no file left
            self._fail(StationFailedError(f"the station process could not be started: {error}"))
            return ""
        with self._changed:
            self._process = process
            if self._is_closing:
                child_process.hang_up(process)
        ended = child_process.run(process, self._config.to_line(), self._take_line, self._take_status)
        return child_process.describe_status(ended.status)

    def _take_line(self, line: str) -> None:
        self._tail.append(line)
        _log.info("%s", line)

    def _take_status(self, line: str) -> None:
        status = StationStatus.from_line(line)
        with self._changed:
            self._status = status
            if status.listen:
                # The next process shall be found where this one was, and find what it had.
                self._config = replace(self._config, listen=status.listen, outbox=status.folder)
            self._changed.notify_all()
        if status.refusal:
            self._fail(RefusedError(status.refusal))
        elif status.failure:
            self._fail(StationFailedError(f"the station process failed:\n{status.failure}"))

    def _fail(self, error: Exception) -> None:
        with self._changed:
            self._error = self._error or error
            self._changed.notify_all()
        self._on_failure(self._error)
