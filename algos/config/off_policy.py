"""Keys of ``params.config`` that all off-policy algorithms share, such as ``gamma``; also those of their learning loop.

``algos.config.family`` has the keys that only some of them have.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum

from tasks.words.command_line import Role
from tasks.words.key_marks import Workers, workers_have
from tasks.words.key_needs import needs, not_with, only_with
from tasks.words.key_roles import acts_in
from tasks.words.refusals import require

_LEARNED = only_with(".learn_entropy_coef", True)


class OptimizerKind(Enum):
    """Which optimiser trains a network."""

    adam = "adam"
    adamw = "adamw"
    sgd = "sgd"
    rmsprop = "rmsprop"


class Precision(Enum):
    """Precision of matrix products and convolutions in an update."""

    auto = "auto"
    """What is fastest among those that were seen to learn the same: float32."""
    float32 = "float32"
    """That of the weights."""
    bfloat16 = "bfloat16"
    """Half the bits; weights, losses and optimisers stay float32. For processors with AVX512_BF16 or AMX, and GPUs."""


class WarmUp(Enum):
    """What acts before the first weights arrive."""

    uniform = "uniform"
    """Uniform in [-1, 1] for every action."""
    driving = "driving"
    """Gas U(-0.2, 1), brake U(-1, 0.3), a steer held for about 0.3 s: gets a car off the line."""


class PolicyValue(Enum):
    """Which of the critics' values the actor maximises."""

    mean = "mean"
    min = "min"


@dataclass
class DebugConfig:
    """Checks that cost time."""

    check_samples: bool = False
    """Compare the checksum of every sampled observation with the one the worker took (TMRL's CRC debug)."""
    extra_metrics: bool = False
    """Log spread and extremes of Q values, targets and actions (TMRL's DEBUG_MODE)."""


