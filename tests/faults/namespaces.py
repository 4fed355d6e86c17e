"""Two machines on two networks with a router between them: Linux network namespaces. Needs root.

The router can drop every packet silently, which no proxy can: connections then die without an error at either side.
"""

from __future__ import annotations

import os
import subprocess
from typing import Self

from tests.faults.permission import need_root, refuse

LEARNER = "10.213.1.2"
"""Address of the learner's machine."""
WORKER = "10.213.2.2"

_ROUTERS = {"learner": ("10.213.1.1", LEARNER), "worker": ("10.213.2.1", WORKER)}


class Network:
    """The two machines, as a context manager; skips the test where they cannot be made."""

    def __init__(self) -> None:
        self._router = f"tmf-router-{os.getpid()}"
        self._machines = {name: f"tmf-{name}-{os.getpid()}" for name in _ROUTERS}

    @property
    def at_learner(self) -> list[str]:
        """Prefix of a command that runs on the learner's machine."""
        return ["ip", "netns", "exec", self._machines["learner"]]

    @property
    def at_worker(self) -> list[str]:
        """Prefix of a command that runs on the worker's machine."""
        return ["ip", "netns", "exec", self._machines["worker"]]

    def drop_packets(self) -> None:
        """Drops all packets between the machines, without an error at either side."""
        self._forward(False)

    def deliver_packets(self) -> None:
        """Ends ``drop_packets``."""
        self._forward(True)

    def __enter__(self) -> Self:
        need_root("a network namespace")
        try:
            self._build()
        except (OSError, subprocess.CalledProcessError) as error:
            self.__exit__()
            refuse(f"network namespaces cannot be made: {error}")
        return self

    def __exit__(self, *_: object) -> None:
        for namespace in (self._router, *self._machines.values()):
            subprocess.run(["ip", "netns", "delete", namespace], check=False, capture_output=True)

    def _build(self) -> None:
        _ip("netns", "add", self._router)
        for name, (gateway, address) in _ROUTERS.items():
            machine = self._machines[name]
            _ip("netns", "add", machine)
            _ip("-n", machine, "link", "set", "lo", "up")
            _ip("-n", machine, "link", "add", "eth0", "type", "veth", "peer", "name", name, "netns", self._router)
            for namespace, link, own in ((machine, "eth0", address), (self._router, name, gateway)):
                _ip("-n", namespace, "address", "add", f"{own}/24", "dev", link)
                _ip("-n", namespace, "link", "set", link, "up")
            _ip("-n", machine, "route", "add", "default", "via", gateway)
        self._forward(True)

    def _forward(self, is_on: bool) -> None:
        command = ["ip", "netns", "exec", self._router, "tee", "/proc/sys/net/ipv4/ip_forward"]
        subprocess.run(command, input=str(int(is_on)).encode(), check=True, capture_output=True, timeout=10)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=10)
