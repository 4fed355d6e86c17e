"""Shared code of the TrackMania tasks: their game, controls, reward, statistics of an episode.

``full.py``, ``lidar.py``, ``lidar_progress.py`` and ``track.py`` add their observations.
"""

from __future__ import annotations

import contextlib
import logging
import math
import threading
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from tasks.config import ControlKind, GameKind, TaskConfig
from tasks.envs.interface import FROM_START_OPTION, TRUNCATED_KEY, TaskInterface
from tasks.experience.observation import Field, Info, ObservationSpec
from tasks.game.arrow_keys import press_arrows
from tasks.game.clock import Clock
from tasks.game.errors import GameError, GameSetupError
from tasks.game.protocols import Game, GameFacts, Telemetry
from tasks.trackmania.dials import GEAR, RPM, SPEED, read_dials
from tasks.trackmania.frame_history import FrameHistory
from tasks.trackmania.lost_game import GameWait
from tasks.trackmania.reference_path import path_length_m, path_of_task, path_on_track, resample, road_of_task
from tasks.trackmania.reward import ProgressReward
from tasks.trackmania.road_ahead import AHEAD_FIELDS, RoadAhead, road_along

if TYPE_CHECKING:
    from tasks.sim.chase_view import ChaseCar, ChaseView
    from tasks.sim.track import Track

_MIN_EPISODE_STEPS = 1000
_SLOWEST_LAP_MPS = 8.0
"""ep_max_length auto: a lap at this mean speed is not truncated [m/s]."""
TRACK_KEY = "track"
"""In the info of a task whose episodes have tracks of their own: the name of this one's."""
GAME_LOST_KEY = "game_lost"
"""In the info of the step at which a live game was lost: what was found and what to do."""
ANYWHERE_OPTION = "anywhere"
"""Option of reset(): the live car may stand far from where the reference path begins."""
_FAR_FROM_START_M = 50.0
"""A live car that stands farther from the beginning of the reference path is on another map [m]."""

_logger = logging.getLogger(__name__)

PRIVILEGED_FIELDS = tuple(replace(field, privileged=True) for field in (SPEED, GEAR, RPM, *AHEAD_FIELDS))
"""What TM20Track sees; with ``task.privileged`` those of them that a task lacks."""


