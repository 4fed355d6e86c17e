"""A window shows pictures and reports keys; a machine without a screen is refused."""

from __future__ import annotations

import builtins
from typing import Any

import numpy as np
import pytest

from tasks.roles.picture_window import PictureWindow, Place, WindowEvents, place_beside


def post(*events: tuple[int, dict[str, Any]]) -> None:
    import pygame

    for kind, attributes in events:
        pygame.event.post(pygame.event.Event(kind, attributes))


def shown() -> np.ndarray:
    """RGB of the window, shape (h, w, 3)."""
    import pygame

    surface = pygame.display.get_surface()
    assert surface is not None
    return pygame.surfarray.array3d(surface).swapaxes(0, 1)


def test_a_picture_of_the_windows_size_is_shown_as_it_is(no_screen: None) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (120, 200, 3)).astype(np.uint8)
    with PictureWindow(200, 120, "test") as window:
        assert window.size == (200, 120)
        window.show(picture)
        np.testing.assert_array_equal(shown(), picture)


def test_another_picture_is_fitted_into_the_middle(no_screen: None) -> None:
    with PictureWindow(200, 120, "test") as window:
        window.show(np.full((50, 50, 3), 255, np.uint8))
        assert (shown()[:, 45:155] == 255).all()
        assert not (shown()[:, :35] == 255).any()
        assert not (shown()[:, 165:] == 255).any()


def test_a_pressed_key_is_reported_once(no_screen: None) -> None:
    import pygame

    with PictureWindow(200, 120, "test") as window:
        window.events()
        post(
            (pygame.KEYDOWN, {"key": pygame.K_q, "unicode": "q"}), (pygame.KEYDOWN, {"key": pygame.K_x, "unicode": "x"})
        )
        assert window.events() == WindowEvents(typed="qx")
        assert window.events() == WindowEvents()
        for key in (pygame.K_DELETE, pygame.K_BACKSPACE):
            post((pygame.KEYDOWN, {"key": key, "unicode": ""}))
            assert window.events() == WindowEvents(wants_restart=True)
        post((pygame.KEYDOWN, {"key": pygame.K_ESCAPE, "unicode": ""}))
        assert window.events().wants_quit
        post((pygame.QUIT, {}))
        assert window.events().wants_quit
        post((pygame.CONTROLLERBUTTONDOWN, {"button": pygame.CONTROLLER_BUTTON_B}))
        assert window.events().wants_restart
        post((pygame.CONTROLLERBUTTONDOWN, {"button": pygame.CONTROLLER_BUTTON_A}))
        assert window.events() == WindowEvents()
        post((pygame.CONTROLLERDEVICEADDED, {"device_index": 0}))
        assert window.events().pads_changed


def test_a_closed_window_is_closed(no_screen: None) -> None:
    import pygame

    window = PictureWindow(200, 120, "test")
    window.close()
    window.close()
    assert not pygame.display.get_init()


def test_a_machine_without_a_screen_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SDL_VIDEODRIVER", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ValueError, match=r"no window can be opened.*DISPLAY"):
        PictureWindow(200, 120, "test")


def test_a_wrong_display_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "x11")
    monkeypatch.setenv("DISPLAY", ":9999")
    with pytest.raises(ValueError, match="no window can be opened"):
        PictureWindow(200, 120, "test")


def test_a_missing_package_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    real_import = builtins.__import__

    def without_pygame(name: str, *arguments: Any, **options: Any) -> Any:
        if name == "pygame":
            raise ImportError("No module named 'pygame'")
        return real_import(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without_pygame)
    with pytest.raises(ValueError, match="pip install pygame-ce"):
        PictureWindow(200, 120, "test")


def test_a_window_on_a_real_screen_shows_its_picture(display: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import pygame

    monkeypatch.setenv("SDL_VIDEODRIVER", "x11")
    monkeypatch.setenv("DISPLAY", display)
    try:
        with PictureWindow(300, 200, "role test", beside=Place(0, 0, 100, 50)) as window:
            window.show(np.full((200, 300, 3), 77, np.uint8))
            window.events()
            assert pygame.display.get_driver() == "x11"
            assert window.size == (300, 200)
            left, top = pygame.display.get_window_position()
            assert left >= 100 or top >= 50
    finally:
        pygame.quit()


@pytest.mark.parametrize(
    ("other", "desktop", "place"),
    [
        # Room to the right.
        (Place(0, 0, 256, 128), (1920, 1080), Place(304, 0, 1188, 600)),
        # More room below than to the right: 1080 - 488 - 96 = 496 px of height.
        (Place(0, 0, 958, 488), (1920, 1080), Place(0, 536, 982, 496)),
        # A small screen: right (400 px wide) and below (216 px high, 428 wide) both shrink it.
        (Place(0, 0, 600, 320), (1048, 632), Place(0, 368, 428, 216)),
        # The game stands to the right, and below.
        (Place(1300, 0, 600, 900), (1920, 1080), Place(0, 0, 1188, 600)),
        (Place(0, 760, 1920, 300), (1920, 1080), Place(0, 0, 1188, 600)),
    ],
)
def test_a_window_never_covers_the_game(other: Place, desktop: tuple[int, int], place: Place) -> None:
    found = place_beside(other, (1188, 600), desktop)
    assert found == place
    is_right_or_below = found.left >= other.left + other.width or found.top >= other.top + other.height
    is_left_or_above = found.left + found.width <= other.left or found.top + found.height <= other.top
    assert is_right_or_below or is_left_or_above
    assert found.left + found.width <= desktop[0]
    assert found.top + found.height <= desktop[1]
