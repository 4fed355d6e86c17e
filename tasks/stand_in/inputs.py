"""The player's inputs: keyboard, joystick and pad port, read once a frame. ``game.py`` owns one ``Inputs``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from tasks.stand_in.pad_port import BUTTON_A, BUTTON_B, PadPort, PadReading

# Of an Xbox 360 pad as SDL shows it on Linux; triggers rest at -1.
_AXIS_STEER, _AXIS_BRAKE, _AXIS_GAS = 0, 2, 5
_JOYSTICK_A, _JOYSTICK_B = 0, 1


class Controls(NamedTuple):
    """The controls of the car."""

    gas: float = 0.0
    """0 to 1."""
    brake: float = 0.0
    """0 to 1."""
    steer: float = 0.0
    """-1 to 1, positive to the right."""


class PlayerInput(NamedTuple):
    """What the player does in a frame."""

    controls: Controls
    restarts: bool
    """Delete, Backspace or button B went down."""
    closes_finish_screen: bool
    """Return or button A went down."""


class Inputs:
    """Everything that drives. Several devices at once add up, as far as their range goes."""

    def __init__(self, pad: PadPort | None) -> None:
        """Sets the keys.

        Args:
            pad: Analog controls of tests, if they are offered.
        """
        import pygame

        self._pygame = pygame
        self._pad = pad
        self._held: set[int] = set()
        self._axes: dict[int, float] = {}
        self._joysticks: dict[int, Any] = {}
        self._names = _driving_keys(pygame)

    @property
    def keys(self) -> list[str]:
        """Names of the keys that are held, for the console."""
        return sorted(self._pygame.key.name(key) for key in self._held)

    @property
    def num_joysticks(self) -> int:
        """Joysticks that are plugged in."""
        return len(self._joysticks)

    def read(self, events: Iterable[Any]) -> PlayerInput:
        """What the player does now, after the window's events of this frame."""
        went_down = 0
        for event in events:
            went_down |= self._take(event)
        pad = self._pad.read() if self._pad is not None else PadReading()
        went_down |= pad.pressed
        controls = _add_up([self._keyboard(), self._joystick(), Controls(pad.gas, pad.brake, pad.steer)])
        return PlayerInput(controls, bool(went_down & BUTTON_B), bool(went_down & BUTTON_A))

    def _take(self, event: Any) -> int:
        """Follows an event; returns the button that it means, or 0."""
        pygame = self._pygame
        button = 0
        if event.type == pygame.KEYDOWN:
            self._held.add(event.key)
            button = {pygame.K_DELETE: BUTTON_B, pygame.K_BACKSPACE: BUTTON_B, pygame.K_RETURN: BUTTON_A}.get(
                event.key, 0
            )
        elif event.type == pygame.KEYUP:
            self._held.discard(event.key)
        elif event.type == pygame.JOYAXISMOTION:
            self._axes[event.axis] = event.value
        elif event.type == pygame.JOYBUTTONDOWN:
            button = {_JOYSTICK_A: BUTTON_A, _JOYSTICK_B: BUTTON_B}.get(event.button, 0)
        elif event.type == pygame.JOYDEVICEADDED:
            joystick = pygame.joystick.Joystick(event.device_index)
            self._joysticks[joystick.get_instance_id()] = joystick
        elif event.type == pygame.JOYDEVICEREMOVED:
            self._joysticks.pop(event.instance_id, None)
            self._axes.clear()
        return button

    def _keyboard(self) -> Controls:
        up, down, left, right = (bool(self._held & keys) for keys in self._names)
        return Controls(float(up), float(down), float(right) - float(left))

    def _joystick(self) -> Controls:
        """Axes that have not moved yet rest."""
        gas, brake = ((self._axes.get(axis, -1.0) + 1.0) / 2.0 for axis in (_AXIS_GAS, _AXIS_BRAKE))
        return Controls(gas, brake, self._axes.get(_AXIS_STEER, 0.0))


def _driving_keys(pygame: Any) -> tuple[set[int], set[int], set[int], set[int]]:
    """Keys for gas, brake, left and right."""
    return (
        {pygame.K_UP, pygame.K_w},
        {pygame.K_DOWN, pygame.K_s},
        {pygame.K_LEFT, pygame.K_a},
        {pygame.K_RIGHT, pygame.K_d},
    )


def _add_up(devices: list[Controls]) -> Controls:
    gas, brake, steer = (sum(values) for values in zip(*devices, strict=True))
    return Controls(min(max(gas, 0.0), 1.0), min(max(brake, 0.0), 1.0), min(max(steer, -1.0), 1.0))
