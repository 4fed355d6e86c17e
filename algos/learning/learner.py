"""The learning loop: receive, append, acknowledge, sample, update, publish.

It knows no algorithm and no socket: samples come from a ``LearnerLink``, updates from anything with ``update(batch)``.
``algos.faces.agent`` owns one and is told of everything worth logging or saving through ``LearnerListener``. All state
of the loop is in its counters, so that a run that was cut anywhere goes on with the same next action.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from algos.learning.pace import Pace
from tasks.experience.evaluation_report import EvaluationReport
from tasks.experience.networking import LearnerLink
from tasks.experience.samples import TIMING_STATISTICS, Segment

logger = logging.getLogger(__name__)

IDLE_TIMEOUT_S = 0.05
"""How long the loop waits for samples when it may not update; bounds the reaction to a stop."""
COMMIT_PERIOD_S = 0.1
"""While updating, stored samples become durable, and are acknowledged, at most this often."""
TURNS_BETWEEN_POLLS = 10
"""Turns of the loop between two looks at the evaluator."""


class UpdatedAlgorithm(Protocol):
    """What learns."""

    def update(self, batch: Any) -> Mapping[str, torch.Tensor]:
        """One gradient update; metrics stay tensors on their device."""
        ...

    def acting_weights(self) -> dict[str, np.ndarray]:
        """The weights that workers act with."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Everything to go on."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of ``state_dict``."""
        ...


class SampledMemory(Protocol):
    """The replay memory."""

    @property
    def received(self) -> dict[str, int]:
        """Highest sequence number taken, by worker."""
        ...

    @property
    def num_transitions(self) -> int:
        """Number of rows that can be drawn."""
        ...

    def append(self, segment: Segment) -> bool:
        """Takes a segment; False when it was taken before."""
        ...

    def sample(self, batch_size: int) -> Any:
        """A batch of transitions."""
        ...

    def __len__(self) -> int: ...


class SegmentStorage(Protocol):
    """The stored replay."""

    def append(self, segment: Segment) -> object:
        """Writes a segment."""
        ...

    def commit(self) -> Mapping[str, int]:
        """Makes all written segments durable; returns the durable sequence number of each worker."""
        ...


class LearnerListener(Protocol):
    """Who is told of what happens; ``algos.faces.agent`` implements it."""

    def on_segments(self, segments: Sequence[Segment]) -> None:
        """New samples were taken into the memory."""
        ...

    def on_log(self, metrics: Mapping[str, float]) -> None:
        """Metrics since the last record."""
        ...

    def on_evaluation_request(self) -> None:
        """An evaluation of the current state begins."""
        ...

    def on_evaluation(self, report: EvaluationReport) -> None:
        """The evaluation ended."""
        ...

    def on_checkpoint(self, is_periodic: bool) -> None:
        """It is time to save; ``is_periodic``: at a multiple of checkpoint_interval."""
        ...


@dataclass(frozen=True)
class LearnerSchedule:
    """When the loop does what, and when it ends."""

    batch_size: int
    max_env_steps: int
    update_model_interval: int
    """Updates between two publications."""
    log_interval: int
    """Updates between two records of the metrics; a record waits for updates that are owed, at most once as long."""
    evaluation_interval: int
    """Environment steps between two evaluations; 0: none, not even at the end."""
    evaluation_seeds: tuple[int, ...]
    checkpoint_interval: int
    """Environment steps between two periodic checkpoints; 0: none."""
    max_updates: int | None = None
    """Updates at which it ends too; None: no such limit."""
    save_period_s: float = 60.0
    """Seconds between two saves of the newest state."""
    warm_up_log_period_s: float = 2.0
    """Seconds between two records while no updates are made."""
    final_evaluation_timeout_s: float = 600.0


class Learner:
    """Runs an algorithm on the samples of workers until enough steps were made or ``stop`` is set.

    Args:
        memory: Samples are drawn from it.
        storage: Keeps samples on disk, or None.
        algorithm: What learns.
        pace: Who waits for whom.
        schedule: When what happens.
        listener: Is told.
        stop: Ends the loop at the next turn.
        transform: What is done to every batch before the algorithm learns from it.
        acts_on_demand: Whether the link acts while it is asked for samples, so that it is asked only when no update is
            left to make.
        now: Monotonic clock [s].
    """

    link: LearnerLink
    """Where samples come from and weights go to; set before the first turn."""

    def __init__(
        self,
        memory: SampledMemory,
        storage: SegmentStorage | None,
        algorithm: UpdatedAlgorithm,
        pace: Pace,
        schedule: LearnerSchedule,
        listener: LearnerListener,
        stop: threading.Event,
        *,
        transform: Callable[[Any], Any] = lambda batch: batch,
        acts_on_demand: bool = False,
        now: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._memory = memory
        self._transform = transform
        self._acts_on_demand = acts_on_demand
        self.storage = storage
        self._algorithm = algorithm
        self.pace = pace
        self._schedule = schedule
        self._listener = listener
        self._stop = stop
        self._now = now
        self.publishes_first = False
        """Whether the agent that is there at the start acts at once, because it learned before."""
        self._version = 0
        self._updates_at_version: dict[int, int] = {0: 0}
        self._num_episodes = 0
        self._turns = 0
        self._is_evaluating = False
        self._evaluated_updates = -1
        self._next_evaluation = schedule.evaluation_interval
        self._next_checkpoint = schedule.checkpoint_interval
        self._elapsed_before_s = 0.0
        self._metrics = _MetricSums()
        self._episodes: list[Mapping[str, float]] = []
        self._weights_ages: list[int] = []
        self._num_duplicates = 0
        self._has_uncommitted = False
        self._parts: dict[str, float] = {}
        self._started_s = self._committed_s = self._saved_s = self._logged_s = now()
        self._logged_updates = self._logged_env_steps = 0

    @property
    def elapsed_s(self) -> float:
        """Seconds of training, those before a resume included."""
        return self._elapsed_before_s + self._now() - self._started_s

    @property
    def weights_version(self) -> int:
        """Version of the newest published weights."""
        return self._version

    @property
    def is_finished(self) -> bool:
        """Whether all updates are made, or all steps are driven and the updates that are owed for them are made."""
        if self._schedule.max_updates is not None and self.pace.updates >= self._schedule.max_updates:
            return True
        if self.pace.env_steps < self._schedule.max_env_steps:
            return False
        return not self.pace.may_update() if self._acts_on_demand else self.pace.may_receive()

    @property
    def learns_nothing(self) -> bool:
        """Whether training will end before another update is due."""
        return not self.pace.may_update_at(self._schedule.max_env_steps)

    def start(self) -> None:
        """Begins to count time, and publishes what was learned before; ``run`` calls it, or who makes its turns."""
        self._started_s = self._committed_s = self._saved_s = self._logged_s = self._now()
        if self.publishes_first:
            self.publish()

    def run(self) -> None:
        """Learns until a limit of the schedule or ``stop``; then evaluates once more unless stopped, and saves."""
        self.start()
        while not self._stop.is_set() and not self.is_finished:
            self.turn()
        if not self._stop.is_set():
            self._evaluate_at_the_end()
        self.commit()
        self._log()
        self._listener.on_checkpoint(is_periodic=False)

    def turn(self) -> None:
        """One turn of the loop: takes samples, makes an update, and does what is due."""
        may_update = self.pace.may_update() and self._memory.num_transitions > 0
        wants_samples = not may_update or not self._acts_on_demand
        if wants_samples and self.pace.env_steps < self._schedule.max_env_steps and self.pace.may_receive():
            self._take_samples(0.0 if may_update else IDLE_TIMEOUT_S)
        # Also when nothing arrived: workers at the end of their window wait for these acknowledgements.
        if self._now() - self._committed_s >= COMMIT_PERIOD_S:
            self.commit()
        if may_update:
            self._update()
        elif not self._acts_on_demand:
            self.commit()
        self._do_what_is_due()

    def publish(self) -> None:
        """Sends the current acting weights to the workers."""
        with self._timed("publish"):
            self._version += 1
            self._updates_at_version[self._version] = self.pace.updates
            if len(self._updates_at_version) > 10_000:
                del self._updates_at_version[next(iter(self._updates_at_version))]
            self.link.publish(self._algorithm.acting_weights(), self._version)

    def commit(self) -> None:
        """Makes all taken samples durable and acknowledges them."""
        if not self._has_uncommitted:
            return
        with self._timed("store"):
            durable = self._memory.received if self.storage is None else self.storage.commit()
            self.link.acknowledge(dict(durable))
        self._has_uncommitted = False
        self._committed_s = self._now()

    def counters(self) -> dict[str, Any]:
        """Counts for a checkpoint, plain data."""
        return {
            "pace": self.pace.state_dict(),
            "env_steps": self.pace.env_steps,
            "updates": self.pace.updates,
            "episodes": self._num_episodes,
            "weights_version": self._version,
            "next_evaluation": self._next_evaluation,
            "next_checkpoint": self._next_checkpoint,
            "elapsed_s": self.elapsed_s,
        }

    def load_counters(self, counters: Mapping[str, Any]) -> None:
        """The inverse of ``counters``."""
        self.pace.load_state_dict(counters["pace"])
        self._num_episodes = int(counters["episodes"])
        self._version = int(counters["weights_version"])
        self._updates_at_version = {0: 0, self._version: self.pace.updates}
        schedule, env_steps = self._schedule, self.pace.env_steps
        self._next_evaluation = _next_due(int(counters["next_evaluation"]), env_steps, schedule.evaluation_interval)
        self._next_checkpoint = _next_due(int(counters["next_checkpoint"]), env_steps, schedule.checkpoint_interval)
        self._elapsed_before_s = float(counters["elapsed_s"])
        self._logged_updates, self._logged_env_steps = self.pace.updates, self.pace.env_steps

    def _take_samples(self, timeout_s: float) -> None:
        """Takes what has come in into the memory and the stored replay."""
        with self._timed("receive"):
            # One at a time: the ratio of updates to steps then moves in the smallest steps.
            segments = self.link.receive(timeout_s, max_segments=1)
        if not segments:
            return
        self._has_uncommitted = True
        with self._timed("append"):
            new_segments = []
            for segment in segments:
                if not self._memory.append(segment):
                    self._num_duplicates += 1
                    continue
                if self.storage is not None:
                    self.storage.append(segment)
                self._count(segment)
                new_segments.append(segment)
        self._listener.on_segments(new_segments)

    def _count(self, segment: Segment) -> None:
        self.pace.add_env_steps(segment.num_env_steps)
        self._num_episodes += len(segment.episodes)
        self._episodes.extend(segment.episodes)
        published_at = self._updates_at_version.get(segment.weights_version)
        if segment.weights_version > 0 and published_at is not None:
            self._weights_ages.append(self.pace.updates - published_at)

    def _update(self) -> None:
        with self._timed("sample"):
            batch = self._transform(self._memory.sample(self._schedule.batch_size))
        with self._timed("update"):
            self._metrics.add(self._algorithm.update(batch))
        self.pace.add_updates()
        if self.pace.updates % self._schedule.update_model_interval == 0:
            self.publish()

    def _do_what_is_due(self) -> None:
        schedule, env_steps, now = self._schedule, self.pace.env_steps, self._now()
        if self._is_log_due(now):
            self._log()
        self._turns += 1
        if self._is_evaluating and self._turns % TURNS_BETWEEN_POLLS == 0:
            self._poll_evaluation()
        is_due = schedule.evaluation_interval and env_steps >= self._next_evaluation and self.pace.updates > 0
        if is_due and env_steps < schedule.max_env_steps:  # one more follows the end anyway
            self._next_evaluation = _next_multiple(env_steps, schedule.evaluation_interval)
            self._request_evaluation()
        if schedule.checkpoint_interval and env_steps >= self._next_checkpoint:
            self._next_checkpoint = _next_multiple(env_steps, schedule.checkpoint_interval)
            self._save(is_periodic=True)
        elif now - self._saved_s >= schedule.save_period_s:
            self._save(is_periodic=False)

    def _is_log_due(self, now: float) -> bool:
        """Whether to record: at the interval, or a little later, when the updates owed for new samples are made."""
        updates, interval = self.pace.updates - self._logged_updates, self._schedule.log_interval
        if updates == 0:
            return now - self._logged_s >= self._schedule.warm_up_log_period_s
        return updates >= interval and (self.pace.may_receive() or updates >= 2 * interval)

    def _save(self, is_periodic: bool) -> None:
        self.commit()
        _require_finite(self._metrics.means(), self.pace.updates)
        with self._timed("checkpoint"):
            self._listener.on_checkpoint(is_periodic)
        self._saved_s = self._now()

    def _request_evaluation(self) -> None:
        if self._is_evaluating:
            logger.info("evaluation at %d steps skipped: the previous one is not finished", self.pace.env_steps)
            return
        self.commit()
        _require_finite(self._metrics.means(), self.pace.updates)  # these networks may become the best ones
        with self._timed("evaluation"):
            self._is_evaluating = True
            self._evaluated_updates = self.pace.updates
            self._listener.on_evaluation_request()
            self.link.request_evaluation(
                self._algorithm.acting_weights(), max(self._version, 1), self._schedule.evaluation_seeds, clip=True
            )
        self._poll_evaluation()

    def _poll_evaluation(self) -> None:
        report = self.link.poll_evaluation()
        if report is not None:
            self._is_evaluating = False
            self._listener.on_evaluation(report)

    def _evaluate_at_the_end(self) -> None:
        if not self._schedule.evaluation_interval or self.pace.updates == 0:
            return
        self._await_evaluation()
        is_newest_evaluated = self._evaluated_updates == self.pace.updates
        if not is_newest_evaluated and not self._is_evaluating and not self._stop.is_set():
            self._request_evaluation()
            self._await_evaluation()

    def _await_evaluation(self) -> None:
        deadline_s = self._now() + self._schedule.final_evaluation_timeout_s
        while self._is_evaluating and not self._stop.is_set():
            self._poll_evaluation()
            if self._is_evaluating and self._now() >= deadline_s:
                logger.warning("no evaluation report within %.0f s", self._schedule.final_evaluation_timeout_s)
                return
            if self._is_evaluating:
                self._stop.wait(IDLE_TIMEOUT_S)

    def _log(self) -> None:
        now = self._now()
        seconds = max(now - self._logged_s, 1e-9)
        updates, env_steps = self.pace.updates - self._logged_updates, self.pace.env_steps - self._logged_env_steps
        metrics = {
            **self._metrics.means(),
            **episode_metrics(self._episodes),
            "time/env_steps": float(self.pace.env_steps),
            "time/updates": float(self.pace.updates),
            "rollout/episodes": float(self._num_episodes),
            "time/env_steps_per_second": env_steps / seconds,
            "time/updates_per_second": updates / seconds,
            "rollout/replay_size": float(len(self._memory)),
            "gateway/duplicate_segments": float(self._num_duplicates),
            "time/elapsed_s": self.elapsed_s,
            **self._part_metrics(seconds, updates),
        }
        if updates and not math.isnan(self.pace.ratio):
            metrics["time/update_ratio"] = self.pace.ratio
        if self._weights_ages:
            metrics["rollout/weights_age_updates"] = float(np.mean(self._weights_ages))
        self._logged_s, self._logged_updates, self._logged_env_steps = now, self.pace.updates, self.pace.env_steps
        self._episodes, self._weights_ages, self._parts = [], [], {}
        self._metrics = _MetricSums()
        _require_finite(metrics, self.pace.updates)
        self._listener.on_log(metrics)

    def _part_metrics(self, seconds: float, updates: int) -> dict[str, float]:
        """Share of the wall time of each part, and milliseconds per update of sampling and updating."""
        shares = {f"time/{part}": spent / seconds for part, spent in self._parts.items()}
        if updates:
            for part in ("sample", "update"):
                shares[f"time/{part}_ms"] = 1e3 * self._parts.get(part, 0.0) / updates
        return shares

    @contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        begin = self._now()
        try:
            yield
        finally:
            self._parts[part] = self._parts.get(part, 0.0) + self._now() - begin


_OF_A_WHOLE_EPISODE = ("return", "progress", "episode_length", "finish_rate")


def episode_metrics(episodes: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Means over ended episodes as ``rollout/...``; the lap time only over those that reached the finish.

    What depends on where an episode began is that of those from the start. The timing of the steps is known on the
    wall clock only.
    """
    names = {
        "return": "return",
        "finish_rate": "finished",
        "progress": "progress",
        "episode_length": "length",
        "wall_contacts": "wall_contacts",
        "mean_speed_mps": "mean_speed_mps",
        "lap_time_s": "lap_time_s",
        **{name: name for name in TIMING_STATISTICS},
    }
    metrics = {}
    for name, key in names.items():
        chosen = [e for e in episodes if not e.get("started_at_m")] if name in _OF_A_WHOLE_EPISODE else episodes
        values = [float(episode[key]) for episode in chosen if not math.isnan(episode.get(key, math.nan))]
        if values:
            metrics[f"rollout/{name}"] = float(np.mean(values))
    return metrics


