"""Runs ``train.py`` for each arm and seed, one after another or a few at once, and finds their folders again."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.learning.studies import Study

ROOT = Path(__file__).resolve().parents[2]
POLL_S = 1.0


class Training(NamedTuple):
    """One arm with one seed."""

    study: str
    arm: str
    seed: int
    words: tuple[str, ...]

    @property
    def experiment(self) -> str:
        """Name of its run folder, before the date."""
        return f"{self.study}.{self.arm.replace(', ', '-').replace(' ', '')}.s{self.seed}"

    def folder(self, runs: Path) -> Path | None:
        """The newest run of this training that reached its last step."""
        found = [path for path in runs.glob(f"{self.experiment}_*") if _is_finished(path)]
        return max(found, key=lambda path: path.stat().st_mtime, default=None)


def trainings(name: str, study: Study, arms: Sequence[str] = (), seeds: Sequence[int] = ()) -> Iterator[Training]:
    """All trainings of a study, seeds outermost, so that every arm has a first result early."""
    for seed in seeds or study.seeds:
        for arm in arms or study.arms:
            yield Training(name, arm, seed, (*study.words, *study.arms[arm], f"seed={seed}"))


def run(todo: Sequence[Training], logs: Path, jobs: int) -> list[Training]:
    """Trains; prints a line as each begins and ends. Ctrl-C ends all, which save first.

    Args:
        todo: The trainings.
        logs: Folder for their output.
        jobs: How many run at once.

    Returns:
        The failed ones.
    """
    logs.mkdir(parents=True, exist_ok=True)
    waiting, running, failed = list(todo), dict[subprocess.Popen, tuple[Training, float]](), list[Training]()
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                training = waiting.pop(0)
                running[start(training, logs)] = (training, time.monotonic())
            time.sleep(POLL_S)
            for process in [process for process in running if process.poll() is not None]:
                training, began_s = running.pop(process)
                minutes = (time.monotonic() - began_s) / 60
                print(f"{training.experiment}: exit {process.returncode} after {minutes:.1f} min, {len(waiting)} wait")
                if process.returncode:
                    failed.append(training)
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait(60)
    return failed


def start(training: Training, logs: Path) -> subprocess.Popen:
    """Begins one training."""
    words = ["--headless", *training.words, f"experiment={training.experiment}"]
    print(f"{training.experiment}: train.py {' '.join(words)}", flush=True)
    with (logs / f"{training.experiment}.log").open("wb") as log:
        return subprocess.Popen([sys.executable, "train.py", *words], cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)


def play(folder: Path, words: Sequence[str] = ()) -> None:
    """Drives ten fresh episodes with ``best.pth`` and leaves their results.json."""
    command = [sys.executable, "train.py", "--play", "--checkpoint", str(folder / "nn" / "best.pth")]
    subprocess.run([*command, "play.video=false", *words], cwd=ROOT, stdout=subprocess.DEVNULL, check=True)


def _is_finished(folder: Path) -> bool:
    from algos.run.checkpoint import load_checkpoint

    path = folder / "nn" / "last.pth"
    if not path.is_file():
        return False
    checkpoint = load_checkpoint(str(path))
    return checkpoint.counters["env_steps"] >= checkpoint.config["max_env_steps"]
