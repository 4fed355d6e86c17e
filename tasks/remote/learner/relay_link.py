"""The learner's end of a relay: dials out, takes segments of remote workers and gives weights, as the gateway does.

``vecenv`` uses it where ``remote.relay`` is given. A relay that goes away is dialled again and told what the learner
has; it sends the rest. What comes twice is dropped here, so each segment comes out of ``receive`` once. All public
methods may be called from any thread.
"""

from __future__ import annotations

import itertools
import logging
import secrets
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import grpc
import numpy as np

from tasks.experience.observation import ObservationSpec
from tasks.experience.worker_status import WorkerStatus
from tasks.remote.access.credentials import ClientCredentials
from tasks.remote.access.dialing import Dialled, RefusedError, describe
from tasks.remote.access.invitation import load_relay_client
from tasks.remote.access.stream_limit import StreamLimit
from tasks.remote.config import RemoteConfig
from tasks.remote.learner.announcements import Announcements, Kind
from tasks.remote.learner.receiver import Receiver
from tasks.remote.wire import link, parts, relay_messages
from tasks.remote.wire.methods import path_of
from tasks.remote.wire.relay_messages import Content, Item, PullRequest, RelayStatus

_log = logging.getLogger(__name__)

_QUEUE_SEGMENTS = 256
_MAX_QUEUE_BYTES = 512 * 1024 * 1024
_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 5.0
GHOST_PATIENCE_S = 45.0
"""For how long another learner at the relay may be this one's own predecessor, whose end it has not noticed yet."""
_CLOSE_GRACE_S = 1.0


def open_relay_link(
    remote: RemoteConfig, spec: ObservationSpec, fingerprint: str, received: Mapping[str, int] | None = None
) -> RelayLink:
    """The link to ``remote.relay``.

    Args:
        remote: Where it is, and the folder with the learner's token.
        spec: The observation that workers must send.
        fingerprint: What workers must agree on.
        received: Sequence numbers up to which the stored replay has the segments of each worker.

    Raises:
        ValueError: The credentials are missing or damaged; names the key or the file.
    """
    if remote.relay is None:
        raise ValueError("remote.relay must be host:port of a relay, got null")
    credentials = load_relay_client(remote)
    if remote.insecure:
        _log.warning(
            "remote.insecure=true: what goes to and from the relay at %s, the learner's token too, is NOT encrypted. "
            "Leave remote.insecure out to encrypt", remote.relay,
        )  # fmt: skip
    return RelayLink(remote.relay, credentials, spec, fingerprint, is_plaintext=remote.insecure, received=received)


