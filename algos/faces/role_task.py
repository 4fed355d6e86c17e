"""The task as a role needs it: privileged fields and rolling starts are for training alone."""

from __future__ import annotations

from dataclasses import replace

from algos.config.implied import uses_more
from algos.config.schema import RunConfig
from tasks import registry
from tasks.config import AnyTaskConfig, TaskConfig, config_to_dict
from tasks.words.command_line import Role
from tasks.words.nested import value_at


def task_of_role(config: RunConfig, role: Role) -> AnyTaskConfig:
    """The task of a run, with ``task.privileged`` where a critic or a teacher needs it, and the teacher's look-ahead.

    Args:
        config: The run.
        role: What this process does; a worker drives as its learner trains, every other role from the start line.
    """
    task = config.task
    if not isinstance(task, TaskConfig):
        return task
    if role not in (Role.train, Role.worker):
        return replace(task, randomization=replace(task.randomization, rolling_starts=0.0))
    plain = config_to_dict(config)
    if role is Role.train and (teacher := value_at(plain, "train.params.config.teacher")):
        from algos.faces.teacher import look_ahead_of

        task = replace(task, look_ahead_exponent=look_ahead_of(str(teacher)))
    if task.privileged is None and uses_more(plain) and can_show_more(task):
        return replace(task, privileged=True)
    return task


def can_show_more(task: AnyTaskConfig) -> bool:
    """Whether a task has privileged fields, with ``task.privileged`` where it has that key."""
    asked = replace(task, privileged=True) if isinstance(task, TaskConfig) else task
    return bool(registry.observation_spec(task.name, asked).privileged_fields)
