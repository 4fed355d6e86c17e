"""Lock step with the simulator: in this process where it can be, in workers where they are asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tasks.remote.learner.batch_vecenv import BatchVecEnv
from tasks.remote.learner.vecenv import RemoteVecEnv, make_vecenv
from tasks.remote.wire.link import LockStepCommand
from tasks.remote.worker.env_group import EnvGroup
from tasks.trackmania.fleet import LidarFleet

pytestmark = pytest.mark.timeout(300)  # the first run compiles the simulator

SIMULATOR = {"game": "sim", "track": "short"}


def made(**kwargs: Any) -> RemoteVecEnv | BatchVecEnv:
    task = {**SIMULATOR, **kwargs.pop("task", {})}
    return make_vecenv("TM20Lidar", 4, task=task, policy=None, **kwargs)


def test_the_simulator_is_stepped_here() -> None:
    assert isinstance(made(), BatchVecEnv)
    assert isinstance(made(num_workers=1), BatchVecEnv)


@pytest.mark.parametrize("kwargs", [{"num_workers": 2}, {"task": {"clock": "wall"}}])
def test_workers_step_it_where_they_are_asked_for_and_in_real_time(kwargs: dict[str, Any]) -> None:
    assert isinstance(made(**kwargs), RemoteVecEnv)


def test_another_seed_draws_other_episodes() -> None:
    other, same, again = made(seed=3), made(seed=3), made(seed=3)
    other.seed(4)
    again.seed(3)
    first = np.asarray(same.reset())
    np.testing.assert_array_equal(np.asarray(again.reset()), first)
    assert not np.array_equal(np.asarray(other.reset()), first)


@pytest.mark.parametrize("observation", ["flat", "dict"])
def test_a_worker_answers_as_the_batch_in_this_process(observation: str) -> None:
    here = made(observation=observation, seed=3)
    assert isinstance(here, BatchVecEnv)
    config = here._simulator._config  # type: ignore[attr-defined]
    fleet = LidarFleet(config, 4, 3)
    group = EnvGroup(fleet, 4, fleet.observation_spec, observation == "flat")
    actions = np.random.default_rng(0).uniform(-1, 1, (60, 4, 3)).astype(np.float32)
    actions[:, :, 0] = 1.0

    def named(seen: np.ndarray | dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"obs": seen} if isinstance(seen, np.ndarray) else seen

    np.testing.assert_equal(dict(group.answer(LockStepCommand(1, None)).observation), named(here.reset()))
    for index, action in enumerate(actions):
        reply = group.answer(LockStepCommand(index + 2, action))
        seen, reward, dones, infos = here.step(action)
        np.testing.assert_equal(dict(reply.observation), named(seen))
        np.testing.assert_array_equal(reply.reward, reward)
        np.testing.assert_array_equal(reply.terminated | reply.truncated, dones)
        assert list(reply.episode_indices) == infos["episode_indices"]
