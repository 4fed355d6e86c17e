"""Who may join: the hashes of the tokens that a learner or a relay accepts, in ``tokens.json``.

``credentials`` writes the file; gateway and relay ask a ``TokenBook`` at every call and, while a stream is open, again
and again. The file is read anew when it has changed: an entry that is taken out is revoked at once. Tokens are 256
random bits, so a plain SHA-256 of them can be neither reversed nor guessed.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import re
import secrets
import threading
import time
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import NamedTuple, Protocol

from tasks.remote.access.private_files import write_file
from tasks.remote.wire import methods

_log = logging.getLogger(__name__)

WORKER, LEARNER = methods.WORKER, methods.LEARNER
ROLES = (WORKER, LEARNER)
"""A worker sends segments; the learner takes segments from a relay and gives it weights."""

NAME_PATTERN = r"[A-Za-z0-9_][A-Za-z0-9_-]{0,63}"
NAME_RULE = "letters, digits, _ and - (at most 64, not beginning with -)"

_NAME = re.compile(NAME_PATTERN)
_HASH = re.compile(r"[0-9a-f]{64}")
_VERSION = 1
_MAX_FILE_BYTES = 16 * 1024 * 1024
_MAX_TOKEN_CHARACTERS = 512
_SETTLED_NS = 2_000_000_000


class Verdict(Enum):
    """What is to be said of a token."""

    accepted = "accepted"
    unknown = "unknown"
    """No such token; what is wrong with it is not said to who may be guessing."""
    revoked = "revoked"
    """It was good while this book was open."""
    another_name = "another_name"
    """It is good for another name."""
    another_role = "another_role"
    """It is good for this name in another role."""
    unreadable = "unreadable"
    """The file cannot be read at the moment, so nobody is let in."""


class Tokens(Protocol):
    """What a gateway or a relay asks."""

    def judge(self, name: str, token: str, role: str) -> Verdict:
        """Says whether ``token`` is the one of ``name`` in this role."""


class TokenEntry(NamedTuple):
    """A line of the file."""

    name: str
    role: str
    sha256: str
    """64 hexadecimal digits."""


def new_token() -> str:
    """A secret that cannot be guessed."""
    return secrets.token_urlsafe(32)


def hash_token(token: str) -> str:
    """What is stored of a token."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def is_name(text: str) -> bool:
    """Whether ``text`` can name a worker."""
    return _NAME.fullmatch(text) is not None


