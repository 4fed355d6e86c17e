"""``--server``: a relay on a machine that learner and workers can both reach, for when neither reaches the other.

``train.py`` calls ``run``. Both dial out to the relay. Workers see what they see at a learner; segments go on to the
learner as it takes them. The relay keeps nothing on a disk: workers hear that a segment is durable only from the
learner, and keep it until then, so a relay can be killed and started again at any time, and nothing is lost.
"""

from __future__ import annotations

import threading
from typing import NamedTuple

from tasks.process import stop_signals
from tasks.remote.access.invitation import announce, read_remote_port
from tasks.remote.access.listener import Port
from tasks.remote.config import RemoteConfig
from tasks.remote.relay.relay_hub import MAX_QUEUE_BYTES, RelayHub
from tasks.remote.relay.relay_learner import RelayLearner
from tasks.remote.station.live_line import show

LINE_EVERY_S = 60.0
"""Between two plain lines while nothing changes [s]."""


def run(config: RemoteConfig, *, headless: bool = False, stop: threading.Event | None = None) -> int:
    """Relays until Ctrl-C, SIGTERM, the end of its terminal or ``stop``.

    Args:
        config: Where it listens, and its credentials.
        headless: Whether plain lines are written instead of one that is redrawn.
        stop: Ends it.

    Returns:
        The exit code.

    Raises:
        ValueError: The configuration or a file of the credentials is not right.
        OSError: The address is taken.
    """
    port = read_remote_port(config)
    stop = threading.Event() if stop is None else stop
    with stop_signals.answered_by(stop.set), Relay(port) as relay:
        announce(port, relay.address, [])
        show(relay.look, stop, LINE_EVERY_S, is_plain=headless)
        stop.wait()  # A terminal that is gone ends no relay.
    return 0


class RelayState(NamedTuple):
    """What is shown of a relay."""

    address: str
    learner: str
    """Where the learner calls from; empty: there is none."""
    workers: tuple[str, ...]
    """Names of those that are connected."""
    samples_per_s: float
    waiting_segments: int
    waiting_bytes: int
    is_full: bool
    """Whether workers wait because the learner does not keep up."""

    def line(self) -> str:
        """All of it."""
        learner = f"learner at {self.learner}" if self.learner else "no learner: workers keep their segments"
        full = ", FULL: workers wait" if self.is_full else ""
        return (
            f"relay {self.address} | {learner} | {len(self.workers)} workers, {self.samples_per_s:.0f} samples/s | "
            f"{self.waiting_segments:,} segments in transit ({self.waiting_bytes / 1e6:,.1f} MB){full}"
        )


class Relay:
    """A relay that serves from the moment it is made.

    Args:
        port: Where it listens, and who may join.
        queue_bytes: What waits for the learner at most; beyond it workers wait.

    Raises:
        OSError: The address cannot be used.
    """

    def __init__(self, port: Port, queue_bytes: int = MAX_QUEUE_BYTES) -> None:
        self._hub = RelayHub(port.max_workers, queue_bytes)
        self._learner = RelayLearner(self._hub)
        self.address = self._hub.service.listen(port, self._learner.handlers())
        """host:port, with the port that was chosen."""

    def state(self) -> RelayState:
        """How it is now."""
        status = self._hub.status()
        connected = [worker for worker in status.workers if worker.connected]
        return RelayState(
            self.address,
            self._learner.connected,
            tuple(sorted(worker.name for worker in connected)),
            sum(worker.samples_per_s for worker in connected),
            status.waiting_segments,
            status.waiting_bytes,
            self._hub.is_full,
        )

    def look(self) -> tuple[str, object]:
        """A line that says how it is, and what makes it worth being said at once."""
        state = self.state()
        return state.line(), (bool(state.learner), state.workers, state.is_full)

    def close(self) -> None:
        """Ends all calls and frees the port. Calling it twice is fine."""
        self._hub.close()

    def __enter__(self) -> Relay:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
