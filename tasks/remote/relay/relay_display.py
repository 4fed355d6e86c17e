"""What a person at a relay sees: one line about learner, workers and what is on its way, kept up to date.

On a terminal the line is redrawn in place, below the log; elsewhere it is logged when something has changed, and once a
minute.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from typing import NamedTuple, Protocol

from tasks.remote.station.live_line import redraw

REDRAW_EVERY_S = 0.5
PLAIN_LINE_EVERY_S = 60.0

_log = logging.getLogger(__name__)


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
            f"{self.waiting_segments:,} segments on their way ({self.waiting_bytes / 1e6:,.1f} MB){full}"
        )


class ShownRelay(Protocol):
    """What is looked at."""

    def state(self) -> RelayState:
        """How it is now."""


def watch(relay: ShownRelay, stop: threading.Event, is_plain: bool) -> None:
    """Shows a relay until ``stop`` is set."""
    if is_plain or not sys.stderr.isatty():
        _watch_plain(relay, stop)
    else:
        _watch_live(relay, stop)


def _watch_plain(relay: ShownRelay, stop: threading.Event) -> None:
    shown, due_s = None, 0.0
    while not stop.wait(REDRAW_EVERY_S):
        state, now = relay.state(), time.monotonic()
        worth_a_line = (bool(state.learner), state.workers, state.is_full)
        if worth_a_line != shown or now >= due_s:
            shown, due_s = worth_a_line, now + PLAIN_LINE_EVERY_S
            _log.info("%s", state.line())


def _watch_live(relay: ShownRelay, stop: threading.Event) -> None:
    from rich.console import Console

    redraw(Console(stderr=True, soft_wrap=True), lambda: relay.state().line(), stop.wait, REDRAW_EVERY_S)
    stop.wait()  # a terminal that is gone ends no relay
