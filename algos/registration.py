"""Registers algorithms, players and networks in rl_games: the one place that says so.

``train.py`` calls ``register(runner)``. A plugin file calls ``add_algorithm`` or ``add_network`` when it is imported,
before that. Classes are named as "module:Class" and imported when they are built; rl_games is imported at use.
"""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Callable
from typing import Any, NamedTuple


class Algorithm(NamedTuple):
    """What is registered under an algorithm's name."""

    agent: str
    """``module:Class`` of an rl_games agent, built with (base_name, params)."""
    player: str
    """``module:Class`` of an rl_games player, built with (params)."""


_ALGORITHMS: dict[str, Algorithm] = {
    "remote_sac": Algorithm("algos.agent:RemoteSACAgent", "algos.players:RemoteSACPlayer"),
    "remote_ppo": Algorithm("algos.ppo:RemotePPOAgent", "algos.players:RemotePPOPlayer"),
}
_NETWORKS: dict[str, str] = {"tm_encoder": "algos.ppo:EncoderBuilder"}


def add_algorithm(name: str, agent: str, player: str) -> None:
    """Adds an algorithm, for ``train.params.algo.name``.

    Args:
        name: A name that is not taken, by rl_games neither.
        agent: ``module:Class`` of an rl_games agent.
        player: ``module:Class`` of an rl_games player.
    """
    _add(_ALGORITHMS, name, Algorithm(agent, player), "algorithm", ("sac", "a2c_continuous", "a2c_discrete"))


def add_network(name: str, builder: str) -> None:
    """Adds a network builder for rl_games' own algorithms (``train.params.network.name``).

    Args:
        name: A name that is not taken.
        builder: ``module:Class`` of an rl_games NetworkBuilder.
    """
    _add(_NETWORKS, name, builder, "network", ("actor_critic", "resnet_actor_critic", "soft_actor_critic"))


def algorithm_names() -> tuple[str, ...]:
    """All registered algorithms."""
    return tuple(_ALGORITHMS)


def register(runner: Any) -> None:
    """Makes everything known to a Runner and to rl_games' model builder. Twice is fine.

    Args:
        runner: ``rl_games.torch_runner.Runner``.
    """
    for name, algorithm in _ALGORITHMS.items():
        runner.algo_factory.register_builder(name, _builder(algorithm.agent))
        runner.player_factory.register_builder(name, _builder(algorithm.player))
    register_networks()


def log_prints() -> None:
    """Turns what rl_games prints into log lines of level debug: standard output is for a command's answer."""
    log = logging.getLogger("rl_games")

    def to_log(*words: Any, **_: Any) -> None:
        log.debug(" ".join(str(word) for word in words))

    for name, module in list(sys.modules.items()):
        if name.startswith("rl_games."):
            vars(module)["print"] = to_log


def register_networks() -> None:
    """The networks alone, for a process that acts with one of rl_games' models."""
    from rl_games.algos_torch import model_builder

    for name, network in _NETWORKS.items():
        model_builder.register_network(name, _builder(network))


def _builder(place: str) -> Callable[..., Any]:
    def build(**kwargs: Any) -> Any:
        module, _, name = place.partition(":")
        return getattr(importlib.import_module(module), name)(**kwargs)

    return build


def _add(registry: dict[str, Any], name: str, entry: Any, what: str, reserved: tuple[str, ...]) -> None:
    places = list(entry) if isinstance(entry, Algorithm) else [entry]
    for place in places:
        module, _, class_name = place.partition(":")
        if not module or not class_name:
            raise ValueError(f"{what} {name!r} must be given as 'module:Class', got {place!r}")
    if name in reserved or registry.get(name, entry) != entry:
        raise ValueError(f"the {what} name {name!r} is taken; choose another one")
    registry[name] = entry
