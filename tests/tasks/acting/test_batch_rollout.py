"""Acting in many environments at once: each gets the rows that a rollout of its own would have made."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from tasks.acting.batch_rollout import BatchRollout, PolicyCrew, batch_policy
from tasks.acting.env_source import EnvSource
from tasks.acting.rollout import Rollout
from tasks.envs.batch import BatchSimulator
from tasks.envs.env_batch import EnvBatch
from tasks.experience.samples import Segment
from tasks.process.step_watch import StepWatch
from tasks.trackmania.fleet import LidarFleet
from tests.tasks.remote.fakes import CountingEnv, RandomPolicy

pytestmark = pytest.mark.timeout(60)
NUM_ENVS = 3


def length_of(index: int) -> int:
    return 2 + 3 * index


def counting_batch(**changes: Any) -> EnvBatch:
    """Counting environments of different lengths."""
    envs = [CountingEnv(length=length_of(index), **changes) for index in range(NUM_ENVS)]
    return EnvBatch(envs, envs[0].observation_spec, 0)


def make_rollout(check_samples: bool = False, **changes: Any) -> BatchRollout:
    crew = PolicyCrew([RandomPolicy(10 + index) for index in range(NUM_ENVS)])
    seeds = list(range(20, 20 + NUM_ENVS))
    return BatchRollout(counting_batch(**changes), crew, "w", seeds, StepWatch(), check_samples)


def never() -> bool:
    return False


def joined(segments: Sequence[Segment], name: str) -> np.ndarray:
    return np.concatenate([getattr(segment, name) for segment in segments])


@pytest.mark.parametrize("num_rows", [1, 2, 7, 40])
@pytest.mark.parametrize("reset_act_buf", [True, False])
def test_each_stream_has_the_rows_of_a_rollout_of_its_own(num_rows: int, reset_act_buf: bool) -> None:
    rollout = make_rollout(check_samples=True, reset_act_buf=reset_act_buf)
    segments = [segment for _ in range(60 // num_rows + 1) for segment in rollout.run(num_rows, never)]
    assert all(1 <= len(segment) <= num_rows for segment in segments)
    for index in range(NUM_ENVS):
        own = [segment for segment in segments if segment.stream == index]
        env = CountingEnv(length=length_of(index), reset_act_buf=reset_act_buf)
        expected = Rollout(env, RandomPolicy(10 + index), "w", index, 20 + index, True).run(sum(map(len, own)))
        for name in ("action", "reward", "terminated", "truncated", "is_first", "checksums"):
            np.testing.assert_array_equal(joined(own, name), getattr(expected, name), err_msg=name)
        for name, frames in expected.frames.items():
            np.testing.assert_array_equal(np.concatenate([part.frames[name] for part in own]), frames, err_msg=name)
        np.testing.assert_equal([episode for part in own for episode in part.episodes], list(expected.episodes))


def test_stopping_ends_the_segments_after_a_step() -> None:
    answers = iter([False, False, True])
    assert [len(segment) for segment in make_rollout().run(10, lambda: next(answers))] == [3 + 1, 3, 3]


def test_what_is_abandoned_begins_anew() -> None:
    rollout = make_rollout()
    rollout.run(5, never)
    rollout.rest()
    assert all(segment.is_first[0] for segment in rollout.run(5, never))


def test_a_reward_that_is_not_a_number_is_refused_with_its_place() -> None:
    with pytest.raises(ValueError, match="reward must be finite, got nan at row 4 of stream 0"):
        make_rollout(bad_reward_at=3).run(10, never)


class Remembering(RandomPolicy):
    """Remembers how often it has acted in the episode."""

    def begin_episode(self) -> None:
        super().begin_episode()
        self._acts = 0

    def act(self, obs: Mapping[str, np.ndarray], deterministic: bool = False) -> np.ndarray:
        self._acts += 1
        return super().act(obs, deterministic)

    @property
    def recurrent_state(self) -> np.ndarray:
        return np.array([self._acts, 7.0], np.float32)


def test_what_a_recurrent_policy_remembered_is_in_the_rows() -> None:
    crew = PolicyCrew([Remembering(index) for index in range(NUM_ENVS)])
    rollout = BatchRollout(counting_batch(), crew, "w", [0, 1, 2], StepWatch())
    for segment in rollout.run(30, never):
        assert segment.states is not None
        np.testing.assert_array_equal(segment.states[:, 0], segment.frames["count"][:, 0])


class Together(RandomPolicy):
    """Acts on batches."""

    def explore_as(self, seeds: Sequence[int]) -> None:
        self.seeds = list(seeds)

    def begin_episodes(self, chosen: Sequence[int]) -> None:
        """Nothing."""

    def act_batch(self, obs: Mapping[str, np.ndarray], deterministic: bool = False) -> np.ndarray:
        return np.zeros((len(self.seeds), 3), np.float32)


class ActsOtherwise(Together):
    """Changes what one does, but not what many do."""

    def act(self, obs: Mapping[str, np.ndarray], deterministic: bool = False) -> np.ndarray:
        return np.ones(3, np.float32)


@pytest.mark.parametrize(("make", "is_crew"), [(RandomPolicy, True), (Together, False), (ActsOtherwise, True)])
def test_one_policy_acts_for_all_where_its_class_can(make: Callable[[int], RandomPolicy], is_crew: bool) -> None:
    policy = batch_policy(make, [4, 5, 6])
    assert isinstance(policy, PolicyCrew) == is_crew
    if isinstance(policy, Together):
        assert policy.seeds == [4, 5, 6]


def test_only_tasks_in_virtual_time_with_a_batch_are_driven_together() -> None:
    def made(**task: Any) -> BatchSimulator | None:
        return EnvSource(task).resolved().make_batch(2)

    assert isinstance(made(name="TM20Lidar", game="sim", track="short"), LidarFleet)
    assert made(name="TM20Lidar", game="sim", clock="wall") is None
    assert made(name="RCDrone") is None
    assert EnvSource({}, "tests.tasks.remote.fakes:CountingEnv").make_batch(2) is None
