"""Errors of the live game; each message says what was found and what to do.

The parts of ``tasks.live`` raise them. In mid-episode a ``GameError`` truncates the episode, and the next one waits for
the game; a ``GameSetupError`` at the start ends the program.
"""

from __future__ import annotations

from enum import Enum


class TelemetryState(Enum):
    """State of the telemetry connection."""

    connecting = "connecting"
    """The state is not known yet."""
    receiving = "receiving"
    """Records arrive and are plausible."""
    not_running = "not_running"
    """Nothing listens on the port and there is no game window."""
    plugin_not_loaded = "plugin_not_loaded"
    """Nothing listens on the port, but the game's window is there."""
    in_menu = "in_menu"
    """Connected, and silent: no car is on a track."""
    port_taken = "port_taken"
    """Connected, and silent, and another program is connected to the plugin, which serves only one."""
    lost = "lost"
    """The connection broke; it is being made again."""
    implausible = "implausible"
    """Records arrive that no car can send."""


class WindowState(Enum):
    """State of the game's window."""

    ready = "ready"
    not_found = "not_found"
    """No window has the title."""
    minimised = "minimised"
    closed = "closed"
    """It existed and was closed."""
    wrong_size = "wrong_size"
    """Its client area has another size than the task observes, and keeps it."""
    off_screen = "off_screen"
    """Part of it lies outside of the screen."""
    not_focused = "not_focused"
    """It does not get the keyboard."""


class GameError(RuntimeError):
    """Raised when the live game cannot be driven at the moment; it may come back."""


class TelemetryError(GameError):
    """Raised when there is no fresh, plausible telemetry.

    Args:
        state: State of the connection.
        message: What was found and what to do.
        age_s: Age of the newest record [s]; None when there is none.
    """

    def __init__(self, state: TelemetryState, message: str, age_s: float | None = None) -> None:
        super().__init__(message)
        self.state = state
        self.age_s = age_s


class WindowError(GameError):
    """Raised when there is no picture of the game.

    Args:
        state: State of the window.
        message: What was found and what to do.
    """

    def __init__(self, state: WindowState, message: str) -> None:
        super().__init__(message)
        self.state = state


class GameSetupError(GameError):
    """Raised when waiting is of no use: a driver, permission, package or display is missing, or the map is wrong."""
