"""The courier: the process beside a far worker that owns outbox and connection, so that driving never waits.

Started by ``courier`` as ``python -m tasks.remote.worker.courier_process``; frames (``courier_pipe``) come in on
standard input and go out on standard output. It numbers the segments, stores them, sends what the learner has not got,
deletes what is stored there, and hands the newest weights back. When standard input closes, the worker is gone and so
is the courier; what was not delivered waits in the outbox.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import IO

from tasks.process.stop_signals import ignore_terminal
from tasks.remote.access.credentials import load_client
from tasks.remote.config import OutboxPolicy
from tasks.remote.station.outbox import DiskOutbox, OutboxFullError, open_outbox
from tasks.remote.wire import link
from tasks.remote.worker.courier_pipe import CourierConfig, CourierStatus, Frame, Kind, read_frame, write_frame
from tasks.remote.worker.uplink import Uplink
from tasks.remote.worker.weights_history import WeightsHistory

_log = logging.getLogger(__name__)

_NICENESS = 5
_POLL_S = 0.2
_STATUS_EVERY_S = 1.0
_STATUS_PAUSE_S = 0.01
_LEAVE_S = 1.5


def main() -> int:
    """Runs the courier that standard input describes; returns the exit code."""
    ignore_terminal()
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    config = CourierConfig.from_line(sys.stdin.buffer.readline())
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
    _step_back()
    return run(config, sys.stdin.buffer, output)


def run(config: CourierConfig, frames: IO[bytes], output: IO[bytes]) -> int:
    """Works until worker or learner ends it; returns the exit code.

    Args:
        config: What to do.
        frames: Where the worker writes.
        output: Where the worker reads.
    """
    status = CourierStatus()
    try:
        with _open_outbox(config) as outbox:
            deliverer = Deliverer(config, outbox, frames, output)
            deliverer.run()
        status = deliverer.status()
    except Exception as error:
        status = _with_failure(status, error)
    with contextlib.suppress(OSError):  # The worker may be gone.
        write_frame(output, Kind.status, 0, status.to_bytes())
    return 1 if status.refusal or status.failure else 0


class Deliverer:
    """Everything that goes on in the process while its outbox is open.

    Args:
        config: What to do.
        outbox: Where segments wait.
        frames: Where the worker writes.
        output: Where the worker reads.
    """

    def __init__(self, config: CourierConfig, outbox: DiskOutbox, frames: IO[bytes], output: IO[bytes]) -> None:
        self._config = config
        self._outbox = outbox
        self._frames = frames
        self._output = output
        self._output_lock = threading.Lock()
        self._stop = threading.Event()
        self._is_finishing = False
        self._leave_at_s: float | None = None
        self._full = ""
        self._reports: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._hanging_since_s: float | None = None
        self._has_joined = False
        self._weights_version = 0
        self._failure: Exception | None = None
        self._identity = f"{config.name}.{outbox.identity}"
        self._history = WeightsHistory(outbox.folder / "weights", config.weights_history)
        credentials = load_client(config.credentials)
        self._uplink = Uplink(
            config.address,
            credentials.token,
            link.Hello(self._identity, 0, "worker", config.fingerprint, config.software),
            self._stop,
            credentials=None if config.is_plaintext else credentials,
            outbox=outbox,
            hangs_for_s=self._hangs_for_s,
        )

    def run(self) -> None:
        """Works until worker or learner ends it."""
        for task in (self._take_frames, self._serve_link, self._send_reports):
            threading.Thread(target=self._guard, args=(task,), name=task.__name__, daemon=True).start()
        try:
            self._report_until_stop()
        except Exception as error:
            self._failure = self._failure or error
        finally:
            self._end()
            self._uplink.close()

    def status(self) -> CourierStatus:
        """How things are."""
        outbox = self._outbox.state()
        round_trip_ms = self._uplink.round_trip_ms
        status = CourierStatus(
            worker=self._identity,
            folder=str(self._outbox.folder),
            taken=outbox.taken,
            segments=outbox.segments,
            num_bytes=outbox.num_bytes,
            dropped=outbox.dropped,
            full=self._full,
            has_joined=self._has_joined,
            is_connected=self._uplink.is_connected,
            trouble=self._uplink.trouble,
            weights_version=self._weights_version,
            round_trip_ms=None if math.isnan(round_trip_ms) else round_trip_ms,
        )
        return status if self._failure is None else _with_failure(status, self._failure)

    # --- frames of the worker ---

    def _take_frames(self) -> None:
        """Stores what the worker hands over."""
        while (frame := read_frame(self._frames)) is not None and not self._stop.is_set():
            if frame.kind == Kind.segment:
                self._store(frame)
            elif frame.kind == Kind.report:
                self._reports.put(bytes(frame.payload))
            elif frame.kind == Kind.hanging:
                self._hanging_since_s = time.monotonic() - frame.number / 1e3 if frame.number else None
            elif frame.kind == Kind.finish:
                self._is_finishing = True
            elif frame.kind == Kind.leave:
                self._leave_at_s = time.monotonic() + _LEAVE_S
            self._uplink.wake()
        if self._leave_at_s is None:
            self._end()

    def _store(self, frame: Frame) -> None:
        """Keeps a segment, waiting for room if nothing may be dropped."""
        encode = self._encoder(frame)
        while not self._stop.is_set():
            try:
                self._outbox.append(frame.number, encode)
            except OutboxFullError as error:
                self._full = str(error)
                self._uplink.wake()  # the worker shall hear of it at once
                self._stop.wait(_POLL_S)
            else:
                break
        self._full = ""

    def _encoder(self, frame: Frame) -> Callable[[int, int], bytes]:
        """What makes the message that the learner gets: named, numbered and compressed."""
        data, arrays = link.unpack(frame.payload, "segment")
        images = [name for name, array in arrays.items() if name.startswith("frames/") and array.dtype == "uint8"]
        data.update(worker=self._identity, stream=self._outbox.first_stream + data["stream"])

        def encode(seq: int, dropped: int) -> bytes:
            data.update(seq=seq, dropped=dropped)
            message = link.pack("segment", data, arrays, images if self._config.compress else ())
            if len(message) > self._config.max_message_bytes:
                raise ValueError(
                    f"worker.samples_per_packet makes a message of {len(message) / 1e6:.1f} MB, at most "
                    f"{self._config.max_message_bytes / 1e6:.1f} MB are allowed (remote.max_message_mb)"
                )
            return message

        return encode

    # --- the link ---

    def _serve_link(self) -> None:
        """Connects, and hands on the newest weights."""
        forwards = self._config.forwards_weights
        self._uplink.connect()
        self._has_joined = not self._stop.is_set()
        self._uplink.start_pings()
        wants_weights = forwards or self._history.is_kept
        self._uplink.start(push=True, requests=self._config.evaluates, weights=wants_weights)
        while (message := self._uplink.wait_newest()) is not None:
            weights = link.decode_weights(message)
            self._weights_version = weights.version
            if forwards:
                self._write(Kind.weights, message)
            self._history.add(weights)

    def _send_reports(self) -> None:
        """Has the learner get what came of evaluations."""
        while not self._stop.is_set():
            with contextlib.suppress(queue.Empty):
                self._uplink.report(self._reports.get(timeout=_POLL_S))

    def _hangs_for_s(self) -> float:
        since_s = self._hanging_since_s
        return 0.0 if since_s is None else time.monotonic() - since_s

    # --- state ---

    def _report_until_stop(self) -> None:
        """Tells the worker what has changed, at once and now and then, and what it shall evaluate."""
        told, told_s = None, 0.0
        parent = os.getppid()
        while not self._stop.is_set():
            status = self.status()
            if status != told or time.monotonic() - told_s > _STATUS_EVERY_S:
                self._write(Kind.status, status.to_bytes())
                told, told_s = status, time.monotonic()
            if (request := self._uplink.take_request()) is not None:
                self._write(Kind.request, request)
            if self._is_done(status) or os.getppid() != parent:
                return
            self._stop.wait(_STATUS_PAUSE_S)
            self._uplink.wait_change(_POLL_S)

    def _is_done(self, status: CourierStatus) -> bool:
        if self._leave_at_s is not None:
            is_over = not status.segments or not status.is_connected
            return is_over or time.monotonic() > self._leave_at_s
        return self._is_finishing and not status.segments

    def _guard(self, task: Callable[[], None]) -> None:
        """Runs a thread; what it raises ends the courier."""
        try:
            task()
        except Exception as error:
            if not self._stop.is_set():
                self._failure = self._failure or error
                self._end()

    def _end(self) -> None:
        self._stop.set()
        self._uplink.wake()

    def _write(self, kind: Kind, payload: bytes | bytearray) -> None:
        try:
            with self._output_lock:
                write_frame(self._output, kind, 0, payload)
        except OSError:  # The worker is gone.
            self._end()


def _step_back() -> None:
    """Lets the game and who drives it come first; the precedence of a parent that drives in real time is inherited."""
    if hasattr(os, "sched_setscheduler"):
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    if hasattr(os, "nice"):
        os.nice(_NICENESS)


def _open_outbox(config: CourierConfig) -> DiskOutbox:
    policy = OutboxPolicy[config.outbox_policy]
    return open_outbox(Path(config.outbox), config.outbox_bytes, policy, config.fingerprint, config.session)


def _with_failure(status: CourierStatus, error: Exception) -> CourierStatus:
    # What is wrong with a file, a value or the link is said in the message; a traceback adds nothing to it.
    if isinstance(error, OSError | ValueError):
        return replace(status, refusal=str(error))
    return replace(status, failure="".join(traceback.format_exception(error)))


if __name__ == "__main__":
    _code = main()
    sys.stderr.flush()
    # Without waiting for the thread that reads standard input.
    os._exit(_code)
