"""Cars, each on its track, in its own episode and at its own time: their memory, their starts, their moves and views.

``tasks.sim.game`` is one of them behind the protocol of a game; ``tasks.trackmania.fleet`` steps many in one call. The
kernels for many cars run those for one (``tasks.sim.vehicle``, ``tasks.sim.camera``) on all cores, so a car drives
and sees the same whatever stands beside it.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tasks.config import RandomizationConfig, TaskConfig
from tasks.sim import vehicle
from tasks.sim.camera import FrontCamera
from tasks.sim.car_roads import CarRoads
from tasks.sim.rolling_start import EpisodeStart, RollingDraw, rolling_starts
from tasks.sim.track import Track
from tasks.sim.vehicle import FloatArray, VehicleConstants, VehicleFactors
from tasks.sim.vehicle_files import load_vehicle


class EpisodeDraw(NamedTuple):
    """What an episode drew from its seed."""

    frame_phase_s: float
    """Time of the first frame boundary after the restart [s]."""
    input_delay_ticks: int
    """Delay of the controls [ticks]."""
    along_m: float
    """Start position along the road, relative to the start of the centre line [m]."""
    across_m: float
    """Start position to the right of the centre line [m]."""
    yaw: float
    """Start heading relative to the road [rad]."""
    vehicle: VehicleFactors = VehicleFactors()
    """How this episode's car differs from the task's."""
    rolling: RollingDraw | None = None
    """It begins on the way, in motion; None: at the start."""


NOTHING_DRAWN = EpisodeDraw(0.0, 0, 0.0, 0.0, 0.0)


class Cars:
    """N cars; arrays have a row for each.

    Args:
        track: The road of all, until ``put_on`` gives one of them another.
        config: Window, image, car and randomization are read from it.
        count: N.
        car: Another car than that of ``config``.
    """

    def __init__(self, track: Track, config: TaskConfig, count: int, car: VehicleConstants | None = None) -> None:
        self.tracks = [track] * count
        """On which each of them drives."""
        self.roads = CarRoads(track.grids, count)
        """The same for the kernels."""
        self.camera = FrontCamera(
            (config.window_width, config.window_height), (config.img_width, config.img_height), config.img_grayscale
        )
        self.memory = np.stack([vehicle.new_memory()] * count)
        """Layout in ``tasks.sim.vehicle``."""
        self.records = self.memory[:, vehicle.RECORD : vehicle.RECORD + vehicle.RECORD_SIZE]
        """Telemetry of the newest frame, in the order of ``tasks.game.protocols.Telemetry``."""
        self.screen_poses = self.memory[:, vehicle.SCREEN_POSE : vehicle.SCREEN_POSE + 3]
        """Pose (x, z, yaw) of the picture on the screen."""
        self._car = car or load_vehicle(config.vehicle)
        self.constants = np.stack([self._car.vector()] * count)
        """Of this episode's car."""
        self.started_at_m = np.zeros(count)
        """How far along its road each episode began [m]; 0: at the start."""
        self._restarted_at = np.zeros(count)
        self._randomization = config.randomization

    def draw(self, rng: np.random.Generator) -> EpisodeDraw:
        """What an episode draws, in a fixed order, whatever the ranges, so that none changes another's draw."""
        return _draw_episode(self._randomization, rng)

    def put_on(self, track: Track, car: int) -> None:
        """Gives a car another track; ``restart`` puts it there."""
        self.tracks[car] = track
        self.roads.put(car, track.grids)

    def restart(self, car: int, draw: EpisodeDraw, now_s: float) -> None:
        """Puts a car to its start, at race time 0 now."""
        track, memory, constants = self.tracks[car], self.memory[car], self.constants[car]
        start = self._start(car, draw)
        constants[:] = self._car.scaled(draw.vehicle).vector()
        self._restarted_at[car] = now_s
        self.started_at_m[car] = start.along_m
        phase, delay = draw.frame_phase_s, draw.input_delay_ticks
        pose = start.x, track.height_m, start.z, start.yaw
        motion = start.speed_mps, start.along_m, start.sideways_mps
        vehicle.reset_memory(memory, *pose, phase, delay, constants, *motion)
        vehicle.advance(memory, 0.0, constants, track.grids.place, track.grids.index, track.grids.field)

    def advance(self, now_s: FloatArray) -> None:
        """Lets each car reach its present, shape (N,)."""
        vehicle.advance_all(self.memory, now_s - self._restarted_at, self.constants, *self._walls())

    def send(self, now_s: FloatArray, controls: FloatArray, is_sent: NDArray[np.bool_]) -> None:
        """Lets them reach it, and sends [gas, brake, steer], shape (N, 3), to those that ``is_sent`` tells."""
        now_s = now_s - self._restarted_at
        vehicle.send_all(self.memory, now_s, controls, is_sent, self.constants, *self._walls())

    def _start(self, car: int, draw: EpisodeDraw) -> EpisodeStart:
        """Where and how fast an episode begins: at rest behind the start line, or on the way."""
        track = self.tracks[car]
        if draw.rolling is not None:
            return rolling_starts(track, self._car).start(draw.rolling)
        yaw = track.start_yaw
        x, z = track.start_position
        x += draw.along_m * math.sin(yaw) + draw.across_m * math.cos(yaw)
        z += draw.along_m * math.cos(yaw) - draw.across_m * math.sin(yaw)
        return EpisodeStart(x, z, yaw + draw.yaw, 0.0, 0.0)

    def _walls(self) -> tuple[FloatArray, NDArray[np.int32], NDArray[np.float32]]:
        """What the kernels of all cars look up, in their order."""
        return self.roads.places, self.roads.index, self.roads.field


def _draw_episode(config: RandomizationConfig, rng: np.random.Generator) -> EpisodeDraw:
    phase, along, across, yaw = rng.random(4)
    low, high = config.input_delay_ticks
    delay = int(rng.integers(low, high + 1))
    offset, angle = config.start_offset_m, math.radians(config.start_yaw_deg)
    percent = config.vehicle
    ranges = (
        percent.acceleration_percent,
        percent.grip_percent,
        percent.steering_gain_percent,
        percent.steering_delay_percent,
    )
    factors = 1.0 + np.array(ranges) / 100.0 * (2.0 * rng.random(4) - 1.0)
    is_rolling = rng.random() < config.rolling_starts
    rolling = RollingDraw(*rng.random(5).tolist())
    return EpisodeDraw(
        float(phase) * vehicle.FRAME_S if config.frame_phase else 0.0,
        delay,
        float(2 * along - 1) * offset,
        float(2 * across - 1) * offset,
        float(2 * yaw - 1) * angle,
        VehicleFactors(*factors.tolist()),
        rolling if is_rolling else None,
    )
