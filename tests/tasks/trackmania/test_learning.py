"""A proven learner learns to drive, which shows that physics, observation and reward are learnable."""

from __future__ import annotations

import logging
import time
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

import tasks
from tasks.envs.interface import FROM_START_OPTION

MAX_STEPS = 15_000
WARM_UP_STEPS = 2000
EVALUATE_EVERY = 500
LAP_TIME_S = 12.0
"""Sliding along the walls takes longer [s]."""

_logger = logging.getLogger(__name__)


class DrivingSpace(spaces.Box):
    """Samples actions that move a car: more gas than brake, steering held for 0.3 s."""

    def __init__(self) -> None:
        super().__init__(-1.0, 1.0, (3,), np.float32)
        self._held, self._steer = 0, 0.0

    def sample(self, mask: Any = None, probability: Any = None) -> np.ndarray:
        if self._held == 0:
            self._held, self._steer = 6, self.np_random.uniform(-1.0, 1.0)
        self._held -= 1
        gas, brake = self.np_random.uniform(-0.2, 1.0), self.np_random.uniform(-1.0, 0.3)
        return np.array([gas, brake, self._steer], np.float32)


def make_env() -> gymnasium.Wrapper:
    env = gymnasium.Wrapper(tasks.make("TM20Lidar", observation="flat", game="sim", track="short"))
    env.action_space = DrivingSpace()
    return env


def drive(model: Any, env: gymnasium.Env, seed: int) -> dict[str, float]:
    """Statistics of a lap of the deterministic policy."""
    observation, _ = env.reset(seed=seed, options={FROM_START_OPTION: True})
    while True:
        observation, _, terminated, truncated, info = env.step(model.predict(observation, deterministic=True)[0])
        if terminated or truncated:
            return info["episode_statistics"]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_stock_sac_drives_a_quick_lap_of_the_short_track() -> None:
    sb3 = pytest.importorskip("stable_baselines3")
    import torch
    from stable_baselines3.common.callbacks import BaseCallback

    torch.set_num_threads(1)
    laps: list[dict[str, float]] = []

    class UntilFinished(BaseCallback):
        """Evaluates at intervals; stops when the deterministic policy drives a quick lap."""

        def _on_step(self) -> bool:
            if self.num_timesteps > WARM_UP_STEPS and self.num_timesteps % EVALUATE_EVERY == 0:
                laps.append(drive(self.model, evaluation, seed=1000 + self.num_timesteps))
                _logger.info("%d steps: %s", self.num_timesteps, laps[-1])
                return not laps[-1]["lap_time_s"] < LAP_TIME_S
            return True

    evaluation = make_env()
    started = time.perf_counter()
    model = sb3.SAC(
        "MlpPolicy", make_env(), learning_rate=3e-4, batch_size=256, gamma=0.99, tau=0.005, ent_coef=0.01, n_steps=3,
        learning_starts=WARM_UP_STEPS, buffer_size=MAX_STEPS, policy_kwargs={"net_arch": [256, 256]}, device="cpu",
        seed=0,
    )  # fmt: skip
    model.learn(MAX_STEPS, callback=UntilFinished())
    _logger.info("%d steps in %.1f minutes", model.num_timesteps, (time.perf_counter() - started) / 60.0)
    assert laps[-1]["lap_time_s"] < LAP_TIME_S, f"farthest: {max(lap['progress'] for lap in laps):.0%} of the lap"
