"""A relay, raw ends on both of its sides, and what the tests of the relay wait for."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc

from tasks.remote.access.credentials import ClientCredentials, load_server
from tasks.remote.access.listener import Port
from tasks.remote.config import OutboxPolicy
from tasks.remote.learner.relay_link import RelayLink
from tasks.remote.relay.relay import Relay
from tasks.remote.station.outbox import open_outbox
from tasks.remote.station.outbox_uplink import OutboxUplink
from tasks.remote.wire import link, relay_messages
from tasks.remote.wire.relay_messages import Content, PullRequest
from tests.tasks.remote.raw_worker import FINGERPRINT, SPEC, Folder, RawWorker, Reader, make_segment, wait_until

MEGABYTE = 2**20


class Site:
    """A relay that can be ended and begun again on the same port."""

    def __init__(self, folder: Folder, queue_bytes: int = 64 * MEGABYTE) -> None:
        self.folder, self.queue_bytes = folder, queue_bytes
        self.address = "127.0.0.1:0"

    @contextmanager
    def relay(self, **kwargs: Any) -> Iterator[Relay]:
        server = load_server(self.folder.path / "relay")
        port = Port(self.address, server.channel, server.tokens, **{"max_workers": 8, **kwargs})
        with Relay(port, self.queue_bytes) as relay:
            self.address = relay.address
            yield relay

    def worker(self, credentials: ClientCredentials, number: int = 1) -> RawWorker:
        return RawWorker(None, credentials, f"{credentials.name}.{number:08x}", address=self.address)  # type: ignore[arg-type]

    def link(self, learner: ClientCredentials, **kwargs: Any) -> RelayLink:
        return RelayLink(self.address, learner, SPEC, kwargs.pop("fingerprint", FINGERPRINT), **kwargs)


def take(link: RelayLink, count: int, timeout_s: float = 30.0) -> list[tuple[str, int]]:
    """Worker and number of exactly so many segments."""
    taken: list[tuple[str, int]] = []
    deadline = time.monotonic() + timeout_s
    while len(taken) < count:
        assert time.monotonic() < deadline, f"only {len(taken)} of {count} segments came"
        taken += [(segment.worker, segment.seq) for segment in link.receive(0.1, count - len(taken))]
    return taken


def last_acknowledgement(reader: Reader) -> tuple[int, int]:
    return tuple(link.decode_acknowledgement(reader.messages[-1])) if reader.messages else (-1, -1)  # type: ignore[return-value]


def push_all(worker: RawWorker, numbers: range, received: int) -> Reader:
    """Greets, pushes these numbers and waits until the relay has them."""
    assert worker.hello() == received
    call, send = worker.push()
    reader = Reader(call)
    for seq in numbers:
        send(seq)
    wait_until(lambda: last_acknowledgement(reader)[0] == numbers[-1])
    return reader


def numbers(worker: RawWorker, first: int, last: int) -> list[tuple[str, int]]:
    return [(worker.identity, seq) for seq in range(first, last + 1)]


class DiskWorker:
    """The product's own end of a worker: an uplink over a disk outbox."""

    def __init__(self, site: Site, credentials: ClientCredentials, folder: Path) -> None:
        self.outbox = open_outbox(folder, 2**30, OutboxPolicy.pause, FINGERPRINT, "session")
        self.identity = f"{credentials.name}.{self.outbox.identity}"
        self._stop = threading.Event()
        hello = link.Hello(self.identity, 0, "worker", FINGERPRINT)
        self.uplink = OutboxUplink(
            site.address, credentials.token, hello, self._stop, credentials=credentials, outbox=self.outbox
        )
        self._number = 0

    def send(self, count: int) -> None:
        for _ in range(count):
            self._number += 1
            self.outbox.append(
                self._number, lambda seq, dropped: link.encode_segment(make_segment(self.identity, seq), dropped)
            )
        self.uplink.wake()

    def __enter__(self) -> DiskWorker:
        self.uplink.connect()
        self.uplink.start(push=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self.uplink.close()
        self.outbox.close()


def segments_of(reader: Reader) -> list[tuple[str, int]]:
    """Worker and number of the segments that a pull has brought."""
    found = []
    for message in list(reader.messages):
        if link.kind_of(message) == "relay_item":
            item = relay_messages.decode_item(message)
            if item.content is Content.segment:
                found.append((item.worker, item.seq))
    return found


def refuses(worker: RawWorker) -> bool:
    try:
        worker.hello()
    except grpc.RpcError:
        return True
    return False


def pull_request(session: str, received: dict[str, int] | None = None) -> bytes:
    request = PullRequest(session, FINGERPRINT, SPEC, received or {}, received or {})
    return relay_messages.encode_pull_request(request)


def raw_learner(site: Site, learner: ClientCredentials) -> RawWorker:
    return RawWorker(None, learner, learner.name, address=site.address)  # type: ignore[arg-type]
