"""TM20Track: driving from how the car moves and where the road goes, without pictures."""

from __future__ import annotations

import numpy as np

from tasks.config import TaskConfig
from tasks.experience.observation import Field
from tasks.game.clock import Clock
from tasks.game.protocols import Game, Telemetry
from tasks.trackmania.driving import SPEED, DrivingInterface, observed_speed
from tasks.trackmania.full import GEAR, RPM, observed_engine
from tasks.trackmania.reference_path import resample, road_of_task
from tasks.trackmania.road_ahead import AHEAD_FIELDS, RoadAhead, road_along


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

    def __init__(self, game: Game, path: np.ndarray, config: TaskConfig, clock: Clock) -> None:
        """Builds the task over a game; arguments as of ``DrivingInterface``."""
        middle, self._width_m = road_of_task(config)
        self._ahead = RoadAhead(road_along(resample(np.asarray(path, np.float64)), middle, self._width_m))
        super().__init__(game, path, config, clock)

    @classmethod
    def fields_for(cls, config: TaskConfig) -> tuple[Field, ...]:
        """speed, gear, rpm, and those of the road ahead."""
        del config
        return (SPEED, GEAR, RPM, *AHEAD_FIELDS)

    def dials(self, telemetry: Telemetry) -> dict[str, np.ndarray]:
        """All fields."""
        return {
            "speed": observed_speed(telemetry),
            **observed_engine(telemetry),
            **self._ahead.observe(telemetry, self._reward.current_index),
        }

    def take_path(self, path: np.ndarray) -> None:
        """The middle of another road is followed."""
        super().take_path(path)
        self._ahead = RoadAhead(road_along(self._path, self._path, self._width_m))

    def _start_episode(self, telemetry: Telemetry | None) -> None:
        super()._start_episode(telemetry)
        self._ahead.begin()
