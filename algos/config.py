"""Configuration of networks and algorithms: what ``cfg/train/*.yaml`` may say. Standard library only.

Hydra reads these classes as schemas (enums by member name); the learner, the agent and the acting policy read the
fields. Names follow TMRL's ``config.json`` where it has the entry, in lower case. Nobody writes to an instance. Also
the names of the encoders, those of plugins included; ``algos.networks`` builds them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import Enum, StrEnum
from typing import Any, NamedTuple


class EncoderKind(StrEnum):
    """Built-in encoders: how an observation becomes the input of actor and critics."""

    mlp = "mlp"
    """No encoder: every field flat (LIDAR)."""
    tmrl_cnn = "tmrl_cnn"
    """TMRL's VanillaCNN: convolutions 64k8s2, 64k4s2, 128k4s2, 128k4s2, separate in the actor and each critic."""
    shared_cnn = "shared_cnn"
    """TMRL's convolutions once, then Linear, LayerNorm, tanh; trained by the critics, the actor sees it detached."""
    compact_cnn = "compact_cnn"
    """Shared as above with 16k8s4, 32k4s2, 32k3s2: learns on a CPU."""


class EncoderTraits(NamedTuple):
    """What must be known of an encoder before it is built."""

    reads_images: bool
    """Whether it needs an observation with an image; without, one that has none."""
    is_shared: bool = True
    """Whether the critics train one that the actor sees detached, or actor and each critic have their own."""


ENCODERS: dict[str, EncoderTraits] = {
    EncoderKind.mlp.value: EncoderTraits(reads_images=False),
    EncoderKind.tmrl_cnn.value: EncoderTraits(reads_images=True, is_shared=False),
    EncoderKind.shared_cnn.value: EncoderTraits(reads_images=True),
    EncoderKind.compact_cnn.value: EncoderTraits(reads_images=True),
}
"""All encoders by name: the built-in ones, and those that plugins registered in this process."""


class Normalization(Enum):
    """How fields are scaled before the networks see them."""

    fixed = "fixed"
    """(value - offset) / scale of the observation spec."""
    running = "running"
    """Running mean and variance of the batches for all but the images, which stay fixed."""
    tmrl = "tmrl"
    """TMRL's preprocessors: with images speed/1000, gear/10, rpm/10000, image/256; without images nothing."""
    none = "none"
    """Raw values."""


class OptimizerKind(Enum):
    """Which optimiser trains a network."""

    adam = "adam"
    adamw = "adamw"
    sgd = "sgd"
    rmsprop = "rmsprop"


class WarmUp(Enum):
    """What acts before the first weights arrive."""

    uniform = "uniform"
    """Uniform in [-1, 1] for every action."""
    driving = "driving"
    """Gas U(-0.2, 1), brake U(-1, 0.3), a steer held for about 0.3 s: gets a car off the line."""


@dataclass
class NetworkConfig:
    """Shape of the networks (``params.network``)."""

    encoder: str = "mlp"
    """mlp, tmrl_cnn, shared_cnn, compact_cnn, or a name that a plugin gave to ``algos.networks.add_encoder``."""
    hidden: list[int] = field(default_factory=lambda: [256, 256])
    """Widths of the hidden layers of actor and critics."""
    layer_norm: bool = False
    """LayerNorm after each hidden Linear of the critics; pays at two or more updates per step."""
    layer_norm_actor: bool = False
    """The same in the actor."""
    feature_size: int = 64
    """Width of the trunk behind a shared encoder."""
    target_encoder: bool = True
    """Whether the targets have their own slow copy of a shared encoder; false: heads only (DrQ-v2), one pass less."""
    random_shift: int = 0
    """Augmentation: images shift by up to this many pixels, edge pixels repeated; 0: off."""
    observation_normalization: Normalization = Normalization.fixed
    """fixed, running, tmrl or none."""

    def __post_init__(self) -> None:
        _require(
            len(self.hidden) >= 1 and all(width >= 1 for width in self.hidden),
            "network.hidden",
            self.hidden,
            "a list of at least one width >= 1",
        )
        known = list(ENCODERS)
        _require(
            self.encoder in known,
            "network.encoder",
            self.encoder,
            f"one of {known} or registered by a file of plugins=[...]",
        )
        is_shared = ENCODERS[self.encoder].is_shared and self.encoder != EncoderKind.mlp
        _require(
            self.target_encoder or is_shared,
            "network.target_encoder",
            self.target_encoder,
            f"true with the encoder {self.encoder}, which is not shared",
        )
        _require(self.feature_size >= 1, "network.feature_size", self.feature_size, ">= 1")
        _require(self.random_shift >= 0, "network.random_shift", self.random_shift, ">= 0 px")


