"""Where workers dial in: a gRPC server on one port of this machine, with the limits that the link needs.

The gateway opens one for the workers of this machine and, where ``remote.listen`` says so, one for those from
elsewhere; the relay opens one, too. Who may join and what is said is decided in the handlers.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import Any

import grpc

from tasks.remote.access.handshakes import HandshakeWatch
from tasks.remote.access.tokens import Tokens
from tasks.remote.wire import link
from tasks.remote.wire.methods import METHODS, SERVICE

Handler = Callable[[Iterator[bytes], Any], Any]

CALLS_PER_WORKER = 3
"""Streams that a worker holds at most: segments, weights, evaluation requests."""
SPARE_CALLS = 16
"""Room for greetings, reports, strangers, and streams whose worker has just died."""

# Two servers on one port would share the workers at random.
_OPTIONS = [("grpc.so_reuseport", 0)]
# On a busy machine the keepalives of a worker arrive late and then at once; those of this machine are all welcome.
_LOCAL_OPTIONS = [*_OPTIONS, ("grpc.http2.max_ping_strikes", 0)]
_REMOTE_OPTIONS = [
    *_OPTIONS,
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    # A peer that is gone without a word (its network was cut) is noticed within half a minute.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # For a peer whose machine answers although it does not (a minute by default, whatever the line above says); an
    # answer may have to queue behind a megabyte of other data on a slow link.
    ("grpc.http2.ping_timeout_ms", 30_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # Strangers: they may not hold a connection open without a greeting, nor open calls by the thousand.
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.max_connection_idle_ms", 60_000),
    ("grpc.max_concurrent_streams", 16),
    ("grpc.max_metadata_size", 8_192),
    ("grpc.absolute_max_metadata_size", 16_384),
]


class ListenError(OSError):
    """Raised when an address cannot be listened on."""


@dataclass(frozen=True)
class Port:
    """A port for workers: where it is, and how they are let in."""

    address: str
    """host:port to listen on; port 0: any that is free."""
    credentials: grpc.ServerCredentials | None
    """TLS; None: everything, tokens too, goes in plaintext."""
    tokens: Tokens
    """Who may join."""
    max_workers: int = 16
    """Workers for which there is room at a time."""
    max_message_bytes: int = 64 * 1024 * 1024
    """Larger messages are refused."""
    handshakes: HandshakeWatch | None = None
    """Of the same credentials; None: connections that come to nothing are not noticed."""
    hosts: tuple[str, ...] = ()
    """Names and addresses that the certificate is good for; empty: plaintext."""
    is_remote: bool = True
    """Whether it is for remote workers; else for those that the learner starts, elsewhere only where there is TLS."""


class Listener:
    """A gRPC server on one port, started at once.

    Args:
        address: host:port; port 0: any that is free.
        handlers: What answers each method; called with the requests and what ``check`` makes of gRPC's context.
        check: Stands before all of them.
        max_calls: Calls that are served at a time; further ones are refused.
        credentials: TLS; None: plaintext.
        max_message_bytes: Larger messages are refused.
        is_remote: Whether callers may be on other machines, whose connections can die silently.

    Raises:
        ListenError: The address is taken or is not this machine's.
    """

    def __init__(
        self,
        address: str,
        handlers: Mapping[str, Handler],
        check: grpc.ServerInterceptor,
        max_calls: int,
        *,
        credentials: grpc.ServerCredentials | None = None,
        max_message_bytes: int = link.MAX_MESSAGE_BYTES,
        is_remote: bool = False,
    ) -> None:
        options = [
            *(_REMOTE_OPTIONS if is_remote else _LOCAL_OPTIONS),
            ("grpc.max_receive_message_length", max_message_bytes),
            ("grpc.max_send_message_length", link.MAX_MESSAGE_BYTES),
        ]
        self._server = grpc.server(
            _DaemonThreads(), interceptors=(check,), options=options, maximum_concurrent_rpcs=max_calls
        )
        served = {
            name: grpc.stream_stream_rpc_method_handler(handler)
            if METHODS[name].is_stream
            else grpc.stream_unary_rpc_method_handler(handler)
            for name, handler in handlers.items()
        }
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, served),))
        try:
            if credentials is None:
                port = self._server.add_insecure_port(address)
            else:
                port = self._server.add_secure_port(address, credentials)
        except RuntimeError as error:
            message = f"cannot listen on {address}: is the port taken, or the host not this machine's?"
            raise ListenError(message) from error
        self.address = f"{address.rpartition(':')[0]}:{port}"
        """host:port, with the port that was chosen."""
        self._server.start()

    def close(self, grace_s: float = 0.2) -> None:
        """Ends all calls and frees the port. Calling it twice is fine."""
        self._server.stop(grace=grace_s).wait(grace_s + 1.0)


class _DaemonThreads(Executor):
    """A thread for each call; gRPC bounds their number.

    A ThreadPoolExecutor would hold up the exit of a program that forgot to close the server, because the calls last as
    long as their workers.
    """

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()

        def run() -> None:
            try:
                future.set_result(fn(*args, **kwargs))
            except BaseException as error:
                future.set_exception(error)

        threading.Thread(target=run, name="link-call", daemon=True).start()
        return future
