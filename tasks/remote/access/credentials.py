"""Certificates and tokens of remote training: makes them (``--make-credentials``) and loads them.

An authority of one's own signs the certificates of learner and relay; workers trust only it. Each worker has a token.
What belongs on one machine lies in one folder::

    ca/              ca.pem  ca.key                              stays where it was made
    learner/         ca.pem  server.pem  server.key  tokens.json, and name, token: the learner's own, for the relay
    relay/           ca.pem  server.pem  server.key  tokens.json
    workers/NAME/    ca.pem  name  token

Keys and tokens are readable by their owner only. ``train.py``, gateway, relay and workers call this; nothing here opens
a socket.
"""

from __future__ import annotations

import ipaddress
import logging
import re
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import grpc

from tasks.remote.access import tokens
from tasks.remote.access.handshakes import HandshakeWatch
from tasks.remote.access.private_files import is_open_to_others, make_folder, write_file
from tasks.remote.access.tokens import TokenBook, TokenEntry

if TYPE_CHECKING:
    from tasks.remote.access.certificates import Certified

_log = logging.getLogger(__name__)

LEARNER_NAME = "learner"
"""Name under which the learner dials a relay."""
LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
"""Hosts that every certificate is good for, besides those that are asked for."""
RENEWAL_DAYS = 60
"""A server certificate with less left is made anew at the next call."""

_SERVERS = ("learner", "relay")
_LABEL = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_DNS_NAME = re.compile(rf"(?=.{{1,253}}$){_LABEL}(\.{_LABEL})*")
_TOKEN = re.compile(r"[A-Za-z0-9_-]{20,512}")
_MAX_FILE_BYTES = 1024 * 1024


@dataclass(frozen=True)
class ServerCredentials:
    """What a process that listens needs."""

    certificate: bytes = field(repr=False)
    """The contents of server.pem."""
    key: bytes = field(repr=False)
    """The contents of server.key."""
    hosts: tuple[str, ...]
    """Names and addresses that the certificate is good for."""
    tokens: TokenBook
    handshakes: HandshakeWatch
    """Counts the connections to a server with ``channel`` that come to nothing."""

    @property
    def channel(self) -> grpc.ServerCredentials:
        """For one server: gRPC asks for a new certificate at each connection, which is how these are counted.

        There never is a new one. gRPC would replace the old one while a handshake of another thread still uses it, and
        crash.
        """
        configuration = grpc.ssl_server_certificate_configuration([(self.key, self.certificate)])
        return grpc.dynamic_ssl_server_credentials(configuration, self.handshakes.began)


@dataclass(frozen=True)
class ClientCredentials:
    """What a process that dials out needs."""

    channel: grpc.ChannelCredentials
    name: str
    """Under which the token was made."""
    token: str = field(repr=False)
    authority: bytes = field(repr=False)
    """The contents of ca.pem."""


# --- making -----------------------------------------------------------------------------------------------------------


def make_credentials(folder: str | Path, hosts: Sequence[str] = (), workers: Sequence[str] = ()) -> str:
    """Makes what is missing in ``folder``; what is there stays, except certificates that no longer do.

    Called again it adds workers, adds hosts to the certificates and renews them. A worker that was revoked and is named
    again gets a new token; the old one stays revoked.

    Args:
        folder: Where; made if it does not exist.
        hosts: DNS names and addresses at which learner and relay are reached, without port.
        workers: Names of the workers: letters, digits, _ and -.

    Returns:
        What was made, for people.

    Raises:
        ValueError: A name or a host is not one, or the folder holds half an authority or cannot be written.
    """
    folder = Path(folder)
    names = [_checked_host(host) for host in hosts]
    try:
        _check_workers(folder, workers)
        if not folder.is_dir():
            make_folder(folder)
        authority, line = _load_or_make_authority(folder / "ca")
        lines = [line]
        lines += [_make_server(folder / server, authority, names) for server in _SERVERS]
        lines.append(_make_client(folder, folder / "learner", LEARNER_NAME, tokens.LEARNER, ("relay",), authority))
        if workers:
            make_folder(folder / "workers")
        for worker in dict.fromkeys(workers):
            own = folder / "workers" / worker
            lines.append(_make_client(folder, own, worker, tokens.WORKER, _SERVERS, authority))
    except OSError as error:
        raise ValueError(f"{error.filename or folder} cannot be written: {error.strerror or error}") from error
    return "\n".join([*lines, *_advice(folder)])


