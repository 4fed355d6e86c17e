"""Both ends of each way to send segments and weights: the product's, a raw socket, and tlspyo.

Each way is plaintext or TLS (1.3). The learner's end is made first and reports its address; the worker's end is made in
another process. A segment counts when it can be appended to a replay memory; with the raw socket, when its bytes have
arrived.
"""

from __future__ import annotations

import logging
import multiprocessing
import socket
import ssl
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from benchmarks.link_parts.traffic import FINGERPRINT, SPEC, bytes_per_row, segment_of, size_of, weights_of
from tasks.experience.samples import Segment
from tasks.remote.access.certificates import make_authority, make_server_certificate
from tasks.remote.access.credentials import load_client, load_server, make_credentials
from tasks.remote.access.listener import Port
from tasks.remote.learner.gateway import Gateway
from tasks.remote.station.uplink import Uplink
from tasks.remote.wire import link

SEGMENT_BYTES = 3_300_000
WEIGHTS_BYTES = 10_000_000
WINDOW = 8
"""Limit of unacknowledged segments."""

_TIMEOUT_S = 60.0
_TLSPYO_CONNECTS_S = 2.0
"""tlspyo does not report when it is connected, and loses everything sent before [s]."""
_LOOPBACK = "127.0.0.1"


class Setting(NamedTuple):
    """Settings of both ends of a connection."""

    folder: Path
    """Credentials, made by ``make_all_credentials``."""
    is_tls: bool
    tlspyo: str | None
    """Folder in which tlspyo is installed, if it is not where Python looks anyway."""


class LearnerEnd(Protocol):
    """Takes segments, sends weights."""

    address: str

    def take_segment(self) -> int:
        """Waits for the next segment; returns the size of its arrays [bytes]."""

    def send_weights(self) -> None:
        """Sends weights of ``WEIGHTS_BYTES``."""

    def wait_answer(self) -> None:
        """Waits until the worker confirms them."""


class WorkerEnd(Protocol):
    """Sends segments, takes weights."""

    def send_segment(self) -> None:
        """Sends a segment of ``SEGMENT_BYTES`` as soon as fewer than ``WINDOW`` are unacknowledged."""

    def answer_weights(self) -> None:
        """Waits for weights and confirms them."""


class Way(NamedTuple):
    """A way to send."""

    title: str
    is_tls: bool
    learner: Callable[[Setting], Any]
    """Context manager of a ``LearnerEnd``."""
    worker: Callable[[Setting, str], Any]
    """Context manager of a ``WorkerEnd`` that dials an address."""
    num_segments: int
    num_weights: int


def make_all_credentials(folder: Path) -> None:
    """Ours, and a pair that tlspyo can load: its own command for that fails with today's pyOpenSSL."""
    make_credentials(folder, [], ["worker-0"])
    authority = make_authority("tlspyo")
    server = make_server_certificate(authority, "tlspyo", ["default"])
    for name, pem in (("server", server.pem), ("client", authority.pem)):
        (folder / "tlspyo" / name).mkdir(parents=True)
        (folder / "tlspyo" / name / "certificate.pem").write_bytes(pem)
    (folder / "tlspyo" / "server" / "key.pem").write_bytes(server.key_pem)


# --- ours -------------------------------------------------------------------------------------------------------------


class _GatewayEnd:
    def __init__(self, gateway: Gateway, address: str) -> None:
        self.address = address
        self._gateway = gateway
        self._weights = weights_of(WEIGHTS_BYTES)
        self._version = 0
        self._segments: deque[Segment] = deque()

    def take_segment(self) -> int:
        if not self._segments:
            self._segments.extend(self._gateway.receive(_TIMEOUT_S))
        segment = self._segments.popleft()
        self._gateway.acknowledge({segment.worker: segment.seq})
        return size_of(segment)

    def send_weights(self) -> None:
        self._version += 1
        self._gateway.publish(self._weights, self._version)

    def wait_answer(self) -> None:
        self.take_segment()


class _UplinkEnd:
    def __init__(self, uplink: Uplink, name: str) -> None:
        self._uplink = uplink
        self._segment = segment_of(SEGMENT_BYTES, name)
        self._answer = segment_of(1, name)

    def send_segment(self) -> None:
        self._uplink.wait_for_room()
        self._uplink.send(self._segment)

    def answer_weights(self) -> None:
        message = self._uplink.wait_newest()
        if message is not None:
            link.decode_weights(message)
        self._uplink.send(self._answer)


