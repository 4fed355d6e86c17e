"""The calls that are open at a gateway or a relay, and the watch over them.

A call that must end (taken over, revoked, too slow) is asked to, and cut off if it does not: its thread may be stuck
in a connection that nobody reads.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import grpc

from tasks.remote.access.admission import Caller, Door, Refusal

_log = logging.getLogger(__name__)

CHECK_S = 1.0
"""How often it is checked whether the open calls may stay [s]."""
GRACE_S = 2.0
"""What a call that must end is given for saying why [s]."""
SHORT_CALL_S = 30.0
"""What a call with one message may take [s]."""


class Call:
    """An open call. It ends when its caller goes and when it is told to.

    Args:
        context: gRPC's view of it.
        caller: Who called.
        door: Through which it came.
        limit_s: What it may take; None: as long as it likes.
    """

    def __init__(self, context: grpc.ServicerContext, caller: Caller, door: Door, limit_s: float | None = None) -> None:
        self.caller = caller
        self._context = context
        self._door = door
        self._deadline_s = math.inf if limit_s is None else time.monotonic() + limit_s
        self._ends_s = math.inf
        self._wakers: list[Callable[[], None]] = []
        self.refusal: Refusal | None = None
        """What its thread must end it with."""

    @property
    def is_open(self) -> bool:
        """Whether it shall go on."""
        return self._ends_s == math.inf and self._context.is_active()

    def wakes(self, waker: Callable[[], None]) -> None:
        """Has ``waker`` called when it must end, so that whoever waits for something else looks again.

        ``waker`` may be called from any thread, and from that of ``end``.
        """
        self._wakers.append(waker)
        if not self._context.add_callback(waker):
            waker()

    def end(self, refusal: Refusal | None = None) -> None:
        """Asks its thread to end it, with a refusal or without."""
        self.refusal = self.refusal or refusal
        self._ends_s = min(self._ends_s, time.monotonic())
        for waker in list(self._wakers):
            waker()

    def check(self, now: float) -> None:
        """Ends it if its caller may not stay; cuts it off if it should have ended."""
        if self._ends_s == math.inf:
            objection = self._door.objection(self.caller)
            # While the list of tokens cannot be read, those who are in stay.
            if objection is not None and objection.code is not grpc.StatusCode.UNAVAILABLE:
                self.end(objection)
        if now > min(self._ends_s + GRACE_S, self._deadline_s):
            _log.warning("cut off a call of %s that did not end", self.caller)
            self._context.cancel()


class OpenCalls:
    """All calls that were let in, watched by a thread of their own.

    Args:
        doors: Doors whose lost connections are noted by the same thread; may be added to.
    """

    def __init__(self, doors: list[Door]) -> None:
        self._doors = doors
        self._lock = threading.Lock()
        self._calls: set[Call] = set()
        self._is_closed = threading.Event()
        threading.Thread(target=self._watch, name="watch-calls", daemon=True).start()

    @contextmanager
    def opened(
        self, context: grpc.ServicerContext, caller: Caller, door: Door, limit_s: float | None = None
    ) -> Iterator[Call]:
        """A call that is open while this is entered."""
        call = Call(context, caller, door, limit_s)
        with self._lock:
            self._calls.add(call)
        try:
            if self._is_closed.is_set():
                call.end()
            yield call
        finally:
            with self._lock:
                self._calls.discard(call)

    def close(self) -> None:
        """Asks all to end. Calling it twice is fine."""
        self._is_closed.set()
        for call in self._snapshot():
            call.end()

    def _watch(self) -> None:
        while not self._is_closed.wait(CHECK_S):
            now = time.monotonic()
            for door in list(self._doors):
                door.note_lost()
            for call in self._snapshot():
                try:
                    call.check(now)
                except Exception:  # One call that cannot be checked must not leave the others unwatched.
                    _log.exception("the call of %s could not be checked", call.caller)

    def _snapshot(self) -> list[Call]:
        with self._lock:
            return list(self._calls)
