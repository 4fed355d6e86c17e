"""Time to sample a batch from the replay buffer, compared with Stable-Baselines3's; prints a table.

    python benchmarks/replay_sampling.py [--rows 200000] [--batch-size 256] [--repeats 400]

One thread, full rings. Full has four stacked 64x64 grey frames, LIDAR four stacked sets of 19 beams; both have the
telemetry and two past actions. Stable-Baselines3 stores stacked observations whole, so its buffers of Full get fewer
rows; its memory-saving buffer takes no dict and therefore holds the images (the beams) alone, which is less work.
The second table is what storing costs: rows per second into the chunk files, and bytes per row.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import DictReplayBuffer, ReplayBuffer

from algos.replay.memory import ReplayMemory
from algos.replay.storage import ReplayStorage
from tasks.experience.observation import Field, ObservationSpec
from tasks.experience.samples import Segment

EPISODE_ROWS = 320
SEGMENT_ROWS = 32
NUM_STREAMS = 2
GAMMA = 0.995
SB3_ROWS = 20_000

SCALARS = (Field("speed", (1,)), Field("gear", (1,)), Field("rpm", (1,)))
SPECS = {
    "Full": ObservationSpec((*SCALARS, Field("images", (4, 64, 64), "uint8", 0, 255, history=4))),
    "LIDAR": ObservationSpec((Field("speed", (1,)), Field("lidar", (4, 19), history=4))),
}


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000, help="rows in our memory")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=400)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"ms per batch of {arguments.batch_size}, one thread{'median':>29}{'95 %':>9}{'ours n=1 is faster by':>25}")
    for name, spec in SPECS.items():
        _print_sampling(name, spec, arguments)
    print(f"\nstoring segments of {SEGMENT_ROWS} rows, committed each time{'rows/s':>18}{'bytes/row':>12}")
    for name, spec in SPECS.items():
        rows_per_s, bytes_per_row = measure_storing(spec)
        print(f"{name:54}{rows_per_s:13,.0f}{bytes_per_row:12,.0f}")


def make_segment(spec: ObservationSpec, seq: int, rng: np.random.Generator) -> Segment:
    """A segment of stream seq % NUM_STREAMS with smooth random images."""
    rows = (seq - 1) // NUM_STREAMS * SEGMENT_ROWS + np.arange(SEGMENT_ROWS)
    frames: dict[str, np.ndarray] = {}
    for field in spec.fields:
        if field.dtype == "uint8":
            coarse = rng.integers(0, 256, (SEGMENT_ROWS, 8, 8), np.uint8)
            frames[field.name] = coarse.repeat(8, axis=1).repeat(8, axis=2)
        else:
            frames[field.name] = rng.random((SEGMENT_ROWS, *field.frame_shape), np.float32)
    return Segment(
        worker="worker",
        stream=seq % NUM_STREAMS,
        seq=seq,
        frames=frames,
        action=rng.uniform(-1, 1, (SEGMENT_ROWS, spec.action_size)).astype(np.float32),
        reward=rng.random(SEGMENT_ROWS, np.float32),
        terminated=np.zeros(SEGMENT_ROWS, bool),
        truncated=rows % EPISODE_ROWS == EPISODE_ROWS - 1,
        is_first=rows % EPISODE_ROWS == 0,
    )


def make_memory(spec: ObservationSpec, num_rows: int, n_step: int) -> ReplayMemory:
    """Our memory with a full ring."""
    memory = ReplayMemory(spec, num_rows, n_step, GAMMA, seed=0)
    rng = np.random.default_rng(0)
    for seq in range(1, num_rows // SEGMENT_ROWS + 2):
        memory.append(make_segment(spec, seq, rng))
    return memory


def make_sb3_dict(spec: ObservationSpec) -> DictReplayBuffer:
    """Stable-Baselines3's dict buffer with a full ring of random rows."""
    buffer = DictReplayBuffer(SB3_ROWS, spec.dict_space(), _action_space(spec), "cpu")
    rng = np.random.default_rng(0)
    for arrays in (buffer.observations, buffer.next_observations):
        for array in arrays.values():
            _fill(array, rng)
    buffer.full = True
    return buffer


def make_sb3_optimised(spec: ObservationSpec) -> ReplayBuffer:
    """Stable-Baselines3's memory-saving buffer of the largest field alone."""
    largest = max(spec.fields, key=lambda field: field.size)
    buffer = ReplayBuffer(
        SB3_ROWS,
        largest.space(),
        _action_space(spec),
        "cpu",
        optimize_memory_usage=True,
        handle_timeout_termination=False,
    )
    _fill(buffer.observations, np.random.default_rng(0))
    buffer.full = True
    return buffer


def measure_storing(spec: ObservationSpec, num_segments: int = 300) -> tuple[float, float]:
    """Rows per second appended and committed one segment at a time, and bytes on disk per row."""
    rng = np.random.default_rng(0)
    segments = [make_segment(spec, seq, rng) for seq in range(1, num_segments + 1)]
    with tempfile.TemporaryDirectory() as directory, ReplayStorage(directory, spec, 1_000_000) as storage:
        start = time.perf_counter()
        for segment in segments:
            storage.append(segment)
            storage.commit()
        elapsed = time.perf_counter() - start
        size = sum(path.stat().st_size for path in Path(directory).iterdir())
    num_rows = num_segments * SEGMENT_ROWS
    return num_rows / elapsed, size / num_rows


def measure(sample: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Median and 95th percentile of the duration [ms]."""
    for _ in range(10):
        sample()
    durations = []
    for _ in range(repeats):
        start = time.perf_counter()
        sample()
        durations.append(time.perf_counter() - start)
    median, high = np.percentile(durations, [50, 95])
    return float(median * 1e3), float(high * 1e3)


def _print_sampling(name: str, spec: ObservationSpec, arguments: argparse.Namespace) -> None:
    results: dict[str, tuple[float, float]] = {}
    for n_step in (1, 3):
        memory = make_memory(spec, arguments.rows, n_step)
        results[f"{name}, ours, n = {n_step}"] = measure(
            lambda memory=memory: memory.sample(arguments.batch_size),  # type: ignore[misc]
            arguments.repeats,
        )
        del memory
    for label, make in (("SB3 DictReplayBuffer", make_sb3_dict), ("SB3 ReplayBuffer, optimised", make_sb3_optimised)):
        buffer = make(spec)
        results[f"{name}, {label}"] = measure(
            lambda buffer=buffer: buffer.sample(arguments.batch_size),  # type: ignore[misc]
            arguments.repeats,
        )
        del buffer
    ours = results[f"{name}, ours, n = 1"][0]
    for label, (median, high) in results.items():
        print(f"{label:54}{median:9.3f}{high:9.3f}{median / ours:24.1f}x")


def _fill(array: np.ndarray, rng: np.random.Generator) -> None:
    """Random rows, so that every page exists."""
    block = rng.random((100, *array.shape[1:])) * (255 if array.dtype == np.uint8 else 1)
    for start in range(0, len(array), 100):
        array[start : start + 100] = block[: len(array) - start]


def _action_space(spec: ObservationSpec) -> spaces.Box:
    return spaces.Box(-1.0, 1.0, (spec.action_size,))


if __name__ == "__main__":
    main()
