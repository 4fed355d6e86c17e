"""A window that shows pictures and reports pressed keys; pygame-ce is imported when one is opened.

``tasks.roles.drive.drive`` and ``tasks.roles.check.check`` own one.
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple, Self

import numpy as np

_HIDDEN_DRIVERS = ("offscreen", "dummy")
"""What SDL falls back to when there is no screen."""

_GAP_PX = 48
"""Space for the title bar and frame of the other window."""

_MIN_WIDTH_PX = 320


class WindowEvents(NamedTuple):
    """What happened in the window since it was last asked."""

    wants_quit: bool = False
    """Escape, or the window's cross."""
    wants_restart: bool = False
    """Delete, Backspace, or B on a game pad."""
    typed: str = ""
    """Characters."""
    pads_changed: bool = False
    """A game pad was plugged in or out."""


class Place(NamedTuple):
    """A rectangle on the screen [px]."""

    left: int
    top: int
    width: int
    height: int


def place_beside(other: Place, size: tuple[int, int], desktop: tuple[int, int]) -> Place:
    """Where a window goes that must not cover another one.

    Args:
        other: The other one.
        size: Width and height that this one would like [px].
        desktop: Width and height of the screen [px].

    Returns:
        To the right of the other, below, to its left or above, wherever this one stays largest; it is not shrunk below
        a width of 320 px, so on a small screen they may overlap.
    """
    width, height = size
    right, bottom = other.left + other.width + _GAP_PX, other.top + other.height + _GAP_PX
    rooms = (
        Place(right, 0, desktop[0] - right, desktop[1] - _GAP_PX),
        Place(0, bottom, desktop[0], desktop[1] - bottom - _GAP_PX),
        Place(0, 0, other.left - _GAP_PX, desktop[1] - _GAP_PX),
        Place(0, 0, desktop[0], other.top - 2 * _GAP_PX),
    )
    room = max(rooms, key=lambda room: min(1.0, room.width / width, room.height / height))
    scale = min(1.0, room.width / width, room.height / height)
    scale = max(scale, min(1.0, _MIN_WIDTH_PX / width))
    return Place(room.left, room.top, round(width * scale), round(height * scale))


class PictureWindow:
    """A resizable window; one at a time, used from the thread that opened it."""

    def __init__(self, width: int, height: int, title: str, *, beside: Place | None = None) -> None:
        """Opens the window.

        Args:
            width: [px]
            height: [px]
            title: Its caption.
            beside: Another window, which must not be covered; this one is made smaller to fit beside it. None: it goes
                wherever the desktop puts it.

        Raises:
            ValueError: pygame-ce is not installed, or there is no screen.
        """
        self._pygame = _import_pygame()
        self._is_open = False
        try:
            self._pygame.display.init()
            _require_screen(self._pygame)
            self._pygame.display.set_caption(title)
            place = Place(0, 0, width, height)
            if beside is not None:
                place = place_beside(beside, (width, height), self._pygame.display.get_desktop_sizes()[0])
            self._screen = self._pygame.display.set_mode((place.width, place.height), self._pygame.RESIZABLE)
            if beside is not None:
                self._pygame.display.set_window_position((place.left, place.top))
        except self._pygame.error as error:
            self._pygame.display.quit()
            raise ValueError(_no_screen(str(error))) from error
        except ValueError:
            self._pygame.display.quit()
            raise
        self._is_open = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def size(self) -> tuple[int, int]:
        """Width and height now [px]."""
        width, height = self._screen.get_size()
        return int(width), int(height)

    def show(self, picture: np.ndarray) -> None:
        """Shows a picture, as large as fits.

        Args:
            picture: uint8 RGB, shape (h, w, 3).
        """
        pygame = self._pygame
        height, width = picture.shape[:2]
        surface = pygame.image.frombuffer(np.ascontiguousarray(picture), (width, height), "RGB")
        scale = min(self.size[0] / width, self.size[1] / height)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        if size != (width, height):
            surface = pygame.transform.smoothscale(surface, size)
        corner = ((self.size[0] - size[0]) // 2, (self.size[1] - size[1]) // 2)
        if size != self.size:
            self._screen.fill((18, 20, 24))
        self._screen.blit(surface, corner)
        pygame.display.flip()

    def events(self) -> WindowEvents:
        """What happened since the last call; does not wait."""
        pygame = self._pygame
        found = WindowEvents()
        for event in pygame.event.get():
            found = _with_event(pygame, found, event)
        return found

    def close(self) -> None:
        """Closes it. Calling it twice is fine."""
        if self._is_open:
            self._is_open = False
            self._pygame.display.quit()


def _with_event(pygame: Any, found: WindowEvents, event: Any) -> WindowEvents:
    if event.type == pygame.QUIT:
        return found._replace(wants_quit=True)
    if event.type == pygame.KEYDOWN:
        if event.key == pygame.K_ESCAPE:
            return found._replace(wants_quit=True)
        if event.key in (pygame.K_DELETE, pygame.K_BACKSPACE):
            return found._replace(wants_restart=True)
        return found._replace(typed=found.typed + event.unicode)
    if event.type == pygame.CONTROLLERBUTTONDOWN and event.button == pygame.CONTROLLER_BUTTON_B:
        return found._replace(wants_restart=True)
    if event.type in (pygame.CONTROLLERDEVICEADDED, pygame.CONTROLLERDEVICEREMOVED):
        return found._replace(pads_changed=True)
    return found


def _import_pygame() -> Any:
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    try:
        import pygame
    except ImportError as error:
        raise ValueError(
            f"a window needs pygame-ce ({error}): pip install 'tm20-rl[drive]' or pip install pygame-ce"
        ) from error
    return pygame


def _require_screen(pygame: Any) -> None:
    """Refuses a machine without a screen, on which SDL would open invisible windows; unless SDL was told to."""
    driver = str(pygame.display.get_driver())
    if driver in _HIDDEN_DRIVERS and os.environ.get("SDL_VIDEODRIVER") != driver:
        raise ValueError(_no_screen("SDL finds no screen"))


def _no_screen(reason: str) -> str:
    return f"no window can be opened: {reason}; give the command on a desktop, or set DISPLAY to an X server"