@dataclass
class DebugConfig:
    """Checks that cost time."""

    check_samples: bool = False
    """Compare the checksum of every sampled observation with the one the worker took (TMRL's CRC debug)."""
    extra_metrics: bool = False
    """Log spread and extremes of Q values, targets and actions (TMRL's DEBUG_MODE)."""


@dataclass
class SACConfig:
    """Soft Actor-Critic and the loop around it (``params.config``)."""

    batch_size: int = 256
    """Transitions per update; 64 for images on a CPU."""
    memory_size: int = 1_000_000
    """Capacity of the replay memory [rows]."""
    gamma: float = 0.99
    """Discount per step. TMRL has 0.995."""
    polyak: float = 0.995
    """Share of the old target kept at each update: target = polyak x target + (1 - polyak) x critic."""
    n_step: int = 3
    """Rewards summed before the bootstrap. 1 is the paper's; 3 learns about twice as fast here."""
    num_critics: int = 2
    """Critics in the ensemble (the paper's twin)."""
    alpha: float = 0.01
    """Temperature; its start value when learned."""
    learn_entropy_coef: bool = False
    """Whether the temperature is learned."""
    alpha_min: float = 1e-4
    """Lower bound of a learned temperature."""
    alpha_max: float = 0.05
    """Upper bound of a learned temperature; above it the entropy bonus drowns a reward of 0.1 per metre."""
    target_entropy: float | None = None
    """Entropy a learned temperature holds [nats]; null: -(number of actions)."""
    lr_actor: float = 3e-4
    """Learning rate of the actor. TMRL has 1e-5."""
    lr_critic: float = 3e-4
    """Learning rate of critics and shared encoder. TMRL has 5e-5."""
    lr_entropy: float = 3e-4
    """Learning rate of the logarithm of the temperature (Adam)."""
    lr_decay_updates: int = 0
    """Updates over which the rates of actor and critic fall linearly to a tenth; 0: they stay. Late in a run this keeps
    a good driver from flickering between evaluations."""
    optimizer_actor: OptimizerKind = OptimizerKind.adam
    """adam, adamw, sgd or rmsprop."""
    optimizer_critic: OptimizerKind = OptimizerKind.adam
    """adam, adamw, sgd or rmsprop."""
    betas_actor: list[float] | None = None
    """Averaging factors of adam and adamw; null: [0.9, 0.999]."""
    betas_critic: list[float] | None = None
    """Averaging factors of adam and adamw; null: [0.9, 0.999]."""
    betas_entropy: list[float] | None = None
    """Averaging factors of the temperature's Adam; null: [0.9, 0.999]."""
    l2_actor: float = 0.0
    """Weight decay: added to the gradient (adam, sgd, rmsprop) or decoupled from it (adamw)."""
    l2_critic: float = 0.0
    """Weight decay: added to the gradient (adam, sgd, rmsprop) or decoupled from it (adamw)."""
    policy_delay: int = 1
    """Critic updates per update of actor and temperature."""
    env_steps_before_training: int = 2000
    """Steps of the warm-up policy before the first update."""
    warm_up: WarmUp = WarmUp.driving
    """uniform or driving."""
    min_updates_per_env_step: float = 1.0
    """Below this ratio virtual-clock workers wait; the live game ignores it."""
    max_updates_per_env_step: float = 4.0
    """Above this ratio the learner waits."""
    update_model_interval: int = 50
    """Updates between two publications of the acting weights."""
    log_interval: int = 200
    """Updates between two records of the metrics."""
    evaluation_interval: int = 2000
    """Environment steps between two evaluations; 0: none."""
    evaluation_episodes: int = 10
    """Episodes of an evaluation."""
    checkpoint_interval: int = 10_000
    """Environment steps between two periodic checkpoints; 0: only last and best."""
    save_replay: bool = True
    """Whether the replay memory is stored beside the checkpoints."""
    debug: DebugConfig = field(default_factory=DebugConfig)
    """Checks that cost time."""

    def __post_init__(self) -> None:
        self._check_counts()
        self._check_ranges()
        self._check_temperature()
        _check_betas("betas_actor", self.betas_actor, self.optimizer_actor)
        _check_betas("betas_critic", self.betas_critic, self.optimizer_critic)
        _check_betas("betas_entropy", self.betas_entropy, OptimizerKind.adam)

    def _check_counts(self) -> None:
        at_least_one = ["batch_size", "memory_size", "n_step", "num_critics", "policy_delay"]
        at_least_one += ["update_model_interval", "log_interval", "evaluation_episodes"]
        for name in at_least_one:
            _require(getattr(self, name) >= 1, name, getattr(self, name), ">= 1")
        for name in ("env_steps_before_training", "evaluation_interval", "checkpoint_interval", "lr_decay_updates"):
            _require(getattr(self, name) >= 0, name, getattr(self, name), ">= 0")
        _require(
            self.memory_size > self.n_step, "memory_size", self.memory_size, f"> n_step ({self.n_step}), to hold a step"
        )

    def _check_ranges(self) -> None:
        _require(0 < self.gamma <= 1, "gamma", self.gamma, "in (0, 1]")
        _require(0 <= self.polyak < 1, "polyak", self.polyak, "in [0, 1)")
        for name in ("lr_actor", "lr_critic", "lr_entropy"):
            _require(0 < getattr(self, name) < math.inf, name, getattr(self, name), "> 0")
        for name in ("l2_actor", "l2_critic", "min_updates_per_env_step"):
            _require(0 <= getattr(self, name) < math.inf, name, getattr(self, name), ">= 0")
        _require(
            self.max_updates_per_env_step > 0 and self.max_updates_per_env_step >= self.min_updates_per_env_step,
            "max_updates_per_env_step",
            self.max_updates_per_env_step,
            f"> 0 and >= min_updates_per_env_step ({self.min_updates_per_env_step})",
        )

    def _check_temperature(self) -> None:
        _require(0 <= self.alpha < math.inf, "alpha", self.alpha, ">= 0")
        _require(0 < self.alpha_min < math.inf, "alpha_min", self.alpha_min, "> 0")
        _require(
            self.alpha_min <= self.alpha_max < math.inf,
            "alpha_max",
            self.alpha_max,
            f">= alpha_min ({self.alpha_min})",
        )
        is_inside = self.alpha_min <= self.alpha <= self.alpha_max
        _require(
            is_inside or not self.learn_entropy_coef,
            "alpha",
            self.alpha,
            f"between alpha_min ({self.alpha_min}) and alpha_max ({self.alpha_max}) when learn_entropy_coef is true",
        )


