"""Dialling out: the channel to a learner or a relay, and what is said of one that does not answer as expected.

Used by ``uplink`` (workers and stations) and by ``relay_link`` (learners). Some failures will not go away by trying
again; ``refusal`` and ``diagnose`` tell them from those that will.
"""

from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING

import grpc

from tasks.remote.wire import link

if TYPE_CHECKING:
    from tasks.remote.access.credentials import ClientCredentials

_REFUSALS = (
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.UNIMPLEMENTED,
)
_PROBE_TIMEOUT_S = 3.0


def open_channel(address: str, credentials: ClientCredentials | None) -> grpc.Channel:
    """A channel that connects at its first use.

    Args:
        address: host:port.
        credentials: Of this process; None: plaintext.
    """
    options = [
        ("grpc.max_receive_message_length", link.MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", link.MAX_MESSAGE_BYTES),
        ("grpc.keepalive_time_ms", 20_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        # For a peer whose machine answers although it does not (a minute by default, whatever the line above says); an
        # answer may have to queue behind a megabyte of other data on a slow link.
        ("grpc.http2.ping_timeout_ms", 30_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.max_reconnect_backoff_ms", 5_000),
        ("grpc.initial_reconnect_backoff_ms", 100),
        # Workers of one process, too, have a connection each: one that is stuck holds up nobody else.
        ("grpc.use_local_subchannel_pool", 1),
        # A proxy of the environment must not see what goes to this machine.
        ("grpc.enable_http_proxy", 0),
    ]
    if credentials is None:
        return grpc.insecure_channel(address, options)
    return grpc.secure_channel(address, credentials.channel, options)


def refusal(error: grpc.RpcError) -> str | None:
    """What the other side said, if it is of no use to try again; else None."""
    code, details = error.code(), error.details() or ""
    # gRPC's own answer to a message above the cap of the other side.
    is_too_large = code is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in details
    return details if code in _REFUSALS or is_too_large else None


def is_crowded(error: grpc.RpcError) -> bool:
    """Whether the other side has no room for now, so that it should be left alone for a while."""
    return bool(error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED)


def is_unreached(error: grpc.RpcError) -> bool:
    """Whether no connection came about, so that ``diagnose`` may know why."""
    answered = any(key == link.ANSWERED for key, _ in error.trailing_metadata() or ())
    return error.code() is grpc.StatusCode.UNAVAILABLE and not answered


def diagnose(address: str, authority: bytes | None) -> str | None:
    """Why a connection cannot come about for good, found by trying a TLS handshake; None when nothing is wrong with it.

    Args:
        address: host:port that did not answer.
        authority: ca.pem of this process; None: it speaks plaintext.
    """
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    try:
        with socket.create_connection((host, int(port)), _PROBE_TIMEOUT_S) as connection:
            context = _context(authority)
            with context.wrap_socket(connection, server_hostname=host):
                pass
    except ssl.SSLCertVerificationError as error:
        return (
            f"the certificate of {address} cannot be trusted: {error.verify_message.rstrip('.')}; ca.pem in "
            "remote.credentials must be of the authority that made it, with --hosts naming this address, and the clock "
            "of this machine must be right"
        )
    except ssl.SSLError as error:
        if authority is not None and error.reason == "WRONG_VERSION_NUMBER":
            return f"{address} speaks plaintext, and this worker has credentials: start the learner with its own"
        return None
    except (OSError, ValueError):
        return None
    if authority is not None:
        return None
    return f"{address} speaks TLS: name this worker's folder in remote.credentials and leave remote.insecure out"


def _context(authority: bytes | None) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH)
    if authority is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=authority.decode("ascii"))
    else:
        # Only to find out whether there is TLS at all; nothing is sent over it.
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    return context
