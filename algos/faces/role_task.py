"""The task as a role needs it: privileged fields and rolling starts are for training alone."""

from __future__ import annotations

from dataclasses import replace

from algos.config.implied import uses_more
from algos.config.schema import CheckpointMode, RunConfig
from tasks import registry
from tasks.config import AnyTaskConfig, TaskConfig, config_to_dict
from tasks.words.command_line import Role
from tasks.words.nested import value_at


def task_of_role(config: RunConfig, role: Role) -> AnyTaskConfig:
    """The task of a run, with ``task.privileged`` where a critic or a teacher needs it, and the teacher's look-ahead.

    Args:
        config: The run.
        role: What this process does; a worker drives as its learner trains, every other role from the start line.

    Raises:
        ValueError: There is no such teacher, or it does not see the road as the checkpoint of the run does.
    """
    task = config.task
    if not isinstance(task, TaskConfig):
        return task
    if role not in (Role.train, Role.worker):
        return replace(task, randomization=replace(task.randomization, rolling_starts=0.0))
    plain = config_to_dict(config)
    if role is Role.train and (teacher := value_at(plain, "train.params.config.teacher")):
        task = _seen_as_by(str(teacher), task, config)
    if task.privileged is None and uses_more(plain) and can_show_more(task):
        return replace(task, privileged=True)
    return task


def _seen_as_by(teacher: str, task: TaskConfig, config: RunConfig) -> TaskConfig:
    """The task with the look-ahead of the teacher, unless what a checkpoint brings was seen or stored with another."""
    from algos.faces.teacher import look_ahead_of

    exponent = look_ahead_of(teacher)
    is_bound = task.name == "TM20Track" or config.checkpoint_mode is not CheckpointMode.weights
    if config.checkpoint is not None and is_bound and exponent != task.look_ahead_exponent:
        raise ValueError(
            f"train.params.config.teacher must see the road ahead as {config.checkpoint} does, with "
            f"task.look_ahead_exponent={task.look_ahead_exponent}, got {teacher}, which has {exponent}: name another "
            "teacher, or train anew without a checkpoint"
        )
    return replace(task, look_ahead_exponent=exponent)


def can_show_more(task: AnyTaskConfig) -> bool:
    """Whether a task has privileged fields, with ``task.privileged`` where it has that key."""
    asked = replace(task, privileged=True) if isinstance(task, TaskConfig) else task
    return bool(registry.observation_spec(task.name, asked).privileged_fields)
