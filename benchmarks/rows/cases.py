"""All cases by name; the module of each is imported when it is measured."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from functools import partial

import torch

from benchmarks.rows.row import Case

CPU_CASES: Mapping[str, tuple[str, tuple[object, ...]]] = {
    "lidar": ("sac_updates:lidar", ()),
    "full": ("sac_updates:full", ()),
    "redq": ("redq_updates:case", ()),
    "convolutions": ("convolutions:case", ()),
    "simulator_lidar": ("fleet:case", ("TM20Lidar",)),
    "simulator_full": ("fleet:case", ("TM20Full",)),
    "replay_bytes": ("replay_bytes:case", ()),
    "whole_run": ("whole_runs:sac", ()),
    "ppo": ("whole_runs:ppo", ()),
}
"""Function of a module beside this one, and its arguments."""
GPU_CASE = "gpu_updates:case"
LEARNING = (
    "minutes to the first 10/10 (TM20Full, medium, three seeds) are measured by: "
    "python -m benchmarks.learning sac_medium --arms Full"
)


def make(name: str, device: torch.device) -> Case:
    """Builds the programs of a case.

    Args:
        name: One of ``CPU_CASES``, or ``gpu``.
        device: Of the GPU case; the others are on the CPU.
    """
    place, arguments = (GPU_CASE, (device,)) if name == "gpu" else CPU_CASES[name]
    module, _, function = place.partition(":")
    return partial(getattr(importlib.import_module(f"benchmarks.rows.{module}"), function), *arguments)()
