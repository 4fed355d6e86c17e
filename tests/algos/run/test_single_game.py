"""Training on a single game: one environment in all, also for evaluations; more are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from algos.config.algorithms import TRAIN_SCHEMAS
from algos.config.ppo import PPOConfig
from algos.config.schema import RunConfig
from algos.config.train_schema import PPOTrainConfig
from algos.faces import runner_params
from algos.run.checkpoint import load_checkpoint
from tasks.config import ClockKind, GameKind, TaskConfig
from tasks.experience.evaluation_report import EvaluationReport
from tasks.remote.learner.gateway import Gateway
from tests.algos.faces.test_ppo import make_params as make_ppo_params
from tests.algos.runs import make_agent, make_params

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning"),  # rl_games' normaliser
]


def on_one_game(params: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The same run on a single game."""
    folder.mkdir()
    env = {"function": "tests.algos.fakes:make_single_toy_env", "kwargs": {"folder": str(folder)}}
    params["config"]["env_config"]["env"] = env
    return params


def evaluations(agent: Any) -> list[EvaluationReport]:
    """Reports, as the log gets them."""
    reports: list[EvaluationReport] = []
    original = agent.log.evaluation

    def evaluation(report: EvaluationReport, *args: Any) -> None:
        reports.append(report)
        original(report, *args)

    agent.log.evaluation = evaluation
    return reports


def test_sac_trains_and_evaluates_on_one_game(tmp_path: Path) -> None:
    params = make_params(tmp_path, synchronous=False, evaluation_interval=150, max_env_steps=400)
    agent = make_agent(on_one_game(params, tmp_path / "game"))
    reports = evaluations(agent)
    agent.train()
    nn = tmp_path / "run" / "nn"
    assert load_checkpoint(nn / "last.pth").counters["env_steps"] >= 400
    assert len(load_checkpoint(nn / "best.pth").best["report"]["episodes"]) == 2
    assert len(reports) >= 2
    assert all(len(report.episodes) == 2 for report in reports)


def test_ppo_trains_and_evaluates_on_one_game(tmp_path: Path) -> None:
    changes = {"num_actors": 1, "horizon_length": 64, "minibatch_size": 32, "evaluation_interval": 64}
    agent = make_agent(on_one_game(make_ppo_params(tmp_path, **changes), tmp_path / "game"))
    reports = evaluations(agent)
    agent.train()
    assert len(reports) == 4
    assert all(len(report.episodes) == 2 for report in reports)
    assert [report.weights_version for report in reports] == [1, 2, 3, 4]
    nn = tmp_path / "run" / "nn"
    assert load_checkpoint(nn / "last.pth").counters["env_steps"] == 256
    assert len(load_checkpoint(nn / "best.pth").best["report"]["episodes"]) == 2


def test_ppo_stops_while_it_waits_for_an_evaluation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = {"num_actors": 1, "horizon_length": 64, "minibatch_size": 32, "evaluation_interval": 64}
    agent = make_agent(on_one_game(make_ppo_params(tmp_path, **changes), tmp_path / "game"))
    monkeypatch.setattr(Gateway, "poll_evaluation", lambda _: agent.stop())
    agent.train()
    assert load_checkpoint(tmp_path / "run" / "nn" / "last.pth").counters["env_steps"] == 64


# --- refused before anything starts ---


def config(train: Any, num_workers: int = 1, game: GameKind = GameKind.live) -> RunConfig:
    task = TaskConfig(name="TM20Lidar", game=game, clock=ClockKind.wall)
    return RunConfig(task=task, train=train, num_workers=num_workers, max_env_steps=1000, experiment="live")


@pytest.mark.parametrize("train", [TRAIN_SCHEMAS["sac"](), PPOTrainConfig()], ids=["SAC", "PPO"])
def test_more_than_one_worker_on_the_live_game_is_refused(train: Any) -> None:
    with pytest.raises(ValueError, match=r"num_workers must be 1 .*got 3.*num_workers=1.*task\.game=sim"):
        runner_params._check_single_game(config(train, num_workers=3))
    runner_params._check_single_game(config(train, num_workers=3, game=GameKind.sim))


def test_more_than_one_actor_on_the_live_game_is_refused() -> None:
    match = r"train\.params\.config\.num_actors must be 1 .*got {}.*num_actors=1.*task\.game=sim"
    train = PPOTrainConfig()
    with pytest.raises(ValueError, match=match.format(16)):
        runner_params._check_single_game(config(train))
    plugin = {"params": {"algo": {"name": "mine"}, "config": {"num_actors": 2}}}
    with pytest.raises(ValueError, match=match.format(2)):
        runner_params._check_single_game(config(plugin))
    train.params.config = PPOConfig(num_actors=1, horizon_length=1024)
    runner_params._check_single_game(config(train))
    runner_params._check_single_game(config(TRAIN_SCHEMAS["sac"]()))
    runner_params._check_single_game(config({"params": {"algo": {"name": "mine"}}}))
