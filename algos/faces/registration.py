"""Registers algorithms, players and networks in rl_games: the one place that says so.

``train.py`` calls ``register(runner)``. A plugin file calls ``add_off_policy``, ``add_algorithm`` or ``add_network``
when it is imported, before that. Classes are named as "module:Class" and imported when they are built; rl_games is
imported at use. docs/own_algorithms.md is for users.
"""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from algos.config import NetworkConfig, OffPolicyConfig, RSACConfig, SACConfig
from algos.config.train_schema import RL_GAMES_ALGORITHMS, TrainConfig, add_train_schema, make_train_schema

ACTING_POLICY = "algos.acting.policy:make_acting_policy"
"""What builds the policy of SAC's workers and players, from plain data."""


class Algorithm(NamedTuple):
    """What is registered under an algorithm's name."""

    agent: str
    """``module:Class`` of an rl_games agent, built with (base_name, params)."""
    player: str
    """``module:Class`` of an rl_games player, built with (params)."""
    policy: str = ACTING_POLICY
    """``module:function`` that builds what acts, in workers and in the player."""


class OffPolicy(NamedTuple):
    """What ``algos.faces.family`` must know of an off-policy algorithm of a plugin."""

    algorithm: str
    """``module:Class`` of a class derived from ``algos.algorithms.sac.SAC``."""
    config_type: type[OffPolicyConfig]
    network_type: type[NetworkConfig]


_ALGORITHMS: dict[str, Algorithm] = {
    "remote_sac": Algorithm("algos.faces.agent:RemoteSACAgent", "algos.faces.players:RemoteSACPlayer"),
    "remote_redq": Algorithm("algos.faces.family:RemoteREDQAgent", "algos.faces.family:FamilyPlayer"),
    "remote_droq": Algorithm("algos.faces.family:RemoteDroQAgent", "algos.faces.family:FamilyPlayer"),
    "remote_tqc": Algorithm("algos.faces.family:RemoteTQCAgent", "algos.faces.family:FamilyPlayer"),
    "remote_crossq": Algorithm("algos.faces.family:RemoteCrossQAgent", "algos.faces.family:FamilyPlayer"),
    "remote_rsac": Algorithm(
        "algos.faces.family:RemoteRSACAgent",
        "algos.faces.family:FamilyPlayer",
        "algos.acting.recurrent_policy:make_recurrent_policy",
    ),
    "remote_ppo": Algorithm(
        "algos.faces.ppo:RemotePPOAgent", "algos.faces.players:RemotePPOPlayer", "algos.faces.ppo:make_ppo_policy"
    ),
}
_OFF_POLICY: dict[str, OffPolicy] = {}
_NETWORKS: dict[str, str] = {"tm_encoder": "algos.faces.ppo:EncoderBuilder"}


def add_off_policy(
    name: str,
    algorithm: str,
    config: type[OffPolicyConfig] = SACConfig,
    *,
    network: type[NetworkConfig] = NetworkConfig,
    policy: str = ACTING_POLICY,
) -> None:
    """Adds a variant of SAC: its agent, its player, and the schema of its train YAML are made here.

    Args:
        name: For ``train.params.algo.name`` and ``train.kind``; letters, digits and _, and not taken.
        algorithm: ``module:Class`` of a class derived from ``algos.algorithms.sac.SAC``, built as that is.
        ``train=<Task><Class>``
            is its entry for each task.
        config: Dataclass of ``train.params.config``: SACConfig, another of ``algos.config``, or derived from one.
        network: Dataclass of ``train.params.network``: NetworkConfig, or derived from it.
        policy: ``module:function`` that builds what acts from (spec, network, seed, warm_up, device), plain data, as
            ``algos.acting.policy.make_acting_policy`` does: for networks whose acting part is another.

    Raises:
        ValueError: If the name is taken or cannot be typed, a place is not "module:Class", or the algorithm learns from
            sequences, which needs another agent.
    """
    module, class_name = _split(algorithm, f"algorithm {name!r}")
    if issubclass(config, RSACConfig):
        raise ValueError(
            f"algorithm {name!r} learns from sequences (its keys are derived from RSACConfig): register it by "
            "add_algorithm with an agent derived from algos.faces.family.RemoteRSACAgent"
        )
    known = _OFF_POLICY.get(name)
    if known is not None and known.algorithm != algorithm:
        raise ValueError(f"the algorithm name {name!r} is taken by {known.algorithm}; choose another one")
    add_algorithm(
        name,
        "algos.faces.family:PluginAgent",
        "algos.faces.family:FamilyPlayer",
        policy=policy,
        schema=make_train_schema(name, class_name, config, network, module=module),
    )
    _OFF_POLICY[name] = OffPolicy(algorithm, config, network)


