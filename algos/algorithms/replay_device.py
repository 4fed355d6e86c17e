"""Where the rows of the replay memory are: in host memory, or on the GPU that trains.

``make_memory`` of an algorithm asks with ``replay_device`` of its configuration. The batches are the same in both.
"""

from __future__ import annotations

import torch

from algos.config import ReplayDevice, ReplayLearnerConfig
from algos.replay.device_columns import num_bytes
from tasks.experience.observation import ObservationSpec

GPU_SHARE = 0.5
"""Of the free memory of a GPU, what rows may take; the rest is for what updates need."""
_GIB = 2.0**30


def chosen_replay_device(
    config: ReplayLearnerConfig, spec: ObservationSpec, device: torch.device
) -> torch.device | None:
    """The device that the rows are on; None: they are in host memory.

    Args:
        config: What says so.
        spec: Fields of the observation.
        device: Where updates are computed.

    Raises:
        ValueError: If the rows cannot be where the configuration wants them.
    """
    if config.replay_device is not ReplayDevice.cuda:
        return None
    lacks = _missing(config.memory_size, spec, device)
    if lacks is not None:
        raise ValueError(f"train.params.config.replay_device must be auto or cpu here, got cuda: {lacks}")
    return device


def _missing(memory_size: int, spec: ObservationSpec, device: torch.device) -> str | None:
    """What the device lacks to hold so many rows."""
    if device.type != "cuda":
        return f"rows on a GPU need device=cuda, and device is {device.type}"
    free, _ = torch.cuda.mem_get_info(device)
    allowed, needed = GPU_SHARE * free, num_bytes(spec, memory_size)
    if needed <= allowed:
        return None
    return (
        f"memory_size={memory_size} takes {needed / _GIB:.2f} GiB, and {GPU_SHARE:.0%} of what is free on {device} is "
        f"{allowed / _GIB:.2f} GiB; memory_size={int(allowed / num_bytes(spec, 1))} fits"
    )
