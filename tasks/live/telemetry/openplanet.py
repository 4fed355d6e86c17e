"""Telemetry of the live game: the TCP client of its Openplanet plugin, and two small uses of that plugin's ports.

The plugin is the server, on this machine, and serves one program at a time. It writes a record per rendered frame while
a car is on a track, and nothing otherwise, so silence is not an error. ``tasks.live.live_game`` owns a client;
``tasks.registry`` probes with ``telemetry_arrives``.
"""

from __future__ import annotations

import contextlib
import logging
import math
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType

from tasks.config import TelemetryRecord
from tasks.game.errors import TelemetryError, TelemetryState
from tasks.game.protocols import Telemetry
from tasks.live.telemetry import status as telemetry_status
from tasks.live.telemetry.layouts import LAYOUTS
from tasks.live.telemetry.silence import Silence
from tasks.live.telemetry.status import TelemetryStatus
from tasks.live.telemetry.stream import RecordStream

LOCAL_HOST = "127.0.0.1"
"""The plugin listens on this machine only."""

_CONNECT_TIMEOUT_S = 1.0
"""Windows tries a refused local connection again for 2 s, so a time-out means there that nothing listens."""
_FIRST_BACK_OFF_S, _LAST_BACK_OFF_S = 0.05, 1.0
_POLL_S = 0.1
"""How long a silent connection is read before the state is checked again [s]."""
_GRACE_S = 2.0
"""A plugin notices late that its client has disconnected; a refused reconnection is not reported before [s]."""
_JOIN_TIMEOUT_S = 5.0
_BUFFER_SIZE = 1 << 16
_BETWEEN_PROBES_S = 0.05
_LISTENS_AGAIN_S = 0.25
"""A plugin that has lost its client does not listen for a frame; a probe believes a refusal after [s]."""
_RATE_WINDOW_S = 2.0

_logger = logging.getLogger(__name__)


