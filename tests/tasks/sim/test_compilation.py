"""Numba compiles a kernel for each layout of its arrays: one car and many share theirs, for a quick first start."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
COMPILED_TWICE = """
import numba
from numba.core.registry import CPUDispatcher
from tests import compile_simulator
from tasks.sim import camera, grids, vehicle
from tasks.trackmania import reward, road_ahead

compile_simulator.main()
for module in (camera, grids, vehicle, reward, road_ahead):
    for name, kernel in vars(module).items():
        if isinstance(kernel, CPUDispatcher):
            layouts = {tuple(numba.types.unliteral(kind) for kind in kinds) for kinds in kernel.signatures}
            assert len(layouts) <= 1, (name, layouts)
print(len(vehicle.advance.signatures), len(camera._render_images.signatures), len(reward._step_all.signatures))
"""


def test_kernels_are_compiled_once_for_one_car_and_for_many() -> None:
    run = subprocess.run(
        [sys.executable, "-c", COMPILED_TWICE], cwd=ROOT, capture_output=True, text=True, timeout=100, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == ["1", "1", "1"]
