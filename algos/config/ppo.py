"""Configuration of rl_games' PPO: the keys that are offered, and their translation into rl_games' ``params``.

Names are rl_games' own. Standard library only; ``algos.faces.ppo`` is the agent. Keys of the run (device, number of
steps, task) come from the top of the configuration and are not repeated here.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Annotated, Any

from algos.config import ENCODERS, EncoderKind
from tasks.words.keys import needs, not_with, only_with
from tasks.words.limits import Amount, Checked, Count, NotNegative, Positive, Share, Widths, one_of
from tasks.words.refusals import require

FLAT_NETWORK = "actor_critic"
"""rl_games' own network, for flat observations."""
DICT_NETWORK = "tm_encoder"
"""Ours, for observations with images; registered by ``algos.faces.registration``."""


class LearningRateSchedule(Enum):
    """How the learning rate changes."""

    adaptive = "adaptive"
    """Holds the KL divergence of an update near kl_threshold."""
    linear = "linear"
    """Falls to zero at the end of training."""
    constant = "constant"


@dataclass
class PPONetworkConfig(Checked):
    """Shape of the network (``params.network``)."""

    name: str | None = None
    """An rl_games network builder that a plugin registered with ``add_network``; null: the encoder's."""
    encoder: str = "mlp"
    """mlp: flat observations and rl_games' network; dense, compact_cnn, shared_cnn, or a name that a plugin gave to
    ``algos.networks.add_encoder``: dict observations and ours."""
    hidden: Widths = field(default_factory=lambda: [256, 256])
    """Widths of the hidden layers, shared by policy and value."""
    activation: Annotated[str, one_of("elu", "relu", "tanh", "selu", "swish", "gelu")] = "elu"
    """Of the hidden layers: elu, relu, tanh, selu, swish or gelu."""
    feature_size: Count = field(default=64, metadata=needs(not_with(".encoder", "mlp")))
    """Width of the encoder's last layer."""
    initial_log_std: float = -0.5
    """Logarithm of the standard deviation of a new policy; learned, the same in every state."""

    def __post_init__(self) -> None:
        super().__post_init__()
        names = [name for name in ENCODERS if name != EncoderKind.tmrl_cnn]
        require(self.encoder in names, "encoder", str(self.encoder), f"one of {names} for PPO")


@dataclass
class PPOLoopConfig(Checked):
    """Keys of the run around rl_games' PPO, ours or that of an rl_games file."""

    log_interval: Count = 1
    """Epochs between two records of our metrics."""
    evaluation_interval: Amount = 50_000
    """Environment steps between two evaluations; 0: none."""
    evaluation_episodes: Count = field(default=10, metadata=needs(not_with(".evaluation_interval", 0)))
    """Episodes of an evaluation."""
    checkpoint_interval: Amount = 200_000
    """Environment steps between two periodic checkpoints; 0: only last and best."""


@dataclass
class PPOConfig(PPOLoopConfig):
    """rl_games' PPO and the loop around it (``params.config``)."""

    num_actors: Count = 16
    """Environments that step together, spread over num_workers processes."""
    horizon_length: Count = 64
    """Steps of each environment per epoch."""
    minibatch_size: Count = 256
    """Samples per gradient step; must divide num_actors x horizon_length."""
    mini_epochs: Count = 5
    """Passes over the samples of an epoch."""
    gamma: Share = 0.99
    """Discount per step."""
    tau: Share = 0.95
    """Lambda of generalised advantage estimation."""
    learning_rate: Positive = 3e-4
    """Start value of the learning rate."""
    lr_schedule: LearningRateSchedule = LearningRateSchedule.adaptive
    """adaptive, linear or constant."""
    kl_threshold: Positive = field(default=0.016, metadata=needs(only_with(".lr_schedule", "adaptive")))
    """Target of the adaptive schedule."""
    e_clip: Positive = 0.2
    """Clip range of the probability ratio."""
    clip_value: bool = True
    """Whether the value loss is clipped too."""
    critic_coef: NotNegative = 2.0
    """Weight of the value loss."""
    entropy_coef: NotNegative = 0.0
    """Weight of the entropy bonus."""
    bounds_loss_coef: NotNegative = 1e-4
    """Weight of the penalty on means beyond +-1.1."""
    truncate_grads: bool = True
    """Whether the gradient's norm is clipped."""
    grad_norm: Positive = field(default=1.0, metadata=needs(only_with(".truncate_grads", True)))
    """Largest norm of the gradient."""
    normalize_advantage: bool = True
    """Whether advantages have mean 0 and deviation 1."""
    normalize_input: bool = True
    """Running normalisation of flat observations; images are scaled by the network instead."""
    normalize_value: bool = True
    """Running normalisation of returns."""
    value_bootstrap: bool = True
    """Whether a truncated episode is bootstrapped."""
    weight_decay: NotNegative = 0.0
    """Weight decay of Adam."""
    games_to_track: Count = 100
    """Episodes in rl_games' own averages."""

    def __post_init__(self) -> None:
        super().__post_init__()
        samples = self.num_actors * self.horizon_length
        require(
            samples % self.minibatch_size == 0,
            "minibatch_size",
            self.minibatch_size,
            f"a divisor of num_actors x horizon_length = {samples}",
        )


def ppo_params(config: PPOConfig, network: PPONetworkConfig) -> dict[str, Any]:
    """rl_games' ``params`` for its PPO: ``model``, ``network`` and what belongs into ``config``.

    The caller adds the keys of the run to ``config`` (see ``algos.faces.runner_params``). ``config["observation"]``
    says which observations the lock-step vecenv must give: ``flat`` or ``dict``.
    """
    is_flat = network.encoder == EncoderKind.mlp
    values = {entry.name: _plain(getattr(config, entry.name)) for entry in fields(config)}
    return {
        "model": {"name": "continuous_a2c_logstd"},
        "network": _network_params(network),
        "config": {
            **values,
            "normalize_input": config.normalize_input and is_flat,
            "observation": "flat" if is_flat else "dict",
            "ppo": True,
            "mixed_precision": False,
            "torch_compile": False,
            "max_epochs": -1,
            "save_frequency": 0,
            "save_best_after": 2**62,
            "print_stats": False,
            "reward_shaper": {},
        },
    }


def _network_params(network: PPONetworkConfig) -> dict[str, Any]:
    is_flat = network.encoder == EncoderKind.mlp
    params: dict[str, Any] = {
        "name": network.name or (FLAT_NETWORK if is_flat else DICT_NETWORK),
        "separate": False,
        "space": {
            "continuous": {
                "mu_activation": "None",
                "sigma_activation": "None",
                "mu_init": {"name": "default"},
                "sigma_init": {"name": "const_initializer", "val": network.initial_log_std},
                "fixed_sigma": True,
            }
        },
        "mlp": {
            "units": list(network.hidden),
            "activation": network.activation,
            "d2rl": False,
            "initializer": {"name": "default"},
            "regularizer": {"name": "None"},
        },
    }
    if not is_flat:
        params |= {"encoder": str(network.encoder), "feature_size": network.feature_size}
    return params


def _plain(value: object) -> object:
    return value.name if isinstance(value, Enum) else value
