"""Reward for progress along a reference path: ours and, for comparison, TMRL's.

The interfaces in this package call it once per captured observation; ``fleet`` does it for many cars at once, with the
same kernels. No game, no clock.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

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
_FINISHED = 4
"""Whether the finish has been paid."""
_STATE_SIZE = 5

# Entries of the rules, which describe a RewardConfig to the kernels.
_FORWARD, _BACKWARD, _COUNTDOWN, _MIN_STEPS, _MAX_STRAY, _MIN_POINTS = range(6)
_PENALTY, _WALL_PENALTY, _END, _IS_TMRL = range(6, 10)
_NUM_RULES = 10


class ProgressRewards:
    """Rewards and ends of the episodes of many cars; ``ProgressReward`` says what they are.

    Args:
        path: Reference points 0.1 m apart [m], shape (P, 3), of all cars, until ``put_on`` gives one of them another.
        config: Names and numbers.
        time_step_s: Duration of a step [s].
        count: Number of cars, N.
    """

    def __init__(self, path: np.ndarray, config: RewardConfig, time_step_s: float, count: int) -> None:
        self._paths = np.array(path, np.float64)[None]  # its own, as put_on writes into it
        # Which path each car is on, and how many points that has.
        self._path_of = np.zeros(count, np.int64)
        self._num_points = np.full(count, len(path), np.int64)
        self.rules = _rules(config, time_step_s)
        self.state = np.zeros((count, _STATE_SIZE), np.int64)
        self.trail = np.zeros((count, config.FAILURE_COUNTDOWN + 1), np.int64)
        self.impact = np.zeros((count, 1))

    def path(self, car: int) -> NDArray[np.float64]:
        """The path of a car, shape (P, 3)."""
        path: NDArray[np.float64] = self._paths[self._path_of[car], : self._num_points[car]]
        return path

    def put_on(self, path: np.ndarray, car: int) -> None:
        """Gives a car another path, as its episode begins."""
        count = len(self.state)
        if len(self._paths) < count or len(path) > self._paths.shape[1]:
            paths = np.zeros((count, max(len(path), self._paths.shape[1]), 3))
            for other in range(count):
                paths[other, : self._num_points[other]] = self.path(other)
            self._paths, self._path_of = paths, np.arange(count)
        self._paths[car, : len(path)] = path
        self._num_points[car] = len(path)

    def reset(self, cars: np.ndarray | slice) -> None:
        """Starts an episode of each of these at the first point."""
        self.state[cars] = 0
        self.trail[cars] = 0
        self.impact[cars] = 0.0

    def begin_on_the_way(self, car: int, x: float, z: float) -> None:
        """After ``reset``: its episode begins at the point of its path that is nearest to (x, z)."""
        path = self.path(car)
        nearest = int(np.argmin((path[:, 0] - x) ** 2 + (path[:, 2] - z) ** 2))
        self.state[car, [_CURRENT, _BEST]] = nearest
        self.trail[car] = nearest

    def step(
        self, places: np.ndarray, finished: NDArray[np.bool_], wall_impact_mps: np.ndarray
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """``ProgressReward.step`` of each car: (x, y, z), shape (N, 3), and what else it is given, shape (N,)."""
        rewards, terminated = np.empty(len(self.state)), np.empty(len(self.state), np.bool_)
        _step_all(
            self._paths, self._path_of, self._num_points, self.rules, self.state, self.trail, self.impact,
            np.ascontiguousarray(places), finished, np.ascontiguousarray(wall_impact_mps), rewards, terminated,
        )  # fmt: skip
        return rewards, terminated

    @property
    def current_index(self) -> NDArray[np.int64]:
        """Index of the path point at which each car is, shape (N,)."""
        return self.state[:, _CURRENT]

    @property
    def progress(self) -> NDArray[np.float64]:
        """Covered fraction of the path, 1 at the finish, shape (N,)."""
        return self.state[:, _BEST] / (self._num_points - 1)

    @property
    def observed_progress(self) -> NDArray[np.float64]:
        """Where the cars are on the path, as observed by TM20LidarProgress, shape (N,)."""
        return self.state[:, _CURRENT] / (self._num_points - (0 if self.rules[_IS_TMRL] else 1))


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
        self._cars = ProgressRewards(path, config, time_step_s, 1)
        self._path = self._cars.path(0)
        self._state, self._trail, self._impact = self._cars.state[0], self._cars.trail[0], self._cars.impact[0]
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
        return float(self._cars.progress[0])

    @property
    def observed_progress(self) -> float:
        """Where the car is on the path, as observed by TM20LidarProgress."""
        return float(self._cars.observed_progress[0])

    def put_on(self, path: np.ndarray) -> None:
        """Takes another path, as an episode begins."""
        self._cars.put_on(path, 0)
        self._path = self._cars.path(0)

    def reset(self) -> None:
        """Starts an episode at the first point."""
        self._cars.reset(slice(None))

    def begin_on_the_way(self, x: float, z: float) -> None:
        """After ``reset``: the episode begins at the point of the path that is nearest to (x, z)."""
        self._cars.begin_on_the_way(0, x, z)

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
        cars, place = self._cars, (float(x), float(y), float(z))
        reward, terminated = _step(
            self._path, cars.rules, self._state, self._trail, self._impact, *place, bool(finished),
            float(wall_impact_mps),
        )  # fmt: skip
        return reward, terminated


def _rules(config: RewardConfig, time_step_s: float) -> NDArray[np.float64]:
    window_s = time_step_s * (config.FAILURE_COUNTDOWN + 1)
    rules = np.zeros(_NUM_RULES)
    rules[_FORWARD], rules[_BACKWARD] = config.CHECK_FORWARD, config.CHECK_BACKWARD
    rules[_COUNTDOWN], rules[_MIN_STEPS] = config.FAILURE_COUNTDOWN, config.MIN_STEPS
    rules[_MAX_STRAY] = config.MAX_STRAY
    rules[_MIN_POINTS] = max(1.0, config.min_speed * window_s / POINT_SPACING_M - 1e-9)
    rules[_PENALTY], rules[_WALL_PENALTY] = config.CONSTANT_PENALTY, config.wall_penalty
    rules[_END], rules[_IS_TMRL] = config.END_OF_TRACK, config.compat is RewardCompat.tmrl
    return rules


@njit(cache=True, parallel=True, nogil=True)
def _step_all(
    paths: np.ndarray,
    path_of: np.ndarray,
    num_points: np.ndarray,
    rules: np.ndarray,
    state: np.ndarray,
    trail: np.ndarray,
    impact: np.ndarray,
    places: np.ndarray,
    finished: np.ndarray,
    wall_impact: np.ndarray,
    rewards: np.ndarray,
    terminated: np.ndarray,
) -> None:
    """``_step`` for each car."""
    for car in prange(state.shape[0]):
        path = paths[path_of[car], : num_points[car]]
        x, y, z = places[car, 0], places[car, 1], places[car, 2]
        rewards[car], terminated[car] = _step(
            path, rules, state[car], trail[car], impact[car], x, y, z, finished[car], wall_impact[car]
        )


@njit(cache=True)
def _step(
    path: np.ndarray,
    rules: np.ndarray,
    state: np.ndarray,
    trail: np.ndarray,
    impact: np.ndarray,
    x: float,
    y: float,
    z: float,
    finished: bool,
    wall_impact: float,
) -> tuple[float, bool]:
    """Reward, and whether the episode terminates."""
    forward, backward, max_stray = int(rules[_FORWARD]), int(rules[_BACKWARD]), rules[_MAX_STRAY]
    countdown, min_steps = int(rules[_COUNTDOWN]), int(rules[_MIN_STEPS])
    if rules[_IS_TMRL] > 0.0:
        reward, terminated = _advance_tmrl(path, state, x, y, z, forward, backward, countdown, min_steps, max_stray)
        if finished:
            reward += rules[_END]
            if state[_FINISHED] == 0:
                state[_FINISHED] = 1
                state[_BEST] = len(path) - 1
        return float(np.float32(reward + rules[_PENALTY])), terminated or finished
    points, terminated = _advance_best(
        path, state, trail, x, y, z, forward, backward, countdown, min_steps, max_stray, rules[_MIN_POINTS]
    )
    reward = REWARD_PER_POINT * points + rules[_PENALTY]
    if rules[_WALL_PENALTY] > 0.0:
        reward -= rules[_WALL_PENALTY] * max(0.0, wall_impact - impact[0])
        impact[0] = wall_impact
    if finished and state[_FINISHED] == 0:
        reward += _finish(path, state) + rules[_END]
    return reward, terminated or finished


@njit(cache=True)
def _finish(path: np.ndarray, state: np.ndarray) -> float:
    """Pays the rest of the path."""
    state[_FINISHED] = 1
    last = len(path) - 1
    rest = last - state[_BEST]
    state[_BEST] = state[_CURRENT] = last
    return REWARD_PER_POINT * rest


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
