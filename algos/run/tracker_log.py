"""Sends metrics to Weights & Biases or Trackio in a separate thread, for which training never waits.

``algos.run.log`` owns one for each that is enabled. No error in it ends a training.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from algos.config.errors import UsageError
from tasks.process.write_trouble import WriteTrouble, reason

logger = logging.getLogger(__name__)

MAX_QUEUED = 100
"""Records that wait for a tracker; beyond them records are dropped."""
FINISH_S = 4.0
"""How long a tracker is waited for at the end [s]; its own hook finishes what is left when the process ends."""
TROUBLED_FINISH_S = 1.0
"""The same when it has not taken what came last [s]."""


class Tracker(NamedTuple):
    """A program that keeps the metrics of runs."""

    name: str
    """As messages call it."""
    begin: Callable[[Path, str, Mapping[str, object], dict[str, object]], Any]
    """Begins a run, which has ``log`` and ``finish``: run folder, title, settings, what is recorded with it."""


def _begin_wandb(directory: Path, title: str, settings: Mapping[str, object], config: dict[str, object]) -> Any:
    import wandb

    project, entity = settings["project"], settings["entity"]
    return wandb.init(project=project, entity=entity, name=title, dir=str(directory), config=config)


def _begin_trackio(directory: Path, title: str, settings: Mapping[str, object], config: dict[str, object]) -> Any:
    import trackio

    del directory  # where `trackio show` looks
    return trackio.init(settings["project"], name=title, config=config)


TRACKERS: Mapping[str, Tracker] = {
    "wandb": Tracker("W&B", _begin_wandb),
    "trackio": Tracker("Trackio", _begin_trackio),
}
"""By the name of the package, which is that of its section of the configuration and of its extra too."""


class TrackerLog:
    """One run of a tracker.

    Args:
        package: Key of ``TRACKERS``.
        directory: Run folder.
        title: Name of the run, unless the settings have one.
        config: Of the run, plain data; it is recorded too. Its section ``package`` has the settings.

    Raises:
        UsageError: The tracker cannot begin.
    """

    def __init__(self, package: str, directory: Path, title: str, config: Mapping[str, Any]) -> None:
        self._name = TRACKERS[package].name
        self._trouble = WriteTrouble(
            f"the log at {self._name}", "training continues, and metrics are dropped meanwhile"
        )
        self._records: queue.Queue[tuple[dict[str, float], int] | None] = queue.Queue(MAX_QUEUED)
        settings = config[package]
        try:
            self._run = TRACKERS[package].begin(directory, settings["run_name"] or title, settings, dict(config))
        except Exception as error:  # of any kind: no login, no network, no disk space
            raise UsageError(f"{package}.enabled=true, but {self._name} cannot begin: {reason(error)}") from error
        self._thread = threading.Thread(target=self._hand_over, name=package, daemon=True)
        self._thread.start()

    def scalars(self, metrics: Mapping[str, float], env_steps: int) -> None:
        """Hands over metrics; never waits."""
        try:
            self._records.put_nowait((dict(metrics), env_steps))
        except queue.Full:
            self._trouble.failed(TimeoutError("it accepts nothing more"))

    def close(self) -> None:
        """Hands over the rest, and waits a while for the tracker to have it."""
        try:
            self._records.put(None, timeout=TROUBLED_FINISH_S)
        except queue.Full:
            return
        self._thread.join(TROUBLED_FINISH_S if self._trouble.reason else FINISH_S)
        if self._thread.is_alive():
            logger.warning("%s has not taken everything within %.0f s", self._name, FINISH_S)

    def _hand_over(self) -> None:
        while (record := self._records.get()) is not None:
            self._attempt(lambda: self._run.log(record[0], step=record[1]))
        self._attempt(self._run.finish)

    def _attempt(self, call: Callable[[], object]) -> None:
        try:
            call()
        except Exception as error:  # of whatever kind: it must not end a training
            self._trouble.failed(error)
        else:
            self._trouble.worked()
