"""Controls from keys and pads."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from tasks.roles.drive.hand_controls import DEAD_ZONE, HandControls, Keys, control_from_keys, control_from_pad, stronger
from tasks.roles.picture_window import PictureWindow


@pytest.mark.parametrize(
    ("keys", "control"),
    [
        (Keys(), [0, 0, 0]),
        (Keys(gas=True), [1, 0, 0]),
        (Keys(brake=True, left=True), [0, 1, -1]),
        (Keys(gas=True, right=True), [1, 0, 1]),
        (Keys(left=True, right=True), [0, 0, 0]),
    ],
)
def test_keys_give_full_controls(keys: Keys, control: list[int]) -> None:
    np.testing.assert_array_equal(control_from_keys(keys), control)


def test_a_pad_is_analog_beyond_its_dead_zone() -> None:
    np.testing.assert_array_equal(control_from_pad(0, 0, 0), [0, 0, 0])
    np.testing.assert_allclose(control_from_pad(32767, 32767, 32767), [1, 1, 1])
    np.testing.assert_allclose(control_from_pad(0, 0, -32768), [0, 0, -1])
    np.testing.assert_array_equal(control_from_pad(0, 0, round(0.9 * DEAD_ZONE * 32767)), [0, 0, 0])
    half_way = round((DEAD_ZONE + 0.5 * (1 - DEAD_ZONE)) * 32767)
    np.testing.assert_allclose(control_from_pad(half_way, 0, -half_way), [0.5, 0, -0.5], atol=1e-4)
    assert control_from_pad(1, 2, 3).dtype == np.float32


def test_the_stronger_of_keys_and_pad_counts() -> None:
    keys, pad = np.array([1, 0, 0], np.float32), np.array([0.5, 0.25, -0.75], np.float32)
    np.testing.assert_array_equal(stronger(keys, pad), [1, 0.25, -0.75])


class FakePad:
    """SDL's view of a pad; ``is_gone`` makes it fail as one that was unplugged."""

    name = "fake"

    def __init__(self) -> None:
        self.axes: dict[int, int] = {}
        self.is_gone = False
        self.has_quit = False

    def get_axis(self, axis: int) -> int:
        import pygame

        if self.is_gone:
            raise pygame.error("Controller is gone")
        return self.axes.get(axis, 0)

    def quit(self) -> None:
        self.has_quit = True


@pytest.fixture
def hands(no_screen: None) -> Iterator[HandControls]:
    with PictureWindow(320, 240, "test"):
        controls = HandControls()
        yield controls
        controls.close()
        controls.close()


def test_the_triggers_and_the_left_stick_drive(hands: HandControls, monkeypatch: pytest.MonkeyPatch) -> None:
    import pygame

    pad = FakePad()
    monkeypatch.setattr(hands, "_pad", pad)
    pad.axes = {pygame.CONTROLLER_AXIS_TRIGGERRIGHT: 32767, pygame.CONTROLLER_AXIS_LEFTX: -32767}
    np.testing.assert_allclose(hands.read(), [1, 0, -1])
    pad.axes = {pygame.CONTROLLER_AXIS_TRIGGERLEFT: 32767, pygame.CONTROLLER_AXIS_RIGHTX: 32767}
    np.testing.assert_allclose(hands.read(), [0, 1, 0])


def test_an_unplugged_pad_leaves_the_keys(hands: HandControls, monkeypatch: pytest.MonkeyPatch) -> None:
    pad = FakePad()
    monkeypatch.setattr(hands, "_pad", pad)
    pad.is_gone = True
    np.testing.assert_array_equal(hands.read(), [0, 0, 0])
    assert pad.has_quit
    np.testing.assert_array_equal(hands.read(), [0, 0, 0])


def test_without_a_pad_no_control_is_pressed(hands: HandControls) -> None:
    np.testing.assert_array_equal(hands.read(), [0, 0, 0])
