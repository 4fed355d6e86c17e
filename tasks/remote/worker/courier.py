"""A far worker's handle on its courier process: hands over segments without ever waiting, takes the newest weights.

Segments stay here until the courier has them on the disk, so that a courier that is killed is started again and nothing
is lost or doubled. Used by ``far_worker``; what the courier does is in ``courier_process``.
"""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import IO

from tasks.remote.worker.courier_pipe import CourierConfig, CourierStatus, Kind, read_frame, write_frame
from tasks.remote.worker.uplink import RefusedError

_log = logging.getLogger(__name__)

BUFFER_BYTES = 128 << 20
"""What may wait here for the courier; beyond it the oldest segments go, or the worker waits."""
MAX_QUICK_DEATHS = 5
"""A courier that dies so often in a row, each time young, is given up."""
QUICK_DEATH_S = 20.0
"""A courier that lived shorter than this died young [s]."""

_FIRST_PAUSE_S = 0.2
_POLL_S = 0.5
_TAIL_LINES = 30


class CourierFailedError(RuntimeError):
    """Raised when the courier cannot go on; holds its traceback or its last lines."""


class Courier:
    """A courier process that is kept alive. All public methods may be called from any thread.

    Args:
        config: What it does.
        buffer_bytes: Segments that wait here for it at most [bytes]; the newest always stays.
    """

    def __init__(self, config: CourierConfig, buffer_bytes: int = BUFFER_BYTES) -> None:
        self._config = config
        self._buffer_bytes = buffer_bytes
        self._changed = threading.Condition()
        self._frames: deque[tuple[int, bytes]] = deque()
        self._frames_bytes = 0
        self._last_number = 0
        self._is_full = False
        self._order: Kind | None = None
        self._is_closing = False
        self._has_finished = False
        self._weights: bytearray | None = None
        self._request: bytearray | None = None
        self._report: bytes | None = None
        self._hangs_for_ms: int | None = None
        self._status = CourierStatus()
        self._error: Exception | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._keeper = threading.Thread(target=self._keep_alive, name="courier", daemon=True)

    def start(self) -> None:
        """Starts the process; returns at once."""
        self._keeper.start()

    # --- segments ---

    def send(self, message: bytes) -> None:
        """Hands over an encoded segment without sequence number; never waits."""
        with self._changed:
            self._last_number += 1
            self._frames.append((self._last_number, message))
            self._frames_bytes += len(message)
            while self._frames_bytes > self._buffer_bytes and len(self._frames) > 1:
                # The courier sees that a number is missing, and counts it.
                self._frames_bytes -= len(self._frames.popleft()[1])
            self._changed.notify_all()

    @property
    def unacknowledged(self) -> int:
        """Segments that the learner has not stored."""
        return self._last_number - self._status.taken + self._status.segments

    def has_room(self, window: int | None, may_drop: bool) -> bool:
        """Whether another segment is welcome.

        Args:
            window: Segments that the learner has not stored, at which it is not; None: no such limit.
            may_drop: Whether one is always welcome as far as the outbox is concerned, because the oldest may go.
        """
        with self._changed:
            return self._has_room(window, may_drop)

    def wait_for_room(self, window: int | None, may_drop: bool, stop: threading.Event) -> None:
        """Waits until another segment is welcome, or ``stop`` is set.

        Raises:
            RefusedError: There is something that the user has to put right.
            CourierFailedError: The courier cannot go on.
        """
        self._wait(lambda: self._has_room(window, may_drop), stop)

    def wait_until_joined(self, stop: threading.Event) -> None:
        """Waits until the learner has taken this worker in, or ``stop`` is set.

        Raises:
            RefusedError: There is something that the user has to put right.
            CourierFailedError: The courier cannot go on.
        """
        self._wait(lambda: self._status.has_joined, stop)

    # --- weights and state ---

    def take_weights(self) -> bytearray | None:
        """The newest message of the Weights stream, once."""
        with self._changed:
            weights, self._weights = self._weights, None
        return weights

    @property
    def has_request(self) -> bool:
        """Whether a request for an evaluation waits."""
        return self._request is not None

    def take_request(self) -> bytearray | None:
        """The newest request for an evaluation, once."""
        with self._changed:
            request, self._request = self._request, None
        return request

    def report(self, message: bytes) -> None:
        """Hands over the report of an evaluation; never waits. Where it is lost the learner asks again."""
        with self._changed:
            self._report = message
            self._changed.notify_all()

    def note_hanging(self, hangs_for_s: float) -> None:
        """Has the learner know how long the environment has not come back; 0: it has. Never waits."""
        with self._changed:
            self._hangs_for_ms = round(1e3 * hangs_for_s)
            self._changed.notify_all()

    @property
    def status(self) -> CourierStatus:
        """How things are."""
        return self._status

    @property
    def process_id(self) -> int | None:
        """Of the process that runs now."""
        process = self._process
        return None if process is None or process.poll() is not None else process.pid

    def raise_failure(self) -> None:
        """Raises what ended the courier, if anything did."""
        if self._error is not None:
            raise self._error

    def wake(self) -> None:
        """Makes all waits look at their ``stop`` again."""
        with self._changed:
            self._changed.notify_all()

    # --- end ---

    def finish(self, stop: threading.Event) -> None:
        """Has everything delivered, however long that takes; returns early when ``stop`` is set.

        Raises:
            RefusedError: There is something that the user has to put right.
            CourierFailedError: The courier cannot go on.
        """
        with self._changed:
            self._order = Kind.finish
            self._changed.notify_all()
        self._wait(lambda: self._has_finished, stop)

    def close(self, grace_s: float = 3.0) -> int:
        """Ends the process; what is not delivered stays in the outbox. Calling it twice is fine.

        Returns:
            Segments that could not be kept.
        """
        with self._changed:
            self._is_closing = True
            self._order = Kind.leave
            self._changed.notify_all()
        if self._keeper.ident is not None:
            self._keeper.join(grace_s)
            if self._process is not None and self._process.poll() is None:
                self._process.kill()
            self._keeper.join(1.0)
        return self._last_number - self._status.taken

    # --- the process ---

    def _keep_alive(self) -> None:
        """Runs one process after another until there is no need for one."""
        quick_deaths = 0
        while True:
            began_s = time.monotonic()
            code = self._run()
            with self._changed:
                self._has_finished = self._order is Kind.finish and code == 0
                self._changed.notify_all()
                if self._has_finished or self._is_closing or self._error is not None:
                    return
            quick_deaths = quick_deaths + 1 if time.monotonic() - began_s < QUICK_DEATH_S else 1
            if quick_deaths >= MAX_QUICK_DEATHS:
                lines = "\n".join(self._tail) or "(nothing was printed)"
                self._fail(CourierFailedError(f"the courier process died {quick_deaths} times in a row:\n{lines}"))
                return
            pause = _FIRST_PAUSE_S * 2 ** (quick_deaths - 1)
            _log.warning("the courier process ended with status %d; it is started again in %.1f s", code, pause)
            with self._changed:
                self._changed.wait_for(lambda: self._is_closing, pause)

    def _run(self) -> int:
        """Runs a process to its end; returns its exit status."""
        try:
            process = self._process = _spawn()
        except OSError as error:  # no process, no memory, no file left
            self._fail(CourierFailedError(f"the courier process could not be started: {error}"))
            return 1
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        talk = _Talk()
        threads = [
            threading.Thread(target=self._read, args=(process.stdout, talk), name="courier-read", daemon=True),
            threading.Thread(target=self._forward, args=(process.stderr,), name="courier-log", daemon=True),
        ]
        for thread in threads:
            thread.start()
        try:
            process.stdin.write(self._config.to_line())
            process.stdin.flush()
            self._write(process.stdin, talk)
        except OSError:  # It died.
            _log.debug("the courier process hung up", exc_info=True)
        with contextlib.suppress(OSError):
            process.stdin.close()
        code = process.wait()
        for thread in threads:
            thread.join(1.0)
        return code

    def _write(self, stream: IO[bytes], talk: _Talk) -> None:
        """Feeds the process until it is gone: reports and all segments, then the order."""
        given = None
        while True:
            with self._changed:
                while not talk.is_over and not (talk.is_greeted and self._has_news(talk, given)):
                    self._changed.wait(_POLL_S)
                if talk.is_over:
                    return
                frame, order = self._next(talk), self._order
                report, self._report = self._report, None
                hangs_for_ms, self._hangs_for_ms = self._hangs_for_ms, None
                if frame is not None:
                    talk.written = frame[0]
            if report is not None:
                write_frame(stream, Kind.report, 0, report)
            if hangs_for_ms is not None:
                write_frame(stream, Kind.hanging, hangs_for_ms)
            if frame is not None:
                write_frame(stream, Kind.segment, *frame)
            elif order is not None and order is not given:
                write_frame(stream, order)
                given = order

    def _has_news(self, talk: _Talk, given: Kind | None) -> bool:
        """Whether there is something that this process has not got."""
        has_order = self._order is not given
        return self._next(talk) is not None or self._report is not None or self._hangs_for_ms is not None or has_order

    def _next(self, talk: _Talk) -> tuple[int, bytes] | None:
        """The first segment that this process has not got."""
        if not self._frames:
            return None
        index = max(talk.written + 1 - self._frames[0][0], 0)
        return self._frames[index] if index < len(self._frames) else None

    def _read(self, stream: IO[bytes], talk: _Talk) -> None:
        """Takes what the process says until it is gone."""
        with stream:
            while (frame := read_frame(stream)) is not None:
                if frame.kind == Kind.weights:
                    with self._changed:
                        self._weights = frame.payload
                elif frame.kind == Kind.request:
                    with self._changed:
                        self._request = frame.payload
                else:
                    self._take_status(CourierStatus.from_bytes(frame.payload), talk)
        with self._changed:
            talk.is_over = True
            self._changed.notify_all()

    def _take_status(self, status: CourierStatus, talk: _Talk) -> None:
        if status.refusal:
            self._fail(RefusedError(status.refusal))
        elif status.failure:
            self._fail(CourierFailedError(f"the courier process failed:\n{status.failure}"))
        with self._changed:
            self._status = status
            if not talk.is_greeted:
                talk.is_greeted = True
                # The next process shall find what this one had.
                self._config = replace(self._config, outbox=status.folder or self._config.outbox)
            while self._frames and self._frames[0][0] <= status.taken:
                self._frames_bytes -= len(self._frames.popleft()[1])
            # What was handed over before the outbox was known to be full waits here, and comes first.
            self._is_full = bool(status.full) or (self._is_full and bool(self._frames))
            self._changed.notify_all()

    def _forward(self, stream: IO[bytes]) -> None:
        """What the process prints goes to the log, and its end is kept."""
        with stream:
            for line in stream:
                text = line.decode(errors="replace").rstrip()
                self._tail.append(text)
                _log.info("%s", text)

    # --- waits ---

    def _wait(self, condition: Callable[[], bool], stop: threading.Event) -> None:
        with self._changed:
            while not condition() and not stop.is_set() and self._error is None:
                self._changed.wait(_POLL_S)
        self.raise_failure()

    def _has_room(self, window: int | None, may_drop: bool) -> bool:
        if window is not None and self.unacknowledged >= window:
            return False
        return may_drop or not (self._is_full or self._held_bytes >= self._config.outbox_bytes or self._lags)

    @property
    def _held_bytes(self) -> int:
        """Size of what the learner has not stored: in the outbox, and here on the way to it."""
        return self._status.num_bytes + self._frames_bytes

    @property
    def _lags(self) -> bool:
        """Whether the courier is far behind who drives."""
        return self._frames_bytes >= self._buffer_bytes / 2

    def _fail(self, error: Exception) -> None:
        with self._changed:
            self._error = self._error or error
            self._changed.notify_all()


class _Talk:
    """What is known of one process; guarded by the courier's lock."""

    is_greeted = False
    """Whether it has said what it has."""
    written = 0
    """Number of the last segment that it got."""
    is_over = False


def _spawn() -> subprocess.Popen[bytes]:
    environment = dict(os.environ)
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    environment["PYTHONUNBUFFERED"] = "1"
    return subprocess.Popen(
        [sys.executable, "-m", "tasks.remote.worker.courier_process"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        # Out of the reach of Ctrl-C; the closing of standard input ends it. On Windows it gets its low priority here.
        start_new_session=os.name == "posix",
        creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)
        | getattr(subprocess, "BELOW_NORMAL_PRIORITY_CLASS", 0),
    )
