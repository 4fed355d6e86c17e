"""The policy that a configuration acts with, outside of the learner: for ``--benchmark`` and ``--worker``.

Called by ``train.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from algos.checkpoint import CheckpointError, load_checkpoint
from algos.policy import ActingPolicy, make_acting_policy
from algos.runner_params import resolve_device, worker_policy
from algos.sac import SAC
from algos.schema import RunConfig, SACTrainConfig
from tasks import observation
from tasks.config import config_to_dict


def acting_policy(config: RunConfig, spec: observation.ObservationSpec) -> Any:
    """Builds the trained policy of ``checkpoint``, or without one an untrained network of the same shape.

    Args:
        config: The configuration; its ``checkpoint`` may be None.
        spec: What the task observes.

    Returns:
        A policy with ``act``, ``begin_episode`` and ``version``.

    Raises:
        ValueError: Without a checkpoint for an algorithm other than SAC.
        CheckpointError: The checkpoint cannot be read.
    """
    device = resolve_device("inference_device", config.inference_device)
    if config.checkpoint is not None:
        return _trained(config, device)
    if not isinstance(config.train, SACTrainConfig):
        raise ValueError(f"--benchmark with train={config.choices.train} needs --checkpoint FILE, got none")
    params = config.train.params
    network = config_to_dict(params.network)
    policy = make_acting_policy(spec.to_json(), network, config.seed, params.config.warm_up.name, device)
    untrained = SAC(spec, params.config, params.network, torch.device("cpu"), config.seed)
    policy.load_weights(untrained.acting_weights(), 1)
    return policy


def far_policy(config: RunConfig, spec: observation.ObservationSpec) -> dict[str, Any]:
    """What makes the policy of a worker elsewhere: {function, kwargs}, the same as the learner's own workers have.

    Raises:
        ValueError: For an algorithm whose workers do not act by themselves.
    """
    if not isinstance(config.train, SACTrainConfig):
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


def _trained(config: RunConfig, device: str) -> ActingPolicy | Any:
    checkpoint = load_checkpoint(str(config.checkpoint))
    kwargs = {**checkpoint.policy["kwargs"], "seed": config.seed}
    if checkpoint.algorithm == "remote_ppo":
        from algos.ppo import make_ppo_policy

        policy: Any = make_ppo_policy(**kwargs)
    elif checkpoint.algorithm == "remote_sac":
        policy = make_acting_policy(**{**kwargs, "device": device})
    else:
        known = "remote_sac and remote_ppo"
        raise CheckpointError(f"--benchmark knows {known}, {config.checkpoint} is of {checkpoint.algorithm}")
    policy.load_weights(checkpoint.acting_weights(), int(checkpoint.policy["version"]))
    return policy
