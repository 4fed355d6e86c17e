"""Nothing holds a worker in real time, whatever its task is; a worker that waits for its actions is held."""

from __future__ import annotations

from typing import Any

import pytest

from algos.config import SACConfig
from algos.faces.agent import make_pace
from tasks.remote.learner.vecenv import RemoteVecEnv


@pytest.mark.parametrize(
    ("task", "is_real_time"),
    [
        ({"name": "Gym", "id": "Pendulum-v1", "real_time": True}, True),
        ({"name": "Gym", "id": "Pendulum-v1"}, False),
        ({"name": "RCDrone", "clock": "wall"}, True),
        ({"name": "RCDrone"}, False),
    ],
)
def test_real_time_ignores_the_minimum_ratio(task: dict[str, Any], is_real_time: bool) -> None:
    with RemoteVecEnv(task["name"], 1, task=task) as vec_env:
        assert vec_env.is_real_time == is_real_time
        config = SACConfig(min_updates_per_env_step=1.0, max_updates_per_env_step=4.0, env_steps_before_training=10)
        pace = make_pace(config, False, is_real_time=vec_env.is_real_time)
    pace.add_env_steps(1000)
    assert pace.may_receive() == is_real_time
