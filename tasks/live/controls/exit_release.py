"""Releases the controls when the program ends: normally, by an exception, or by a signal that would kill it.

Keys that a program holds through the operating system stay down after its end. Code that holds keys registers a
function here that releases them. The function also runs inside a signal handler, so it must take no lock and open no
connection. A killed program (SIGKILL) releases nothing; the next one that uses the keyboard releases its keys.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import logging
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType

_log = logging.getLogger(__name__)

_SIGNALS = ("SIGTERM", "SIGHUP", "SIGBREAK")
"""What ends a program without Python's exit; Ctrl-C (SIGINT) is an exception in Python. SIGBREAK is Windows'."""

_numbers = itertools.count()
_registered: dict[int, tuple[int, Callable[[], None]]] = {}


def register(release: Callable[[], None]) -> Callable[[], None]:
    """Has ``release`` called when this process ends.

    In the main thread it also calls ``handle_signals``; this is impossible in another thread, so the main thread should
    have done so before.

    Args:
        release: Releases it; it may be called from any thread, inside a signal handler, and more than once.

    Returns:
        A function that takes the registration back; calling it twice is fine.
    """
    key = next(_numbers)
    _registered[key] = (os.getpid(), release)
    # Anew, so that it comes before what was registered earlier: that may take long.
    atexit.unregister(release_all)
    atexit.register(release_all)
    handle_signals()

    def unregister() -> None:
        if _registered.pop(key, None) is not None and not _registered:
            _leave_signals()

    return unregister


def release_all() -> None:
    """Releases everything that this process holds; call it before ``os._exit``. Raises nothing."""
    for process_id, release in list(_registered.values()):
        if process_id != os.getpid():  # inherited by a fork: the parent holds it
            continue
        try:
            release()
        except Exception:
            _log.warning("controls could not be released", exc_info=True)


def handle_signals() -> None:
    """Has SIGTERM, SIGHUP and SIGBREAK release before they end the process as they would have.

    Only signals without another handler, and only in the main thread; elsewhere this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    for number in _signal_numbers():
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _on_signal)


def _leave_signals() -> None:
    if threading.current_thread() is not threading.main_thread():
        return
    for number in _signal_numbers():
        if signal.getsignal(number) is _on_signal:
            signal.signal(number, signal.SIG_DFL)


def _signal_numbers() -> list[signal.Signals]:
    return [getattr(signal, name) for name in _SIGNALS if hasattr(signal, name)]


def _on_signal(number: int, frame: FrameType | None) -> None:
    """Releases, then dies of the signal."""
    del frame
    release_all()
    with contextlib.suppress(ValueError):
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
