"""What every TrackMania task may show of the dashboard: speed, gear, engine speed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tasks.experience.observation import Field
from tasks.game.protocols import Telemetry

MAX_SPEED_MPS = 1000.0

SPEED = Field("speed", (1,), high=MAX_SPEED_MPS, scale=55.6, unit="m/s")
"""[m/s]; the scale is 200 km/h."""
GEAR = Field("gear", (1,), high=6.0, scale=5.0, unit="gear")
RPM = Field("rpm", (1,), scale=11000.0, unit="1/min")

_DIALS = [(field, Telemetry._fields.index(field.name)) for field in (SPEED, GEAR, RPM)]


def read_dials(records: NDArray[np.float64]) -> dict[str, NDArray[np.float32]]:
    """The fields ``speed``, ``gear`` and ``rpm``, of shape (..., 1).

    Args:
        records: Telemetry as numbers in its order, shape (..., T).
    """
    return {
        dial.name: np.clip(records[..., at : at + 1], dial.low, dial.high).astype(np.float32) for dial, at in _DIALS
    }
