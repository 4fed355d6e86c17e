"""TM20Lidar: driving from the LIDAR, which is computed on the picture of the window."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tasks.config import TaskConfig
from tasks.experience.observation import Field
from tasks.game.lidar_sensor import NUM_BEAMS
from tasks.game.protocols import Game
from tasks.trackmania.dials import SPEED
from tasks.trackmania.driving import DrivingInterface

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

    @classmethod
    def fields_for(cls, config: TaskConfig) -> tuple[Field, ...]:
        """speed, lidar."""
        return (SPEED, lidar_field(config))

    @staticmethod
    def frames_of(game: Game) -> Callable[[], np.ndarray]:
        """Scans."""
        return game.lidar


def lidar_field(config: TaskConfig) -> Field:
    """The field ``lidar``; refuses windows for which it is not defined."""
    if (config.window_width, config.window_height) != WINDOW:
        raise ValueError(
            f"task.window_width x task.window_height must be {WINDOW[0]}x{WINDOW[1]} for LIDAR, "
            f"got {config.window_width}x{config.window_height}"
        )
    shape = (config.img_hist_len, NUM_BEAMS)
    return Field("lidar", shape, history=config.img_hist_len, scale=WINDOW[0] / 2.5, unit="px")
