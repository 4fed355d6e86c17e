"""X11 properties that SDL does not set for the stand-in's window. On other systems these functions do nothing.

SDL writes WM_NAME with a type that many tools cannot read, so it is written again as they expect; and without a window
manager nobody writes WM_STATE, which shows that a window is minimised.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from typing import Any

_NORMAL_STATE, _ICONIC_STATE = 1, 3

logger = logging.getLogger(__name__)


def name_window(handle: int, title: str) -> None:
    """Sets WM_NAME as a plain string."""
    with _connection() as x:
        if x is not None:
            x.create_resource_object("window", handle).set_wm_name(title)


def set_iconic(handle: int, is_iconic: bool) -> None:
    """Says whether the window is minimised (WM_STATE)."""
    with _connection() as x:
        if x is not None:
            atom = x.intern_atom("WM_STATE")
            window = x.create_resource_object("window", handle)
            window.change_property(atom, atom, 32, [_ICONIC_STATE if is_iconic else _NORMAL_STATE, 0])


def drop_focus() -> None:
    """Takes the keyboard from whatever window has it."""
    with _connection() as x:
        if x is not None:
            from Xlib import X

            x.set_input_focus(X.NONE, X.RevertToNone, X.CurrentTime)


@contextlib.contextmanager
def _connection() -> Iterator[Any]:
    """A short connection to the X server of this process; None where there is none."""
    if not sys.platform.startswith("linux") or not os.environ.get("DISPLAY"):
        yield None
        return
    try:
        from Xlib.display import Display
    except ImportError:
        logger.warning("without python-xlib the window has no WM_NAME and WM_STATE: pip install python-xlib")
        yield None
        return
    connection = Display()
    try:
        yield connection
        connection.sync()
    finally:
        connection.close()
