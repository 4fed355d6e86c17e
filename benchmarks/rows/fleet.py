"""Many cars of the simulator in one call on all cores, compared with one car on one core; reward included."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from benchmarks.rows.row import Case, Row
from benchmarks.sim_speed import TRACK, drive_step, record_actions
from tasks import registry
from tasks.config import GameKind, TaskConfig
from tasks.game.clock import VirtualClock
from tasks.sim.game import SimulatedGame
from tasks.sim.threads import threads_for
from tasks.sim.track import load_track

CARS = 64
STEPS = 100
"""Of the cars between two resets."""


def case(name: str) -> Case:
    """Of a task; also by the time that cores worked, since other programs on the machine count in the time of day."""
    config = task_config(name)
    cores = threads_for(CARS)
    fleet, car = fleet_of(config), car_of(config)
    work = f"simulator, {name}, {CARS} cars in one call, {cores} cores"
    many, one = f"{CARS} cars", f"{cores} x one car"
    key = name.removeprefix("TM20").lower()
    return Case(
        rows=[
            Row(f"simulator_{key}", work, f"steps/s / ({one})", many, one, 0.8),
            Row(
                f"simulator_{key}_cores",
                work,
                "the same by the time of the cores",
                f"{many}, by cores",
                "one car, by cores",
            ),
        ],
        programs={
            many: partial(_rate, fleet, time.perf_counter, 1),
            one: partial(_rate, car, time.perf_counter, cores),
            f"{many}, by cores": partial(_rate, fleet, time.process_time, 1),
            "one car, by cores": partial(_rate, car, time.process_time, 1),
        },
    )


def task_config(name: str) -> TaskConfig:
    """The task on the track of the simulator's benchmark."""
    config = registry.resolve_game(replace(registry.default_config(name), track=TRACK, game=GameKind.sim))
    assert isinstance(config, TaskConfig)
    return config


Drive = tuple[Callable[[], object], Callable[[], int]]
"""Begins an episode; drives and gives the number of steps."""


def fleet_of(config: TaskConfig) -> Drive:
    """Many cars, each with the same actions."""
    batch = registry.batch_class(config)
    assert batch is not None
    fleet, actions = batch(config, CARS, 0), record_actions()[:STEPS]

    def drive() -> int:
        for action in actions:
            fleet.step(np.tile(action, (CARS, 1)))
        return CARS * len(actions)

    return fleet.reset, drive


def car_of(config: TaskConfig) -> Drive:
    """One car through ``SimulatedGame``."""
    clock = VirtualClock()
    game = SimulatedGame(clock, load_track(config.track), config)
    observe = game.image if config.name == "TM20Full" else game.lidar
    actions = record_actions()

    def drive() -> int:
        for action in actions:
            drive_step(game, clock, action, observe)
        return len(actions)

    return partial(game.restart, 0), drive


def _rate(drive: Drive, clock: Callable[[], float], cores: int, seconds: float) -> float:
    """Steps per second on so many cores; the resets are not timed."""
    reset, run = drive
    spent_s, steps = 0.0, 0
    while spent_s < seconds or not steps:
        reset()
        began = clock()
        steps += run()
        spent_s += clock() - began
    return cores * steps / spent_s
