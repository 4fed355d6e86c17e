"""The programs of the table do what its rows say, and need no more than they may."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from algos.config import EncoderKind
from benchmarks.rows import gpu_updates
from benchmarks.rows.convolutions import convolution_operations, convolution_rate
from benchmarks.rows.critic_list import CriticList
from benchmarks.rows.replay_bytes import bytes_per_transition, frame_bytes
from benchmarks.rows.training_runs import growth
from benchmarks.rows.updates import CPU, FULL, LIDAR, filled_memory, our_agent, redq_config, sac_config

ROOT = Path(__file__).resolve().parents[2]
BARE = """
import sys
from importlib.abc import MetaPathFinder

class Blocked(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(name, name=name)

sys.meta_path.insert(0, Blocked())
import torch
from benchmarks.rows import __main__, check, convolutions, gpu_updates, redq_updates, sac_updates, updates
torch.set_num_threads(1)
gpu_updates.update_on(updates.CPU, updates.LIDAR, "mlp", updates.redq_config(4))()
try:
    import benchmarks.rows.stable_baselines
except ImportError:
    print("ended")
"""
BLOCKED = ("hydra", "omegaconf", "gymnasium", "rl_games", "numba", "stable_baselines3", "cv2", "grpc", "safetensors")


@pytest.mark.timeout(300)
def test_update_and_gpu_rows_need_torch_and_numpy_alone() -> None:
    command = [sys.executable, "-c", BARE.format(blocked=BLOCKED)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ended.stdout == "ended\n", ended.stderr


def test_gpu_rows_have_their_bars_and_run_on_the_device_that_is_given() -> None:
    case = gpu_updates.case(CPU, batch_size=2)
    assert {row.name: row.bar for row in case.rows} == {
        "gpu_mlp": 5000,
        "gpu_cnn": 1000,
        "gpu_shared_cnn": 2500,
        "gpu_redq": 2000,
    }
    assert all(row.programs[0] in case.programs for row in case.rows)
    assert case.programs["gpu_mlp"](0.0) > 0


def test_batches_on_the_device_are_no_views_of_the_memory() -> None:
    memory = filled_memory(LIDAR, 1, 0.99)
    batch = memory.sample(4)
    copy = gpu_updates.copied(batch, CPU)
    before = copy.reward.clone(), copy.observation["lidar"].clone()
    batch.reward.add_(1.0)
    batch.observation["lidar"].add_(1.0)
    assert torch.equal(copy.reward, before[0])
    assert torch.equal(copy.observation["lidar"], before[1])


def test_redq_rows_update_ten_critics_and_no_actor_after_the_first() -> None:
    config = redq_config(8)
    agent = our_agent(LIDAR, EncoderKind.mlp, config)
    memory = filled_memory(LIDAR, config.n_step, config.gamma)
    agent.update(memory.sample(8))
    actor = [parameter.clone() for parameter in agent.acting.parameters()]
    critics = [parameter.clone() for parameter in agent.critic.parameters()]
    agent.update(memory.sample(8))
    assert all(torch.equal(*pair) for pair in zip(actor, agent.acting.parameters(), strict=True))
    assert not any(torch.equal(*pair) for pair in zip(critics, agent.critic.parameters(), strict=True))
    assert all(len(parameter) == 10 for parameter in critics)


def test_list_of_critics_learns_what_ours_learns() -> None:
    """The same weights, batch and noise give the same step; Adam hides that ours has the mean of the losses."""
    config = redq_config(32)
    config.redq_m = config.redq_n  # both then take the smallest of all
    ours, actor = (our_agent(LIDAR, EncoderKind.mlp, config) for _ in range(2))
    ours.num_updates = 1  # its actor keeps still
    peer = CriticList(LIDAR, config, actor)
    for index, (critic, target) in enumerate(zip(peer.critics, peer.targets, strict=True)):
        copy_member(ours.critic, critic, index)
        copy_member(ours.target_critic, target, index)
    before = [parameter.clone() for parameter in peer.critics[9].parameters()]
    batch = filled_memory(LIDAR, config.n_step, config.gamma).sample(32)
    ours.update(batch)
    peer.update(batch)
    expected = CriticList(LIDAR, config, actor)
    for index, (critic, target) in enumerate(zip(expected.critics, expected.targets, strict=True)):
        copy_member(ours.critic, critic, index)
        copy_member(ours.target_critic, target, index)
        assert distance(peer.critics[index], critic) < 0.03 * config.lr_critic
        assert distance(peer.targets[index], target) < 0.03 * config.lr_critic * (1 - config.polyak)
    assert all(not torch.equal(a, b) for a, b in zip(before, peer.critics[9].parameters(), strict=True))


def test_convolutions_are_counted_as_by_hand() -> None:
    update = nn.Sequential(nn.Conv2d(3, 5, 2, stride=2), nn.ReLU(), nn.Conv2d(5, 4, 3))
    image = torch.randn(2, 3, 12, 12)

    def step() -> None:
        update(image).sum().backward()

    first = 2 * 2 * (3 * 2 * 2) * 5 * 6 * 6  # 2 a product, batch, what a pixel sees, channels, pixels
    second = 2 * 2 * (5 * 3 * 3) * 4 * 4 * 4
    # forward of both, gradients of both weights, gradient of the second one's input
    assert convolution_operations(step) == 2 * first + 3 * second
    assert convolution_rate(step)(0.0) > 0


def test_stored_transition_takes_little_more_than_its_frame() -> None:
    assert frame_bytes() == 64 * 64
    assert 1.0 < bytes_per_transition() / frame_bytes() <= 1.05


def test_growth_leaves_out_the_start_and_needs_no_new_steps() -> None:
    """The learner's workers may wait, so that records have the same steps; the last one may be half written."""
    values = np.array([[100, 5], [200, 10], [200, 70], [200, 130], [200, 190]], float)
    elapsed_s = np.array([[100, 20], [200, 21], [200, 23], [200, 25]], float)
    assert growth(values, elapsed_s) == pytest.approx(30.0)


def test_updates_of_images_run() -> None:
    agent = our_agent(FULL, EncoderKind.compact_cnn, sac_config(4))
    metrics = agent.update(filled_memory(FULL, 1, 0.99).sample(4))
    assert all(torch.isfinite(value).all() for value in metrics.values())


def copy_member(ensemble: nn.Module, critic: nn.Module, index: int) -> None:
    """Puts the weights of one member of an ensemble, (in, out) each, into a critic of its own."""
    with torch.no_grad():
        for own, source in zip(critic.parameters(), ensemble.parameters(), strict=True):
            own.copy_(source[index].T if own.dim() == 2 else source[index].flatten())


def distance(one: nn.Module, other: nn.Module) -> float:
    """Mean difference of the weights."""
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    differences = torch.cat([(a - b).detach().abs().flatten() for a, b in pairs])
    return differences.mean().item()
