"""Who is let in: judges the token of a call, and refuses with a reason.

``station.calls`` asks an ``Admission`` before anything of a call is read, and again while it is open. Each refusal is
told to the caller and is one line in the log; a flood of them is not.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable
from typing import NamedTuple, NoReturn

import grpc

from tasks.remote.access.handshakes import HandshakeWatch
from tasks.remote.access.tokens import NAME_PATTERN, WORKER, Tokens, Verdict
from tasks.remote.wire import link

_log = logging.getLogger(__name__)

MAX_REFUSAL_LINES = 20
"""Lines about refusals in a row; afterwards one for each ``LINE_EVERY_S``."""
LINE_EVERY_S = 5.0

_UNKNOWN = "the token is not known here: it is wrong, another learner's, or was revoked"
_NOT_OF_THIS_RUN = "the token is not the one of this run"
_IDENTITY = re.compile(rf"{NAME_PATTERN}(\.[A-Za-z0-9_-]{{1,64}}){{0,2}}")


class Caller(NamedTuple):
    """Who calls."""

    identity: str
    """What sequence numbers belong to: NAME, or NAME.SUFFIX for each outbox of this name."""
    name: str
    """Under which the token was made."""
    token: str
    role: str = WORKER
    """That the method asks for."""

    def __repr__(self) -> str:
        return f"Caller({self.identity})"


class Refusal(NamedTuple):
    """Why somebody is turned away."""

    code: grpc.StatusCode
    message: str


def mismatch(hello: link.Hello, fingerprint: str) -> Refusal | None:
    """Why a worker of another task or another network may not join; None: it is of this one."""
    if hello.fingerprint == fingerprint:
        return None
    message = f"worker {hello.worker} {link.explain_mismatch(hello.fingerprint, fingerprint)}"
    return Refusal(grpc.StatusCode.FAILED_PRECONDITION, message)


class Refusals:
    """Ends calls that are not wanted, and says so: to the caller always, in the log unless there are too many.

    Args:
        now: Seconds of a clock that never goes back.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._count = 0
        self._lines_left = float(MAX_REFUSAL_LINES)
        self._counted_s = now()
        self._hidden = 0

    @property
    def count(self) -> int:
        """Refusals so far."""
        return self._count

    def refuse(self, context: grpc.ServicerContext, refusal: Refusal) -> NoReturn:
        """Ends the call of this thread."""
        self.note(context.peer(), refusal.message)
        context.set_trailing_metadata(((link.ANSWERED, "1"),))
        context.abort(*refusal)
        raise AssertionError("abort raises")

    def note(self, peer: str, message: str, count: int = 1) -> None:
        """Counts a refusal, or several at once, and writes their line."""
        with self._lock:
            self._count += count
            now = self._now()
            self._lines_left = min(self._lines_left + (now - self._counted_s) / LINE_EVERY_S, MAX_REFUSAL_LINES)
            self._counted_s = now
            if self._lines_left < 1.0:
                self._hidden += 1
                return
            self._lines_left -= 1.0
            hidden, self._hidden = self._hidden, 0
        _log.warning("refused %s: %s%s", peer, message, f" ({hidden} more were not shown)" if hidden else "")


class Admission:
    """Who is let in at one port.

    Args:
        tokens: Who may join.
        refusals: Where refusals are counted.
        is_remote: Whether this is the port for other machines.
        handshakes: Told who calls; ``note_lost`` says which connections came to nothing.
        max_message_bytes: Of one who came in: larger messages are refused.
    """

    def __init__(
        self,
        tokens: Tokens,
        refusals: Refusals,
        *,
        is_remote: bool = True,
        handshakes: HandshakeWatch | None = None,
        max_message_bytes: int = link.MAX_MESSAGE_BYTES,
    ) -> None:
        self._tokens = tokens
        self._handshakes = handshakes
        self.refusals = refusals
        self.is_remote = is_remote
        self.max_message_bytes = max_message_bytes

    def admit(self, context: grpc.ServicerContext, role: str) -> Caller:
        """Who calls; ends the call if it has no token of this role."""
        if self._handshakes is not None:
            self._handshakes.called(context.peer())
        metadata = {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}
        scheme, _, token = metadata.get("authorization", "").partition(" ")
        identity = metadata.get("worker", "")
        caller = Caller(identity, identity.partition(".")[0], token if scheme == "Bearer" else "", role)
        objection = self.objection(caller)
        if objection is not None:
            self.refusals.refuse(context, objection)
        if not _IDENTITY.fullmatch(identity):
            message = f"the worker's name must be letters, digits, _ and -, got {identity[:80]!r}"
            self.refusals.refuse(context, Refusal(grpc.StatusCode.FAILED_PRECONDITION, message))
        return caller

    def objection(self, caller: Caller) -> Refusal | None:
        """Why this caller may not come in, or not stay; None: it may."""
        verdict = self._tokens.judge(caller.name, caller.token, caller.role)
        if verdict is Verdict.accepted:
            return None
        if verdict is Verdict.revoked:
            return Refusal(grpc.StatusCode.UNAUTHENTICATED, "the token was revoked")
        if verdict is Verdict.another_name:
            message = f"the token was made for another name than {caller.name[:80]!r}"
            return Refusal(grpc.StatusCode.PERMISSION_DENIED, message)
        if verdict is Verdict.another_role:
            return Refusal(grpc.StatusCode.PERMISSION_DENIED, f"the token was not made for the role {caller.role!r}")
        if verdict is Verdict.unreadable:
            message = "the list of tokens cannot be read at the moment, so no new worker is admitted"
            return Refusal(grpc.StatusCode.UNAVAILABLE, message)
        return Refusal(grpc.StatusCode.UNAUTHENTICATED, _UNKNOWN if self.is_remote else _NOT_OF_THIS_RUN)

    def note_lost(self) -> None:
        """Notes the connections that have come to nothing since the last time; to be called every few seconds."""
        lost = 0 if self._handshakes is None else self._handshakes.take_lost()
        if lost:
            message = "came to nothing: plaintext, no trust in our certificate (ca.pem of another authority), or a scan"
            self.refusals.note(f"{lost} connection{'s' if lost > 1 else ''}", message, lost)
