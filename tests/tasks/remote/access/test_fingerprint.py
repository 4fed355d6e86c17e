"""What a worker and its learner must agree on, and what may differ."""

from __future__ import annotations

from typing import Any

import pytest

from tasks.remote.access.fingerprint import agreed_fingerprint, policy_fingerprint
from tasks.remote.wire.link import explain_mismatch


def policy(**changes: Any) -> dict[str, Any]:
    kwargs = {"spec": {"fields": [1, 2]}, "network": {"hidden": [256, 256], "encoder": "mlp"}, "device": "cpu"}
    return {"function": "algos.acting.policy:make_acting_policy", "kwargs": kwargs | changes}


@pytest.mark.parametrize(
    "changes", [{"device": "cuda:0"}, {"seed": 7}, {"network": {"encoder": "mlp", "hidden": [256, 256]}}]
)
def test_what_belongs_to_a_machine_may_differ(changes: dict[str, Any]) -> None:
    assert policy_fingerprint(policy(**changes)) == policy_fingerprint(policy())


@pytest.mark.parametrize("changes", [{"network": {"hidden": [256]}}, {"spec": {}}, {"warm_up": "uniform"}])
def test_what_decides_the_weights_may_not(changes: dict[str, Any]) -> None:
    assert policy_fingerprint(policy(**changes)) != policy_fingerprint(policy())
    other = policy() | {"function": "mine:make_policy"}
    assert policy_fingerprint(other) != policy_fingerprint(policy())


def test_task_and_network_are_told_apart() -> None:
    ours = agreed_fingerprint("task A", policy())
    assert "another task" in explain_mismatch(agreed_fingerprint("task B", policy()), ours)
    assert "another network" in explain_mismatch(agreed_fingerprint("task A", policy(network={})), ours)


def test_in_lock_step_only_the_task_counts() -> None:
    assert agreed_fingerprint("task A", None) == "task A"
