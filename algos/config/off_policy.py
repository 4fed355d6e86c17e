"""Keys of ``params.config`` that several algorithms share: those of the learning loop, then those of critics.

``algos.config.family`` has the keys that only some of them have.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Annotated, Self

from tasks.words.command_line import Role
from tasks.words.keys import Workers, acts_in, needs, not_with, only_with, workers_have
from tasks.words.limits import (
    Amount,
    AmountOrAuto,
    Checked,
    Count,
    Fraction,
    Limit,
    NotNegative,
    Positive,
    Share,
    above,
)
from tasks.words.refusals import require

Betas = Annotated[
    list[float] | None,
    Limit("two numbers in [0, 1)", lambda value: len(value) == 2 and all(0 <= beta < 1 for beta in value)),
]
"""Averaging factors of an optimiser."""
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


class UpdateMode(Enum):
    """How the steps of an update are run; the results are equal but for rounding."""

    auto = "auto"
    """eager: the only one that was seen to pay."""
    eager = "eager"
    """As they stand, one call after the other."""
    compile = "compile"
    """The losses go through torch.compile, which takes a minute or more at the start and needs a C++ compiler (on a GPU
    triton)."""
    graph = "graph"
    """As a CUDA graph, on a GPU only: captured once, then launched as a whole."""


class ReplayDevice(Enum):
    """Where the rows of the replay memory are; the batches drawn from them are the same."""

    auto = "auto"
    """cpu, until a measurement shows that the other pays."""
    cpu = "cpu"
    """In host memory: each batch is copied to the device."""
    cuda = "cuda"
    """On the GPU that the learner computes on: only the places of the drawn rows and their returns are copied to it.
    ``replay_transforms`` then get tensors of the GPU."""


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
class ReplayLearnerConfig(Checked):
    """What all share that learn from a replay memory, and the loop around them (``params.config``)."""

    batch_size: Count = 256
    """Transitions per update; 64 for images on a CPU."""
    memory_size: Count = 1_000_000
    """Capacity of the replay memory [rows]."""
    lr_actor: Positive = 3e-4
    """Learning rate of the actor. TMRL has 1e-5."""
    lr_decay_updates: AmountOrAuto = 0
    """Updates over which the learning rates fall linearly to a tenth; 0: they stay; auto: those of the whole training,
    max_env_steps times min_updates_per_env_step. Late in a run this keeps a good driver from flickering between
    evaluations."""
    optimizer_actor: OptimizerKind = OptimizerKind.adam
    """adam, adamw, sgd or rmsprop."""
    betas_actor: Betas = None
    """Averaging factors of adam and adamw; null: [0.9, 0.999]."""
    l2_actor: NotNegative = 0.0
    """Weight decay: added to the gradient (adam, sgd, rmsprop) or decoupled from it (adamw)."""
    precision: Precision = Precision.auto
    """auto, float32 or bfloat16: that of matrix products and convolutions in an update."""
    update_mode: UpdateMode = UpdateMode.auto
    """auto, eager, compile or graph: how the steps of an update are run."""
    replay_device: ReplayDevice = ReplayDevice.auto
    """auto, cpu or cuda: where the rows of the replay memory are."""
    env_steps_before_training: Amount = 1000
    """Steps of the warm-up policy before the first update."""
    warm_up: WarmUp = field(
        default=WarmUp.uniform, metadata=acts_in(Role.train, Role.worker) | workers_have(Workers.same)
    )
    """uniform or driving."""
    min_updates_per_env_step: NotNegative = field(
        default=1.0, metadata=needs(not_with("task.game", "live"), not_with("task.clock", "wall"))
    )
    """Below this ratio virtual-clock workers wait; the live game ignores it."""
    max_updates_per_env_step: Annotated[float, above(0)] = 1.0
    """Above this ratio the learner waits."""
    update_model_interval: Count = 50
    """Updates between two publications of the acting weights."""
    log_interval: Count = 200
    """Updates between two records of the metrics."""
    evaluation_interval: Amount = 2000
    """Environment steps between two evaluations; 0: none."""
    evaluation_episodes: Count = field(default=10, metadata=needs(not_with(".evaluation_interval", 0)))
    """Episodes of an evaluation."""
    checkpoint_interval: Amount = 10_000
    """Environment steps between two periodic checkpoints; 0: only last and best."""
    save_replay: bool = True
    """Whether the replay memory is stored beside the checkpoints."""
    replay_transforms: list[str] = field(default_factory=list)
    """What plugins registered by ``algos.replay.transforms.add_replay_transform``; each changes the sampled batches, in
    this order."""
    debug: DebugConfig = field(default_factory=DebugConfig)
    """Checks that cost time."""

    def __post_init__(self) -> None:
        super().__post_init__()
        low, high = self.min_updates_per_env_step, self.max_updates_per_env_step
        require(high >= low, "max_updates_per_env_step", high, f"> 0 and >= min_updates_per_env_step ({low})")
        self.require_optimizer("actor")

    def over(self, max_env_steps: int) -> Self:
        """A copy for a training of so many steps, with a number where ``lr_decay_updates`` says auto."""
        if self.lr_decay_updates != "auto":
            return self
        return replace(self, lr_decay_updates=round(max_env_steps * self.min_updates_per_env_step))

    def require_optimizer(self, network: str) -> None:
        """Refuses what the optimiser of a network cannot do.

        Raises:
            ValueError: Naming the key.
        """
        kind, betas = getattr(self, f"optimizer_{network}"), getattr(self, f"betas_{network}")
        has_betas = kind in (OptimizerKind.adam, OptimizerKind.adamw)
        expected = f"null with the optimiser {kind.name}, which has none"
        require(betas is None or has_betas, f"betas_{network}", betas, expected)
        can_run = self.update_mode is not UpdateMode.graph or kind is not OptimizerKind.rmsprop
        require(can_run, f"optimizer_{network}", kind.name, "adam, adamw or sgd with update_mode=graph")


@dataclass
class OffPolicyConfig(ReplayLearnerConfig):
    """What SAC and the other off-policy algorithms share.

    Each algorithm adds its own keys and says by the three properties what they mean to what is shared.
    """

    gamma: Share = 0.99
    """Discount per step. TMRL has 0.995."""
    n_step: Count = 1
    """Rewards summed before the bootstrap; in driving 3 learns about twice as fast."""
    alpha: NotNegative = 1.0
    """Temperature; its start value when learned."""
    learn_entropy_coef: bool = True
    """Whether the temperature is learned."""
    alpha_min: Positive = field(default=1e-4, metadata=needs(_LEARNED))
    """Lower bound of a learned temperature."""
    alpha_max: Positive = field(default=10.0, metadata=needs(_LEARNED))
    """Upper bound of a learned temperature."""
    target_entropy: float | None = field(default=None, metadata=needs(_LEARNED))
    """Target entropy of a learned temperature [nats]; null: -(number of actions)."""
    lr_critic: Positive = 3e-4
    """Learning rate of critics and of an encoder that they share, or that estimates what they see. TMRL has 5e-5."""
    lr_entropy: Positive = field(default=3e-4, metadata=needs(_LEARNED))
    """Learning rate of the logarithm of the temperature (Adam)."""
    held_pedals: Fraction = field(default=0.0, metadata=acts_in(Role.train, Role.worker) | workers_have(Workers.same))
    """Probability per step at which an exploring policy presses gas and brake as drawn at random, for 2 to 8 steps;
    TrackMania's tasks only. It finds slides, which begin with both."""
    optimizer_critic: OptimizerKind = OptimizerKind.adam
    """adam, adamw, sgd or rmsprop."""
    betas_critic: Betas = None
    """Averaging factors of adam and adamw; null: [0.9, 0.999]."""
    betas_entropy: Betas = field(default=None, metadata=needs(_LEARNED))
    """Averaging factors of the temperature's Adam; null: [0.9, 0.999]."""
    l2_critic: NotNegative = 0.0
    """Weight decay: added to the gradient (adam, sgd, rmsprop) or decoupled from it (adamw)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.memory_size > self.n_step, "memory_size", self.memory_size, f"> n_step ({self.n_step}), to hold a step"
        )
        require(self.alpha_min <= self.alpha_max, "alpha_max", self.alpha_max, f">= alpha_min ({self.alpha_min})")
        require(
            not self.learn_entropy_coef or self.alpha_min <= self.alpha <= self.alpha_max,
            "alpha",
            self.alpha,
            f"between alpha_min ({self.alpha_min}) and alpha_max ({self.alpha_max}) when learn_entropy_coef is true",
        )
        self.require_optimizer("critic")

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
