"""The embedded game: a car on a track behind the same protocol as the live game.

``tasks`` builds one per environment. The game is lazy: nothing runs between two calls, and every call first lets the
car catch up with the clock, tick by tick, so one class serves the virtual and the wall clock.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tasks.config import TaskConfig
from tasks.game.clock import Clock
from tasks.game.protocols import GameFacts, Telemetry
from tasks.sim import vehicle
from tasks.sim.cars import NOTHING_DRAWN, Cars
from tasks.sim.chase_view import ChaseCar, ChaseView, render_chase
from tasks.sim.track import Track
from tasks.sim.vehicle import VehicleConstants


class CarState(NamedTuple):
    """The car at the newest tick, as only a simulator knows it; frame as in ``tasks.sim.vehicle``."""

    time_s: float
    """Race time [s]."""
    x: float
    """[m]"""
    z: float
    """[m]"""
    yaw: float
    """Heading [rad], 0 along +z, growing to the right."""
    forward_mps: float
    """Speed along the heading [m/s]."""
    sideways_mps: float
    """Speed to the right of the heading [m/s]."""
    yaw_rate: float
    """[rad/s]"""
    steer: float
    """Position of the steering wheel, -1 to 1."""
    gear: int
    rpm: float
    distance_m: float
    """Driven since the start [m]."""
    finish_time_s: float
    """Race time at the finish line; NaN before."""
    is_touching_wall: bool
    off_road: float
    """How far the body stands over the border, 0 to 1."""


class SimulatedGame:
    """One car on one track at the time of one clock; implements ``tasks.game.protocols.Game``.

    Telemetry is that of the newest 60 Hz frame boundary. The picture on the screen is one frame older (presentation).
    Controls act from the current 10 ms tick on, later by the episode's input delay. An episode is a pure function of
    its seed and of the times at which it is controlled and read.
    """

    def __init__(
        self,
        clock: Clock,
        track: Track,
        config: TaskConfig,
        constants: VehicleConstants | None = None,
        track_of_episode: Callable[[int | None], Track] | None = None,
    ) -> None:
        """Puts the car to the start, at the clock's present time, with nothing drawn.

        Args:
            clock: What tells the time.
            track: The road, until the first restart where each episode has its own.
            config: Window, image, car and randomization are read from it.
            constants: Another car than that of ``config``.
            track_of_episode: The road of an episode, from its seed; None: ``track`` for all.
        """
        self.draw = NOTHING_DRAWN
        self._clock = clock
        self._track_of_episode = track_of_episode
        self._rng = np.random.default_rng()
        cars = self._cars = Cars(track, config, 1, constants)
        self._camera = cars.camera
        self._memory, self._constants, self._record = cars.memory[0], cars.constants[0], cars.records[0]
        self._screen_pose = cars.screen_poses[0]
        self._take_track(track)
        self._start()

    def telemetry(self) -> tuple[Telemetry, float]:
        """Record of the newest frame and its age [s]."""
        age = self._catch_up()
        return Telemetry._make(self._record.tolist()), age

    def frame(self) -> NDArray[np.uint8]:
        """What the screen shows, BGRA, shape (window_height, window_width, 4)."""
        self._catch_up()
        return self._camera.frame(self._screen_pose, self._grids)

    def image(self) -> NDArray[np.uint8]:
        """The observed picture: equals cv2.resize of ``frame`` and grey, shape (h, w), or (h, w, 3) RGB."""
        self._catch_up()
        return self._camera.image(self._screen_pose, self._grids)

    def lidar(self) -> NDArray[np.float32]:
        """TMRL's LIDAR of ``frame`` [px], shape (19,)."""
        self._catch_up()
        return self._camera.lidar(self._screen_pose, self._grids)

    def apply(self, control: np.ndarray | None) -> None:
        """Sends [gas, brake, steer], each in [-1, 1]; None touches nothing."""
        if control is None:
            return
        gas, brake, steer = (float(value) for value in control)
        if not math.isfinite(gas + brake + steer):
            raise ValueError(f"control must be three finite numbers [gas, brake, steer], got {control!r}")
        now = self._clock.now() - self._restarted_at
        vehicle.send(self._memory, now, gas, brake, steer, self._constants, *self._walls)

    def restart(self, seed: int | None = None, from_start: bool = False) -> None:
        """Puts the car back to the start, or on its way where ``randomization.rolling_starts`` says so; race time 0.

        Args:
            seed: Everything the episode draws follows from it; None continues an unseeded generator.
            from_start: Whether it begins at the start in any case.
        """
        if self._track_of_episode is not None:
            self._take_track(self._track_of_episode(seed))
        rng = self._rng if seed is None else np.random.default_rng(seed)
        draw = self._cars.draw(rng)
        self.draw = draw._replace(rolling=None) if from_start else draw
        self._start()

    def rest(self, save_replay: bool) -> None:
        """Nothing happens between episodes: the next restart puts everything right, and there is no ghost to save."""
        del save_replay

    def episode_facts(self) -> GameFacts:
        """Facts since the restart, at the newest tick."""
        self._catch_up()
        memory = self._memory
        return GameFacts(
            float(memory[vehicle.FINISH_TIME]),
            int(memory[vehicle.CONTACTS]),
            float(memory[vehicle.IMPACT]),
            float(memory[vehicle.YAW]),
            float(self._cars.started_at_m[0]),
        )

    def state(self) -> CarState:
        """The car at the newest tick."""
        self._catch_up()
        m = self._memory[: vehicle.RECORD].tolist()
        return CarState(
            m[vehicle.TICK] * vehicle.TICK_S,
            m[vehicle.X],
            m[vehicle.Z],
            m[vehicle.YAW],
            m[vehicle.SPEED_LONG],
            m[vehicle.SPEED_LAT],
            m[vehicle.YAW_RATE],
            m[vehicle.STEER],
            int(m[vehicle.GEAR]),
            m[vehicle.RPM],
            m[vehicle.DISTANCE],
            m[vehicle.FINISH_TIME],
            m[vehicle.SINCE_CONTACT] == 0.0,
            m[vehicle.OFF_ROAD],
        )

    def render_chase(self, width: int = 640, height: int = 360) -> NDArray[np.uint8]:
        """The car from behind, for people: RGB, shape (height, width, 3)."""
        return render_chase(self.chase_car(), self._grids, width, height)

    def chase_view(self) -> ChaseView:
        """What draws a car on the present track, also later, without a dashboard."""
        grids = self._grids
        return lambda car, width, height: render_chase(car, grids, width, height, has_dashboard=False)

    def chase_car(self) -> ChaseCar:
        """What a view shows of the car at the newest tick."""
        state, memory = self.state(), self._memory
        gas, brake = float(memory[vehicle.GAS_IN]), float(memory[vehicle.BRAKE_IN])
        speed = math.hypot(state.forward_mps, state.sideways_mps)
        return ChaseCar(
            state.x, state.z, state.yaw, state.yaw_rate, state.steer, gas, brake, speed, state.gear, state.time_s
        )

    def close(self) -> None:
        """Does nothing: there is nothing to release."""

    def _catch_up(self) -> float:
        """Lets the car reach the present; returns the age of the newest frame [s]."""
        now = self._clock.now() - self._restarted_at
        return vehicle.advance(self._memory, now, self._constants, *self._walls)

    def _take_track(self, track: Track) -> None:
        self.track, self._grids = track, track.grids
        self._walls = (self._grids.place, self._grids.index, self._grids.field)
        self._cars.put_on(track, 0)

    def _start(self) -> None:
        self._restarted_at = self._clock.now()
        self._cars.restart(0, self.draw, self._restarted_at)
