"""The live console: what a person sees while training runs.

``algos.faces.agent`` gives it the scalars of TensorBoard, under the same tags, and the status of the workers. On a
terminal it is one panel that is redrawn in place; elsewhere (a file, a pipe, CI) it prints one plain line per interval,
and one for each remote worker. It starts no thread.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import IO, TYPE_CHECKING, NamedTuple

from algos.run import worker_table
from tasks.experience.worker_status import WorkerStatus

if TYPE_CHECKING:
    from rich.console import Console as RichConsole
    from rich.console import RenderableType
    from rich.live import Live
    from rich.table import Table

SPARK_WIDTH = 48
BLOCKS = "▁▂▃▄▅▆▇█"
ASCII_BLOCKS = "_.-=+*#@"
RATE_WINDOW_S = 60.0
REDRAW_INTERVAL_S = 0.25

STEPS_TAG = "time/env_steps"
UPDATES_TAG = "time/updates"
ELAPSED_TAG = "time/elapsed_s"
RETURN_TAG = "rollout/return"
EVALUATED_RETURN_TAG = "evaluation/return"
FINISH_TAGS = ("rollout/finish_rate", "evaluation/finish_rate")
"""Only tasks with a finish have these; others show their returns."""
LAP_TAGS = ("rollout/best_lap_time_s", "rollout/lap_time_s", "evaluation/best_lap_time_s", "evaluation/lap_time_s")
"""The best lap shown is the least value ever seen under any of these."""


class Metric(NamedTuple):
    """One shown scalar."""

    label: str
    tag: str
    pattern: str
    """Format of the value."""
    plain: bool = False
    """Whether the plain line has it too."""


GROUPS: dict[str, tuple[Metric, ...]] = {
    "driving": (
        Metric("return", RETURN_TAG, "{:.1f}", plain=True),
        Metric("evaluated return", EVALUATED_RETURN_TAG, "{:.1f}"),
        Metric("progress", "rollout/progress", "{:.0%}"),
        Metric("finish rate", "rollout/finish_rate", "{:.0%}", plain=True),
        Metric("wall contacts", "rollout/wall_contacts", "{:.1f}"),
        Metric("evaluated finishes", "evaluation/finish_rate", "{:.0%}", plain=True),
        Metric("evaluated lap", "evaluation/lap_time_s", "{:.2f} s"),
        Metric("reference lap", "evaluation/reference_lap_time_s", "{:.2f} s"),
        Metric("lap / reference", "evaluation/lap_ratio", "{:.3f}", plain=True),
        Metric("human lap", "evaluation/human_lap_time_s", "{:.2f} s"),
        Metric("lap / human", "evaluation/human_lap_ratio", "{:.3f}", plain=True),
    ),
    "learning": (
        Metric("updates", UPDATES_TAG, "{:,.0f}"),
        Metric("updates per step", "time/update_ratio", "{:.2f}", plain=True),
        Metric("replay", "rollout/replay_size", "{:,.0f}", plain=True),
        Metric("Q", "train/q_mean", "{:.2f}"),
        Metric("critic loss", "losses/critic", "{:.3g}"),
        Metric("temperature", "train/alpha", "{:.3g}"),
    ),
    "speed": (
        Metric("steps/s", "time/env_steps_per_second", "{:,.0f}", plain=True),
        Metric("updates/s", "time/updates_per_second", "{:,.1f}", plain=True),
        Metric("workers", "gateway/workers", "{:.0f}", plain=True),
        Metric("restarts", "gateway/restarts", "{:.0f}"),
        Metric("weights age", "rollout/weights_age_updates", "{:,.0f} upd"),
    ),
}


def sparkline(values: Sequence[float], width: int = SPARK_WIDTH, blocks: str = BLOCKS) -> str:
    """Draws a series as one line of blocks, oldest first; a longer series is averaged into ``width`` buckets."""
    if not values:
        return ""
    count = min(width, len(values))
    edges = [round(i * len(values) / count) for i in range(count + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in itertools.pairwise(edges)]
    low, high = min(means), max(means)
    if high - low < 1e-12:
        return blocks[0] * count
    top = len(blocks) - 1
    return "".join(blocks[round((mean - low) / (high - low) * top)] for mean in means)


def duration(seconds: float) -> str:
    """Seconds as h:mm:ss; ``?`` when not known."""
    if not math.isfinite(seconds):
        return "?"
    minutes, rest = divmod(round(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"


class Console:
    """Shows the progress of a training.

    Args:
        total_env_steps: Environment steps at which training ends; 0: no end.
        title: Name of the run.
        total_updates: Updates at which it ends too; 0: no such end.
        interval_s: Time between plain lines when there is no panel [s].
        stream: Where to write; default: stdout.
        clock: Monotonic time [s].
        is_plain: True gives plain lines on a terminal too.
        best_lap_s: Best lap before a resume [s]; inf: none.
        best_return: Best evaluation before a resume, of a task without a finish; -inf: none.
    """

    def __init__(
        self,
        total_env_steps: int,
        title: str,
        *,
        total_updates: int = 0,
        interval_s: float = 10.0,
        stream: IO[str] | None = None,
        clock: Callable[[], float] = time.monotonic,
        is_plain: bool = False,
        best_lap_s: float = math.inf,
        best_return: float = -math.inf,
    ) -> None:
        from rich.console import Console as RichConsole

        self._total = total_env_steps
        self._total_updates = total_updates
        self._title = title
        self._interval_s = interval_s
        self._stream = stream if stream is not None else sys.stdout
        self._clock = clock
        self._next_s = -math.inf
        self._values: dict[str, float] = {}
        self._workers: tuple[WorkerStatus, ...] = ()
        self._returns: deque[float] = deque(maxlen=20_000)
        self._best_lap_s = best_lap_s
        self._best_return = best_return
        self._marks: deque[tuple[float, float]] = deque()
        self._rich: RichConsole = RichConsole(file=self._stream)
        self._is_live = not is_plain and self._rich.is_terminal and not self._rich.is_dumb_terminal
        self._live: Live | None = None
        self._moved_handlers: list[tuple[logging.StreamHandler, IO[str]]] = []
        self._is_closed = False

    def __enter__(self) -> Console:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def update(self, stats: Mapping[str, float]) -> None:
        """Takes new scalars by tag; what is missing or NaN keeps its last value."""
        known = {tag: float(value) for tag, value in stats.items() if not math.isnan(value)}
        self._values.update(known)
        if RETURN_TAG in known:
            self._returns.append(known[RETURN_TAG])
        self._best_lap_s = min([self._best_lap_s, *(known[tag] for tag in LAP_TAGS if tag in known)])
        self._best_return = max(self._best_return, known.get(EVALUATED_RETURN_TAG, -math.inf))
        if STEPS_TAG in known:
            self._mark()
        if self._clock() >= self._next_s:
            self._show()

    def workers(self, workers: Sequence[WorkerStatus]) -> None:
        """Takes what is known of the workers; shown at the next ``update``."""
        self._workers = tuple(workers)

    def message(self, text: str) -> None:
        """Shows a line that stays: an evaluation, a checkpoint, a restart of a worker."""
        if self._is_closed:
            return
        with contextlib.suppress(OSError):
            if self._live is not None:
                self._live.console.print(text, markup=False, highlight=False)
            else:
                self._write(text)

    def close(self) -> None:
        """Shows the last state once more and leaves the terminal as it was. Calling it twice is fine."""
        if self._is_closed:
            return
        if self._values:
            self._show()
        self._is_closed = True
        if self._live is not None:
            self._restore_log_handlers()
            with contextlib.suppress(OSError):
                self._live.stop()
            self._live = None

    def time_left_s(self) -> float:
        """Estimate from the rate of the last minute [s]; 0 at the end, NaN when there is none or no rate yet."""
        if self._share() >= 1:
            return 0.0
        if len(self._marks) < 2:
            return math.nan
        (first_s, first), (last_s, last) = self._marks[0], self._marks[-1]
        if last <= first or last_s <= first_s:
            return math.nan
        return max(0.0, 1.0 - last) * (last_s - first_s) / (last - first)

    def _share(self) -> float:
        """Part of the training that is done, by the end that is nearest; 0 where there is none."""
        ends = ((STEPS_TAG, self._total), (UPDATES_TAG, self._total_updates))
        return max((self._values.get(tag, 0.0) / total for tag, total in ends if total), default=0.0)

    def _mark(self) -> None:
        now = self._clock()
        self._marks.append((now, self._share()))
        while len(self._marks) > 2 and now - self._marks[1][0] >= RATE_WINDOW_S:
            self._marks.popleft()

    def _show(self) -> None:
        if self._is_closed:
            return
        self._next_s = self._clock() + (REDRAW_INTERVAL_S if self._is_live else self._interval_s)
        # A closed terminal, a closed pipe or a full disk ends no training.
        with contextlib.suppress(OSError):
            if not self._is_live:
                self._write("\n".join([self._plain_line(), *worker_table.lines(self._workers)]))
                return
            if self._live is None:
                self._live = self._started_live()
            self._live.update(self._panel(), refresh=True)

    def _write(self, text: str) -> None:
        encoding = self._rich.encoding
        self._stream.write(text.encode(encoding, "replace").decode(encoding) + "\n")
        self._stream.flush()

    def _plain_line(self) -> str:
        parts = [f"{self._title}: {self._steps_text()}", f"elapsed {duration(self._values.get(ELAPSED_TAG, math.nan))}"]
        if self._total:
            parts.append(f"left {duration(self.time_left_s())}")
        best = self._best()
        if best is not None:
            parts.append(best)
        metrics = (metric for group in GROUPS.values() for metric in group if metric.plain)
        parts += [f"{m.label} {m.pattern.format(self._values[m.tag])}" for m in metrics if m.tag in self._values]
        return " | ".join(parts)

    def _best(self) -> str | None:
        """The best lap; of a task without a finish the best evaluation; None while there is none."""
        if math.isfinite(self._best_lap_s):
            return f"best lap {self._best_lap_s:.2f} s"
        has_finish = any(tag in self._values for tag in FINISH_TAGS)
        return f"best return {self._best_return:.1f}" if math.isfinite(self._best_return) and not has_finish else None

    def _steps_text(self) -> str:
        steps = self._values.get(STEPS_TAG, 0.0)
        if not self._total:
            return f"{steps:,.0f} steps"
        text = f"{steps:,.0f} of {self._total:,} steps"
        if self._total_updates:
            text += f", {self._values.get(UPDATES_TAG, 0.0):,.0f} of {self._total_updates:,} updates"
        return f"{text} ({min(1.0, self._share()):.0%})"

    def _panel(self) -> RenderableType:
        from rich.panel import Panel
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        head = Table.grid(expand=True)
        head.add_column()
        head.add_column(justify="right")
        head.add_row(Text(self._steps_text(), style="bold"), Text(self._best() or "", style="bold green"))
        times = f"elapsed {duration(self._values.get(ELAPSED_TAG, math.nan))}"
        if self._total:
            times += f"   left {duration(self.time_left_s())}"
        columns = Table.grid(expand=True, padding=(0, 2))
        for _ in GROUPS:
            columns.add_column(ratio=1)
        columns.add_row(*(self._group_table(name) for name in GROUPS))
        blocks = BLOCKS if self._rich.encoding.lower().startswith("utf") else ASCII_BLOCKS
        width = max(8, min(120, self._rich.width - 14))
        spark = Text.assemble(
            ("returns ", "dim"), (sparkline(list(self._returns), width=width, blocks=blocks) or "none yet", "cyan")
        )
        body = Table.grid(expand=True)
        body.add_column()
        body.add_row(head)
        if self._total:
            body.add_row(ProgressBar(total=1.0, completed=min(1.0, self._share())))
        for row in (Text(times, style="dim"), "", columns, "", spark):
            body.add_row(row)
        workers = worker_table.table(self._workers)
        if workers is not None:
            body.add_row("")
            body.add_row(workers)
        return Panel(body, title=self._title)

    def _group_table(self, name: str) -> Table:
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 1))
        table.add_column(style="dim")
        table.add_column(justify="right")
        for metric in (metric for metric in GROUPS[name] if metric.tag in self._values):
            table.add_row(metric.label, Text(metric.pattern.format(self._values[metric.tag])))
        return table

    def _started_live(self) -> Live:
        from rich.live import Live

        before = {id(sys.stdout), id(sys.stderr)}
        live = Live(console=self._rich, auto_refresh=False, transient=False)
        live.start()
        self._move_log_handlers(before)
        return live

    def _move_log_handlers(self, before: set[int]) -> None:
        """Log lines go above the panel instead of through it: handlers keep the stream they were made with."""
        for handler in logging.getLogger().handlers:
            if isinstance(handler, logging.StreamHandler) and id(handler.stream) in before:
                self._moved_handlers.append((handler, handler.stream))
                handler.setStream(sys.stderr)

    def _restore_log_handlers(self) -> None:
        for handler, stream in self._moved_handlers:
            handler.setStream(stream)
        self._moved_handlers.clear()
