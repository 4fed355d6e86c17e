"""Updates as they are measured: a filled replay memory, one update of ours, and the matrix products of one alone.

Needs torch and numpy and nothing else. ``benchmarks.rows.gpu_updates`` runs it on a machine that has no more.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from algos.algorithms.redq import REDQ
from algos.algorithms.sac import SAC
from algos.config import EncoderKind, NetworkConfig, OffPolicyConfig, Precision, REDQConfig, SACConfig
from algos.networks import chosen_precision, fast_matmul, multiplies_bfloat16
from algos.replay.memory import ReplayMemory
from tasks.experience.observation import Field, ObservationSpec
from tasks.experience.samples import Segment

Update = Callable[[], object]

ROWS = 4000
EPISODE_ROWS = 320
CPU = torch.device("cpu")
LIDAR = ObservationSpec((Field("speed", (1,), scale=55.6), Field("lidar", (4, 19), history=4, scale=383.0)))
FULL = ObservationSpec(
    (
        Field("speed", (1,), scale=55.6),
        Field("gear", (1,), scale=5.0),
        Field("rpm", (1,), scale=11000.0),
        Field("images", (4, 64, 64), "uint8", 0, 255, history=4, scale=255.0, offset=102.0),
    )
)


def precisions() -> list[Precision]:
    """Those that this processor multiplies: float32, and bfloat16 where it has the units."""
    return [Precision.float32] + [Precision.bfloat16] * multiplies_bfloat16(CPU)


def used_precision(device: torch.device = CPU) -> Precision:
    """What ``precision=auto`` means."""
    return chosen_precision(Precision.auto, device)


def filled_memory(spec: ObservationSpec, n_step: int, gamma: float) -> ReplayMemory:
    """A replay memory with random rows."""
    rng = np.random.default_rng(0)
    is_first = np.arange(ROWS) % EPISODE_ROWS == 0
    segment = Segment(
        worker="benchmark",
        stream=0,
        seq=1,
        frames={field.name: random_field(rng, (ROWS, *field.frame_shape), field) for field in spec.fields},
        action=rng.uniform(-1, 1, (ROWS, spec.action_size)).astype(np.float32),
        reward=rng.normal(size=ROWS).astype(np.float32),
        terminated=np.roll(is_first, -1),
        truncated=np.zeros(ROWS, bool),
        is_first=is_first,
    )
    memory = ReplayMemory(spec, ROWS, n_step, gamma, seed=0)
    memory.append(segment)
    return memory


def sac_config(batch_size: int, precision: Precision = Precision.auto) -> SACConfig:
    """SAC's own values."""
    return SACConfig(batch_size=batch_size, precision=precision)


def redq_config(batch_size: int, precision: Precision = Precision.auto) -> REDQConfig:
    """N = 10, M = 2; after the first update only critics are updated."""
    return REDQConfig(
        batch_size=batch_size,
        precision=precision,
        redq_n=10,
        redq_m=2,
        redq_q_updates_per_policy_update=1_000_000_000,
    )


def our_agent(spec: ObservationSpec, encoder: EncoderKind, config: OffPolicyConfig, device: torch.device = CPU) -> SAC:
    """SAC, or REDQ with a configuration of that."""
    kind = REDQ if isinstance(config, REDQConfig) else SAC
    return kind(spec, config, NetworkConfig(encoder), device, seed=0)


def our_update(spec: ObservationSpec, encoder: EncoderKind, config: OffPolicyConfig) -> Update:
    """One sampled update of ours on the CPU."""
    memory = filled_memory(spec, config.n_step, config.gamma)
    agent = our_agent(spec, encoder, config)
    return lambda: agent.update(memory.sample(config.batch_size))


def products(spec: ObservationSpec, batch_size: int, precision: Precision, hidden: int = 256) -> Update:
    """The floor: nothing but the matrix products of an update of SAC with two hidden layers and two critics.

    The actor acts on s' and on s; targets and critics judge; gradients of the critics, of the action and of the actor.
    """
    seen, acts = sum(field.size for field in spec.all_fields()), spec.action_size
    judged = seen + acts

    def forward(networks: int, size: int, outputs: int) -> list[tuple[int, ...]]:
        return [(networks, batch_size, a, b) for a, b in ((size, hidden), (hidden, hidden), (hidden, outputs))]

    def weights(networks: int, size: int, outputs: int) -> list[tuple[int, ...]]:
        return [(networks, a, batch_size, b) for _, _, a, b in forward(networks, size, outputs)]

    def back(networks: int, outputs: int) -> list[tuple[int, ...]]:
        return [(networks, batch_size, outputs, hidden), (networks, batch_size, hidden, hidden)]

    shapes = [*forward(1, seen, 2 * acts), *forward(2, judged, 1)]  # the target
    shapes += [*forward(2, judged, 1), *weights(2, judged, 1), *back(2, 1)]  # the critics
    shapes += [*forward(1, seen, 2 * acts), *forward(2, judged, 1), *back(2, 1), (2, batch_size, hidden, acts)]
    shapes += [*weights(1, seen, 2 * acts), *back(1, 2 * acts)]  # the actor
    dtype = torch.bfloat16 if precision is Precision.bfloat16 else torch.float32
    pairs = [(torch.randn(n, a, b).to(dtype), torch.randn(n, b, c).to(dtype)) for n, a, b, c in shapes]

    def run() -> None:
        with fast_matmul():
            for left, right in pairs:
                torch.bmm(left, right)

    return run


def square_products(size: int, precision: Precision) -> Update:
    """One product of two square matrices, for the peak; it makes 2 x size^3 operations."""
    dtype = torch.bfloat16 if precision is Precision.bfloat16 else torch.float32
    left, right = torch.randn(size, size).to(dtype), torch.randn(size, size).to(dtype)

    def run() -> None:
        with fast_matmul():
            torch.mm(left, right)

    return run


def random_field(rng: np.random.Generator, shape: tuple[int, ...], field: Field) -> np.ndarray:
    """Values such as a field may have."""
    if field.dtype == "uint8":
        return rng.integers(0, 256, shape, np.uint8)
    return (rng.normal(size=shape) * field.scale).astype(np.float32)
