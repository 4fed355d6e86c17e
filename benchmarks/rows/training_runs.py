"""Whole trainings as a user starts them, for a few seconds: how many updates or steps they make in one."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from benchmarks.learning.outcome import events_of, scalars
from benchmarks.learning.trainings import ROOT
from benchmarks.rows.row import Program

START_S = 600.0
"""How long a training may take until it logs for the first time."""
STOP_S = 60.0
POLL_S = 1.0
LEAST_S = 5.0
"""What is measured at least: TensorBoard's file is written every few seconds."""


def training_rate(words: Sequence[str], counter: str) -> Program:
    """How fast a counter of TensorBoard grows in a training, after its first two records.

    Args:
        words: Of the command line of train.py.
        counter: Such as ``time/updates``.
    """

    def run(seconds: float) -> float:
        with tempfile.TemporaryDirectory() as folder:
            return _driven(Path(folder), words, counter, max(seconds, LEAST_S))

    return run


def growth(values: np.ndarray, elapsed_s: np.ndarray) -> float:
    """Of a counter in a second, from the second record on: the first ones are those of warm-up and start.

    Args:
        values: Steps and values of the counter, shape (n, 2).
        elapsed_s: Steps and seconds of the same records, the last of which may be missing, shape (n or n - 1, 2).
    """
    last = min(len(values), len(elapsed_s)) - 1
    return float((values[last, 1] - values[1, 1]) / (elapsed_s[last, 1] - elapsed_s[1, 1]))


def _driven(folder: Path, words: Sequence[str], counter: str, seconds: float) -> float:
    command = [sys.executable, str(ROOT / "train.py"), "--headless", *words, "experiment=benchmark"]
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=folder, stdout=output, stderr=subprocess.STDOUT)
        try:
            return _measured(process, lambda: _summaries(folder, counter), seconds)
        except RuntimeError as error:
            text = log.read_text(encoding="utf-8", errors="replace").strip()
            raise RuntimeError(f"{error}: {' '.join(command)}\n{text[-2000:]}") from error
        finally:
            _stop(process)


def _measured(
    process: subprocess.Popen[bytes], read: Callable[[], tuple[np.ndarray, np.ndarray]], seconds: float
) -> float:
    deadline = time.monotonic() + START_S + 2 * seconds
    while time.monotonic() < deadline:
        time.sleep(POLL_S)
        if process.poll() is not None:
            raise RuntimeError(f"the training ended by itself, with status {process.returncode}")
        values, elapsed_s = read()
        if len(values) > 2 and elapsed_s[-1, 1] - elapsed_s[1, 1] >= seconds:
            return growth(values, elapsed_s)
    raise RuntimeError("the training did not log in time")


def _summaries(folder: Path, counter: str) -> tuple[np.ndarray, np.ndarray]:
    """The counter and the elapsed seconds so far, shape (n, 2) each."""
    runs = list(folder.glob("runs/benchmark_*"))
    if not runs or not (runs[0] / "summaries").is_dir():
        return np.empty((0, 2)), np.empty((0, 2))
    events = events_of(runs[0])
    return scalars(events, counter), scalars(events, "time/elapsed_s")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ends a training as Ctrl-C does, and waits for it."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
