"""``--export onnx``: writes the deterministic actor of a checkpoint as a file that needs no torch."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from algos.config.schema import RunConfig
from algos.export.agreement import MAX_DIFFERENCE, ExportedPolicy, largest_difference
from algos.export.description import description, with_metadata
from algos.export.graph import actor_of, onnx_bytes
from algos.faces.checkpoint_fit import require_playable
from algos.faces.trained_policy import trained_policy
from algos.run.checkpoint import load_checkpoint
from tasks import registry
from tasks.process.atomic_file import write_file

PACKAGES = ("onnx", "onnxruntime")


def run(config: RunConfig) -> str:
    """Writes the file, unless it acts differently; returns what was done, for people.

    Args:
        config: The configuration of the checkpoint, and ``export``.

    Raises:
        ValueError: A package is missing, the checkpoint does not fit, or the file does not act as the policy does.
        OSError: The file cannot be written.
    """
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(f'--export onnx needs the package {missing[0]}: pip install -e ".[onnx]"')
    path = str(config.checkpoint)
    target = Path(config.export.to) if config.export.to else Path(path).with_suffix(".onnx")
    spec = registry.observation_spec(config.task.name, config.task)
    checkpoint = load_checkpoint(path)
    require_playable(checkpoint, path, spec, None)
    policy = trained_policy(checkpoint, path, spec, "cpu", 0)
    actor = actor_of(policy, checkpoint.algorithm, spec)
    texts = description(checkpoint, config.task, spec, actor.memory_size)
    model = with_metadata(onnx_bytes(actor, spec), texts)
    steps = config.export.steps
    difference = largest_difference(policy, ExportedPolicy(model, actor.memory_size), config.task, steps)
    if not difference <= MAX_DIFFERENCE:
        raise ValueError(
            f"{target} is not written: on {steps} steps onnxruntime's actions differ from torch's by up to "
            f"{difference:.1e}, more than {MAX_DIFFERENCE:.0e}"
        )
    write_file(target, model)
    shapes = ", ".join(f"{field.name} {list(field.shape)}" for field in spec.visible.all_fields())
    return (
        f"written to {target} ({len(model):,} bytes): {shapes} -> action [{spec.action_size}]\n"
        f"on {steps} steps of {config.task.name} onnxruntime and torch differ by at most {difference:.1e} "
        f"(allowed: {MAX_DIFFERENCE:.0e})"
    )
