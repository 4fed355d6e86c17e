"""The messages that are sent: segments with images as in TM20Full, and weights."""

from __future__ import annotations

import numpy as np

from tasks.experience.observation import Field, ObservationSpec
from tasks.experience.samples import Segment

FINGERPRINT = "benchmark"
SPEC = ObservationSpec(
    fields=(
        Field("speed", (1,), low=0.0, high=1000.0),
        Field("gear", (1,), low=0.0, high=6.0),
        Field("rpm", (1,), low=0.0, high=20_000.0),
        Field("images", (4, 64, 64), "uint8", low=0, high=255, history=4),
    ),
    action_size=3,
    act_buf_len=2,
)


def segment_of(num_bytes: int, worker: str = "worker-0") -> Segment:
    """A segment of at least one row with about this many bytes in its arrays; its images cannot be compressed."""
    rows = max(round(num_bytes / bytes_per_row()), 1)
    rng = np.random.default_rng(0)
    is_first = np.zeros(rows, np.bool_)
    is_first[0] = True
    return Segment(
        worker=worker,
        stream=0,
        seq=0,
        frames={
            field.name: (255 * rng.random((rows, *field.frame_shape))).astype(field.dtype) for field in SPEC.fields
        },
        action=rng.uniform(-1, 1, (rows, 3)).astype(np.float32),
        reward=rng.normal(size=rows).astype(np.float32),
        terminated=np.zeros(rows, np.bool_),
        truncated=np.zeros(rows, np.bool_),
        is_first=is_first,
    )


def bytes_per_row() -> int:
    """Size of the arrays of one row."""
    frames = sum(int(np.prod(field.frame_shape)) * np.dtype(field.dtype).itemsize for field in SPEC.fields)
    return frames + 4 * (SPEC.action_size + 1) + 3


def size_of(segment: Segment) -> int:
    """Size of its arrays [bytes]."""
    columns = (segment.action, segment.reward, segment.terminated, segment.truncated, segment.is_first)
    return sum(array.nbytes for array in (*segment.frames.values(), *columns))


def weights_of(num_bytes: int) -> dict[str, np.ndarray]:
    """Weights of about this many bytes, in layers of 1 MB."""
    num_layers = max(round(num_bytes / 2**20), 1)
    rng = np.random.default_rng(0)
    return {
        f"layer_{i}": rng.normal(size=(num_bytes // num_layers // 1024, 256)).astype(np.float32)
        for i in range(num_layers)
    }
