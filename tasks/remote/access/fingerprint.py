"""What a worker and its learner must agree on, as one short text that a worker sends in its greeting.

The task decides what samples mean, the policy what weights mean. Learner, its own worker processes and remote workers
compute it from their own configuration; ``link.explain_mismatch`` says in what two of them differ.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from tasks.remote.wire import link

MACHINE_KEYS = ("device", "seed")
"""Keyword arguments of a policy that may differ from machine to machine."""


def agreed_fingerprint(task_fingerprint: str, policy: Mapping[str, Any] | None) -> str:
    """The fingerprint of a greeting.

    Args:
        task_fingerprint: Of the environments (``EnvDescription.fingerprint``).
        policy: {"function": "module:function", "kwargs": {...}} of the worker that takes weights; None: in lock step.
    """
    return task_fingerprint if policy is None else link.joint_fingerprint(task_fingerprint, policy_fingerprint(policy))


def policy_fingerprint(policy: Mapping[str, Any]) -> str:
    """Which weights fit: how the policy is made, but for what belongs to a machine."""
    kwargs = {name: value for name, value in (policy.get("kwargs") or {}).items() if name not in MACHINE_KEYS}
    data = {"function": policy["function"], "kwargs": kwargs}
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]
