"""TM20Full: driving from images of the window, with speed, gear and engine speed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tasks.config import TaskConfig
from tasks.experience.observation import Field
from tasks.game.protocols import Game
from tasks.trackmania.dials import GEAR, RPM, SPEED
from tasks.trackmania.driving import DrivingInterface


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
