"""The teacher of DAgger: the policy of a checkpoint, which may see more than the policy that imitates it."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from algos.acting.policy import ActingPolicy
from algos.acting.recurrent_policy import RecurrentPolicy
from algos.config import DAggerConfig
from algos.faces.trained_policy import trained_policy
from algos.run.checkpoint import fits, load_checkpoint
from algos.run.checkpoint_words import named_file
from tasks.experience.observation import Field, ObservationSpec
from tasks.words.nested import value_at

KEY = "train.params.config.teacher"


def load_teacher(config: DAggerConfig, spec: ObservationSpec) -> nn.Module:
    """The network of the teacher: from a batch of observations to mean and log-std of its action, (B, A) each.

    Args:
        config: Names its checkpoint.
        spec: What the task observes, privileged fields included.

    Raises:
        ValueError: There is no such file, its policy is no squashed Gaussian without memory, or it sees what the task
            does not give.
    """
    if not config.teacher:
        raise ValueError(
            f"{KEY} must be the checkpoint of a policy to imitate, such as zoo:TM20Track or runs/<run>/nn/best.pth, "
            "got nothing"
        )
    path = str(named_file(config.teacher))
    checkpoint = load_checkpoint(path)
    with fits(path, "any observation", "the file is damaged"):
        sees = checkpoint.spec().visible
    policy = trained_policy(checkpoint, path, sees, "cpu", seed=0)
    if not isinstance(policy, ActingPolicy) or isinstance(policy, RecurrentPolicy):
        raise ValueError(
            f"{KEY} must be a checkpoint of SAC, REDQ, DroQ, TQC, CrossQ or DAgger, got {path}, "
            f"which was trained by {checkpoint.algorithm}"
        )
    _require_fields(sees, spec, path)
    return policy.network


def look_ahead_of(teacher: str) -> float:
    """``task.look_ahead_exponent`` of a teacher: what imitates it must be shown the road as it sees it.

    Args:
        teacher: Names its checkpoint.

    Raises:
        ValueError: There is no such file.
    """
    stored = value_at(load_checkpoint(str(named_file(teacher))).config, "task.look_ahead_exponent")
    return float(stored) if isinstance(stored, int | float) else 1.0


def _require_fields(sees: ObservationSpec, spec: ObservationSpec, path: str) -> None:
    given = {field.name: _as_seen(field) for field in spec.all_fields()}
    lacking = [field.name for field in sees.all_fields() if given.get(field.name) != _as_seen(field)]
    if lacking or sees.action_size != spec.action_size:
        raise ValueError(
            f"{KEY}: the policy of {path} sees {', '.join(lacking) or 'another number of actions'}, which this task "
            "does not give in that form; task.privileged=true gives what TM20Track sees"
        )


def _as_seen(field: Field) -> Field:
    return replace(field, privileged=False, unit="")
