"""The studies by name: their trainings, and what counts as learned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Study:
    """Trainings that differ in one respect.

    Args:
        arms: Arguments of train.py by the name of the arm.
        words: Arguments that all arms share.
        goal: TensorBoard name and least value from which an evaluation counts as learned.
        curve: TensorBoard name of the plotted curve.
        seeds: Seeds of the trainings.
        bars: Least mean return of ``--play`` with ``best.pth``, by arm.
    """

    arms: Mapping[str, tuple[str, ...]]
    words: tuple[str, ...]
    goal: tuple[str, float]
    curve: str
    seeds: tuple[int, ...] = (0, 1, 2)
    bars: Mapping[str, float] = field(default_factory=dict)


def _on_track(track: str, steps: Mapping[str, int]) -> Study:
    """Each algorithm with the values of its training file; those with more updates per step get fewer steps."""
    return Study(
        arms={name: (f"train=TM20Lidar{name}", f"max_env_steps={count}") for name, count in steps.items()},
        words=("task=TM20Lidar", f"task.track={track}", "task.game=sim"),
        goal=("evaluation/finish_rate", 1.0),
        curve="evaluation/lap_time_s",
    )


def _dagger(track: str, teacher: str) -> Study:
    """Each task that sees less taught by a policy of TM20Track."""
    return Study(
        arms={name: (f"task=TM20{name}", f"train=TM20{name}DAgger") for name in ("Full", "Lidar", "LidarProgress")},
        words=(
            f"task.track={track}",
            "task.game=sim",
            f"train.params.config.teacher={teacher}",
        ),
        goal=("evaluation/finish_rate", 1.0),
        curve="evaluation/lap_time_s",
    )


def _sac(track: str, steps: Mapping[str, int]) -> Study:
    """SAC with the defaults of each task; the learning rates fall as they do on ``medium``."""
    decay = {"Full": 62_500, "Lidar": 37_500, "LidarProgress": 37_500, "Track": 100_000}
    return Study(
        arms={
            name: (
                *(f"task=TM20{name}", f"train=TM20{name}SAC", f"max_env_steps={count}"),
                f"train.params.config.lr_decay_updates={decay[name]}",
            )
            for name, count in steps.items()
        },
        words=(f"task.track={track}", "task.game=sim"),
        goal=("evaluation/finish_rate", 1.0),
        curve="evaluation/lap_time_s",
    )


def _precision(words: tuple[str, ...], goal: tuple[str, float], curve: str) -> Study:
    """Whether SAC learns the same with products in bfloat16."""
    arms = {name: (f"train.params.config.precision={name}",) for name in ("float32", "bfloat16")}
    return Study(arms=arms, words=words, goal=goal, curve=curve, seeds=(0, 1, 2, 3, 4))


def _precision_on_short(task: str, steps: int, *own: str) -> Study:
    """On the defaults from before critics saw more than the policy."""
    words = (
        *(f"task={task}", f"train={task}SAC", "task.track=short", "task.game=sim", f"max_env_steps={steps}"),
        *("train.params.network.asymmetric_critic=false", "train.params.config.gamma=0.98", *own),
        *("task.randomization.rolling_starts=0", "task.reward.wall_penalty=0"),
    )
    return _precision(words, ("evaluation/finish_rate", 1.0), "evaluation/lap_time_s")


def _gym(task_id: str, arms: Mapping[str, tuple[str, ...]], goal: float) -> Study:
    return Study(
        arms={name: (f"train=Gym{name.partition(' ')[0]}", *words) for name, words in arms.items()},
        words=("task=Gym", f"task.id={task_id}", "synchronous=true"),
        goal=("evaluation/return", goal),
        curve="evaluation/return",
        bars=dict.fromkeys(arms, goal),
    )


_FAST = tuple(f"train.params.config.lr_{name}=0.001" for name in ("actor", "critic", "entropy"))
_NARROW = ("train.params.network.hidden=[64,64]",)

STUDIES: dict[str, Study] = {
    "sac_short": _sac("short", {"Full": 40_000, "Lidar": 60_000, "LidarProgress": 60_000}),
    "sac_medium": _sac("medium", {"Full": 250_000, "Lidar": 150_000, "LidarProgress": 150_000, "Track": 1_000_000}),
    "sac_long": _sac("long", {"Full": 150_000, "Lidar": 150_000, "LidarProgress": 150_000}),
    "dagger_medium": _dagger("medium", "zoo:TM20TrackMedium"),
    "lidar_short": _on_track(
        "short", {"SAC": 60_000, "TQC": 60_000, "CrossQ": 60_000, "RSAC": 60_000, "DroQ": 30_000, "REDQ": 20_000}
    ),
    "precision_lidar": _precision_on_short(
        "TM20Lidar", 60_000, "train.params.network.encoder=mlp", "train.params.config.lr_decay_updates=0"
    ),
    "precision_full": _precision_on_short(
        "TM20Full", 40_000, "train.params.config.target_entropy=-3", "train.params.config.lr_decay_updates=62500"
    ),
    "precision_pendulum": _precision(
        ("task=Gym", "task.id=Pendulum-v1", "synchronous=true", "train=GymSAC", *_FAST, "max_env_steps=10000"),
        ("evaluation/return", -200.0),
        "evaluation/return",
    ),
    "pendulum": _gym(
        "Pendulum-v1",
        {
            "SAC": (*_FAST, "max_env_steps=10000"),
            "REDQ": (
                *_FAST,
                *_NARROW,
                "max_env_steps=3000",
                "train.params.config.env_steps_before_training=1000",
                "train.params.config.evaluation_interval=250",
            ),
        },
        -200.0,
    ),
    "inverted_pendulum": _gym(
        "InvertedPendulum-v5",
        {
            "REDQ": (
                *_NARROW,
                "max_env_steps=8000",
                "train.params.config.env_steps_before_training=1000",
                "train.params.config.evaluation_interval=500",
            ),
        },
        1000.0,
    ),
    "hopper": _gym(
        "Hopper-v5",
        {
            "REDQ": (
                "train.params.network.hidden=[128,128]",
                "max_env_steps=60000",
                "train.params.config.redq_n=5",
                "train.params.config.redq_q_updates_per_policy_update=5",
                "train.params.config.min_updates_per_env_step=5",
                "train.params.config.max_updates_per_env_step=5",
                "train.params.config.target_entropy=-1",
                "train.params.config.evaluation_interval=2000",
            ),
        },
        2500.0,
    ),
}
