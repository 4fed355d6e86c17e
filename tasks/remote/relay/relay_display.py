"""What a person at a relay sees: one line about learner, workers and spool, kept up to date.

On a terminal the line is redrawn in place, below the log; elsewhere it is logged when something has changed, and once a
minute.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import time
from collections.abc import Iterator
from typing import NamedTuple, Protocol

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
    spooled_segments: int
    spooled_bytes: int
    is_full: bool
    """Whether workers wait because the spool is full."""

    def line(self) -> str:
        """All of it."""
        learner = f"learner at {self.learner}" if self.learner else "no learner"
        full = ", FULL: workers wait" if self.is_full else ""
        return (
            f"relay {self.address} | {learner} | {len(self.workers)} workers, {self.samples_per_s:.0f} samples/s | "
            f"spool {self.spooled_bytes / 1e6:,.1f} MB, {self.spooled_segments:,} segments{full}"
        )


class ShownRelay(Protocol):
    """What is looked at."""

    def state(self) -> RelayState:
        """How it is now."""

    def wait(self, timeout_s: float) -> bool:
        """Waits; True: it cannot go on."""


def watch(relay: ShownRelay, stop: threading.Event, is_plain: bool) -> None:
    """Shows a relay until ``stop`` is set or it cannot go on."""
    if is_plain or not sys.stderr.isatty():
        _watch_plain(relay, stop)
    else:
        _watch_live(relay, stop)


def _watch_plain(relay: ShownRelay, stop: threading.Event) -> None:
    shown, due_s = None, 0.0
    while not stop.is_set() and not relay.wait(REDRAW_EVERY_S):
        state, now = relay.state(), time.monotonic()
        worth_a_line = (bool(state.learner), state.workers, state.is_full)
        if worth_a_line != shown or now >= due_s:
            shown, due_s = worth_a_line, now + PLAIN_LINE_EVERY_S
            _log.info("%s", state.line())


def _watch_live(relay: ShownRelay, stop: threading.Event) -> None:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    before = {id(sys.stdout), id(sys.stderr)}
    console = Console(stderr=True, soft_wrap=True)
    # A terminal that is gone ends neither the relay nor its good order.
    with contextlib.suppress(OSError), Live(console=console, auto_refresh=False) as live, _log_above(before):
        while not stop.is_set() and not relay.wait(REDRAW_EVERY_S):
            with contextlib.suppress(OSError):
                live.update(Text(relay.state().line()), refresh=True)


@contextlib.contextmanager
def _log_above(before: set[int]) -> Iterator[None]:
    """Log lines go above the line instead of through it: handlers keep the stream they were made with."""
    moved = [
        (handler, handler.stream)
        for handler in logging.getLogger().handlers
        if isinstance(handler, logging.StreamHandler) and id(handler.stream) in before
    ]
    for handler, _ in moved:
        handler.setStream(sys.stderr)
    try:
        yield
    finally:
        for handler, stream in moved:
            handler.setStream(stream)