def _load_or_make_authority(folder: Path) -> tuple[Certified, str]:
    from tasks.remote.access.certificates import load_certified, make_authority

    make_folder(folder)
    path, key_path = folder / "ca.pem", folder / "ca.key"
    if path.exists() != key_path.exists():
        missing = key_path if path.exists() else path
        raise ValueError(f"{missing} is missing while the rest of {folder} is there; restore it, or use another folder")
    if path.exists():
        return load_certified(path, _read(path), key_path, _read(key_path)), f"{path} was there"
    authority = make_authority("tm20-rl")
    write_file(key_path, authority.key_pem)
    write_file(path, authority.pem)
    return authority, f"{path} made, valid until {authority.last_day}"


def _make_server(folder: Path, authority: Certified, hosts: Sequence[str]) -> str:
    """Certificate, key and an empty list of tokens of a process that listens, as far as they are missing."""
    from tasks.remote.access.certificates import make_server_certificate

    make_folder(folder)
    _write_if_different(folder / "ca.pem", authority.pem)
    if not (folder / "tokens.json").exists():
        tokens.write_tokens(folder / "tokens.json", [])
    path = folder / "server.pem"
    present = _usable_server(folder, authority)
    hosts_then = [] if present is None else present.hosts
    wanted = list(dict.fromkeys([*LOCAL_HOSTS, *hosts_then, *hosts]))
    if present is not None and set(wanted) == set(hosts_then) and present.days_left >= RENEWAL_DAYS:
        return f"{path} was there, for {', '.join(wanted)}"
    made = make_server_certificate(authority, f"tm20-rl {folder.name}", wanted)
    write_file(folder / "server.key", made.key_pem)
    write_file(path, made.pem)
    return f"{path} made, for {', '.join(wanted)}, valid until {made.last_day}"


def _make_client(folder: Path, own: Path, name: str, role: str, servers: Sequence[str], authority: Certified) -> str:
    """The token of a process that dials out, and its hash at the servers that shall know it."""
    make_folder(own)
    _write_if_different(own / "ca.pem", authority.pem)
    _write_if_different(own / "name", f"{name}\n".encode())
    path = own / "token"
    books = {folder / server / "tokens.json": tokens.read_tokens(folder / server / "tokens.json") for server in servers}
    is_revoked = path.exists()
    if path.exists():
        entry = TokenEntry(name, role, tokens.hash_token(_read_line(path)))
        if all(entry in entries for entries in books.values()):
            return f"{path} was there"
    token = tokens.new_token()
    write_file(path, f"{token}\n".encode())
    entry = TokenEntry(name, role, tokens.hash_token(token))
    for book, entries in books.items():
        others = [other for other in entries if (other.name, other.role) != (name, role)]
        tokens.write_tokens(book, [*others, entry])
    return f"{path} made" + (", because the one before was revoked" if is_revoked else "")


def _usable_server(folder: Path, authority: Certified) -> Certified | None:
    """What is in this folder, if it is whole, not expired and signed by this authority."""
    from tasks.remote.access.certificates import is_signed_by

    try:
        present = _load_server_certificate(folder)
    except ValueError:
        return None
    return present if is_signed_by(present, authority) else None


def _advice(folder: Path) -> list[str]:
    return [
        f"Copy {folder / 'learner'}, {folder / 'relay'} and each folder in {folder / 'workers'} to its own machine "
        "and name the copy there in remote.credentials.",
        f"Keep {folder / 'ca' / 'ca.key'} here: anybody who has it can pass for the learner.",
        "To revoke a token, take its entry out of tokens.json, here and on the learner's and the relay's machine; both "
        "notice while they run.",
    ]


