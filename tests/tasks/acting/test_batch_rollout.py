"""Acting in many environments at once: each gets the rows that a rollout of its own would have made."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from tasks.acting.batch_rollout import BatchRollout, PolicyCrew, batch_policy
from tasks.acting.env_source import EnvSource
from tasks.acting.rollout import Rollout
from tasks.envs.batch import EpisodeBatch, Observations, Outcome
from tasks.experience.samples import Segment
from tasks.process.step_watch import StepWatch
from tasks.trackmania.fleet import LidarFleet
from tests.tasks.remote.fakes import CountingEnv, RandomPolicy

pytestmark = pytest.mark.timeout(60)
NUM_ENVS = 3


class CountingBatch(EpisodeBatch):
    """Counting environments of different lengths, one after the other."""

    def __init__(self, **changes: Any) -> None:
        super().__init__(NUM_ENVS, 0)
        self.envs = [CountingEnv(length=length_of(index), **changes) for index in range(NUM_ENVS)]
        self.observation_spec = self.envs[0].observation_spec
        self._rows: list[Mapping[str, np.ndarray]] = [{}] * NUM_ENVS
        self._statistics: list[dict[str, float]] = [{}] * NUM_ENVS

    def begin(self, chosen: Sequence[int], seeds: Sequence[int]) -> Observations:
        for index, seed in zip(chosen, seeds, strict=True):
            self._rows[index] = self.envs[index].reset(seed=seed)[0]
        return self._observation()

    def act(self, actions: np.ndarray) -> Outcome:
        answers = [env.step(action) for env, action in zip(self.envs, actions, strict=True)]
        self._rows = [answer[0] for answer in answers]
        self._statistics = [answer[4].get("episode_statistics", {}) for answer in answers]
        reward, terminated, truncated = (np.array([answer[k] for answer in answers]) for k in (1, 2, 3))
        return Outcome(self._observation(), reward, terminated, truncated)

    def statistics(self, index: int) -> dict[str, float]:
        return self._statistics[index]

    def close(self) -> None:
        for env in self.envs:
            env.close()

    def _observation(self) -> Observations:
        return {name: np.stack([row[name] for row in self._rows]) for name in self._rows[0]}


def length_of(index: int) -> int:
    return 2 + 3 * index


def make_rollout(check_samples: bool = False, **changes: Any) -> BatchRollout:
    crew = PolicyCrew([RandomPolicy(10 + index) for index in range(NUM_ENVS)])
    seeds = list(range(20, 20 + NUM_ENVS))
    return BatchRollout(CountingBatch(**changes), crew, "w", seeds, StepWatch(), check_samples)


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
    rollout = BatchRollout(CountingBatch(), crew, "w", [0, 1, 2], StepWatch())
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
    def made(**task: Any) -> EpisodeBatch | None:
        return EnvSource(task).resolved().make_batch(2)

    assert isinstance(made(name="TM20Lidar", game="sim", track="short"), LidarFleet)
    assert made(name="TM20Lidar", game="sim", clock="wall") is None
    assert made(name="RCDrone") is None
    assert EnvSource({}, "tests.tasks.remote.fakes:CountingEnv").make_batch(2) is None
