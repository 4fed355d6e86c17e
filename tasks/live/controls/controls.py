"""Chooses the controls of the live game: gamepad, keyboard, or none. Called by ``tasks.live.live_game``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, Self

import numpy as np

from tasks.config import ControlKind
from tasks.game.protocols import ControlSink
from tasks.live.controls.gamepad import GamepadControls
from tasks.live.controls.keyboard import KeyboardControls


class FocusableWindow(Protocol):
    """What keys need of the game's window."""

    def is_focused(self) -> bool:
        """Whether the window has the keyboard focus."""
        ...

    def focus(self) -> None:
        """Gives the window the keyboard focus."""
        ...


def make_controls(kind: ControlKind, window: FocusableWindow, display: str | None = None) -> ControlSink:
    """Opens the configured controls.

    Args:
        kind: gamepad or keyboard.
        window: The game's window, which keys must have focused.
        display: X display of the game; None: $DISPLAY. Not used on Windows.

    Raises:
        GameSetupError: If this machine cannot control a game that way; the message has the fix.
    """
    if kind is ControlKind.keyboard:
        return KeyboardControls(_keeps_focus(window), display)
    return GamepadControls()


class NoControls:
    """A ``ControlSink`` that sends nothing: a person drives."""

    def send(self, control: np.ndarray | None) -> None:
        """Does nothing."""

    def restart(self) -> None:
        """Does nothing."""

    def close_popup(self) -> None:
        """Does nothing."""

    def release(self) -> None:
        """Does nothing."""

    def close(self) -> None:
        """Does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _keeps_focus(window: FocusableWindow) -> Callable[[], bool]:
    """Takes the focus where the window has not got it; True when it had to."""

    def keep() -> bool:
        if window.is_focused():
            return False
        window.focus()
        return True

    return keep
