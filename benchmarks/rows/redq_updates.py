"""REDQ's critic updates on one thread, beside a Python list of critics with an optimiser each."""

from __future__ import annotations

import torch

from algos.config import EncoderKind
from benchmarks.rows.critic_list import critic_list_update
from benchmarks.rows.row import Case, Row
from benchmarks.rows.turns import calls_per_second
from benchmarks.rows.updates import LIDAR, our_update, precisions, redq_config, used_precision

PEER = "list of critics"


def case() -> Case:
    """N = 10, M = 2, LIDAR, batch 256; the actor stays as it is."""
    torch.set_num_threads(1)
    work = "REDQ N=10 M=2, LIDAR, batch 256, 1 thread, critic updates"
    programs = {
        f"ours {precision.name}": calls_per_second(our_update(LIDAR, EncoderKind.mlp, redq_config(256, precision)))
        for precision in precisions()
    }
    programs[PEER] = calls_per_second(critic_list_update(redq_config(256)))
    used = used_precision().name
    rows = [Row("redq", work, f"ours / {PEER}, N optimisers", f"ours {used}", PEER, 4.0)]
    rows += [
        Row(f"redq_{other}", work, f"ours {other} / {PEER}", f"ours {other}", PEER)
        for other in (precision.name for precision in precisions() if precision.name != used)
    ]
    return Case(rows, programs)
