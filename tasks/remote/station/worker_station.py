"""The station of a remote worker: takes its segments in, keeps them on the disk until the learner has stored them.

A process of its own, so that driving never waits for a disk or a network. ``station_process`` starts it as ``python -m
tasks.remote.station.worker_station`` with its configuration as one line on standard input, and reads how it is from
standard output. The worker dials it as it would dial a learner beside it. When standard input closes, the worker is
gone and so is its station; what was not delivered waits in the outbox for the next start.
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
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TextIO

from tasks.process.precedence import step_back
from tasks.process.stop_signals import ignore_terminal
from tasks.remote.access.admission import Refusal
from tasks.remote.access.credentials import load_client
from tasks.remote.access.listener import Port
from tasks.remote.access.tokens import RunToken
from tasks.remote.config import OutboxPolicy
from tasks.remote.station.calls import Call
from tasks.remote.station.child_process import take_standard_output
from tasks.remote.station.outbox import DiskOutbox, OutboxFullError, open_outbox
from tasks.remote.station.outbox_uplink import OutboxUplink
from tasks.remote.station.peers import Peer
from tasks.remote.station.station_config import LEAVE, StationConfig, StationStatus
from tasks.remote.station.weights_history import WeightsHistory
from tasks.remote.station.worker_service import WorkerService
from tasks.remote.wire import link

_log = logging.getLogger(__name__)

_POLL_S = 0.2
_STATUS_EVERY_S = 1.0
_STATUS_PAUSE_S = 0.01
_LEAVE_S = 1.5


def main() -> int:
    """Runs the station that standard input describes; returns the exit code."""
    ignore_terminal()
    output = take_standard_output()
    config = StationConfig.from_line(sys.stdin.readline())
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
    step_back()
    return run(config, sys.stdin, output)


def run(config: StationConfig, lines: Iterable[str], output: TextIO) -> int:
    """Works until worker or learner ends it; returns the exit code.

    Args:
        config: What to do.
        lines: What the worker says besides its segments.
        output: Where the worker reads how things are.
    """
    status = StationStatus()
    try:
        policy = OutboxPolicy[config.outbox_policy]
        folder = Path(config.outbox)
        with open_outbox(folder, config.outbox_bytes, policy, config.fingerprint, config.session) as outbox:
            station = WorkerStation(config, outbox, output)
            station.run(lines)
        status = station.status()
    except Exception as error:
        status = _with_failure(status, error)
    with contextlib.suppress(OSError):  # The worker may be gone.
        output.write(status.to_line())
        output.flush()
    return 1 if status.refusal or status.failure else 0


class WorkerStation:
    """Everything that goes on in the process while its outbox is open; stands behind the service for the worker.

    Args:
        config: What to do.
        outbox: Where segments wait.
        output: Where the worker reads how things are.
    """

    def __init__(self, config: StationConfig, outbox: DiskOutbox, output: TextIO) -> None:
        self._config = config
        self._outbox = outbox
        self._output = output
        self._stop = threading.Event()
        self._leave_at_s: float | None = None
        self._full = ""
        self._reports: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._has_joined = False
        self._weights_version = 0
        self._failure: BaseException | None = None
        self._identity = f"{config.name}.{outbox.identity}"
        self._history = WeightsHistory(outbox.folder / "weights", config.weights_history)
        credentials = load_client(config.credentials)
        self._uplink = OutboxUplink(
            config.address,
            credentials.token,
            link.Hello(self._identity, 0, "worker", config.fingerprint, config.software),
            self._stop,
            credentials=None if config.is_plaintext else credentials,
            outbox=outbox,
            hangs_for_s=self._hangs_for_s,
        )
        self._service = WorkerService(self)
        port = Port(config.listen, None, RunToken(config.token), 1, link.MAX_MESSAGE_BYTES, is_remote=False)
        self._listen = self._service.listen(port)

    def run(self, lines: Iterable[str]) -> None:
        """Works until worker or learner ends it."""
        for task in (lambda: self._follow(lines), self._serve_uplink, self._send_reports):
            threading.Thread(target=self._guard, args=(task,), name="station", daemon=True).start()
        try:
            self._report_until_stop()
        except Exception as error:
            self._failure = self._failure or error
        finally:
            self._end()
            self._service.close()
            self._uplink.close()

    def status(self) -> StationStatus:
        """How things are."""
        outbox = self._outbox.state()
        round_trip_ms = self._uplink.round_trip_ms
        status = StationStatus(
            listen=self._listen,
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

    # --- what the service for the worker asks ---

    def objection(self, hello: link.Hello) -> Refusal | None:
        """The worker has started this station itself."""
        return None

    def greeted(self, peer: Peer) -> None:
        """Says how far the worker's segments have come; the service's lock is held."""
        state = self._outbox.state()
        held_back = state.segments if self._config.holds_back else 0
        peer.received = state.taken
        # The outbox forgets in order, so that what it still holds are the last ones.
        peer.durable = max(peer.durable, state.taken - held_back)

    def take_segments(self, peer: Peer, call: Call, messages: Iterable[bytes | bytearray]) -> None:
        """Stores segments, waiting for room if nothing may be dropped."""
        for message in messages:
            number, encode = self._encoder(message)
            while not self._is_stored(number, encode):
                self._stop.wait(_POLL_S)
                if not call.is_open or self._stop.is_set():
                    return

    def _is_stored(self, number: int, encode: Callable[[int, int], bytes]) -> bool:
        """Puts a segment into the outbox if there is room; the worker shall hear of either at once."""
        try:
            self._outbox.append(number, encode)
        except OutboxFullError as error:
            self._full = str(error)
            self._uplink.wake()
            return False
        except (OSError, ValueError) as error:  # The worker hears of it from ``status``.
            self.fail(error)
            return False
        self._full = ""
        self._tell_worker()
        self._uplink.wake()
        return True

    def take_report(self, message: bytes) -> None:
        """Has the learner get the report of an evaluation."""
        link.decode_evaluation_report(message)
        self._service.evaluation_queue.clear()
        self._reports.put(message)

    def fail(self, failure: BaseException) -> None:
        """Ends the station; the worker is told why."""
        self._failure = self._failure or failure
        self._end()

    def _encoder(self, message: bytes | bytearray) -> tuple[int, Callable[[int, int], bytes]]:
        """Number of a segment, and what makes the message that the learner gets: named, numbered and compressed."""
        data, arrays = link.unpack(message, "segment")
        images = [name for name, array in arrays.items() if name.startswith("frames/") and array.dtype == "uint8"]
        number = link.count_of(data, "seq")
        data.update(worker=self._identity, stream=self._outbox.first_stream + link.count_of(data, "stream"))

        def encode(seq: int, dropped: int) -> bytes:
            data.update(seq=seq, dropped=dropped)
            message = link.pack("segment", data, arrays, images if self._config.compress else ())
            if len(message) > self._config.max_message_bytes:
                raise ValueError(
                    f"worker.samples_per_packet makes a message of {len(message) / 1e6:.1f} MB, at most "
                    f"{self._config.max_message_bytes / 1e6:.1f} MB are allowed (remote.max_message_mb)"
                )
            return message

        return number, encode

    def _tell_worker(self) -> None:
        """Has the worker told how far its segments have come."""
        with self._service.lock:
            for peer in self._service.peers:
                self.greeted(peer)
                peer.changed.notify_all()

    # --- the way to the learner ---

    def _serve_uplink(self) -> None:
        """Connects, and hands on the newest weights."""
        self._uplink.connect()
        self._has_joined = not self._stop.is_set()
        self._uplink.start_pings()
        wants_weights = self._config.takes_weights or self._history.is_kept
        self._uplink.start(push=True, requests=self._config.evaluates, weights=wants_weights)
        while (message := self._uplink.wait_newest()) is not None:
            weights = link.decode_weights(message)
            self._weights_version = weights.version
            if self._config.takes_weights:
                self._service.weights.put(bytes(message))
            self._history.add(weights)

    def _send_reports(self) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(queue.Empty):
                self._uplink.report(self._reports.get(timeout=_POLL_S))

    def _hangs_for_s(self) -> float:
        """How long the worker's environment has not stepped, for the learner; 0: it does not hang."""
        now = time.monotonic()
        with self._service.lock:
            return max((peer.hangs_for_s(now) for peer in self._service.peers), default=0.0)

    # --- the worker ---

    def _follow(self, lines: Iterable[str]) -> None:
        """Ends with the worker: at once, or after a moment for what it has handed over last."""
        for line in lines:
            if line.strip() == LEAVE:
                self._leave_at_s = time.monotonic() + _LEAVE_S
                self._uplink.wake()
        if self._leave_at_s is None:
            self._end()

    def _report_until_stop(self) -> None:
        """Tells the worker what has changed, at once and now and then, and what it shall evaluate."""
        told, told_s = None, 0.0
        parent = os.getppid()
        while not self._stop.is_set():
            status = self.status()
            if status != told or time.monotonic() - told_s > _STATUS_EVERY_S:
                self._output.write(status.to_line())
                self._output.flush()
                told, told_s = status, time.monotonic()
                self._tell_worker()
            if (request := self._uplink.take_request()) is not None:
                self._service.evaluation_queue.put(bytes(request))
            if self._has_left(status) or os.getppid() != parent:
                return
            self._stop.wait(_STATUS_PAUSE_S)
            self._uplink.wait_change(_POLL_S)

    def _has_left(self, status: StationStatus) -> bool:
        if self._leave_at_s is None:
            return False
        return not status.segments or not status.is_connected or time.monotonic() > self._leave_at_s

    def _guard(self, task: Callable[[], None]) -> None:
        """Runs a thread; what it raises ends the station."""
        try:
            task()
        except Exception as error:
            if not self._stop.is_set():
                self.fail(error)

    def _end(self) -> None:
        self._stop.set()
        self._uplink.wake()


def _with_failure(status: StationStatus, error: BaseException) -> StationStatus:
    # What is wrong with a file, a value or the link is said in the message; a traceback adds nothing to it.
    if isinstance(error, OSError | ValueError):
        return replace(status, refusal=str(error))
    return replace(status, failure="".join(traceback.format_exception(error)))


if __name__ == "__main__":
    _code = main()
    sys.stderr.flush()
    # Without waiting for the thread that reads standard input.
    os._exit(_code)
