"""A person's keyboard and game pad as controls [gas, brake, steer].

``tasks.roles.drive.drive`` reads them once per drawn picture. pygame is imported at use; the conversion needs none.
"""

from __future__ import annotations

import contextlib
import logging
from typing import Any, NamedTuple

import numpy as np

DEAD_ZONE = 0.12
"""A stick that is less far from its middle is at rest."""
_AXIS_RANGE = 32767.0

_logger = logging.getLogger(__name__)


class Keys(NamedTuple):
    """Which keys are held."""

    gas: bool = False
    brake: bool = False
    left: bool = False
    right: bool = False


def control_from_keys(keys: Keys) -> np.ndarray:
    """[gas, brake, steer] of held keys, float32; left and right together steer straight on."""
    return np.array([keys.gas, keys.brake, float(keys.right) - float(keys.left)], np.float32)


def control_from_pad(gas: int, brake: int, steer: int) -> np.ndarray:
    """[gas, brake, steer] of a pad, float32.

    Args:
        gas: Right trigger, 0 to 32767.
        brake: Left trigger, 0 to 32767.
        steer: Left stick, -32768 to 32767.
    """
    raw = np.array([gas, brake, steer], np.float32) / _AXIS_RANGE
    size = np.clip((np.abs(raw) - DEAD_ZONE) / (1.0 - DEAD_ZONE), 0.0, 1.0)
    return (np.sign(raw) * size).astype(np.float32)


def stronger(keys: np.ndarray, pad: np.ndarray) -> np.ndarray:
    """The control of the device that is used: of each entry the one farther from rest, the keys at a tie."""
    return np.where(np.abs(pad) > np.abs(keys), pad, keys).astype(np.float32)


class HandControls:
    """Reads the keyboard of pygame's window and the first game pad, which may come and go. Needs an open window."""

    def __init__(self) -> None:
        import pygame
        from pygame._sdl2 import controller

        self._pygame, self._controllers = pygame, controller
        controller.init()
        self._pad: Any = None
        self.look_for_pad()

    def look_for_pad(self) -> None:
        """Takes the first pad that SDL knows; called again when one was plugged in or out."""
        self._release_pad()
        for index in range(self._controllers.get_count()):
            if self._controllers.is_controller(index):
                self._pad = self._controllers.Controller(index)
                _logger.info("game pad: %s", self._pad.name)
                return

    def read(self) -> np.ndarray:
        """[gas, brake, steer] in [-1, 1], float32."""
        pygame = self._pygame
        held = pygame.key.get_pressed()
        keys = Keys(
            gas=held[pygame.K_UP] or held[pygame.K_w],
            brake=held[pygame.K_DOWN] or held[pygame.K_s],
            left=held[pygame.K_LEFT] or held[pygame.K_a],
            right=held[pygame.K_RIGHT] or held[pygame.K_d],
        )
        return stronger(control_from_keys(keys), self._read_pad())

    def close(self) -> None:
        """Releases the pad. Calling it twice is fine."""
        self._release_pad()

    def _read_pad(self) -> np.ndarray:
        if self._pad is None:
            return np.zeros(3, np.float32)
        pygame, pad = self._pygame, self._pad
        try:
            return control_from_pad(
                pad.get_axis(pygame.CONTROLLER_AXIS_TRIGGERRIGHT),
                pad.get_axis(pygame.CONTROLLER_AXIS_TRIGGERLEFT),
                pad.get_axis(pygame.CONTROLLER_AXIS_LEFTX),
            )
        except pygame.error:
            _logger.warning("the game pad was disconnected: drive with the keys")
            self._release_pad()
            return np.zeros(3, np.float32)

    def _release_pad(self) -> None:
        if self._pad is not None:
            with contextlib.suppress(self._pygame.error):
                self._pad.quit()
            self._pad = None
