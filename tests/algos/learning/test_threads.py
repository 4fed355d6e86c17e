"""The number of threads is that of the faster updates; the clock is ours."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import pytest
import torch

from algos.learning.threads import BLOCK, FIRST_UPDATE, NUM_BLOCKS, ThreadChoice
from algos.learning.wrapped import WrappedAlgorithm


class Machine(WrappedAlgorithm):
    """Makes updates that take, by its own clock, as long as its number of threads says."""

    def __init__(self, seconds: Mapping[int, float]) -> None:
        self._seconds = seconds
        self.time_s = 0.0
        self.threads = [1]
        self.used: list[int] = []

    def update(self, batch: Any) -> dict[str, torch.Tensor]:
        self.used.append(self.threads[-1])
        self.time_s += self._seconds[self.threads[-1]]
        return {"losses/critic": torch.tensor(batch)}


def updates(machine: Machine, most: int, number: int) -> None:
    choice = ThreadChoice(machine, most, now=lambda: machine.time_s, set_threads=machine.threads.append)
    for index in range(number):
        assert choice.update(float(index))["losses/critic"] == index


@pytest.mark.parametrize(("seconds", "chosen"), [(0.004, 6), (0.0095, 1), (0.02, 1)])
def test_more_threads_are_taken_where_they_save_a_tenth(
    seconds: float, chosen: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    machine = Machine({1: 0.01, 6: seconds})
    compared = FIRST_UPDATE + NUM_BLOCKS * BLOCK
    updates(machine, 6, compared + 10)
    assert machine.used.count(6) >= BLOCK * NUM_BLOCKS // 2
    assert machine.used[:FIRST_UPDATE] == [1] * FIRST_UPDATE
    assert machine.used[compared:] == [chosen] * 10
    (said,) = (record.getMessage() for record in caplog.records)
    assert said == (
        f"torch_threads=auto: {chosen}, since an update took 10.0 ms with 1 thread and {1e3 * seconds:.1f} ms with 6"
    )


def test_slow_updates_are_compared_in_one_turn_each() -> None:
    machine = Machine({1: 1.0, 2: 0.7})
    updates(machine, 2, FIRST_UPDATE + 2 * BLOCK + 3)
    assert machine.used == [1] * (FIRST_UPDATE + BLOCK) + [2] * (BLOCK + 3)
