"""SAC's updates on one thread: LIDAR and compact images, beside Stable-Baselines3 and the matrix products alone."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from algos.config import EncoderKind
from benchmarks.rows.row import Case, Program, Row
from benchmarks.rows.turns import calls_per_second
from benchmarks.rows.updates import FULL, LIDAR, our_update, precisions, products, sac_config, used_precision
from tasks.experience.observation import ObservationSpec

PEER = "Stable-Baselines3"
MISSING = "stable_baselines3 is not installed"


def lidar() -> Case:
    """LIDAR, two hidden layers of 256, batch 256."""
    work = "LIDAR SAC 2x256, batch 256, 1 thread, sampling included"
    programs, missing = _programs(LIDAR, EncoderKind.mlp, 256)
    programs |= {
        f"products {precision.name}": calls_per_second(products(LIDAR, 256, precision)) for precision in precisions()
    }
    used = used_precision().name
    rows = [
        Row("lidar_sb3", work, f"ours / {PEER}", f"ours {used}", PEER, 3.0),
        Row("lidar_floor", work, "ours / its matrix products alone", f"ours {used}", f"products {used}", 0.55),
    ]
    for other in (precision.name for precision in precisions() if precision.name != used):
        rows += [
            Row(f"lidar_sb3_{other}", work, f"ours {other} / {PEER}", f"ours {other}", PEER),
            Row(f"lidar_floor_{other}", work, "the same floor", f"ours {other}", f"products {other}"),
        ]
    return Case(rows, programs, missing)


def full() -> Case:
    """Four stacked 64x64 grey images, the compact encoder, batch 64."""
    work = "TM20Full compact, batch 64, 1 thread, sampling included"
    programs, missing = _programs(FULL, EncoderKind.compact_cnn, 64)
    used = used_precision().name
    rows = [Row("full_sb3", work, f"ours / {PEER}, same network", f"ours {used}", PEER, 3.0)]
    rows += [
        Row(f"full_sb3_{other}", work, f"ours {other} / {PEER}", f"ours {other}", PEER)
        for other in (precision.name for precision in precisions() if precision.name != used)
    ]
    return Case(rows, programs, missing)


def _programs(
    spec: ObservationSpec, encoder: EncoderKind, batch_size: int
) -> tuple[dict[str, Program], Mapping[str, str]]:
    """Ours in each precision and Stable-Baselines3's; why a program is missing."""
    torch.set_num_threads(1)
    programs = {
        f"ours {precision.name}": calls_per_second(our_update(spec, encoder, sac_config(batch_size, precision)))
        for precision in precisions()
    }
    try:
        from benchmarks.rows.stable_baselines import stable_baselines_update
    except ImportError:
        return programs, {PEER: MISSING}
    programs[PEER] = calls_per_second(stable_baselines_update(spec, encoder, batch_size))
    return programs, {}