class DrivingInterface(TaskInterface):
    """A car on a track in a ``Game``: everything but the observation.

    Actions are [gas, brake, steer] in [-1, 1]; gas and brake act when positive, steer is positive to the right. With
    ``control=keyboard`` they press binary arrows: gas > 0, brake > 0, steer beyond +-0.5.

    An episode terminates at the finish and as ``ProgressReward`` says. Every step info holds ``progress`` (covered
    fraction of the path), ``x``, ``z`` [m], ``speed_mps`` and ``race_time_s``, by the clock; with ``task.track=random``
    also ``track``, the name of the episode's track.

    A live game may be lost in mid-episode (closed, minimised, in a menu, ...): that step sees once more what was seen
    last, brings no reward, and has ``truncated`` (True) and ``game_lost`` (what was found, what to do) in its info. The
    next reset() waits for the game.

    The lap time is the simulator's own; in the live game it runs by our clock from the first observation, after
    ``sleep_time_at_reset``, to the capture that shows the finish, so its resolution is a time step.

    With ``task.privileged`` the fields of TM20Track (``tasks.trackmania.track``) that the task lacks follow its own,
    before the actions. Only a critic sees them.
    """

    action_meaning = ("gas where above 0", "brake where above 0", "steer, positive to the right")

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
        self._track_of_game: Callable[[], Track] | None = None
        """Where each episode has a track of its own: that of the present one."""
        self._path = resample(np.asarray(path, np.float64))
        self._longest_m = path_length_m(self._path)
        self._reward = ProgressReward(self._path, config.reward, config.rtgym.time_step_duration)
        self._histories = {
            field.name: FrameHistory(field.history, field.frame_shape, field.dtype)
            for field in self.observation_spec.fields
            if field.history
        }
        self._ahead: RoadAhead | None = None
        if AHEAD_FIELDS[0].name in self.observation_spec.names:
            middle, self._width_m = road_of_task(config)
            self._ahead = RoadAhead(road_along(self._path, middle, self._width_m), config.look_ahead_exponent)
        self._is_keyboard = config.control is ControlKind.keyboard
        self._is_live = config.game is GameKind.live
        self._stop = threading.Event()
        self._send_error: GameError | None = None
        self.game_error: GameError | None = None
        """What the last episode was lost with; None when it was not lost."""
        self._last_observation: list[np.ndarray] = []
        self._last_info: dict[str, Any] = {}
        self._start_episode(None)

    @classmethod
    def from_config(cls, config: TaskConfig, clock: Clock) -> Self:
        """Builds the task over the embedded simulator or the live game, as ``task.game`` says; opens no game yet."""
        cls.spec_for(config)
        if config.game is GameKind.live:
            from tasks.live.live_game import make_live_game

            path = path_of_task(config)
            return cls(make_live_game(config, clock, path[0]), path, config, clock)
        if config.game is not GameKind.sim:
            raise ValueError(f"task.game must be 'sim' or 'live' here, got {config.game.name!r}")
        from tasks.sim.game import SimulatedGame
        from tasks.sim.random_tracks import tracks_of_episodes

        tracks = tracks_of_episodes(config)
        game = SimulatedGame(clock, tracks.first, config, track_of_episode=tracks.of_episode)
        task = cls(game, path_on_track(tracks.first.centre_line, config), config, clock)
        if tracks.of_episode is not None:
            task._track_of_game, task._longest_m = lambda: game.track, tracks.longest_m
        return task

    @classmethod
    @abstractmethod
    def fields_for(cls, config: TaskConfig) -> tuple[Field, ...]:
        """The observation fields, without the privileged ones and the actions.

        One may have a history, of ``frames_of``. The others are some of ``speed``, ``gear``, ``rpm``, ``progress`` and
        ``AHEAD_FIELDS``.
        """

    @classmethod
    def spec_for(cls, config: TaskConfig) -> ObservationSpec:
        """The observation that ``config`` leads to."""
        visible = cls.fields_for(config)
        known = {field.name for field in visible}
        return ObservationSpec(
            fields=(*visible, *(field for field in PRIVILEGED_FIELDS if config.privileged and field.name not in known)),
            action_size=3,
            act_buf_len=config.rtgym.act_buf_len if config.rtgym.act_in_obs else 0,
            reset_act_buf=config.rtgym.reset_act_buf,
        )

    @staticmethod
    def frames_of(game: Game) -> Callable[[], np.ndarray]:
        """The game's method for the newest frame of the field with the history; a task without one needs none."""
        return game.frame

    def send_control(self, control: np.ndarray | None) -> None:
        """Drives; None touches nothing. When the game cannot be driven, the next capture says so."""
        if control is not None and self._is_keyboard:
            control = press_arrows(control)
        try:
            self.game.apply(control)
        except GameSetupError:
            raise
        except GameError as error:
            self._send_error = error

    def reset(self, seed: int | None = None, options: Info | None = None) -> tuple[list[np.ndarray], Info]:
        """Puts the car back to the start; waits for a live game that is lost, up to ``task.live.wait_for_game_s``.

        Args:
            seed: Of the episode.
            options: With ``anywhere: True`` a live car may stand far from the start, as while a person drives; with
                ``from_start: True`` no simulated one begins on the way (``randomization.rolling_starts``).

        Raises:
            GameError: The game did not come back.
            Interrupted: ``interrupt`` was called while it was waited for.
            GameSetupError: The live car is far from where the reference path begins.
        """
        options = options or {}
        try:
            telemetry = self._begin(seed, bool(options.get(ANYWHERE_OPTION)), bool(options.get(FROM_START_OPTION)))
        finally:
            self.is_waiting = False
        self.game_error = None
        self._last_info = self._info(telemetry)
        return self._last_observation, dict(self._last_info)

    def _begin(self, seed: int | None, is_anywhere: bool, from_start: bool) -> Telemetry:
        """Begins an episode, however often that has to be tried; returns its first record."""
        wait = GameWait(self._config.live.wait_for_game_s, self._stop)
        while True:
            try:
                telemetry = self._restart(seed, is_anywhere, from_start)
                self._start_episode(telemetry)
                self._last_observation = self._observe(telemetry, FrameHistory.fill)
                break
            except GameSetupError:
                raise
            except GameError as error:
                self.is_waiting = True
                wait.after(error)
        wait.is_over()
        return telemetry

    def get_obs_rew_terminated_info(self) -> tuple[list[np.ndarray], float, bool, Info]:
        """Captures the newest telemetry and picture."""
        try:
            if self._send_error is not None:
                raise self._send_error
            telemetry, _ = self.game.telemetry()
            facts = self.game.episode_facts()
            finished = self._finish_is_new(telemetry)
            place = (telemetry.x, telemetry.y, telemetry.z)
            reward, terminated = self._reward.step(*place, finished, facts.wall_impact_mps)
            observation = self._observe(telemetry, FrameHistory.append)
        except GameSetupError:
            raise
        except GameError as error:
            return self._lost(error)
        self._record(telemetry, facts, reward, finished)
        self._last_observation, self._last_info = observation, self._info(telemetry)
        return observation, reward, terminated, dict(self._last_info)

    def wait(self) -> None:
        """Pauses between episodes: releases the controls, and calls ``Game.rest`` of a live game."""
        self.send_control(self.get_default_action())
        try:
            self.game.rest(self._config.save_replays)
        except GameSetupError:
            raise
        except GameError as error:
            # The next reset waits for the game and says what is wrong with it.
            _logger.debug("no pause between episodes: %s", error)

    def interrupt(self) -> None:
        """Ends a reset() that waits for a lost game, from any thread."""
        self._stop.set()

    def render(self) -> np.ndarray | None:
        """The chase view where the game has one, else the window; uint8 RGB, shape (h, w, 3). None: it is lost."""
        chase = getattr(self.game, "render_chase", None)
        if chase is not None:
            return chase(640, 360)
        try:
            return np.ascontiguousarray(self.game.frame()[:, :, 2::-1])
        except GameError:
            return None

    def chase_view(self) -> ChaseView | None:
        """What draws the car on the present track, also later; None: only the game's window shows it."""
        view: Callable[[], ChaseView] | None = getattr(self.game, "chase_view", None)
        return None if view is None else view()

    def chase_car(self) -> ChaseCar:
        """What a film shows of the car now; of the live game what telemetry says.

        Raises:
            GameError: The game is lost.
        """
        from tasks.sim.chase_view import ChaseCar

        known: Callable[[], ChaseCar] | None = getattr(self.game, "chase_car", None)
        if known is not None:
            return known()
        car, _ = self.game.telemetry()
        time_s = self._clock.now() - self._started_at
        controls = (car.steer, car.gas, car.is_braking)
        return ChaseCar(car.x, car.z, 0.0, 0.0, *controls, abs(car.speed), int(car.gear), time_s)

    def episode_statistics(self) -> dict[str, float]:
        """What the episode came to; see ``tasks.experience.samples.EPISODE_STATISTICS``."""
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
            "started_at_m": float(facts.started_at_m) if facts is not None else 0.0,
        }

    def default_episode_steps(self, time_step_s: float) -> int:
        """max(1000, path length / (8 m/s x time step)); of the longest path that an episode may have."""
        return default_episode_steps(self._longest_m, time_step_s)

    def close(self) -> None:
        """Releases the game; a reset() that waits for it ends."""
        self.interrupt()
        self.game.close()

    @property
    def path(self) -> np.ndarray:
        """The reference path [m], points 0.1 m apart, shape (N, 3)."""
        return self._path

    def _restart(self, seed: int | None, is_anywhere: bool, from_start: bool) -> Telemetry:
        """One attempt to put the car to the start; returns the record of the first observation."""
        self.send_control(self.get_default_action())
        self.game.restart(seed, from_start)
        if self._track_of_game is not None:
            self.take_path(self._track_of_game().centre_line)
        self._send_error = None
        if self._is_live:
            telemetry, _ = self.game.telemetry()
            if not is_anywhere:
                self._require_start(telemetry)
            self._observe(telemetry, FrameHistory.fill)  # modules loaded at first use are loaded before timing matters
            self._clock.sleep_until(self._clock.now() + self._config.sleep_time_at_reset)
        telemetry, _ = self.game.telemetry()
        return telemetry

    def take_path(self, path: np.ndarray) -> None:
        """Follows another path, the middle of another road, from the episode that begins on.

        Args:
            path: Reference path [m], shape (N, 3), any spacing.
        """
        self._path = resample(np.asarray(path, np.float64))
        self._reward.put_on(self._path)
        if self._ahead is not None:
            self._ahead = RoadAhead(road_along(self._path, self._path, self._width_m), self._config.look_ahead_exponent)

    def _require_start(self, telemetry: Telemetry) -> None:
        """Refuses a reference path that belongs to another map."""
        car, start = np.array(telemetry[2:5]), self._path[0]
        distance = float(np.linalg.norm(car - start))
        if distance <= _FAR_FROM_START_M:
            return
        config = self._config
        key = f"task.track={config.track}" if config.reward.path is None else f"task.reward.path={config.reward.path}"
        raise GameSetupError(
            f"the car starts at {_place(car)}, but the reference path of {key} begins at {_place(start)}, "
            f"{distance:.0f} m away: it belongs to another map. Load its map in the game, or record a path on this one "
            "with train.py --record and set task.track to the path.npy that it writes"
        )

    def _lost(self, error: GameError) -> tuple[list[np.ndarray], float, bool, Info]:
        """The last step of an episode whose game is lost; nothing stays pressed."""
        with contextlib.suppress(GameError):
            self.game.apply(self.get_default_action())
        _logger.warning("the game is lost, so the episode ends: %s", error)
        self.game_error = error
        self._steps += 1
        info = {**self._last_info, TRUNCATED_KEY: True, GAME_LOST_KEY: str(error)}
        fields = zip(self.observation_spec.fields, self._last_observation, strict=True)
        return [_repeated(field, value) for field, value in fields], 0.0, False, info

    def _start_episode(self, telemetry: Telemetry | None) -> None:
        self._reward.reset()
        if telemetry is not None and self.game.episode_facts().started_at_m > 0.0:
            self._reward.begin_on_the_way(telemetry.x, telemetry.z)
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
        if self._ahead is not None:
            self._ahead.begin()

    def _observe(
        self, telemetry: Telemetry, stack: Callable[[FrameHistory, np.ndarray], np.ndarray]
    ) -> list[np.ndarray]:
        """All fields in their order; ``stack`` puts the newest frame into a history."""
        record = np.array(telemetry)
        known = {**read_dials(record), "progress": np.array([self._reward.observed_progress], np.float32)}
        if self._ahead is not None:
            known |= self._ahead.observe(record, self._reward.current_index)
        for name, history in self._histories.items():
            known[name] = stack(history, self.frames_of(self.game)())
        return [known[field.name] for field in self.observation_spec.fields]

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
        """Interpolated by the game where it can, else by the clock; NaN unless finished, from the start."""
        if not self._finished or self._facts is None or self._facts.started_at_m > 0.0:
            return math.nan
        known = float(self._facts.finish_time_s)
        return self._finished_at - self._started_at if math.isnan(known) else known

    def _info(self, telemetry: Telemetry) -> dict[str, Any]:
        info = {
            "progress": self._reward.progress,
            "x": telemetry.x,
            "z": telemetry.z,
            "speed_mps": telemetry.speed,
            "race_time_s": round(self._clock.now() - self._started_at, 6),
        }
        return info if self._track_of_game is None else {**info, TRACK_KEY: self._track_of_game().name}


def _repeated(field: Field, value: np.ndarray) -> np.ndarray:
    """The field after a step in which nothing new was seen: a history shifts, so that it can be rebuilt from steps."""
    return np.concatenate([value[1:], value[-1:]]) if field.history else value


def _place(position: np.ndarray) -> str:
    x, y, z = position.tolist()
    return f"({x:.1f}, {y:.1f}, {z:.1f}) m"


def default_episode_steps(length_m: float, time_step_s: float) -> int:
    """Steps in which a slow lap of a path so long is not truncated, at least 1000."""
    lap_steps = length_m / (_SLOWEST_LAP_MPS * time_step_s)
    return max(_MIN_EPISODE_STEPS, math.ceil(lap_steps - 1e-9))
