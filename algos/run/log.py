"""The output of a run: scalars and pictures for TensorBoard, scalars for W&B and Trackio, and the live console.

The agents give it metrics and evaluation reports. A separate thread draws pictures, so that learning does not wait for
matplotlib; while two pictures are waiting, further ones are skipped.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from algos.run.console import Console
from algos.run.tracker_log import TRACKERS, TrackerLog
from tasks.experience.compared_laps import Laps, LapsOn, comparison, comparison_text
from tasks.experience.evaluation_report import EvaluationReport
from tasks.experience.worker_status import WorkerStatus
from tasks.trackmania.course import Course, course, has_course, laps_to_compare, on_track
from tasks.words.nested import Plain, value_at

logger = logging.getLogger(__name__)

MAX_QUEUED_PICTURES = 2
DRAWING_TIMEOUT_S = 60.0
"""How long the end of a training waits for pictures [s]."""
INTERRUPTED_TIMEOUT_S = 0.3
"""The same where it was asked to stop, beside the time in which the workers end; waiting longer is reported [s]."""
_POLL_S = 0.1
_TILE_PX, _TILES_IN_ROW = (420, 380), 5
"""Size of the picture of one episode where each has a track of its own."""


class RunLog:
    """Owns the writer, the console and the thread that draws.

    Args:
        writer: From ``algos.run.summaries.open_summaries``; closed here.
        directory: Run folder.
        title: Name of the run.
        max_env_steps: Steps at which training ends.
        task: The task's configuration as plain data; its track, if it has one, is drawn. None: no such pictures.
        config: That of the run as plain data; its sections of trackers say which are used. It is recorded with the run.
        is_headless: True shows plain lines instead of the live panel.
        max_updates: Updates at which training ends too; None: no such limit.
    """

    def __init__(
        self,
        writer: Any,
        directory: Path,
        title: str,
        max_env_steps: int,
        task: Mapping[str, object] | None,
        config: Mapping[str, Any],
        is_headless: bool = False,
        max_updates: int | None = None,
    ) -> None:
        self.writer = writer
        self._is_headless = is_headless
        self._title = title
        self._task = task
        self._course: Course | None = None
        self.laps_on: LapsOn = cache(self._laps_on)
        """The laps to compare with, as they were when they were first asked for: those of the task's track are now."""
        self.laps_on(None)
        self._best_lap_s, self._best_return = _best_shown({})
        self._console: Console | None = None
        self._max_env_steps = max_env_steps
        self._max_updates = max_updates
        enabled = [package for package in TRACKERS if config.get(package, {}).get("enabled")]
        self._trackers = [TrackerLog(package, directory, title, config) for package in enabled]
        self._drawer = ThreadPoolExecutor(1, thread_name_prefix="pictures")
        self._pictures: list[Future[None]] = []
        self._lock = threading.Lock()
        self._is_closed = False
        self._is_abandoned = threading.Event()
        """Pictures that are not there yet are left out."""

    def go_on_from(self, best: Plain) -> None:
        """Lets the console begin with the best evaluation before a resume, as checkpoints hold it."""
        self._best_lap_s, self._best_return = _best_shown(best)

    def scalars(
        self, metrics: Mapping[str, float], env_steps: int, workers: Sequence[WorkerStatus] | None = None
    ) -> None:
        """Records scalars over environment steps and shows them, with the workers if they are given."""
        with self._lock:
            for name, value in metrics.items():
                self.writer.add_scalar(name, value, env_steps)
        for tracker in self._trackers:
            tracker.scalars(metrics, env_steps)
        if self._console is None:
            self._console = Console(
                self._max_env_steps,
                self._title,
                total_updates=self._max_updates or 0,
                is_plain=self._is_headless,
                best_lap_s=self._best_lap_s,
                best_return=self._best_return,
            )
            metrics = {"time/env_steps": float(env_steps), **metrics}
        if workers is not None:
            self._console.workers(workers)
        self._console.update(metrics)

    def evaluation(self, report: EvaluationReport, env_steps: int) -> dict[str, float]:
        """Records an evaluation: scalars now, the driven line and the clip soon.

        Returns:
            The scalars.
        """
        metrics = {f"evaluation/{name}": value for name, value in report.statistics().items()}
        compared = comparison(report, self.laps_on)
        metrics |= {f"evaluation/{name}": value for name, value in compared.items() if value is not None}
        self.scalars(metrics, env_steps)
        self._pictures = [future for future in self._pictures if not future.done()]
        if len(self._pictures) < MAX_QUEUED_PICTURES and not self._is_closed:
            self._pictures.append(self._drawer.submit(self._draw, report, env_steps))
        return metrics

    def close(self, stop: threading.Event | None = None) -> None:
        """Writes pending output, the pictures of the last evaluation too. Calling it twice is fine.

        Args:
            stop: Set, also meanwhile, where nobody wants to wait for pictures.
        """
        if self._is_closed:
            return
        self._is_closed = True
        if self._console is not None:
            self._console.close()
        if not self._are_drawn(stop or threading.Event()):
            self._is_abandoned.set()
            logger.warning("the pictures of the last evaluation took too long and are left out")
        self._drawer.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            self.writer.close()
        for tracker in self._trackers:
            tracker.close()

    def _laps_on(self, track: str | None) -> Laps:
        with suppress(ValueError, OSError):  # a removed file ends nothing, nor does a name from a worker
            if self._task is not None and has_course(self._task):
                return laps_to_compare(on_track(self._task, track))
        return {}

    def _are_drawn(self, stop: threading.Event) -> bool:
        """Whether all pictures are; waits for them."""
        began_s = time.monotonic()
        if wait(self._pictures, INTERRUPTED_TIMEOUT_S).not_done and not stop.is_set():
            logger.info("drawing the pictures of the last evaluation")
        while wait(self._pictures, _POLL_S).not_done:
            if stop.is_set() or time.monotonic() - began_s > DRAWING_TIMEOUT_S:
                return False
        return True

    def _draw(self, report: EvaluationReport, env_steps: int) -> None:
        from tasks import pictures

        try:
            line = self._driven_line(report, env_steps)
            with self._lock:
                if self._is_abandoned.is_set():
                    return
                if line is not None:
                    self.writer.add_image("evaluation/driven_line", line, env_steps, dataformats="HWC")
                if report.clip is not None and len(report.clip):
                    fps = report.clip_fps or 10.0
                    pictures.add_gif(self.writer, "evaluation/clip", report.clip, fps, env_steps)
        except Exception:  # a picture must not end a training
            logger.warning("the pictures of the evaluation at %d steps failed", env_steps, exc_info=True)

    def _driven_line(self, report: EvaluationReport, env_steps: int) -> np.ndarray | None:
        trajectories = [episode.trajectory for episode in report.episodes]
        has_places = any(len(trajectory) and np.isfinite(trajectory[:, :2]).any() for trajectory in trajectories)
        if self._task is None or not has_course(self._task) or not has_places:
            return None
        if report.tracks:
            return driven_lines(self._task, report, stop=self._is_abandoned.is_set)
        if self._course is None:
            self._course = course(self._task)
        if self._is_abandoned.is_set():  # the end of the process waits for this thread
            return None
        return driven_line(self._course, report, f"{self._title}, {env_steps:,} steps")


