"""Steps per second of the simulator, compared with CarRacing-v3: ``python -m benchmarks.sim_speed``.

Kernel: 5 physics ticks and one observation, through ``SimulatedGame``. Whole step: ``env.step()`` of the registered
task, reward included, on ``long`` at the speed of the scripted driver (its actions are recorded first, then replayed).
The best of several rounds counts, so that other work on the machine matters little. All of this is on one core; many
cars in one call: ``benchmarks.rows.fleet``. The last figures are the time and memory of a track of ``LOOP_KM``: the
first process that drives it builds its grids, the others map them.
"""

from __future__ import annotations

import importlib.util
import math
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import gymnasium
import numpy as np

import tasks
from tasks.config import TaskConfig
from tasks.game.clock import VirtualClock
from tasks.sim.game import SimulatedGame
from tasks.sim.grid_files import shared_grids
from tasks.sim.scripted_driver import ScriptedDriver
from tasks.sim.track import load_track, road_of

TRACK = "long"
ROUNDS = 7
STEPS = 600
CAR_RACING_STEPS = 60
LOOP_KM = 21
TARGETS = {"kernel image": 25_000, "kernel LIDAR": 60_000, "env.step TM20Full": 8_000, "env.step TM20Lidar": 12_000}


def main() -> None:
    """Prints steps per second, ratio to CarRacing-v3, and the target."""
    anchor = car_racing_rate()
    rates = {
        "kernel image": kernel_rate(TaskConfig(track=TRACK), lambda game: game.image()),
        "kernel LIDAR": kernel_rate(
            TaskConfig(track=TRACK, window_width=958, window_height=488), lambda game: game.lidar()
        ),
        "env.step TM20Full": env_rate("TM20Full"),
        "env.step TM20Lidar": env_rate("TM20Lidar"),
    }
    reference = "not installed" if anchor is None else f"{anchor:,.0f} steps/s"
    print(f"CarRacing-v3 (96x96 picture each step): {reference}")
    for name, rate in rates.items():
        ratio = "" if anchor is None else f", {rate / anchor:,.0f} x CarRacing-v3"
        print(f"{name}: {rate:,.0f} steps/s{ratio} (target {TARGETS[name]:,})")
    built_s, mapped_s, size = loop_cost()
    print(f"grids of a loop of {LOOP_KM} km: built in {built_s:.2f} s, mapped in {mapped_s:.2f} s, {size / 1e6:.0f} MB")


def loop_cost() -> tuple[float, float, int]:
    """Time to build the grids of a long track and to map them [s], and their size [bytes]."""
    radius = 1000 * LOOP_KM / (2 * math.pi)
    angle = np.linspace(0.0, 2 * math.pi, 2000 * LOOP_KM)[:-10]
    seconds = []
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "loop.npy"
        np.save(file, radius * np.stack([np.cos(angle), np.sin(angle)], axis=1))
        road = road_of(load_track(str(file)))
        for _ in range(2):
            started = time.perf_counter()
            grids = shared_grids(road, Path(name))
            seconds.append(time.perf_counter() - started)
    return seconds[0], seconds[1], grids.nbytes


def drive_step(game: SimulatedGame, clock: VirtualClock, action: np.ndarray, observe: Callable[[], np.ndarray]) -> None:
    """One step of 50 ms."""
    game.apply(action)
    clock.sleep_until(clock.now() + 0.05)
    observe()


def kernel_rate(config: TaskConfig, observe: Callable[[SimulatedGame], np.ndarray]) -> float:
    """Steps per second of the game alone."""
    clock = VirtualClock()
    game = SimulatedGame(clock, load_track(config.track), config)
    actions = record_actions()

    def drive() -> None:
        for action in actions:
            drive_step(game, clock, action, lambda: observe(game))

    return best_rate(lambda: game.restart(0), drive, len(actions))


def env_rate(name: str) -> float:
    """Steps per second of the whole environment."""
    env = tasks.make(name, track=TRACK, game="sim")
    actions = record_actions()

    def drive() -> None:
        for action in actions:
            if any(env.step(action)[2:4]):
                raise RuntimeError(f"the scripted driver must not end its episode on {TRACK} within {STEPS} steps")

    with closing(env):
        return best_rate(lambda: env.reset(seed=0), drive, len(actions))


def record_actions() -> list[np.ndarray]:
    """Actions of the scripted driver in the first steps of an episode."""
    env = tasks.make("TM20Lidar", track=TRACK, game="sim")
    game: SimulatedGame = env.unwrapped.interface.game  # type: ignore[attr-defined]
    driver = ScriptedDriver(game.track)
    env.reset(seed=0)
    actions = []
    with closing(env):
        for _ in range(STEPS):
            actions.append(driver.act(game.state()))
            env.step(actions[-1])
    return actions


def car_racing_rate() -> float | None:
    """Steps per second of CarRacing-v3 with random actions; None where Box2D is missing."""
    if importlib.util.find_spec("Box2D") is None:
        return None
    env = gymnasium.make("CarRacing-v3")
    env.action_space.seed(0)
    actions = [env.action_space.sample() for _ in range(CAR_RACING_STEPS)]

    def drive() -> None:
        for action in actions:
            env.step(action)

    with closing(env):
        return best_rate(lambda: env.reset(seed=0), drive, len(actions))


def best_rate(prepare: Callable[[], object], run: Callable[[], None], count: int) -> float:
    """Repetitions per second in the best round; the first round compiles and does not count."""
    best = float("inf")
    for index in range(ROUNDS + 1):
        prepare()
        started = time.perf_counter()
        run()
        if index > 0:
            best = min(best, time.perf_counter() - started)
    return count / best


@contextmanager
def closing(env: gymnasium.Env) -> Iterator[None]:
    """Closes ``env`` at the end."""
    try:
        yield
    finally:
        env.close()


if __name__ == "__main__":
    main()
