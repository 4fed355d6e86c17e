"""Machines with their own addresses: Linux network namespaces on one switch (iproute2). Needs root.

All machines can reach one of them, but not each other, like machines behind firewalls that allow outgoing connections
only: their ports of the switch are isolated. The network has no connection to the outside.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from benchmarks.two_machines.wire import end_names

ROOT = Path(__file__).resolve().parents[2]

_PREFIX = "tm20"
_NETWORK = "10.214.0"
_SWITCH = "switch"
_ATTEMPTS = 3
_TIMEOUT_S = 10.0
_PROBE = """
import socket, sys, time
for address in sys.argv[1:]:
    best = None
    for _ in range({attempts}):
        began = time.perf_counter()
        try:
            socket.create_connection((address, 9), 1.0).close()
        except ConnectionRefusedError:
            took = time.perf_counter() - began
            best = took if best is None else min(best, took)
        except OSError:
            break
    print("-" if best is None else best)
"""


class Network:
    """The machines, as a context manager.

    Args:
        machines: Their names.
        reachable: The one that the others reach.
        round_trip_ms: Time that a packet takes from one machine to another and back, besides what it takes anyway.
    """

    def __init__(self, machines: Sequence[str], reachable: str, round_trip_ms: float = 0.0) -> None:
        self.machines = tuple(machines)
        self._reachable = reachable
        self._round_trip_ms = round_trip_ms
        self._wires: subprocess.Popen[str] | None = None

    def address(self, machine: str) -> str:
        """Address of a machine."""
        return f"{_NETWORK}.{2 + self.machines.index(machine)}"

    def at(self, machine: str) -> list[str]:
        """Prefix of a command that runs on a machine."""
        return ["ip", "netns", "exec", self._namespace(machine)]

    def round_trips(self) -> dict[tuple[str, str], float | None]:
        """Time of a connection attempt from each machine to each other [s]; None: unreachable."""
        others = {source: [target for target in self.machines if target != source] for source in self.machines}
        probe = _PROBE.format(attempts=_ATTEMPTS)
        running = {
            source: subprocess.Popen(
                [*self.at(source), sys.executable, "-I", "-c", probe, *map(self.address, targets)],
                stdout=subprocess.PIPE,
                text=True,
            )
            for source, targets in others.items()
        }
        found: dict[tuple[str, str], float | None] = {}
        for source, process in running.items():
            said, _ = process.communicate(timeout=60)
            for target, took in zip(others[source], said.split(), strict=True):
                found[source, target] = None if took == "-" else float(took)
        return found

    def open_ports(self, machine: str) -> list[str]:
        """host:port of every listening socket that other machines could reach."""
        said = _run([*self.at(machine), "ss", "-Htln"])
        addresses = [line.split()[3] for line in said.splitlines()]
        return [address for address in addresses if not re.match(r"127\.|\[::1\]|\[::ffff:127\.", address)]

    def megabytes(self, machine: str) -> tuple[float, float]:
        """Received and sent data so far [MB]."""
        said = json.loads(_run(["ip", "-n", self._namespace(machine), "-s", "-json", "link", "show", "eth0"]))
        counts = said[0]["stats64"]
        return counts["rx"]["bytes"] / 1e6, counts["tx"]["bytes"] / 1e6

    def __enter__(self) -> Self:
        remove_left_over()
        try:
            self._build()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._wires is not None:
            self._wires.kill()
            self._wires.communicate()
            self._wires = None
        for namespace in map(self._namespace, (*self.machines, _SWITCH)):
            _remove(namespace)

    def _namespace(self, machine: str) -> str:
        return f"{_PREFIX}-{os.getpid()}-{machine}"

    def _build(self) -> None:
        switch = self._namespace(_SWITCH)
        for name in (*self.machines, _SWITCH):
            _ip("netns", "add", self._namespace(name))
            _ip("-n", self._namespace(name), "link", "set", "lo", "up")
        _ip("-n", switch, "link", "add", "name", "bridge", "type", "bridge")
        _ip("-n", switch, "link", "set", "bridge", "up")
        if self._round_trip_ms:
            self._start_wires()
        for machine in self.machines:
            self._connect(machine, switch)

    def _start_wires(self) -> None:
        # A packet goes over two of them, and so does what answers it.
        delay_ms = str(self._round_trip_ms / 4)
        self._wires = subprocess.Popen(
            [*self.at(_SWITCH), sys.executable, "-m", "benchmarks.two_machines.wire", delay_ms, *self.machines],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self._wires.stdout is not None
        if self._wires.stdout.readline() != "ready\n":
            raise OSError("packets cannot be delayed: is there a /dev/net/tun?")

    def _connect(self, machine: str, switch: str) -> None:
        """Lays a cable from a machine to the switch."""
        namespace = self._namespace(machine)
        at_switch, at_machine = end_names(machine)
        if self._wires is None:
            _ip("-n", switch, "link", "add", "name", at_switch, "type", "veth", "peer", "name", at_machine)
        _ip("-n", switch, "link", "set", at_machine, "netns", namespace, "name", "eth0")
        _ip("-n", namespace, "address", "add", f"{self.address(machine)}/24", "dev", "eth0")
        _ip("-n", namespace, "link", "set", "eth0", "up")
        _ip("-n", switch, "link", "set", at_switch, "master", "bridge", "up")
        if machine != self._reachable:
            _ip("-n", switch, "link", "set", at_switch, "type", "bridge_slave", "isolated", "on")


def remove_left_over() -> None:
    """Removes namespaces of killed commands, and the processes in them."""
    for name in _run(["ip", "netns", "list"]).split():
        found = re.fullmatch(rf"{_PREFIX}-(\d+)-\w+", name)
        if found and not Path("/proc", found[1]).exists():
            _remove(name)


def _remove(namespace: str) -> None:
    """Removes a namespace and ends the processes in it."""
    listed = subprocess.run(["ip", "netns", "pids", namespace], check=False, capture_output=True, text=True)
    for pid in listed.stdout.split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    subprocess.run(["ip", "netns", "delete", namespace], check=False, capture_output=True)


def _ip(*words: str) -> None:
    _run(["ip", *words])


def _run(command: Sequence[str]) -> str:
    """Runs a command; returns its output.

    Raises:
        OSError: The command failed; the message says why.
    """
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=_TIMEOUT_S)
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip() or f'exit code {done.returncode}'}")
    return done.stdout
