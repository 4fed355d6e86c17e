"""TM20Lidar: driving from the LIDAR, which is computed on the picture of the window."""

from __future__ import annotations

import numpy as np

from tasks.config import TaskConfig
from tasks.experience.observation import Field
from tasks.game.clock import Clock
from tasks.game.lidar_sensor import NUM_BEAMS
from tasks.game.protocols import Game, Telemetry
from tasks.trackmania.driving import SPEED, DrivingInterface, observed_speed
from tasks.trackmania.frame_history import FrameHistory

WINDOW = (958, 488)
"""Size of the window for which the LIDAR is defined [px]."""


class LidarInterface(DrivingInterface):
    """Observation, then the last actions (act_buf_len x [gas, brake, steer], oldest first).

    ===== ======= ======== =====================================================
    field dtype   shape    meaning
    ===== ======= ======== =====================================================
    speed float32 (1,)     [m/s], 0 to 1000
    lidar float32 (H, 19)  length of the road along each beam [px], newest last
    ===== ======= ======== =====================================================
    """

    def __init__(self, game: Game, path: np.ndarray, config: TaskConfig, clock: Clock) -> None:
        """Builds the task over a game; arguments as in ``DrivingInterface``."""
        super().__init__(game, path, config, clock)
        self._scans = FrameHistory(config.img_hist_len, (NUM_BEAMS,), "float32")

    @classmethod
    def fields_for(cls, config: TaskConfig) -> tuple[Field, ...]:
        """speed, lidar."""
        return (SPEED, lidar_field(config))

    def first_observation(self, telemetry: Telemetry) -> list[np.ndarray]:
        """The history is the first scan, repeated."""
        return [observed_speed(telemetry), self._scans.fill(self.game.lidar())]

    def next_observation(self, telemetry: Telemetry) -> list[np.ndarray]:
        """Adds the newest scan."""
        return [observed_speed(telemetry), self._scans.append(self.game.lidar())]


def lidar_field(config: TaskConfig) -> Field:
    """The field ``lidar``; refuses windows for which it is not defined."""
    if (config.window_width, config.window_height) != WINDOW:
        raise ValueError(
            f"task.window_width x task.window_height must be {WINDOW[0]}x{WINDOW[1]} for LIDAR, "
            f"got {config.window_width}x{config.window_height}"
        )
    shape = (config.img_hist_len, NUM_BEAMS)
    return Field("lidar", shape, history=config.img_hist_len, scale=WINDOW[0] / 2.5)
