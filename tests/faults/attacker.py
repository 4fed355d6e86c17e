"""An attacker with a worker's token who sends messages that no worker sends."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, Self

import grpc

from tasks.remote.access.credentials import load_client
from tasks.remote.wire.methods import path_of
from tests.faults.messages import hello

CALL_TIMEOUT_S = 60.0
END = b"the end"
"""Stands for no message: it ends a stream of segments after the earlier ones were accepted."""
ENDED = "segment refused: message of only 7 bytes"


class Outcome(NamedTuple):
    """How a call ended."""

    code: str
    """Status of gRPC."""
    details: str = ""

    @property
    def was_taken(self) -> bool:
        """Whether every message was accepted."""
        return self.code == "OK" or self.details == ENDED


class Attacker:
    """A client that sends any message.

    Args:
        address: host:port of a learner or a relay.
        folder: Its (stolen) credentials.
        identity: Its name, with the suffix of an outbox.
        token: Token to use instead of that of the credentials.
    """

    def __init__(self, address: str, folder: Path, identity: str, token: str | None = None) -> None:
        credentials = load_client(folder)
        self.identity = identity
        secret = credentials.token if token is None else token
        self._metadata = (("authorization", f"Bearer {secret}"), ("worker", identity))
        options = [("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
        self._channel = grpc.secure_channel(address, credentials.channel, options)

    def greet(self, picture_bytes: int) -> Outcome:
        """Sends a valid greeting."""
        return self.call("Hello", hello(self.identity, picture_bytes))

    def push(self, *messages: bytes) -> Outcome:
        """Sends segments on one stream, until one is refused or all are taken."""
        return self.call("Push", *messages, END)

    def call(self, method: str, *messages: bytes) -> Outcome:
        """Makes one call with these messages; ends it when the first weights arrive."""
        call = self._channel.stream_stream(path_of(method))(
            iter(messages), metadata=self._metadata, timeout=CALL_TIMEOUT_S
        )
        try:
            for _ in call:
                if method == "Weights":
                    call.cancel()
                    return Outcome("OK")
        except grpc.RpcError as error:
            return Outcome(error.code().name, error.details() or "")
        return Outcome("OK")

    def close(self) -> None:
        """Closes the connection."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
