"""Binary controls by arrow keys, with TMRL's thresholds; both games and their tasks use them."""

from __future__ import annotations

import numpy as np

STEER_THRESHOLD = 0.5
"""Steer beyond this presses an arrow; gas and brake are pressed above 0."""


def press_arrows(action: np.ndarray) -> np.ndarray:
    """The binary control that TMRL's keyboard makes of an analog action.

    Args:
        action: [gas, brake, steer] in [-1, 1].

    Returns:
        Gas and brake 0 or 1, steer -1, 0 or 1.
    """
    gas, brake, steer = action
    right = float(steer > STEER_THRESHOLD) - float(steer < -STEER_THRESHOLD)
    return np.array([gas > 0.0, brake > 0.0, right], np.float32)
