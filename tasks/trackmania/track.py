"""TM20Track: driving from how the car moves and where the road goes, without pictures."""

from __future__ import annotations

from tasks.config import TaskConfig
from tasks.experience.observation import Field
from tasks.trackmania.dials import GEAR, RPM, SPEED
from tasks.trackmania.driving import DrivingInterface
from tasks.trackmania.road_ahead import AHEAD_FIELDS


class TrackInterface(DrivingInterface):
    """Observation, then the last actions (act_buf_len x [gas, brake, steer], oldest first).

    ================== ======= ======= ======================================================================
    field              dtype   shape   meaning
    ================== ======= ======= ======================================================================
    speed              float32 (1,)    [m/s], 0 to 1000
    gear               float32 (1,)    0 to 6
    rpm                float32 (1,)    engine speed [1/min]
    velocity           float32 (2,)    forward, to the right [m/s]
    yaw_rate           float32 (1,)    how fast the heading turns [rad/s], positive to the right
    path_ahead         float32 (20, 2) points of the reference path: forward, to the right of the car [m]
    left_border_ahead  float32 (20, 2) the left border of the road beside each of them, the same
    right_border_ahead float32 (20, 2) the right border
    ================== ======= ======= ======================================================================

    ``tasks.trackmania.road_ahead`` has the rest.
    """

    @classmethod
    def fields_for(cls, config: TaskConfig) -> tuple[Field, ...]:
        """speed, gear, rpm, and those of the road ahead."""
        del config
        return (SPEED, GEAR, RPM, *AHEAD_FIELDS)
