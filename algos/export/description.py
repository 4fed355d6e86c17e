"""What an exported file says of itself, as texts by name (ONNX's metadata): enough to drive with it, and no code."""

from __future__ import annotations

import json
from importlib import metadata
from typing import Any

from algos.export.graph import ACTION, MEMORY, NEXT_MEMORY, OPSET
from algos.run.checkpoint import Checkpoint, software_versions
from tasks import registry
from tasks.config import AnyTaskConfig, RealTimeTaskConfig, TaskConfig, config_to_dict
from tasks.experience.observation import Field, ObservationSpec

FORMAT = "trackmania-rl policy 1"


def description(checkpoint: Checkpoint, task: AnyTaskConfig, spec: ObservationSpec, memory_size: int) -> dict[str, str]:
    """The metadata of a file; what is no plain text is JSON.

    Args:
        checkpoint: What is exported.
        task: What it drives, the game decided.
        spec: What it observes, with units.
        memory_size: Numbers that it remembers from step to step.
    """
    action = {"name": ACTION, "shape": [spec.action_size], "dtype": "float32", "unit": "", "low": -1.0, "high": 1.0}
    inputs = [_described(field) for field in spec.visible.all_fields()]
    outputs: list[dict[str, Any]] = [{**action, "meaning": list(registry.action_meaning(task.name))}]
    if memory_size:
        memory = {"shape": [memory_size], "dtype": "float32", "unit": ""}
        inputs.append({"name": MEMORY, **memory, "meaning": "zeros at the start of an episode, then next_memory"})
        outputs.append({"name": NEXT_MEMORY, **memory, "meaning": "the memory of the next step"})
    said: dict[str, object] = {
        "format": FORMAT,
        "task": task.name,
        "track": task.track if isinstance(task, TaskConfig) else "",
        "time_step_s": task.rtgym.time_step_duration if isinstance(task, RealTimeTaskConfig) else "",
        "algorithm": checkpoint.algorithm,
        "env_steps": checkpoint.counters.get("env_steps", ""),
        "inputs": inputs,
        "outputs": outputs,
        "task_config": config_to_dict(task),
        "versions": {**software_versions(), "onnx": metadata.version("onnx"), "opset": str(OPSET)},
    }
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in said.items()}


def with_metadata(model: bytes, texts: dict[str, str]) -> bytes:
    """The file with its description, checked as onnx checks it."""
    import onnx

    loaded = onnx.load_model_from_string(model)
    loaded.doc_string = f"Drives {texts['task']}: raw fields in their units to actions in [-1, 1]."
    onnx.helper.set_model_props(loaded, texts)
    onnx.checker.check_model(loaded)
    described: bytes = loaded.SerializeToString()
    return described


def _described(field: Field) -> dict[str, object]:
    is_action = field.name.startswith("action_")
    meaning = "an earlier action, the last field the newest" if is_action else ""
    history = "oldest first along the first axis" if field.history else ""
    return {
        "name": field.name,
        "shape": list(field.shape),
        "dtype": field.dtype,
        "unit": field.unit,
        "meaning": meaning or history,
    }
