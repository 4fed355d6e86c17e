"""Cars that differ from the game's in every constant, drawn once: the same on every machine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import yaml

from tasks.process.atomic_file import write_file
from tasks.sim.vehicle import VehicleConstants, layout
from tasks.sim.vehicle_files import differences

NUM_CARS = 5
OFF = 0.15
"""How far off a constant may be, as a share of its value."""

_SEED = 2020


def drawn_cars() -> list[VehicleConstants]:
    """Each constant of each car is off by up to ``OFF``; a table as a whole, and both tables of shifts alike."""
    rng = np.random.default_rng(_SEED)
    return [_scaled({name: 1.0 + rng.uniform(-OFF, OFF) for name in layout()}) for _ in range(NUM_CARS)]


def write_cars(folder: Path) -> list[Path]:
    """Writes the cars as files for ``task.vehicle``."""
    files = []
    for number, car in enumerate(drawn_cars(), 1):
        files.append(folder / f"car{number}.yaml")
        write_file(files[-1], yaml.safe_dump(differences(car), sort_keys=False, width=120).encode())
    return files


def _scaled(factors: Mapping[str, float]) -> VehicleConstants:
    # A gear must be left at a lower speed than it is reached at.
    factors = {**factors, "downshift_kmh": factors["upshift_kmh"]}
    usual, values = VehicleConstants(), dict[str, float | tuple[float, ...]]()
    for name, factor in factors.items():
        value = getattr(usual, name)
        values[name] = (
            tuple(_rounded(factor * v) for v in value) if isinstance(value, tuple) else _rounded(factor * value)
        )
    return VehicleConstants(**values)  # type: ignore[arg-type]


def _rounded(value: float) -> float:
    return float(f"{value:.5g}")
