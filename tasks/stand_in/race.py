"""The car and the rules around it that the simulator lacks: the finish screen, and records of what is rendered.

``game.py`` owns one ``Race``. The car is ``tasks.sim.game.SimulatedGame`` on the wall clock: 100 ticks per second,
whatever the frame rate.
"""

from __future__ import annotations

import math

import numpy as np

from tasks.config import GameKind, RandomizationConfig, TaskConfig
from tasks.game.clock import Clock
from tasks.game.protocols import Telemetry
from tasks.sim.game import CarState, SimulatedGame
from tasks.sim.track import Track
from tasks.stand_in.inputs import Controls


class Race:
    """One car on one track. Each restart is the same: the car stands exactly at the start."""

    def __init__(self, track: Track, clock: Clock, vehicle: str | None = None) -> None:
        """Puts the car to the start.

        Args:
            track: The road.
            clock: Source of the time.
            vehicle: Another car, as ``task.vehicle`` takes it; None: the game's.

        Raises:
            ValueError: There is no such car.
        """
        self.track = track
        config = TaskConfig(game=GameKind.sim, vehicle=vehicle, randomization=_nothing_random())
        self._game = SimulatedGame(clock, track, config)
        self._controls = Controls()
        self._is_closed = False
        self.state = self._game.state()
        """The car at the newest frame."""
        self.num_restarts = 0
        """So far."""

    def restart(self) -> None:
        """Puts the car to the start; the finish screen goes."""
        self._game.restart(0)
        self._controls = Controls()
        self._is_closed = False
        self.state = self._game.state()
        self.num_restarts += 1

    def step(self, controls: Controls) -> CarState:
        """Drives from now on; with the finish screen on, the car rolls out. Returns the car of this frame."""
        self._controls = Controls() if self.shows_finish_screen else controls
        self._game.apply(np.array(self._controls, np.float64))
        self.state = self._game.state()
        return self.state

    def close_finish_screen(self) -> bool:
        """Leaves the finish screen; returns whether there was one."""
        was_there = self.shows_finish_screen
        self._is_closed = self._is_closed or was_there
        return was_there

    @property
    def shows_finish_screen(self) -> bool:
        """Whether the car has finished and neither the screen was closed nor the race restarted."""
        return not math.isnan(self.state.finish_time_s) and not self._is_closed

    @property
    def controls(self) -> Controls:
        """The current controls."""
        return self._controls

    @property
    def num_wall_contacts(self) -> int:
        """Since the restart."""
        return self._game.episode_facts().wall_contacts

    def telemetry(self) -> Telemetry:
        """The record of this frame, in the game's frame: x to the left of z."""
        state, controls = self.state, self._controls
        sine, cosine = math.sin(state.yaw), math.cos(state.yaw)
        telemetry = Telemetry(
            speed=math.hypot(state.forward_mps, state.sideways_mps),
            distance=state.distance_m,
            x=state.x,
            y=self.track.height_m,
            z=state.z,
            steer=controls.steer,
            gas=controls.gas,
            is_braking=float(controls.brake > 0.0),
            finished=float(self.shows_finish_screen),
            gear=float(state.gear),
            rpm=state.rpm,
            velocity_x=state.forward_mps * sine + state.sideways_mps * cosine,
            velocity_z=state.forward_mps * cosine - state.sideways_mps * sine,
            yaw=math.remainder(state.yaw, 2.0 * math.pi),
        )
        return telemetry.mirrored()


def _nothing_random() -> RandomizationConfig:
    return RandomizationConfig(
        frame_phase=False, capture_jitter_s=0.0, input_delay_ticks=[0, 0], start_offset_m=0.0, start_yaw_deg=0.0
    )
