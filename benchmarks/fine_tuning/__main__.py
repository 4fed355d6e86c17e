"""Minutes of real-time driving until a policy knows another car, from the simulator's policy and from scratch.

    Xvfb :77 -screen 0 1280x800x24 &
    python -m benchmarks.fine_tuning --display :77 [--minutes 10] [--track short] [--seed 0] [--sim-steps 60000]

TM20Lidar by keyboard. The game is the stand-in with a car whose constants are 10 % off. A policy is trained in the
simulator, once; then two trainings of so many minutes run against the stand-in, one after the other. Prints their
evaluations over the minutes. The game runs in real time: run nothing else on the machine.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import yaml

from benchmarks.learning.outcome import events_of, scalars
from benchmarks.learning.trainings import ROOT, Training, run
from tasks.process.atomic_file import write_file
from tasks.sim.vehicle import VehicleConstants, VehicleFactors
from tasks.sim.vehicle_files import differences

OFF = VehicleFactors(acceleration=0.9, grip=0.9, steering_gain=0.9, steering_delay=1.1)
"""The car of the game: 10 % slower, with less grip, turning less and later."""
TASK = ("task=TM20Lidar", "train=TM20LidarSAC", "task.control=keyboard")
EVALUATION_STEPS = 1200
"""A minute of driving lies between two evaluations."""
EPISODES = 3


class Curve(NamedTuple):
    """Evaluations of a training, one entry each."""

    minutes: np.ndarray
    finished: np.ndarray
    """Share of the episodes."""
    progress: np.ndarray
    """Mean of the covered share of the track."""
    laps_s: np.ndarray
    """Mean of the finished ones; NaN: none."""


def main() -> int:
    """Trains and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--display", required=True, help="X display of the game")
    parser.add_argument("--minutes", type=float, default=10.0, help="of each training in the game")
    parser.add_argument("--track", default="short", help="name or file, such as a ghost")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sim-steps", type=int, default=60_000, help="of the training in the simulator")
    options = parser.parse_args()
    runs = ROOT / "runs"
    name, track = f"fine_tuning.{options.sim_steps}", f"task.track={options.track}"
    words = (*TASK, track, "task.game=sim", f"max_env_steps={options.sim_steps}", f"seed={options.seed}")
    simulated = Training(name, "simulator", options.seed, words)
    if simulated.folder(runs) is None:
        run([simulated], runs / "logs", 1)
    folder = simulated.folder(runs)
    if folder is None:
        print(f"the training in the simulator failed: {runs / 'logs'}")
        return 1
    car = runs / "fine_tuning" / "car.yaml"
    write_file(car, yaml.safe_dump(differences(VehicleConstants().scaled(OFF)), sort_keys=False, width=120).encode())
    live = (*TASK, track, "task.game=live", f"task.live.display={options.display}", f"seed={options.seed}")
    arms = {
        "from the simulator": (*live, f"checkpoint={folder / 'nn' / 'best.pth'}", "checkpoint_mode=weights"),
        "from scratch": live,
    }
    curves = {}
    for number, (arm, arm_words) in enumerate(arms.items()):
        with _game(options.track, car, options.display) as game:
            try:
                curves[arm] = read(_trained(arm_words, f"fine_tuning.arm{number}.s{options.seed}", options.minutes))
            finally:
                game.terminate()
    print(table(curves))
    return 0


def _game(track: str, car: Path, display: str) -> subprocess.Popen[str]:
    """The stand-in, ready to be driven.

    Raises:
        RuntimeError: It ended instead.
    """
    command = [sys.executable, "-m", "tasks.stand_in", "--track", track, "--vehicle", str(car), "--display", display]
    game = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert game.stdout is not None
    if not game.stdout.readline():  # it says when it is ready
        game.communicate()
        raise RuntimeError(f"the stand-in ended with {game.returncode}: {' '.join(command)}")
    return game


def table(curves: dict[str, Curve]) -> str:
    """One row per evaluation (Markdown)."""
    lines = ["| policy | minutes | finished | progress | lap [s] |", "|---|---|---|---|---|"]
    for arm, curve in curves.items():
        for minutes, finished, progress, lap_s in zip(*curve, strict=True):
            lap = "" if np.isnan(lap_s) else f"{lap_s:.2f}"
            lines.append(f"| {arm} | {minutes:.1f} | {finished:.0%} | {progress:.0%} | {lap} |")
    return "\n".join(lines)


def read(folder: Path) -> Curve:
    """The evaluations of a run."""
    events = events_of(folder)
    found = {name: scalars(events, f"evaluation/{name}") for name in ("finish_rate", "progress", "lap_time_s")}
    elapsed = scalars(events, "time/elapsed_s")
    steps = found["finish_rate"][:, 0]
    laps = dict(found["lap_time_s"].tolist())
    return Curve(
        np.interp(steps, elapsed[:, 0], elapsed[:, 1]) / 60,
        found["finish_rate"][:, 1],
        found["progress"][:, 1],
        np.array([laps.get(step, np.nan) for step in steps.tolist()]),
    )


def _trained(words: Sequence[str], experiment: str, minutes: float) -> Path:
    """Trains for some minutes and returns the run's folder."""
    evaluations = (f"evaluation_interval={EVALUATION_STEPS}", f"evaluation_episodes={EPISODES}")
    words = [*words, *(f"train.params.config.{word}" for word in evaluations), f"experiment={experiment}"]
    print(f"{minutes:g} minutes: train.py --headless {' '.join(words)}", flush=True)
    log = ROOT / "runs" / "logs" / f"{experiment}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as out:
        command = [sys.executable, "train.py", "--headless", *words]
        training = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT)
        try:
            training.wait(60 * minutes)
        except subprocess.TimeoutExpired:
            training.send_signal(signal.SIGINT)
            training.wait(120)
    return max((ROOT / "runs").glob(f"{experiment}_*"), key=lambda path: path.stat().st_mtime)


if __name__ == "__main__":
    sys.exit(main())