def _check_workers(folder: Path, workers: Sequence[str]) -> None:
    present = [path.name for path in (folder / "workers").iterdir()] if (folder / "workers").is_dir() else []
    spellings = {name.casefold(): name for name in present}
    for name in workers:
        if not tokens.is_name(name):
            raise ValueError(f"a worker's name must be {tokens.NAME_RULE}, got {name!r}")
        other = spellings.setdefault(name.casefold(), name)
        if other != name:
            raise ValueError(f"the workers {other!r} and {name!r} differ in case only; their folders might be one")


def _checked_host(host: str) -> str:
    """The host as it stands in a certificate."""
    bare = host.strip().removeprefix("[").removesuffix("]")
    try:
        return str(ipaddress.ip_address(bare))
    except ValueError:
        looks_like_address = re.fullmatch(r"[0-9.]*", bare) is not None
    if looks_like_address or not _DNS_NAME.fullmatch(bare):
        raise ValueError(f"a host must be a DNS name or an IP address, without port, got {host!r}")
    return bare.lower()


def _write_if_different(path: Path, content: bytes) -> None:
    if not path.exists() or path.read_bytes() != content:
        write_file(path, content)


# --- loading ----------------------------------------------------------------------------------------------------------


def load_server(folder: str | Path) -> ServerCredentials:
    """Loads ``.../learner`` or ``.../relay``, for the process that listens.

    Raises:
        ValueError: A file is missing or damaged, or the certificate is not valid now; names the file.
    """
    folder = _existing(folder)
    certified = _load_server_certificate(folder)
    _warn_if_open(folder / "server.key")
    book = TokenBook(folder / "tokens.json")
    return ServerCredentials(certified.pem, certified.key_pem, tuple(certified.hosts), book, HandshakeWatch())


def load_client(folder: str | Path) -> ClientCredentials:
    """Loads ``.../workers/NAME``, or ``.../learner`` of a learner that dials a relay.

    Raises:
        ValueError: A file is missing or damaged; names the file.
    """
    folder = _existing(folder)
    authority = _read(folder / "ca.pem")
    try:
        ssl.create_default_context(cadata=authority.decode("ascii"))
    except (ssl.SSLError, ValueError) as error:
        raise ValueError(f"{folder / 'ca.pem'} is not a certificate; copy the folder again") from error
    name, token = _read_line(folder / "name"), _read_line(folder / "token")
    _warn_if_open(folder / "token")
    if not tokens.is_name(name):
        raise ValueError(f"{folder / 'name'} must hold {tokens.NAME_RULE}, got {name[:80]!r}")
    if not _TOKEN.fullmatch(token):
        raise ValueError(f"{folder / 'token'} does not hold a token; copy the folder again")
    return ClientCredentials(grpc.ssl_channel_credentials(authority), name, token, authority)


def _load_server_certificate(folder: Path) -> Certified:
    from tasks.remote.access.certificates import load_certified

    path, key_path = folder / "server.pem", folder / "server.key"
    return load_certified(path, _read(path), key_path, _read(key_path))


def _existing(folder: str | Path) -> Path:
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"remote.credentials: there is no folder {folder}; make it with --make-credentials")
    return folder


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        raise ValueError(f"{path} is missing; copy the folder again, or make it with --make-credentials") from None
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}") from error
    if len(content) > _MAX_FILE_BYTES:
        raise ValueError(f"{path} is larger than {_MAX_FILE_BYTES} bytes")
    return content


def _read_line(path: Path) -> str:
    try:
        return _read(path).decode("ascii").strip()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} must hold one line of plain text") from error


def _warn_if_open(path: Path) -> None:
    if is_open_to_others(path):
        _log.warning("%s can be read by other accounts of this machine; run: chmod 600 %s", path, path)
