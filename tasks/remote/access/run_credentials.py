"""Encryption for one run: made in memory when workers of the run are on other machines that the learner starts itself.

``vecenv`` makes it, the workers get the certificate of its authority with their configuration. Nothing is stored; who
joins by hand uses ``credentials`` instead.
"""

from __future__ import annotations

from typing import NamedTuple

import grpc

from tasks.remote.access.credentials import ClientCredentials
from tasks.remote.access.invitation import is_loopback


class RunCredentials(NamedTuple):
    """Both ends of the encryption; None where everything stays on this machine."""

    server: grpc.ServerCredentials | None
    """For the process that listens."""
    authority: str | None
    """The certificate that its workers trust, as text."""


def make_run_credentials(host: str) -> RunCredentials:
    """Makes an authority and a certificate that is good for ``host``; the authority's key is forgotten at once.

    Args:
        host: Name or address under which workers dial, without port. That of this machine alone needs no encryption.
    """
    if is_loopback(host):
        return RunCredentials(None, None)
    from tasks.remote.access.certificates import make_authority, make_server_certificate

    authority = make_authority("tm20-rl run")
    server = make_server_certificate(authority, "tm20-rl learner", [host])
    credentials = grpc.ssl_server_credentials([(server.key_pem, server.pem)])
    return RunCredentials(credentials, authority.pem.decode("ascii"))


def client_credentials(authority: str, name: str, token: str) -> ClientCredentials:
    """What a worker dials with.

    Args:
        authority: Of ``RunCredentials``.
        name: Name of the worker.
        token: The secret of the run.
    """
    pem = authority.encode("ascii")
    return ClientCredentials(grpc.ssl_channel_credentials(pem), name, token, pem)
