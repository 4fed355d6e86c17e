"""A remote worker as a process of its own: the product's loop and station over the numbered environment.

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
    """What a worker process does, as plain data."""

    address: str
    """host:port of learner, relay or proxy."""
    credentials: str
    outbox: str
    """Folder."""
    ledger: str
    """File with the number of the newest row; empty: none."""
    episodes: int
    """After them, and when all is delivered, it ends."""
    first: int = 1
    """Number of the first row."""
    length: int = 63
    """Steps of an episode."""
    rows: int = 16
    """Rows of a segment."""
    picture_bytes: int = 64
    step_s: float = 0.0
    window: int = 1_000_000
    """Segments that the learner has not stored at which it waits."""
    outbox_mb: int = 256
    policy: str = "pause"

    def to_json(self) -> str:
        """One line."""
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
