"""The game's window on Linux, through python-xlib: works with and without a window manager, also for Wine and Proton.

``tasks.live.window.finder.open_window`` makes one. The place of the window is never cached: each call asks the X server
again, so a move is seen at once.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from tasks.game.errors import GameSetupError, WindowError, WindowState
from tasks.live.window.window import (
    FOCUS_TIMEOUT_S,
    PLACE_TIMEOUT_S,
    POLL_S,
    Geometry,
    hidden_fraction,
    off_screen,
    window_error,
    wrong_size,
)
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

_ASK_AGAIN_S = 0.3
"""Pause before a request to a window or its manager, which may have been busy, is repeated [s]."""
_NET_STATE_REMOVE = 0
_SOURCE_PAGER = 2
_NUM_TITLES_SHOWN = 6

_Answer = TypeVar("_Answer")
_logger = logging.getLogger(__name__)


class X11Window:
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
        self._connection: Any = None
        self._window: Any = None
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

    def place(self, left: int, top: int, width: int, height: int) -> Geometry:
        """Moves and resizes the window and checks the result."""
        wanted = Geometry(left, top, width, height)
        deadline = time.monotonic() + PLACE_TIMEOUT_S
        told_at = -float("inf")
        while True:
            now = time.monotonic()
            if now - told_at >= _ASK_AGAIN_S:
                self._ask(lambda window, look: self._request_place(window, look, wanted))
                told_at = now
            time.sleep(POLL_S)
            placed = self._settled(wanted.size)
            if placed is not None:
                return placed
            if now >= deadline:
                raise self._misplaced(wanted)

    def focus(self) -> None:
        """Gives the window the keyboard, through the window manager where there is one."""
        deadline = time.monotonic() + FOCUS_TIMEOUT_S
        asked_at = -float("inf")
        while not self.is_focused():
            now = time.monotonic()
            if now >= deadline:
                raise window_error(WindowState.not_focused, self.title, f"{FOCUS_TIMEOUT_S:g} s after it was asked for")
            if now - asked_at >= _ASK_AGAIN_S:
                self._ask(self._request_focus)
                asked_at = now
            time.sleep(POLL_S)

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

    def __enter__(self) -> X11Window:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _look(self) -> WindowLook:
        """How the window is now, if it can be seen."""
        look = self._ask(lambda _, look: look)
        if look.is_minimised:
            raise window_error(WindowState.minimised, self.title)
        return look

    def _ask(self, question: Callable[[Any, WindowLook], _Answer]) -> _Answer:
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

    def _present(self) -> tuple[Any, WindowLook]:
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

    def _settled(self, size: tuple[int, int]) -> Geometry | None:
        """The client area, if it has this size and is on the screen at two looks."""
        for _ in range(2):
            look = self._ask(lambda _, look: look)
            if look.is_minimised or look.area.size != size or not look.area.lies_in(look.screen):
                return None
            time.sleep(POLL_S)
        return look.area

    def _misplaced(self, wanted: Geometry) -> WindowError:
        look = self._look()
        if look.area.size != wanted.size:
            return wrong_size(self.title, look.area, wanted.width, wanted.height)
        return off_screen(self.title, look.area, look.screen)

    def _request_place(self, window: Any, look: WindowLook, wanted: Geometry) -> None:
        self._restore(window, look)
        filling = {self._atom(f"_NET_WM_STATE_{name}") for name in ("FULLSCREEN", "MAXIMIZED_VERT", "MAXIMIZED_HORZ")}
        for state in filling & set(look.states):
            self._tell_window_manager(window, "_NET_WM_STATE", [_NET_STATE_REMOVE, state, 0, _SOURCE_PAGER, 0])
        window.configure(x=wanted.left, y=wanted.top, width=wanted.width, height=wanted.height)
        self._connection.sync()

    def _restore(self, window: Any, look: WindowLook) -> None:
        if not look.is_minimised:
            return
        window.map()
        if has_window_manager(self._connection):
            self._tell_window_manager(window, "_NET_ACTIVE_WINDOW", [_SOURCE_PAGER, 0, 0, 0, 0])
        self._connection.sync()

    def _request_focus(self, window: Any, look: WindowLook) -> None:
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

    def _has_focus(self, window: Any, _: WindowLook) -> bool:
        if active_window(self._connection) == window.id:
            return True
        focused = self._connection.get_input_focus().focus
        while not isinstance(focused, int):  # not "none" or "where the pointer is", and not above the root
            if focused.id == window.id:
                return True
            focused = focused.query_tree().parent or 0
        return False

    def _tell_window_manager(self, window: Any, message: str, data: list[int]) -> None:
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
