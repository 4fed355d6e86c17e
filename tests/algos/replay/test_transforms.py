"""Replay transforms: by name, in order, repeatable, resumable, and never over the memory's own tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from algos.replay import transforms as replay_transforms
from algos.replay.memory import Batch
from algos.replay.transforms import ReplayTransforms, add_replay_transform
from algos.run.checkpoint import load_checkpoint
from tests.algos.runs import make_agent, make_params, record_losses


def add_one(batch: Batch, rng: np.random.Generator) -> Batch:
    return batch._replace(reward=batch.reward + 1.0)


def double(batch: Batch, rng: np.random.Generator) -> Batch:
    return batch._replace(reward=batch.reward * 2.0)


def jitter(batch: Batch, rng: np.random.Generator) -> Batch:
    return batch._replace(reward=batch.reward + torch.from_numpy(rng.standard_normal(len(batch.reward), np.float32)))


def forget_to_return(batch: Batch, rng: np.random.Generator) -> Any:
    return batch.reward


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay_transforms, "_TRANSFORMS", {})
    for transform in (add_one, double, jitter, forget_to_return):
        add_replay_transform(transform.__name__, transform)


def batch(size: int = 3) -> Batch:
    zeros = torch.zeros(size)
    return Batch({}, zeros[:, None], torch.full((size,), 5.0), zeros, {}, zeros)


def test_transforms_are_applied_in_the_order_of_their_names() -> None:
    assert ReplayTransforms(["add_one", "double"], 0)(batch()).reward.tolist() == [12.0] * 3
    assert ReplayTransforms(["double", "add_one"], 0)(batch()).reward.tolist() == [11.0] * 3
    assert ReplayTransforms([], 0)(batch()).reward.tolist() == [5.0] * 3


def test_the_same_seed_draws_the_same_and_another_does_not() -> None:
    draws = [ReplayTransforms(["jitter"], seed)(batch()).reward.tolist() for seed in (4, 4, 5)]
    assert draws[0] == draws[1] != draws[2]


def test_a_stored_state_goes_on_with_the_same_draws() -> None:
    transforms = ReplayTransforms(["add_one", "jitter"], 0)
    transforms(batch())
    state = transforms.rng_state()
    expected = transforms(batch()).reward.tolist()
    resumed = ReplayTransforms(["jitter", "double"], 1)
    resumed.load_rng_state(state)
    assert resumed(batch()).reward.tolist() == pytest.approx([2.0 * (value - 1.0) for value in expected])


def test_what_is_no_batch_is_refused_with_the_name_of_the_transform() -> None:
    with pytest.raises(ValueError, match="'forget_to_return' must return a Batch, got Tensor"):
        ReplayTransforms(["forget_to_return"], 0)(batch())


def test_unknown_taken_repeated_and_untypable_names_are_refused() -> None:
    with pytest.raises(ValueError, match=r"unknown 'treble'; registered: add_one, double, .*add_replay_transform"):
        ReplayTransforms(["treble"], 0)
    with pytest.raises(ValueError, match="name each transform once"):
        ReplayTransforms(["double", "double"], 0)
    with pytest.raises(ValueError, match="'double' of a replay transform is taken"):
        add_replay_transform("double", add_one)
    with pytest.raises(ValueError, match="letters, digits and _, got 'a b'"):
        add_replay_transform("a b", add_one)


def test_a_run_sees_transformed_batches_stores_plain_rows_and_resumes_exactly(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    plain = make_agent(make_params(tmp_path, "plain"))
    unchanged = record_losses(plain)
    plain.train()
    changes = {"replay_transforms": ["jitter"]}
    whole = make_agent(make_params(tmp_path, "whole", **changes))
    expected = record_losses(whole)
    whole.train()
    assert expected[0] != unchanged[0]
    assert np.array_equal(whole.memory._columns.reward[:20], plain.memory._columns.reward[:20])

    first = make_agent(make_params(tmp_path, "stopped", **changes))
    losses = record_losses(first)
    update = first.algorithm.update

    def stop_at_33(batch: Batch) -> Any:
        if len(losses) == 33:
            first.stop()
        return update(batch)

    first.algorithm.update = stop_at_33
    first.train()
    path = tmp_path / "stopped" / "nn" / "last.pth"
    assert "jitter" in load_checkpoint(path).replay["transforms"]
    second = make_agent(make_params(tmp_path, "stopped", **changes))
    second.restore(str(path))
    more = record_losses(second)
    second.train()
    assert losses + more == expected
