"""Credentials, a gateway and raw workers for the tests of remote workers; real TLS over loopback."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import grpc

from tasks.acting.rollout import Rollout
from tasks.experience.evaluation_report import EvaluationReport
from tasks.experience.networking import LearnerLink
from tasks.experience.samples import Segment
from tasks.remote.access.credentials import ClientCredentials, load_client, load_server, make_credentials
from tasks.remote.access.listener import Port
from tasks.remote.access.tokens import TokenEntry, Tokens, Verdict, read_tokens, write_tokens
from tasks.remote.learner.gateway import Gateway
from tasks.remote.wire import link
from tasks.remote.wire.methods import path_of
from tests.tasks.remote.fakes import CountingEnv, RandomPolicy

SPEC = CountingEnv().observation_spec
FINGERPRINT = link.joint_fingerprint("task A", "network A")
ROW = Rollout(CountingEnv(length=5), RandomPolicy(), "?", 0, 0).run(4)


def accepts(tokens: Tokens, name: str, token: str, role: str) -> bool:
    """Whether this token is the one of ``name`` in this role."""
    return tokens.judge(name, token, role) is Verdict.accepted


def make_segment(worker: str, seq: int, **changes: Any) -> Segment:
    return replace(ROW, worker=worker, seq=seq, **changes)


class Folder:
    """A folder of credentials for the workers alice and bob."""

    def __init__(self, path: Path) -> None:
        self.path = path
        make_credentials(path, [], ["alice", "bob"])

    @cached_property
    def alice(self) -> ClientCredentials:
        return load_client(self.path / "workers/alice")

    @cached_property
    def bob(self) -> ClientCredentials:
        return load_client(self.path / "workers/bob")

    @property
    def tokens(self) -> Path:
        return self.path / "learner/tokens.json"

    def revoke(self, name: str) -> list[TokenEntry]:
        before = read_tokens(self.tokens)
        write_tokens(self.tokens, [entry for entry in before if entry.name != name])
        return before

    @contextmanager
    def gateway(self, max_workers: int = 8, max_message_bytes: int = 2**20, **kwargs: Any) -> Iterator[Gateway]:
        server = load_server(self.path / "learner")
        port = Port(
            "127.0.0.1:0", server.channel, server.tokens, max_workers, max_message_bytes, handshakes=server.handshakes
        )
        with Gateway(SPEC, FINGERPRINT, remote=port, **kwargs) as gateway:
            yield gateway


class RawWorker:
    """A worker that says exactly what it is told to, over a TLS connection of its own."""

    def __init__(
        self,
        gateway: Gateway,
        credentials: ClientCredentials | None,
        identity: str = "",
        token: str | None = None,
        address: str | None = None,
    ) -> None:
        address = address or gateway.remote_address or ""
        self.identity = identity or f"{credentials.name if credentials else 'nobody'}.00000001"
        # Each has a connection of its own, as workers on several machines do.
        options = [
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.enable_http_proxy", 0),
            ("grpc.max_receive_message_length", link.MAX_MESSAGE_BYTES),
        ]
        self._channel = (
            grpc.insecure_channel(address, options)
            if credentials is None
            else grpc.secure_channel(address, credentials.channel, options)
        )
        token = token if token is not None else credentials.token if credentials else "x" * 43
        self.metadata = (("authorization", f"Bearer {token}"), ("worker", self.identity))
        self._sends: list[queue.Queue[bytes | None]] = []
        self._calls: list[Any] = []

    def __enter__(self) -> RawWorker:
        return self

    def __exit__(self, *_: object) -> None:
        for sends in self._sends:
            sends.put(None)
        self._channel.close()

    def unary(self, method: str, message: bytes) -> bytes:
        stub = self._channel.unary_unary(path_of(method))
        return bytes(stub(message, metadata=self.metadata, timeout=20))

    def hello(self, fingerprint: str = FINGERPRINT, role: str = "worker", worker: str = "") -> int:
        hello = link.Hello(worker or self.identity, 0, role, fingerprint)
        return link.decode_hello_reply(self.unary("Hello", link.encode_hello(hello))).received

    def stream(self, method: str, first: list[bytes] | None = None) -> tuple[Any, Callable[[bytes | None], None]]:
        """The answers of a stream, and what sends to it."""
        sends: queue.Queue[bytes | None] = queue.Queue()
        self._sends.append(sends)
        for message in first or []:
            sends.put(message)
        stub = self._channel.stream_stream(path_of(method))
        call = stub(iter(sends.get, None), metadata=self.metadata)
        self._calls.append(call)  # one that nobody holds is cancelled
        return call, sends.put

    def push(self) -> tuple[Any, Callable[[int], None]]:
        """The acknowledgements, and what sends the segment of a number."""
        call, send = self.stream("Push")
        return call, lambda seq: send(link.encode_segment(make_segment(self.identity, seq)))

    def weights(self, which: bytes = b"") -> Any:
        call, _ = self.stream("Weights", [which])
        return call


def refused(action: Callable[[], Any]) -> grpc.RpcError:
    """The error that ``action`` is answered with."""
    try:
        action()
    except grpc.RpcError as error:
        return error
    raise AssertionError("was not refused")


def read_all(call: Any) -> grpc.RpcError | None:
    """Reads a stream to its end: the error that ended it."""
    try:
        for _ in call:
            pass
    except grpc.RpcError as error:
        return error
    return None


class Reader:
    """Reads a stream in a thread: what came, and how it ended."""

    def __init__(self, call: Any) -> None:
        self.messages: list[bytes] = []
        self.ended_s: float | None = None
        self.error: grpc.RpcError | None = None
        self._call = call
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        try:
            for message in self._call:
                self.messages.append(message)
        except grpc.RpcError as error:
            self.error = error
        self.ended_s = time.monotonic()


def num_connected(gateway: Gateway, role: str = "worker") -> int:
    return sum(worker.connected for worker in gateway.workers() if worker.role == role)


def wait_report(link: LearnerLink, timeout_s: float = 60.0) -> EvaluationReport:
    """The next report of an evaluation."""
    deadline_s = time.monotonic() + timeout_s
    while (report := link.poll_evaluation()) is None:
        assert time.monotonic() < deadline_s, "waited for a report in vain"
        time.sleep(0.02)
    return report


def wait_until(condition: Callable[[], Any], timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def drain(gateway: Gateway, count: int, timeout_s: float = 20.0) -> list[Segment]:
    segments: list[Segment] = []
    deadline = time.monotonic() + timeout_s
    while len(segments) < count:
        assert time.monotonic() < deadline, f"only {len(segments)} of {count} segments came"
        segments += gateway.receive(0.1, count - len(segments))
    return segments
