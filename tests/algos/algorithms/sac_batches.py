"""Specs and random batches for the tests of SAC and what derives from it."""

from __future__ import annotations

import numpy as np
import torch

from algos.replay.memory import Batch
from tasks.experience.observation import Field, ObservationSpec

LIDAR = ObservationSpec(
    (Field("speed", (1,), scale=55.6), Field("lidar", (4, 19), history=4, scale=383.0, offset=10.0)), act_buf_len=2
)
IMAGE_FIELDS = (Field("speed", (1,), scale=55.6), Field("gear", (1,), scale=5.0), Field("rpm", (1,), scale=11000.0))


def image_spec(history: int = 4, height: int = 64, width: int = 64, colours: bool = False) -> ObservationSpec:
    """A TM20Full-like spec."""
    frame = (height, width, 3) if colours else (height, width)
    shape = (history, *frame) if history else frame
    images = Field("images", shape, "uint8", 0, 255, history=history, scale=255.0, offset=102.0)
    return ObservationSpec((*IMAGE_FIELDS, images))


def random_observation(spec: ObservationSpec, rng: np.random.Generator, batch_size: int) -> dict[str, torch.Tensor]:
    """Raw fields in a plausible range, shape (B, *field shape)."""
    observation = {}
    for field in spec.all_fields():
        shape = (batch_size, *field.shape)
        if field.dtype == "uint8":
            observation[field.name] = torch.from_numpy(rng.integers(0, 256, shape).astype(np.uint8))
        else:
            values = rng.normal(size=shape) * field.scale + field.offset
            observation[field.name] = torch.from_numpy(values.astype(np.float32))
    return observation


def random_batch(spec: ObservationSpec, batch_size: int = 8, seed: int = 0) -> Batch:
    """Transitions with random rewards, discounts of 1 to 3 steps and some terminations."""
    rng = np.random.default_rng(seed)
    return Batch(
        observation=random_observation(spec, rng, batch_size),
        action=torch.from_numpy(rng.uniform(-1, 1, (batch_size, spec.action_size)).astype(np.float32)),
        reward=torch.from_numpy(rng.normal(size=batch_size).astype(np.float32)),
        discount=torch.from_numpy((0.99 ** rng.integers(1, 4, batch_size)).astype(np.float32)),
        next_observation=random_observation(spec, rng, batch_size),
        terminated=torch.from_numpy((rng.random(batch_size) < 0.3).astype(np.float32)),
    )
