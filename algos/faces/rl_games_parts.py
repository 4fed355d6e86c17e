"""What this room uses of rl_games, imported without torch's compiler.

rl_games compiles a network that nobody uses as it is imported. That imports the compiler, a second or two of every
start, also of an evaluator of PPO.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def uncompiled() -> Iterator[None]:
    """What is imported meanwhile compiles nothing with torch."""
    compiles = torch.compile
    vars(torch)["compile"] = lambda function: function
    try:
        yield
    finally:
        vars(torch)["compile"] = compiles


with uncompiled():
    from rl_games.algos_torch import a2c_continuous, model_builder
    from rl_games.algos_torch.network_builder import NetworkBuilder
    from rl_games.algos_torch.running_mean_std import RunningMeanStd
    from rl_games.common import env_configurations, vecenv
    from rl_games.common.player import BasePlayer
    from rl_games.interfaces.base_algorithm import BaseAlgorithm

__all__ = [
    "BaseAlgorithm",
    "BasePlayer",
    "NetworkBuilder",
    "RunningMeanStd",
    "a2c_continuous",
    "env_configurations",
    "model_builder",
    "uncompiled",
    "vecenv",
]
