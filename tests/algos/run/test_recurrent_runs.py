"""Whole runs of recurrent SAC: synchronous and resumed, with workers, and played."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from algos.config import RecurrentNetworkConfig, RSACConfig
from algos.config.schema import PlayConfig
from algos.replay.sequences import SequenceMemory
from algos.run.checkpoint import load_checkpoint
from tasks.config import config_to_dict
from tasks.remote.access.credentials import make_credentials
from tests.algos.fakes import SPEC
from tests.algos.run.test_remote_training import joined, stored, with_listener
from tests.algos.runs import make_agent, make_params, make_runner, record_losses

pytestmark = pytest.mark.timeout(180)
SEQUENCES = {"batch_size": 4, "sequence_length": 4, "burn_in": 2}


def recurrent_params(train_dir: Path, run: str = "run", **changes: Any) -> dict[str, Any]:
    """``make_params`` for a small run of recurrent SAC."""
    torch.set_num_threads(1)
    params = make_params(train_dir, run, **changes)
    network = RecurrentNetworkConfig(hidden=[16, 16], gru_size=6)
    kwargs = {"spec": SPEC.to_json(), "network": config_to_dict(network), "warm_up": "driving", "device": "cpu"}
    policy = {"function": "algos.acting.recurrent_policy:make_recurrent_policy", "kwargs": kwargs}
    params |= {"algo": {"name": "remote_rsac"}, "model": {"name": "remote_rsac"}}
    params["config"]["env_config"]["policy"] = policy
    parts = params["config"]["run"].train.params
    parts.network, parts.config = network, RSACConfig(**(vars(parts.config) | SEQUENCES))
    return params


def test_a_stopped_synchronous_run_resumes_bit_for_bit(tmp_path: Path) -> None:
    changes = {"max_env_steps": 160, "memory_size": 90}
    whole = make_agent(recurrent_params(tmp_path, "whole", **changes))
    assert isinstance(whole.memory, SequenceMemory)
    expected = record_losses(whole)
    whole.train()

    first = make_agent(recurrent_params(tmp_path, "stopped", **changes))
    losses = record_losses(first)
    original = first.algorithm.update

    def update(batch: Any) -> Any:
        if len(losses) == 53:
            first.stop()
        return original(batch)

    first.algorithm.update = update
    first.train()
    second = make_agent(recurrent_params(tmp_path, "stopped", **changes))
    second.restore(str(tmp_path / "stopped" / "nn" / "last.pth"))
    more = record_losses(second)
    second.train()
    assert len(losses) < len(expected)
    assert losses + more == expected
    for name, values in whole.algorithm.acting_weights().items():
        np.testing.assert_array_equal(values, second.algorithm.acting_weights()[name], err_msg=name)


def test_workers_send_states_and_a_checkpoint_can_be_played(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = PlayConfig(episodes=2, video=False, plot=False)
    agent = make_agent(recurrent_params(tmp_path, synchronous=False, max_env_steps=300))
    agent.train()
    segments = stored(tmp_path / "run" / "replay", SPEC)
    states = [segment.states for segment in segments if segment.states is not None]
    assert len(states) == len(segments)
    assert {values.shape[1] for values in states} == {6}
    assert any(values.any() for values in states)

    checkpoint = tmp_path / "run" / "nn" / "last.pth"
    assert load_checkpoint(checkpoint).algorithm == "remote_rsac"
    runner = make_runner(recurrent_params(tmp_path, "unused", play=settings))
    runner.run({"train": False, "play": True, "checkpoint": str(checkpoint)})
    assert "2" in capsys.readouterr().out
    assert list((tmp_path / "run" / "play").glob("*/results.json"))


def test_a_remote_worker_sends_states_too(tmp_path: Path) -> None:
    make_credentials(tmp_path / "credentials", [], ["alice"])
    params = recurrent_params(tmp_path, synchronous=False, max_env_steps=300)
    agent = make_agent(with_listener(params, tmp_path / "credentials"))
    with joined(agent, tmp_path, tmp_path / "credentials"):
        agent.train()
    segments = stored(tmp_path / "run" / "replay", SPEC)
    assert {segment.worker.split(".")[0] for segment in segments} == {"alice"}
    assert any(segment.states is not None and segment.states.any() for segment in segments)
