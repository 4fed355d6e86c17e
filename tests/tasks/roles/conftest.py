"""Displays for the roles' tests: a real X server, or SDL without a screen."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.tasks.live.conftest import display, stand_in

__all__ = ["display", "no_screen", "stand_in"]


@pytest.fixture
def no_screen(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """SDL draws into memory."""
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    yield
    import pygame

    pygame.quit()
