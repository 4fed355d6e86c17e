"""Updates per second on a GPU; needs torch and numpy and nothing else.

Batches are on the device before the update begins, so that the figures are those of the updates alone.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any

import torch

from algos.config import EncoderKind, OffPolicyConfig
from algos.replay.memory import Batch
from benchmarks.rows.row import Case, Row
from benchmarks.rows.turns import calls_per_second
from benchmarks.rows.updates import FULL, LIDAR, filled_memory, our_agent, redq_config, sac_config
from tasks.experience.observation import ObservationSpec

BATCHES = 16
"""Different ones, taken in turns."""


def case(device: torch.device, batch_size: int = 256) -> Case:
    """SAC with each network, and REDQ.

    Args:
        device: A GPU; the CPU in tests.
        batch_size: Of every update.
    """
    kinds: list[tuple[str, str, ObservationSpec, EncoderKind, OffPolicyConfig, float]] = [
        ("gpu_mlp", "SAC, LIDAR, MLP 2x256", LIDAR, EncoderKind.mlp, sac_config(batch_size), 5000),
        ("gpu_cnn", "SAC, TMRL's network", FULL, EncoderKind.tmrl_cnn, sac_config(batch_size), 1000),
        ("gpu_shared_cnn", "SAC, TMRL's network, shared", FULL, EncoderKind.shared_cnn, sac_config(batch_size), 2500),
        ("gpu_redq", "REDQ N=10 M=2, LIDAR, critics", LIDAR, EncoderKind.mlp, redq_config(batch_size), 2000),
    ]
    settle = settled(device)
    return Case(
        rows=[
            Row(name, f"{work}, batch {batch_size}, {device.type}", "updates/s", name, bar=bar)
            for name, work, *_, bar in kinds
        ],
        programs={
            name: calls_per_second(update_on(device, spec, encoder, config), time.perf_counter, settle)
            for name, _, spec, encoder, config, _ in kinds
        },
    )


def update_on(
    device: torch.device, spec: ObservationSpec, encoder: EncoderKind, config: OffPolicyConfig
) -> Callable[[], object]:
    """One update of a batch that is on the device."""
    agent = our_agent(spec, encoder, config, device)
    memory = filled_memory(spec, config.n_step, config.gamma)
    batches = itertools.cycle([copied(memory.sample(config.batch_size), device) for _ in range(BATCHES)])
    return lambda: agent.update(next(batches))


def copied(batch: Batch, device: torch.device) -> Batch:
    """A batch of its own on a device."""
    parts: list[Any] = [
        {name: tensor.to(device, copy=True) for name, tensor in part.items()}
        if isinstance(part, dict)
        else part.to(device, copy=True)
        for part in batch
    ]
    return Batch(*parts)


def settled(device: torch.device) -> Callable[[], object]:
    """Waits for everything that a device was asked for."""
    return torch.cuda.synchronize if device.type == "cuda" else lambda: None
