"""The player: drives seeded episodes with a checkpoint and writes the results.

rl_games' Runner builds it for ``--play`` under the algorithm's name. The checkpoint contains the arguments and weights
of the policy, the player names the function that builds it; no critic, no link and no other process is needed.
"""

from __future__ import annotations

import contextlib
import logging
import math
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from algos.config.schema import PlayConfig, Rules
from algos.faces.checkpoint_fit import require_playable
from algos.faces.rl_games_parts import BasePlayer
from algos.faces.task_env import env_info, make_env, observation_spec
from algos.faces.trained_policy import trained_policy
from algos.run.checkpoint import Checkpoint, load_checkpoint, run_directory
from algos.run.interrupt import StopOnInterrupt
from algos.run.log import driven_line, driven_lines
from tasks.acting.evaluation import LEAGUE_RUNS, evaluate, league_score, play_results, write_results
from tasks.experience.compared_laps import DRIVERS, SCRIPTED, Laps, LapsOn, lap_ratio, ratio_key, time_key
from tasks.experience.evaluation_report import EpisodeResult, EvaluationReport
from tasks.film.frames import write_animation, write_film
from tasks.film.gap import reference_gaps_s
from tasks.film.recorder import FilmRecorder
from tasks.laps.files import ComparedLaps, write_laps
from tasks.laps.lap import sectors
from tasks.laps.picture import draw_comparison, legend_name
from tasks.process.step_watch import HangReporter, StepWatch
from tasks.process.write_trouble import NotSavedError, reason
from tasks.trackmania import course, reference_laps
from tasks.words.nested import Plain

logger = logging.getLogger(__name__)


