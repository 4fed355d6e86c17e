"""Registers algorithms, players and networks in rl_games. ``train.py`` calls ``register(runner)``.

``algos.config.algorithms`` lists what is registered. Classes are imported when rl_games builds them, and
rl_games is imported at use.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Any

from algos.config.algorithms import algorithms, networks
from tasks.words.references import resolve


def register(runner: Any) -> None:
    """Makes everything known to a Runner and to rl_games' model builder. Twice is fine.

    Args:
        runner: ``rl_games.torch_runner.Runner``.
    """
    for name, algorithm in algorithms().items():
        runner.algo_factory.register_builder(name, _builder(algorithm.agent))
        runner.player_factory.register_builder(name, _builder(algorithm.player))
    register_networks()
    register_summaries()


def register_networks() -> None:
    """The networks alone, for a process that acts with one of rl_games' models."""
    from rl_games.algos_torch import model_builder

    for name, network in networks().items():
        model_builder.register_network(name, _builder(network))


def register_summaries() -> None:
    """Makes rl_games log through ``algos.run.summaries``: its own writers hang when the disk is full."""
    from rl_games.algos_torch import sac_agent
    from rl_games.common import a2c_common

    from algos.run.summaries import open_summaries

    for module in (a2c_common, sac_agent):
        vars(module)["SummaryWriter"] = open_summaries


def log_prints() -> None:
    """Turns what rl_games prints into log lines of level debug: standard output is for a command's answer."""
    log = logging.getLogger("rl_games")

    def to_log(*words: Any, **_: Any) -> None:
        log.debug(" ".join(str(word) for word in words))

    for name, module in list(sys.modules.items()):
        if name.startswith("rl_games."):
            vars(module)["print"] = to_log


def _builder(place: str) -> Callable[..., Any]:
    def build(**kwargs: Any) -> Any:
        return resolve(place, "what is built")(**kwargs)

    return build
