"""What a learner has to tell a relay: what is stored, what was refused, the newest weights and the newest request.

``relay_link`` owns one and sends it over each of its connections. Weights or a request that a slow or absent relay
missed it never gets; a relay that was restarted gets again what is still of use.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from enum import Enum

from tasks.remote.wire import parts, relay_messages
from tasks.remote.wire.relay_messages import Marks

SIGN_OF_LIFE_S = 2.0
"""How often the relay hears of the learner at least [s]; silence makes room for another one."""


class Kind(Enum):
    """What is published; of each kind only the newest message."""

    weights = "weights"
    request = "request"


class Announcements:
    """Its methods may be called from any thread, and none but ``stream`` waits."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._durable: dict[str, int] = {}
        self._refused: dict[str, tuple[int, str]] = {}
        self._newest: dict[Kind, bytes] = {}
        self._unsent: dict[Kind, bytes] = {}
        self._is_heard = False
        self._is_closed = False

    def begin(self) -> None:
        """A connection begins. What is stored is said in its first message; nothing is published before an answer."""
        with self._changed:
            self._durable, self._refused = {}, {}
            self._unsent = dict(self._newest)
            self._is_heard = False

    def answered(self) -> None:
        """The relay has answered on this connection."""
        with self._changed:
            self._is_heard = True
            self._changed.notify_all()

    def mark(self, durable: Mapping[str, int]) -> None:
        """Up to which number the segments of these workers are stored."""
        with self._changed:
            self._durable.update(durable)
            self._changed.notify_all()

    def refuse(self, worker: str, epoch: int, reason: str) -> None:
        """The segments of this worker cannot be used."""
        with self._changed:
            self._refused[worker] = (epoch, reason)
            self._changed.notify_all()

    def put(self, kind: Kind, message: bytes) -> None:
        """Replaces what is published of this kind."""
        with self._changed:
            self._newest[kind] = self._unsent[kind] = message
            self._changed.notify_all()

    def withdraw(self, kind: Kind) -> None:
        """What is published of this kind is of no use any more."""
        with self._changed:
            self._newest.pop(kind, None)
            self._unsent.pop(kind, None)

    def wake(self) -> None:
        """Makes ``stream`` look whether it is over."""
        with self._changed:
            self._changed.notify_all()

    def close(self) -> None:
        """Ends ``stream`` when all marks are said."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def stream(self, is_over: threading.Event) -> Iterator[bytes]:
        """All of it as it comes. Marks never wait for a large message: they go between two of its parts."""
        rest: Iterator[bytes] = iter(())
        part: bytes | None = None
        while not is_over.is_set():
            marks, is_last, published = self._take(is_over, waits=part is None)
            if part is None:
                yield relay_messages.encode_marks(marks)
            elif marks.durable or marks.refused:
                yield parts.BETWEEN
                yield relay_messages.encode_marks(marks)
            if is_last:
                return
            if published is not None:
                rest = parts.split(published)
                part = next(rest)
            if part is not None:
                yield part
                part = next(rest, None)

    def _take(self, is_over: threading.Event, waits: bool) -> tuple[Marks, bool, bytes | None]:
        """Marks, whether they are the last, and the next message to publish; waits for one of them."""
        with self._changed:
            if waits:
                self._changed.wait_for(lambda: self._has_news() or is_over.is_set(), SIGN_OF_LIFE_S)
            if is_over.is_set():  # What is left belongs to the next connection.
                return Marks({}, {}), True, None
            said = list(self._durable)[: relay_messages.MAX_MARKS]
            marks = Marks({worker: self._durable.pop(worker) for worker in said}, self._refused)
            self._refused = {}
            published = None
            if waits and self._is_heard and self._unsent:
                published = self._unsent.pop(next(iter(self._unsent)))
            return marks, self._is_closed and not self._durable, published

    def _has_news(self) -> bool:
        is_ready = self._is_heard and bool(self._unsent)
        return bool(self._durable or self._refused or is_ready or self._is_closed)
