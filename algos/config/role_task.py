"""The task as a role needs it: privileged fields and rolling starts are for training alone."""

from __future__ import annotations

from dataclasses import replace

from algos.config import DAggerConfig
from algos.config.schema import RunConfig
from algos.config.train_schema import OffPolicyTrainConfig
from tasks.config import AnyTaskConfig, TaskConfig
from tasks.words.command_line import Role


def task_of_role(config: RunConfig, role: Role) -> AnyTaskConfig:
    """The task of a run, where ``task.privileged`` is null with what a critic or a teacher sees and others do not.

    Args:
        config: The run.
        role: What this process does; a worker drives as its learner trains, every other role from the start line.
    """
    task = config.task
    if not isinstance(task, TaskConfig):
        return task
    is_training = role in (Role.train, Role.worker)
    if not is_training:
        task = replace(task, randomization=replace(task.randomization, rolling_starts=0.0))
    if task.privileged is None:
        is_wanted = is_training and _sees_more(config.train) and task.name != "TM20Track"
        task = replace(task, privileged=is_wanted)
    return task


def _sees_more(train: object) -> bool:
    """Whether something in training sees more than the policy does."""
    if not isinstance(train, OffPolicyTrainConfig):
        return False
    return train.params.network.asymmetric_critic or isinstance(train.params.config, DAggerConfig)
