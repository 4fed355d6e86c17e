"""The check of tokens before every method: no handler sees a call that was not let in."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from tasks.remote.access.admission import Admission, Refusals
from tasks.remote.access.listener import Listener
from tasks.remote.access.tokens import Verdict
from tasks.remote.station.calls import Call, OpenCalls
from tasks.remote.wire.methods import METHODS, path_of

pytestmark = pytest.mark.timeout(60)


class OneToken:
    """Knows one token, for one role."""

    def __init__(self, token: str, role: str) -> None:
        self._token, self._role = token, role

    def judge(self, name: str, token: str, role: str) -> Verdict:
        if token != self._token:
            return Verdict.unknown
        return Verdict.accepted if role == self._role else Verdict.another_role


class Port:
    """Serves a method whose handler looks at nothing, and notes who called it."""

    def __init__(self, method: str, role: str) -> None:
        self.called: list[str] = []
        self._method = method
        self._calls = OpenCalls()
        self._check = self._calls.check_at(Admission(OneToken("right", role), Refusals()))
        handler = self._stream if METHODS[method].is_stream else self._unary
        self._listener = Listener("127.0.0.1:0", {method: handler}, self._check, 4)

    def call(self, token: str) -> str:
        """The status of a call with this token."""
        metadata = (("authorization", f"Bearer {token}"), ("worker", "alice.1"))
        with grpc.insecure_channel(self._listener.address, [("grpc.enable_http_proxy", 0)]) as channel:
            try:
                list(channel.stream_stream(path_of(self._method))(iter([b"x"]), metadata=metadata, timeout=20))
            except grpc.RpcError as error:
                return str(error.code().name)
        return "OK"

    def close(self) -> None:
        self._calls.close()
        self._listener.close()

    def _unary(self, requests: Iterator[bytes], call: Call) -> bytes:
        self.called.append(call.caller.identity)
        return b""

    def _stream(self, requests: Iterator[bytes], call: Call) -> Iterator[bytes]:
        self.called.append(call.caller.identity)
        yield b""


@pytest.mark.parametrize("method", METHODS)
def test_no_handler_sees_a_call_that_was_not_let_in(method: str) -> None:
    with contextlib.closing(Port(method, METHODS[method].role)) as port:
        assert port.call("wrong") == "UNAUTHENTICATED"
        assert port.called == []
        assert port.call("right") == "OK"
        assert port.called == ["alice.1"]


@pytest.mark.parametrize("method", METHODS)
def test_a_token_is_good_for_the_methods_of_its_role_only(method: str) -> None:
    other: dict[str, Any] = {"worker": "trainer", "trainer": "worker"}
    with contextlib.closing(Port(method, other[METHODS[method].role])) as port:
        assert port.call("right") == "PERMISSION_DENIED"
        assert port.called == []
