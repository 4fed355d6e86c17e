"""Ray clusters on this machine for the tests: a head and further nodes, each with processes of its own."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType

TOKEN_MODE = "token"
_START_S = 60.0
_READY = "Ray runtime started"


def own_address() -> str:
    """The address of this machine to others; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


class RayNode:
    """One node: a raylet and what belongs to it.

    Args:
        log: File for what it prints.
        environment: With mode and token.
        arguments: Of ``ray start``.
    """

    def __init__(self, log: Path, environment: dict[str, str], arguments: list[str]) -> None:
        self._log = log
        with log.open("w") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats", *arguments],
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_ready(self) -> None:
        """Waits until it has joined."""
        deadline = time.monotonic() + _START_S
        while _READY not in self._log.read_text():
            assert self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < deadline, self._log.read_text()
            time.sleep(0.1)

    def kill(self) -> None:
        """As by a power cut: everything of the node at once, its workers too."""
        pids = descendants(self._process.pid)
        for pid in [self._process.pid, *pids]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait(10.0)


class RayCluster:
    """A head without room for workers; nodes are added. Ends everything when it is left.

    Args:
        is_open: Whether it requires no token.
    """

    def __init__(self, is_open: bool = False) -> None:
        # Short: paths of sockets are made from it.
        self._folder = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))
        self.token = secrets.token_hex(32)
        self.environment = {**os.environ, "RAY_AUTH_MODE": "disabled" if is_open else TOKEN_MODE}
        self.environment |= {"RAY_AUTH_TOKEN": self.token, "HOME": str(self._folder)}
        self.environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        self._nodes: list[RayNode] = []

    def __enter__(self) -> RayCluster:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.address = f"{own_address()}:{port}"
        self.add_node(
            "--head",
            f"--port={port}",
            f"--node-ip-address={own_address()}",
            "--num-cpus=0",
            "--include-dashboard=false",
            f"--temp-dir={self._folder}",
            is_head=True,
        )
        return self

    def add_node(self, *arguments: str, is_head: bool = False) -> RayNode:
        """Starts a node and waits until it has joined."""
        where = [] if is_head else [f"--address={self.address}"]
        log = self._folder / f"node-{len(self._nodes)}.log"
        node = RayNode(log, self.environment, [*where, "--object-store-memory=80000000", *arguments])
        self._nodes.append(node)
        node.wait_ready()
        return node

    def run(self, code: str) -> str:
        """What a Python program with the token of the cluster prints."""
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for node in reversed(self._nodes):
            node.kill()
        shutil.rmtree(self._folder, ignore_errors=True)


def descendants(pid: int) -> list[int]:
    """Processes below this one."""
    found, parents = [], {pid}
    while parents:
        parents = {child for child, parent in _parents().items() if parent in parents}
        found += sorted(parents)
    return found


def listening_addresses(pids: list[int]) -> set[str]:
    """Addresses at which these processes take connections: as the kernel writes them, in hexadecimal."""
    inodes = set()
    for pid in pids:
        with suppress(OSError):
            for link in Path(f"/proc/{pid}/fd").iterdir():
                with suppress(OSError):
                    inodes |= set(re.findall(r"socket:\[(\d+)\]", os.readlink(link)))
    addresses = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                addresses.add(fields[1].partition(":")[0])
    return addresses


def environment_of(pid: int) -> dict[str, str]:
    """Environment variables of a process."""
    pairs = Path(f"/proc/{pid}/environ").read_text().split("\0")
    return dict(pair.split("=", 1) for pair in pairs if "=" in pair)


def _parents() -> dict[int, int]:
    parents = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError):
                parents[int(folder.name)] = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
    return parents
