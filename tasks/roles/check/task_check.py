"""Observes one task: steps its environment and keeps each observation with the screenshot and telemetry behind it.

``tasks.roles.check.check`` shows or writes the looks; nothing here opens a window or a file.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Self

import cv2
import numpy as np

from tasks import registry
from tasks.config import ClockKind, GameKind, TaskConfig
from tasks.game.clock import Clock, WallClock
from tasks.game.errors import GameError, GameSetupError
from tasks.game.protocols import Game
from tasks.roles import overlay
from tasks.roles.check.check_picture import CheckView, check_picture
from tasks.roles.check.findings import Finding, Look, Surroundings, findings
from tasks.roles.check.watched_game import Seen, WatchedGame, WatchedLiveGame
from tasks.roles.overlay import Picture
from tasks.roles.picture_window import Place
from tasks.sim.game import SimulatedGame
from tasks.trackmania.driving import ANYWHERE_OPTION, GAME_LOST_KEY, DrivingInterface

_MAX_LOOKS = 200
_EVERY_PIXELS = 4
"""Blackness and contrast are judged on every fourth pixel of every fourth row."""
_RETRY_S = 0.5
_NEVER = 1_000_000_000
_REFRESH_S = 1.0
"""How often cover and rate are asked for [s]."""

_logger = logging.getLogger(__name__)


class TaskCheck:
    """Looks at one task, step by step; the newest look as a picture, and what looks wrong in the last ten seconds.

    Args:
        task: The task; its game is decided.
    """

    def __init__(self, task: TaskConfig) -> None:
        self.is_live = task.game is GameKind.live
        self._task = _endless(task)
        env: Any = registry.make(task.name, observation="dict", config=self._task)
        self._env = env
        if not isinstance(env.interface, DrivingInterface):
            env.close()
            raise ValueError(f"--check shows TrackMania tasks (TM20...), got task {task.name!r}")
        self._interface = env.interface
        self._clock: Clock = WallClock() if self.is_live else env.clock
        self.game = _watched(env.interface, self._task, self._clock)
        """What stands between the task and its game."""
        self._driver = _scripted_driver(self._task, self.game.inner)
        self._looks: deque[Look] = deque(maxlen=_MAX_LOOKS)
        self._observation: Mapping[str, np.ndarray] = {}
        self._seen: Seen | None = None
        self._around = Surroundings(
            beam_lengths=overlay.beam_lengths(task.window_width, task.window_height),
            path_name=f"task.reward.path={task.reward.path}" if task.reward.path else f"task.track={task.track}",
        )
        self._refreshed_at_s = -math.inf
        self._reward = self._return = self._progress = 0.0
        self._is_running = False
        self._is_described = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def name(self) -> str:
        """Name of the task."""
        return self._task.name

    @property
    def time_step_s(self) -> float:
        """Duration of a step [s]."""
        return self._task.rtgym.time_step_duration

    @property
    def observation(self) -> Mapping[str, np.ndarray]:
        """The newest one, by name, as the environment returned it; empty before the first one."""
        return self._observation

    @property
    def seen(self) -> Seen | None:
        """What the newest observation was made of; None before the first one."""
        return self._seen

    @property
    def episode_return(self) -> float:
        """Rewards since the episode began."""
        return self._return

    @property
    def looks(self) -> list[Look]:
        """The last ones, oldest first."""
        return list(self._looks)

    def now(self) -> float:
        """Time of the game: real time in the live game [s]."""
        return self._clock.now()

    def look(self) -> None:
        """One step of the environment; or, while there is no episode, an attempt to begin one.

        In the live game this lasts a step, or a while when the game cannot be seen; in the simulator it does not wait.

        Raises:
            GameSetupError: This machine lacks something.
        """
        try:
            if self._is_running:
                self._step()
            else:
                self._begin()
        except GameSetupError:
            raise
        except (GameError, TimeoutError) as error:
            self._lose(str(error))
            self._clock.sleep_until(self._clock.now() + _RETRY_S)

    def findings(self) -> list[Finding]:
        """What looks wrong, the gravest first."""
        return findings(list(self._looks), self._around)

    def picture(self) -> Picture:
        """The newest look for people, RGB."""
        where = "live game" if self.is_live else f"simulator, {self._task.track}"
        return check_picture(
            CheckView(
                title=f"{self._task.name} ({where})",
                spec=self._env.observation_spec,
                observation=self._observation,
                seen=self._seen,
                reward=self._reward,
                episode_return=self._return,
                progress=self._progress,
                rate_hz=self._around.rate_hz,
                findings=self.findings(),
            )
        )

    def game_place(self) -> Place | None:
        """Where the live game's window is; the upper left corner while it is not there. None in the simulator."""
        if not isinstance(self.game, WatchedLiveGame):
            return None
        try:
            return Place(*self.game.surroundings().window)
        except GameError:
            return Place(0, 0, self._task.window_width, self._task.window_height)

    def close(self) -> None:
        """Closes the environment and with it the game. Calling it twice is fine."""
        self._env.close()

    def _begin(self) -> None:
        if isinstance(self.game, WatchedLiveGame):
            self.game.look()
            self._describe(self.game)
        self._observation, info = self._env.reset(seed=0, options={ANYWHERE_OPTION: True})
        self._seen = self.game.seen
        self._reward, self._return, self._progress = 0.0, 0.0, float(info["progress"])
        self._is_running = True
        self._around = self._around._replace(game_lost="")

    def _step(self) -> None:
        observation, reward, terminated, truncated, info = self._env.step(self._driver())
        if GAME_LOST_KEY in info:
            self._lose(info[GAME_LOST_KEY])
            return
        self._observation = observation
        self._reward, self._progress = float(reward), float(info["progress"])
        self._return += self._reward
        before, self._seen = self._seen, self.game.seen
        assert self._seen is not None
        self._looks.append(self._summary(self._seen, before))
        self._is_running = not (terminated or truncated or _is_restarted(before, self._seen))
        self._refresh()

    def _lose(self, message: str) -> None:
        self._is_running = False
        self._around = self._around._replace(game_lost=message)

    def _summary(self, seen: Seen, before: Seen | None) -> Look:
        from tasks.live.screen import is_black

        lidar = self._observation.get("lidar")
        coarse = np.ascontiguousarray(seen.frame[::_EVERY_PIXELS, ::_EVERY_PIXELS])
        place = np.array(seen.telemetry[2:5], np.float64)
        return Look(
            time_s=seen.time_s,
            telemetry=seen.telemetry,
            age_s=seen.age_s,
            is_black=is_black(coarse),
            contrast=float(cv2.cvtColor(coarse, cv2.COLOR_BGRA2GRAY).std()),
            is_same_picture=before is not None and np.array_equal(before.frame, seen.frame),
            beams=None if lidar is None else lidar[-1],
            path_distance_m=float(np.sqrt(np.square(self._interface.path - place).sum(axis=1).min())),
        )

    def _refresh(self) -> None:
        """Asks for what surrounds the observations, now and then."""
        now = self._clock.now()
        if isinstance(self.game, WatchedLiveGame) and now - self._refreshed_at_s >= _REFRESH_S:
            self._refreshed_at_s = now
            live = self.game.surroundings()
            self._around = self._around._replace(covered_fraction=live.covered_fraction, rate_hz=live.rate_hz)

    def _describe(self, game: WatchedLiveGame) -> None:
        if not self._is_described:
            self._is_described = True
            _logger.info("%s", game.describe())