class RemotePlayer(BasePlayer):
    """Drives ``play.episodes`` episodes; prints each lap, writes results.json, a video and a plot.

    Args:
        params: As described in ``algos.faces.runner_params``.
    """

    def __init__(self, params: Plain) -> None:
        self.algorithm_name = str(params["algo"]["name"])
        config = dict(params["config"])
        env_config = dict(config["env_config"])
        self.task = dict(env_config["task"])
        self._watch = StepWatch()
        env = self._watch.around(make_env(str(config["env_name"]), env_config))
        # With an env_info BasePlayer makes no environment.
        config |= {"env_info": env_info(env), "vec_env": env, "env_config": env_config}
        super().__init__({**params, "config": config})
        self.spec = observation_spec(self.env_info)
        self.play: PlayConfig = config["run"].play
        self.checkpoint_path: str | None = None
        self.checkpoint: Checkpoint | None = None
        self.policy: Any = None
        self._film = FilmRecorder() if self.play.video or self.play.animation else None
        self._stop = threading.Event()
        self._laps_on: LapsOn = cache(self._known_laps)

    def load_networks(self, params: Plain) -> None:
        """Nothing: the checkpoint says how its policy is built."""

    def restore(self, fn: str) -> None:
        """Builds the policy of a checkpoint.

        Raises:
            CheckpointError: The file cannot be read or does not fit this task.
        """
        checkpoint = load_checkpoint(fn)
        require_playable(checkpoint, fn, self.spec, self.algorithm_name)
        device, seed = str(self.config.get("inference_device", "cpu")), self.play.seed
        self.policy = trained_policy(checkpoint, str(fn), self.spec, device, seed)
        self.checkpoint, self.checkpoint_path = checkpoint, str(fn)

    def run(self) -> dict[str, Any]:
        """Drives, prints and writes.

        Returns:
            The content of results.json.

        Raises:
            NotSavedError: A file could not be written; the others are.
        """
        if self.checkpoint_path is None:
            raise ValueError("--play needs a checkpoint: add --checkpoint runs/<run>/nn/best.pth")
        _say(f"{_what(self.task)} with {self.checkpoint_path}")
        policy = self.policy if self.play.deterministic else _Sampling(self.policy)
        try:
            with StopOnInterrupt(self._stop), HangReporter(lambda: {"this process": self._watch.hangs_for_s()}):
                report = evaluate(
                    self.env,
                    policy,
                    self._seeds(),
                    film=self._film,
                    on_episode=self._print_episode,
                    stop=self._stop.is_set,
                )
        finally:
            self.env.close()
        directory = play_directory(self.checkpoint_path, Path(self.config.get("train_dir", "runs")))
        return self._write(report, directory)

    def get_action(self, obs: Mapping[str, np.ndarray], is_deterministic: bool = False) -> np.ndarray:
        """The action of the loaded policy for one dict observation."""
        return self.policy.act(obs, deterministic=is_deterministic)

    def reset(self) -> None:
        """Begins an episode."""
        self.policy.begin_episode()

    def _seeds(self) -> list[int]:
        episodes = LEAGUE_RUNS if self.play.rules is Rules.league else self.play.episodes
        return list(range(self.play.seed, self.play.seed + episodes))

    def _write(self, report: EvaluationReport, directory: Path) -> dict[str, Any]:
        results = play_results(
            report,
            place=_place(self.task),
            checkpoint=str(self.checkpoint_path),
            laps_on=cache(self._with_scripted),
        )
        laps = self._compared_laps(report)
        if laps is not None:
            results |= compared_results(laps, _shown(report).seed)
        _say(results_table(report, results))
        if self.play.rules is Rules.league and len(report.episodes) == LEAGUE_RUNS:
            _say(_league_line(report))
        files = self._files(report, results, laps, directory)
        missing = [_failure(path, write) for path, write in files.items()]
        if any(missing):
            raise NotSavedError(f"not saved: {', '.join(filter(None, missing))}")
        _say(f"written to {directory}: {', '.join(path.name for path in files)}")
        return results

    def _compared_laps(self, report: EvaluationReport) -> ComparedLaps | None:
        """The lap that is shown beside those that are known of its road; None: there is no road or no drive."""
        if not course.has_course(self.task) or not report.episodes:
            return None
        shown = _shown(report)
        task = course.on_track(self.task, shown.track)
        return reference_laps.compared_laps(task, course.course(task), shown)

    def _files(
        self, report: EvaluationReport, results: Plain, laps: ComparedLaps | None, directory: Path
    ) -> dict[Path, Callable[[Path], object]]:
        """What is left behind, and what writes each."""
        files: dict[Path, Callable[[Path], object]] = {}
        files[directory / "results.json"] = lambda path: write_results(path, results)
        film, task = self._film, self.task
        if film is not None and film.shots:
            filmed = course.on_track(task, report.episodes[0].track if report.episodes else None)
            gaps = reference_gaps_s(filmed, film)
            if self.play.video:
                files[directory / "episode.mp4"] = lambda path: write_film(film, path, _what(filmed), gaps)
            if self.play.animation:
                files[directory / "episode.webp"] = lambda path: write_animation(film, path, _what(filmed), gaps)
        if self.play.plot and report.episodes and course.has_course(task):
            files[directory / "driven_line.png"] = lambda path: (
                driven_lines(task, report, path)
                if report.tracks
                else driven_line(course.course(task), report, str(task["track"]), path)
            )
        if self.play.plot and laps is not None:
            files[directory / "laps.json"] = lambda path: write_laps(path, laps)
            where = _what(course.on_track(task, _shown(report).track))
            if laps.others:
                title = f"{where}: {legend_name(laps.driven)} against {legend_name(laps.others[0])}"
                files[directory / "comparison.png"] = lambda path: draw_comparison(laps, title, path)
            else:
                logger.info("comparison.png is left out: %s has no lap to compare with", where)
        return files

    def _print_episode(self, episode: EpisodeResult) -> None:
        outcome = _outcome(episode, "lap" if course.has_course(self.task) else "time")
        track = "" if episode.track is None else f"{episode.track:<9} "
        ratio = lap_ratio(episode, self._laps_on)
        if ratio is not None:
            outcome += f"{ratio:.3f} of the reference lap "
        _say(f"  seed {episode.seed:<9} {track}{outcome}return {episode.episode_return:8.2f}  steps {episode.steps}")

    def _known_laps(self, track: str | None) -> Laps:
        """The laps to compare with."""
        return course.laps_to_compare(course.on_track(self.task, track)) if course.has_course(self.task) else {}

    def _with_scripted(self, track: str | None) -> Laps:
        """They, and the scripted driver's, which drives in the simulator only.

        To tune it takes seconds, so of the tracks of single episodes only those have its lap that store it.
        """
        laps = self._laps_on(track)
        if not course.has_course(self.task) or self.task["game"] != "sim":
            return laps
        task = course.on_track(self.task, track)
        if track is not None and course.track_of(task).scripted is None:
            return laps
        scripted_s = course.scripted_lap_time_s(task)
        return laps if math.isnan(scripted_s) else {**laps, SCRIPTED: scripted_s}


