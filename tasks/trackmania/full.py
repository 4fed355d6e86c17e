"""TM20Full: driving from images of the window, with speed, gear and engine speed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tasks.config import TaskConfig
from tasks.experience.observation import Field
from tasks.game.protocols import Game, Telemetry
from tasks.trackmania.driving import SPEED, DrivingInterface, observed_speed

MAX_GEAR = 6.0
GEAR = Field("gear", (1,), high=MAX_GEAR, scale=5.0, unit="gear")
RPM = Field("rpm", (1,), scale=11000.0, unit="1/min")


class FullInterface(DrivingInterface):
    """Observation, then the last actions (act_buf_len x [gas, brake, steer], oldest first).

    ====== ======= ======================= =====================================
    field  dtype   shape                   meaning
    ====== ======= ======================= =====================================
    speed  float32 (1,)                    [m/s], 0 to 1000
    gear   float32 (1,)                    0 to 6
    rpm    float32 (1,)                    engine speed [1/min]
    images uint8   (H, h, w) or (H,h,w,3)  grey or RGB, newest last
    ====== ======= ======================= =====================================
    """

    @classmethod
    def fields_for(cls, config: TaskConfig) -> tuple[Field, ...]:
        """speed, gear, rpm, images."""
        history = config.img_hist_len
        channels = () if config.img_grayscale else (3,)
        shape = (history, config.img_height, config.img_width, *channels)
        return (
            SPEED,
            GEAR,
            RPM,
            Field("images", shape, "uint8", 0.0, 255.0, history, scale=255.0, offset=102.0, unit="grey or RGB level"),
        )

    @staticmethod
    def frames_of(game: Game) -> Callable[[], np.ndarray]:
        """Pictures."""
        return game.image

    def dials(self, telemetry: Telemetry) -> dict[str, np.ndarray]:
        """speed, gear, rpm."""
        return {"speed": observed_speed(telemetry), **observed_engine(telemetry)}


def observed_engine(telemetry: Telemetry) -> dict[str, np.ndarray]:
    """The fields ``gear`` and ``rpm``."""
    gear = min(max(telemetry.gear, 0.0), MAX_GEAR)
    return {"gear": np.array([gear], np.float32), "rpm": np.array([max(telemetry.rpm, 0.0)], np.float32)}
