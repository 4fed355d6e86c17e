"""What the windows of both systems do alike: ask until it is done, and look whether it was done.

``x11_window`` and ``win32_window`` add what they ask their system for.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import Self

from tasks.game.errors import WindowError, WindowState
from tasks.live.window.window import (
    FOCUS_TIMEOUT_S,
    PLACE_TIMEOUT_S,
    POLL_S,
    Geometry,
    off_screen,
    window_error,
    wrong_size,
)

ASK_AGAIN_S = 0.3
"""Pause before a request to a window or its manager, which may have been busy, is repeated [s]."""


class FoundWindow(ABC):
    """A part of a ``tasks.live.window.window.GameWindow``: to place it, and to give it the keyboard."""

    title: str

    @abstractmethod
    def is_focused(self) -> bool:
        """Whether keys go to the window."""

    @abstractmethod
    def close(self) -> None:
        """Releases the window."""

    def place(self, left: int, top: int, width: int, height: int) -> Geometry:
        """Moves and resizes the window and checks the result."""
        wanted = Geometry(left, top, width, height)
        deadline = time.monotonic() + PLACE_TIMEOUT_S
        told_at = None
        while True:
            now = time.monotonic()
            is_due = told_at is None or now - told_at >= ASK_AGAIN_S
            if is_due and self._request_place(wanted):
                told_at = now
            time.sleep(POLL_S)
            placed = self._settled(wanted.size) if told_at is not None else None
            if placed is not None:
                return placed
            if now >= deadline:
                found, screen = self._places()
                if found.size != wanted.size:
                    raise wrong_size(self.title, found, width, height)
                raise off_screen(self.title, found, screen)

    def focus(self) -> None:
        """Gives the window the keyboard, which the system may refuse."""
        deadline = time.monotonic() + FOCUS_TIMEOUT_S
        asked_at = -float("inf")
        while not self.is_focused():
            now = time.monotonic()
            if now >= deadline:
                raise window_error(WindowState.not_focused, self.title, f"{FOCUS_TIMEOUT_S:g} s after it was asked for")
            if now - asked_at >= ASK_AGAIN_S:  # not oftener: on Windows a refused request makes the task bar blink
                self._request_focus()
                asked_at = now
            time.sleep(POLL_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def _places(self) -> tuple[Geometry, Geometry]:
        """The client area and the screen; raises WindowError when it is minimised or closed."""

    @abstractmethod
    def _request_place(self, wanted: Geometry) -> bool:
        """Tells the window where to go; False when it first has to be restored. Waits for nothing."""

    @abstractmethod
    def _request_focus(self) -> None:
        """Restores the window and asks for the keyboard."""

    def _settled(self, size: tuple[int, int]) -> Geometry | None:
        """The client area, if it has this size and is on the screen at two looks."""
        for look in range(2):
            if look:
                time.sleep(POLL_S)
            try:
                found, screen = self._places()
            except WindowError as error:
                if error.state is WindowState.minimised:
                    return None
                raise
            if found.size != size or not found.lies_in(screen):
                return None
        return found
