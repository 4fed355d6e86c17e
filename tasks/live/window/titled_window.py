"""The game's window by its title, also before the game runs: it is searched when it is first used.

``tasks.live.live_game`` gives it to the screen capture and the controls, so that both can be opened before the game.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from tasks.game.errors import WindowError, WindowState
from tasks.live.window.finder import open_window
from tasks.live.window.window import GameWindow, Geometry


class TitledWindow:
    """A ``GameWindow`` that raises WindowError (``not_found``) until a window has the title."""

    def __init__(
        self, title: str, display: str | None = None, opener: Callable[[str, str | None], GameWindow] = open_window
    ) -> None:
        """Does not search for the window yet.

        Args:
            title: Exact title.
            display: X display; None: $DISPLAY. Not used on Windows.
            opener: Finds the window.
        """
        self.title = title
        self._display = display
        self._opener = opener
        self._window: GameWindow | None = None
        self._lock = threading.Lock()

    def state(self) -> WindowState:
        """State of the window; ``not_found`` until there is one."""
        try:
            return self._found().state()
        except WindowError as error:
            return error.state

    def geometry(self) -> Geometry:
        """The client area in pixels of the screen."""
        return self._found().geometry()

    def screen(self) -> Geometry:
        """The area that all monitors span together."""
        return self._found().screen()

    def place(self, left: int, top: int, width: int, height: int) -> Geometry:
        """Moves the window and gives its client area this size."""
        return self._found().place(left, top, width, height)

    def focus(self) -> None:
        """Raises the window and gives it the keyboard."""
        self._found().focus()

    def is_focused(self) -> bool:
        """Whether keys go to the window; False while there is none."""
        try:
            return self._found().is_focused()
        except WindowError:
            return False

    def covered_fraction(self) -> float:
        """Which part of the client area is hidden, 0 to 1."""
        return self._found().covered_fraction()

    def close(self) -> None:
        """Releases the window, which stays open. Calling it twice is fine."""
        with self._lock:
            window, self._window = self._window, None
        if window is not None:
            window.close()

    def _found(self) -> GameWindow:
        with self._lock:
            if self._window is None:
                self._window = self._opener(self.title, self._display)
            return self._window
