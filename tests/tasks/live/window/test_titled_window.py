"""A window that is searched when it is first used."""

from __future__ import annotations

import pytest

from tasks.game.errors import WindowError, WindowState
from tasks.live.window.titled_window import TitledWindow
from tasks.live.window.window import GameWindow, Geometry, window_error
from tests.tasks.live.live_fakes import FakeLiveGame


class Opener:
    """No window has the title until ``window`` is set."""

    def __init__(self) -> None:
        self.window: FakeLiveGame | None = None
        self.asked: list[tuple[str, str | None]] = []

    def __call__(self, title: str, display: str | None) -> GameWindow:
        self.asked.append((title, display))
        if self.window is None:
            raise window_error(WindowState.not_found, title)
        return self.window


def test_the_window_is_not_searched_before_it_is_used() -> None:
    opener = Opener()
    window = TitledWindow("Trackmania", ":7", opener)
    window.close()
    assert opener.asked == []
    assert window.title == "Trackmania"


def test_a_missing_window_is_reported_and_later_found_once() -> None:
    opener = Opener()
    window = TitledWindow("Trackmania", ":7", opener)
    assert window.state() is WindowState.not_found
    assert not window.is_focused()
    with pytest.raises(WindowError, match="'Trackmania' was not found: start the game"):
        window.geometry()
    opener.window = FakeLiveGame()
    assert window.state() is WindowState.ready
    assert window.is_focused()
    assert window.geometry() == Geometry(0, 0, 958, 488)
    assert window.screen() == Geometry(0, 0, 1280, 800)
    assert window.place(5, 6, 70, 80) == Geometry(5, 6, 70, 80)
    assert window.covered_fraction() == 0.25
    window.focus()
    assert opener.window.deeds() == ["focus"]
    assert opener.asked == [("Trackmania", ":7")] * 4


def test_closing_releases_once() -> None:
    opener = Opener()
    opener.window = FakeLiveGame()
    window = TitledWindow("Trackmania", None, opener)
    window.geometry()
    window.close()
    window.close()
    assert opener.window.closed == ["part"]
