"""Sends keys through X11's XTEST extension, as if they came from the keyboard. Used by ``keyboard``.

Synthetic events (XSendEvent) would be simpler, but games and Wine ignore them. XTEST keys go to the window that has
the focus, and stay down in the X server when their sender dies.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Collection, Iterator
from typing import Any

from tasks.game.errors import GameSetupError
from tasks.live.controls.keys import Key

_log = logging.getLogger(__name__)

KEY_NAMES = {
    Key.gas: "Up",
    Key.brake: "Down",
    Key.left: "Left",
    Key.right: "Right",
    Key.restart: "BackSpace",
    Key.confirm: "Return",
}
"""X keysym names; TMRL's keys on Linux (which has none for ``confirm``)."""


class X11Keys:
    """A ``KeySender`` over one X connection, which is made again after a failure or an interrupt.

    Args:
        display: X display, such as ``:1``; None: $DISPLAY.

    Raises:
        GameSetupError: If python-xlib, the display, its XTEST extension or one of the keys is missing.
    """

    def __init__(self, display: str | None = None) -> None:
        self._name = display
        self._connection: _Connection | None = _Connection(display)

    def send(self, released: Collection[Key], pressed: Collection[Key]) -> None:
        """Releases, then presses; returns when the X server has both."""
        try:
            if self._connection is None:
                self._connection = _Connection(self._name)
            self._connection.send(released, pressed)
        except BaseException:
            # After an interrupt within a request python-xlib may never release its locks.
            self._drop()
            raise

    def free(self) -> None:
        """Releases every ``Key`` that is down, also those of other programs, over its own connection."""
        connection = _Connection(self._name)
        try:
            down = connection.down()
            if down:
                _log.info("releasing %s", ", ".join(sorted(KEY_NAMES[key] for key in down)))
                connection.send(down, ())
        finally:
            connection.close()

    def close(self) -> None:
        """Closes the connection. Calling it twice is fine."""
        if self._connection is not None:
            connection, self._connection = self._connection, None
            connection.close()

    def _drop(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            connection.drop()


class _Connection:
    """An X connection and the codes of our keys on its keyboard."""

    def __init__(self, name: str | None) -> None:
        try:
            from Xlib import XK, X
            from Xlib import display as xlib_display
            from Xlib.ext import xtest
        except ImportError as error:
            raise GameSetupError(
                f"sending keys needs the package python-xlib ({error}): pip install '.[game]'"
            ) from error
        with _errors(name):
            self._display = xlib_display.Display(name)
        self._name = name
        self._fake_input: Callable[..., None] = xtest.fake_input
        self._press, self._release = X.KeyPress, X.KeyRelease
        try:
            with _errors(name):
                self._require_xtest()
                self._codes = self._key_codes(XK.string_to_keysym)
        except BaseException:
            self.drop()
            raise

    def send(self, released: Collection[Key], pressed: Collection[Key]) -> None:
        with _errors(self._name):
            for key in released:
                self._fake_input(self._display, self._release, self._codes[key])
            for key in pressed:
                self._fake_input(self._display, self._press, self._codes[key])
            self._display.sync()

    def down(self) -> list[Key]:
        """Our keys that are down in the X server."""
        with _errors(self._name):
            bits = self._display.query_keymap()
        return [key for key, code in self._codes.items() if bits[code // 8] >> (code % 8) & 1]

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self._display.close()

    def drop(self) -> None:
        """Closes without a word to the server, which could block."""
        with contextlib.suppress(Exception):
            self._display.display.socket.close()

    def _require_xtest(self) -> None:
        if not self._display.has_extension("XTEST"):
            raise GameSetupError(
                f"the X display {self._display.get_display_name()} has no XTEST extension, through which keys are "
                "sent: start its X server without '-tst', or set task.control=gamepad"
            )

    def _key_codes(self, keysym_of: Callable[[str], int]) -> dict[Key, int]:
        codes: dict[Key, int] = {}
        for key, name in KEY_NAMES.items():
            codes[key] = int(self._display.keysym_to_keycode(keysym_of(name)))
            if codes[key] == 0:
                raise GameSetupError(
                    f"the keyboard of the X display {self._display.get_display_name()} has no key {name}: choose a "
                    "layout that has it (setxkbmap us), or set task.control=gamepad"
                )
        return codes


@contextlib.contextmanager
def _errors(name: str | None) -> Iterator[None]:
    """Says what a failure of the X connection means."""
    from Xlib import error as xlib_error

    failures: tuple[Any, ...] = (
        xlib_error.DisplayError,
        xlib_error.ConnectionClosedError,
        xlib_error.XauthError,
        xlib_error.XError,
        OSError,
    )
    try:
        yield
    except failures as error:
        shown = name if name is not None else "$DISPLAY"
        raise GameSetupError(
            f"keys cannot be sent to the X display {shown}: {error}. Set task.live.display to the display on which "
            "the game runs (echo $DISPLAY in a terminal on its desktop), and run as the user who is logged in there"
        ) from error
