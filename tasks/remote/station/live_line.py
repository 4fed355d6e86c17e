"""The status line of a worker or a relay, kept up to date.

On a terminal it is redrawn in place, below the log; elsewhere a plain line is printed now and then.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

REDRAW_EVERY_S = 0.5


def show(
    look: Callable[[], tuple[str, object]],
    is_over: threading.Event,
    every_s: float,
    *,
    is_plain: bool = False,
    stream: IO[str] | None = None,
) -> None:
    """Shows the line until it is over, or nobody can read it any more.

    Args:
        look: Returns the line, and something that changes when a plain line is due at once; at first None.
        is_over: Ends it.
        every_s: Between two plain lines [s].
        is_plain: Plain lines on a terminal, too.
        stream: Where to write; None: standard error, where the log goes.
    """
    from rich.console import Console

    console = Console(file=stream if stream is not None else sys.stderr)
    with contextlib.suppress(OSError):  # The terminal is gone.
        if is_plain or not console.is_terminal or console.is_dumb_terminal:
            _print(console, look, is_over, every_s)
        else:
            _redraw(console, look, is_over)


def _print(console: Console, look: Callable[[], tuple[str, object]], is_over: threading.Event, every_s: float) -> None:
    look()  # What is a rate is measured from here.
    shown: object = None
    due_s = time.monotonic() + every_s
    while not is_over.wait(min(every_s, REDRAW_EVERY_S)):
        line, news = look()
        now = time.monotonic()
        if news != shown or now >= due_s:
            shown, due_s = news, now + every_s
            console.print(line, markup=False, highlight=False, soft_wrap=True)


def _redraw(console: Console, look: Callable[[], tuple[str, object]], is_over: threading.Event) -> None:
    from rich.live import Live
    from rich.text import Text

    before = {id(sys.stdout), id(sys.stderr)}
    with Live(console=console, auto_refresh=False) as live, _log_above(before):
        while not is_over.wait(REDRAW_EVERY_S):
            with contextlib.suppress(OSError):
                live.update(Text(look()[0]), refresh=True)


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