def _endless(task: TaskConfig) -> TaskConfig:
    """The task whose episodes do not end because the car stands, is far away or drives for long.

    What is observed stays the same: these settings only end episodes.
    """
    return replace(
        task,
        clock=ClockKind.wall if task.game is GameKind.live else ClockKind.virtual,
        reward=replace(task.reward, MIN_STEPS=_NEVER, MAX_STRAY=float(_NEVER)),
        rtgym=replace(task.rtgym, ep_max_length=_NEVER),
        live=replace(task.live, wait_for_game_s=_RETRY_S),
        sleep_time_at_reset=0.0,
    )


def _watched(interface: DrivingInterface, task: TaskConfig, clock: Clock) -> WatchedGame:
    """Puts a watched game behind the task."""
    inner = interface.game
    if task.game is GameKind.live:
        inner.close()  # it was never opened
        game: WatchedGame = WatchedLiveGame(task)
    else:
        # On a virtual clock the screenshot is still the one that the observation was made of.
        game = WatchedGame(inner, clock, inner.frame)
    interface.game = game
    return game


def _is_restarted(before: Seen | None, now: Seen) -> bool:
    """Whether the person restarted: the driven distance fell."""
    return before is not None and now.telemetry.distance < before.telemetry.distance - 1.0


def _scripted_driver(task: TaskConfig, game: Game) -> Callable[[], np.ndarray]:
    """Drives the simulator; elsewhere it returns zero, which a live game without controls ignores."""
    if not isinstance(game, SimulatedGame):
        return lambda: np.zeros(3, np.float32)
    from tasks.sim.scripted_driver import ScriptedDriver
    from tasks.sim.vehicle_files import load_vehicle

    car = load_vehicle(task.vehicle)
    driver = ScriptedDriver(game.track, constants=car)

    def drive() -> np.ndarray:
        nonlocal driver
        if driver.track is not game.track:
            driver = ScriptedDriver(game.track, constants=car)
        state = game.state()
        if state.distance_m < 1.0:
            driver.reset()
        return driver.act(state)

    return drive
