"""Many cars that drive different actions from one moment of an episode: physics only, no pictures and no LIDAR.

The cars are those of ``tasks.trackmania.fleet`` (``tasks.sim.cars``) in an episode without randomization. The first
step is driven by the default action, as by the environment; action k acts from (k + 1) x 50 ms on.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tasks.config import TaskConfig
from tasks.sim import vehicle
from tasks.sim.cars import NOTHING_DRAWN, Cars
from tasks.sim.reference_lap import STEP_S
from tasks.sim.threads import use_threads
from tasks.sim.track import Track
from tasks.sim.vehicle import FloatArray, VehicleConstants


class Rollouts:
    """N cars on one track.

    Args:
        track: The road.
        car: The car.
        count: N.
        threads: Of the kernels.
    """

    def __init__(self, track: Track, car: VehicleConstants, count: int, threads: int = 1) -> None:
        self._cars = Cars(track, TaskConfig(), count, car)
        self._threads = threads
        self._all = np.ones(count, np.bool_)
        self._cars.restart(0, NOTHING_DRAWN, 0.0)
        self._at_start = self._cars.memory[0].copy()

    @property
    def count(self) -> int:
        """N."""
        return len(self._all)

    def start(self) -> FloatArray:
        """The car when the first action begins to act: its memory (``tasks.sim.vehicle``)."""
        return self._drive(self._at_start, 0.0, np.zeros((self.count, 1, 3)))[0].copy()

    def drive(self, memory: FloatArray, step: int, actions: FloatArray | NDArray[np.float32]) -> FloatArray:
        """Drives from one moment on.

        Args:
            memory: The car when action ``step`` begins to act.
            step: Number of that action.
            actions: Of each car, shape (N, H, 3).

        Returns:
            The cars H steps later, shape (N, memory); overwritten by the next drive.
        """
        return self._drive(memory, (step + 1) * STEP_S, actions)

    def _drive(self, memory: FloatArray, begin_s: float, actions: FloatArray | NDArray[np.float32]) -> FloatArray:
        use_threads(self._threads)
        cars = self._cars
        cars.memory[:] = memory
        controls = np.ascontiguousarray(actions.transpose(1, 0, 2), np.float64)  # (N, H, 3) -> (H, N, 3)
        for k, control in enumerate(controls):
            cars.send(np.full(self.count, begin_s + k * STEP_S), control, self._all)
        cars.advance(np.full(self.count, begin_s + len(controls) * STEP_S))
        return cars.memory


def finish_time_s(memory: FloatArray) -> FloatArray:
    """Lap times [s], NaN where the finish is not reached; memory of shape (..., memory)."""
    found: FloatArray = memory[..., vehicle.FINISH_TIME]
    return found
