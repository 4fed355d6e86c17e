"""A remote worker in its own process: the product's loop and station with the numbered environment.

Started by ``rig`` with one JSON argument; ends with the exit code of the product.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import sys
from dataclasses import dataclass

from tasks.acting.env_source import EnvSource
from tasks.remote.config import OutboxPolicy, RemoteConfig, RemoteWorkerConfig
from tasks.remote.worker import remote_worker
from tests.faults.numbered_env import FUNCTION, POLICY


@dataclass(frozen=True)
class WorkerConfig:
    """Settings of a worker process, as plain data."""

    address: str
    """host:port of learner, relay or proxy."""
    credentials: str
    outbox: str
    """Folder of the outbox."""
    ledger: str
    """File with the number of the newest row; empty: none."""
    episodes: int
    """Episodes to drive; the process ends when all are delivered."""
    first: int = 1
    """Number of its first row."""
    length: int = 63
    """Steps of an episode."""
    rows: int = 16
    """Rows of a segment."""
    picture_bytes: int = 64
    step_s: float = 0.0
    window: int = 1_000_000
    """Unstored segments beyond which it waits."""
    outbox_mb: int = 256
    policy: str = "pause"

    def to_json(self) -> str:
        """The settings as one line of JSON."""
        return json.dumps(dataclasses.asdict(self))


def main() -> int:
    """Drives; returns the exit code."""
    config = WorkerConfig(**json.loads(sys.argv[1]))
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="worker %(levelname)s %(name)s: %(message)s")
    env = {
        "length": config.length,
        "picture_bytes": config.picture_bytes,
        "step_s": config.step_s,
        "first": config.first,
        "ledger": config.ledger,
    }
    return remote_worker.drive(
        EnvSource({}, FUNCTION, env),
        RemoteConfig(address=config.address, credentials=config.credentials, max_message_mb=4),
        RemoteWorkerConfig(
            samples_per_packet=config.rows,
            episodes=config.episodes,
            outbox=config.outbox,
            outbox_mb=config.outbox_mb,
            outbox_policy=OutboxPolicy[config.policy],
        ),
        POLICY,
        headless=True,
        window=config.window,
    )


if __name__ == "__main__":
    sys.exit(main())
