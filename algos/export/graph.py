"""From a policy to the bytes of an ONNX file: raw fields in, action out, every scale inside."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from algos.acting.deterministic import DeterministicActor
from tasks.experience.observation import ObservationSpec

ACTION, MEMORY, NEXT_MEMORY = "action", "memory", "next_memory"
"""Names in the graph beside those of the fields; the memory is there for policies that have one."""
OPSET = 17


def actor_of(policy: Any, algorithm: str, spec: ObservationSpec) -> DeterministicActor:
    """The network of a policy that is to be exported.

    Raises:
        ValueError: It cannot be exported.
    """
    if not hasattr(policy, "deterministic_actor"):
        raise ValueError(
            f"the policy of {algorithm} cannot be exported: {type(policy).__name__} has no method deterministic_actor"
        )
    taken = {ACTION, MEMORY, NEXT_MEMORY} & set(spec.visible.names)
    if taken:
        raise ValueError(f"an observation with a field named {min(taken)} cannot be exported: the file has its own")
    actor: DeterministicActor = policy.deterministic_actor()
    return actor.cpu().eval()


def onnx_bytes(actor: DeterministicActor, spec: ObservationSpec) -> bytes:
    """The graph of an actor; the first axis of everything is the batch, of any size.

    Args:
        actor: The network.
        spec: What it observes.
    """
    fields = spec.visible.all_fields()
    inputs = [torch.zeros((1, *field.shape), dtype=getattr(torch, field.dtype)) for field in fields]
    names, outputs = [field.name for field in fields], [ACTION]
    if actor.memory_size:
        inputs.append(torch.zeros(1, actor.memory_size))
        names, outputs = [*names, MEMORY], [*outputs, NEXT_MEMORY]
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), torch.no_grad():
        file = Path(folder) / "policy.onnx"
        # The exporter by tracing needs no further package; torch calls it legacy, and warns of what a check settles.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _ByPosition(actor, spec.visible.names).eval(),  # the exporter puts the mode that it found back
            tuple(inputs),
            file,
            input_names=names,
            output_names=outputs,
            dynamic_axes={name: {0: "batch"} for name in (*names, *outputs)},
            opset_version=OPSET,
            dynamo=False,
        )
        return file.read_bytes()


class _ByPosition(nn.Module):
    """Takes the fields, and the memory where there is one, one after the other."""

    def __init__(self, actor: DeterministicActor, names: Sequence[str]) -> None:
        super().__init__()
        self.actor = actor
        self._names = tuple(names)

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        fields: Mapping[str, Tensor] = dict(zip(self._names, inputs, strict=False))
        if not self.actor.memory_size:
            return self.actor(fields, inputs[0].new_zeros(0))[0]
        action, memory = self.actor(fields, inputs[-1])
        return action, memory
