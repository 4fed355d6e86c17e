"""Builds the policy of a configuration, outside of the learner, for ``--benchmark`` and ``--worker``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from algos.acting.policy import build_policy
from algos.config.schema import RunConfig
from algos.config.train_schema import OffPolicyTrainConfig
from algos.faces.runner_params import resolve_device, worker_policy
from algos.faces.trained_policy import ADVICE, trained_policy
from algos.run.checkpoint import finite_weights, fits, load_checkpoint
from tasks.experience import observation


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
        path = str(config.checkpoint)
        return trained_policy(load_checkpoint(path), path, spec, device, config.seed)
    if not isinstance(config.train, OffPolicyTrainConfig):
        raise ValueError(f"--benchmark with train={config.choices.train} needs --checkpoint FILE, got none")
    policy = build_policy(worker_policy(config.train, spec, device), config.seed)
    policy.load_weights(policy.weights(), 1)
    return policy


def remote_policy(config: RunConfig, spec: observation.ObservationSpec) -> dict[str, Any]:
    """What makes the policy of a remote worker: {function, kwargs}, the same as the learner's own workers have.

    Raises:
        ValueError: For an algorithm whose workers do not act by themselves.
    """
    if not isinstance(config.train, OffPolicyTrainConfig):
        raise ValueError(
            f"--worker needs an algorithm whose workers act alone, such as SAC, got train={config.choices.train}"
        )
    return worker_policy(config.train, spec, resolve_device("inference_device", config.inference_device))


def expert_weights(config: RunConfig, spec: observation.ObservationSpec) -> Mapping[str, np.ndarray] | None:
    """The weights of ``checkpoint`` with worker.expert=true; None for a worker that takes the learner's.

    Raises:
        ValueError: An expert without a checkpoint.
        CheckpointError: The checkpoint cannot be read, or holds weights of another policy.
    """
    if not config.worker.expert:
        return None
    if config.checkpoint is None:
        raise ValueError("worker.expert=true needs --checkpoint FILE, the weights it drives with, got none")
    path = str(config.checkpoint)
    weights = finite_weights(load_checkpoint(path), path)
    with fits(path, "the policy of this worker", ADVICE):
        build_policy(remote_policy(config, spec), config.seed).load_weights(weights, 1)
    return weights
