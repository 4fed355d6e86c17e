"""A learner for remote workers in the test's own process: a gateway with TLS and tokens, and a replay that remembers.

Also a game in real time that notes when it rests.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np

from tasks.experience.samples import Segment
from tasks.remote.access.credentials import load_server, make_credentials
from tasks.remote.access.listener import Port
from tasks.remote.config import RemoteConfig
from tasks.remote.learner.gateway import Gateway
from tests.tasks.remote.fakes import CountingEnv, SingleGameEnv

SPEC = CountingEnv().observation_spec


class RestingGame(SingleGameEnv):
    """Writes "wait" into the diary of the game when it is told to rest."""

    def wait(self) -> None:
        self._write("wait")


def make_resting_game(**kwargs: Any) -> RestingGame:
    """The environment, from plain data."""
    return RestingGame(**kwargs)


class FakeLearner:
    """Receives, stores and acknowledges in a thread; can crash and come back on the same port.

    Args:
        folder: For the credentials.
        fingerprint: What workers must agree on.
        is_plaintext: No TLS.
        host: Address of this machine to listen on.
        **port: Further arguments of ``Port``.
    """

    def __init__(
        self, folder: Path, fingerprint: str, is_plaintext: bool = False, host: str = "127.0.0.1", **port: Any
    ) -> None:
        self.credentials = folder / "credentials"
        make_credentials(self.credentials, ["localhost"], ["pc", "laptop"])
        self.fingerprint = fingerprint
        self.is_plaintext = is_plaintext
        self.stored: list[Segment] = []
        """What is in the replay, in order of arrival; survives ``crash``."""
        self.stores = True
        """Whether what arrives is stored; else it is only received."""
        self.weights_version = 0
        self._port = port
        self._pending: list[Segment] = []
        self._address = f"{host}:0"
        self._gateway: Gateway | None = None
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self.start()

    def start(self) -> None:
        """Begins, or comes back with what was stored."""
        server = load_server(self.credentials / "learner")
        port = Port(self._address, None if self.is_plaintext else server.channel, server.tokens, **self._port)
        received: dict[str, int] = {}
        for segment in self.stored:
            received[segment.worker] = max(received.get(segment.worker, 0), segment.seq)
        self._gateway = Gateway(SPEC, self.fingerprint, remote=port, received=received)
        assert self._gateway.remote_address is not None
        self._address = self._gateway.remote_address
        self._stop.clear()
        self._thread = threading.Thread(target=self._learn, daemon=True)
        self._thread.start()

    def crash(self) -> None:
        """Ends the learner; what it had not stored is gone."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(30)
        if self._gateway is not None:
            self._gateway.close()
        self._pending.clear()
        self._gateway = None

    def __enter__(self) -> FakeLearner:
        return self

    def __exit__(self, *_: object) -> None:
        self.crash()

    @property
    def gateway(self) -> Gateway:
        assert self._gateway is not None
        return self._gateway

    @property
    def num_received(self) -> int:
        """Segments that arrived, stored or not."""
        return len(self.stored) + len(self._pending)

    @property
    def address(self) -> str:
        """By the name that is in the certificate."""
        return self._address.replace("127.0.0.1", "localhost")

    def publish(self, value: float, version: int, size: int = 1) -> None:
        """Offers weights for the ``RandomPolicy``."""
        self.gateway.publish({"value": np.full(size, value, np.float32)}, version)

    def remote(self, **kwargs: Any) -> RemoteConfig:
        """What the worker called pc is configured with."""
        values = {"address": self.address, "credentials": str(self.credentials / "workers" / "pc")}
        return RemoteConfig(**(values | {"insecure": self.is_plaintext} | kwargs))

    def _learn(self) -> None:
        gateway = self.gateway
        while not self._stop.is_set():
            self._pending += gateway.receive(0.05)
            if self.stores and self._pending:
                pending, self._pending = self._pending, []
                self.stored += pending
                gateway.acknowledge({segment.worker: segment.seq for segment in pending})
