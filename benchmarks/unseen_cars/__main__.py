"""Drives five cars that no policy has seen, with policies trained with and without ``task.randomization.vehicle``.

    python -m benchmarks.unseen_cars [--percent 15] [--seeds 0 1 2] [--car-seeds 0] [--steps 150000]
        [--randomized-steps 150000] [--jobs 1]

TM20LidarProgress on ``medium``. Every constant of the five cars is up to 15 % off. Each policy drives ten seeded
episodes on each car, and its mean lap is compared with that of a policy trained on that car. A training that has
finished in ``runs`` is not repeated, nor is a drive.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from benchmarks.learning.trainings import ROOT, Training, run
from benchmarks.unseen_cars.cars import write_cars
from benchmarks.unseen_cars.plays import Play, driven
from benchmarks.unseen_cars.policies import policies

BAR = 1.05
"""The lap of a policy with randomization, over that of the policy trained on the car; and all ten episodes finish."""

Drives = dict[Training, dict[str, Play]]
"""By policy, then by car."""


def main() -> int:
    """Trains and drives what is missing, prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--percent", nargs="+", type=float, default=[15.0], help="of task.randomization.vehicle")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="of the policies that are compared")
    parser.add_argument("--car-seeds", nargs="+", type=int, default=[0], help="of the policies trained on each car")
    parser.add_argument("--steps", type=int, default=150_000, help="of the trainings on one car")
    parser.add_argument("--randomized-steps", type=int, help="of the trainings on randomized cars; default: --steps")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at once; more share the cores")
    parser.add_argument("--only-report", action="store_true", help="train nothing")
    options = parser.parse_args()
    runs = ROOT / "runs"
    cars = write_cars(runs / "unseen_cars")
    randomized_steps = options.randomized_steps or options.steps
    every = policies(options.steps, randomized_steps, options.percent, cars, options.seeds, options.car_seeds)
    if not options.only_report:
        run([training for training in every if training.folder(runs) is None], runs / "logs", options.jobs)
    drives = _drives(every, cars, runs)
    if not drives:
        print(f"no finished training of that many steps in {runs}")
        return 1
    print(table(drives, [car.stem for car in cars]))
    return 0


def table(drives: Drives, cars: list[str]) -> str:
    """Finished episodes, mean lap, and the lap over that of the policies trained on the car (Markdown)."""
    own = {car: _mean_lap([found[car] for one, found in drives.items() if one.arm == car]) for car in cars}
    lines = [f"| policy | seed | {' | '.join(cars)} | bar |", "|---|---|" + "---|" * (len(cars) + 1)]
    for training, found in drives.items():
        cells = [_cell(found[car], own[car]) if car in found else "" for car in cars]
        lines.append(f"| {training.arm} | {training.seed} | {' | '.join(cells)} | {_verdict(training, found, own)} |")
    lines += ["", "finished, mean lap [s], lap over that of the policy trained on the car"]
    return "\n".join(lines)


def _drives(every: list[Training], cars: list[Path], runs: Path) -> Drives:
    """Of all finished policies; one that was trained on a car drives that car."""
    drives: Drives = {}
    for training in every:
        folder = training.folder(runs)
        if folder is not None:
            own = [car for car in cars if car.stem == training.arm]
            drives[training] = {car.stem: driven(folder, car) for car in own or cars}
    return drives


def _mean_lap(plays: list[Play]) -> float | None:
    laps = [play.lap_s for play in plays if play.lap_s is not None]
    return float(np.mean(laps)) if laps else None


def _ratio(play: Play, own_lap_s: float | None) -> float | None:
    return play.lap_s / own_lap_s if play.lap_s is not None and own_lap_s is not None else None


def _cell(play: Play, own_lap_s: float | None) -> str:
    ratio = _ratio(play, own_lap_s)
    lap = f"{play.lap_s:.2f}" if play.lap_s is not None else "no lap"
    return f"{play.finished}/10, {lap}, {'?' if ratio is None else f'{ratio:.3f}'}"


def _verdict(training: Training, found: Mapping[str, Play], own: Mapping[str, float | None]) -> str:
    """Whether a policy that never saw the cars holds the bar on all of them."""
    if training.arm in own:
        return ""
    ratios = {car: _ratio(play, own[car]) for car, play in found.items()}
    is_missed = {car: found[car].finished < 10 or (ratio or 0.0) > BAR for car, ratio in ratios.items()}
    if any(is_missed.values()):
        return f"missed on {', '.join(car for car in is_missed if is_missed[car])}"
    return "?" if None in ratios.values() else "reached"


if __name__ == "__main__":
    sys.exit(main())
