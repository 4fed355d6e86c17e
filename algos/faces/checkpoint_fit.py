"""Whether a checkpoint belongs to this algorithm, this observation and this task. Used by agents and players."""

from __future__ import annotations

import logging
import os
from dataclasses import replace

from algos.config.schema import RunConfig
from algos.run.checkpoint import Checkpoint, CheckpointError, fits
from tasks.config import config_to_dict
from tasks.experience.observation import ObservationSpec
from tasks.registry import without_local_keys
from tasks.words.command_line import Role
from tasks.words.keys import has_default, key_roles
from tasks.words.nested import leaves

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


def changed_task_keys(checkpoint: Checkpoint, config: RunConfig, role: Role) -> list[str]:
    """Full names of the keys of the task that have other values than in a checkpoint.

    Left out are keys that do nothing in ``role``, and those that may differ from machine to machine.
    """
    tasks = (checkpoint.config["task"], config_to_dict(config)["task"])
    stored, now = (dict(leaves(without_local_keys(task), "task.")) for task in tasks)
    # A key that the file lacks is younger than the file, or was added to a mapping of any keys.
    added = [key for key in now if key not in stored and not has_default(config, key)]
    changed = [key for key, value in stored.items() if now.get(key) != value]
    return [key for key in changed + added if role in key_roles(config, key).roles]


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
