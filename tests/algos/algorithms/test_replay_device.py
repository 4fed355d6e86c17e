"""Where the replay memory keeps its rows, and that algorithms learn the same from both places."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from algos.algorithms.replay_device import chosen_replay_device
from algos.algorithms.rsac import RSAC
from algos.algorithms.sac import SAC
from algos.config import NetworkConfig, RecurrentNetworkConfig, ReplayDevice, RSACConfig, SACConfig
from algos.replay.device_columns import DeviceColumns, num_bytes
from tests.algos.agents import CPU, changed, snapshot
from tests.algos.replay.replay_reference import Run, make_spec
from tests.algos.replay.test_sequences import STATE_SIZE, next_segment

SPEC = make_spec(1, 1, 1)
GPU = torch.device("cuda:0")
ROWS = 1000


def config(kind: ReplayDevice, **keys: Any) -> SACConfig:
    return SACConfig(memory_size=ROWS, replay_device=kind, **keys)


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Free bytes of the GPU that this machine seems to have: just enough."""
    free = [2 * num_bytes(SPEC, ROWS)]
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda device: (free[0], 10 * free[0]))
    return free


def test_rows_are_on_the_gpu_where_half_of_its_free_memory_holds_them(free: list[int]) -> None:
    assert chosen_replay_device(config(ReplayDevice.cuda), SPEC, GPU) == GPU
    assert chosen_replay_device(config(ReplayDevice.cpu), SPEC, GPU) is None
    free[0] -= 2
    message = r"replay_device must be auto or cpu here, got cuda: memory_size=1000 takes .* 50% .* memory_size=999 fits"
    with pytest.raises(ValueError, match=message):
        chosen_replay_device(config(ReplayDevice.cuda), SPEC, GPU)


def test_auto_is_cpu_and_cuda_is_refused_without_a_gpu() -> None:
    for device in (CPU, GPU):
        assert chosen_replay_device(config(ReplayDevice.auto), SPEC, device) is None
    with pytest.raises(ValueError, match=r"must be auto or cpu here, got cuda: .* need device=cuda, and device is cpu"):
        chosen_replay_device(config(ReplayDevice.cuda), SPEC, CPU)


@pytest.mark.parametrize(
    ("kind", "settings", "network"),
    [
        (SAC, SACConfig, NetworkConfig(hidden=[8, 8])),
        (RSAC, RSACConfig, RecurrentNetworkConfig(hidden=[8, 8], gru_size=STATE_SIZE)),
    ],
)
def test_algorithms_learn_the_same_from_rows_on_a_device(
    kind: type[SAC], settings: type[SACConfig], network: NetworkConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    agents = []
    for device in (None, CPU):
        for module in ("off_policy", "rsac"):
            monkeypatch.setattr(f"algos.algorithms.{module}.chosen_replay_device", lambda *_, where=device: where)
        agent = kind(SPEC, settings(memory_size=100, n_step=2), network, CPU, seed=0)
        memory: Any = agent.make_memory(SPEC, seed=0)
        assert isinstance(memory._columns, DeviceColumns) == (device is not None)
        run = Run(SPEC, 2, seed=0)
        for _ in range(40):
            memory.append(next_segment(run, 9))
        for _ in range(3):
            agent.update(memory.sample(4))
        agents.append(agent)
    assert not changed(*(snapshot(agent) for agent in agents))