class _Sampling:
    """A policy that samples where it is asked for the deterministic action."""

    def __init__(self, policy: Any) -> None:
        self._policy = policy
        self.version = policy.version

    def begin_episode(self) -> None:
        self._policy.begin_episode()

    def act(self, obs: Mapping[str, np.ndarray], deterministic: bool = False) -> np.ndarray:
        return self._policy.act(obs, deterministic=False)


def play_directory(checkpoint: str, train_dir: Path) -> Path:
    """Where results go: ``<run>/play/<time>``, or ``<train_dir>/play/<time>`` for a checkpoint from elsewhere."""
    time = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    run = run_directory(checkpoint)
    is_inside = run is not None and run.resolve().is_relative_to(train_dir.resolve())
    directory = (run if run is not None and is_inside else train_dir) / "play"
    path = directory / time
    number = 1
    while path.exists():
        number += 1
        path = directory / f"{time}_{number}"
    return path


def results_table(report: EvaluationReport, results: Plain) -> str:
    """The summary that ends the printout."""
    rows = []
    if report.mean_return is not None:
        rows.append(("mean return", f"{report.mean_return:.2f} (std {report.std_return:.2f})"))
    if not report.has_finish:
        return _lines(rows)
    lap, std = results["mean_lap_time_s"], results["std_lap_time_s"]
    rows.append(("finished", f"{sum(bool(e.finished) for e in report.episodes)} of {len(report.episodes)}"))
    if lap is not None:
        time = "lap" if "track" in results else "time"
        rows.append((f"mean {time}", f"{lap:.3f} s (std {std:.3f} s)"))
        rows.append((f"best {time}", f"{min(report.lap_times_s):.3f} s"))
    for driver in DRIVERS:
        if time_key(driver) in results:
            rows.append((f"{driver} lap", f"{results[time_key(driver)]:.3f} s"))
        if results.get(ratio_key(driver)) is not None:
            rows.append((f"mean lap / {driver}", f"{results[ratio_key(driver)]:.3f}"))
    return _lines(rows)


def compared_results(laps: ComparedLaps, seed: int) -> dict[str, Any]:
    """What results.json says of a lap against the first of those that it is compared with.

    Args:
        laps: The laps.
        seed: Of the episode whose lap it is.
    """
    reference = laps.others[0] if laps.others else None
    return {
        "reference": None if reference is None else {"name": reference.name, "lap_time_s": reference.lap_time_s},
        "compared_seed": seed,
        "sectors": [part.to_json() for part in sectors(laps.driven, reference, laps.length_m)],
    }


def _shown(report: EvaluationReport) -> EpisodeResult:
    """The episode with the best lap; where none finished, the one that came farthest."""

    def rank(episode: EpisodeResult) -> tuple[float, float]:
        lap = episode.lap_time_s
        progress = episode.progress
        return (-math.inf if lap is None else -lap, -math.inf if math.isnan(progress) else progress)

    return max(report.episodes, key=rank)


def _failure(path: Path, write: Callable[[Path], object]) -> str:
    """Writes a file; why that failed, empty when it did not."""
    try:
        write(path)
    except OSError as error:
        return f"{path} ({reason(error)})"
    return ""


def _lines(rows: Sequence[tuple[str, str]]) -> str:
    return "\n".join(f"  {name:<20} {value}" for name, value in rows)


def _place(task: Plain) -> dict[str, str]:
    """What was driven, for results.json: the keys of the task that say so, where it has them."""
    names = {"task": "name", "id": "id", "track": "track", "game": "game", "vehicle": "vehicle"}
    return {key: str(task[name]) for key, name in names.items() if task.get(name) is not None}


def _what(task: Plain) -> str:
    """Task and checkpoint in words."""
    place = _place(task)
    if "track" in place:
        return f"{place['task']} on {place['track']}"
    return place.get("id", place["task"])


def _outcome(episode: EpisodeResult, time: str) -> str:
    """A lap, or how far it came; nothing where there is no finish."""
    if episode.finished is None:
        return ""
    took = episode.lap_time_s
    return f"{f'{time} {took:.3f} s' if took is not None else f'progress {episode.progress:.1%}':<16} "


def _league_line(report: EvaluationReport) -> str:
    score = league_score(report)
    if score.eliminated:
        return f"  league               out after {score.crashes} crashes"
    mean = f"{score.mean_s:.3f} s (std {score.std_s:.3f} s)" if score.mean_s is not None else "no run completed"
    return f"  league               {mean}, {score.crashes} crashes"


def _say(line: str) -> None:
    """Prints the command's answer; a closed output does not stop the writing of files."""
    with contextlib.suppress(OSError):
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
