"""Relay, learner and workers as processes that are killed: every number is stored once, and Ctrl-C ends the relay."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tasks.remote.config import RemoteConfig
from tasks.remote.relay import relay
from tests.tasks.remote.raw_worker import Folder
from tests.tasks.remote.relay_process import read_ledger

pytestmark = pytest.mark.timeout(120)

ROOT = Path(__file__).resolve().parents[4]
PATIENCE_S = 60.0


class Process:
    """One of ``relay_process``; its log is a file."""

    def __init__(self, folder: Path, name: str, role: str, config: dict[str, Any]) -> None:
        self.log = folder / f"{name}.log"
        self._command = [sys.executable, "-m", "tests.tasks.remote.relay_process", role]
        self.config = config
        self.start()

    def start(self) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [*self._command, json.dumps(self.config)], cwd=ROOT, env=environment, stdout=log, stderr=log
            )

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(PATIENCE_S)

    @property
    def said(self) -> str:
        return self.log.read_text()


class Site:
    """A relay, a learner and two workers, and the numbers that the learner has stored."""

    def __init__(self, folder: Folder, work: Path, stack: contextlib.ExitStack) -> None:
        self._folder, self._work, self._stack = folder, work, stack
        self.ledger = work / "ledger"
        config = {"listen": "127.0.0.1:0", "credentials": str(folder.path / "relay")}
        self.relay = self._process("relay", "relay", config)
        found = wait_for(lambda: re.search(r"relay (127\.0\.0\.1:\d+) \|", self.relay.said), self.relay)
        self.address = self.relay.config["listen"] = found[1]

    def learner(self) -> Process:
        config = {"ledger": str(self.ledger), "credentials": str(self._folder.path / "learner")}
        return self._process("learner", "learner", config | {"address": self.address})

    def worker(self, name: str, count: int, pause_s: float) -> Process:
        config = {"credentials": str(self._folder.path / "workers" / name), "outbox": str(self._work / name)}
        numbers = {"count": count, "pause_s": pause_s, "address": self.address}
        return self._process(name, "worker", config | numbers)

    def stored(self, name: str) -> list[int]:
        return [seq for worker, seq in read_ledger(self.ledger) if worker.startswith(f"{name}.")]

    def _process(self, name: str, role: str, config: dict[str, Any]) -> Process:
        process = Process(self._work, name, role, config)
        self._stack.callback(process.kill)
        return process


def wait_for(condition: Callable[[], Any], *processes: Process) -> Any:
    deadline = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        has_failed = any(process.process.poll() not in (None, 0, -signal.SIGKILL) for process in processes)
        if has_failed or time.monotonic() > deadline:
            pytest.fail("waited in vain\n" + "\n".join(process.said[-3000:] for process in processes))
        time.sleep(0.02)
    return found


@pytest.fixture
def site(folder: Folder, tmp_path: Path) -> Iterator[Site]:
    with contextlib.ExitStack() as stack:
        yield Site(folder, tmp_path, stack)


def test_every_number_is_stored_once_whoever_is_killed(site: Site) -> None:
    count = 250
    workers = [site.worker(name, count, 0.02) for name in ("alice", "bob")]
    wait_for(lambda: "no learner has been at this relay yet" in workers[0].said, *workers)
    learner = site.learner()
    everybody = (site.relay, learner, *workers)

    def go_on() -> None:
        """Until the relay has the learner again and ten more of each worker are stored."""
        greetings = site.relay.said.count("the learner connected")
        wait_for(lambda: site.relay.said.count("the learner connected") > greetings, *everybody)
        before = [len(site.stored(name)) for name in ("alice", "bob")]
        wait_for(
            lambda: all(
                len(site.stored(n)) >= min(b + 10, count) for n, b in zip(("alice", "bob"), before, strict=True)
            ),
            *everybody,
        )

    def start_again(process: Process) -> None:
        process.start()
        go_on()

    go_on()
    site.relay.kill()
    start_again(site.relay)
    learner.kill()
    start_again(learner)
    # Both at once.
    learner.kill()
    site.relay.kill()
    site.relay.start()
    start_again(learner)
    learner.kill()
    learner.start()
    for worker in workers:
        wait_for(lambda worker=worker: worker.process.poll() is not None, *everybody)  # type: ignore[misc]
        assert worker.process.returncode == 0, worker.said[-3000:]
    for name in ("alice", "bob"):
        assert site.stored(name) == list(range(1, count + 1))


def test_ctrl_c_ends_the_relay_with_everybody_connected_and_leaves_nothing_behind(site: Site) -> None:
    learner = site.learner()
    worker = site.worker("alice", 30, 0.0)
    wait_for(lambda: worker.process.poll() == 0, site.relay, learner, worker)
    learner.kill()
    wait_for(lambda: "disconnected; workers keep their segments for it" in site.relay.said, site.relay)
    second = site.worker("bob", 20, 0.0)
    wait_for(lambda: "1 workers" in site.relay.said, site.relay, second)
    start = time.monotonic()
    site.relay.process.send_signal(signal.SIGINT)
    assert site.relay.process.wait(PATIENCE_S) == 0, site.relay.said
    assert time.monotonic() - start < 15.0  # five are promised; it takes less than one, on an idle machine
    site.relay.start()
    learner.start()
    wait_for(lambda: second.process.poll() == 0, site.relay, learner, second)
    assert site.stored("bob") == list(range(1, 21))


def test_a_relay_needs_an_address_and_credentials(site: Site, folder: Folder) -> None:
    credentials = str(folder.path / "relay")
    with pytest.raises(ValueError, match=r"remote\.listen must be given"):
        relay.run(RemoteConfig(credentials=credentials))
    with pytest.raises(ValueError, match=r"needs remote\.credentials"):
        relay.run(RemoteConfig(listen="127.0.0.1:0"))
    with pytest.raises(OSError, match="cannot listen on"):
        relay.run(RemoteConfig(listen=site.address, credentials=credentials))


def test_a_relay_without_tls_is_warned_about(folder: Folder, caplog: pytest.LogCaptureFixture) -> None:
    config = RemoteConfig(listen="0.0.0.0:0", credentials=str(folder.path / "relay"), insecure=True)
    for _ in range(2):
        stop = threading.Event()
        threading.Timer(0.2, stop.set).start()
        caplog.clear()
        assert relay.run(config, headless=True, stop=stop) == 0
        assert "NOT encrypted" in caplog.text


def test_handshakes_that_fail_do_not_fill_the_log_of_a_program(folder: Folder, tmp_path: Path) -> None:
    words = ["--server", "--headless", "remote.listen=127.0.0.1:0", f"remote.credentials={folder.path / 'relay'}"]
    log = tmp_path / "log"
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "train.py"), *words],
            cwd=tmp_path,
            env={name: value for name, value in os.environ.items() if name != "GRPC_VERBOSITY"},
            stdout=file,
            stderr=file,
        )
    try:
        deadline = time.monotonic() + PATIENCE_S
        while not (found := re.search(r"relay 127\.0\.0\.1:(\d+) \|", log.read_text())):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        for _ in range(5):
            with socket.create_connection(("127.0.0.1", int(found[1])), timeout=PATIENCE_S) as stranger:
                stranger.sendall(b"GET / HTTP/1.1\r\n\r\n" * 3)
                with contextlib.suppress(ConnectionResetError):
                    while stranger.recv(4096):  # until the relay hangs up
                        pass
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0
    finally:
        process.kill()
        process.wait()
    assert "andshake" not in log.read_text()
