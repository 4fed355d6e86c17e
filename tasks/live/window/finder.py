"""Finds the game's window by its title: through ``x11_window`` on Linux, through ``win32_window`` on Windows."""

from __future__ import annotations

import logging
import sys

from tasks.game.errors import GameError, GameSetupError
from tasks.live.window.window import GameWindow

_logger = logging.getLogger(__name__)


def open_window(title: str, display: str | None = None) -> GameWindow:
    """Finds the window with exactly this title.

    Args:
        title: Title of the game's window.
        display: X display, such as ``:1``; None: $DISPLAY. Not used on Windows.

    Raises:
        WindowError: ``not_found``: no window has the title.
        GameSetupError: There is no display, a package is missing, or the system is not supported.
    """
    if sys.platform == "win32":
        from tasks.live.window.win32_window import Win32Window

        return Win32Window(title)
    if sys.platform == "linux":
        from tasks.live.window.x11_window import X11Window

        return X11Window(title, display)
    raise GameSetupError(f"the live game runs on Windows and Linux only, not on {sys.platform!r}: set task.game=sim")


def window_exists(title: str, display: str | None = None) -> bool:
    """Whether a window with this title is open, minimised or not. Never raises: without a display there is none."""
    try:
        open_window(title, display).close()
    except GameError as error:
        _logger.debug("no window %r: %s", title, error)
        return False
    return True
