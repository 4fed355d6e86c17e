"""Dialling out: the channel to a learner or a relay, and what is said of one that does not answer as expected.

``uplink`` (workers and stations) and ``relay_link`` (learners) have a ``Dialled`` each. Some failures will not go away
by trying again; it raises those.
"""

from __future__ import annotations

import logging
import socket
import ssl
from typing import TYPE_CHECKING

import grpc

from tasks.remote.wire import link

if TYPE_CHECKING:
    from tasks.remote.access.credentials import ClientCredentials

_log = logging.getLogger(__name__)

_REFUSALS = (
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.UNIMPLEMENTED,
)
_PROBE_TIMEOUT_S = 3.0


class RefusedError(ConnectionError):
    """Raised when the other side refuses this process; trying again is of no use."""


class Dialled:
    """The process that is dialled: the channel to it, and what keeps it from being reached.

    Args:
        name: What it is called, such as "the learner".
        address: host:port.
        credentials: Of this process, for TLS; None: plaintext.
        this: What this process is called, such as "worker".
    """

    def __init__(self, name: str, address: str, credentials: ClientCredentials | None, this: str = "worker") -> None:
        self._name = f"{name} at {address}"
        self._address = address
        self._this = this
        self._authority = None if credentials is None else credentials.authority
        self._has_answered = False
        self.channel = open_channel(address, credentials)
        self.trouble = ""
        """What keeps it from being reached; empty when nothing does."""

    def raise_final(self, error: grpc.RpcError) -> None:
        """Raises ``RefusedError`` if it is of no use to try again.

        What was never reached may never be, and is looked at closely; what was is only away.
        """
        reason = refusal(error)
        if reason is not None:
            raise RefusedError(f"{self._name} refused this {self._this}: {reason}") from error
        reason = diagnose(self._address, self._authority) if not self._has_answered and _is_unreached(error) else None
        if reason is not None:
            raise RefusedError(reason) from error

    def note_answer(self) -> None:
        """It has let this process in."""
        if self.trouble:
            _log.info("%s is connected again", self._name)
        self._has_answered, self.trouble = True, ""

    def note_trouble(self, trouble: str, pause_s: float) -> None:
        """Logs the first trouble of several, and what is new about those that follow."""
        before, self.trouble = self.trouble, trouble
        if not before:
            _log.warning("%s %s; next try in %.1f s", self._name, trouble, pause_s)
        elif before != trouble:
            _log.info("%s %s", self._name, trouble)


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


def describe(error: grpc.RpcError) -> str:
    """What went wrong, short: gRPC's own words begin with which of its parts said so."""
    details = (error.details() or "").rpartition(": ")[2]
    return f"{error.code().name}: {details}" if details else str(error.code().name)


def refusal(error: grpc.RpcError) -> str | None:
    """What the other side said, if it is of no use to try again; else None."""
    code, details = error.code(), error.details() or ""
    # gRPC's own answer to a message above the cap of the other side.
    is_too_large = code is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in details
    return details if code in _REFUSALS or is_too_large else None


def is_crowded(error: grpc.RpcError) -> bool:
    """Whether the other side has no room for now, so that it should be left alone for a while."""
    return bool(error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED)


def _is_unreached(error: grpc.RpcError) -> bool:
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
