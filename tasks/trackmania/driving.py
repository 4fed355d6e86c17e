"""What the three TrackMania tasks share: the game behind them, controls, reward, statistics of an episode.

``full.py``, ``lidar.py`` and ``lidar_progress.py`` add their observations.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any, Self

import numpy as np

from tasks.clock import Clock
from tasks.config import ControlKind, GameKind, TaskConfig
from tasks.game_io.protocols import Game, GameFacts, Telemetry
from tasks.interface import TaskInterface
from tasks.observation import Field, ObservationSpec
from tasks.trackmania.reference_path import load_reference_path, path_length_m, resample
from tasks.trackmania.reward import ProgressReward

MAX_SPEED_MPS = 1000.0
_STEER_THRESHOLD = 0.5
"""Keyboard: steer beyond this presses an arrow."""
_MIN_EPISODE_STEPS = 1000
_SLOWEST_LAP_MPS = 8.0
"""ep_max_length auto: a lap at this mean speed is not truncated [m/s]."""

SPEED = Field("speed", (1,), high=MAX_SPEED_MPS, scale=55.6)
"""[m/s]; the scale is 200 km/h."""


class DrivingInterface(TaskInterface):
    """A car on a track in a ``Game``: everything but the observation.

    Actions are [gas, brake, steer] in [-1, 1]; gas and brake act when positive, steer is positive to the right. With
    ``control=keyboard`` they press binary arrows: gas > 0, brake > 0, steer beyond +-0.5.

    An episode terminates at the finish and as ``ProgressReward`` says. Every step info holds ``progress`` (covered
    fraction of the path), ``x``, ``z`` [m] and ``speed_mps``.
    """

    def __init__(self, game: Game, path: np.ndarray, config: TaskConfig, clock: Clock) -> None:
        """Builds the task over a game.

        Args:
            game: The game; closed with the task.
            path: Reference path [m], shape (N, 3), any spacing.
            config: The task.
            clock: The clock of the game.
        """
        self.game = game
        self.observation_spec = self.spec_for(config)
        self._config = config
        self._clock = clock
        self._path = resample(np.asarray(path, np.float64))
        self._reward = ProgressReward(self._path, config.reward, config.rtgym.time_step_duration)
        self._is_keyboard = config.control is ControlKind.keyboard
        self._pause_s = config.sleep_time_at_reset if config.game is GameKind.live else 0.0
        self._start_episode(None)

    @classmethod
    def from_config(cls, config: TaskConfig, clock: Clock) -> Self:
        """Builds the task over the embedded simulator."""
        from tasks.sim.game import SimulatedGame
        from tasks.sim.track import load_track

        if config.game is not GameKind.sim:
            raise ValueError(f"task.game must be 'sim' here (the live game is not built yet), got {config.game.name!r}")
        cls.spec_for(config)
        track = load_track(config.track, config.track_width_m)
        path = track.centre_line if config.reward.path is None else load_reference_path(config.reward.path)
        return cls(SimulatedGame(clock, track, config), path, config, clock)

    @classmethod
    @abstractmethod
    def fields_for(cls, config: TaskConfig) -> tuple[Field, ...]:
        """The observation fields, without the actions."""

    @classmethod
    def spec_for(cls, config: TaskConfig) -> ObservationSpec:
        """The observation that ``config`` leads to."""
        return ObservationSpec(
            fields=cls.fields_for(config),
            action_size=3,
            act_buf_len=config.rtgym.act_buf_len if config.rtgym.act_in_obs else 0,
            reset_act_buf=config.rtgym.reset_act_buf,
        )

    @abstractmethod
    def first_observation(self, telemetry: Telemetry) -> list[np.ndarray]:
        """The observation at the start; histories are filled with its newest part."""

    @abstractmethod
    def next_observation(self, telemetry: Telemetry) -> list[np.ndarray]:
        """The observation after a step."""

    def send_control(self, control: np.ndarray | None) -> None:
        """Drives; None touches nothing."""
        if control is not None and self._is_keyboard:
            control = press_arrows(control)
        self.game.apply(control)

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[list[np.ndarray], dict[str, Any]]:
        """Puts the car back to the start."""
        del options
        self.send_control(self.get_default_action())
        self.game.restart(seed)
        if self._pause_s > 0.0:
            self._clock.sleep_until(self._clock.now() + self._pause_s)
        telemetry, _ = self.game.telemetry()
        self._start_episode(telemetry)
        return self.first_observation(telemetry), self._info(telemetry)

    def get_obs_rew_terminated_info(self) -> tuple[list[np.ndarray], float, bool, dict[str, Any]]:
        """Captures the newest telemetry and picture."""
        telemetry, _ = self.game.telemetry()
        facts = self.game.episode_facts()
        finished = self._finish_is_new(telemetry)
        reward, terminated = self._reward.step(telemetry.x, telemetry.y, telemetry.z, finished, facts.wall_impact_mps)
        self._record(telemetry, facts, reward, finished)
        return self.next_observation(telemetry), reward, terminated, self._info(telemetry)

    def wait(self) -> None:
        """Lets go of the controls."""
        self.send_control(self.get_default_action())

    def render(self) -> np.ndarray:
        """The chase view where the game has one, else the window; uint8 RGB, shape (h, w, 3)."""
        chase = getattr(self.game, "render_chase", None)
        if chase is not None:
            return chase(640, 360)
        return np.ascontiguousarray(self.game.frame()[:, :, 2::-1])

    def episode_statistics(self) -> dict[str, float]:
        """What the episode came to; see ``tasks.samples.EPISODE_STATISTICS``."""
        facts, steps = self._facts, max(self._steps, 1)
        return {
            "return": self._return,
            "length": float(self._steps),
            "finished": float(self._finished),
            "lap_time_s": self._lap_time_s(),
            "progress": self._reward.progress,
            "distance_m": self._distance_m,
            "max_speed_mps": self._max_speed,
            "mean_speed_mps": self._sum_speed / steps,
            "wall_contacts": float(facts.wall_contacts) if facts is not None else 0.0,
            "wall_impact_mps": float(facts.wall_impact_mps) if facts is not None else 0.0,
        }

    def default_episode_steps(self, time_step_s: float) -> int:
        """max(1000, path length / (8 m/s x time step))."""
        lap_steps = path_length_m(self._path) / (_SLOWEST_LAP_MPS * time_step_s)
        return max(_MIN_EPISODE_STEPS, math.ceil(lap_steps - 1e-9))

    def close(self) -> None:
        """Releases the game."""
        self.game.close()

    @property
    def path(self) -> np.ndarray:
        """The reference path [m], points 0.1 m apart, shape (N, 3)."""
        return self._path

    def _start_episode(self, telemetry: Telemetry | None) -> None:
        self._reward.reset()
        self._facts: GameFacts | None = None
        self._steps = 0
        self._return = 0.0
        self._finished = False
        self._max_speed = 0.0
        self._sum_speed = 0.0
        self._distance_m = 0.0
        self._started_at = self._clock.now()
        self._start_distance = telemetry.distance if telemetry is not None else 0.0
        # The flag is a level that outlives a restart of the live game: it counts once it has been 0.
        self._finish_armed = telemetry is not None and telemetry.finished == 0.0
        self._finished_at = math.nan

    def _finish_is_new(self, telemetry: Telemetry) -> bool:
        if telemetry.finished == 0.0:
            self._finish_armed = True
            return False
        return self._finish_armed

    def _record(self, telemetry: Telemetry, facts: GameFacts, reward: float, finished: bool) -> None:
        speed = abs(telemetry.speed)
        self._steps += 1
        self._return += reward
        self._sum_speed += speed
        self._max_speed = max(self._max_speed, speed)
        self._distance_m = telemetry.distance - self._start_distance
        self._facts = facts
        if finished and not self._finished:
            self._finished = True
            self._finished_at = self._clock.now()

    def _lap_time_s(self) -> float:
        """Interpolated by the game where it can, else by the clock; NaN unless finished."""
        if not self._finished or self._facts is None:
            return math.nan
        known = float(self._facts.finish_time_s)
        return self._finished_at - self._started_at if math.isnan(known) else known

    def _info(self, telemetry: Telemetry) -> dict[str, Any]:
        return {
            "progress": self._reward.progress,
            "x": telemetry.x,
            "z": telemetry.z,
            "speed_mps": telemetry.speed,
        }


def press_arrows(action: np.ndarray) -> np.ndarray:
    """The binary control that TMRL's keyboard makes of an analog action.

    Args:
        action: [gas, brake, steer] in [-1, 1].

    Returns:
        Gas and brake 0 or 1, steer -1, 0 or 1.
    """
    gas, brake, steer = action
    right = float(steer > _STEER_THRESHOLD) - float(steer < -_STEER_THRESHOLD)
    return np.array([gas > 0.0, brake > 0.0, right], np.float32)


def observed_speed(telemetry: Telemetry) -> np.ndarray:
    """The field ``speed`` [m/s], shape (1,)."""
    return np.array([min(max(telemetry.speed, 0.0), MAX_SPEED_MPS)], np.float32)
