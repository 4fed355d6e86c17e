"""The calls of a service: let in by their token, then watched for as long as they are open.

``TokenCheck`` stands before every method of a port. Handlers get a ``Call`` where gRPC passes its context, so that none
runs for a caller that was not let in. A call that must end (taken over, revoked, too slow) is asked to, and cut off if
it does not: its thread may be stuck in a connection that nobody reads.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

import grpc

from tasks.remote.access.admission import Admission, Refusal
from tasks.remote.wire.methods import METHODS, Method

_log = logging.getLogger(__name__)

CHECK_S = 1.0
"""How often it is checked whether the open calls may stay [s]."""
GRACE_S = 2.0
"""What a call that must end is given for saying why [s]."""

_HANGING_UP_S = 0.2


class Call:
    """A call that was let in. It ends when its caller goes and when it is told to.

    Args:
        context: gRPC's view of it.
        admission: Lets callers in at this port; ends the call if it does not.
        method: What is called.
    """

    def __init__(self, context: grpc.ServicerContext, admission: Admission, method: Method) -> None:
        self.admission = admission
        self.caller = admission.admit(context, method.role)
        self.peer = str(context.peer())
        """Address of the caller, as gRPC writes it."""
        self.refusal: Refusal | None = None
        """What it must end with."""
        self._context = context
        self._deadline_s = time.monotonic() + method.limit_s
        self._ends_s = math.inf
        self._wakers: list[Callable[[], None]] = []

    @property
    def is_open(self) -> bool:
        """Whether it shall go on."""
        return self._ends_s == math.inf and self._context.is_active()

    def take_up(self) -> None:
        """It is a stream that lasts from now on."""
        self._deadline_s = math.inf

    def read_one(self, requests: Iterator[bytes]) -> bytes:
        """The only message of a call; empty when none was sent.

        A caller that has hung up meanwhile did nothing wrong: the call ends, and nothing is refused.
        """
        try:
            return next(requests)
        # StopIteration, or a bare Exception with which gRPC ends the iterator of a call that is over.
        except Exception:
            if self._is_over():
                self.abort(grpc.StatusCode.CANCELLED, "the caller closed the connection")
            return b""

    def wakes(self, waker: Callable[[], None]) -> None:
        """Has ``waker`` called when it must end, so that whatever waits for something else looks again.

        ``waker`` may be called from any thread, and from that of ``end``.
        """
        self._wakers.append(waker)
        if not self._context.add_callback(waker):
            waker()

    def refuse(self, refusal: Refusal) -> NoReturn:
        """Ends it, from its own thread; counted and in the log."""
        self.admission.refusals.refuse(self._context, refusal)

    def abort(self, code: grpc.StatusCode, message: str) -> NoReturn:
        """Ends it, from its own thread, for a reason that is nobody's fault."""
        self._context.abort(code, message)
        raise AssertionError("abort raises")

    def end(self, refusal: Refusal | None = None) -> None:
        """Asks its thread to end it, with a refusal or without."""
        self.refusal = self.refusal or refusal
        self._ends_s = min(self._ends_s, time.monotonic())
        for waker in list(self._wakers):
            waker()

    def check(self, now: float) -> None:
        """Ends it if its caller may not stay; cuts it off if it should have ended."""
        if self._ends_s == math.inf:
            objection = self.admission.objection(self.caller)
            # While the list of tokens cannot be read, those who are in stay.
            if objection is not None and objection.code is not grpc.StatusCode.UNAVAILABLE:
                self.end(objection)
        if now > min(self._ends_s + GRACE_S, self._deadline_s):
            _log.warning("cut off a call of %s that did not end", self.caller)
            self._context.cancel()

    def _is_over(self) -> bool:
        """Whether the caller is gone; gRPC may say so a moment after it has said that no message will come."""
        over = threading.Event()
        return not self._context.add_callback(over.set) or over.wait(_HANGING_UP_S)


class OpenCalls:
    """All calls that were let in, at any port, watched by a thread of their own."""

    def __init__(self) -> None:
        self._admissions: list[Admission] = []
        self._lock = threading.Lock()
        self._calls: set[Call] = set()
        self._is_closed = threading.Event()
        threading.Thread(target=self._watch, name="watch-calls", daemon=True).start()

    def check_at(self, admission: Admission) -> TokenCheck:
        """What stands before the methods of one more port."""
        self._admissions.append(admission)
        return TokenCheck(self, admission)

    @contextmanager
    def opened(self, call: Call) -> Iterator[None]:
        """Watches a call while this is entered."""
        with self._lock:
            self._calls.add(call)
        try:
            if self._is_closed.is_set():
                call.end()
            yield
        finally:
            with self._lock:
                self._calls.discard(call)
        if call.refusal is not None:
            call.refuse(call.refusal)

    def close(self) -> None:
        """Asks all to end. Calling it twice is fine."""
        self._is_closed.set()
        for call in self._snapshot():
            call.end()

    def _watch(self) -> None:
        while not self._is_closed.wait(CHECK_S):
            now = time.monotonic()
            for admission in list(self._admissions):
                admission.note_lost()
            for call in self._snapshot():
                try:
                    call.check(now)
                except Exception:  # One call that cannot be checked must not leave the others unwatched.
                    _log.exception("the call of %s could not be checked", call.caller)

    def _snapshot(self) -> list[Call]:
        with self._lock:
            return list(self._calls)


class TokenCheck(grpc.ServerInterceptor):  # type: ignore[misc]
    """Lets a call in before its handler sees anything of it; made by ``OpenCalls.check_at``."""

    def __init__(self, calls: OpenCalls, admission: Admission) -> None:
        self._calls = calls
        self._admission = admission

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler | None],
        details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler | None:
        """As gRPC asks; None: there is no such method."""
        handler = continuation(details)
        if handler is None:
            return None
        method = METHODS[details.method.rpartition("/")[2]]

        def stream(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
            call = Call(context, self._admission, method)
            with self._calls.opened(call):
                yield from handler.stream_stream(requests, call)

        def unary(requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
            call = Call(context, self._admission, method)
            with self._calls.opened(call):
                answer: bytes = handler.stream_unary(requests, call)
            return answer

        if method.is_stream:
            return grpc.stream_stream_rpc_method_handler(stream)
        return grpc.stream_unary_rpc_method_handler(unary)
