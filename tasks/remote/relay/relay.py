"""``--server``: a relay on a machine that learner and workers can both reach, for when neither reaches the other.

``train.py`` calls ``run``. Both dial out to the relay. Workers see what they see at a learner; segments go on to the
learner as it takes them. The relay keeps nothing on a disk: workers hear that a segment is durable only from the
learner, and keep it until then, so a relay can be killed and started again at any time, and nothing is lost.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from tasks.process.stop_signals import stop_signals
from tasks.remote.access.invitation import announce, read_far_port
from tasks.remote.access.listener import FarListener
from tasks.remote.config import RemoteConfig
from tasks.remote.relay.relay_display import RelayState, watch
from tasks.remote.relay.relay_hub import MAX_QUEUE_BYTES, RelayHub
from tasks.remote.relay.relay_learner import RelayLearner


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
    far_port = read_far_port(config)
    stop = threading.Event() if stop is None else stop
    with _stopped_by_signals(stop), Relay(far_port.listener) as relay:
        announce(far_port, relay.address, [])
        watch(relay, stop, headless)
    return 0


class Relay:
    """A relay that serves from the moment it is made.

    Args:
        listener: Where it listens, and who may join.
        queue_bytes: What waits for the learner at most; beyond it workers wait.

    Raises:
        OSError: The address cannot be used.
    """

    def __init__(self, listener: FarListener, queue_bytes: int = MAX_QUEUE_BYTES) -> None:
        self._hub = RelayHub(listener.max_workers, queue_bytes)
        self._trainer = RelayLearner(self._hub)
        self.address = self._hub.service.listen_far(listener, self._trainer.handlers())
        """host:port, with the port that was chosen."""

    def state(self) -> RelayState:
        """What is shown of it."""
        status = self._hub.status()
        connected = [worker for worker in status.workers if worker.connected]
        return RelayState(
            self.address,
            self._trainer.connected,
            tuple(sorted(worker.name for worker in connected)),
            sum(worker.samples_per_s for worker in connected),
            status.waiting_segments,
            status.waiting_bytes,
            self._hub.is_full,
        )

    def close(self) -> None:
        """Ends all calls and frees the port. Calling it twice is fine."""
        self._hub.close()

    def __enter__(self) -> Relay:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextlib.contextmanager
def _stopped_by_signals(stop: threading.Event) -> Iterator[None]:
    """The stop signals set ``stop`` meanwhile; a second Ctrl-C interrupts."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        stop.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before: dict[signal.Signals, Callable[..., Any] | int | None] = {s: signal.signal(s, end) for s in stop_signals()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
