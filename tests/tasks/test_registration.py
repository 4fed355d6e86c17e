"""The tasks are known to rl_games, each under its own name and with vecenv type REMOTE."""

from __future__ import annotations

import subprocess
import sys

import gymnasium
import pytest
from rl_games.common import env_configurations, vecenv

from tasks import registry
from tasks.registration import register_tasks
from tasks.remote.vecenv import RemoteVecEnv

pytestmark = pytest.mark.timeout(120)

FAKE = {"function": "tests.tasks.remote.fakes:make_env", "kwargs": {"length": 3}}


def test_every_task_is_registered_under_its_own_name() -> None:
    register_tasks()
    register_tasks()
    assert set(registry.names()) >= {"TM20Full", "TM20Lidar", "TM20LidarProgress"}
    for name in registry.names():
        assert env_configurations.configurations[name]["vecenv_type"] == "REMOTE"


def test_rl_games_makes_the_remote_vecenv() -> None:
    register_tasks(["Counting"])
    made = vecenv.create_vec_env("Counting", 2, env=FAKE, seed=3)
    assert isinstance(made, RemoteVecEnv)
    assert made.get_env_info()["agents"] == 1
    made.close()


def test_rl_games_makes_a_single_environment() -> None:
    register_tasks(["Counting"])
    env = env_configurations.configurations["Counting"]["env_creator"](env=FAKE, num_workers=3, seed=0)
    assert isinstance(env, gymnasium.Env)
    assert env.reset(seed=0)[0]["images"].shape == (4, 8, 8)


def test_workers_and_rollouts_import_neither_torch_nor_rl_games() -> None:
    code = (
        "import sys\n"
        "import tasks.remote.worker, tasks.remote.gateway, tasks.remote.rollout, tasks.remote.launch\n"
        "print([name for name in ('torch', 'rl_games', 'ray') if name in sys.modules])\n"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert answer.stdout.strip() == "[]"
