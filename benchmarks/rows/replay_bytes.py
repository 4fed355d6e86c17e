"""Memory that a stored transition takes, compared with its image."""

from __future__ import annotations

import tracemalloc

from algos.replay.memory import ReplayMemory
from benchmarks.rows.row import Case, Row
from tasks import registry

TRANSITIONS = 100_000


def case() -> Case:
    """Of TM20Full; every turn gives the same."""
    stored, frame = "stored transition [bytes]", "its frame [bytes]"
    return Case(
        rows=[
            Row(
                "replay_bytes",
                f"replay memory of {TRANSITIONS:,}, TM20Full",
                "bytes a stored transition / frame bytes",
                stored,
                frame,
                1.05,
                is_most=True,
            )
        ],
        programs={stored: lambda _: bytes_per_transition(), frame: lambda _: float(frame_bytes())},
    )


def bytes_per_transition() -> float:
    """What numpy takes for the memory, over the number of rows that it keeps."""
    tracemalloc.start()
    try:
        memory = ReplayMemory(registry.observation_spec("TM20Full"), TRANSITIONS, n_step=1, gamma=0.99, seed=0)
        return tracemalloc.get_traced_memory()[0] / memory.capacity
    finally:
        tracemalloc.stop()


def frame_bytes() -> int:
    """Bytes of the newest image of an observation."""
    spec = registry.observation_spec("TM20Full")
    (image,) = (field for field in spec.fields if field.dtype == "uint8")
    return image.size // max(image.history, 1)
