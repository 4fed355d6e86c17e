"""Keys of ``params.config`` that only some algorithms have, such as REDQ's ``redq_n``.

``algos.config.off_policy`` has the keys that they share.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from algos.config.off_policy import Betas, OffPolicyConfig, PolicyValue, ReplayLearnerConfig, UpdateMode
from tasks.words.keys import Decides, decides, needs, only_with
from tasks.words.limits import Amount, Count, Fraction, NotNegative, Positive
from tasks.words.refusals import require


@dataclass
class CriticsConfig(OffPolicyConfig):
    """Keys of the algorithms that count critics and delays as SAC does."""

    num_critics: Count = field(default=2, metadata=decides(Decides.critics))
    """Critics in the ensemble (the paper's twin)."""
    policy_delay: Count = 1
    """Critic updates per update of actor and temperature."""

    @property
    def ensemble_size(self) -> int:
        """``num_critics``."""
        return self.num_critics

    @property
    def actor_period(self) -> int:
        """``policy_delay``."""
        return self.policy_delay


@dataclass
class SlowTargetsConfig(OffPolicyConfig):
    """Keys of the algorithms with target networks."""

    polyak: Fraction = 0.995
    """Share of the old target kept at each update: target = polyak x target + (1 - polyak) x critic."""

    @property
    def target_polyak(self) -> float | None:
        """``polyak``."""
        return self.polyak


@dataclass
class SACConfig(CriticsConfig, SlowTargetsConfig):
    """Soft Actor-Critic."""


@dataclass
class REDQConfig(SlowTargetsConfig):
    """Randomized Ensembled Double Q-Learning; names as in TMRL's config.json."""

    redq_n: Count = field(default=10, metadata=decides(Decides.critics))
    """Critics in the ensemble, N."""
    redq_m: int = 2
    """Critics of the random subset whose smallest value is the target, M."""
    redq_q_updates_per_policy_update: Count = 20
    """Critic updates per update of actor and temperature, G."""
    policy_value: PolicyValue = PolicyValue.mean
    """mean or min: the value that the actor maximises."""
    env_steps_before_training: Amount = 5000
    """Steps of the warm-up policy before the first update; fewer let the first critics overestimate."""
    min_updates_per_env_step: NotNegative = 20.0
    """Below this ratio virtual-clock workers wait; the live game ignores it."""
    max_updates_per_env_step: float = 20.0
    """Above this ratio the learner waits."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(1 <= self.redq_m <= self.redq_n, "redq_m", self.redq_m, f"between 1 and redq_n ({self.redq_n})")

    @property
    def ensemble_size(self) -> int:
        """``redq_n``."""
        return self.redq_n

    @property
    def actor_period(self) -> int:
        """``redq_q_updates_per_policy_update``."""
        return self.redq_q_updates_per_policy_update


@dataclass
class DroQConfig(SACConfig):
    """Dropout Q-functions: needs ``network.dropout`` above 0 and ``network.layer_norm``."""

    policy_delay: Count = 20
    """Critic updates per update of actor and temperature."""
    env_steps_before_training: Amount = 5000
    """Steps of the warm-up policy before the first update."""
    min_updates_per_env_step: NotNegative = 20.0
    """Below this ratio virtual-clock workers wait; the live game ignores it."""
    max_updates_per_env_step: float = 20.0
    """Above this ratio the learner waits."""


@dataclass
class TQCConfig(SACConfig):
    """Truncated Quantile Critics; with ``dropped_quantiles=0`` it is QR-SAC."""

    num_critics: Count = field(default=5, metadata=decides(Decides.critics))
    """Critics in the ensemble."""
    num_quantiles: Count = field(default=25, metadata=decides(Decides.critics))
    """Quantiles of each critic."""
    dropped_quantiles: int = 2
    """Largest quantiles left out of the target, per critic; 0: none (QR-SAC)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            0 <= self.dropped_quantiles < self.num_quantiles,
            "dropped_quantiles",
            self.dropped_quantiles,
            f"between 0 and num_quantiles - 1 ({self.num_quantiles - 1})",
        )


@dataclass
class CrossQConfig(CriticsConfig):
    """CrossQ: no target networks; needs ``network.batch_renorm``."""

    lr_actor: Positive = 1e-3
    """Learning rate of the actor."""
    lr_critic: Positive = 1e-3
    """Learning rate of critics and shared encoder."""
    lr_entropy: Positive = field(default=1e-3, metadata=needs(only_with(".learn_entropy_coef", True)))
    """Learning rate of the logarithm of the temperature (Adam)."""
    betas_actor: Betas = field(default_factory=lambda: [0.5, 0.999])
    """Averaging factors of adam and adamw; null: [0.9, 0.999]."""
    betas_critic: Betas = field(default_factory=lambda: [0.5, 0.999])
    """Averaging factors of adam and adamw; null: [0.9, 0.999]."""
    policy_delay: Count = 3
    """Critic updates per update of actor and temperature."""
    env_steps_before_training: Amount = 5000
    """Steps of the warm-up policy before the first update."""

    @property
    def target_polyak(self) -> float | None:
        """None: the critics are their own targets."""
        return None


@dataclass
class RSACConfig(SACConfig):
    """Recurrent SAC: the replay memory draws sequences."""

    batch_size: Count = 16
    """Sequences per update, each of up to ``sequence_length`` transitions: about the 256 transitions of SAC."""
    sequence_length: Count = 16
    """Consecutive rows of a sequence that are learned from; gradients go back this far in time."""
    burn_in: Amount = 8
    """Rows before them that bring the stored state up to date with the present weights, without gradient."""

    def __post_init__(self) -> None:
        super().__post_init__()
        expected = "auto, eager or compile: a graph needs batches of one size, and sequences differ in length"
        require(self.update_mode is not UpdateMode.graph, "update_mode", self.update_mode.name, expected)


@dataclass
class DAggerConfig(ReplayLearnerConfig):
    """DAgger: imitates a teacher, without reward and without critics."""

    teacher: str = ""
    """Checkpoint of the policy that is imitated: a file, or zoo:NAME. It may see privileged fields."""
    lr_actor: Positive = 1e-3
    """Learning rate of the policy."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.memory_size > 1, "memory_size", self.memory_size, "> 1, to hold a step")