def driven_line(course: Course, report: EvaluationReport, title: str, path: Path | None = None) -> np.ndarray:
    """The evaluated episodes over the track, coloured by speed, uint8 RGB, shape (h, w, 3)."""
    from tasks import pictures

    return pictures.plot_driven_line(
        course.centre_line,
        course.width_m,
        [episode.trajectory for episode in report.episodes],
        path,
        finished=[bool(episode.finished) for episode in report.episodes],
        title=f"{title}: {summary(report, lambda _: course.laps)}",
    )


def driven_lines(
    task: Mapping[str, object],
    report: EvaluationReport,
    path: Path | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> np.ndarray | None:
    """Each evaluated episode over its own track, coloured by speed, uint8 RGB, shape (h, w, 3).

    Args:
        task: Its configuration as plain data; its episodes have tracks of their own.
        report: What was driven.
        path: PNG file to write; None: none.
        stop: Asked before each episode is drawn; true abandons the picture, and None is returned.
    """
    from tasks import pictures

    tiles: list[np.ndarray] = []
    for episode in report.episodes:
        if stop():
            return None
        driven_on = course(on_track(task, episode.track))
        lap = f"{episode.progress:.0%}" if episode.lap_time_s is None else f"{episode.lap_time_s:.2f} s"
        tiles.append(
            pictures.plot_driven_line(
                driven_on.centre_line,
                driven_on.width_m,
                [episode.trajectory],
                finished=[bool(episode.finished)],
                title=f"{driven_on.name}: {lap}",
                size_px=_TILE_PX,
                has_legend=False,
            )
        )
    picture = pictures.side_by_side(tiles, _TILES_IN_ROW)
    if path is not None:
        pictures.write_png(picture, path)
    return picture


def _best_shown(best: Plain) -> tuple[float, float]:
    """Best lap [s] and, where there is no finish, return of an evaluation that a checkpoint holds; inf, -inf: none."""
    episodes = value_at(best, "report.episodes") or []
    laps = [float(episode["lap_time_s"]) for episode in episodes if episode["lap_time_s"] is not None]
    has_return = bool(episodes) and all(episode["finished"] is None for episode in episodes)
    return min(laps, default=math.inf), float(best["score"][0]) if has_return else -math.inf


def summary(report: EvaluationReport, laps_on: LapsOn) -> str:
    """One line: finished episodes, mean lap or progress; where there is no finish the mean return.

    Args:
        report: What was driven.
        laps_on: The laps to compare with.
    """
    if not report.has_finish:
        return f"return {report.mean_return or 0.0:.1f} (std {report.std_return or 0.0:.1f})"
    finished = sum(bool(episode.finished) for episode in report.episodes)
    line = f"{finished}/{len(report.episodes)} finished"
    if report.mean_lap_time_s is not None:
        return f"{line}, lap {report.mean_lap_time_s:.2f} s{comparison_text(report, laps_on)}"
    progress = [episode.progress for episode in report.episodes if not math.isnan(episode.progress)]
    return f"{line}, progress {100 * float(np.mean(progress)):.0f} %" if progress else line
