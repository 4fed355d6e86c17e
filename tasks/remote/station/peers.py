"""The known workers of a gateway: their greetings, the progress of their segments, their open streams.

A worker that comes back takes over from its own dead connections. There is room for so many remote workers at a time,
and for so many remembered ones.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator, Mapping

import grpc

from tasks.experience.worker_status import RateMeter, WorkerStatus
from tasks.process.step_watch import HANGING_S
from tasks.remote.access.admission import Refusal
from tasks.remote.station.calls import Call
from tasks.remote.wire import link

PLACE_S = 15.0
"""For how long the place of a remote worker is kept after its greeting [s]."""
SHOWN_S = 600.0
"""For how long a remote worker that is gone is still shown [s]."""
MAX_PEERS = 16_384
"""Workers that are remembered."""


class Peer:
    """What is known of one worker; guarded by the lock of the ``Peers`` that it belongs to."""

    def __init__(self, hello: link.Hello, is_remote: bool, changed: threading.Condition, received: int) -> None:
        self.hello = hello
        self.is_remote = is_remote
        self.changed = changed
        """Notified when what this worker should be told has changed."""
        self.received = received
        self.durable = received
        self.queued = 0
        """Of its segments, those that wait in the queue."""
        self.calls: dict[str, Call] = {}
        """The newest open stream of each kind."""
        self.greeted_s = -math.inf
        self.seen_s = -math.inf
        self.address = ""
        self.segments = 0
        self.bytes = 0
        self.duplicates = 0
        self.dropped = 0
        self.round_trip_ms = math.nan
        self._pinged_s = math.nan
        self._hangs_for_s = 0.0
        self.weights_version = 0
        self.samples = RateMeter()

    @property
    def is_connected(self) -> bool:
        """Whether it has a stream open."""
        return bool(self.calls)

    def acknowledgement(self) -> link.Acknowledgement:
        """How far its segments have come."""
        return link.Acknowledgement(self.received, self.durable)

    def has_place(self, now: float) -> bool:
        """Whether it counts among those for whom there is room."""
        return self.is_connected or now - self.greeted_s < PLACE_S

    def note_ping(self, ping: link.Ping, now: float) -> None:
        """Takes what it says of itself."""
        self.round_trip_ms = ping.round_trip_ms
        self.dropped = ping.dropped
        self._pinged_s, self._hangs_for_s = now, ping.hangs_for_ms / 1e3

    def forget_pings(self) -> None:
        """It has just greeted."""
        self._pinged_s, self._hangs_for_s = math.nan, 0.0

    def hangs_for_s(self, now: float) -> float:
        """How long it has not stepped although it could: as it says, or since it has fallen silent; 0: it does."""
        if not self.is_connected:
            return 0.0
        silent_s = now - self._pinged_s
        return self._hangs_for_s + silent_s if self._hangs_for_s or silent_s >= HANGING_S else 0.0

    def status(self, now: float, weights_age_s: float) -> WorkerStatus:
        """A row of the table."""
        return WorkerStatus(
            name=self.hello.worker,
            role=self.hello.role,
            address=self.address if self.is_remote else "",
            samples_per_s=self.samples.per_second(now),
            segments=self.segments,
            dropped=self.dropped,
            duplicates=self.duplicates,
            unacknowledged=self.received - self.durable,
            bytes=self.bytes,
            round_trip_ms=self.round_trip_ms,
            weights_version=self.weights_version,
            weights_age_s=weights_age_s,
            connected=self.is_connected,
            hangs_for_s=self.hangs_for_s(now),
        )


class Peers:
    """All workers of a gateway. Every method expects ``lock`` to be held.

    Args:
        lock: Guards all of it.
        max_remote: Remote workers for which there is room at a time.
        received: Sequence numbers up to which the stored replay has segments of earlier workers.
    """

    def __init__(self, lock: threading.Lock, max_remote: int, received: Mapping[str, int]) -> None:
        self._lock = lock
        self._max_remote = max_remote
        self._stored = dict(received)
        self._peers: dict[str, Peer] = {}

    def __iter__(self) -> Iterator[Peer]:
        return iter(self._peers.values())

    def get(self, identity: str) -> Peer | None:
        """The worker of this name, if it has greeted."""
        return self._peers.get(identity)

    def greet(self, hello: link.Hello, is_remote: bool, address: str) -> Peer | Refusal:
        """Takes note of a worker that may come in, and keeps a place for it."""
        now = time.monotonic()
        peer = self._peers.get(hello.worker)
        if peer is not None and peer.is_remote != is_remote:
            return Refusal(grpc.StatusCode.PERMISSION_DENIED, f"the name {hello.worker} is taken by another worker")
        refusal = self.room(peer, is_remote, now)
        if refusal is not None:
            return refusal
        if peer is None:
            changed = threading.Condition(self._lock)
            peer = Peer(hello, is_remote, changed, self._stored.get(hello.worker, 0))
            self._peers[hello.worker] = peer
        peer.hello, peer.address = hello, address
        peer.greeted_s = peer.seen_s = now
        peer.forget_pings()
        return peer

    def room(self, peer: Peer | None, is_remote: bool, now: float) -> Refusal | None:
        """Why there is no room for a worker, which has greeted before or not; None: there is."""
        if not is_remote or (peer is not None and peer.has_place(now)):
            return None
        taken = sum(other.is_remote and other.has_place(now) for other in self._peers.values())
        if taken >= self._max_remote:
            message = f"there is room for {self._max_remote} workers (remote.max_workers), and all places are taken"
            return Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, message)
        if peer is None and len(self._peers) >= MAX_PEERS and not self._forget_one(now):
            return Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{MAX_PEERS} workers are known; no more are remembered")
        return None

    def shown(self, now: float) -> list[Peer]:
        """Those for the table: connected, or remote and gone not long ago; by name."""
        shown = [p for p in self._peers.values() if p.is_connected or (p.is_remote and now - p.seen_s < SHOWN_S)]
        return sorted(shown, key=lambda peer: peer.hello.worker)

    def _forget_one(self, now: float) -> bool:
        """Forgets a worker that never sent anything; whether there was one."""
        for identity, peer in self._peers.items():
            if not peer.received and not peer.has_place(now):
                del self._peers[identity]
                return True
        return False