@dataclass
class OffPolicyConfig:
    """What SAC and the other off-policy algorithms share, and the loop around them (``params.config``).

    Each algorithm adds its own keys and says by the three properties what they mean to what is shared.
    """

    batch_size: int = 256
    """Transitions per update; 64 for images on a CPU."""
    memory_size: int = 1_000_000
    """Capacity of the replay memory [rows]."""
    gamma: float = 0.99
    """Discount per step. TMRL has 0.995."""
    n_step: int = 1
    """Rewards summed before the bootstrap; in driving 3 learns about twice as fast."""
    alpha: float = 1.0
    """Temperature; its start value when learned."""
    learn_entropy_coef: bool = True
    """Whether the temperature is learned."""
    alpha_min: float = field(default=1e-4, metadata=needs(_LEARNED))
    """Lower bound of a learned temperature."""
    alpha_max: float = field(default=10.0, metadata=needs(_LEARNED))
    """Upper bound of a learned temperature."""
    target_entropy: float | None = field(default=None, metadata=needs(_LEARNED))
    """Target entropy of a learned temperature [nats]; null: -(number of actions)."""
    lr_actor: float = 3e-4
    """Learning rate of the actor. TMRL has 1e-5."""
    lr_critic: float = 3e-4
    """Learning rate of critics and shared encoder. TMRL has 5e-5."""
    lr_entropy: float = field(default=3e-4, metadata=needs(_LEARNED))
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
    betas_entropy: list[float] | None = field(default=None, metadata=needs(_LEARNED))
    """Averaging factors of the temperature's Adam; null: [0.9, 0.999]."""
    l2_actor: float = 0.0
    """Weight decay: added to the gradient (adam, sgd, rmsprop) or decoupled from it (adamw)."""
    l2_critic: float = 0.0
    """Weight decay: added to the gradient (adam, sgd, rmsprop) or decoupled from it (adamw)."""
    precision: Precision = Precision.auto
    """auto, float32 or bfloat16: that of matrix products and convolutions in an update."""
    env_steps_before_training: int = 1000
    """Steps of the warm-up policy before the first update."""
    warm_up: WarmUp = field(
        default=WarmUp.uniform, metadata=acts_in(Role.train, Role.worker) | workers_have(Workers.same)
    )
    """uniform or driving."""
    min_updates_per_env_step: float = field(
        default=1.0, metadata=needs(not_with("task.game", "live"), not_with("task.clock", "wall"))
    )
    """Below this ratio virtual-clock workers wait; the live game ignores it."""
    max_updates_per_env_step: float = 1.0
    """Above this ratio the learner waits."""
    update_model_interval: int = 50
    """Updates between two publications of the acting weights."""
    log_interval: int = 200
    """Updates between two records of the metrics."""
    evaluation_interval: int = 2000
    """Environment steps between two evaluations; 0: none."""
    evaluation_episodes: int = field(default=10, metadata=needs(not_with(".evaluation_interval", 0)))
    """Episodes of an evaluation."""
    checkpoint_interval: int = 10_000
    """Environment steps between two periodic checkpoints; 0: only last and best."""
    save_replay: bool = True
    """Whether the replay memory is stored beside the checkpoints."""
    replay_transforms: list[str] = field(default_factory=list)
    """What plugins registered by ``algos.replay.transforms.add_replay_transform``; each changes the sampled batches, in
    this order."""
    debug: DebugConfig = field(default_factory=DebugConfig)
    """Checks that cost time."""

    def __post_init__(self) -> None:
        self._check_counts()
        self._check_ranges()
        self._check_temperature()
        _check_betas("betas_actor", self.betas_actor, self.optimizer_actor)
        _check_betas("betas_critic", self.betas_critic, self.optimizer_critic)
        _check_betas("betas_entropy", self.betas_entropy, OptimizerKind.adam)

    @property
    def ensemble_size(self) -> int:
        """Critics in the ensemble."""
        raise NotImplementedError

    @property
    def actor_period(self) -> int:
        """Critic updates per update of actor and temperature."""
        raise NotImplementedError

    @property
    def target_polyak(self) -> float | None:
        """Share of the old target kept at each update; None: there are no target networks."""
        raise NotImplementedError

    def _check_counts(self) -> None:
        at_least_one = ["batch_size", "memory_size", "n_step"]
        at_least_one += ["update_model_interval", "log_interval", "evaluation_episodes"]
        for name in at_least_one:
            require(getattr(self, name) >= 1, name, getattr(self, name), ">= 1")
        for name in ("env_steps_before_training", "evaluation_interval", "checkpoint_interval", "lr_decay_updates"):
            require(getattr(self, name) >= 0, name, getattr(self, name), ">= 0")
        require(
            self.memory_size > self.n_step, "memory_size", self.memory_size, f"> n_step ({self.n_step}), to hold a step"
        )

    def _check_ranges(self) -> None:
        require(0 < self.gamma <= 1, "gamma", self.gamma, "in (0, 1]")
        for name in ("lr_actor", "lr_critic", "lr_entropy"):
            require(0 < getattr(self, name) < math.inf, name, getattr(self, name), "> 0")
        for name in ("l2_actor", "l2_critic", "min_updates_per_env_step"):
            require(0 <= getattr(self, name) < math.inf, name, getattr(self, name), ">= 0")
        require(
            self.max_updates_per_env_step > 0 and self.max_updates_per_env_step >= self.min_updates_per_env_step,
            "max_updates_per_env_step",
            self.max_updates_per_env_step,
            f"> 0 and >= min_updates_per_env_step ({self.min_updates_per_env_step})",
        )

    def _check_temperature(self) -> None:
        require(0 <= self.alpha < math.inf, "alpha", self.alpha, ">= 0")
        require(0 < self.alpha_min < math.inf, "alpha_min", self.alpha_min, "> 0")
        require(
            self.alpha_min <= self.alpha_max < math.inf,
            "alpha_max",
            self.alpha_max,
            f">= alpha_min ({self.alpha_min})",
        )
        is_inside = self.alpha_min <= self.alpha <= self.alpha_max
        require(
            is_inside or not self.learn_entropy_coef,
            "alpha",
            self.alpha,
            f"between alpha_min ({self.alpha_min}) and alpha_max ({self.alpha_max}) when learn_entropy_coef is true",
        )


def _check_betas(name: str, betas: list[float] | None, optimizer: OptimizerKind) -> None:
    if betas is None:
        return
    require(
        optimizer in (OptimizerKind.adam, OptimizerKind.adamw),
        name,
        betas,
        f"null with the optimiser {optimizer.name}, which has none",
    )
    require(len(betas) == 2 and all(0 <= beta < 1 for beta in betas), name, betas, "two numbers in [0, 1)")
