"""A relay as a process of its own: the product's role, started by ``rig`` with one JSON argument."""

from __future__ import annotations

import dataclasses
import json
import logging
import sys
from dataclasses import dataclass

from tasks.remote.config import RemoteConfig
from tasks.remote.relay import relay


@dataclass(frozen=True)
class RelayConfig:
    """What a relay process does, as plain data."""

    credentials: str
    max_workers: int = 32

    def to_json(self) -> str:
        """One line."""
        return json.dumps(dataclasses.asdict(self))


def main() -> int:
    """Relays until SIGTERM."""
    config = RelayConfig(**json.loads(sys.argv[1]))
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="relay %(levelname)s %(name)s: %(message)s")
    remote = RemoteConfig(
        listen="127.0.0.1:0",
        credentials=config.credentials,
        max_workers=config.max_workers,
        max_message_mb=4,
    )
    return relay.run(remote, headless=True)


if __name__ == "__main__":
    sys.exit(main())
