"""Reward for progress along a reference path: ours and, for comparison, TMRL's.

The interfaces in this package call it once per captured observation. Numba kernels, no game, no clock.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from tasks.config import RewardCompat, RewardConfig
from tasks.points.files import POINT_SPACING_M

REWARD_PER_POINT = 0.01
"""One point of 0.1 m: 0.1 per metre."""

# Entries of the integer state of a reward.
_CURRENT = 0
"""Index of the path point at which the car is."""
_BEST = 1
"""Highest index reached in this episode."""
_STEP = 2
"""Steps since the reset."""
_FAILURES = 3
"""Consecutive steps without progress (TMRL)."""


class ProgressReward:
    """Reward and end of an episode from the position of the car.

    ``ours``: 0.01 for every point of the path beyond the farthest one reached so far; the whole lap is worth a tenth of
    its length in metres. The nearest point is searched from the last one, CHECK_FORWARD points ahead (counted again at
    each improvement, so this is the longest cut) and CHECK_BACKWARD behind. The episode terminates

    * when the nearest point in that window is farther than MAX_STRAY, at any time;
    * after MIN_STEPS, when the last FAILURE_COUNTDOWN + 1 steps brought less than ``min_speed`` would;
    * at the finish, which pays the rest of the path and END_OF_TRACK once.

    CONSTANT_PENALTY is added at every step, and wall_penalty subtracted per m/s lost into walls.

    ``tmrl``: TMRL's rule with its numbers: progress is taken from the current point, which moves back when the car
    does, so going back and forth pays; MAX_STRAY only withholds the reward; any progress resets the countdown.
    """

    def __init__(self, path: np.ndarray, config: RewardConfig, time_step_s: float) -> None:
        """Builds the reward.

        Args:
            path: Reference points 0.1 m apart [m], shape (N, 3).
            config: Names and numbers.
            time_step_s: Duration of a step [s].
        """
        self._path = np.ascontiguousarray(path, np.float64)
        self._config = config
        self._is_tmrl = config.compat is RewardCompat.tmrl
        self._state = np.zeros(4, np.int64)
        self._trail = np.zeros(config.FAILURE_COUNTDOWN + 1, np.int64)
        window_s = time_step_s * len(self._trail)
        self._min_points = max(1.0, config.min_speed * window_s / POINT_SPACING_M - 1e-9)
        self._search = (config.CHECK_FORWARD, config.CHECK_BACKWARD)
        self._failure = (config.FAILURE_COUNTDOWN, config.MIN_STEPS)
        self._max_stray = float(config.MAX_STRAY)
        self._wall_impact = 0.0
        self._finished = False
        # Loads the kernels now rather than within the first step, which may be one of real time.
        x, y, z = self._path[0].tolist()
        self.step(x, y, z, False)
        self.reset()

    @property
    def current_index(self) -> int:
        """Index of the path point at which the car is."""
        return int(self._state[_CURRENT])

    @property
    def progress(self) -> float:
        """Covered fraction of the path, 1 at the finish."""
        return int(self._state[_BEST]) / (len(self._path) - 1)

    @property
    def observed_progress(self) -> float:
        """Where the car is on the path, as observed by TM20LidarProgress."""
        return int(self._state[_CURRENT]) / (len(self._path) - (0 if self._is_tmrl else 1))

    def reset(self) -> None:
        """Starts an episode at the first point."""
        self._state[:] = 0
        self._trail[:] = 0
        self._wall_impact = 0.0
        self._finished = False

    def step(self, x: float, y: float, z: float, finished: bool, wall_impact_mps: float = 0.0) -> tuple[float, bool]:
        """Advances by one step.

        Args:
            x: Position of the car [m].
            y: Height of the car [m].
            z: Position of the car [m].
            finished: Whether the finish has been reached.
            wall_impact_mps: Speed lost into walls since the reset [m/s].

        Returns:
            Reward, and whether the episode terminates.
        """
        if self._is_tmrl:
            return self._tmrl_step(x, y, z, finished)
        points, terminated = _advance_best(
            self._path, self._state, self._trail, x, y, z, *self._search, *self._failure, self._max_stray,
            self._min_points,
        )  # fmt: skip
        reward = REWARD_PER_POINT * points + self._config.CONSTANT_PENALTY
        if self._config.wall_penalty > 0.0:
            reward -= self._config.wall_penalty * max(0.0, wall_impact_mps - self._wall_impact)
            self._wall_impact = wall_impact_mps
        if finished and not self._finished:
            reward += self._finish()
        return reward, terminated or finished

    def _finish(self) -> float:
        """Pays the rest of the path and the bonus."""
        self._finished = True
        last = len(self._path) - 1
        rest = last - int(self._state[_BEST])
        self._state[_BEST] = self._state[_CURRENT] = last
        return REWARD_PER_POINT * rest + self._config.END_OF_TRACK

    def _tmrl_step(self, x: float, y: float, z: float, finished: bool) -> tuple[float, bool]:
        reward, terminated = _advance_tmrl(
            self._path, self._state, x, y, z, *self._search, *self._failure, self._max_stray
        )
        if finished:
            reward += self._config.END_OF_TRACK
            if not self._finished:
                self._finished = True
                self._state[_BEST] = len(self._path) - 1
        return float(np.float32(reward + self._config.CONSTANT_PENALTY)), terminated or finished


@njit(cache=True)
def _distance(path: np.ndarray, index: int, x: float, y: float, z: float) -> float:
    dx, dy, dz = x - path[index, 0], y - path[index, 1], z - path[index, 2]
    return np.sqrt(dx * dx + dy * dy + dz * dz)


@njit(cache=True)
def _nearest_ahead(path: np.ndarray, start: int, window: int, x: float, y: float, z: float) -> tuple[int, float]:
    """Nearest point from ``start`` on; the search goes on for ``window`` points after each improvement or tie."""
    nearest, smallest = start, _distance(path, start, x, y, z)
    index, last = start + 1, min(start + window, len(path)) - 1
    while index <= last:
        distance = _distance(path, index, x, y, z)
        if distance <= smallest:
            nearest, smallest = index, distance
            last = min(index + window, len(path)) - 1
        index += 1
    return nearest, smallest


@njit(cache=True)
def _nearest_behind(path: np.ndarray, start: int, window: int, x: float, y: float, z: float) -> tuple[int, float]:
    """Nearest point before ``start``; a tie stays at the later point."""
    nearest, smallest = start, _distance(path, start, x, y, z)
    index, last = start - 1, max(start - window, 0)
    while index >= last:
        distance = _distance(path, index, x, y, z)
        if distance < smallest:
            nearest, smallest = index, distance
            last = max(index - window, 0)
        index -= 1
    return nearest, smallest


@njit(cache=True)
def _advance_best(
    path: np.ndarray,
    state: np.ndarray,
    trail: np.ndarray,
    x: float,
    y: float,
    z: float,
    forward: int,
    backward: int,
    countdown: int,
    min_steps: int,
    max_stray: float,
    min_points: float,
) -> tuple[int, bool]:
    """Best-so-far progress; returns the newly covered points and whether the episode terminates.

    ``trail`` is a ring of the best indices of the last countdown + 1 steps.
    """
    nearest, distance = _nearest_ahead(path, state[_CURRENT], forward, x, y, z)
    behind, distance_behind = _nearest_behind(path, state[_CURRENT], backward, x, y, z)
    if distance_behind < distance:
        nearest, distance = behind, distance_behind
    state[_STEP] += 1
    strayed = not distance <= max_stray
    gained = 0 if strayed else max(0, nearest - state[_BEST])
    if not strayed:
        state[_CURRENT] = nearest
    state[_BEST] += gained
    slot = state[_STEP] % len(trail)
    before = trail[slot]
    trail[slot] = state[_BEST]
    stalled = state[_STEP] > min_steps + countdown and state[_BEST] - before < min_points
    return gained, strayed or stalled


@njit(cache=True)
def _advance_tmrl(
    path: np.ndarray,
    state: np.ndarray,
    x: float,
    y: float,
    z: float,
    forward: int,
    backward: int,
    countdown: int,
    min_steps: int,
    max_stray: float,
) -> tuple[float, bool]:
    """TMRL's rule (0.7.1), defects included; returns reward and whether the episode terminates."""
    state[_STEP] += 1
    current = state[_CURRENT]
    best, distance = _nearest_ahead(path, current, forward, x, y, z)
    if distance > max_stray:
        best = current
    reward = (best - current) / 100.0
    terminated = False
    if best == current:
        best = _tmrl_rewind(path, current, backward, x, y, z)
        if state[_STEP] > min_steps:
            state[_FAILURES] += 1
            terminated = state[_FAILURES] > countdown
    else:
        state[_FAILURES] = 0
    state[_CURRENT] = best
    state[_BEST] = max(state[_BEST], best)
    return reward, terminated


@njit(cache=True)
def _tmrl_rewind(path: np.ndarray, start: int, window: int, x: float, y: float, z: float) -> int:
    """The nearest point behind; an earlier one wins ties, and index 0 is never tested after the first test."""
    nearest, smallest = start, _distance(path, start, x, y, z)
    index, left = start - 1, window - 1
    while index > 0 and left > 0:
        distance = _distance(path, index, x, y, z)
        if distance <= smallest:
            nearest, smallest, left = index, distance, window
        index -= 1
        left -= 1
    return nearest
