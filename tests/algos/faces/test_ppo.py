from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from algos.config import EncoderKind
from algos.config.ppo import LearningRateSchedule, PPOConfig, PPONetworkConfig, ppo_params
from algos.config.schema import CheckpointMode, PlayConfig, RunConfig
from algos.config.train_schema import PPOParams, PPOTrainConfig
from algos.faces.ppo import EncoderNetwork, make_ppo_policy, ppo_policy
from algos.run.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from tasks.experience.observation import Field, ObservationSpec
from tasks.trackmania import course
from tests.algos.fakes import SPEC, ToyEnv, make_report
from tests.algos.runs import TASK, make_agent, make_runner

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning"),  # rl_games' normaliser
]
IMAGE_SPEC = ObservationSpec(
    fields=(
        Field("speed", (1,), scale=55.6),
        Field("images", (4, 64, 64), "uint8", 0, 255, history=4, scale=255.0, offset=102.0),
    )
)


def make_params(train_dir, run="run", network=None, **changes):
    run_keys: dict[str, Any] = {"max_env_steps": 256}
    run_keys |= {key: changes.pop(key) for key in ("checkpoint_mode", "max_env_steps") if key in changes}
    values = {"num_actors": 4, "horizon_length": 16, "minibatch_size": 32, "mini_epochs": 2, "normalize_input": True}
    values |= {"evaluation_interval": 0, "evaluation_episodes": 2, "checkpoint_interval": 0}
    ppo, network = PPOConfig(**(values | changes)), network or PPONetworkConfig(hidden=[16, 16])
    params = ppo_params(ppo, network)
    task = {"name": TASK, "track": "short", "game": "sim"}
    params["config"] |= {
        "name": "toy",
        "full_experiment_name": run,
        "train_dir": str(train_dir),
        "env_name": TASK,
        "env_config": {
            "task": task,
            "policy": None,
            "env": {"function": "tests.algos.fakes:make_toy_env", "kwargs": {}},
            "num_workers": 1,
            "seed": 0,
        },
        "device": "cpu",
        "device_name": "cpu",
        "inference_device": "cpu",
        "run": RunConfig(
            task=task,
            train=PPOTrainConfig(params=PPOParams(network=network, config=ppo)),
            experiment="toy",
            play=PlayConfig(episodes=2, seed=5, video=False, plot=False),
            **run_keys,
        ),
    }
    return {"seed": 0, "torch_threads": 0, "algo": {"name": "remote_ppo"}, **params}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The last checkpoint of a run that has made its 128 steps; read it only."""
    folder = tmp_path_factory.mktemp("finished")
    make_runner(make_params(folder, "old", max_env_steps=128)).run({"train": True})
    return folder / "old" / "nn" / "last.pth"


def test_runner_trains_resumes_and_plays(tmp_path, monkeypatch):
    monkeypatch.setattr(course, "scripted_lap_time_s", lambda task: 0.5)
    make_runner(make_params(tmp_path, evaluation_interval=128, checkpoint_interval=128)).run({"train": True})
    nn = tmp_path / "run" / "nn"
    assert {path.name for path in nn.iterdir()} == {"last.pth", "best.pth", "step_00000128.pth", "step_00000256.pth"}
    stored = load_checkpoint(nn / "last.pth")
    assert stored.algorithm == "remote_ppo"
    assert stored.counters["env_steps"] == 256
    assert stored.counters["updates"] == 4

    agent = make_agent(make_params(tmp_path, max_env_steps=320))
    agent.restore(str(nn / "last.pth"))
    assert agent.frame == 256
    assert agent.epoch_num == 4
    for name, tensor in agent.model.state_dict().items():
        assert torch.equal(tensor, stored.algorithm_state["model"][name])
    agent.train()
    assert load_checkpoint(nn / "last.pth").counters["env_steps"] == 320

    play = {"train": False, "play": True, "checkpoint": str(nn / "last.pth")}
    make_runner(make_params(tmp_path)).run(play)
    (folder,) = (tmp_path / "run" / "play").iterdir()
    results = json.loads((folder / "results.json").read_text())
    assert [episode["seed"] for episode in results["episodes"]] == [5, 6]
    assert results["task"] == TASK


def test_a_resumed_run_does_not_draw_its_first_episodes_again(tmp_path, finished):
    agent = make_agent(make_params(tmp_path, max_env_steps=320))
    first = agent.vec_env._seed
    agent.restore(str(finished))
    assert agent.vec_env._seed != first
    agent.close()


def test_resuming_a_finished_run_is_refused(tmp_path, finished):
    agent = make_agent(make_params(tmp_path, max_env_steps=128))
    with pytest.raises(CheckpointError, match=r"has made 128 steps and max_env_steps is 128: nothing is left to do"):
        agent.restore(str(finished))
    agent.close()


def test_resuming_an_older_copy_keeps_the_best_policy(tmp_path, monkeypatch):
    agent = make_agent(make_params(tmp_path, checkpoint_interval=128))
    agent.train()
    agent.run.evaluated(make_report(True, 20.0), agent.frame, agent.make_checkpoint)
    again = make_agent(make_params(tmp_path))
    again.restore(str(tmp_path / "run" / "nn" / "step_00000128.pth"))
    with monkeypatch.context() as patch:
        patch.setattr(again, "_evaluator", lambda *_: make_report(True, 25.0))
        again._evaluate()
    again.close()
    assert load_checkpoint(tmp_path / "run" / "nn" / "best.pth").best["report"]["mean_lap_time_s"] == 20.0


def test_weights_mode_starts_a_new_run(tmp_path, finished):
    stored = load_checkpoint(finished)
    only_acts = save_checkpoint(tmp_path / "policy.pth", replace(stored, algorithm_state={}))
    for file in (finished, only_acts):
        agent = make_agent(make_params(tmp_path, "new", checkpoint_mode=CheckpointMode.weights))
        agent.restore(str(file))
        model = stored.algorithm_state["model"]
        assert all(torch.equal(tensor, model[name]) for name, tensor in agent.model.state_dict().items())
        assert agent.frame == 0
        agent.close()
    bad = make_agent(make_params(tmp_path, "bad", checkpoint_mode=CheckpointMode.replay))
    bad.close()
    with pytest.raises(ValueError, match="remote_ppo must be resume or weights"):
        bad.restore("x.pth")


def test_networks_of_other_shapes_are_named(tmp_path, finished):
    path = Path(shutil.copytree(finished.parent, tmp_path / "old")) / finished.name
    checkpoint = load_checkpoint(path)
    name = next(name for name, tensor in checkpoint.algorithm_state["model"].items() if tensor.ndim == 2)
    checkpoint.algorithm_state["model"][name] = torch.zeros(3, 3)
    save_checkpoint(path, checkpoint)
    agent = make_agent(make_params(tmp_path, "new"))
    with pytest.raises(CheckpointError, match=rf"does not fit the networks of this run: size mismatch for {name}"):
        agent.restore(str(path))
    agent.close()


def test_stopping_saves_a_checkpoint(tmp_path):
    agent = make_agent(make_params(tmp_path, max_env_steps=100_000))
    original = agent.env_step

    def env_step(actions):
        if agent.frame >= 64:
            agent.stop()
        return original(actions)

    agent.env_step = env_step
    agent.train()
    assert load_checkpoint(tmp_path / "run" / "nn" / "last.pth").counters["env_steps"] == 64


def test_policy_acts_as_the_model_that_was_trained(tmp_path):
    agent = make_agent(make_params(tmp_path, max_env_steps=128))
    agent.train()
    policy = make_ppo_policy(**agent._policy["kwargs"], seed=0)
    policy.load_weights(agent._acting_weights(), 1)
    env = ToyEnv()
    observation, _ = env.reset(seed=1)
    action = policy.act(observation, deterministic=True)
    agent.model.eval()
    flat = torch.from_numpy(SPEC.to_flat(observation))[None]
    with torch.no_grad():
        expected = agent.model({"is_train": False, "prev_actions": None, "obs": flat})["mus"][0]
    np.testing.assert_allclose(action, expected.clamp(-1, 1).numpy(), atol=1e-6)
    assert action.dtype == np.float32
    assert np.all(np.abs(policy.act(observation)) <= 1.0)


def image_observation(batch: int | None = None):
    shape = () if batch is None else (batch,)
    rng = np.random.default_rng(0)
    values: dict[str, np.ndarray] = {"speed": rng.random((*shape, 1)).astype(np.float32) * 50}
    values["images"] = rng.integers(0, 256, (*shape, 4, 64, 64), dtype=np.uint8)
    return values | {name: np.zeros((*shape, 3), np.float32) for name in IMAGE_SPEC.action_names}


def test_image_network_gives_mean_deviation_and_value():
    network = PPONetworkConfig(encoder=EncoderKind.compact_cnn, hidden=[32], initial_log_std=-0.7)
    params = ppo_params(PPOConfig(), network)["network"] | {"spec": IMAGE_SPEC.to_json()}
    built = EncoderNetwork(params, actions_num=3)
    obs = {name: torch.from_numpy(value) for name, value in image_observation(5).items()}
    mean, log_std, value, states = built({"obs": obs})
    assert (mean.shape, log_std.shape, value.shape, states) == ((5, 3), (5, 3), (5, 1), None)
    assert torch.allclose(log_std, torch.tensor(-0.7))
    assert mean.abs().max() < 0.1
    (mean.sum() + log_std.sum() + value.sum()).backward()
    assert all(parameter.grad is not None for parameter in built.parameters())


def test_image_policy_is_built_from_plain_data():
    network = PPONetworkConfig(encoder=EncoderKind.compact_cnn, hidden=[32])
    params = ppo_params(PPOConfig(), network)
    assert params["config"]["observation"] == "dict"
    assert params["config"]["normalize_input"] is False
    spec = json.loads(json.dumps(ppo_policy(params, IMAGE_SPEC)))
    policy = make_ppo_policy(**spec["kwargs"], seed=0)
    action = policy.act(image_observation(), deterministic=True)
    assert action.shape == (3,)
    np.testing.assert_array_equal(action, policy.act(image_observation(), deterministic=True))


def test_configuration_is_checked():
    with pytest.raises(ValueError, match="minibatch_size must be a divisor of num_actors x horizon_length = 1024"):
        PPOConfig(minibatch_size=100)
    with pytest.raises(ValueError, match=r"encoder must be one of .*got 'tmrl_cnn'"):
        PPONetworkConfig(encoder=EncoderKind.tmrl_cnn)
    with pytest.raises(ValueError, match="learning_rate must be > 0"):
        PPOConfig(learning_rate=0.0)


def test_params_have_what_rl_games_requires():
    params = ppo_params(PPOConfig(lr_schedule=LearningRateSchedule.linear), PPONetworkConfig())
    config = params["config"]
    required = ("bounds_loss_coef", "lr_schedule", "e_clip", "clip_value", "grad_norm", "critic_coef", "gamma", "tau")
    assert [key for key in required if key not in config] == []
    assert config["lr_schedule"] == "linear"
    assert config["torch_compile"] is False
    assert config["mixed_precision"] is False
