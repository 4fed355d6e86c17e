"""Binary controls by arrow keys, with TMRL's thresholds; both games and their tasks use them."""

from __future__ import annotations

import numpy as np

STEER_THRESHOLD = 0.5
"""Steer beyond this presses an arrow; gas and brake are pressed above 0."""


def press_arrows(action: np.ndarray) -> np.ndarray:
    """The binary control that TMRL's keyboard makes of an analog action.

    Args:
        action: [gas, brake, steer] in [-1, 1], or rows of them.

    Returns:
        Gas and brake 0 or 1, steer -1, 0 or 1.
    """
    pressed = np.greater(action, (0.0, 0.0, STEER_THRESHOLD)).astype(np.float32)
    pressed[..., 2] -= action[..., 2] < -STEER_THRESHOLD
    return pressed
