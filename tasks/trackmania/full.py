"""TM20Full: driving from images of the window, with speed, gear and engine speed."""

from __future__ import annotations

import numpy as np

from tasks.config import TaskConfig
from tasks.experience.observation import Field
from tasks.game.clock import Clock
from tasks.game.protocols import Game, Telemetry
from tasks.trackmania.driving import SPEED, DrivingInterface, observed_speed
from tasks.trackmania.frame_history import FrameHistory

MAX_GEAR = 6.0


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

    def __init__(self, game: Game, path: np.ndarray, config: TaskConfig, clock: Clock) -> None:
        """Builds the task over a game; arguments as in ``DrivingInterface``."""
        super().__init__(game, path, config, clock)
        images = self.observation_spec.fields[3]
        self._images = FrameHistory(images.history, images.frame_shape, images.dtype)

    @classmethod
    def fields_for(cls, config: TaskConfig) -> tuple[Field, ...]:
        """speed, gear, rpm, images."""
        history = config.img_hist_len
        channels = () if config.img_grayscale else (3,)
        shape = (history, config.img_height, config.img_width, *channels)
        return (
            SPEED,
            Field("gear", (1,), high=MAX_GEAR, scale=5.0),
            Field("rpm", (1,), scale=11000.0),
            Field("images", shape, "uint8", 0.0, 255.0, history, scale=255.0, offset=102.0),
        )

    def first_observation(self, telemetry: Telemetry) -> list[np.ndarray]:
        """The history is the first picture, repeated."""
        return [*self._dials(telemetry), self._images.fill(self.game.image())]

    def next_observation(self, telemetry: Telemetry) -> list[np.ndarray]:
        """Adds the newest picture."""
        return [*self._dials(telemetry), self._images.append(self.game.image())]

    @staticmethod
    def _dials(telemetry: Telemetry) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        gear = min(max(telemetry.gear, 0.0), MAX_GEAR)
        rpm = max(telemetry.rpm, 0.0)
        return observed_speed(telemetry), np.array([gear], np.float32), np.array([rpm], np.float32)
