"""A task that only a memory solves: a cue at the start says which action pays three steps later."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from algos.acting.policy import ActingPolicy
from algos.acting.recurrent_policy import RecurrentPolicy
from algos.algorithms.rsac import RSAC
from algos.algorithms.sac import SAC
from algos.config import NetworkConfig, RecurrentNetworkConfig, RSACConfig, SACConfig, WarmUp
from algos.replay.memory import ReplayMemory
from algos.replay.sequences import SequenceMemory
from tasks.acting.rollout import Rollout
from tasks.experience.observation import Field, ObservationSpec

CPU = torch.device("cpu")
SPEC = ObservationSpec((Field("cue", (1,), low=-1.0), Field("time", (1,))), action_size=1, act_buf_len=0)
STEPS = 3


class RecallEnv(gymnasium.Env):
    """The first observation shows a cue of +1 or -1, the others 0; the last step pays cue x action. Best return: 1.

    Who has seen only the present cannot expect more than 0, whatever it does.
    """

    metadata: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self) -> None:
        self.observation_spec = SPEC
        self.observation_space = SPEC.dict_space()
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._cue = float(self.np_random.choice([-1.0, 1.0]))
        self._time = 0
        return self._observation(self._cue), {}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._time += 1
        is_last = self._time == STEPS
        reward = self._cue * float(action[0]) if is_last else 0.0
        return self._observation(0.0), reward, is_last, False, {}

    def _observation(self, cue: float) -> dict[str, np.ndarray]:
        return {"cue": np.array([cue], np.float32), "time": np.array([self._time], np.float32)}


def mean_return(algorithm: SAC, memory: ReplayMemory, policy: ActingPolicy, batch_size: int, updates: int) -> float:
    """Trains with one update per row, then drives 40 episodes without noise."""
    rollout = Rollout(RecallEnv(), policy, "w", 0, seed=0)
    for seq in range(1, updates + 1):
        rows = 200 if seq == 1 else 4
        memory.append(replace(rollout.run(rows), seq=seq))
        algorithm.update(memory.sample(batch_size))
        policy.load_weights(algorithm.acting_weights(), seq)
    score = Rollout(RecallEnv(), policy, "w", 0, seed=1, deterministic=True).run(40 * (STEPS + 1))
    return float(score.reward.sum()) / 40


@pytest.mark.parametrize("is_shared", [True, False])
def test_a_memory_recalls_the_cue(is_shared: bool) -> None:
    torch.set_num_threads(1)
    network = RecurrentNetworkConfig(hidden=[32], gru_size=16, shared_encoder=is_shared)
    config = RSACConfig(n_step=1, gamma=0.9, alpha=0.01, lr_actor=3e-3, lr_critic=3e-3, polyak=0.9)
    algorithm = RSAC(SPEC, config, network, CPU, seed=0)
    memory = SequenceMemory(SPEC, 5000, 1, 0.9, 0, network.gru_size, burn_in=1, sequence_length=4)
    policy = RecurrentPolicy(SPEC, network, 0, WarmUp.uniform, CPU)
    assert mean_return(algorithm, memory, policy, batch_size=16, updates=220) > 0.7


def test_without_a_memory_the_cue_cannot_be_recalled() -> None:
    torch.set_num_threads(1)
    network = NetworkConfig(hidden=[32])
    config = SACConfig(n_step=1, gamma=0.9, alpha=0.01, lr_actor=3e-3, lr_critic=3e-3, polyak=0.9)
    algorithm = SAC(SPEC, config, network, CPU, seed=0)
    policy = ActingPolicy(SPEC, network, 0, WarmUp.uniform, CPU)
    assert mean_return(algorithm, ReplayMemory(SPEC, 5000, 1, 0.9, 0), policy, 32, updates=100) < 0.5