@contextmanager
def gateway_end(setting: Setting, max_workers: int = 4) -> Iterator[_GatewayEnd]:
    """A gateway; with TLS on its port for workers from elsewhere."""
    with open_gateway(setting, max_workers) as gateway:
        yield _GatewayEnd(gateway, gateway.remote_address or f"{gateway.address} {gateway.token}")


@contextmanager
def open_gateway(setting: Setting, max_workers: int) -> Iterator[Gateway]:
    """The product's gateway as a training opens it."""
    port = None
    if setting.is_tls:
        server = load_server(setting.folder / "learner")
        port = Port(f"{_LOOPBACK}:0", server.channel, server.tokens, max_workers)
    with Gateway(SPEC, FINGERPRINT, max_workers=max_workers, remote=port) as gateway:
        yield gateway


@contextmanager
def uplink_end(setting: Setting, address: str) -> Iterator[_UplinkEnd]:
    """An uplink that keeps what it sends in memory."""
    with open_uplink(setting, address, WINDOW) as (uplink, name):
        yield _UplinkEnd(uplink, name)


@contextmanager
def open_uplink(
    setting: Setting, address: str, window: int, index: int = 0, compress: bool = False
) -> Iterator[tuple[Uplink, str]]:
    """The product's uplink, connected, and the name of its worker."""
    stop = threading.Event()
    address, _, token = address.partition(" ")
    credentials = load_client(setting.folder / "workers" / "worker-0") if setting.is_tls else None
    name = f"worker-0.{index:08x}"
    hello = link.Hello(name, index, "worker", FINGERPRINT)
    token = token if credentials is None else credentials.token
    uplink = Uplink(address, token, hello, stop, window=window, compress=compress, credentials=credentials)
    uplink.connect()
    uplink.start(push=True)
    try:
        yield uplink, name
    finally:
        stop.set()
        uplink.close()


# --- a raw socket -----------------------------------------------------------------------------------------------------


class _SocketEnd:
    """Either end."""

    def __init__(self, connect: Callable[[], socket.socket], address: str = "") -> None:
        self.address = address
        self._connect = connect
        self._connection: socket.socket | None = None
        self._segment = bytearray(SEGMENT_BYTES)
        self._weights = bytearray(WEIGHTS_BYTES)

    @property
    def connection(self) -> socket.socket:
        if self._connection is None:
            self._connection = self._connect()
            self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self._connection

    def take_segment(self) -> int:
        self._fill(self._segment)
        return len(self._segment)

    def send_segment(self) -> None:
        self.connection.sendall(self._segment)

    def send_weights(self) -> None:
        self.connection.sendall(self._weights)

    def wait_answer(self) -> None:
        self._fill(bytearray(1))

    def answer_weights(self) -> None:
        self._fill(self._weights)
        self.connection.sendall(b"\1")

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()

    def _fill(self, buffer: bytearray) -> None:
        view = memoryview(buffer)
        while view:
            count = self.connection.recv_into(view)
            if not count:
                raise ConnectionError("the other end hung up")
            view = view[count:]


@contextmanager
def listening_socket(setting: Setting) -> Iterator[_SocketEnd]:
    """Python's socket, or its ssl with OpenSSL's defaults."""
    with socket.create_server((_LOOPBACK, 0)) as server:
        server.settimeout(_TIMEOUT_S)

        def accept() -> socket.socket:
            connection, _ = server.accept()
            connection.settimeout(_TIMEOUT_S)
            if not setting.is_tls:
                return connection
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            folder = setting.folder / "learner"
            context.load_cert_chain(folder / "server.pem", folder / "server.key")
            return context.wrap_socket(connection, server_side=True)

        end = _SocketEnd(accept, f"{_LOOPBACK}:{server.getsockname()[1]}")
        try:
            yield end
        finally:
            end.close()


@contextmanager
def dialling_socket(setting: Setting, address: str) -> Iterator[_SocketEnd]:
    """The other end of ``listening_socket``."""

    def dial() -> socket.socket:
        host, _, port = address.rpartition(":")
        connection = socket.create_connection((host, int(port)), _TIMEOUT_S)
        if not setting.is_tls:
            return connection
        context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=setting.folder / "learner" / "ca.pem")
        return context.wrap_socket(connection, server_hostname=host)

    end = _SocketEnd(dial)
    try:
        yield end
    finally:
        end.close()


# --- tlspyo -----------------------------------------------------------------------------------------------------------


