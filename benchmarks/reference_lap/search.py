"""Finds the actions of a fast lap: cross-entropy search over the next seconds, place by place along the lap.

At each place of the lap many cars drive samples of the next actions (``rollouts``); each is rated by the time that the
rest of the lap takes from where it ends (``guide``), or by its lap time where it finishes. The steer is drawn from
Gaussians, the pedals from four ways to press them; the best samples shape the next draw. The best one drives some
steps, and the search goes on from there. Each further sweep begins with the actions of the one before.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.reference_lap.guide import Guide
from benchmarks.reference_lap.road import Road
from benchmarks.reference_lap.rollouts import Rollouts, finish_time_s
from tasks.sim import vehicle
from tasks.sim.reference_lap import STEP_S, rounded_actions
from tasks.sim.vehicle import FloatArray

Actions = NDArray[np.float32]

PEDALS = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0], [1.0, 1.0]])
"""The four ways to press gas and brake; both keep a car driving while it changes gear, and start slides."""
_STAY, _LEAST = 0.9, 0.01
"""Probability of the planned pedals at first, and the least of any."""
_TOUCH_S = 5.0
"""What touching a wall costs [s]: a reference lap does not."""


@dataclass(frozen=True)
class SearchSettings:
    """How thoroughly a sweep looks."""

    horizon: int = 36
    """Steps that are looked ahead."""
    stride: int = 3
    """Steps driven between two looks."""
    rounds: int = 5
    """Draws at each place."""
    elites: int = 24
    """Best samples that shape the next draw."""
    spread: float = 0.25
    """Standard deviation of the first draw of the steer."""
    least_spread: float = 0.01
    """It falls no lower."""


class Search:
    """Sweeps over one lap; ``sweep`` gives a finished lap."""

    def __init__(self, road: Road, guide: Guide, rollouts: Rollouts, seed: int = 0) -> None:
        """Begins with no plan.

        Args:
            road: Of the track.
            guide: Rates what lies beyond the horizon.
            rollouts: The cars, one per sample.
            seed: Of the draws.
        """
        self._road, self._guide, self._rollouts = road, guide, rollouts
        self._rng = np.random.default_rng(seed)

    def sweep(
        self, plan: Actions, settings: SearchSettings, on_place: Callable[[float], None] = lambda _: None
    ) -> tuple[Actions, float]:
        """Searches from start to finish once.

        Args:
            plan: Actions to begin with, shape (N, 3); empty: the guide's.
            settings: How thoroughly.
            on_place: Told the covered share of the lap after each look.

        Returns:
            The actions of the lap, and its time [s]; infinite when it does not finish.
        """
        memory, step, station = self._rollouts.start(), 0, 0.0
        driven: list[Actions] = []
        limit = 3 * math.ceil(float(self._guide.time_s[-1]) / STEP_S)
        while math.isnan(float(finish_time_s(memory))) and step < limit:
            plan = self._extended(plan, settings.horizon, station)
            plan, ends_at = self._look(memory, step, plan, settings, station)
            count = settings.stride
            chosen, plan = plan[:count], plan[count:]
            driven.append(chosen)
            memory = self._rollouts.drive(memory, step, np.repeat(chosen[None], self._rollouts.count, axis=0))[0].copy()
            step, station = step + count, self._station(memory, station)
            self._ends_at = ends_at
            on_place(min(station / self._road.length_m, 1.0))
        lap_s = float(finish_time_s(memory))
        touched = memory[vehicle.CONTACTS] > 0.0
        return np.concatenate(driven), math.inf if math.isnan(lap_s) or touched else lap_s

    def _extended(self, plan: Actions, count: int, station: float) -> Actions:
        """The plan, with the guide's actions behind its end if it is shorter than ``count``."""
        missing = count - len(plan)
        if missing <= 0:
            return plan
        begin = self._ends_at if len(plan) else station
        return np.concatenate([plan, rounded_actions(self._guide.actions_from(begin, missing, STEP_S))])

    def _look(
        self, memory: FloatArray, step: int, plan: Actions, settings: SearchSettings, near_m: float
    ) -> tuple[Actions, float]:
        """The plan with a better beginning, and the station at which that ends [m]."""
        horizon, count, elites = settings.horizon, self._rollouts.count, settings.elites
        best, rest = plan[:horizon], plan[horizon:]
        steer, spread = best[:, 2].astype(np.float64), np.full(horizon, settings.spread)
        chance = _chances(best)
        ends_at, rate = near_m, 0.7
        for _ in range(settings.rounds):
            samples = self._draw(best, steer, spread, chance, count)
            cost, stations = self._rate(self._rollouts.drive(memory, step, samples), step + horizon, near_m)
            order = np.argsort(cost, kind="stable")[:elites]
            best, ends_at = samples[order[0]], float(stations[order[0]])
            chosen = samples[order].astype(np.float64)
            steer += rate * (chosen[:, :, 2].mean(axis=0) - steer)
            spread = np.maximum(spread + rate * (chosen[:, :, 2].std(axis=0) - spread), settings.least_spread)
            seen = (chosen[:, :, None, :2] == PEDALS).all(axis=3).mean(axis=0)  # (B, H, 4) -> (H, 4)
            chance += rate * (seen - chance)
        return np.concatenate([best, rest]), ends_at

    def _draw(self, best: Actions, steer: FloatArray, spread: FloatArray, chance: FloatArray, count: int) -> Actions:
        """Samples, the best so far among them, shape (B, H, 3)."""
        rng, horizon = self._rng, len(steer)
        noise = rng.standard_normal((count, horizon))
        # Half of the samples change the steer for longer than a step.
        smooth = noise[: count // 2]
        for _ in range(2):
            smooth[:, 1:-1] = (smooth[:, :-2] + smooth[:, 1:-1] + smooth[:, 2:]) / math.sqrt(3.0)
        limits = np.cumsum(np.maximum(chance, _LEAST), axis=1)
        way = (rng.random((count, horizon, 1)) * limits[:, -1:] > limits).sum(axis=2)  # (B, H, 4) -> (B, H)
        # A third keeps the pedals of the best, so that its steer is refined too.
        kept = np.arange(count) % 3 == 0
        way[kept] = (best[:, None, :2] == PEDALS).all(axis=2).argmax(axis=1)
        samples = rounded_actions(np.concatenate([PEDALS[way], (steer + spread * noise)[:, :, None]], axis=2))
        samples[0] = best
        return samples

    def _rate(self, memory: FloatArray, step: int, near_m: float) -> tuple[FloatArray, FloatArray]:
        """Lap time that each car is about to have [s], and its station [m], each of shape (B,)."""
        ahead = float(np.median(memory[:, vehicle.SPEED_LONG])) * STEP_S * 20
        station, offset = self._road.project(memory[:, vehicle.X], memory[:, vehicle.Z], near_m + ahead)
        direction = memory[:, vehicle.YAW] - self._road.heading_at(station)
        moving = memory[:, [vehicle.SPEED_LONG, vehicle.YAW_RATE, vehicle.STEER]]
        state = np.concatenate([offset[:, None], direction[:, None], moving], axis=1)
        lap = (step + 1) * STEP_S + self._guide.time_to_go_s(station, state)
        finish = finish_time_s(memory)
        lap = np.where(np.isnan(finish), lap, finish)
        return lap + _TOUCH_S * memory[:, vehicle.CONTACTS], station

    def _station(self, memory: FloatArray, near_m: float) -> float:
        station, _ = self._road.project(memory[[vehicle.X]], memory[[vehicle.Z]], near_m)
        return float(station[0])


def _chances(plan: Actions) -> FloatArray:
    """Probabilities of the ways to press the pedals, shape (H, 4): as planned, or a step earlier or later, mostly."""
    planned = (plan[:, None, :2] == PEDALS).all(axis=2).astype(np.float64)
    beside = np.concatenate([planned[1:], planned[-1:]]) + np.concatenate([planned[:1], planned[:-1]])
    return np.maximum(_STAY * (0.7 * planned + 0.15 * beside), (1.0 - _STAY) / 4)
