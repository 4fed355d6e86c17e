"""Builds the policy of a checkpoint: for players, for export, as a teacher."""

from __future__ import annotations

from typing import Any

import numpy as np

from algos.acting.policy import build_policy
from algos.config.algorithms import policy_function
from algos.run.checkpoint import Checkpoint, finite_weights, fits
from tasks.experience.observation import ObservationSpec

ADVICE = "the file is damaged, or was trained with plugins=[FILE.py] that must be typed here too"


def trained_policy(checkpoint: Checkpoint, path: str, spec: ObservationSpec, device: str, seed: int) -> Any:
    """Builds the policy of a checkpoint, and tests that it acts.

    Code comes from what is registered here under the name of the algorithm; the file has arguments and weights only.

    Args:
        checkpoint: What was read.
        path: From where.
        spec: What the task observes.
        device: Where it computes; a policy of a plugin may have no such argument.
        seed: Of its exploration.

    Raises:
        CheckpointError: Arguments or weights are not those of the policy.
    """
    weights = finite_weights(checkpoint, path)
    with fits(path, f"the policy of {checkpoint.algorithm}", ADVICE):
        kwargs = dict(checkpoint.policy["kwargs"])
        if "device" in kwargs:
            kwargs["device"] = device
        policy = build_policy({"function": policy_function(checkpoint.algorithm), "kwargs": kwargs}, seed)
        policy.load_weights(weights, int(checkpoint.policy["version"]))
        _require_actions(policy, spec)
    return policy


def _require_actions(policy: Any, spec: ObservationSpec) -> None:
    """Has it act once, on drawn numbers: on a constant observation, one of its own might rightly find no scale.

    Raises:
        ValueError: It gives something else than finite actions.
    """
    rng = np.random.default_rng(0)
    seen = {field.name: rng.random(field.shape).astype(field.dtype) for field in spec.visible.all_fields()}
    policy.begin_episode()
    action = np.asarray(policy.act(seen, deterministic=True))
    policy.begin_episode()
    if action.shape != (spec.action_size,) or not np.isfinite(action).all():
        raise ValueError(f"it must choose {spec.action_size} finite actions, got {action.tolist()}")
