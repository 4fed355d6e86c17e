"""The interface of the game's window on every system: its geometry, its placement, and its errors.

The live game, the screen capture and the keyboard share one ``GameWindow``. ``finder`` finds it, through
``x11_window`` or ``win32_window``. Both share the code in this file: geometry, the covered part of a window, and the
messages of all errors.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import NamedTuple, Protocol

from tasks.game.errors import WindowError, WindowState

PLACE_TIMEOUT_S = 1.5
"""How long a window may take to get the requested size [s]."""
FOCUS_TIMEOUT_S = 1.0
"""How long a window may take to get the keyboard [s]."""
POLL_S = 0.01
"""Pause between two queries of a window that is about to change [s]."""


class Geometry(NamedTuple):
    """A rectangle in pixels of the screen; may lie partly outside of it."""

    left: int
    top: int
    width: int
    height: int

    @property
    def size(self) -> tuple[int, int]:
        """(width, height)."""
        return self.width, self.height

    def lies_in(self, other: Geometry) -> bool:
        """Whether no pixel of it is outside of ``other``."""
        return intersection(self, other) == self

    def __str__(self) -> str:
        return f"{self.width}x{self.height} at {self.left},{self.top}"


class GameWindow(Protocol):
    """A window that was found by its title. Any thread may call any method.

    When the window is closed and the game opens another one with the same title, the object uses that one.
    ``WindowError`` means that the window is closed or minimised, or what the method adds; the object stays usable.
    """

    title: str
    """The title that it was found by."""

    def state(self) -> WindowState:
        """``ready``, ``minimised`` or ``closed``, at once. Never raises."""
        ...

    def geometry(self) -> Geometry:
        """The client area (what the game draws, without border and title bar), read from the system each time."""
        ...

    def screen(self) -> Geometry:
        """The area that all monitors span together."""
        ...

    def place(self, left: int, top: int, width: int, height: int) -> Geometry:
        """Restores the window, moves it to ``left``, ``top`` and gives its client area exactly this size.

        Where a frame stands around the client area, the frame goes to the corner; so the position is what it becomes.

        Returns:
            The client area as read after the move, of exactly this size.

        Raises:
            WindowError: Also ``wrong_size`` (it has another size after ``PLACE_TIMEOUT_S``) and ``off_screen``.
        """
        ...

    def focus(self) -> None:
        """Restores and raises the window and gives it the keyboard; does nothing when it has it.

        Raises:
            WindowError: Also ``not_focused``, after ``FOCUS_TIMEOUT_S``.
        """
        ...

    def is_focused(self) -> bool:
        """Whether keys go to the window. Never raises: a closed one has no focus."""
        ...

    def covered_fraction(self) -> float:
        """Which part of the client area other windows hide or the screen's edge cuts off, 0 to 1.

        By the order of the windows, so a transparent one counts as solid.
        """
        ...

    def close(self) -> None:
        """Releases the window, which stays open. Calling it twice is fine."""
        ...


def window_error(state: WindowState, title: str, found: str = "") -> WindowError:
    """The error for a state, in the same words on every system.

    Args:
        state: What is wrong.
        title: Title of the window.
        found: What was found, as part of a sentence; empty when the state says it all.
    """
    what, remedy = _WORDS[state]
    detail = f" ({found})" if found else ""
    return WindowError(state, f"the window {title!r} {what}{detail}: {remedy}")


def wrong_size(title: str, found: Geometry, width: int, height: int) -> WindowError:
    """The error for a client area of another size than the wanted one."""
    return window_error(WindowState.wrong_size, title, f"it is {found}, wanted {width}x{height}")


def off_screen(title: str, found: Geometry, screen: Geometry) -> WindowError:
    """The error for a client area that the screen cuts off."""
    return window_error(WindowState.off_screen, title, f"it is {found}, the screen is {screen}")


def intersection(a: Geometry, b: Geometry) -> Geometry:
    """What lies in both; of size 0 x 0 when nothing does."""
    left, top = max(a.left, b.left), max(a.top, b.top)
    right, bottom = min(a.left + a.width, b.left + b.width), min(a.top + a.height, b.top + b.height)
    if right <= left or bottom <= top:
        return Geometry(left, top, 0, 0)
    return Geometry(left, top, right - left, bottom - top)


def hidden_fraction(area: Geometry, screen: Geometry, above: Iterable[Geometry]) -> float:
    """Which part of ``area`` is outside of ``screen`` or under one of ``above``, 0 to 1. Overlaps count once."""
    if area.width <= 0 or area.height <= 0:
        return 1.0
    seen = intersection(area, screen)
    covers = [cover for cover in (intersection(seen, other) for other in above) if cover.width]
    xs = sorted({x for cover in covers for x in (cover.left, cover.left + cover.width)})
    hidden = area.width * area.height - seen.width * seen.height
    for left, right in itertools.pairwise(xs):
        spans = sorted((c.top, c.top + c.height) for c in covers if c.left <= left and right <= c.left + c.width)
        bottom = seen.top
        for first, last in spans:
            hidden += (right - left) * max(0, last - max(first, bottom))
            bottom = max(bottom, last)
    return hidden / (area.width * area.height)


_WORDS = {
    WindowState.not_found: (
        "was not found",
        "start the game, or set task.live.window_title to the exact title of its window",
    ),
    WindowState.minimised: (
        "is minimised or on another desktop, so nothing of it can be seen",
        "restore it and leave it visible while the game is driven",
    ),
    WindowState.closed: (
        "is closed",
        "start the game again and load the track",
    ),
    WindowState.wrong_size: (
        "has the wrong size and keeps it",
        "set the game to windowed mode, not full screen, and let it be resized (task.live.place_window=true), "
        "or set task.window_width and task.window_height to its size",
    ),
    WindowState.off_screen: (
        "is not wholly on the screen",
        "move it so that all of it is visible, or use a screen that is large enough",
    ),
    WindowState.not_focused: (
        "does not get the keyboard",
        "click on it, and close what takes the keyboard away from it",
    ),
}
