"""Records what a film of an episode needs, cheaply, so that a game in real time is not disturbed.

``tasks.acting.evaluation.evaluate`` calls it; ``tasks.film.frames`` draws what it recorded. Of a simulated car it
keeps numbers alone, since its view can be drawn later, and at any moment between two steps. Of all else it keeps the
environment's picture of each step, as JPEG.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

import cv2
import gymnasium
import numpy as np

from tasks.game.errors import GameError

if TYPE_CHECKING:
    from tasks.sim.chase_view import ChaseCar, ChaseView
    from tasks.trackmania.driving import DrivingInterface

MAX_SHOTS = 6000
"""Five minutes at 20 steps a second; a longer episode is filmed to there."""
_JPEG_QUALITY = 92


class Shot(NamedTuple):
    """One moment, at the start of the episode or after a step."""

    time_s: float
    """Since the start [s]."""
    car: ChaseCar | None
    """None where nothing is driven on a track."""
    picture: np.ndarray | None
    """JPEG of what the environment shows, uint8, shape (n,); None where ``FilmRecorder.view`` draws."""
    action: np.ndarray
    """What was chosen for the step before, shape (A,); zeros at the start."""
    episode_return: float


class FilmRecorder:
    """The shots of the episode that began last."""

    def __init__(self) -> None:
        self.shots: list[Shot] = []
        self.view: ChaseView | None = None
        """Draws the car; None: each shot has its picture."""
        self.path: np.ndarray | None = None
        """The reference path [m], shape (N, 3); None where nothing is driven on one."""
        self.lap_time_s: float | None = None
        """None unless it finished."""
        self._steps_per_second = 20.0

    def begin(self, env: gymnasium.Env) -> None:
        """Forgets what was recorded, and takes the first shot of an episode."""
        driving = _driving(env)
        self.shots, self.lap_time_s = [], None
        self.view = driving.chase_view() if driving is not None else None
        self.path = driving.path if driving is not None else None
        self._steps_per_second = float(env.metadata.get("render_fps") or 20.0)
        self._take(env, np.zeros(env.action_space.shape or (0,), np.float32), 0.0)

    def step(self, env: gymnasium.Env, action: np.ndarray, reward: float, info: Mapping[str, object]) -> None:
        """Takes a shot after a step.

        Args:
            env: Where it was made.
            action: What was chosen.
            reward: What it brought.
            info: What the environment told.
        """
        self._take(env, action, self.shots[-1].episode_return + reward if self.shots else reward)
        statistics = info.get("episode_statistics")
        if isinstance(statistics, Mapping) and statistics.get("finished"):
            lap_time_s = float(statistics.get("lap_time_s", math.nan))
            self.lap_time_s = None if math.isnan(lap_time_s) else lap_time_s

    def _take(self, env: gymnasium.Env, action: np.ndarray, episode_return: float) -> None:
        if len(self.shots) >= MAX_SHOTS:
            return
        driving = _driving(env)
        with suppress(GameError):  # a lost game has nothing to show
            car = driving.chase_car() if driving is not None else None
            picture = None if self.view is not None else _packed(env)
            if self.view is None and picture is None:
                return
            time_s = len(self.shots) / self._steps_per_second if car is None else car.time_s
            self.shots.append(Shot(time_s, car, picture, np.array(action, np.float32), episode_return))


def _driving(env: gymnasium.Env) -> DrivingInterface | None:
    """The task, where a car is driven on a track."""
    interface = getattr(env.unwrapped, "interface", None)
    return interface if hasattr(interface, "chase_car") else None


def _packed(env: gymnasium.Env) -> np.ndarray | None:
    """The picture of an environment as JPEG; None: it shows none."""
    picture = env.render()
    if not isinstance(picture, np.ndarray):
        return None
    bgr = cv2.cvtColor(np.ascontiguousarray(picture[..., :3], np.uint8), cv2.COLOR_RGB2BGR)
    return np.asarray(cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1])