def register_encoder_name(name: str, traits: EncoderTraits) -> None:
    """Makes a name known to ``NetworkConfig``; called by ``algos.networks.add_encoder``, which has the builder.

    Raises:
        ValueError: If the name is taken or cannot be typed.
    """
    _require(name.isidentifier(), "the name of an encoder", name, "letters, digits and _, not beginning with a digit")
    if ENCODERS.get(name, traits) != traits or name in EncoderKind.__members__:
        raise ValueError(f"the encoder name {name!r} is taken; choose another one")
    ENCODERS[name] = traits


def network_from_plain(data: Mapping[str, Any]) -> NetworkConfig:
    """Builds a NetworkConfig from plain data (enums by member name), as sent to a worker or stored in a checkpoint."""
    kinds = {"observation_normalization": Normalization}
    return NetworkConfig(**_with_enums(NetworkConfig, data, kinds))


def sac_from_plain(data: Mapping[str, Any]) -> SACConfig:
    """Builds a SACConfig from plain data (enums by member name)."""
    kinds = {"optimizer_actor": OptimizerKind, "optimizer_critic": OptimizerKind, "warm_up": WarmUp}
    values = _with_enums(SACConfig, data, kinds)
    if isinstance(values.get("debug"), Mapping):
        values["debug"] = DebugConfig(**_with_enums(DebugConfig, values["debug"], {}))
    return SACConfig(**values)


def to_plain(config: object) -> dict[str, Any]:
    """Plain JSON data of a configuration; the inverse of the two functions above."""
    return {entry.name: _plain(getattr(config, entry.name)) for entry in fields(config)}  # type: ignore[arg-type]


def _plain(value: object) -> object:
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, DebugConfig):
        return to_plain(value)
    return list(value) if isinstance(value, (list, tuple)) else value


def _with_enums(config: type, data: Mapping[str, Any], kinds: Mapping[str, type[Enum]]) -> dict[str, Any]:
    known = {entry.name for entry in fields(config)}
    unknown = sorted(set(data) - known)
    _require(not unknown, f"{config.__name__} keys", unknown, f"among {sorted(known)}")
    return {key: _enum(kinds[key], key, value) if key in kinds else value for key, value in data.items()}


def _enum(kind: type[Enum], key: str, value: object) -> Enum:
    if isinstance(value, kind):
        return value
    names = [member.name for member in kind]
    _require(value in names, key, value, f"one of {names}")
    return kind[str(value)]


def _check_betas(name: str, betas: list[float] | None, optimizer: OptimizerKind) -> None:
    if betas is None:
        return
    _require(
        optimizer in (OptimizerKind.adam, OptimizerKind.adamw),
        name,
        betas,
        f"null with the optimiser {optimizer.name}, which has none",
    )
    _require(len(betas) == 2 and all(0 <= beta < 1 for beta in betas), name, betas, "two numbers in [0, 1)")


def _require(condition: bool, key: str, got: object, expected: str) -> None:
    if not condition:
        raise ValueError(f"{key} must be {expected}, got {got!r}")
