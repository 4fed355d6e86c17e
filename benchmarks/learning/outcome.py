"""Result of a training: its evaluations over steps and minutes, and the ten fresh episodes of its best policy."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.learning.studies import Study
from benchmarks.learning.trainings import Training, play


@dataclass(frozen=True)
class Outcome:
    """One finished training."""

    training: Training
    steps: np.ndarray
    """Environment steps of the evaluations, shape (E,)."""
    minutes: np.ndarray
    """Minutes of training at them, shape (E,)."""
    values: np.ndarray
    """The plotted values, shape (E,); NaN where an evaluation has none (no lap was finished)."""
    goal: tuple[float, float] | None
    """Steps and minutes at the first evaluation that reached the goal."""
    best_at: float
    """Environment steps of best.pth."""
    total: tuple[float, float, float]
    """Steps, updates and minutes of the whole training."""
    results: dict[str, Any]
    """results.json of ten fresh episodes with best.pth."""


def read(training: Training, study: Study, folder: Path) -> Outcome:
    """Reads a run folder; plays the ten episodes if they are missing."""
    from algos.run.checkpoint import load_checkpoint

    events = events_of(folder)
    elapsed = scalars(events, "time/elapsed_s")
    name, least = study.goal
    goals = scalars(events, name)
    curve = scalars(events, study.curve)
    steps = goals[:, 0]
    minutes = np.interp(steps, elapsed[:, 0], elapsed[:, 1]) / 60
    values = np.array([_at(curve, step) for step in steps])
    reached = np.flatnonzero(goals[:, 1] >= least)
    goal = (float(steps[reached[0]]), float(minutes[reached[0]])) if len(reached) else None
    updates = scalars(events, "time/updates")
    checkpoint = load_checkpoint(str(folder / "nn" / "best.pth"))
    if not list(folder.glob("play/*/results.json")):
        play(folder)
    newest = max(folder.glob("play/*/results.json"), key=lambda path: path.stat().st_mtime)
    return Outcome(
        training,
        steps,
        minutes,
        values,
        goal,
        float(checkpoint.best["env_steps"]),
        (float(elapsed[-1, 0]), float(updates[-1, 1]), float(elapsed[-1, 1]) / 60),
        json.loads(newest.read_text(encoding="utf-8")),
    )


def events_of(folder: Path) -> Any:
    """TensorBoard's reader of a run folder."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "summaries"), size_guidance={"scalars": 0})
    events.Reload()
    return events


def scalars(events: Any, name: str) -> np.ndarray:
    """Steps and values, shape (n, 2)."""
    if name not in events.Tags()["scalars"]:
        return np.empty((0, 2))
    return np.array([(event.step, event.value) for event in events.Scalars(name)], dtype=float)


def _at(curve: np.ndarray, step: float) -> float:
    found = np.flatnonzero(curve[:, 0] == step)
    return float(curve[found[-1], 1]) if len(found) else float("nan")
