"""The stand-in game's window: a real one that can be moved, resized, minimised and closed. ``game.py`` owns one.

Written for X11 without a window manager, where the tests run; with one, and on Windows, SDL does the same where the
system allows it.
"""

from __future__ import annotations

import contextlib
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tasks.stand_in import x11_properties

_BANNER_BGRA = (60, 170, 60, 255)
_TEXT_BGRA = (255, 255, 255, 255)


class StandInWindow:
    """A window of a given title that shows pictures; others may move and resize it."""

    def __init__(self, title: str, size: tuple[int, int], position: tuple[int, int]) -> None:
        """Opens the window. pygame's display must be initialised.

        Args:
            title: Of the window.
            size: (width, height) of the client area [px].
            position: (left, top) on the screen [px].
        """
        import pygame

        self._pygame = pygame
        self._title = title
        self._window: Any = None
        self._restores_to = (size, position)
        self.open()

    @property
    def is_open(self) -> bool:
        """Whether there is a window."""
        return self._window is not None

    @property
    def handle(self) -> int | None:
        """The window system's number of the window; None without a window."""
        return None if self._window is None else int(self._window.handle)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the client area [px], also while the window is closed."""
        return self._restores_to[0] if self._window is None else tuple(self._window.size)

    def open(self) -> None:
        """Opens the window where it was last; does nothing when it is there."""
        if self._window is not None:
            return
        size, position = self._restores_to
        self._window = self._pygame.Window(self._title, size, position, resizable=True)
        x11_properties.name_window(self._window.handle, self._title)
        self._window.get_surface()
        self._window.flip()

    def show(self, picture: NDArray[np.uint8]) -> None:
        """Shows a picture.

        Args:
            picture: BGRA, shape (height, width, 4); one of another size, as just after a resize, is left out.
        """
        if self._window is None:
            return
        surface = self._window.get_surface()
        if surface.get_size() != (picture.shape[1], picture.shape[0]):
            return
        pixels = self._pygame.surfarray.pixels2d(surface)
        np.copyto(pixels.T, picture.view(np.uint32)[..., 0])
        del pixels  # it locks the surface
        with contextlib.suppress(self._pygame.error):
            self._window.flip()  # fails in the moment of a resize from outside; the next frame shows it

    def move(self, left: int, top: int) -> None:
        """Moves the client area's corner to a place on the screen [px]."""
        if self._window is not None:
            self._window.position = (left, top)

    def resize(self, width: int, height: int) -> None:
        """Changes the client area [px]."""
        if self._window is not None:
            self._window.size = (width, height)

    def minimise(self) -> None:
        """Takes the window off the screen, as a window manager does."""
        if self._window is not None:
            self._window.minimize()
            self._window.hide()
            x11_properties.set_iconic(self._window.handle, True)

    def restore(self) -> None:
        """Puts a minimised window back."""
        if self._window is not None:
            x11_properties.set_iconic(self._window.handle, False)
            self._window.show()
            self._window.restore()

    def lose_focus(self) -> None:
        """Gives the keyboard to no window."""
        x11_properties.drop_focus()

    def close(self) -> None:
        """Closes the window. Calling it twice is fine."""
        if self._window is not None:
            self._restores_to = (self.size, tuple(self._window.position))
            self._window.destroy()
            self._window = None


def draw_finish_screen(picture: NDArray[np.uint8], time_s: float) -> None:
    """Draws the finish screen's banner into a picture, BGRA, shape (height, width, 4)."""
    height, width = picture.shape[:2]
    top, bottom = height // 8, height // 4
    cv2.rectangle(picture, (0, top), (width - 1, bottom), _BANNER_BGRA, -1)
    scale = (bottom - top) / 45.0
    at = (width // 4, bottom - (bottom - top) // 4)
    cv2.putText(picture, f"FINISH {time_s:.3f}", at, cv2.FONT_HERSHEY_SIMPLEX, scale, _TEXT_BGRA, 2, cv2.LINE_AA)
