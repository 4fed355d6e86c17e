"""Evaluation: deterministic, seeded episodes of one policy, and their summaries.

The evaluator process, the choice of ``best.pth``, ``--play`` and ``results.json`` all call ``evaluate``, so that their
figures mean the same. Numpy only; pictures are drawn in ``tasks.pictures``.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import gymnasium
import numpy as np

from tasks.acting.punctuality import punctual
from tasks.envs.interface import FROM_START_OPTION, Interrupted
from tasks.experience.compared_laps import REFERENCE, LapsOn, comparison, lap_ratio, ratio_key
from tasks.experience.evaluation_report import EpisodeResult, EvaluationReport
from tasks.experience.observation import Info
from tasks.experience.policy import ActingPolicy
from tasks.process.atomic_file import write_file

LEAGUE_RUNS = 10
LEAGUE_PENALTY_S = 10.0
LEAGUE_MAX_CRASHES = 3

_MAX_ATTEMPTS = 3
"""How often a seed is driven when the game is lost in mid-episode."""

_logger = logging.getLogger(__name__)


class ClipRecorder:
    """Collects pictures of the first episode.

    The defaults suit a clip that is sent and logged at each evaluation: 5 pictures/s, 30 s, at most 13 MB.

    Args:
        every: A picture is taken every so many steps.
        max_frames: No more than so many pictures.
        max_width: Wider pictures are shrunk to this [px].
    """

    def __init__(self, every: int = 4, max_frames: int = 150, max_width: int = 240) -> None:
        for name, value in (("every", every), ("max_frames", max_frames), ("max_width", max_width)):
            if value < 1:
                raise ValueError(f"ClipRecorder: {name} must be >= 1, got {value}")
        self.every = every
        self._max_frames = max_frames
        self._max_width = max_width
        self._frames: list[np.ndarray] = []

    def begin(self) -> None:
        """The episode begins, maybe again."""
        self._frames.clear()

    def record(self, env: gymnasium.Env, step: int) -> None:
        """Takes a picture when it is the turn of this step."""
        if step % self.every or len(self._frames) >= self._max_frames:
            return
        picture = env.render()
        if isinstance(picture, np.ndarray):
            self._frames.append(_shrunk(picture, self._max_width))

    def frames(self) -> np.ndarray | None:
        """The kept pictures, uint8 RGB, shape (n, h, w, 3), or None when there are none."""
        return np.stack(self._frames) if self._frames else None


class Recorder(Protocol):
    """Sees an episode while it is driven; ``tasks.film.recorder.FilmRecorder`` is one."""

    def begin(self, env: gymnasium.Env) -> None:
        """Called after the reset; an episode that is driven again begins again."""
        ...

    def step(self, env: gymnasium.Env, action: np.ndarray, reward: float, info: Mapping[str, object]) -> None:
        """Called after each step."""
        ...


class LeagueScore(NamedTuple):
    """Result of ten runs under the rules of the Roborace League."""

    eliminated: bool
    """Whether the third crash ended the attempt."""
    crashes: int
    mean_s: float | None
    """Mean of the completed runs, penalties included; None when eliminated or nothing was completed."""
    std_s: float | None
    """Their population standard deviation."""
    times_s: tuple[float, ...]
    """The completed runs in order, each with 10 s for every crash since the one before."""


def evaluate(
    env: gymnasium.Env | Callable[[], gymnasium.Env],
    policy: ActingPolicy,
    seeds: Sequence[int],
    *,
    clip: ClipRecorder | None = None,
    film: Recorder | None = None,
    on_episode: Callable[[EpisodeResult], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> EvaluationReport:
    """Drives one deterministic episode per seed.

    Args:
        env: A dict-observation environment, or what makes one; an environment made here is also closed here.
        policy: Acts with ``deterministic=True``; its ``version``, where it has one, goes into the report.
        seeds: Seed of each episode, passed to ``env.reset``.
        clip: Takes pictures of the first episode when given; they go into the report.
        film: Records the first episode when given.
        on_episode: Called with each result as soon as it is known.
        stop: Asked before each step, and while an environment that can ``watch`` it waits for its game; true abandons
            the running episode and the rest.

    Returns:
        The report of the episodes that were driven to their end. One in which the game was lost says nothing of the
        policy and is driven again.
    """
    if not isinstance(env, gymnasium.Env):
        with contextlib.closing(env()) as made:
            return evaluate(made, policy, seeds, clip=clip, film=film, on_episode=on_episode, stop=stop)
    if stop is not None and hasattr(env, "watch"):
        env.watch(stop)
    episodes: list[EpisodeResult] = []
    with punctual() if getattr(env, "is_real_time", False) else contextlib.nullcontext():
        for index, seed in enumerate(seeds):
            recorders = (clip, film) if index == 0 else (None, None)
            result = _drive_undisturbed(env, policy, int(seed), *recorders, stop)
            if result is None:
                break
            episodes.append(result)
            if on_episode is not None:
                on_episode(result)
    frames = clip.frames() if clip is not None else None
    fps = _steps_per_second(env) / clip.every if clip is not None else 0.0
    return EvaluationReport(tuple(episodes), int(getattr(policy, "version", 0)), frames, fps)


def league_score(report: EvaluationReport) -> LeagueScore:
    """Scores ten runs as the Roborace League does.

    A run that does not finish is a crash; each crash adds 10 s to the next completed run (to the last one when no other
    follows), and the third crash eliminates. The score is the mean of the completed runs.

    Raises:
        ValueError: The report does not hold exactly ten runs.
    """
    if len(report.episodes) != LEAGUE_RUNS:
        raise ValueError(
            f"play.rules=league scores exactly {LEAGUE_RUNS} runs, got {len(report.episodes)}; set play.episodes=10"
        )
    times: list[float] = []
    crashes = pending = 0
    for episode in report.episodes:
        if episode.finished and episode.lap_time_s is not None:
            times.append(episode.lap_time_s + pending * LEAGUE_PENALTY_S)
            pending = 0
            continue
        crashes, pending = crashes + 1, pending + 1
        if crashes >= LEAGUE_MAX_CRASHES:
            return LeagueScore(True, crashes, None, None, tuple(times))
    if times:
        times[-1] += pending * LEAGUE_PENALTY_S
    mean_s, std_s = (float(np.mean(times)), float(np.std(times))) if times else (None, None)
    return LeagueScore(False, crashes, mean_s, std_s, tuple(times))


def play_results(
    report: EvaluationReport,
    *,
    place: Mapping[str, str],
    checkpoint: str,
    laps_on: LapsOn,
) -> dict[str, Any]:
    """The content of ``results.json``, with the ratios of the laps to those that they are compared with.

    Args:
        report: The evaluation. The summary of a task without a finish has no laps.
        place: What was driven on, by key: the task, its track and game.
        checkpoint: File of the policy.
        laps_on: The laps to compare with.
    """
    compared = comparison(report, laps_on) if report.has_finish else {}
    ratio = (ratio_key(REFERENCE),) if ratio_key(REFERENCE) in compared else ()
    keys = ("seed", *(("track",) if report.tracks else ()))
    keys = (*keys, *(("finished", "lap_time_s", *ratio) if report.has_finish else ()), "return")
    keys = (*keys, *(("progress",) if report.has_finish else ()), "steps")
    entries = [e.to_json() | {key: lap_ratio(e, laps_on) for key in ratio} for e in report.episodes]
    results: dict[str, Any] = {
        **place,
        "checkpoint": checkpoint,
        "episodes": [{key: entry[key] for key in keys} for entry in entries],
        "mean_return": report.mean_return,
        "std_return": report.std_return,
    }
    if not report.has_finish:
        return results
    results |= {
        "finish_rate": report.finish_rate,
        "mean_lap_time_s": report.mean_lap_time_s,
        "std_lap_time_s": report.std_lap_time_s,
    }
    return results | compared


def write_results(path: str | Path, results: Mapping[str, object]) -> None:
    """Writes ``results.json``; a NaN in it is a bug and raises."""
    write_file(Path(path), (json.dumps(results, indent=2, allow_nan=False) + "\n").encode())


def _drive_undisturbed(
    env: gymnasium.Env,
    policy: ActingPolicy,
    seed: int,
    clip: ClipRecorder | None,
    film: Recorder | None,
    stop: Callable[[], bool] | None,
) -> EpisodeResult | None:
    """One episode to its end, or None when stopped before. A game that keeps getting lost counts at last."""
    for attempts_left in reversed(range(_MAX_ATTEMPTS)):
        try:
            result, info = _drive(env, policy, seed, clip, film, stop)
        except Interrupted:
            return None
        if "game_lost" not in info or not attempts_left:
            return result
        _logger.warning("the episode of seed %d is repeated: %s", seed, info["game_lost"])
    return None


def _drive(
    env: gymnasium.Env,
    policy: ActingPolicy,
    seed: int,
    clip: ClipRecorder | None,
    film: Recorder | None,
    stop: Callable[[], bool] | None,
) -> tuple[EpisodeResult | None, Mapping[str, object]]:
    """One episode and the info of its last step; no result when stopped before."""
    observation, _ = env.reset(seed=seed, options={FROM_START_OPTION: True})
    policy.begin_episode()
    if clip is not None:
        clip.begin()
    if film is not None:
        film.begin(env)
    rows: list[tuple[float, float, float, float]] = []
    race_times_s: list[float] = []
    actions: list[np.ndarray] = []
    done = False
    info: Info = {}
    while not done:
        if stop is not None and stop():
            return None, {}
        if clip is not None:
            clip.record(env, len(rows))
        action = policy.act(observation, deterministic=True)
        observation, reward, terminated, truncated, info = env.step(action)
        rows.append((info.get("x", math.nan), info.get("z", math.nan), info.get("speed_mps", math.nan), float(reward)))
        race_times_s.append(info.get("race_time_s", math.nan))
        actions.append(np.array(action, np.float32))
        if film is not None:
            film.step(env, action, float(reward), info)
        done = bool(terminated or truncated)
    result = _result(seed, np.asarray(rows, np.float32).reshape(-1, 4), info)
    return replace(result, race_times_s=np.array(race_times_s), actions=np.stack(actions)), info


def _result(seed: int, trajectory: np.ndarray, info: Info) -> EpisodeResult:
    """Result from the task's statistics; missing ones are computed from the trajectory."""
    statistics = info.get("episode_statistics", {})
    finished = bool(statistics["finished"]) if "finished" in statistics else None
    lap_time_s = float(statistics.get("lap_time_s", math.nan))
    return EpisodeResult(
        seed=seed,
        finished=finished,
        lap_time_s=lap_time_s if finished and not math.isnan(lap_time_s) else None,
        episode_return=float(statistics.get("return", trajectory[:, 3].sum(dtype=np.float64))),
        progress=float(statistics.get("progress", math.nan)),
        steps=int(statistics.get("length", len(trajectory))),
        wall_contacts=float(statistics.get("wall_contacts", math.nan)),
        mean_speed_mps=float(statistics.get("mean_speed_mps", trajectory[:, 2].mean())),
        max_speed_mps=float(statistics.get("max_speed_mps", trajectory[:, 2].max())),
        trajectory=trajectory,
        track=str(info["track"]) if "track" in info else None,
    )


def _steps_per_second(env: gymnasium.Env) -> float:
    return float(env.metadata.get("render_fps") or 20.0)


def _shrunk(picture: np.ndarray, max_width: int) -> np.ndarray:
    """The picture as contiguous uint8 RGB, at most ``max_width`` wide."""
    if picture.shape[1] > max_width:
        import cv2

        height = max(1, round(picture.shape[0] * max_width / picture.shape[1]))
        picture = cv2.resize(picture, (max_width, height), interpolation=cv2.INTER_AREA)
    return np.array(picture[..., :3], np.uint8)
