"""Ten seeded episodes of a trained policy on a car, driven once and found again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from benchmarks.learning.trainings import play
from benchmarks.unseen_cars.policies import randomization
from tasks.sim.vehicle_files import vehicle_text


class Play(NamedTuple):
    """What ten episodes came to."""

    finished: int
    lap_s: float | None
    """Mean of the finished ones [s]."""


def driven(run: Path, car: Path) -> Play:
    """Drives ``best.pth`` of a run on a car, unless that was done."""
    found = _found(run, car)
    if found is None:
        play(run, (f"task.vehicle={car}", *randomization(0), "play.plot=false"))
        found = _found(run, car)
    if found is None:
        raise FileNotFoundError(f"{run}: --play left no results.json of {car}")
    return found


def _found(run: Path, car: Path) -> Play | None:
    policy_s, text = (run / "nn" / "best.pth").stat().st_mtime, vehicle_text(str(car))
    for file in run.glob("play/*/results.json"):
        results = json.loads(file.read_text(encoding="utf-8"))
        if file.stat().st_mtime >= policy_s and results.get("vehicle") == text and len(results["episodes"]) == 10:
            return Play(sum(episode["finished"] for episode in results["episodes"]), results["mean_lap_time_s"])
    return None
