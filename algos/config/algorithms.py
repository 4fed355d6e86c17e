"""The algorithms by name: the class that learns, its keys, and the agent and player that rl_games' Runner builds.

A plugin file calls ``add_off_policy``, ``add_algorithm`` or ``add_network`` when it is imported; the same calls at the
end of this file add the built-in algorithms. Classes are named as "module:Class" and imported when they are used, so
that this file stays plain data. ``algos.faces.registration`` registers all of them in rl_games.
docs/own_algorithms.md is for users.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from algos.config.family import CrossQConfig, DAggerConfig, DroQConfig, REDQConfig, RSACConfig, SACConfig, TQCConfig
from algos.config.network import NetworkConfig, RecurrentNetworkConfig
from algos.config.off_policy import ReplayLearnerConfig
from algos.config.train_schema import RL_GAMES_ALGORITHMS, PPOTrainConfig, TrainConfig, make_train_schema
from tasks.words.references import split_reference
from tasks.words.refusals import require

ACTING_POLICY = "algos.acting.policy:make_acting_policy"
"""What builds the policy of SAC's workers and players, from plain data."""
OFF_POLICY_AGENT = "algos.faces.agent:OffPolicyAgent"
PLAYER = "algos.faces.players:RemotePlayer"


class Algorithm(NamedTuple):
    """What is registered under an algorithm's name."""

    agent: str
    """``module:Class`` of an rl_games agent, built with (base_name, params)."""
    player: str
    """``module:Class`` of an rl_games player, built with (params)."""
    policy: str = ACTING_POLICY
    """``module:function`` that builds the policy, in workers and in the player."""


class OffPolicy(NamedTuple):
    """What an off-policy agent must know of its algorithm."""

    algorithm: str
    """``module:Class`` of a class derived from ``algos.algorithms.base.ReplayAlgorithm``, such as SAC."""
    config_type: type[ReplayLearnerConfig]
    network_type: type[NetworkConfig]


TRAIN_SCHEMAS: dict[str, type[TrainConfig]] = {}
"""Schema of ``train`` by ``train.kind``, those of plugins included; a train YAML without a kind stays plain data."""

_ALGORITHMS: dict[str, Algorithm] = {}
_OFF_POLICY: dict[str, OffPolicy] = {}
_NETWORKS: dict[str, str] = {}


def add_off_policy(
    name: str,
    algorithm: str,
    config: type[ReplayLearnerConfig] = SACConfig,
    *,
    network: type[NetworkConfig] = NetworkConfig,
    policy: str = ACTING_POLICY,
    agent: str = OFF_POLICY_AGENT,
    player: str = PLAYER,
    kind: str | None = None,
) -> None:
    """Adds what learns from a replay memory: its agent, its player, and the schema of its train YAML are made here.

    Args:
        name: For ``train.params.algo.name``; letters, digits and _, and not taken.
        algorithm: ``module:Class`` of a class derived from ``algos.algorithms.base.ReplayAlgorithm``, such as SAC;
            ``train=<Task><Class>`` is its entry for each task.
        config: Dataclass of ``train.params.config``: SACConfig, another of ``algos.config``, or derived from one.
        network: Dataclass of ``train.params.network``: NetworkConfig, or derived from it.
        policy: ``module:function`` that builds the policy from (spec, network, seed, warm_up, device), plain data, as
            ``algos.acting.policy.make_acting_policy`` does, and from held_pedals where that is not 0: for networks
            whose acting part is another.
        agent: ``module:Class`` of what trains it, where it needs one derived from ``algos.faces.agent.OffPolicyAgent``.
        player: ``module:Class`` of what plays it, where it needs one derived from ``algos.faces.players.RemotePlayer``.
        kind: Its ``train.kind``; None: the name.

    Raises:
        ValueError: If the name is taken or cannot be typed, or a place is not "module:Class".
    """
    module, class_name = split_reference(algorithm, f"algorithm {name!r}")
    known = _OFF_POLICY.get(name)
    if known is not None and known.algorithm != algorithm:
        raise ValueError(f"the algorithm name {name!r} is taken by {known.algorithm}; choose another one")
    add_algorithm(
        name,
        agent,
        player,
        policy=policy,
        schema=make_train_schema(name, class_name, config, network, module=module, kind=kind),
        kind=kind,
    )
    _OFF_POLICY[name] = OffPolicy(algorithm, config, network)


