"""Sends metrics to Weights & Biases in a separate thread, for which training never waits.

``algos.run.log`` owns one if ``wandb.enabled``. No error in it ends a training.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from algos.config.errors import UsageError
from tasks.process.write_trouble import WriteTrouble, reason

logger = logging.getLogger(__name__)

MAX_QUEUED = 100
"""Records that wait for W&B; beyond them records are dropped."""
FINISH_S = 4.0
"""How long W&B is waited for at the end [s]; its own hook finishes what is left when the process ends."""
TROUBLED_FINISH_S = 1.0
"""The same when it has not taken what came last [s]."""


class WandbLog:
    """One run of W&B.

    Args:
        directory: Run folder.
        title: Name of the run, unless the settings have one.
        settings: ``project``, ``entity``, ``run_name``.
        config: What is recorded with the run.

    Raises:
        ValueError: The package is missing.
        UsageError: W&B cannot begin.
    """

    def __init__(
        self, directory: Path, title: str, settings: Mapping[str, object], config: Mapping[str, object]
    ) -> None:
        self._trouble = WriteTrouble("the log at W&B", "training continues, and metrics are dropped meanwhile")
        self._records: queue.Queue[tuple[dict[str, float], int] | None] = queue.Queue(MAX_QUEUED)
        self._run = _begin(directory, title, settings, config)
        self._thread = threading.Thread(target=self._hand_over, name="wandb", daemon=True)
        self._thread.start()

    def scalars(self, metrics: Mapping[str, float], env_steps: int) -> None:
        """Hands over metrics; never waits."""
        try:
            self._records.put_nowait((dict(metrics), env_steps))
        except queue.Full:
            self._trouble.failed(TimeoutError("it accepts nothing more"))

    def close(self) -> None:
        """Hands over the rest, and waits a while for W&B to have it."""
        try:
            self._records.put(None, timeout=TROUBLED_FINISH_S)
        except queue.Full:
            return
        self._thread.join(TROUBLED_FINISH_S if self._trouble.reason else FINISH_S)
        if self._thread.is_alive():
            logger.warning("W&B has not taken everything within %.0f s", FINISH_S)

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


def _begin(directory: Path, title: str, settings: Mapping[str, object], config: Mapping[str, object]) -> Any:
    try:
        import wandb
    except ImportError as error:
        raise ValueError("wandb.enabled=true needs the package wandb: pip install '.[wandb]'") from error
    try:
        return wandb.init(
            project=settings.get("project"),
            entity=settings.get("entity"),
            name=settings.get("run_name") or title,
            dir=str(directory),
            config=dict(config),
        )
    except Exception as error:  # of any kind: no login, no network, no disk space
        raise UsageError(f"wandb.enabled=true, but W&B cannot begin: {reason(error)}") from error