class _MetricSums:
    """Sums of metric tensors on their device; read once, when they are logged."""

    def __init__(self) -> None:
        self._sums: dict[str, torch.Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, metrics: Mapping[str, torch.Tensor]) -> None:
        """Adds one update's metrics; an update may leave some out."""
        if metrics.keys() == self._sums.keys():
            torch._foreach_add_(list(self._sums.values()), [metrics[name] for name in self._sums])
        else:
            for name, value in metrics.items():
                self._sums[name] = self._sums[name] + value if name in self._sums else value.detach().clone()
        for name in metrics:
            self._counts[name] = self._counts.get(name, 0) + 1

    def means(self) -> dict[str, float]:
        """Mean of each metric over the updates that had it; a name without group belongs to ``losses/``."""
        if not self._sums:
            return {}
        sums = torch.stack(list(self._sums.values())).tolist()  # the device is waited for once
        return {
            name if "/" in name else f"losses/{name}": total / self._counts[name]
            for name, total in zip(self._sums, sums, strict=True)
        }


def _next_multiple(value: int, interval: int) -> int:
    return (value // interval + 1) * interval


def _next_due(stored: int, env_steps: int, interval: int) -> int:
    """When a resumed run does something next: as stored, or earlier where its interval is shorter now; 0: never."""
    if interval == 0:
        return 0
    following = _next_multiple(env_steps, interval)
    return min(stored, following) if stored else following


def _require_finite(metrics: Mapping[str, float], updates: int) -> None:
    wrong = [name for name, value in metrics.items() if name.startswith("losses/") and not math.isfinite(value)]
    if wrong:
        raise FloatingPointError(
            f"{', '.join(wrong)} must be finite, got {metrics[wrong[0]]} in the updates before {updates}; "
            "lower the learning rates or look at the rewards. The last checkpoint is from before"
        )
