"""The learner's end of the link: takes segments from workers and hands out weights, evaluations and commands.

It owns what was received of whom, the queue and the newest weights, and serves them on a port of this machine for the
workers that the learner starts and, where one is given, on another for remote workers. It knows neither
processes (``launch``) nor rl_games (``vecenv``). All public methods may be called from any thread.
"""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence

import grpc
import numpy as np

from tasks.experience.observation import ObservationSpec
from tasks.experience.worker_status import WorkerStatus
from tasks.remote.access.admission import Refusal, mismatch
from tasks.remote.access.listener import Port
from tasks.remote.access.stream_limit import StreamLimit
from tasks.remote.access.tokens import RunToken
from tasks.remote.learner.lock_step_channel import LockStepChannels
from tasks.remote.learner.receiver import Receiver
from tasks.remote.station.calls import Call
from tasks.remote.station.peers import Peer
from tasks.remote.station.worker_service import WorkerService
from tasks.remote.wire import link

MAX_QUEUE_BYTES = 1024 * 1024 * 1024
"""Beyond this workers wait, however few segments it is."""


class Gateway(Receiver):
    """Serves the link.

    Args:
        spec: The observation that workers must send.
        fingerprint: What workers must agree on; another one is refused.
        host: Address of this machine to listen on for its own workers.
        credentials: TLS for them, where they run on other machines; None: plaintext.
        max_workers: Connections of these for which there is room at a time.
        queue_segments: Segments that wait for ``receive`` at most; beyond them workers wait.
        token: The secret that these workers must know; None: a random one.
        remote: How remote workers are let in; None: not at all.
        received: Sequence numbers up to which the stored replay has the segments of earlier workers.

    Raises:
        OSError: An address cannot be listened on.
    """

    def __init__(
        self,
        spec: ObservationSpec,
        fingerprint: str,
        *,
        host: str = "127.0.0.1",
        credentials: grpc.ServerCredentials | None = None,
        max_workers: int = 8,
        queue_segments: int = 256,
        token: str | None = None,
        remote: Port | None = None,
        received: Mapping[str, int] | None = None,
    ) -> None:
        self._spec = spec
        self._fingerprint = fingerprint
        self.token = token if token is not None else secrets.token_urlsafe(32)
        self._service = WorkerService(self, 0 if remote is None else remote.max_workers, received)
        super().__init__(self._service.lock, queue_segments, MAX_QUEUE_BYTES)
        self._peers = self._service.peers
        self._remote_streams = StreamLimit()
        self.lock_step = LockStepChannels(self._service, self.fail)
        """To the workers that step with the learner's actions."""
        try:
            tokens = RunToken(self.token)
            local = Port(f"{host}:0", credentials, tokens, max_workers, link.MAX_MESSAGE_BYTES, is_remote=False)
            self.address = self._service.listen(local, {"LockStep": self.lock_step.serve})
            self.remote_address = None if remote is None else self._service.listen(remote)
            """host:port for remote workers, or None."""
        except BaseException:
            self.close()
            raise

    # --- samples ---

    def acknowledge(self, durable: Mapping[str, int]) -> None:
        """Tells workers that their segments up to this number are stored; they may forget them and go on."""
        with self._lock:
            peers = [(self._peers.get(worker), seq) for worker, seq in durable.items()]
            for peer, seq in peers:
                if peer is not None and seq > peer.durable:
                    peer.durable = min(seq, peer.received)
                    peer.changed.notify_all()

    def fail(self, failure: BaseException) -> None:
        """Makes every waiting and later call raise ``failure``."""
        super().fail(failure)
        self.lock_step.wake()

    # --- weights and evaluation ---

    def publish(self, weights: Mapping[str, np.ndarray], version: int) -> None:
        """Offers new weights to all workers; a worker that is slow skips to the newest ones."""
        message = link.encode_weights(weights, version)
        with self._lock:
            self._note_published(version)
        self._service.weights.put(message)

    def request_evaluation(
        self, weights: Mapping[str, np.ndarray], version: int, seeds: Sequence[int], clip: bool = False
    ) -> None:
        """Asks an evaluator for one episode per seed; replaces a request that was not begun."""
        with self._lock:
            request = self._request(weights, version, seeds, clip)
        self._service.evaluation_queue.put(link.encode_evaluation_request(request))

    # --- state ---

    def workers(self) -> list[WorkerStatus]:
        """A row for each worker that is connected, and for remote ones that have not been gone for long."""
        now = time.monotonic()
        with self._lock:
            return [peer.status(now, self._age_s(peer.weights_version, now)) for peer in self._peers.shown(now)]

    def statistics(self) -> dict[str, float]:
        """Metrics under ``gateway/``."""
        now = time.monotonic()
        with self._lock:
            peers = list(self._peers)
            unacknowledged = sum(peer.received - peer.durable for peer in peers)
            return self._statistics((peer.status(now, math.nan) for peer in peers), unacknowledged) | {
                "gateway/refused": float(self._service.refusals.count),
                "gateway/dropped": float(sum(peer.dropped for peer in peers)),
            }

    def close(self) -> None:
        """Ends all connections. Calling it twice is fine."""
        if self._is_closed.is_set():
            return
        self._is_closed.set()
        with self._lock:
            self._queue.wake()
        self.lock_step.close()
        self._service.close()

    def __enter__(self) -> Gateway:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- what the service asks ---

    def objection(self, hello: link.Hello) -> Refusal | None:
        """Refuses a worker with another task or another network."""
        return mismatch(hello, self._fingerprint)

    def greeted(self, peer: Peer) -> None:
        """What is stored of a worker was known from the start."""

    def take_segments(self, peer: Peer, call: Call, messages: Iterable[bytes | bytearray]) -> None:
        """Checks each segment and queues it once; waits while the queue is full."""
        for message in messages:
            segment, dropped = link.decode_segment(message, self._spec)
            if segment.worker != peer.hello.worker:
                raise link.LinkError(f"{peer.hello.worker} sent a segment of {segment.worker!r}")
            with self._lock:
                if not self._queue.wait_for_room(segment.worker, self._service.num_senders, lambda: call.is_open):
                    return
                self._bytes += len(message)
                peer.bytes += len(message)
                peer.dropped = max(peer.dropped, dropped)
                if segment.seq <= peer.received:
                    peer.duplicates += 1
                    self._duplicates += 1
                    continue
                if peer.is_remote:
                    self._remote_streams.check(segment.worker, segment.stream)
                peer.received = segment.seq
                peer.weights_version = self._put(segment)
                peer.segments += 1
                peer.samples.add(segment.num_env_steps, time.monotonic())
                peer.changed.notify_all()

    def take_report(self, message: bytes) -> None:
        """Takes the report of an evaluation, unless the request was answered before."""
        report, number = link.decode_evaluation_report(message)
        with self._lock:
            if self._take(report, number):
                # A worker that is restarted shall not do it again.
                self._service.evaluation_queue.clear()
