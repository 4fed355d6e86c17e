"""The port for remote workers, and the command for them that a learner or a relay prints at its start.

From the configuration (``remote``) to what the gateway opens, and the command that starts a worker. A listener that is
not encrypted is refused unless it was asked for, and then warned about.
"""

from __future__ import annotations

import ipaddress
import logging
import socket
from collections.abc import Sequence

from tasks.remote.access.credentials import LOCAL_HOSTS, ClientCredentials, load_client, load_server
from tasks.remote.access.listener import Port
from tasks.remote.config import RemoteConfig

_log = logging.getLogger(__name__)

_MEGABYTE = 1024 * 1024


def read_remote_port(remote: RemoteConfig) -> Port:
    """Reads the credentials of a process that listens at ``remote.listen``.

    Raises:
        ValueError: It may not listen like that, or its credentials cannot be read; names the key.
    """
    if remote.listen is None:
        raise ValueError("remote.listen must be given, such as 0.0.0.0:55555, got null")
    if remote.credentials is None:
        raise ValueError(
            f"remote.listen={remote.listen} needs remote.credentials: the folder .../learner (with --server .../relay) "
            "that 'python train.py --make-credentials DIR --workers NAME,...' makes. Nobody joins without a token"
        )
    server = load_server(remote.credentials)
    return Port(
        remote.listen,
        None if remote.insecure else server.channel,
        server.tokens,
        remote.max_workers,
        remote.max_message_mb * _MEGABYTE,
        handshakes=None if remote.insecure else server.handshakes,
        hosts=() if remote.insecure else server.hosts,
    )


def check_credentials(remote: RemoteConfig) -> None:
    """Reads what a learner needs for remote workers, so that a mistake is found before anything starts.

    Raises:
        ValueError: It is missing or cannot be read; names the key or the file.
    """
    if remote.listen is not None:
        read_remote_port(remote)
    if remote.relay is not None:
        load_relay_client(remote)


def load_relay_client(remote: RemoteConfig) -> ClientCredentials:
    """Reads what a learner needs to dial ``remote.relay``.

    Raises:
        ValueError: It is missing or cannot be read; names the key or the file.
    """
    if remote.credentials is None:
        raise ValueError(
            f"remote.relay={remote.relay} needs remote.credentials: the folder .../learner that "
            "'python train.py --make-credentials DIR' makes"
        )
    return load_client(remote.credentials)


def announce(opened: Port, address: str, words: Sequence[str]) -> None:
    """Says where workers join and what they have to type; warns of what an attacker could do.

    Args:
        opened: The port.
        address: host:port that it listens at, with the port that was chosen.
        words: Words of the configuration that a worker must have, such as task=TM20Lidar; empty: not known here.
    """
    host, _, port = address.rpartition(":")
    is_plaintext = opened.credentials is None
    if is_plaintext and not is_loopback(host):
        _log.warning(
            "remote.insecure=true: %s is NOT encrypted. Anybody who sees this network can read samples, weights and "
            "the tokens of workers, and join with them. Leave remote.insecure out to encrypt",
            address,
        )
    names = [name for name in opened.hosts if name not in LOCAL_HOSTS]
    if not is_plaintext and not names and not is_loopback(host):
        _log.warning(
            "the certificate is good for %s only, so no other machine will trust it: run --make-credentials again "
            "with --hosts and the name or address of this machine",
            ", ".join(opened.hosts),
        )
    reached = _reached_at(host, names)
    command = worker_command(words, f"{reached}:{port}", "FOLDER", is_insecure=is_plaintext)
    _log.info(
        "workers join at %s (%s); on each machine, with its copy of .../workers/NAME as FOLDER:\n    %s",
        address,
        "plaintext" if is_plaintext else "TLS",
        command,
    )


def announce_relay(remote: RemoteConfig, words: Sequence[str]) -> None:
    """Says what workers have to type that join at the relay of a learner.

    Args:
        remote: Its configuration.
        words: Words of the configuration that a worker must have.
    """
    command = worker_command(words, str(remote.relay), "FOLDER", is_insecure=remote.insecure)
    _log.info("workers join at the relay %s; on each machine:\n    %s", remote.relay, command)


def worker_command(words: Sequence[str], address: str, credentials: str, *, is_insecure: bool = False) -> str:
    """What starts a remote worker.

    Args:
        words: Words of the configuration; empty: placeholders.
        address: host:port of learner or relay.
        credentials: Folder of the worker.
        is_insecure: Whether the other side speaks plaintext.
    """
    last = ["remote.insecure=true"] if is_insecure else []
    own = [f"remote.address={address}", f"remote.credentials={credentials}", *last]
    return " ".join(["python train.py", *(words or ("task=NAME", "train=NAME")), "--worker", *own])


def is_loopback(host: str) -> bool:
    """Whether only processes of this machine reach ``host``."""
    bare = host.removeprefix("[").removesuffix("]")
    try:
        return ipaddress.ip_address(bare).is_loopback
    except ValueError:
        return bare.lower() == "localhost"


def _reached_at(host: str, names: Sequence[str]) -> str:
    """Under which name a worker dials: one that the certificate has, where it listens everywhere."""
    bare = host.removeprefix("[").removesuffix("]")
    if bare not in ("0.0.0.0", "::"):
        return host
    name = names[0] if names else socket.gethostname()
    return f"[{name}]" if ":" in name else name
