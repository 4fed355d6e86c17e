"""A memory with its rows on a device draws the batches of one in host memory, bit by bit, and waits for nothing.

The device is the CPU, a GPU where there is one (``pytest -m gpu``), and where no value may be read torch's meta device.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from algos.replay.device_columns import DeviceColumns, num_bytes
from algos.replay.memory import ReplayMemory
from algos.replay.sequences import SequenceMemory
from algos.replay.storage import ReplayStorage
from tests.algos.algorithms.test_update_modes import HOST_READS
from tests.algos.replay.replay_reference import Run, make_spec
from tests.algos.replay.test_sequences import STATE_SIZE, next_segment

CPU, META = torch.device("cpu"), torch.device("meta")
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
CAPACITY = 60


def make(run: Run, n_step: int, device: torch.device | None, **keys: Any) -> ReplayMemory:
    return ReplayMemory(run.spec, CAPACITY, n_step, 0.9, seed=3, device=device, **keys)


def named_tensors(batch: Any) -> Iterator[tuple[str, Tensor]]:
    for part, values in batch._asdict().items():
        if isinstance(values, Mapping):
            yield from ((f"{part}.{name}", tensor) for name, tensor in values.items())
        else:
            yield part, values


def assert_same_batches(batch: Any, expected: Any) -> None:
    got, wanted = dict(named_tensors(batch)), dict(named_tensors(expected))
    assert list(got) == list(wanted)
    for name, tensor in wanted.items():
        assert got[name].dtype == tensor.dtype, name
        assert torch.equal(got[name].cpu(), tensor), name


class Operations(TorchDispatchMode):
    """Notes what goes to the meta device; fails at an operation whose result the host waits for."""

    def __init__(self) -> None:
        super().__init__()
        self.num_copies = self.num_bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert not any(name in str(func) for name in HOST_READS), f"{func} waits for the device"
        results = func(*args, **(kwargs or {}))
        if "copy" in str(func) and results.device == META:
            sources = [leaf for leaf in tree_leaves(args) if isinstance(leaf, Tensor) and leaf.device == CPU]
            self.num_copies += len(sources)
            self.num_bytes += sum(source.nbytes for source in sources)
        return results


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("n_step", [1, 3])
@pytest.mark.parametrize(
    ("image_history", "lidar_history", "act_buf_len", "reset_act_buf"),
    [(1, 1, 0, True), (4, 2, 2, True), (2, 4, 3, False)],
)
def test_batches_are_those_of_the_host_over_wraps_gaps_and_ends_of_episodes(
    image_history: int, lidar_history: int, act_buf_len: int, reset_act_buf: bool, n_step: int, device: str
) -> None:
    run = Run(make_spec(image_history, lidar_history, act_buf_len, reset_act_buf), 3, seed=n_step, longest_episode=9)
    host, other = (make(run, n_step, where) for where in (None, torch.device(device)))
    for turn in range(60):
        segment = run.next_segment(4 * CAPACITY if turn == 50 else 9)
        if turn % 17 != 5:  # the others are lost on the way
            assert host.append(segment) == other.append(segment)
        if turn >= 20:
            assert_same_batches(other.sample(7), host.sample(7))
    assert host.total_rows > 5 * CAPACITY


@pytest.mark.parametrize("device", DEVICES)
def test_sequences_are_those_of_the_host(device: str) -> None:
    run = Run(make_spec(3, 1, 2), 2, seed=1)
    host, other = (
        SequenceMemory(run.spec, CAPACITY, 2, 0.9, 3, STATE_SIZE, 2, 4, device=where)
        for where in (None, torch.device(device))
    )
    for turn in range(40):
        segment = next_segment(run, 9)
        host.append(segment)
        other.append(segment)
        if turn >= 5:
            assert_same_batches(other.sample(5), host.sample(5))


def test_a_batch_stays_as_it_is_when_more_are_drawn_and_rows_replaced() -> None:
    run = Run(make_spec(2, 1, 1), 2, seed=0)
    memory = make(run, 1, CPU)
    for _ in range(20):
        memory.append(run.next_segment(9))
    batch = memory.sample(16)
    before = {name: tensor.clone() for name, tensor in named_tensors(batch)}
    for _ in range(20):
        memory.append(run.next_segment(9))
        memory.sample(16)
    assert all(torch.equal(tensor, before[name]) for name, tensor in named_tensors(batch))


@pytest.mark.parametrize("n_step", [1, 3])
def test_sampling_reads_nothing_from_the_device_and_sends_places_and_returns_alone(n_step: int) -> None:
    run = Run(make_spec(4, 2, 2), 2, seed=0)
    host, meta = (make(run, n_step, where) for where in (None, META))
    for _ in range(20):
        segment = run.next_segment(9)
        host.append(segment)
        meta.append(segment)
    with Operations() as operations:
        batch = meta.sample(32)
    for (name, tensor), (_, expected) in zip(named_tensors(batch), named_tensors(host.sample(32)), strict=True):
        assert (tensor.device, tensor.shape, tensor.dtype) == (META, expected.shape, expected.dtype), name
    assert operations.num_copies == 2
    slots = (5 if n_step == 1 else 8) + (3 if n_step == 1 else 4) + 1
    assert operations.num_bytes == 32 * (8 * slots + 4 * 3)


def test_appending_sends_each_field_once_and_takes_arrays_that_cannot_be_written() -> None:
    run = Run(make_spec(2, 1, 1), 1, seed=0)
    segment = run.next_segment(9)
    for array in (segment.action, *segment.frames.values()):
        array.setflags(write=False)
    memory = make(run, 1, META)
    with Operations() as operations:
        memory.append(segment)
    arrays = [segment.action, *segment.frames.values()]
    assert operations.num_copies == len(arrays)
    assert operations.num_bytes == sum(array.nbytes for array in arrays)


def test_a_stored_replay_comes_back_to_the_device(tmp_path: Path) -> None:
    run = Run(make_spec(3, 1, 2), 2, seed=0)
    memory = make(run, 3, None)
    with_rows = ReplayStorage(tmp_path, run.spec, CAPACITY)
    for _ in range(30):
        segment = run.next_segment(9)
        memory.append(segment)
        with_rows.append(segment)
    with_rows.close()
    restored = make(run, 3, CPU)
    ReplayStorage(tmp_path, run.spec, CAPACITY).load(restored, {"rows": memory.total_rows})
    memory.load_rng_state(restored.rng_state())
    assert_same_batches(restored.sample(32), memory.sample(32))


def test_check_samples_finds_a_row_that_changed_on_the_device() -> None:
    run = Run(make_spec(3, 1, 2), 1, seed=0)
    memory = make(run, 1, CPU, check_samples=True)
    for _ in range(5):
        memory.append(run.next_segment(9, checksums=True))
    memory.sample(32)
    assert isinstance(memory._columns, DeviceColumns)
    memory._columns.frames["images"] += 1
    with pytest.raises(ValueError, match="check_samples: row"):
        memory.sample(32)


def test_num_bytes_are_those_of_the_tensors() -> None:
    spec = replace(make_spec(4, 2, 2), action_size=3)
    columns = DeviceColumns(spec, 1000, 1, META)
    tensors = [columns.action, *columns.frames.values()]
    assert num_bytes(spec, 1000) == sum(tensor.nbytes for tensor in tensors)
    assert columns.frames["images"].dtype == torch.uint8