class _TlspyoEnd:
    """Either end; objects go as TMRL sends them: pickled, through a relay. A segment is a list of samples there."""

    def __init__(self, endpoint: Any, name: str, address: str = "") -> None:
        self.address = address
        self._endpoint = endpoint
        self._samples = _tmrl_samples(segment_of(SEGMENT_BYTES, name))
        self._weights = weights_of(WEIGHTS_BYTES)
        self._waiting: deque[Any] = deque()

    def take_segment(self) -> int:
        samples: list[Any] = self._take()
        return len(samples) * bytes_per_row()

    def send_segment(self) -> None:
        self._endpoint.produce(self._samples, "trainers")

    def send_weights(self) -> None:
        self._endpoint.broadcast(self._weights, "workers")

    def wait_answer(self) -> None:
        self._take()

    def answer_weights(self) -> None:
        self._take()
        self._endpoint.produce(True, "trainers")

    def _take(self) -> Any:
        if not self._waiting:
            self._waiting.extend(self._endpoint.receive_all(blocking=True))
        return self._waiting.popleft()


@contextmanager
def tlspyo_trainer(setting: Setting) -> Iterator[_TlspyoEnd]:
    """TMRL's relay and its trainer's endpoint."""
    tlspyo = import_tlspyo(setting.tlspyo)
    ports = free_ports(4)
    security = "TLS" if setting.is_tls else None
    keys = str(setting.folder / "tlspyo" / "server")
    groups = {name: {"max_count": None, "max_consumables": None} for name in ("trainers", "workers")}
    relay = tlspyo.Relay(ports[0], "benchmark", groups, ports[1], security=security, keys_dir=keys)
    endpoint = _tlspyo_endpoint(tlspyo, setting, ports[0], "trainers", ports[2])
    endpoint.notify({"trainers": 1_000_000})
    try:
        yield _TlspyoEnd(endpoint, "trainer", f"{ports[0]} {ports[3]}")
    finally:
        _end_tlspyo(endpoint, relay)


@contextmanager
def tlspyo_worker(setting: Setting, address: str) -> Iterator[_TlspyoEnd]:
    """The endpoint of one of TMRL's workers."""
    tlspyo = import_tlspyo(setting.tlspyo)
    port, local_port = map(int, address.split())
    endpoint = _tlspyo_endpoint(tlspyo, setting, port, "workers", local_port)
    try:
        yield _TlspyoEnd(endpoint, "worker-0")
    finally:
        _end_tlspyo(endpoint)


def import_tlspyo(folder: str | None) -> Any:
    """The package, or ImportError."""
    if folder is not None and folder not in sys.path:
        sys.path.append(folder)
    logging.disable(logging.WARNING)  # its clients log how they connect
    from tlspyo import api

    return api


def free_ports(count: int) -> list[int]:
    """Free ports."""
    servers = [socket.create_server((_LOOPBACK, 0)) for _ in range(count)]
    ports = [server.getsockname()[1] for server in servers]
    for server in servers:
        server.close()
    return ports


def _tlspyo_endpoint(tlspyo: Any, setting: Setting, port: int, group: str, local_port: int) -> Any:
    endpoint = tlspyo.Endpoint(
        _LOOPBACK,
        port,
        "benchmark",
        group,
        local_com_port=local_port,
        security="TLS" if setting.is_tls else None,
        keys_dir=str(setting.folder / "tlspyo" / "client"),
        hostname="default",
    )
    time.sleep(_TLSPYO_CONNECTS_S)
    return endpoint


def _tmrl_samples(segment: Segment) -> list[Any]:
    """The same rows as TMRL's buffers hold them: action, observation with the newest image, reward, ends, info."""
    fields = [segment.frames[field.name] for field in SPEC.fields]
    return [
        (segment.action[row], tuple(frames[row] for frames in fields), float(segment.reward[row]), False, False, {})
        for row in range(len(segment))
    ]


def _end_tlspyo(*parts: Any) -> None:
    """Ends it without its own stop(), which waits for a thread that waits for data."""
    for part in parts:
        part._stopped = True
    for process in multiprocessing.active_children():
        process.kill()


OURS, OURS_TLS, SOCKET, SOCKET_TLS, TLSPYO, TLSPYO_TLS = (
    Way("ours", False, gateway_end, uplink_end, 100, 20),
    Way("ours, TLS", True, gateway_end, uplink_end, 100, 20),
    Way("raw socket", False, listening_socket, dialling_socket, 100, 20),
    Way("raw socket, TLS", True, listening_socket, dialling_socket, 100, 20),
    Way("tlspyo", False, tlspyo_trainer, tlspyo_worker, 100, 20),
    Way("tlspyo, TLS", True, tlspyo_trainer, tlspyo_worker, 100, 20),
)
WAYS = (OURS, OURS_TLS, SOCKET, SOCKET_TLS, TLSPYO, TLSPYO_TLS)
