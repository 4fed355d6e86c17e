"""Many simulated cars that step in one call: TrackMania's tasks as batches, for PPO and for workers that drive many.

Each car gives what its environment of one car (``driving.py`` in ``tasks.envs.realtime.VirtualTimeEnv``) gives for the
same seeds and actions, bit by bit; only the loop over the cars is another, on all cores.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from tasks.config import ControlKind, TaskConfig
from tasks.envs.batch import EpisodeBatch, Observations, Outcome
from tasks.envs.batch_clock import BatchClock
from tasks.game.arrow_keys import press_arrows
from tasks.game.protocols import Telemetry
from tasks.sim import vehicle
from tasks.sim.cars import Cars
from tasks.sim.random_tracks import tracks_of_episodes
from tasks.sim.threads import threads_for, use_threads
from tasks.sim.track import Track
from tasks.trackmania.dials import read_dials
from tasks.trackmania.driving import DrivingInterface, default_episode_steps
from tasks.trackmania.frame_history import FrameHistories
from tasks.trackmania.full import FullInterface
from tasks.trackmania.lidar import LidarInterface
from tasks.trackmania.lidar_progress import LidarProgressInterface
from tasks.trackmania.reference_path import path_length_m, path_on_track, resample, road_of_task
from tasks.trackmania.reward import ProgressRewards
from tasks.trackmania.road_ahead import AHEAD_FIELDS, RoadAhead, fields_of, new_rows, road_along
from tasks.trackmania.track import TrackInterface

_FIELD = Telemetry._fields.index
_PLACE = slice(_FIELD("x"), _FIELD("z") + 1)
_NUM_TOTALS = 4
_RETURN, _SUM_SPEED, _MAX_SPEED, _START_DISTANCE = range(_NUM_TOTALS)


class Fleet(EpisodeBatch):
    """N cars of one task in virtual time, on one track or each on that of its episode.

    Args:
        config: The task; it drives the simulator.
        num_envs: N.
        seed: What ``reset`` and ``step`` draw the seeds of the episodes from.
        threads: Of the kernels; None: ``tasks.sim.threads`` knows.
    """

    interface: ClassVar[type[DrivingInterface]]
    """The task of one car."""

    def __init__(self, config: TaskConfig, num_envs: int, seed: int, threads: int | None = None) -> None:
        super().__init__(num_envs, seed)
        self.observation_spec = self.interface.spec_for(config)
        tracks = tracks_of_episodes(config)
        path = self._path = resample(np.asarray(path_on_track(tracks.first.centre_line, config), np.float64))
        step_s, limit = config.rtgym.time_step_duration, config.rtgym.ep_max_length
        longest_m = path_length_m(path) if tracks.of_episode is None else tracks.longest_m
        self._config = config
        self._threads = threads or threads_for(num_envs)
        self._num_last_steps = default_episode_steps(longest_m, step_s) if isinstance(limit, str) else limit
        self._track_of_episode = tracks.of_episode
        self._cars = Cars(tracks.first, config, num_envs)
        self._rewards = ProgressRewards(path, config.reward, step_s, num_envs)
        self._clock = BatchClock(config.rtgym, config.capture_jitter_s, num_envs)
        self._aheads: list[RoadAhead] = []
        if AHEAD_FIELDS[0].name in self.observation_spec.names:
            road = road_along(path, *road_of_task(config))
            self._aheads = [RoadAhead(road, config.look_ahead_exponent) for _ in range(num_envs)]
        self._ahead_rows = new_rows(num_envs)
        self._captured = self._cars.records.copy()
        self._actions = np.zeros((num_envs, config.rtgym.act_buf_len, 3), np.float32)
        self._num_steps = np.zeros(num_envs, np.int64)
        self._totals = np.zeros((num_envs, _NUM_TOTALS))
        self._finished = np.zeros(num_envs, np.bool_)

    def begin(self, chosen: Sequence[int], seeds: Sequence[int]) -> Observations:
        """Puts the chosen cars to their starts; as ``VirtualTimeEnv.reset`` with these seeds."""
        use_threads(self._threads)
        indices = np.array(chosen, np.int64)
        clock, rtgym = self._clock, self._config.rtgym
        clock.leave(indices)
        self._actions = self._actions.copy()
        for index, seed in zip(indices.tolist(), seeds, strict=True):
            clock.begin(index, seed)
            if self._track_of_episode is not None:
                self._put_on(self._track_of_episode(seed), index)
            self._cars.restart(index, self._cars.draw(np.random.default_rng(seed)), float(clock.now[index]))
        if rtgym.reset_act_buf:
            self._actions[indices] = 0.0
        elif not rtgym.last_act_on_reset:
            # The last action of the previous episode was never applied: what will be applied takes its place.
            self._actions[indices, -1] = 0.0
        self._rewards.reset(indices)
        for index in indices[self._cars.started_at_m[indices] > 0.0].tolist():
            x, _, z = self._cars.records[index, _PLACE].tolist()
            self._rewards.begin_on_the_way(index, x, z)
        self._num_steps[indices] = 0
        self._finished[indices] = False
        self._totals[indices] = 0.0
        self._totals[indices, _START_DISTANCE] = self._cars.records[indices, _FIELD("distance")]
        self._begin_views(indices)
        self._captured[indices] = self._cars.records[indices]
        for index in indices.tolist() if self._aheads else ():
            self._aheads[index].begin()
        self._observe_ahead(indices)
        observation = self._observation()
        self._send(indices, self._actions[:, -1])
        return observation

    def act(self, actions: np.ndarray) -> Outcome:
        """Ends the steps in flight and begins the next ones; as ``VirtualTimeEnv.step``."""
        use_threads(self._threads)
        cars, clock = self._cars, self._clock
        actions = _checked(actions, len(self._num_steps))
        cars.advance(clock.to_capture())
        records = self._captured = cars.records.copy()
        finished = records[:, _FIELD("finished")] != 0.0
        reward, terminated = self._rewards.step(records[:, _PLACE], finished, cars.memory[:, vehicle.IMPACT])
        self._take_views()
        self._observe_ahead(np.arange(len(actions)))
        self._note(reward, finished)
        clock.to_end()
        self._actions = np.concatenate([self._actions[:, 1:], actions[:, None]], axis=1)
        truncated = ~terminated & (self._num_steps >= self._num_last_steps)
        observation = self._observation()
        has_ended = terminated | truncated
        if self._config.rtgym.wait_on_done and has_ended.any():
            clock.rest(np.flatnonzero(has_ended))
        self._send(np.flatnonzero(~has_ended), actions)
        return Outcome(observation, reward, terminated, truncated)

    def statistics(self, index: int) -> dict[str, float]:
        """Of the episode that ended, before another begins."""
        memory, totals, steps = self._cars.memory[index], self._totals[index], int(self._num_steps[index])
        is_lap = self._finished[index] and self._cars.started_at_m[index] == 0.0
        return {
            "return": float(totals[_RETURN]),
            "length": float(steps),
            "finished": float(self._finished[index]),
            "lap_time_s": float(memory[vehicle.FINISH_TIME]) if is_lap else float("nan"),
            "progress": float(self._rewards.progress[index]),
            "distance_m": float(self._cars.records[index, _FIELD("distance")] - totals[_START_DISTANCE]),
            "max_speed_mps": float(totals[_MAX_SPEED]),
            "mean_speed_mps": float(totals[_SUM_SPEED] / max(steps, 1)),
            "wall_contacts": float(memory[vehicle.CONTACTS]),
            "wall_impact_mps": float(memory[vehicle.IMPACT]),
            "started_at_m": float(self._cars.started_at_m[index]),
        }

    def _put_on(self, track: Track, index: int) -> None:
        """Gives a car the track and the path of its episode."""
        path = resample(np.asarray(track.centre_line, np.float64))
        self._cars.put_on(track, index)
        self._rewards.put_on(path, index)
        if self._aheads:
            self._aheads[index] = RoadAhead(road_along(path, path, track.width_m), self._config.look_ahead_exponent)

    def _begin_views(self, indices: NDArray[np.int64]) -> None:
        """Looks at the screens of cars at the start of their episodes."""

    def _take_views(self) -> None:
        """The same for all cars, after a step."""

    def _fields(self) -> dict[str, np.ndarray]:
        """What the fields without actions may be."""
        progress = self._rewards.observed_progress.astype(np.float32)[:, None]
        ahead = fields_of(self._ahead_rows) if self._aheads else {}
        return {**read_dials(self._captured), "progress": progress, **ahead}

    def _observation(self) -> Observations:
        """All fields; the arrays stay as they are."""
        known = self._fields()
        fields = {field.name: known[field.name] for field in self.observation_spec.fields}
        actions = {name: self._actions[:, i] for i, name in enumerate(self.observation_spec.action_names)}
        return {**fields, **actions}

    def _observe_ahead(self, indices: NDArray[np.int64]) -> None:
        if not self._aheads:
            return
        self._ahead_rows = self._ahead_rows.copy()  # what was seen before stays as it is
        records, places = self._cars.records, self._rewards.current_index.tolist()
        for index in indices.tolist():
            self._aheads[index].observe_into(self._ahead_rows[index], records[index], places[index])

    def _note(self, reward: NDArray[np.float64], finished: NDArray[np.bool_]) -> None:
        """Adds a step to what is said of the episodes."""
        speed = np.abs(self._cars.records[:, _FIELD("speed")])
        self._num_steps += 1
        self._totals[:, _RETURN] += reward
        self._totals[:, _SUM_SPEED] += speed
        self._totals[:, _MAX_SPEED] = np.maximum(self._totals[:, _MAX_SPEED], speed)
        self._finished |= finished

    def _send(self, chosen: NDArray[np.int64], actions: np.ndarray) -> None:
        """Drives the chosen cars with their rows of the actions, and begins their steps."""
        is_sent = np.zeros(len(actions), np.bool_)
        is_sent[chosen] = True
        if self._config.control is ControlKind.keyboard:
            actions = press_arrows(actions)
        self._cars.send(self._clock.now, actions.astype(np.float64), is_sent)
        self._clock.start(chosen)


class FrameFleet(Fleet):
    """Cars that see the newest pictures or scans, stacked."""

    history_field: ClassVar[str]
    """The field of these."""

    def __init__(self, config: TaskConfig, num_envs: int, seed: int, threads: int | None = None) -> None:
        super().__init__(config, num_envs, seed, threads)
        field = next(field for field in self.observation_spec.fields if field.name == self.history_field)
        self._frames = FrameHistories(num_envs, field.history, field.frame_shape, field.dtype)

    @abstractmethod
    def _first_frame(self, index: int) -> np.ndarray:
        """The picture or scan of one car."""

    @abstractmethod
    def _take_frames(self, out: np.ndarray, slot: int) -> None:
        """Writes the pictures or scans of all."""

    def _begin_views(self, indices: NDArray[np.int64]) -> None:
        self._frames.fill({index: self._first_frame(index) for index in indices.tolist()})

    def _take_views(self) -> None:
        self._take_frames(*self._frames.next())

    def _fields(self) -> dict[str, np.ndarray]:
        return {**super()._fields(), self.history_field: self._frames.stacks}


class LidarFleet(FrameFleet):
    """TM20Lidar."""

    interface = LidarInterface
    history_field = "lidar"

    def _first_frame(self, index: int) -> np.ndarray:
        return self._cars.camera.lidar(self._cars.screen_poses[index], self._cars.tracks[index].grids)

    def _take_frames(self, out: np.ndarray, slot: int) -> None:
        self._cars.camera.lidars(self._cars.screen_poses, self._cars.roads, out, slot)


class LidarProgressFleet(LidarFleet):
    """TM20LidarProgress."""

    interface = LidarProgressInterface


class FullFleet(FrameFleet):
    """TM20Full."""

    interface = FullInterface
    history_field = "images"

    def _first_frame(self, index: int) -> np.ndarray:
        return self._cars.camera.image(self._cars.screen_poses[index], self._cars.tracks[index].grids)

    def _take_frames(self, out: np.ndarray, slot: int) -> None:
        self._cars.camera.images(self._cars.screen_poses, self._cars.roads, out, slot)


class TrackFleet(Fleet):
    """TM20Track."""

    interface = TrackInterface


def _checked(actions: np.ndarray, count: int) -> NDArray[np.float32]:
    """A float32 copy of the actions."""
    copy = np.array(actions, np.float32)
    if copy.shape != (count, 3):
        raise ValueError(f"actions must have shape {(count, 3)}, got {copy.shape}")
    if not np.isfinite(copy).all():
        raise ValueError(f"actions must be finite, got {copy[~np.isfinite(copy).all(axis=1)][0].tolist()}")
    return copy