def read_tokens(path: str | Path) -> list[TokenEntry]:
    """Reads the file.

    Raises:
        ValueError: It is missing or damaged; names the file and what is wrong.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}") from error
    if len(text) > _MAX_FILE_BYTES:
        raise ValueError(f"{path} is larger than {_MAX_FILE_BYTES} bytes; is it tokens.json?")
    try:
        stored = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(stored, dict) or stored.get("version") != _VERSION or not isinstance(stored.get("tokens"), list):
        raise ValueError(
            f'{path} must hold {{"version": {_VERSION}, "tokens": [...]}}; make it with --make-credentials'
        )
    return _checked_entries(path, stored["tokens"])


def write_tokens(path: str | Path, entries: Sequence[TokenEntry]) -> None:
    """Writes or replaces the file in one step."""
    stored = {"version": _VERSION, "tokens": [entry._asdict() for entry in entries]}
    write_file(Path(path), (json.dumps(stored, indent=1) + "\n").encode())


class RunToken:
    """The secret of one run, good for any name: for workers that the learner starts itself."""

    def __init__(self, token: str) -> None:
        self._digest = hash_token(token)

    def judge(self, name: str, token: str, role: str) -> Verdict:
        """As ``Tokens.judge``."""
        is_it = hmac.compare_digest(self._digest, hash_token(token))
        return Verdict.accepted if is_it and role == WORKER else Verdict.unknown


class TokenBook:
    """The accepted tokens of one ``tokens.json``. Its methods may be called from any thread.

    Args:
        path: The file.

    Raises:
        ValueError: The file is missing or damaged. Where that happens later, nobody is let in until it is repaired.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._lock = threading.Lock()
        self._seen = self._file_state()
        self._accepted: _Entries | None = _Entries(read_tokens(self._path))
        self._known = self._accepted

    def judge(self, name: str, token: str, role: str) -> Verdict:
        """As ``Tokens.judge``. A wrong token takes as long for any name; only who owns a token learns more."""
        digest = bytes.fromhex(hash_token(token[:_MAX_TOKEN_CHARACTERS]))
        with self._lock:
            self._read_if_changed()
            accepted, known = self._accepted, self._known
        if accepted is None:
            return Verdict.unreadable
        if accepted.is_of(name, role, digest):
            return Verdict.accepted
        owners, former = accepted.owners(digest), known.owners(digest)
        if any(owner.name == name for owner in owners):
            return Verdict.another_role
        if owners:
            return Verdict.another_name
        return Verdict.revoked if former else Verdict.unknown

    def _read_if_changed(self) -> None:
        state = self._file_state()
        if state is not None and state == self._seen:
            return
        # The state from before reading: a change in between is seen at the next call.
        self._seen = state
        try:
            entries = read_tokens(self._path)
        except ValueError as error:
            if self._accepted is not None:
                _log.error("no new worker is admitted until this is repaired: %s", error)
            self._accepted = None
            return
        if self._accepted is None or entries != self._accepted.entries:
            _log.info("%s has changed: %d tokens are accepted", self._path, len(entries))
            self._accepted = _Entries(entries)
            self._known = _Entries([*dict.fromkeys([*self._known.entries, *entries])])

    def _file_state(self) -> tuple[int, ...] | None:
        """What changes with the file; None when that cannot be told, so that it is read."""
        try:
            status = self._path.stat()
        except OSError:
            return None
        # Two changes within one tick of the file system's clock look the same.
        is_settled = time.time_ns() - status.st_mtime_ns > _SETTLED_NS
        return (status.st_mtime_ns, status.st_size, status.st_ino, status.st_ctime_ns) if is_settled else None


class _Entries:
    """Entries, and their hashes as bytes. Hashes are compared in constant time."""

    def __init__(self, entries: Sequence[TokenEntry]) -> None:
        self.entries = list(entries)
        self._digests = [bytes.fromhex(entry.sha256) for entry in self.entries]
        self._of: dict[tuple[str, str], list[bytes]] = {}
        for entry, digest in zip(self.entries, self._digests, strict=True):
            self._of.setdefault((entry.name, entry.role), []).append(digest)

    def is_of(self, name: str, role: str, digest: bytes) -> bool:
        """Whether the token with this hash is theirs."""
        return any(hmac.compare_digest(own, digest) for own in self._of.get((name, role), []))

    def owners(self, digest: bytes) -> list[TokenEntry]:
        """Whose token has this hash; looks at all of them."""
        pairs = zip(self.entries, self._digests, strict=True)
        return [entry for entry, own in pairs if hmac.compare_digest(own, digest)]


def _checked_entries(path: Path, stored: list[object]) -> list[TokenEntry]:
    entries = []
    for index, item in enumerate(stored):
        where = f"{path}: tokens[{index}]"
        if not isinstance(item, dict) or set(item) != set(TokenEntry._fields):
            raise ValueError(f"{where} must have exactly {list(TokenEntry._fields)}")
        entry = TokenEntry(str(item["name"]), str(item["role"]), str(item["sha256"]))
        if not is_name(entry.name):
            raise ValueError(f"{where}: name must be {NAME_RULE}, got {entry.name[:80]!r}")
        if entry.role not in ROLES:
            raise ValueError(f"{where}: role must be one of {list(ROLES)}, got {entry.role[:80]!r}")
        if not _HASH.fullmatch(entry.sha256):
            raise ValueError(f"{where}: sha256 must be 64 hexadecimal digits")
        entries.append(entry)
    return entries