def add_algorithm(
    name: str, agent: str, player: str, *, policy: str = ACTING_POLICY, schema: type[TrainConfig] | None = None
) -> None:
    """Adds an algorithm with an agent and a player of its own, for ``train.params.algo.name``.

    Args:
        name: A name that is not taken, by rl_games neither.
        agent: ``module:Class`` of an rl_games agent.
        player: ``module:Class`` of an rl_games player.
        policy: ``module:function`` that builds what acts from plain data: in workers that act alone, and in players
            derived from ``algos.faces.players.RemotePlayer``.
        schema: What a train YAML may say, registered as ``train.kind: <name>``; None: a YAML with the kind of one of
            ours, or one without a kind, which is passed on as it is.

    Raises:
        ValueError: If the name is taken, or a place is not "module:Class".
    """
    for place in (agent, player, policy):
        _split(place, f"algorithm {name!r}")
    _add(_ALGORITHMS, name, Algorithm(agent, player, policy), "algorithm", RL_GAMES_ALGORITHMS)
    if schema is not None:
        add_train_schema(name, schema)


def add_network(name: str, builder: str) -> None:
    """Adds a network builder for rl_games' own algorithms (``train.params.network.name``).

    Args:
        name: A name that is not taken.
        builder: ``module:Class`` of an rl_games NetworkBuilder.

    Raises:
        ValueError: If the name is taken, or the place is not "module:Class".
    """
    _split(builder, f"network {name!r}")
    _add(_NETWORKS, name, builder, "network", ("actor_critic", "resnet_actor_critic", "soft_actor_critic"))


def algorithm_names() -> tuple[str, ...]:
    """All registered algorithms."""
    return tuple(_ALGORITHMS)


def network_names() -> tuple[str, ...]:
    """All registered network builders for rl_games' own algorithms."""
    return tuple(_NETWORKS)


def policy_function(name: str) -> str:
    """``module:function`` of what acts for an algorithm; code, so never taken from a checkpoint.

    Raises:
        ValueError: If no such algorithm is registered here.
    """
    if name not in _ALGORITHMS:
        raise ValueError(
            f"unknown algorithm {name!r}; registered: {', '.join(_ALGORITHMS)}; one of your own needs plugins=[FILE.py]"
        )
    return _ALGORITHMS[name].policy


def off_policy(name: str) -> OffPolicy:
    """What ``add_off_policy`` was given under a name."""
    return _OFF_POLICY[name]


def register(runner: Any) -> None:
    """Makes everything known to a Runner and to rl_games' model builder. Twice is fine.

    Args:
        runner: ``rl_games.torch_runner.Runner``.
    """
    for name, algorithm in _ALGORITHMS.items():
        runner.algo_factory.register_builder(name, _builder(algorithm.agent))
        runner.player_factory.register_builder(name, _builder(algorithm.player))
    register_networks()
    register_summaries()


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


def register_summaries() -> None:
    """Has rl_games log through ``algos.run.summaries``: its own writers hang for ever when the disk is full."""
    from rl_games.algos_torch import sac_agent
    from rl_games.common import a2c_common

    from algos.run.summaries import open_summaries

    for module in (a2c_common, sac_agent):
        vars(module)["SummaryWriter"] = open_summaries


def _builder(place: str) -> Callable[..., Any]:
    module, name = _split(place, "what is built")

    def build(**kwargs: Any) -> Any:
        return getattr(importlib.import_module(module), name)(**kwargs)

    return build


def _split(place: str, what: str) -> tuple[str, str]:
    module, _, name = place.partition(":")
    if not module or not name:
        raise ValueError(f"{what} must be given as 'module:Class', got {place!r}")
    return module, name


def _add(registry: dict[str, Any], name: str, entry: Any, what: str, reserved: tuple[str, ...]) -> None:
    if name in reserved or registry.get(name, entry) != entry:
        raise ValueError(f"the {what} name {name!r} is taken; choose another one")
    registry[name] = entry