def add_algorithm(
    name: str,
    agent: str,
    player: str,
    *,
    policy: str = ACTING_POLICY,
    schema: type[TrainConfig] | None = None,
    kind: str | None = None,
) -> None:
    """Adds an algorithm with its own agent and player, for ``train.params.algo.name``.

    Args:
        name: A name that is not taken, by rl_games neither.
        agent: ``module:Class`` of an rl_games agent.
        player: ``module:Class`` of an rl_games player.
        policy: ``module:function`` that builds the policy from plain data: in workers that act alone, and in players
            derived from ``algos.faces.players.RemotePlayer``.
        schema: What a train YAML may say, registered as ``train.kind: <kind>``; None: a YAML with the kind of one of
            ours, or one without a kind, which is passed on as it is.
        kind: Of the schema; None: the name.

    Raises:
        ValueError: If the name is taken, or a place is not "module:Class".
    """
    for place in (agent, player, policy):
        split_reference(place, f"algorithm {name!r}")
    _add(_ALGORITHMS, name, Algorithm(agent, player, policy), "algorithm", RL_GAMES_ALGORITHMS)
    if schema is not None:
        add_train_schema(kind or name, schema)


def add_network(name: str, builder: str) -> None:
    """Adds a network builder for rl_games' own algorithms (``train.params.network.name``).

    Args:
        name: A name that is not taken.
        builder: ``module:Class`` of an rl_games NetworkBuilder.

    Raises:
        ValueError: If the name is taken, or the place is not "module:Class".
    """
    split_reference(builder, f"network {name!r}")
    _add(_NETWORKS, name, builder, "network", ("actor_critic", "resnet_actor_critic", "soft_actor_critic"))


def add_train_schema(kind: str, schema: type[TrainConfig]) -> None:
    """Makes a schema known under ``train.kind``, and to YAML files as ``/schema/train@_here_: <kind>``.

    Args:
        kind: Letters, digits and _.
        schema: Its field ``kind`` must have that default, and ``params`` the dataclasses of what may be said.

    Raises:
        ValueError: If the name is taken or cannot be typed.
    """
    is_word = kind.isidentifier()
    require(is_word, "train.kind of an algorithm", kind, "letters, digits and _, not beginning with a digit")
    known = TRAIN_SCHEMAS.get(kind)
    is_again = known is not None and (known.__module__, known.__qualname__) == (schema.__module__, schema.__qualname__)
    require(known is None or is_again, "train.kind of an algorithm", kind, "a name that is not taken")
    TRAIN_SCHEMAS[kind] = schema


def algorithms() -> dict[str, Algorithm]:
    """All registered algorithms by name."""
    return dict(_ALGORITHMS)


def networks() -> dict[str, str]:
    """All registered network builders for rl_games' own algorithms: ``module:Class`` by name."""
    return dict(_NETWORKS)


def policy_function(name: str) -> str:
    """``module:function`` of an algorithm's policy; it names code, so it is never taken from a checkpoint.

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


def _add(registry: dict[str, Any], name: str, entry: Any, what: str, reserved: tuple[str, ...]) -> None:
    if name in reserved or registry.get(name, entry) != entry:
        raise ValueError(f"the {what} name {name!r} is taken; choose another one")
    registry[name] = entry


add_off_policy("remote_sac", "algos.algorithms.sac:SAC", SACConfig, kind="sac")
add_off_policy("remote_redq", "algos.algorithms.redq:REDQ", REDQConfig, kind="redq")
add_off_policy("remote_droq", "algos.algorithms.droq:DroQ", DroQConfig, kind="droq")
add_off_policy("remote_tqc", "algos.algorithms.tqc:TQC", TQCConfig, kind="tqc")
add_off_policy("remote_crossq", "algos.algorithms.crossq:CrossQ", CrossQConfig, kind="crossq")
add_off_policy(
    "remote_rsac",
    "algos.algorithms.rsac:RSAC",
    RSACConfig,
    network=RecurrentNetworkConfig,
    policy="algos.acting.recurrent_policy:make_recurrent_policy",
    kind="rsac",
)
add_off_policy(
    "remote_dagger",
    "algos.algorithms.dagger:DAgger",
    DAggerConfig,
    policy="algos.acting.imitating_policy:make_imitating_policy",
    agent="algos.faces.dagger_agent:DAggerAgent",
    kind="dagger",
)
add_algorithm(
    "remote_ppo",
    "algos.faces.ppo:RemotePPOAgent",
    PLAYER,
    policy="algos.faces.ppo:make_ppo_policy",
    schema=PPOTrainConfig,
    kind="ppo",
)
add_network("tm_encoder", "algos.faces.ppo:EncoderBuilder")
