"""``--server``: a relay on a machine that trainer and workers can both reach, for when neither reaches the other.

``train.py`` calls ``run``. Both dial out to the relay. Workers see what they see at a learner; segments wait in a spool
on the disk until the trainer has them, also while it is away. Workers hear that a segment is durable only from the
trainer, so a relay can be killed, restarted and robbed of its disk at any time, and nothing is lost.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import FrameType
from typing import Any

from tasks.process.stop_signals import stop_signals
from tasks.remote.access.admission import Door
from tasks.remote.access.invitation import announce, read_entrance
from tasks.remote.access.listener import FarListener
from tasks.remote.access.tokens import TRAINER
from tasks.remote.config import RemoteConfig
from tasks.remote.relay import spool_file
from tasks.remote.relay.relay_display import RelayState, watch
from tasks.remote.relay.relay_hub import RelayHub
from tasks.remote.relay.relay_trainer import RelayTrainer
from tasks.remote.relay.spool import Spool
from tasks.remote.relay.spool_file import SpoolDamagedError

_log = logging.getLogger(__name__)

_MEGABYTE = 1024 * 1024
_PAUSE_S = 1.0


def run(config: RemoteConfig, *, headless: bool = False, stop: threading.Event | None = None) -> int:
    """Relays until Ctrl-C, SIGTERM, the end of its terminal or ``stop``.

    Args:
        config: Where it listens, its credentials and its spool.
        headless: Whether plain lines are written instead of one that is redrawn.
        stop: Ends it.

    Returns:
        The exit code.

    Raises:
        ValueError: The configuration or a file of the credentials is not right.
        OSError: The address is taken, or the spool cannot be used.
    """
    entrance = read_entrance(config)
    listener = entrance.listener
    stop = threading.Event() if stop is None else stop
    is_first = True
    with _stopped_by_signals(stop):
        while not stop.is_set():
            with _open(listener, config) as relay:
                if is_first:
                    announce(entrance, relay.address, [])
                    is_first = False
                # With the port that was chosen, should it have to begin anew.
                listener = replace(listener, address=relay.address)
                watch(relay, stop, headless)
            if relay.damage is None:
                break
            _begin_new_spool(config.spool)
            stop.wait(_PAUSE_S)
    return 0


class Relay:
    """A relay that serves from the moment it is made.

    Args:
        listener: Where it listens, and who may join.
        folder: Of the spool.
        capacity_bytes: Of the spool; beyond it workers wait.

    Raises:
        OSError: The address or the spool cannot be used.
    """

    def __init__(self, listener: FarListener, folder: str, capacity_bytes: int) -> None:
        self.damage: SpoolDamagedError | None = None
        """What is wrong with the spool, so that the relay must begin anew with another one."""
        self._is_over = threading.Event()
        self._spool = Spool(folder, capacity_bytes)
        try:
            self._hub = RelayHub(self._spool, listener.max_workers, self._note_damage)
            refusals = self._hub.service.refusals
            door = Door(listener.tokens, TRAINER, refusals, handshakes=listener.handshakes)
            self._trainer = RelayTrainer(self._hub, self._spool, door, self._note_damage)
            self.address = self._hub.service.listen_far(listener, self._trainer.handlers())
            """host:port, with the port that was chosen."""
        except BaseException:
            self._spool.close()
            raise

    def wait(self, timeout_s: float) -> bool:
        """Waits; True: it cannot go on, see ``damage``."""
        return self._is_over.wait(timeout_s)

    def state(self) -> RelayState:
        """What is shown of it."""
        status = self._hub.status()
        connected = [worker for worker in status.workers if worker.connected]
        return RelayState(
            self.address,
            self._trainer.connected,
            tuple(sorted(worker.name for worker in connected)),
            sum(worker.samples_per_s for worker in connected),
            status.spooled_segments,
            status.spooled_bytes,
            self._spool.state().is_full,
        )

    def close(self) -> None:
        """Ends all calls, frees the port and closes the spool. Calling it twice is fine."""
        self._hub.close()
        self._spool.close()

    def __enter__(self) -> Relay:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _note_damage(self, damage: SpoolDamagedError) -> None:
        if self.damage is None:
            self.damage = damage
            _log.error("%s", damage)
        self._is_over.set()


def _open(listener: FarListener, config: RemoteConfig) -> Relay:
    """A relay; with a new spool, if the one that is there cannot be used."""
    capacity_bytes = config.spool_mb * _MEGABYTE
    try:
        return Relay(listener, config.spool, capacity_bytes)
    except SpoolDamagedError as error:
        _log.error("%s", error)
        _begin_new_spool(config.spool)
        return Relay(listener, config.spool, capacity_bytes)


def _begin_new_spool(folder: str) -> None:
    aside = spool_file.set_aside(folder)
    _log.error(
        "the spool was damaged and is begun anew (the old file: %s); nothing is lost, workers send again what the "
        "learner has not stored", aside,
    )  # fmt: skip


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
