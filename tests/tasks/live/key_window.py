"""A plain X window that receives real key events, for the tests of the keyboard."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from Xlib import XK, X
from Xlib.display import Display
from Xlib.ext import xtest

WAIT_LIMIT_S = 20.0
_NAMES = ("Up", "Down", "Left", "Right", "BackSpace", "Return", "a")


class KeyWindow:
    """Maps a window, takes the focus and collects its key events.

    Args:
        display: Name of the X display.
    """

    def __init__(self, display: str) -> None:
        self._display = Display(display)
        root = self._display.screen().root
        self._window = root.create_window(
            0, 0, 64, 64, 0, self._display.screen().root_depth, event_mask=X.KeyPressMask | X.KeyReleaseMask
        )
        # A held key must not look like many presses on a slow machine.
        self._display.change_keyboard_control(auto_repeat_mode=X.AutoRepeatModeOff)
        self._window.map()
        self._events: list[tuple[str, str]] = []
        self._pressed: list[str] = []
        self.focus()

    def focus(self) -> None:
        """Takes the input focus."""
        self._display.sync()
        _wait(lambda: self._window.get_attributes().map_state == X.IsViewable)
        self._display.set_input_focus(self._window, X.RevertToPointerRoot, X.CurrentTime)
        self._display.sync()

    def is_focused(self) -> bool:
        """Whether it gets the keys."""
        focus: Any = self._display.get_input_focus().focus
        return getattr(focus, "id", None) == self._window.id

    def events(self, count: int) -> list[tuple[str, str]]:
        """All events so far, such as ("down", "Up"), once there are at least ``count``."""

        def arrived() -> bool:
            while self._display.pending_events():
                event = self._display.next_event()
                if event.type in (X.KeyPress, X.KeyRelease):
                    kind = "down" if event.type == X.KeyPress else "up"
                    self._events.append((kind, self._name(event.detail)))
            return len(self._events) >= count

        self._display.sync()
        _wait(arrived)
        return list(self._events)

    def down(self) -> set[str]:
        """Names of the keys that are down in the X server."""
        bits = self._display.query_keymap()
        codes = [code for code in range(256) if bits[code // 8] >> (code % 8) & 1]
        return {self._name(code) for code in codes}

    def press(self, name: str) -> None:
        """Presses a key from outside, as another program would; it is released with the window."""
        self._pressed.append(name)
        self._fake(X.KeyPress, name)

    def close(self) -> None:
        """Closes the window and restores the keyboard."""
        for name in self._pressed:
            self._fake(X.KeyRelease, name)
        self._display.change_keyboard_control(auto_repeat_mode=X.AutoRepeatModeDefault)
        self._window.destroy()
        self._display.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _fake(self, kind: int, name: str) -> None:
        xtest.fake_input(self._display, kind, self._display.keysym_to_keycode(XK.string_to_keysym(name)))
        self._display.sync()

    def _name(self, code: int) -> str:
        keysym = self._display.keycode_to_keysym(code, 0)
        return next((name for name in _NAMES if XK.string_to_keysym(name) == keysym), f"code {code}")


def _wait(is_done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_LIMIT_S
    while not is_done():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {WAIT_LIMIT_S} s")
        time.sleep(0.005)
