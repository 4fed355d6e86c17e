"""One line of a terminal that is redrawn in place, below the log; for workers and relays."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def redraw(console: Console, line: Callable[[], str], is_over: Callable[[float], bool], every_s: float) -> None:
    """Shows the line until it is over.

    Args:
        console: Where.
        line: What is shown.
        is_over: Waits for so many seconds; whether that is the end.
        every_s: How often it is redrawn.
    """
    from rich.live import Live
    from rich.text import Text

    before = {id(sys.stdout), id(sys.stderr)}
    # A terminal that is gone ends nothing but the line.
    with contextlib.suppress(OSError), Live(console=console, auto_refresh=False) as live, _log_above(before):
        while not is_over(every_s):
            with contextlib.suppress(OSError):
                live.update(Text(line()), refresh=True)


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
