"""The ``train`` section as typed dataclasses: one schema per algorithm, chosen by ``train.kind``.

Each base, such as ``cfg/train/SAC.yaml``, names its schema, so that a key of another algorithm fails like a misspelt
one. Standard library only.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, make_dataclass
from functools import partial
from typing import Any

from algos.config import NetworkConfig, ReplayLearnerConfig
from algos.config.ppo import PPOConfig, PPONetworkConfig
from tasks.words.command_line import Role
from tasks.words.keys import Decides, Workers, acts_in, decides, workers_have
from tasks.words.refusals import require

REQUIRED: Any = "???"
"""OmegaConf's mark for a value that a YAML file must give."""

_IN_CHECKPOINT = acts_in(Role.train, Role.play)
"""What --play compares with the checkpoint."""
_OF_POLICY = acts_in(Role.train, Role.play, Role.worker, Role.benchmark)
"""What also makes the policy of those that act without a learner."""
_OF_NETWORKS = decides(Decides.networks)


@dataclass
class AlgorithmName:
    """Name under which an algorithm is registered in rl_games' Runner."""

    name: str = REQUIRED


@dataclass
class OffPolicyParams:
    """rl_games' ``params`` for SAC and the other off-policy algorithms."""

    algo: AlgorithmName = field(default_factory=AlgorithmName, metadata=_OF_POLICY | _OF_NETWORKS)
    """The algorithm."""
    model: AlgorithmName = field(default_factory=AlgorithmName, metadata=_IN_CHECKPOINT | _OF_NETWORKS)
    """The model builder."""
    network: NetworkConfig = field(
        default_factory=NetworkConfig, metadata=_OF_POLICY | _OF_NETWORKS | workers_have(Workers.same)
    )
    """Shape of the networks."""
    config: ReplayLearnerConfig = field(default_factory=ReplayLearnerConfig)
    """The algorithm and the loop around it."""


@dataclass
class PPOParams:
    """rl_games' ``params`` for its PPO."""

    algo: AlgorithmName = field(
        default_factory=lambda: AlgorithmName("remote_ppo"), metadata=_IN_CHECKPOINT | _OF_NETWORKS
    )
    """The algorithm."""
    model: AlgorithmName = field(
        default_factory=lambda: AlgorithmName("continuous_a2c_logstd"), metadata=_IN_CHECKPOINT | _OF_NETWORKS
    )
    """The model builder."""
    network: PPONetworkConfig = field(
        default_factory=PPONetworkConfig, metadata=_IN_CHECKPOINT | _OF_NETWORKS | workers_have(Workers.same)
    )
    """Shape of the network."""
    config: PPOConfig = field(default_factory=PPOConfig)
    """The algorithm."""


@dataclass
class TrainConfig:
    """What every train YAML states."""

    max_env_steps: int = 300_000
    """Environment steps at which training ends by itself; the top-level max_env_steps goes before it."""

    def __post_init__(self) -> None:
        require(self.max_env_steps >= 1, "train.max_env_steps", self.max_env_steps, ">= 1")


@dataclass
class OffPolicyTrainConfig(TrainConfig):
    """A train YAML for SAC or one of its variants."""

    kind: str = REQUIRED
    """Which of these schemas this is; set by the base."""
    params: OffPolicyParams = field(default_factory=OffPolicyParams)
    """rl_games' params."""


@dataclass
class PPOTrainConfig(TrainConfig):
    """A train YAML that learns with rl_games' PPO."""

    kind: str = "ppo"
    """Which of these schemas this is; set by the base."""
    params: PPOParams = field(default_factory=PPOParams)
    """rl_games' params."""


def make_train_schema(
    name: str,
    title: str,
    config: type[ReplayLearnerConfig] | type[PPOConfig],
    network: type[NetworkConfig] | type[PPONetworkConfig],
    *,
    module: str | None = None,
    kind: str | None = None,
) -> type[TrainConfig]:
    """The schema of an algorithm from the dataclasses of ``params.config`` and ``params.network``.

    Args:
        name: Of the algorithm.
        title: How it is written in the names of its entries: with ``MySAC`` they are ``train=<Task>MySAC``.
        config: OffPolicyConfig, PPOConfig, or derived from one of them.
        network: NetworkConfig or PPONetworkConfig, or derived from it.
        module: Whose schema it is; with the title it says whether a name is taken or given once more; None: that of
            ``config``.
        kind: Its ``train.kind``; None: the name.
    """
    base, base_params = (
        (PPOTrainConfig, PPOParams) if issubclass(config, PPOConfig) else (OffPolicyTrainConfig, OffPolicyParams)
    )
    named = partial(AlgorithmName, name)
    factories: dict[str, tuple[type, Any]] = {
        "algo": (AlgorithmName, named),
        "network": (network, network),
        "config": (config, config),
    }
    if base is OffPolicyTrainConfig:
        factories["model"] = (AlgorithmName, named)
    metadata = {entry.name: entry.metadata for entry in fields(base_params)}
    entries = [
        (key, kind_of, field(default_factory=factory, metadata=metadata[key]))
        for key, (kind_of, factory) in factories.items()
    ]
    params = make_dataclass(f"{title}Params", entries, bases=(base_params,))
    own = [("kind", str, field(default=kind or name)), ("params", params, field(default_factory=params))]
    schema: type[TrainConfig] = make_dataclass(f"{title}TrainConfig", own, bases=(base,))
    schema.__module__ = module or config.__module__
    return schema


RL_GAMES_ALGORITHMS = ("a2c_continuous", "a2c_discrete", "sac")
"""What rl_games' Runner knows by itself."""
