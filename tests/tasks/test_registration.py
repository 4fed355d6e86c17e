"""The tasks are known to rl_games, each under its own name and with vecenv type REMOTE."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rl_games.common import env_configurations, vecenv
from rl_games.torch_runner import Runner

from algos.config.ppo import PPOConfig, PPONetworkConfig, ppo_params
from tasks import registry
from tasks.registration import register_tasks
from tasks.remote.learner.vecenv import RemoteVecEnv

pytestmark = pytest.mark.timeout(120)

FAKE = {"function": "tests.tasks.remote.fakes:make_env", "kwargs": {"length": 3}}


def test_every_task_is_registered_under_its_own_name() -> None:
    register_tasks()
    register_tasks()
    assert set(registry.names()) >= {"TM20Full", "TM20Lidar", "TM20LidarProgress", "TM20Track"}
    for name in registry.names():
        assert env_configurations.configurations[name]["vecenv_type"] == "REMOTE"


def test_rl_games_makes_the_remote_vecenv() -> None:
    register_tasks(["Counting"])
    made = vecenv.create_vec_env("Counting", 2, env=FAKE, seed=3)
    assert isinstance(made, RemoteVecEnv)
    assert made.get_env_info()["agents"] == 1
    made.close()


@pytest.mark.parametrize("observation", ["flat", "dict"])
def test_rl_games_makes_a_single_environment_as_its_players_step_it(observation: str) -> None:
    register_tasks(["Counting"])
    create = env_configurations.configurations["Counting"]["env_creator"]
    env = create(env=FAKE, num_workers=3, seed=0, observation=observation)
    made = vecenv.create_vec_env("Counting", 1, env=FAKE, observation=observation)
    info = env_configurations.get_env_info(env)
    for name in ("observation_space", "action_space"):
        assert info[name] == made.get_env_info()[name]
    env.seed(0)
    assert info["observation_space"].contains(env.reset())
    done, steps = False, 0
    while not done:
        observed, reward, done, infos = env.step(np.zeros(env.action_space.shape, np.float32))
        assert info["observation_space"].contains(observed)
        assert isinstance(reward, float)
        steps += 1
    assert steps == 3
    assert infos["time_outs"] is False
    env.close()


@pytest.mark.filterwarnings("ignore:numpy.core is deprecated:DeprecationWarning")  # rl_games loads with it
def test_stock_rl_games_trains_and_plays_a_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a script of rl_games does it: a Runner, its params, train, and play with one environment or several."""
    monkeypatch.chdir(tmp_path)
    register_tasks(["Gym"])
    for is_play in (False, True):
        runner = Runner()
        runner.load({"params": stock_params(use_vecenv=False)})
        runner.run({"train": not is_play, "play": is_play, "checkpoint": newest(tmp_path) if is_play else None})
    runner = Runner()
    runner.load({"params": stock_params(use_vecenv=True)})
    runner.run({"train": False, "play": True, "checkpoint": newest(tmp_path)})


def newest(folder: Path) -> str:
    return str(next(folder.glob("runs/*/nn/*.pth")))


def stock_params(use_vecenv: bool) -> dict[str, Any]:
    """rl_games' params of a script, small."""
    params = ppo_params(PPOConfig(num_actors=2, horizon_length=8, minibatch_size=8), PPONetworkConfig(hidden=[8]))
    task = {"id": "Pendulum-v1", "max_episode_steps": 4}
    player = {"games_num": 2, "use_vecenv": use_vecenv}
    own = {"name": "Stock", "env_name": "Gym", "env_config": {"task": task}, "device": "cpu", "device_name": "cpu"}
    return {
        "seed": 1,
        "torch_threads": 0,
        "algo": {"name": "a2c_continuous"},
        **params,
        "config": {**params["config"], **own, "max_epochs": 2, "score_to_win": 1e9, "player": player},
    }


def test_workers_and_rollouts_import_neither_torch_nor_rl_games() -> None:
    code = (
        "import sys\n"
        "import tasks.remote.worker.worker, tasks.remote.learner.gateway\n"
        "import tasks.acting.rollout, tasks.remote.launch.launch\n"
        "print([name for name in ('torch', 'rl_games', 'ray') if name in sys.modules])\n"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert answer.stdout.strip() == "[]"
