r"""A variant of rl_games' PPO with a key of its own, and a network for it.

python train.py task=TM20Lidar train=CalmingPPO 'plugins=[docs/examples/own_ppo.py]' \
    train.params.network.name=skip_net

``docs/own_algorithms.md`` explains it. Worker processes load this file too. So the code that needs rl_games, which
takes seconds to import, is in ``own_ppo_agent.py`` and is imported when it is used.
"""

from __future__ import annotations

from dataclasses import dataclass

from algos.config.algorithms import add_algorithm, add_network
from algos.config.ppo import PPOConfig, PPONetworkConfig
from algos.config.train_schema import make_train_schema


@dataclass
class CalmingPPOConfig(PPOConfig):
    """PPO's keys, and one of its own, below ``train.params.config``."""

    entropy_coef: float = 0.01
    """Weight of the entropy bonus at the start."""
    final_entropy_coef: float = 0.0
    """Its weight at the end; in between it changes linearly."""


add_algorithm(
    "calming_ppo",
    agent="own_ppo_agent:CalmingPPOAgent",
    player="algos.faces.players:RemotePlayer",
    policy="algos.faces.ppo:make_ppo_policy",
    schema=make_train_schema("calming_ppo", "CalmingPPO", CalmingPPOConfig, PPONetworkConfig),
)
add_network("skip_net", "own_ppo_agent:SkipBuilder")
