"""Reads a key from the terminal without waiting and without a thread.

``tasks.roles.record.record`` ends a recording with it while a person drives in another window. On Windows the key is
enough, elsewhere Enter follows it. The Windows half has never run.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys

_CHUNK = 1024


class StopKey:
    """Whether a key has been typed in the terminal.

    Args:
        key: One character.
        descriptor: File that is read; None: the standard input. Where there is none, the key is never typed.
    """

    def __init__(self, key: str, descriptor: int | None = None) -> None:
        self._key = key
        self._is_pressed = False
        self._descriptor = _standard_input() if descriptor is None else descriptor

    def is_pressed(self) -> bool:
        """Whether it has been typed since this object was made; does not wait."""
        if not self._is_pressed and self._descriptor is not None:
            typed = _typed_in_console() if sys.platform == "win32" else _typed_lines(self._descriptor)
            self._is_pressed = self._key in typed
        return self._is_pressed


def _typed_lines(descriptor: int) -> str:
    """What can be read at once; nothing at the end of the input."""
    text = ""
    # Reading the terminal from the background would stop the whole program.
    while _is_in_foreground(descriptor) and select.select([descriptor], [], [], 0.0)[0]:
        chunk = os.read(descriptor, _CHUNK)
        if not chunk:
            break
        text += chunk.decode(errors="replace")
    return text


def _typed_in_console() -> str:
    """Keys of the Windows console."""
    text = ""
    if sys.platform == "win32":
        import msvcrt

        while msvcrt.kbhit():
            text += msvcrt.getwch()
    return text


def _standard_input() -> int | None:
    """Its file descriptor; None when the program has none, as a service or under a test."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return sys.stdin.fileno()
    return None


def _is_in_foreground(descriptor: int) -> bool:
    if sys.platform == "win32" or not os.isatty(descriptor):
        return True
    try:
        return os.tcgetpgrp(descriptor) == os.getpgrp()
    except OSError:  # a terminal, but not the one that controls this program: reading it is harmless
        return True
