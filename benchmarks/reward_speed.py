"""Time of one reward call on a long path: ``python -m benchmarks.reward_speed``."""

from __future__ import annotations

import time

import numpy as np

from tasks.config import RewardCompat, RewardConfig
from tasks.trackmania.reward import ProgressReward

PATH_LENGTH_M = 2500.0
CALLS = 20_000
ROUNDS = 7


def main() -> None:
    """Prints the best of several rounds for each rule."""
    x = np.arange(0.0, PATH_LENGTH_M, 0.1)
    path = np.stack([x, np.zeros_like(x), 20.0 * np.sin(x / 50.0)], axis=1)
    for compat in RewardCompat:
        print(f"{compat.name}: {_call_s(path, compat) * 1e6:.2f} us per call")


def _call_s(path: np.ndarray, compat: RewardCompat) -> float:
    reward = ProgressReward(path, RewardConfig(compat=compat), 0.05)
    positions = path[np.linspace(0, len(path) - 1, CALLS).astype(int)].tolist()
    best = float("inf")
    for _ in range(ROUNDS):
        reward.reset()
        started = time.perf_counter()
        for x, y, z in positions:
            reward.step(x, y, z, False)
        best = min(best, time.perf_counter() - started)
    return best / CALLS


if __name__ == "__main__":
    main()