class OpenPlanetClient:
    """The newest record of the plugin, its age, and the state of the connection. One thread reads; any may call it.

    The connection is made, and made again when it breaks, in the background: building a client neither waits nor fails.
    """

    def __init__(
        self,
        port: int,
        *,
        record: TelemetryRecord = TelemetryRecord.floats11,
        max_age_s: float = 1.0,
        is_game_running: Callable[[], bool] | None = None,
        host: str = LOCAL_HOST,
    ) -> None:
        """Starts to connect.

        Args:
            port: Port of the plugin.
            record: Name of its record layout.
            max_age_s: Older records are not returned, and a longer silence is explained in the state [s].
            is_game_running: Whether the game's window exists, to distinguish a game that is not running from a plugin
                that is not loaded. Called in the reader's thread. None: not known.
            host: Machine of the game.
        """
        self._address = (host, port)
        self._name = f"{host}:{port}"
        self._layout = LAYOUTS[record]
        self._max_age_s = max_age_s
        self._is_game_running = is_game_running
        self._changed = threading.Condition()
        self._stop = threading.Event()
        # Guarded by ``_changed``:
        self._state = TelemetryState.connecting
        self._message = telemetry_status.waiting(self._name)
        self._newest: tuple[Telemetry, float] | None = None
        self._num_believed = 0
        self._num_records = 0
        self._num_connections = 0
        self._arrivals: deque[tuple[float, int]] = deque()
        self._connection: socket.socket | None = None
        self._fault: BaseException | None = None
        # The reader's own:
        self._grace_until = -math.inf
        self._thread = threading.Thread(target=self._run, name=f"telemetry {self._name}", daemon=True)
        self._thread.start()

    def __enter__(self) -> OpenPlanetClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def state(self) -> TelemetryState:
        """State of the connection."""
        return self.status().state

    def status(self) -> TelemetryStatus:
        """State of the connection, with figures and a message for people. Never waits, never raises."""
        with self._changed:
            return self._status(time.perf_counter())

    def newest(self) -> tuple[Telemetry, float]:
        """Newest record and its age [s], at once.

        Raises:
            TelemetryError: There is none, it is too old, or it cannot be right; the message says why and what to do.
        """
        with self._changed:
            return self._newest_or_error(time.perf_counter())

    def wait_newer(self, timeout_s: float) -> tuple[Telemetry, float]:
        """Like ``newest``, but a record that arrives after this call; waits at most ``timeout_s``.

        Raises:
            TelemetryError: None arrived in that time. The state may be ``receiving`` when the wait was a short one.
        """
        deadline = time.perf_counter() + timeout_s
        with self._changed:
            known = self._num_believed
            while self._num_believed == known and not self._stop.is_set() and self._fault is None:
                left = deadline - time.perf_counter()
                if left <= 0 or not self._changed.wait(left):
                    break
            record = self._newest_or_error(time.perf_counter())
            if self._num_believed == known:
                message = f"no newer telemetry within {timeout_s:.2f} s; the newest is {record[1]:.2f} s old"
                raise TelemetryError(self._state, message, record[1])
            return record

    def close(self) -> None:
        """Ends the connection and its thread. Calling it twice is fine."""
        self._stop.set()
        with self._changed:
            self._changed.notify_all()
            if self._connection is not None:
                # Wakes the reader; a connection that has just broken cannot be shut down.
                with contextlib.suppress(OSError):
                    self._connection.shutdown(socket.SHUT_RDWR)
        if self._thread is not threading.current_thread():
            self._thread.join(_JOIN_TIMEOUT_S)

    def _status(self, now_s: float) -> TelemetryStatus:
        age_s = None if self._newest is None else now_s - self._newest[1]
        state, message, rate_hz = self._state, self._message, self._rate_hz(now_s)
        if state is TelemetryState.receiving:
            message = telemetry_status.receiving(rate_hz)
            assert age_s is not None
            if age_s > self._max_age_s:
                # The reader has not yet noticed.
                state, message = TelemetryState.in_menu, telemetry_status.in_menu(self._name, age_s)
        num_reconnects = max(self._num_connections - 1, 0)
        return TelemetryStatus(state, rate_hz, age_s, self._num_records, num_reconnects, message)

    def _newest_or_error(self, now_s: float) -> tuple[Telemetry, float]:
        if self._fault is not None:
            raise RuntimeError(f"the thread that reads telemetry from {self._name} has failed") from self._fault
        if not self._stop.is_set() and self._state is TelemetryState.receiving and self._newest is not None:
            record, received_at = self._newest
            if now_s - received_at <= self._max_age_s:
                return record, now_s - received_at
        status = self._status(now_s)
        message = f"the telemetry connection to {self._name} is closed" if self._stop.is_set() else status.message
        raise TelemetryError(status.state, message, status.age_s)

    def _rate_hz(self, now_s: float) -> float:
        recent = [arrival for arrival in self._arrivals if now_s - arrival[0] <= _RATE_WINDOW_S]
        if len(recent) < 2:
            return math.nan
        elapsed_s = recent[-1][0] - recent[0][0]
        return sum(count for _, count in recent[1:]) / elapsed_s if elapsed_s > 0 else math.nan

    def _run(self) -> None:
        """The reader: connects, reads until the connection ends, waits, again."""
        try:
            back_off_s = _FIRST_BACK_OFF_S
            while not self._stop.is_set():
                # A server that accepts and closes at once is not asked without end.
                if self._serve_connection():
                    back_off_s = _FIRST_BACK_OFF_S
                self._stop.wait(back_off_s)
                back_off_s = min(2 * back_off_s, _LAST_BACK_OFF_S)
        except BaseException as fault:
            with self._changed:
                self._fault = fault
                self._changed.notify_all()
            _logger.exception("the thread that reads telemetry from %s has failed", self._name)

    def _serve_connection(self) -> bool:
        """Makes one connection and reads it to its end; returns whether it brought a record to be believed."""
        try:
            connection = _connect(self._address, _CONNECT_TIMEOUT_S)
        except OSError:
            self._tell_refused()
            return False
        with connection:
            with self._changed:
                self._connection = connection
                self._num_connections += 1
                believed_before = self._num_believed
            try:
                self._read(connection)
            finally:
                with self._changed:
                    self._connection = None
        self._grace_until = time.perf_counter() + _GRACE_S
        return self._num_believed > believed_before

    def _read(self, connection: socket.socket) -> None:
        connection.settimeout(_POLL_S)
        stream = RecordStream(self._layout)
        buffer = memoryview(bytearray(_BUFFER_SIZE))
        silence = Silence(connection, self._name, self._max_age_s, time.perf_counter())
        while not self._stop.is_set():
            try:
                size = connection.recv_into(buffer)
            except TimeoutError:
                self._tell_silent(silence)
                continue
            except OSError as error:
                self._tell(TelemetryState.lost, telemetry_status.lost(self._name, error.strerror or str(error)))
                return
            if size == 0:
                self._tell(TelemetryState.lost, telemetry_status.lost(self._name, "the plugin closed it"))
                return
            now_s = time.perf_counter()
            silence.end(now_s)
            self._take(stream, buffer[:size], now_s)
            if stream.is_hopeless:
                return

    def _take(self, stream: RecordStream, data: memoryview, now_s: float) -> None:
        """Passes bytes to the stream, and on what it believes."""
        num_before = stream.num_records
        believed = stream.feed(data, now_s)
        count = stream.num_records - num_before
        # One change: a waiting thread must find the record together with the state that allows it.
        with self._changed:
            self._num_records += count
            self._note_arrival(now_s, count)
            if believed:
                self._newest = (believed[-1], now_s)
                self._num_believed += len(believed)
                self._changed.notify_all()
            self._judge(stream, len(data), bool(believed), now_s)

    def _judge(self, stream: RecordStream, size: int, is_believed: bool, now_s: float) -> None:
        """Sets the state of the connection after ``size`` bytes."""
        is_stale = self._newest is None or now_s - self._newest[1] > self._max_age_s
        motion_trouble = stream.motion_trouble(now_s)
        if stream.trouble is not None and (stream.is_hopeless or is_stale):
            message = telemetry_status.implausible(self._name, stream.trouble, self._layout, size)
            self._tell(TelemetryState.implausible, message)
        elif motion_trouble is not None:
            self._tell(TelemetryState.implausible, telemetry_status.wrong_motion(self._name, motion_trouble))
        elif is_believed:
            self._tell(TelemetryState.receiving, "")

    def _note_arrival(self, now_s: float, count: int) -> None:
        self._arrivals.append((now_s, count))
        while now_s - self._arrivals[0][0] > _RATE_WINDOW_S:
            self._arrivals.popleft()

    def _tell_silent(self, silence: Silence) -> None:
        """Says why nothing arrives, once that has lasted."""
        found = silence.reason(time.perf_counter())
        if found is not None:
            self._tell(*found)

    def _tell_refused(self) -> None:
        """Reports a refused connection, unless it follows from a connection that has just ended."""
        if time.perf_counter() < self._grace_until:
            return
        if self._is_game_running is not None and self._is_game_running():
            self._tell(TelemetryState.plugin_not_loaded, telemetry_status.plugin_not_loaded(self._name))
        else:
            message = telemetry_status.not_running(self._name, is_certain=self._is_game_running is not None)
            self._tell(TelemetryState.not_running, message)

    def _tell(self, state: TelemetryState, message: str) -> None:
        with self._changed:
            if state is not self._state:
                _logger.debug("telemetry from %s: %s -> %s: %s", self._name, self._state.name, state.name, message)
                self._changed.notify_all()
            self._state, self._message = state, message