class RelayLink(Receiver):
    """The connection of one learner to one relay; dials from the moment it is made.

    Args:
        address: host:port of the relay.
        credentials: Of the learner: its name, its token, and whom it trusts.
        spec: The observation that workers must send.
        fingerprint: What workers must agree on; the relay refuses others.
        is_plaintext: Whether to do without TLS.
        received: Sequence numbers up to which the stored replay has the segments of each worker.
        queue_segments: Segments that wait for ``receive`` at most; beyond them the relay waits.
    """

    def __init__(
        self,
        address: str,
        credentials: ClientCredentials,
        spec: ObservationSpec,
        fingerprint: str,
        *,
        is_plaintext: bool = False,
        received: Mapping[str, int] | None = None,
        queue_segments: int = _QUEUE_SEGMENTS,
    ) -> None:
        self._address = address
        self._spec = spec
        self._fingerprint = fingerprint
        self._session = secrets.token_hex(16)
        self._metadata = (
            ("authorization", f"Bearer {credentials.token}"),
            ("worker", credentials.name),
        )
        super().__init__(threading.Lock(), queue_segments, _MAX_QUEUE_BYTES)
        self._received = dict(received or {})
        self._durable = dict(received or {})
        self._barred: dict[str, int] = {}
        self._streams = StreamLimit()
        self._status = RelayStatus((), 0, 0, 0)
        self._refused_segments = 0
        self._is_connected = False
        self._call: grpc.Call = None
        self._relay = Dialled("the relay", address, None if is_plaintext else credentials, "learner")
        self._announcements = Announcements()
        self._thread = threading.Thread(target=self._keep_pulling, name="relay-pull", daemon=True)
        self._thread.start()

    # --- samples ---

    def acknowledge(self, durable: Mapping[str, int]) -> None:
        """Says up to which number the segments of each worker are stored; only this lets workers forget them."""
        with self._lock:
            news = {w: seq for w, seq in durable.items() if w in self._received and seq > self._durable.get(w, 0)}
            self._durable.update(news)
        if news:
            self._announcements.mark(news)

    # --- weights and evaluation ---

    def publish(self, weights: Mapping[str, np.ndarray], version: int) -> None:
        """Offers new weights to the workers behind the relay; only the newest go there."""
        message = link.encode_weights(weights, version)
        with self._lock:
            self._note_published(version)
        self._announcements.put(Kind.weights, message)

    def request_evaluation(
        self, weights: Mapping[str, np.ndarray], version: int, seeds: Sequence[int], clip: bool = False
    ) -> None:
        """Asks a worker behind the relay for one episode per seed; replaces a request that was not begun."""
        with self._lock:
            request = self._request(weights, version, seeds, clip)
        self._announcements.put(Kind.request, link.encode_evaluation_request(request))

    # --- state ---

    @property
    def is_connected(self) -> bool:
        """Whether the relay is there now."""
        return self._is_connected

    def workers(self) -> list[WorkerStatus]:
        """A row for each worker behind the relay, as the relay saw it last."""
        with self._lock:
            return self._workers()

    def statistics(self) -> dict[str, float]:
        """Metrics under ``gateway/``."""
        with self._lock:
            unacknowledged = sum(seq - self._durable.get(worker, 0) for worker, seq in self._received.items())
            return self._statistics(self._workers(), unacknowledged) | {
                "gateway/refused": float(self._refused_segments + self._status.refused),
                "gateway/dropped": float(sum(worker.dropped for worker in self._status.workers)),
                "gateway/relay_connected": float(self._is_connected),
                "gateway/relay_segments": float(self._status.waiting_segments),
                "gateway/relay_megabytes": self._status.waiting_bytes / 1e6,
            }

    def close(self) -> None:
        """Hangs up; what was acknowledged is told to the relay first, if it listens. Calling it twice is fine."""
        if self._is_closed.is_set():
            return
        self._is_closed.set()
        with self._lock:
            self._queue.wake()
        self._announcements.close()
        # The relay hangs up when it has heard everything.
        self._thread.join(_CLOSE_GRACE_S)
        with self._lock:
            call = self._call
        if call is not None:
            call.cancel()
        self._relay.channel.close()
        self._thread.join(_CLOSE_GRACE_S)

    def __enter__(self) -> RelayLink:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- pulling ---

    def _keep_pulling(self) -> None:
        """Dials again and again until the end."""
        pause = _FIRST_PAUSE_S
        crowded_since_s: float | None = None
        try:
            while not self._is_closed.is_set():
                try:
                    self._pull()
                except grpc.RpcError as error:
                    if self._is_closed.is_set():
                        return
                    if self._is_connected:
                        pause, crowded_since_s = _FIRST_PAUSE_S, None
                    crowded_since_s = self._judge(error, crowded_since_s)
                    what = "closed the connection" if self._is_connected else "cannot be reached"
                    self._relay.note_trouble(f"{what} ({describe(error)})", pause)
                self._set_connected(False)
                self._is_closed.wait(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_S)
        except Exception as error:
            # gRPC answers calls on a closed channel with a ValueError.
            if not self._is_closed.is_set():
                self.fail(error)
        finally:
            self._set_connected(False)

    def _judge(self, error: grpc.RpcError, crowded_since_s: float | None) -> float | None:
        """Raises what is of no use to try again; since when another learner is in the way."""
        self._relay.raise_final(error)
        if error.code() is not grpc.StatusCode.ALREADY_EXISTS:
            return None
        now = time.monotonic()
        since_s = now if crowded_since_s is None else crowded_since_s
        if now - since_s > GHOST_PATIENCE_S:
            raise RefusedError(f"the relay at {self._address} refused this learner: {error.details()}") from error
        return since_s

    def _pull(self) -> None:
        """One connection, until it breaks."""
        self._announcements.begin()
        with self._lock:
            request = PullRequest(self._session, self._fingerprint, self._spec, self._received, self._durable)
            first = relay_messages.encode_pull_request(request)
            self._barred = {}
        is_over = threading.Event()
        outgoing = itertools.chain([first], self._announcements.stream(is_over))
        call = self._relay.channel.stream_stream(path_of("Pull"))(outgoing, metadata=self._metadata)
        with self._lock:
            self._call = call
        try:
            incoming = parts.joined(call)
            for message in incoming:
                item = relay_messages.decode_item(message)
                if not self._is_connected:
                    self._set_connected(True)
                self._take_item(item, incoming)
        except link.LinkError as error:
            # Between learner and relay; they are not of the same version.
            raise RefusedError(f"the relay at {self._address} cannot be understood: {error}") from error
        finally:
            is_over.set()
            call.cancel()
            with self._lock:
                self._call = None
            self._announcements.wake()

    def _take_item(self, item: Item, incoming: Iterator[bytes | bytearray]) -> None:
        if item.status is not None:
            with self._lock:
                self._status = item.status
            return
        message = next(incoming, None)
        if message is None:
            return
        if item.content is Content.report:
            self._take_report(message)
        else:
            self._take_segment(item, message)

    def _take_segment(self, item: Item, message: bytes | bytearray) -> None:
        with self._lock:
            is_barred = self._barred.get(item.worker) == item.epoch
        if is_barred:
            return
        try:
            received = link.decode_segment(message, self._spec)
            if (received.segment.worker, received.segment.seq) != (item.worker, item.seq):
                raise link.LinkError(f"segment {item.seq} of {item.worker} is another one")
            self._streams.check(item.worker, received.segment.stream)
        except link.LinkError as error:
            self._refuse(item, str(error))
            return
        with self._lock:
            if not self._queue.wait_for_room(item.worker, lambda: 1, lambda: not self._is_closed.is_set()):
                return
            if item.seq <= self._received.get(item.worker, 0):
                self._duplicates += 1
                # The relay may have forgotten that it is stored.
                if item.worker in self._durable:
                    self._announcements.mark({item.worker: self._durable[item.worker]})
                return
            self._received[item.worker] = item.seq
            self._bytes += len(message)
            self._put(received.segment)

    def _refuse(self, item: Item, reason: str) -> None:
        """Tells the relay to turn the worker away; what follows of it until then is ignored."""
        _log.warning("segment %d of %s was refused: %s", item.seq, item.worker, reason)
        with self._lock:
            self._refused_segments += 1
            self._barred[item.worker] = item.epoch
        self._announcements.refuse(item.worker, item.epoch, reason)

    def _take_report(self, message: bytes | bytearray) -> None:
        try:
            report, number = link.decode_evaluation_report(message)
        except link.LinkError as error:
            _log.warning("the report of an evaluation was refused: %s", error)
            return
        with self._lock:
            is_newest = self._take(report, number)
        if is_newest:
            self._announcements.withdraw(Kind.request)

    # --- inside ---

    def _set_connected(self, is_connected: bool) -> None:
        with self._lock:
            was_connected, self._is_connected = self._is_connected, is_connected
        if is_connected and not was_connected:
            self._announcements.answered()
            if not self._relay.trouble:
                _log.info("connected to the relay at %s", self._address)
            self._relay.note_answer()

    def _workers(self) -> list[WorkerStatus]:
        now = time.monotonic()
        return [
            replace(
                worker,
                connected=worker.connected and self._is_connected,
                weights_age_s=self._age_s(worker.weights_version, now),
            )
            for worker in self._status.workers
        ]
