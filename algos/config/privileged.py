"""Decides ``task.privileged`` where it is null: only what trains needs to see more than the policy."""

from __future__ import annotations

from dataclasses import replace

from algos.config import DAggerConfig
from algos.config.schema import RunConfig
from algos.config.train_schema import OffPolicyTrainConfig
from tasks.config import AnyTaskConfig, TaskConfig
from tasks.words.command_line import Role


def decide_privileged(config: RunConfig, role: Role) -> AnyTaskConfig:
    """The task of a run, its privileged fields captured where a critic or a teacher sees them.

    Args:
        config: The run.
        role: What this process does; a worker captures what its learner trains with.
    """
    task = config.task
    if not isinstance(task, TaskConfig) or task.privileged is not None:
        return task
    is_wanted = role in (Role.train, Role.worker) and _sees_more(config.train) and task.name != "TM20Track"
    return replace(task, privileged=is_wanted)


def _sees_more(train: object) -> bool:
    """Whether something in training sees more than the policy does."""
    if not isinstance(train, OffPolicyTrainConfig):
        return False
    return train.params.network.asymmetric_critic or isinstance(train.params.config, DAggerConfig)
