"""What a recurrent policy remembers travels with its rows: rollout, link, and a buffer that drops the oldest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tasks.acting.rollout import Rollout
from tasks.experience.samples import Segment
from tasks.remote.wire import link
from tests.tasks.remote.fakes import CountingEnv, RandomPolicy

SPEC = CountingEnv().observation_spec


class SummingPolicy(RandomPolicy):
    """Remembers the sum of the counts that it saw in the episode."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrent_state = np.full(2, 99, np.float32)

    def begin_episode(self) -> None:
        super().begin_episode()
        self.recurrent_state[:] = 0

    def act(self, obs: Mapping[str, np.ndarray], deterministic: bool = False) -> np.ndarray:
        self.recurrent_state += obs["count"][0]
        return super().act(obs, deterministic)


def make_segment(rows: int = 12) -> Segment:
    return replace(Rollout(CountingEnv(length=4), SummingPolicy(), "w", 0, 0).run(rows), seq=1)


def test_each_row_has_the_state_from_before_its_observation_was_seen() -> None:
    states = make_segment().states
    assert states is not None
    assert states.dtype == np.float32
    # Counts 0, 1, 2, 3, 4 of an episode of four steps: the sum of those before each.
    np.testing.assert_array_equal(states[:, 0], [0, 0, 1, 3, 6, 0, 0, 1, 3, 6, 0, 0])
    np.testing.assert_array_equal(states[:, 0], states[:, 1])


def test_segments_of_one_episode_go_on_with_its_states() -> None:
    rollout = Rollout(CountingEnv(length=4), SummingPolicy(), "w", 0, 0)
    whole = make_segment().states
    assert whole is not None
    for start in range(0, 12, 3):
        np.testing.assert_array_equal(rollout.run(3).states, whole[start : start + 3])


def test_a_policy_that_remembers_nothing_sends_no_states() -> None:
    segment = replace(Rollout(CountingEnv(), RandomPolicy(), "w", 0, 0).run(5), seq=1)
    assert segment.states is None
    assert link.decode_segment(link.encode_segment(segment), SPEC).segment.states is None


@pytest.mark.parametrize("compress", [False, True])
def test_states_survive_the_link(compress: bool) -> None:
    segment = make_segment()
    got = link.decode_segment(link.encode_segment(segment, compress=compress), SPEC).segment
    assert got.states is not None
    assert got.states.dtype == np.float32
    np.testing.assert_array_equal(got.states, segment.states)


def wrong_states(kind: str) -> np.ndarray:
    good: dict[str, Any] = {
        "rows": np.zeros((5, 2), np.float32),
        "dtype": np.zeros((12, 2), np.float64),
        "axes": np.zeros(12, np.float32),
        "none": np.zeros((12, 0), np.float32),
        "much": np.zeros((12, link.MAX_STATE_SIZE + 1), np.float32),
        "nan": np.full((12, 2), np.nan, np.float32),
    }
    return good[kind]


@pytest.mark.parametrize("kind", ["rows", "dtype", "axes", "none", "much", "nan"])
def test_states_that_no_policy_has_are_refused(kind: str) -> None:
    message = link.encode_segment(replace(make_segment(), states=wrong_states(kind)))
    with pytest.raises(link.LinkError, match="states"):
        link.decode_segment(message, SPEC)
