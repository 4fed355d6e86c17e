"""The report of an evaluation, its episodes and their summary, which a worker sends to the learner."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

TRAJECTORY_COLUMNS = ("x", "z", "speed_mps", "reward")
"""Columns of ``EpisodeResult.trajectory``."""


@dataclass(frozen=True)
class EpisodeResult:
    """One evaluated episode."""

    seed: int
    finished: bool | None
    """None where the task has no finish; its episodes are judged by their return."""
    lap_time_s: float | None
    """Time of the finish crossing; None unless finished."""
    episode_return: float
    progress: float
    """Fraction of the path covered, 0 to 1."""
    steps: int
    wall_contacts: float = 0.0
    mean_speed_mps: float = math.nan
    max_speed_mps: float = math.nan
    trajectory: np.ndarray = field(default_factory=lambda: np.zeros((0, 4), np.float32))
    """x [m], z [m], speed [m/s] and reward after each step, float32, shape (T, 4); NaN where the task has none."""
    race_times_s: np.ndarray = field(default_factory=lambda: np.zeros(0))
    """Race time of each row of the trajectory [s], shape (T,); NaN where the task has none. Not sent to a learner."""
    actions: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    """The action of each step: it acts from its row of the trajectory on, shape (T, A). Not sent to a learner."""
    track: str | None = None
    """Name of the track where each episode has its own; None: all are on that of the task."""

    def to_json(self) -> dict[str, Any]:
        """Plain data without the trajectory; NaN becomes null."""
        return {
            "seed": self.seed,
            "finished": self.finished,
            "lap_time_s": self.lap_time_s,
            "return": _number(self.episode_return),
            "progress": _number(self.progress),
            "steps": self.steps,
            "wall_contacts": _number(self.wall_contacts),
            "mean_speed_mps": _number(self.mean_speed_mps),
            "max_speed_mps": _number(self.max_speed_mps),
            "track": self.track,
        }

    @staticmethod
    def from_json(data: Mapping[str, Any], trajectory: np.ndarray) -> EpisodeResult:
        """The inverse of ``to_json``."""
        return EpisodeResult(
            seed=int(data["seed"]),
            finished=None if data["finished"] is None else bool(data["finished"]),
            lap_time_s=None if data["lap_time_s"] is None else float(data["lap_time_s"]),
            episode_return=_from_number(data["return"]),
            progress=_from_number(data["progress"]),
            steps=int(data["steps"]),
            wall_contacts=_from_number(data["wall_contacts"]),
            mean_speed_mps=_from_number(data["mean_speed_mps"]),
            max_speed_mps=_from_number(data["max_speed_mps"]),
            trajectory=trajectory,
            track=None if data["track"] is None else str(data["track"]),
        )


@dataclass(frozen=True)
class EvaluationReport:
    """All episodes of one evaluation and their summary. Averages are over the episodes that the name says."""

    episodes: tuple[EpisodeResult, ...]
    weights_version: int = 0
    clip: np.ndarray | None = None
    """Pictures of the first episode, uint8 RGB, shape (n, h, w, 3), or None."""
    clip_fps: float = 0.0
    """Rate at which the clip plays in the time of the episode [1/s]."""

    @property
    def has_finish(self) -> bool:
        """Whether the task has a finish that an episode may reach; taken for granted while nothing was driven."""
        return not self.episodes or any(e.finished is not None for e in self.episodes)

    @property
    def tracks(self) -> list[str]:
        """Names of the tracks of the episodes, in order, where each has its own; else none."""
        return [e.track for e in self.episodes if e.track is not None]

    @property
    def finish_rate(self) -> float:
        """Share of the episodes that reached the finish; 0 when there are none."""
        return _mean([float(bool(e.finished)) for e in self.episodes], empty=0.0)

    @property
    def mean_return(self) -> float | None:
        """Mean return of the episodes, None when there are none."""
        return _number(_mean([e.episode_return for e in self.episodes]))

    @property
    def std_return(self) -> float | None:
        """Population standard deviation of the returns, None when there are none."""
        returns = [e.episode_return for e in self.episodes if not math.isnan(e.episode_return)]
        return float(np.std(returns)) if returns else None

    @property
    def mean_lap_time_s(self) -> float | None:
        """Mean lap of the finished episodes [s], None when none finished."""
        laps = self.lap_times_s
        return float(np.mean(laps)) if laps else None

    @property
    def std_lap_time_s(self) -> float | None:
        """Population standard deviation of the finished laps [s], None when none finished."""
        laps = self.lap_times_s
        return float(np.std(laps)) if laps else None

    @property
    def lap_times_s(self) -> list[float]:
        """Laps of the finished episodes [s], in order."""
        return [e.lap_time_s for e in self.episodes if e.finished and e.lap_time_s is not None]

    def score(self) -> tuple[float, float, float]:
        """What ``best.pth`` is chosen by, greater is better: finish rate, then lap time, then progress.

        Where the task has no finish: the mean return.
        """
        if not self.has_finish:
            return (-math.inf if self.mean_return is None else self.mean_return, 0.0, 0.0)
        lap = self.mean_lap_time_s
        progress = _mean([e.progress for e in self.episodes], empty=0.0)
        return (self.finish_rate, -math.inf if lap is None else -lap, 0.0 if math.isnan(progress) else progress)

    def statistics(self) -> dict[str, float]:
        """Scalars to log, without prefix; a lap time only when at least one episode finished."""
        scalars = {
            "return": _mean([e.episode_return for e in self.episodes]),
            "finish_rate": self.finish_rate if self.has_finish else math.nan,
            "progress": _mean([e.progress for e in self.episodes]),
            "episode_length": _mean([float(e.steps) for e in self.episodes]),
            "wall_contacts": _mean([e.wall_contacts for e in self.episodes]),
            "mean_speed_mps": _mean([e.mean_speed_mps for e in self.episodes]),
        }
        if self.mean_lap_time_s is not None and self.std_lap_time_s is not None:
            scalars["lap_time_s"] = self.mean_lap_time_s
            scalars["lap_time_std_s"] = self.std_lap_time_s
            scalars["best_lap_time_s"] = min(self.lap_times_s)
        return {name: value for name, value in scalars.items() if not math.isnan(value)}

    def to_json(self) -> dict[str, Any]:
        """Plain data: the episodes without their trajectories, and the summary."""
        return {
            "weights_version": self.weights_version,
            "episodes": [episode.to_json() for episode in self.episodes],
            "finish_rate": self.finish_rate,
            "mean_lap_time_s": self.mean_lap_time_s,
            "std_lap_time_s": self.std_lap_time_s,
            "clip_fps": self.clip_fps,
        }

    def arrays(self) -> dict[str, np.ndarray]:
        """What ``to_json`` leaves out: ``trajectory_0`` ... and ``clip``, for the link."""
        arrays = {f"trajectory_{i}": np.asarray(e.trajectory, np.float32) for i, e in enumerate(self.episodes)}
        if self.clip is not None:
            arrays["clip"] = self.clip
        return arrays

    @staticmethod
    def from_parts(data: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> EvaluationReport:
        """Puts together what ``to_json`` and ``arrays`` took apart; raises ValueError on wrong shapes."""
        episodes = [
            EpisodeResult.from_json(entry, _checked_trajectory(arrays, i)) for i, entry in enumerate(data["episodes"])
        ]
        clip = arrays.get("clip")
        if clip is not None and (clip.ndim != 4 or clip.shape[-1] != 3 or clip.dtype != np.uint8):
            raise ValueError(f"clip must be uint8 of shape (n, h, w, 3), got {clip.dtype} {clip.shape}")
        return EvaluationReport(tuple(episodes), int(data["weights_version"]), clip, float(data["clip_fps"]))


def _checked_trajectory(arrays: Mapping[str, np.ndarray], index: int) -> np.ndarray:
    trajectory = arrays.get(f"trajectory_{index}")
    if trajectory is None or trajectory.ndim != 2 or trajectory.shape[1] != len(TRAJECTORY_COLUMNS):
        shape = None if trajectory is None else trajectory.shape
        raise ValueError(f"trajectory_{index} must have shape (T, {len(TRAJECTORY_COLUMNS)}), got {shape}")
    return np.asarray(trajectory, np.float32)


def _mean(values: Iterable[float], empty: float = math.nan) -> float:
    """Mean of the values that are not NaN."""
    known = [value for value in values if not math.isnan(value)]
    return float(np.mean(known)) if known else empty


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _from_number(value: float | None) -> float:
    return math.nan if value is None else float(value)