def telemetry_arrives(
    port: int,
    timeout_s: float,
    record: TelemetryRecord = TelemetryRecord.floats11,
    *,
    host: str = LOCAL_HOST,
) -> bool:
    """Whether plausible records arrive at this moment. Returns at once when they do, and soon when nothing listens.

    The plugin notices the end of an earlier client only when it writes; then it resets those that wait and listens
    again a frame later. So a refused connection is tried again for some frames, and once the other side has ended a
    connection, the port is tried until the time is over.

    Args:
        port: Where the plugin would listen.
        timeout_s: How long records are waited for [s].
        record: What the plugin sends.
        host: Where the game would run.
    """
    begin = time.perf_counter()
    deadline, believes_refusals_at = begin + timeout_s, begin + _LISTENS_AGAIN_S
    while True:
        try:
            return _records_arrive((host, port), deadline, record)
        except (ConnectionResetError, BrokenPipeError):
            believes_refusals_at = deadline
        except OSError:
            if time.perf_counter() > believes_refusals_at:
                return False
        if time.perf_counter() + _BETWEEN_PROBES_S > deadline:
            return False
        time.sleep(_BETWEEN_PROBES_S)


def _records_arrive(address: tuple[str, int], deadline: float, record: TelemetryRecord) -> bool:
    """Whether they do; raises OSError where the connection cannot be made or the other side ends it."""
    stream = RecordStream(LAYOUTS[record])
    with _connect(address, max(deadline - time.perf_counter(), _BETWEEN_PROBES_S)) as connection:
        while (left := deadline - time.perf_counter()) > 0 and not stream.is_hopeless:
            connection.settimeout(left)
            data = connection.recv(_BUFFER_SIZE)
            if not data:
                raise ConnectionResetError(f"{address[0]}:{address[1]} ended the connection")
            if stream.feed(data, time.perf_counter()):
                return True
    return False


def save_ghost(port: int, timeout_s: float = 1.0, *, host: str = LOCAL_HOST) -> None:
    """Has the plugin save a ghost of the run: the connection itself is the request.

    Args:
        port: Where the plugin that saves ghosts listens.
        timeout_s: How long the connection may take [s].
        host: Where the game runs.

    Raises:
        OSError: Nothing listens there.
    """
    _connect((host, port), timeout_s).close()


def _connect(address: tuple[str, int], timeout_s: float) -> socket.socket:
    connection = socket.create_connection(address, timeout_s)
    if connection.getsockname() == connection.getpeername():
        # Linux may connect a port of its dynamic range to itself when nothing listens there.
        connection.close()
        raise ConnectionRefusedError(f"nothing listens on {address[0]}:{address[1]}")
    return connection
