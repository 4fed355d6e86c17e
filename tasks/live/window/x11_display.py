"""Reads an X server through python-xlib: the connection, and the windows with their titles and areas.

``tasks.live.window.x11_window`` searches the game's window with it; the keyboard uses the same code to connect. Nothing
here changes a window.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from tasks.game.errors import GameSetupError, WindowState
from tasks.live.window.window import Geometry

if TYPE_CHECKING:
    from Xlib.display import Display
    from Xlib.protocol.request import GetProperty
    from Xlib.xobject.drawable import Window

_MAX_DEPTH = 4
"""How deep below the root a game's window can be: a window manager puts one to three frames around it."""
_MAX_PROPERTY_WORDS = 256
_ANY_TYPE = 0
_WM_STATE_ICONIC = 3

_logger = logging.getLogger(__name__)


class WindowLook(NamedTuple):
    """All that is asked of a window in mid-drive, as it was at one moment."""

    title: str
    """``_NET_WM_NAME``, else ``WM_NAME``; empty when it has none."""
    is_minimised: bool
    """Unmapped, or called minimised by a window manager that keeps such windows mapped."""
    is_managed: bool
    """Whether a window manager knows it, or once did."""
    states: tuple[int, ...]
    """Atoms of ``_NET_WM_STATE``."""
    area: Geometry
    """Without its border, on the screen."""
    screen: Geometry

    @property
    def state(self) -> WindowState:
        """``ready`` or ``minimised``."""
        return WindowState.minimised if self.is_minimised else WindowState.ready


def connect(display: str | None) -> Display:
    """A connection to an X display, an ``Xlib.display.Display``, for one thread at a time. Its user closes it.

    Args:
        display: Such as ``:1``; None: $DISPLAY.

    Raises:
        GameSetupError: python-xlib is missing, or there is no such display.
    """
    try:
        from Xlib import error
        from Xlib.display import Display
    except ImportError as problem:
        raise GameSetupError("the game's window needs the package python-xlib: pip install '.[game]'") from problem
    try:
        connection = Display(display)
    except (error.DisplayError, error.ConnectionClosedError, OSError) as problem:
        name = "$DISPLAY" if display is None else repr(display)
        raise GameSetupError(
            f"the X display {name} cannot be opened ({str(problem).strip()}): set task.live.display to the display "
            "of the game (`echo $DISPLAY` in a terminal on its desktop), and run as the same user"
        ) from problem
    # Errors of requests without an answer, such as one about a window that has just closed; the next question notices.
    connection.set_error_handler(lambda problem, _: _logger.debug("X server: %s", problem))
    return connection


def is_wayland(connection: Display) -> bool:
    """Whether the X server runs within a Wayland desktop, which shows it no picture of the screen."""
    return connection.query_extension("XWAYLAND") is not None


def look_at(connection: Display, window: Window) -> WindowLook:
    """All facts of a window at once: eight requests, one wait (on a busy machine, each wait may cost a time slice).

    Raises:
        Xlib.error.BadWindow, Xlib.error.BadDrawable: There is no such window.
    """
    from Xlib import X
    from Xlib.protocol import request

    display, root = connection.display, connection.screen().root
    common = {"display": display, "defer": True}
    attributes = request.GetWindowAttributes(window=window.id, **common)
    names = [_ask_property(connection, window, name) for name in ("_NET_WM_NAME", "WM_NAME")]
    states = [_ask_property(connection, window, name) for name in ("_NET_WM_STATE", "WM_STATE")]
    corner = request.TranslateCoords(src_wid=window.id, dst_wid=root.id, src_x=0, src_y=0, **common)
    size = request.GetGeometry(drawable=window.id, **common)
    screen = request.GetGeometry(drawable=root.id, **common)
    for asked in (attributes, *names, *states, corner, size, screen):
        asked.reply()
    net_state, wm_state = (_numbers(asked) for asked in states)
    is_minimised = attributes.map_state != X.IsViewable or connection.get_atom("_NET_WM_STATE_HIDDEN") in net_state
    if wm_state[:1] == (_WM_STATE_ICONIC,) and not is_minimised:
        is_minimised = has_window_manager(connection)  # else it is left over from one
    return WindowLook(
        title=_text(names[0]) or _text(names[1]),
        is_minimised=is_minimised,
        is_managed=bool(wm_state),
        states=net_state,
        area=Geometry(corner.x, corner.y, size.width, size.height),
        screen=Geometry(0, 0, screen.width, screen.height),
    )


def has_window_manager(connection: Display) -> bool:
    """Whether there is a window manager that activates windows when it is asked to."""
    supported = _ask_property(connection, connection.screen().root, "_NET_SUPPORTED")
    supported.reply()
    return connection.get_atom("_NET_ACTIVE_WINDOW") in _numbers(supported)


def active_window(connection: Display) -> int:
    """Number of the window that the window manager reports as active; 0 if it reports none."""
    active = _ask_property(connection, connection.screen().root, "_NET_ACTIVE_WINDOW")
    active.reply()
    return next(iter(_numbers(active)), 0)


def find_window(connection: Display, title: str) -> tuple[Window | None, set[str]]:
    """The window with this title, and the titles of all others.

    Of several the visible one counts, then the one that the window manager knows, then the largest.
    """
    ranked, titles = [], set()
    for window, look in _windows_below(connection, connection.screen().root, _MAX_DEPTH):
        if look.title == title:
            ranked.append(((not look.is_minimised, look.is_managed, look.area.width * look.area.height), window))
        elif look.title:
            titles.add(look.title)
    if not ranked:
        return None, titles
    return max(ranked, key=lambda entry: entry[0])[1], titles


def areas_above(connection: Display, window: Window) -> Iterator[Geometry]:
    """Areas of the visible windows that are stacked above a window."""
    from Xlib import X, error

    root = connection.screen().root
    top, parent = window, window.query_tree().parent
    while parent and parent.id != root.id:
        top, parent = parent, parent.query_tree().parent
    is_above = False
    for other in root.query_tree().children:  # bottom first
        with contextlib.suppress(error.BadWindow, error.BadDrawable):  # closed since
            if is_above and other.get_attributes().win_class == X.InputOutput:
                look = look_at(connection, other)
                if not look.is_minimised:
                    yield look.area
        is_above = is_above or other.id == top.id


def _windows_below(connection: Display, parent: Window, depth: int) -> Iterator[tuple[Window, WindowLook]]:
    from Xlib import error

    for window in parent.query_tree().children:
        with contextlib.suppress(error.BadWindow, error.BadDrawable):  # closed since
            yield window, look_at(connection, window)
            if depth > 1:
                yield from _windows_below(connection, window, depth - 1)


def _ask_property(connection: Display, window: Window, name: str) -> GetProperty:
    """Asks for a property, without waiting for the answer."""
    from Xlib.protocol import request

    return request.GetProperty(
        display=connection.display,
        defer=True,
        delete=False,
        window=window.id,
        property=connection.get_atom(name),
        type=_ANY_TYPE,
        long_offset=0,
        long_length=_MAX_PROPERTY_WORDS,
    )


def _numbers(answer: GetProperty) -> tuple[int, ...]:
    """Numbers of a 32-bit property; none when the window lacks it."""
    if not answer.property_type or answer.value[0] != 32:
        return ()
    return tuple(answer.value[1])


def _text(answer: GetProperty) -> str:
    """Text of a property in whichever of its encodings (SDL invents one); empty when the window lacks it."""
    if not answer.property_type or answer.value[0] != 8:
        return ""
    data = bytes(answer.value[1])
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")
