"""How the steps of an update are run: as they stand, compiled, or as a CUDA graph.

``OffPolicyAlgorithm`` chooses with ``update_mode`` of its configuration; the steps are the same ones in every mode
(``algos.algorithms.sac.SAC.steps``), and so are the results but for rounding.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

from algos.config import UpdateMode
from algos.replay.memory import Batch

Steps = Callable[[Batch, bool], dict[str, Tensor]]
"""The steps of one update on a batch, the actor's among them or not; gives metrics."""

AUTO_MODE = UpdateMode.eager
"""What ``update_mode=auto`` means."""
WARM_UPS = 3
"""Updates before a capture: optimisers make their state in the first, and libraries their workspaces."""
_CPU_COMPILERS = ("g++", "clang++", "c++", "cl")


def chosen_mode(mode: UpdateMode, device: torch.device) -> UpdateMode:
    """eager, compile or graph.

    Raises:
        ValueError: If this machine cannot run updates so.
    """
    if mode is UpdateMode.auto:
        return AUTO_MODE
    missing = {UpdateMode.graph: _missing_for_graph, UpdateMode.compile: _missing_for_compile}
    lacks = missing[mode](device) if mode in missing else None
    if lacks is not None:
        raise ValueError(f"train.params.config.update_mode must be auto or eager here, got {mode.name}: {lacks}")
    return mode


class CapturedUpdate:
    """Runs the steps of an update as CUDA graphs: one with the actor's steps and one without.

    The first updates run as they stand. Then the steps are captured: from there on an update is a copy of its batch to
    the tensors that were captured, and one launch. Metrics are tensors that the next update overwrites.

    Args:
        steps: What is captured; it must neither read a tensor on the host nor depend on what changes between updates.
        to_device: Brings a batch to the device, in the types of the networks.
        generator: Where the steps draw from.
    """

    def __init__(self, steps: Steps, to_device: Callable[[Batch], Batch], generator: torch.Generator) -> None:
        self._steps = steps
        self._to_device = to_device
        self._generator = generator
        self._graphs: dict[tuple[bool, int], _Graph] = {}

    def __call__(self, batch: Batch, improves: bool) -> dict[str, Tensor]:
        """One update."""
        key = improves, len(batch.reward)
        if key not in self._graphs:
            self._graphs[key] = _Graph(self._steps, improves, self._to_device(batch), self._generator)
        return self._graphs[key](batch)


class _Graph:
    """The same steps on batches of one size."""

    def __init__(self, steps: Steps, improves: bool, like: Batch, generator: torch.Generator) -> None:
        self._steps = steps
        self._improves = improves
        self._generator = generator
        self._batch = _own_tensors(like)
        self._stream = torch.cuda.Stream()
        self._warm_ups_left = WARM_UPS
        self._graph: torch.cuda.CUDAGraph | None = None
        self._metrics: dict[str, Tensor] = {}

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        for own, given in zip(_tensors(self._batch), _tensors(batch), strict=True):
            own.copy_(given, non_blocking=True)
        if self._warm_ups_left:
            self._warm_ups_left -= 1
            return self._warmed_up()
        if self._graph is None:
            self._graph = self._captured()
        self._graph.replay()
        return self._metrics

    def _warmed_up(self) -> dict[str, Tensor]:
        """An update on the stream of the capture, as torch asks for."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            metrics = self._steps(self._batch, self._improves)
        torch.cuda.current_stream().wait_stream(self._stream)
        return metrics

    def _captured(self) -> torch.cuda.CUDAGraph:
        """Records the steps without running them."""
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self._generator)
        with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
            self._metrics = self._steps(self._batch, self._improves)
        return graph


def _own_tensors(batch: Batch) -> Batch:
    """A copy of a batch on the device, whose tensors are filled again and again."""

    def own(part: Tensor | Mapping[str, Tensor]) -> Tensor | dict[str, Tensor]:
        if isinstance(part, Mapping):
            return {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in part.items()}
        return part.clone(memory_format=torch.contiguous_format)

    return Batch(*(own(part) for part in batch))  # type: ignore[arg-type]


def _tensors(batch: Batch) -> Iterator[Tensor]:
    for part in batch:
        if isinstance(part, Mapping):
            yield from (part[name] for name in sorted(part))
        else:
            yield part


def _missing_for_graph(device: torch.device) -> str | None:
    return None if device.type == "cuda" else f"CUDA graphs need a GPU, and device is {device.type}"


def _missing_for_compile(device: torch.device) -> str | None:
    """What torch.compile lacks on this machine."""
    if device.type == "cuda":
        has_triton = importlib.util.find_spec("triton") is not None
        return None if has_triton else "torch.compile needs the package triton for a GPU, and it is not installed"
    named = os.environ.get("CXX")
    if any(shutil.which(name) for name in ([named] if named else _CPU_COMPILERS)):
        return None
    return (
        "torch.compile needs a C++ compiler, and "
        + (f"{named}, which CXX names, is not there" if named else f"none of {', '.join(_CPU_COMPILERS)} is there")
        + "; install one, such as g++, or name it with the environment variable CXX"
    )
