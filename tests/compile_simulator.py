"""Compiles the simulator for one car and for many, and so fills numba's cache: ``python -m tests.compile_simulator``.

``tests.conftest`` runs it before several test processes start: each of them would compile the simulator, within the
time limit of a test.
"""

from __future__ import annotations

import dataclasses

import numpy as np

import tasks
from tasks import registry
from tasks.config import ClockKind, GameKind


def main() -> None:
    """Steps one car and a batch of cars of a task with lidar, of one with pictures and of one with the road ahead."""
    for name in ("TM20Lidar", "TM20Full", "TM20Track"):
        default = registry.default_config(name)
        config = dataclasses.replace(default, game=GameKind.sim, clock=ClockKind.virtual, track="short")
        env = tasks.make(name, config=config)
        env.reset(seed=0)
        env.step(env.action_space.sample())
        env.close()
        batch_class = registry.batch_class(config)
        assert batch_class is not None
        batch = batch_class(config, 2, 0)
        batch.reset()
        batch.step(np.zeros((2, 3), np.float32))
        batch.close()


if __name__ == "__main__":
    main()
