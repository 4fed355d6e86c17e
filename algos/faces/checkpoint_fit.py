"""Whether a checkpoint belongs to this algorithm and this observation. Used by agents and players."""

from __future__ import annotations

import logging
import os
from dataclasses import replace

from algos.run.checkpoint import Checkpoint, CheckpointError, fits
from tasks.experience.observation import ObservationSpec

logger = logging.getLogger(__name__)


def require_fit(checkpoint: Checkpoint, path: str | os.PathLike[str], spec: ObservationSpec, name: str | None) -> None:
    """Refuses a checkpoint of another algorithm (unless ``name`` is None) or another observation.

    One that was trained on the simulator's earlier car is taken with a warning.

    Raises:
        CheckpointError: Naming the file and what differs.
    """
    if name is not None and checkpoint.algorithm != name:
        raise CheckpointError(f"checkpoint {path} was trained by {checkpoint.algorithm}, this run uses {name}")
    stored = _stored_spec(checkpoint, path)
    if stored != spec:
        raise CheckpointError(
            f"checkpoint {path} was trained on {_described(stored)}; this task gives {_described(spec)}. "
            "Use the task configuration that is stored in the file"
        )
    if _drove_the_earlier_car(checkpoint):
        logger.warning(
            "checkpoint %s was trained on the simulator's earlier car, before it became TrackMania's "
            "(docs/simulator.md): it drives worse here until it is trained further, and its lap times "
            "cannot be compared",
            path,
        )


def require_playable(
    checkpoint: Checkpoint, path: str | os.PathLike[str], spec: ObservationSpec, name: str | None
) -> None:
    """As ``require_fit`` for what only acts: privileged fields may differ or be missing.

    Raises:
        CheckpointError: Naming the file and what differs.
    """
    stored = _stored_spec(checkpoint, path).visible
    require_fit(replace(checkpoint, observation_spec=stored.to_json()), path, spec.visible, name)


def _drove_the_earlier_car(checkpoint: Checkpoint) -> bool:
    """Runs on today's car store ``task.vehicle``, be it null."""
    task = checkpoint.config.get("task")
    return isinstance(task, dict) and task.get("game") == "sim" and "track" in task and "vehicle" not in task


def _stored_spec(checkpoint: Checkpoint, path: str | os.PathLike[str]) -> ObservationSpec:
    with fits(os.fspath(path), "any observation", "the file is damaged"):
        spec = checkpoint.spec()
        spec.dict_space()  # sees that the fields have shapes and types
        return spec


def _described(spec: ObservationSpec) -> str:
    fields = ", ".join(f"{field.name} {list(field.shape)} {field.dtype}" for field in spec.all_fields())
    return f"[{fields}]"
