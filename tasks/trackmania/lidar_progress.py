"""TM20LidarProgress: TM20Lidar with the progress along the track as an additional observation."""

from __future__ import annotations

from tasks.config import TaskConfig
from tasks.experience.observation import Field
from tasks.trackmania.dials import SPEED
from tasks.trackmania.lidar import LidarInterface, lidar_field


class LidarProgressInterface(LidarInterface):
    """Observation, then the last actions (act_buf_len x [gas, brake, steer], oldest first).

    ======== ======= ======== =====================================================
    field    dtype   shape    meaning
    ======== ======= ======== =====================================================
    speed    float32 (1,)     [m/s], 0 to 1000
    progress float32 (1,)     where the car is on the reference path, 0 to 1
    lidar    float32 (H, 19)  length of the road along each beam [px], newest last
    ======== ======= ======== =====================================================
    """

    @classmethod
    def fields_for(cls, config: TaskConfig) -> tuple[Field, ...]:
        """speed, progress, lidar."""
        return (SPEED, Field("progress", (1,), high=1.0, unit="share of the path"), lidar_field(config))
