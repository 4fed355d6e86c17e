"""The game's window on Linux, through python-xlib: works with and without a window manager, also for Wine and Proton.

``tasks.live.window.finder.open_window`` makes one. The place of the window is never cached: each call asks the X server
again, so a move is seen at once.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from tasks.game.errors import GameSetupError, WindowError, WindowState
from tasks.live.window.found_window import FoundWindow
from tasks.live.window.window import Geometry, hidden_fraction, window_error
from tasks.live.window.x11_display import (
    WindowLook,
    active_window,
    areas_above,
    connect,
    find_window,
    has_window_manager,
    is_wayland,
    look_at,
)

if TYPE_CHECKING:
    from Xlib.display import Display
    from Xlib.xobject.drawable import Window

_NET_STATE_REMOVE = 0
_SOURCE_PAGER = 2
_NUM_TITLES_SHOWN = 6

_Answer = TypeVar("_Answer")
_logger = logging.getLogger(__name__)


class X11Window(FoundWindow):
    """A window found by its title on one X display; implements ``tasks.live.window.window.GameWindow``.

    One connection, one lock. When the X server itself goes away, the window is ``closed`` until it is back.
    """

    def __init__(self, title: str, display: str | None = None) -> None:
        """Connects and finds the window.

        Args:
            title: Its exact title.
            display: X display, such as ``:1``; None: $DISPLAY.
        """
        self.title = title
        self._display_name = display
        self._lock = threading.RLock()
        self._connection: Display = None
        self._window: Window = None
        self._is_closed = False
        try:
            self._connection = connect(display)
            self._window, titles = find_window(self._connection, title)
            if self._window is None:
                raise window_error(WindowState.not_found, title, _list(titles))
            if is_wayland(self._connection):
                _logger.warning(
                    "this desktop is Wayland, where other windows look black: log in to an X11 (Xorg) session"
                )
        except Exception:
            self.close()
            raise

    def state(self) -> WindowState:
        """``ready``, ``minimised`` or ``closed``."""
        try:
            return self._ask(lambda _, look: look.state)
        except WindowError as error:
            return error.state

    def geometry(self) -> Geometry:
        """Client area on the screen."""
        return self._look().area

    def screen(self) -> Geometry:
        """All of the X screen."""
        return self._ask(lambda _, look: look.screen)

    def is_focused(self) -> bool:
        """Whether the focus is on the window or within it, or the window manager calls it the active one."""
        try:
            return self._ask(self._has_focus)
        except WindowError:
            return False

    def covered_fraction(self) -> float:
        """Hidden part, by the order in which the server stacks the windows."""
        look = self._look()
        above = self._ask(lambda window, _: list(areas_above(self._connection, window)))
        return hidden_fraction(look.area, look.screen, above)

    def close(self) -> None:
        """Ends the connection."""
        with self._lock:
            self._is_closed = True
            self._disconnect()

    def _look(self) -> WindowLook:
        """How the window is now, if it can be seen."""
        look = self._ask(lambda _, look: look)
        if look.is_minimised:
            raise window_error(WindowState.minimised, self.title)
        return look

    def _ask(self, question: Callable[[Window, WindowLook], _Answer]) -> _Answer:
        """Queries the window; if it was closed, the one that has replaced it."""
        from Xlib import error

        with self._lock:
            for _ in range(2):
                try:
                    return question(*self._present())
                except (error.BadWindow, error.BadDrawable):
                    self._window = None
                except (error.ConnectionClosedError, OSError) as problem:
                    _logger.debug("connection to the X display %s: %s", self._display_name, problem)
                    self._disconnect()
        raise window_error(WindowState.closed, self.title)

    def _present(self) -> tuple[Window, WindowLook]:
        """The current window. Its title is checked: the X server soon gives the number of a closed one to another."""
        if self._is_closed:
            raise WindowError(WindowState.closed, f"this program has released the window {self.title!r}")
        if self._connection is None:
            try:
                self._connection = connect(self._display_name)
            except GameSetupError as error:
                raise WindowError(WindowState.closed, f"no picture of the window {self.title!r}: {error}") from error
        if self._window is not None:
            look = look_at(self._connection, self._window)
            if look.title == self.title:
                return self._window, look
        self._window, _ = find_window(self._connection, self.title)
        if self._window is None:
            raise window_error(WindowState.closed, self.title)
        return self._window, look_at(self._connection, self._window)

    def _disconnect(self) -> None:
        from Xlib import error

        connection, self._connection, self._window = self._connection, None, None
        if connection is not None:
            with contextlib.suppress(error.ConnectionClosedError, OSError):
                connection.close()

    def _places(self) -> tuple[Geometry, Geometry]:
        look = self._look()
        return look.area, look.screen

    def _request_place(self, wanted: Geometry) -> bool:
        self._ask(lambda window, look: self._tell_place(window, look, wanted))
        return True

    def _request_focus(self) -> None:
        self._ask(self._tell_focus)

    def _tell_place(self, window: Window, look: WindowLook, wanted: Geometry) -> None:
        self._restore(window, look)
        filling = {self._atom(f"_NET_WM_STATE_{name}") for name in ("FULLSCREEN", "MAXIMIZED_VERT", "MAXIMIZED_HORZ")}
        for state in filling & set(look.states):
            self._tell_window_manager(window, "_NET_WM_STATE", [_NET_STATE_REMOVE, state, 0, _SOURCE_PAGER, 0])
        window.configure(x=wanted.left, y=wanted.top, width=wanted.width, height=wanted.height)
        self._connection.sync()

    def _restore(self, window: Window, look: WindowLook) -> None:
        if not look.is_minimised:
            return
        window.map()
        if has_window_manager(self._connection):
            self._tell_window_manager(window, "_NET_ACTIVE_WINDOW", [_SOURCE_PAGER, 0, 0, 0, 0])
        self._connection.sync()

    def _tell_focus(self, window: Window, look: WindowLook) -> None:
        """Asks the window manager for the focus; takes it where there is none."""
        from Xlib import X, error

        self._restore(window, look)
        if has_window_manager(self._connection):
            self._tell_window_manager(window, "_NET_ACTIVE_WINDOW", [_SOURCE_PAGER, 0, 0, 0, 0])
        else:
            window.configure(stack_mode=X.Above)
            # Not viewable yet: the next try will do.
            window.set_input_focus(X.RevertToParent, X.CurrentTime, onerror=error.CatchError(error.BadMatch))
        self._connection.sync()

    def _has_focus(self, window: Window, _: WindowLook) -> bool:
        if active_window(self._connection) == window.id:
            return True
        focused = self._connection.get_input_focus().focus
        while not isinstance(focused, int):  # not "none" or "where the pointer is", and not above the root
            if focused.id == window.id:
                return True
            focused = focused.query_tree().parent or 0
        return False

    def _tell_window_manager(self, window: Window, message: str, data: list[int]) -> None:
        from Xlib import X
        from Xlib.protocol import event

        root = self._connection.screen().root
        mask = X.SubstructureRedirectMask | X.SubstructureNotifyMask
        told = event.ClientMessage(window=window, client_type=self._atom(message), data=(32, data))
        root.send_event(told, event_mask=mask)

    def _atom(self, name: str) -> int:
        return int(self._connection.get_atom(name))


def _list(titles: set[str]) -> str:
    if not titles:
        return "there is no window with a title"
    shown = ", ".join(repr(title) for title in sorted(titles)[:_NUM_TITLES_SHOWN])
    return f"there are {shown}{', ...' if len(titles) > _NUM_TITLES_SHOWN else ''}"
