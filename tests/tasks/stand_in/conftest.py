"""The display and the running stand-in of the live game's tests."""

from __future__ import annotations

from tests.tasks.live.conftest import display, stand_in

__all__ = ["display", "stand_in"]
