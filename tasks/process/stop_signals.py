"""The signals that ask a program to stop: Ctrl-C, SIGTERM, and that of a closed terminal.

Every role stops at each of them in the same way: the learner saves, workers and relay close everything. Imports nothing
of the project.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
"""SIGHUP is not known to Windows, where SIGBREAK is Ctrl-Break."""


def stop_signals() -> tuple[signal.Signals, ...]:
    """Those that exist here. A SIGHUP that is ignored stays so: ``nohup`` asks for that."""
    numbers = [signal.Signals[name] for name in _NAMES if name in signal.Signals.__members__]
    return tuple(n for n in numbers if n.name != "SIGHUP" or signal.getsignal(n) is not signal.SIG_IGN)


def ignore_terminal() -> None:
    """Leaves Ctrl-C and a closed terminal to the parent of this process, which decides what they mean."""
    for name in ("SIGINT", "SIGHUP"):
        if name in signal.Signals.__members__:
            with contextlib.suppress(ValueError):  # not the main thread
                signal.signal(signal.Signals[name], signal.SIG_IGN)


@contextlib.contextmanager
def answered_by(stop: Callable[[], None]) -> Iterator[None]:
    """Meanwhile the first stop signal calls ``stop``, which must wait for nothing; Ctrl-C after it interrupts."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    is_asked = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal is_asked
        if is_asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not is_asked:
            is_asked = True
            stop()

    former = {number: signal.signal(number, handle) for number in stop_signals()}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def as_interrupt() -> Iterator[None]:
    """While it is active, every stop signal without another handler raises KeyboardInterrupt."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = {n: signal.getsignal(n) for n in stop_signals() if signal.getsignal(n) is signal.SIG_DFL}
    for number in former:
        signal.signal(number, _interrupt)
    try:
        yield
    finally:
        for number, handler in former.items():
            if signal.getsignal(number) is _interrupt:
                signal.signal(number, handler)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
