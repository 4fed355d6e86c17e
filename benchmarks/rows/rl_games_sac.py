"""rl_games' own SAC on a filled replay buffer, with the layers of ours, LIDAR."""

from __future__ import annotations

import contextlib
import io
import tempfile
from typing import Any

import numpy as np
import torch
from gymnasium import spaces

from benchmarks.rows.updates import ROWS, Update
from tasks.experience.observation import ObservationSpec


def rl_games_update(spec: ObservationSpec, batch_size: int) -> Update:
    """One sampled update of critics, actor, temperature and targets."""
    from rl_games.algos_torch.sac_agent import SACAgent
    from rl_games.common.algo_observer import DefaultAlgoObserver

    size = spec.flat_space().shape[0]
    params: dict[str, Any] = {
        "algo": {"name": "sac"},
        "model": {"name": "soft_actor_critic"},
        "network": {
            "name": "soft_actor_critic",
            "separate": True,
            "space": {"continuous": None},
            "mlp": {"units": [256, 256], "activation": "relu", "initializer": {"name": "default"}},
            "log_std_bounds": [-20, 2],
        },
        "config": {
            "name": "benchmark",
            "env_name": "none",
            "env_info": {
                "observation_space": spaces.Box(-np.inf, np.inf, (size,)),
                "action_space": spaces.Box(-1.0, 1.0, (spec.action_size,)),
            },
            "device": "cpu",
            "reward_shaper": lambda reward: reward,
            "features": {"observer": DefaultAlgoObserver()},
            "batch_size": batch_size,
            "init_alpha": 0.01,
            "learnable_temperature": True,
            "replay_buffer_size": ROWS,
            "policy_frequency": 1,
            "actor_lr": 3e-4,
            "critic_lr": 3e-4,
            "alpha_lr": 3e-4,
        },
    }
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.redirect_stdout(io.StringIO()),
    ):  # it prints what it is told
        params["config"]["train_dir"] = folder
        agent = SACAgent("benchmark", params)
        agent.writer.close()
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    done = torch.zeros(ROWS, 1, dtype=torch.bool)
    agent.replay_buffer.add(
        random(ROWS, size), random(ROWS, spec.action_size).tanh(), random(ROWS, 1), random(ROWS, size), done
    )
    return lambda: agent.update(0)
