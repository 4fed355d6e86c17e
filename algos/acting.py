"""The policy that a configuration acts with, outside of the learner: for ``--benchmark`` and ``--worker``.

Called by ``train.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from algos.checkpoint import load_checkpoint
from algos.policy import build_policy
from algos.registration import policy_function
from algos.runner_params import resolve_device, worker_policy
from algos.schema import RunConfig
from algos.train_schema import OffPolicyTrainConfig
from tasks import observation


def acting_policy(config: RunConfig, spec: observation.ObservationSpec) -> Any:
    """Builds the trained policy of ``checkpoint``, or without one an untrained network of the same shape.

    Args:
        config: The configuration; its ``checkpoint`` may be None.
        spec: What the task observes.

    Returns:
        A policy with ``act``, ``begin_episode`` and ``version``.

    Raises:
        ValueError: Without a checkpoint for an algorithm whose workers do not act alone.
        CheckpointError: The checkpoint cannot be read.
    """
    device = resolve_device("inference_device", config.inference_device)
    if config.checkpoint is not None:
        return _trained(config, device)
    if not isinstance(config.train, OffPolicyTrainConfig):
        raise ValueError(f"--benchmark with train={config.choices.train} needs --checkpoint FILE, got none")
    policy = build_policy(worker_policy(config.train, spec, device), config.seed)
    policy.load_weights(policy.weights(), 1)
    return policy


def far_policy(config: RunConfig, spec: observation.ObservationSpec) -> dict[str, Any]:
    """What makes the policy of a worker elsewhere: {function, kwargs}, the same as the learner's own workers have.

    Raises:
        ValueError: For an algorithm whose workers do not act by themselves.
    """
    if not isinstance(config.train, OffPolicyTrainConfig):
        raise ValueError(
            f"--worker needs an algorithm whose workers act alone, such as SAC, got train={config.choices.train}"
        )
    return worker_policy(config.train, spec, resolve_device("inference_device", config.inference_device))


def expert_weights(config: RunConfig) -> Mapping[str, np.ndarray] | None:
    """The weights of ``checkpoint`` with worker.expert=true; None for a worker that takes the learner's.

    Raises:
        ValueError: An expert without a checkpoint.
        CheckpointError: The checkpoint cannot be read.
    """
    if not config.worker.expert:
        return None
    if config.checkpoint is None:
        raise ValueError("worker.expert=true needs --checkpoint FILE, the weights it drives with, got none")
    return load_checkpoint(str(config.checkpoint)).acting_weights()


def _trained(config: RunConfig, device: str) -> Any:
    checkpoint = load_checkpoint(str(config.checkpoint))
    kwargs = {**checkpoint.policy["kwargs"], "device": device}
    policy = build_policy({"function": policy_function(checkpoint.algorithm), "kwargs": kwargs}, config.seed)
    policy.load_weights(checkpoint.acting_weights(), int(checkpoint.policy["version"]))
    return policy
