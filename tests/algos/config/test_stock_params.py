"""A train YAML of rl_games itself, without a kind: keys passed on unchanged, refused keys, and its checkpoints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import train
from algos.acting.policy import build_policy
from algos.config.ppo import PPOConfig, PPONetworkConfig, ppo_params
from algos.config.stock_params import PPO_KEYS, max_env_steps
from algos.faces.rl_games_parts import a2c_continuous
from algos.run.checkpoint import load_checkpoint
from tasks.experience.observation import ObservationSpec

WORDS = ["task=Gym", "train=Stock", "task.id=Pendulum-v1", "task.max_episode_steps=10", "--headless"]
RNN = {"name": "lstm", "units": 8, "layers": 1, "before_mlp": False, "concat_input": False, "layer_norm": False}


def stock(**config: Any) -> dict[str, Any]:
    """The params of a file of rl_games, with only its keys."""
    params = ppo_params(PPOConfig(), PPONetworkConfig(hidden=[8]))
    own = {key: params["config"][key] for key in (*PPO_KEYS, "kl_threshold")}
    own |= {"num_actors": 2, "horizon_length": 8, "minibatch_size": 8, "name": "Mine", "ppo": True, "max_epochs": 4}
    return {**params, "algo": {"name": "a2c_continuous"}, "config": {**own, **config}}


def without(values: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key != name}


def write(folder: Path, params: dict[str, Any], **top: Any) -> str:
    """Writes Stock.yaml into a folder; returns the argument that names the folder."""
    (folder / "own" / "train").mkdir(parents=True, exist_ok=True)
    (folder / "own" / "train" / "Stock.yaml").write_text(yaml.safe_dump({**top, "params": params}))
    return f"--config-dir={folder / 'own'}"


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The params that train.py passes to rl_games' Runner for these params and arguments."""
    monkeypatch.chdir(tmp_path)

    def prepare(params: dict[str, Any], *words: str, **top: Any) -> dict[str, Any]:
        seen: list[dict[str, Any]] = []
        with monkeypatch.context() as patch:
            patch.setattr(train, "run", lambda composed, role, typed: seen.append(train.prepare(composed, role, typed)))
            assert train.main([*WORDS, *words, write(tmp_path, params, **top)]) == 0
        return seen[0]

    return prepare


def test_params_reach_rl_games_unchanged(prepared: Any) -> None:
    shaper = {"scale_value": 0.1, "shift_value": 2.0}
    params = prepared(stock(reward_shaper=shaper, torch_compile=True, gamma=0.5, games_to_track=7))
    config = params["config"]
    assert (config["reward_shaper"], config["torch_compile"]) == (shaper, True)
    assert (config["gamma"], config["games_to_track"], config["name"]) == (0.5, 7, "Mine")
    assert params["network"] == stock()["network"]
    assert params["model"] == stock()["model"]
    assert config["env_name"] == "Gym"


def test_keys_of_the_run_may_be_repeated_but_not_contradicted(prepared: Any) -> None:
    agreeing = stock(env_name="Gym", device="cpu", device_name="cpu", env_config={"seed": 3, "observation": "flat"})
    assert prepared({**agreeing, "seed": 3}, "seed=3", "device=cpu")["config"]["env_config"]["seed"] == 3


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (
            stock(env_name="mine"),
            "train.params.config.env_name=mine: the environment is the one of task=; leave",
        ),
        (stock(device="cuda:7"), "train.params.config.device=cuda:7: leave it out and type device=cuda:7"),
        (stock(train_dir="out"), "train.params.config.train_dir=out: leave it out: runs are in"),
        ({**stock(), "seed": 5}, "train.params.seed=5: leave it out and type seed=5"),
        (stock(env_config={"seed": 5}), "train.params.config.env_config.seed=5: leave it out and type seed=5"),
        (stock(env_config={"name": "Ant-v4"}), "train.params.config.env_config.name=Ant-v4: leave it out"),
        ({**stock(), "algo": {"name": "a2c_discrete"}}, "actions of all tasks are continuous: take a2c_continuous"),
        ({**stock(), "config": {"max_frames": 9, "gamma": 0.9}}, "train.params.config must have num_actors, horizon_l"),
        (
            {**stock(), "config": without(stock()["config"], "kl_threshold")},
            "have kl_threshold",
        ),
        (stock(max_epochs=-1), "max_env_steps must be given"),
    ],
)
def test_keys_that_the_run_decides_are_refused_by_name(
    params: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    assert train.main([*WORDS, write(tmp_path, params)]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_training_ends_at_the_first_limit_of_the_file() -> None:
    assert max_env_steps({"params": stock()}) == 64
    assert max_env_steps({"params": stock(max_frames=40)}) == 40
    assert max_env_steps({"max_env_steps": 30, "params": stock(max_frames=40)}) == 30
    assert max_env_steps({"params": stock(max_epochs=-1)}) is None
    assert max_env_steps({"params": {"algo": {"name": "sac"}}}) is None


@pytest.mark.parametrize("network", [{}, {"rnn": RNN}], ids=["mlp", "lstm"])
def test_its_checkpoint_can_be_played_and_resumed(
    network: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    params = stock(evaluation_interval=32, evaluation_episodes=1, player={"games_num": 3}, seq_length=4)
    params["network"] = {**params["network"], **network}
    assert train.main([*WORDS, write(tmp_path, params)]) == 0
    (best,) = tmp_path.glob("runs/*/nn/best.pth")
    last = best.with_name("last.pth")
    stored = load_checkpoint(last)
    assert (stored.counters["env_steps"], stored.config["train"]["params"]["algo"]["name"]) == (64, "a2c_continuous")
    assert train.main(["--play", "--checkpoint", str(best), "play.episodes=2", "play.video=false"]) == 0
    (results,) = tmp_path.glob("runs/*/play/*/results.json")
    assert [episode["steps"] for episode in json.loads(results.read_text())["episodes"]] == [10, 10]
    assert train.main([f"checkpoint={last}", "max_env_steps=96", "--headless"]) == 0
    assert load_checkpoint(last).counters["env_steps"] == 96


def test_a_recurrent_policy_resets_its_state_at_each_episode() -> None:
    spec = ObservationSpec.from_json(
        {"fields": [{"name": "x", "shape": [2]}], "action_size": 1, "act_buf_len": 0, "reset_act_buf": True}
    )
    params = stock()
    kwargs = {"spec": spec.to_json(), "model": params["model"], "network": {**params["network"], "rnn": RNN}}
    kwargs |= {"normalize_input": False, "normalize_value": False, "is_flat": True}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        policy = build_policy({"function": "algos.faces.ppo:make_ppo_policy", "kwargs": kwargs}, seed=0)
    observation = {"x": np.ones(2, np.float32)}
    policy.begin_episode()
    first, second = (policy.act(observation, deterministic=True) for _ in range(2))
    policy.begin_episode()
    again = policy.act(observation, deterministic=True)
    assert first.tolist() == again.tolist()
    assert first.tolist() != second.tolist()


def test_compiled_weights_keep_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    from algos.faces.ppo import RemotePPOAgent

    agent = object.__new__(RemotePPOAgent)
    agent.model = torch.nn.Sequential(torch.nn.Linear(1, 1))
    monkeypatch.setattr(a2c_continuous.A2CAgent, "get_weights", lambda self: {"model": self.model.state_dict()})
    plain = [list(agent.get_weights()["model"]), list(agent._acting_weights())]
    agent.model = torch.compile(agent.model)
    assert [list(agent.get_weights()["model"]), list(agent._acting_weights())] == plain
