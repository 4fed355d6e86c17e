"""--benchmark: the durations of the parts of a step on this machine, with this game and this policy.

Called by ``train.py``. Drives a number of steps across episodes as a worker would; prints a table and writes
``benchmark.json`` and a picture of the distributions, ``benchmark.png``.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np

from tasks import registry
from tasks.acting.punctuality import punctual
from tasks.config import AnyTaskConfig, ClockKind, RealTimeTaskConfig, TaskConfig
from tasks.envs.interface import TaskInterface
from tasks.envs.realtime import RealTimeEnv
from tasks.experience.policy import ActingPolicy
from tasks.game.clock import Clock, WallClock
from tasks.game.errors import GameSetupError
from tasks.process.atomic_file import write_file
from tasks.roles.benchmark.timed_interface import TimedInterface
from tasks.roles.config import BenchmarkConfig
from tasks.words.nested import Plain

ROWS = {
    "step": "from one action to the next",
    "inference": "the policy chooses an action",
    "send": "an action is sent",
    "capture": "an observation is captured",
    "observation_age": "how old the telemetry is when the policy gets it",
}
"""The rows of the table and what they mean."""

_WARM_UP_STEPS = 5
"""Steps that do not count, since something is loaded or compiled in them."""
_SEED = 1_000_000

_logger = logging.getLogger(__name__)


class Durations(NamedTuple):
    """One row of the table [s]."""

    mean: float
    p50: float
    p99: float
    max: float
    num: int
    """Number of values."""

    @staticmethod
    def of(values: Sequence[float]) -> Durations | None:
        """Of what is known among the values; None when nothing is."""
        known = np.array([value for value in values if not math.isnan(value)])
        if not len(known):
            return None
        p50, p99 = np.percentile(known, (50, 99))
        return Durations(float(known.mean()), float(p50), float(p99), float(known.max()), len(known))


def require_clock(task: AnyTaskConfig) -> None:
    """Refuses a task without a clock.

    Raises:
        ValueError: It has none.
    """
    if not isinstance(task, RealTimeTaskConfig):
        raise ValueError(f"--benchmark measures the steps of a clock, which task {task.name!r} has not")


def run(task: RealTimeTaskConfig, config: BenchmarkConfig, policy: ActingPolicy, folder: Path) -> dict[str, Any]:
    """Measures, prints a table and writes the rest into a folder.

    Args:
        task: The task; its game and clock are decided.
        config: How many steps.
        policy: Chooses the actions, sampled as in training.
        folder: Where benchmark.json and benchmark.png go; created when it is missing.

    Returns:
        The content of benchmark.json.

    Raises:
        ValueError: This machine cannot drive the game.
    """
    try:
        with contextlib.closing(StepBenchmark(task, policy)) as benchmark:
            precedence = benchmark.drive(config.steps)
    except GameSetupError as error:
        raise ValueError(str(error)) from error
    results = _results(task, benchmark, precedence)
    folder.mkdir(parents=True, exist_ok=True)
    write_file(folder / "benchmark.json", (json.dumps(results, indent=2, allow_nan=False) + "\n").encode())
    draw(benchmark.values, task.rtgym.time_step_duration, _title(results), folder / "benchmark.png")
    sys.stdout.write(table(results) + f"\nwritten to {folder}\n")
    sys.stdout.flush()
    return results


class StepBenchmark:
    """Drives and measures.

    Args:
        task: The task; its game and clock are decided.
        policy: Chooses the actions.
    """

    def __init__(self, task: RealTimeTaskConfig, policy: ActingPolicy) -> None:
        self.values: dict[str, list[float]] = {name: [] for name in ROWS}
        """Measured durations by row [s]."""
        self.num_steps = 0
        self.num_episodes = 0
        self.late_steps: float | None = None
        """Steps whose action was sent late; None in virtual time, where none can be."""
        self.timeouts: float | None = None
        self._task = task
        self._policy = policy
        self._env = _dict_env(task)
        self._clock: Clock = getattr(self._env, "clock", None) or WallClock()
        self._timed = TimedInterface(self._env.interface, self._clock)
        self._env.replace_interface(cast("TaskInterface", self._timed))

    def drive(self, num_steps: int) -> str:
        """Makes the steps; Ctrl-C ends it early and keeps what was measured until then.

        Returns:
            Which precedence the process had.
        """
        is_real_time = self._task.clock is ClockKind.wall
        with punctual() if is_real_time else contextlib.nullcontext("none") as precedence, _progress(num_steps) as show:
            try:
                self._episode(_WARM_UP_STEPS, None)
                while self.num_steps < num_steps:
                    self._episode(num_steps - self.num_steps, show)
            except KeyboardInterrupt:
                if not self.values["step"]:
                    raise
                _logger.warning("interrupted: the figures are those of %d steps", self.num_steps)
        return precedence

    def close(self) -> None:
        """Releases the game."""
        self._env.close()

    def _episode(self, max_steps: int, show: Any) -> None:
        """Drives an episode or its beginning; without ``show`` nothing counts."""
        observation, _ = self._env.reset(seed=_SEED + self.num_episodes)
        self._policy.begin_episode()
        inferences_s: list[float] = []
        ages_s: list[float] = []
        done = False
        try:
            while not done and len(inferences_s) < max_steps:
                started_s = time.perf_counter()
                action = self._policy.act(observation)
                inferences_s.append(time.perf_counter() - started_s)
                observation, _, terminated, truncated, _ = self._env.step(action)
                done = terminated or truncated
                # The last observation is never acted on, and comes after the rest between two episodes.
                ages_s.append(math.nan if done else self._clock.now() - self._newest_telemetry_s())
                if show is not None:
                    show()
            self._env.stop()
        finally:
            if show is not None:
                self._count(inferences_s, ages_s, self._env.timing_statistics())

    def _newest_telemetry_s(self) -> float:
        return self._timed.captures[-1].telemetry_s if self._timed.captures else math.nan

    def _count(self, inferences_s: list[float], ages_s: list[float], statistics: Mapping[str, float]) -> None:
        sends = self._timed.sends
        self.num_steps += len(ages_s)
        self.num_episodes += 1
        self.values["step"] += np.diff([send.started_s for send in sends]).tolist()
        self.values["inference"] += inferences_s
        self.values["send"] += [send.duration_s for send in sends]
        self.values["capture"] += [capture.duration_s for capture in self._timed.captures]
        self.values["observation_age"] += ages_s
        if "late_steps" in statistics:
            self.late_steps = (self.late_steps or 0.0) + statistics["late_steps"]
            self.timeouts = (self.timeouts or 0.0) + statistics["timeouts"]


def table(results: Plain) -> str:
    """The figures for people [ms]."""
    lines = [_title(results), f"{'[ms]':<18}{'mean':>10}{'p50':>10}{'p99':>10}{'max':>10}"]
    for name, meaning in ROWS.items():
        row = results["rows"][name]
        if row is not None:
            figures = "".join(f"{1e3 * row[key]:>10.3f}" for key in ("mean", "p50", "p99", "max"))
            lines.append(f"{name.replace('_', ' '):<18}{figures}   {meaning}")
    if results["late_steps"] is not None:
        lines.append(f"late steps {results['late_steps']:.0f} ({results['timeouts']:.0f} timed out)")
    return "\n".join(lines)


def draw(values: Mapping[str, Sequence[float]], time_step_s: float, title: str, path: Path) -> None:
    """Draws a histogram of each row with its mean and p99."""
    from matplotlib.figure import Figure

    known = {name: 1e3 * np.array(row)[~np.isnan(row)] for name, row in values.items()}
    known = {name: row for name, row in known.items() if len(row)}
    figure = Figure(figsize=(10.0, 2.0 * len(known) + 0.6), layout="constrained")
    figure.suptitle(title)
    for axes, (name, row) in zip(np.atleast_1d(figure.subplots(len(known))), known.items(), strict=True):
        mean, p99, lower = row.mean(), np.percentile(row, 99), row.min()
        # What is far beyond the p99 would flatten the rest: it is counted in the last bin.
        upper = max(min(row.max(), 1.5 * p99), 1.01 * lower, lower + 1e-3)
        axes.hist(np.minimum(row, upper), bins=80, range=(lower, upper), color="#4477aa", log=True)
        axes.axvline(mean, color="#222222", label=f"mean {mean:.3f} ms")
        axes.axvline(p99, color="#cc3311", linestyle="--", label=f"p99 {p99:.3f} ms")
        if name == "step":
            axes.axvline(1e3 * time_step_s, color="#228833", linestyle=":", label=f"nominal {1e3 * time_step_s:.0f} ms")
        axes.set_xlabel(f"{name.replace('_', ' ')}: {ROWS[name]} [ms]")
        axes.set_ylabel("count")
        axes.legend(loc="upper right", fontsize="small")
    figure.savefig(path, dpi=100)


def _dict_env(task: RealTimeTaskConfig) -> RealTimeEnv:
    env = registry.make(task.name, observation="dict", config=task)
    assert isinstance(env, RealTimeEnv)
    return env


def _results(task: RealTimeTaskConfig, benchmark: StepBenchmark, precedence: str) -> dict[str, Any]:
    rows = {name: Durations.of(values) for name, values in benchmark.values.items()}
    return {
        "task": task.name,
        **_driven(task),
        "clock": task.clock.name,
        "time_step_s": task.rtgym.time_step_duration,
        "start_obs_capture_s": task.rtgym.start_obs_capture,
        "precedence": precedence,
        "steps": benchmark.num_steps,
        "episodes": benchmark.num_episodes,
        "late_steps": benchmark.late_steps,
        "timeouts": benchmark.timeouts,
        "rows": {name: row._asdict() if row is not None else None for name, row in rows.items()},
    }


def _driven(task: RealTimeTaskConfig) -> dict[str, str]:
    """Where TrackMania is driven, and how; nothing for another task."""
    if not isinstance(task, TaskConfig):
        return {}
    return {"track": task.track, "game": task.game.name, "control": task.control.name}


def _title(results: Plain) -> str:
    place = ""
    if "track" in results:
        place = f" on {results['track']}, {'live game' if results['game'] == 'live' else 'simulator'}"
    pace = "real time" if results["clock"] == "wall" else "virtual time"
    return (
        f"{results['task']}{place}, {pace}: {results['steps']} steps of "
        f"{1e3 * results['time_step_s']:.0f} ms in {results['episodes']} episodes"
    )


@contextlib.contextmanager
def _progress(num_steps: int) -> Iterator[Any]:
    """A bar on a terminal; yields what is called after each step."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("measuring"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, transient=True, disable=not sys.stdout.isatty(), auto_refresh=False) as progress:
        bar = progress.add_task("steps", total=num_steps)
        last_s = [-math.inf]

        def show() -> None:
            progress.advance(bar)
            if time.monotonic() - last_s[0] > 0.5:
                last_s[0] = time.monotonic()
                progress.refresh()

        yield show
