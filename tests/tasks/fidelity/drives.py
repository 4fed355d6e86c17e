"""Recordings that the simulator's car drives itself, for tests: in the frame and the layout of real ones."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.recordings.recording import COLUMNS, SAMPLE_TICKS, Recording
from tasks.recordings.stretches import ASPHALT
from tasks.sim.open_loop import Drives, drive
from tasks.sim.vehicle import FloatArray, VehicleConstants


def held(*pressed: tuple[float, float, float, float]) -> FloatArray:
    """Constant inputs: (seconds, steer, gas, brake) each; shape (ticks, 3)."""
    return np.concatenate([np.tile(row[1:], (round(row[0] * 100), 1)) for row in pressed])


def drawn(seed: int, seconds: float) -> FloatArray:
    """Random inputs of all kinds, shape (ticks, 3)."""
    rng = np.random.default_rng(seed)
    pressed: list[tuple[float, float, float, float]] = [(rng.uniform(1, 9), 0.0, 1.0, 0.0)]
    pedals = [(1.0, 0.0)] * 6 + [(0.0, 0.0)] * 2 + [(0.0, 1.0), (1.0, 1.0)]
    while sum(row[0] for row in pressed) < seconds:
        gas, brake = pedals[rng.integers(len(pedals))]
        steer = rng.choice([-1.0, -0.5, 0.0, 0.0, 0.5, 1.0])
        pressed.append((rng.uniform(0.3, 1.5), steer, gas, brake))
    return held(*pressed)[: round(seconds * 100)]


def driven(car: VehicleConstants, inputs: FloatArray, start: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Recording:
    """A recording of a car that starts at rest at x, z, yaw (the simulator's frame) and gets these inputs."""
    samples = len(inputs) // SAMPLE_TICKS
    known = np.array([[[*start, 0.0, 0.0]]])
    nothing, first = np.zeros(1, np.int64), np.ones(1, np.int64)
    states = drive(car.vector(), Drives(known, nothing, first, inputs[None, : samples * SAMPLE_TICKS]))[0]
    table = np.zeros((samples + 1, len(COLUMNS)), np.float32)

    def fill(name: str, values: NDArray[np.floating[Any]] | float) -> None:
        table[:, COLUMNS.index(name)] = values

    fill("t_ms", 50.0 * np.arange(samples + 1))
    for name, values in zip(("x", "z", "yaw", "u", "w"), states.T, strict=True):
        fill(name, -values if name == "x" else values)
    fill("speed", np.hypot(states[:, 3], states[:, 4]))
    shown = np.vstack([inputs, inputs[-1:]])[: samples * SAMPLE_TICKS + 1 : SAMPLE_TICKS]
    for name, values in zip(("steer", "gas", "brake"), shown.T, strict=True):
        fill(name, values)
    fill("gear", 1.0)
    for wheel in range(4):
        fill(f"mat{wheel}", ASPHALT)
    return Recording(table, inputs.astype(np.float32), True)
