"""Processes around a relay for the tests: the relay itself, a learner that stores numbers, a worker that sends them.

Started with a role and its configuration as JSON. The learner's replay is a text file that is on the disk before it is
acknowledged; the worker is the product's own uplink over its disk outbox.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from tasks.remote.access.credentials import load_client
from tasks.remote.config import OutboxPolicy, RemoteConfig
from tasks.remote.learner.relay_link import open_relay_link
from tasks.remote.relay import relay
from tasks.remote.station.outbox import open_outbox
from tasks.remote.station.outbox_uplink import OutboxUplink
from tasks.remote.wire import link
from tests.tasks.remote.raw_worker import FINGERPRINT, SPEC, make_segment


def read_ledger(path: Path) -> list[tuple[str, int]]:
    """Worker and number of everything that is stored, in order; a line that a crash has cut short is none."""
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    entries = [line.decode().split(" ") for line in lines]
    return [(worker, int(seq)) for worker, seq in entries]


def run_relay(config: dict[str, Any]) -> int:
    return relay.run(RemoteConfig(**config), headless=True)


def run_learner(config: dict[str, Any], stop: threading.Event) -> int:
    path = Path(config["ledger"])
    entries = read_ledger(path)
    received = {worker: max(seq for name, seq in entries if name == worker) for worker, _ in entries}
    # A line that was cut short is not continued.
    path.write_text("".join(f"{worker} {seq}\n" for worker, seq in entries))
    remote = RemoteConfig(relay=config["address"], credentials=config["credentials"])
    with path.open("a") as file, open_relay_link(remote, SPEC, FINGERPRINT, received) as relay_link:
        while not stop.is_set():
            segments = relay_link.receive(0.05, max_segments=10)
            for segment in segments:
                file.write(f"{segment.worker} {segment.seq}\n")
                received[segment.worker] = segment.seq
            file.flush()
            os.fsync(file.fileno())
            relay_link.acknowledge(received)
    return 0


def run_worker(config: dict[str, Any], stop: threading.Event) -> int:
    credentials = load_client(config["credentials"])
    outbox = open_outbox(Path(config["outbox"]), 2**30, OutboxPolicy.pause, FINGERPRINT, "session")
    identity = f"{credentials.name}.{outbox.identity}"
    hello = link.Hello(identity, 0, "worker", FINGERPRINT)
    uplink = OutboxUplink(config["address"], credentials.token, hello, stop, credentials=credentials, outbox=outbox)
    uplink.connect()
    uplink.start(push=True)
    for number in range(1, config["count"] + 1):
        outbox.append(number, lambda seq, dropped: link.encode_segment(make_segment(identity, seq), dropped))
        uplink.wake()
        if stop.wait(config["pause_s"]):
            return 1
    while len(outbox):
        uplink.raise_failure()
        stop.wait(0.05)
    stop.set()
    uplink.close()
    outbox.close()
    return 0


def main() -> int:
    role, config = sys.argv[1], json.loads(sys.argv[2])
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format=f"{role} %(name)s: %(message)s")
    if role == "relay":
        return run_relay(config)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    return {"learner": run_learner, "worker": run_worker}[role](config, stop)


if __name__ == "__main__":
    sys.exit(main())
