"""Whole trainings: what workers take of the learner's updates, and what batched environments give PPO."""

from __future__ import annotations

from benchmarks.rows.row import Case, Row
from benchmarks.rows.training_runs import training_rate

SAC_WORDS = ("task=TM20Lidar", "train=TM20LidarSAC", "task.game=sim", "train.params.config.log_interval=50")
PPO_WORDS = ("task=TM20Lidar", "train=TM20LidarPPO", "task.game=sim", "task.track=medium")
NEVER = 1_000_000_000
"""Updates per environment step, with which workers wait for the learner and the learner never waits."""


def sac() -> Case:
    """The learner while its worker drives, and while its worker waits."""
    drives, alone = "workers drive", "workers wait"
    ratios = [f"train.params.config.{bound}_updates_per_env_step={NEVER}" for bound in ("min", "max")]
    return Case(
        rows=[
            Row(
                "whole_run",
                "whole run, TM20Lidar SAC, 2 cores",
                "updates/s while workers drive / alone",
                drives,
                alone,
                0.85,
            ),
        ],
        programs={
            drives: training_rate(SAC_WORDS, "time/updates"),
            alone: training_rate([*SAC_WORDS, *ratios], "time/updates"),
        },
        has_warm_up=False,
    )


def ppo() -> Case:
    """Two workers with a car each in lock step, and the cars of the file in one process; as many samples an epoch."""
    before, after = "lock step, one car a worker", "batched"
    lock_step = ["num_workers=2", "train.params.config.num_actors=2", "train.params.config.horizon_length=512"]
    return Case(
        rows=[
            Row("ppo", "PPO TM20Lidar medium, 2 cores", "env steps/s, batched / lock step", after, before, 8.0),
        ],
        programs={
            before: training_rate([*PPO_WORDS, *lock_step], "time/env_steps"),
            after: training_rate(PPO_WORDS, "time/env_steps"),
        },
        has_warm_up=False,
    )
