"""The keys of the game by their function, and the interface that sends them."""

from __future__ import annotations

from collections.abc import Collection
from enum import Enum
from typing import Protocol


class Key(Enum):
    """What the game's keys do. Which keys these are differs between X11 and Windows, as in TMRL."""

    gas = "gas"
    brake = "brake"
    left = "left"
    right = "right"
    restart = "restart"
    """Back to the start of the track."""
    confirm = "confirm"
    """Leaves the finish screen."""


class KeySender(Protocol):
    """Presses and releases keys for whatever window has the focus."""

    def send(self, released: Collection[Key], pressed: Collection[Key]) -> None:
        """Releases, then presses; the game sees them in this order."""
        ...

    def free(self) -> None:
        """Releases every ``Key`` that is down, also those of other programs. Safe within a signal handler."""
        ...

    def close(self) -> None:
        """Closes the connection; keys that are down stay down. Calling it twice is fine."""
        ...
