"""Code of the user, selected by name: the programs of docs/examples in whole runs, with workers and --play."""

from __future__ import annotations

import importlib
import json
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

import train
from algos.acting.policy import build_policy
from algos.algorithms.sac import SAC
from algos.config import NetworkConfig, SACConfig, algorithms
from algos.config.algorithms import TRAIN_SCHEMAS
from algos.replay import transforms as replay_transforms
from algos.run import observers
from algos.run.checkpoint import load_checkpoint
from tasks import registry
from tasks.experience.observation import Field, ObservationSpec
from tasks.remote.learner import batch_vecenv
from tests.algos.algorithms.sac_batches import LIDAR, random_batch

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "docs" / "examples"
MODULES = ("own_algorithm", "own_network", "own_ppo", "own_ppo_agent", "own_simulator", "own_gym")
REGISTRIES: tuple[dict[Any, Any], ...] = (
    registry._TASKS,
    TRAIN_SCHEMAS,
    algorithms._ALGORITHMS,
    algorithms._OFF_POLICY,
    algorithms._NETWORKS,
    observers._OBSERVERS,
    replay_transforms._TRANSFORMS,
    gymnasium.registry,
)
TINY = [
    "task.game=sim",
    "task.track=short",
    "task.rtgym.ep_max_length=40",
    "headless=true",
    "train.params.network.hidden=[16,16]",
]
TINY_OFF_POLICY = [
    *TINY,
    "max_env_steps=120",
    "train.params.config.batch_size=16",
    "train.params.config.env_steps_before_training=60",
    "train.params.config.evaluation_interval=0",
]
PLAY = ["play.episodes=1", "play.video=false", "play.plot=false"]


@pytest.fixture(autouse=True)
def forgotten_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A folder for runs; afterwards the examples' registrations and modules are removed."""
    monkeypatch.chdir(tmp_path)
    before = [dict(names) for names in REGISTRIES]
    path = list(sys.path)
    yield
    for names, known in zip(REGISTRIES, before, strict=True):
        names.clear()
        names.update(known)
    sys.path[:] = path
    for module in MODULES:
        sys.modules.pop(module, None)


def plugins(*names: str) -> str:
    return f"plugins=[{','.join(str(EXAMPLES / f'{name}.py') for name in names)}]"


def example(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return importlib.import_module(name)


def checkpoint_of(folder: Path) -> Path:
    (run,) = (folder / "runs").iterdir()
    return run / "nn" / "last.pth"


def prepared(words: list[str], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    seen: list[dict[str, Any]] = []
    monkeypatch.setattr(train, "run", lambda composed, role, typed: seen.append(train.prepare(composed, role, typed)))
    assert train.main(words) == 0
    return seen[0]


def commands(page: str) -> list[str]:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return re.findall(r"^python train\.py (.*plugins=.*)$", text, flags=re.MULTILINE)


@pytest.mark.parametrize("command", [*commands("own_environments.md"), *commands("own_algorithms.md")])
def test_every_command_of_the_pages_can_be_given(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [word.replace("docs/examples", str(EXAMPLES)) for word in shlex.split(command)]
    params = prepared(words, monkeypatch)
    chosen = [word.partition("=")[2] for word in words if word.startswith("train=")]
    assert [params["config"]["name"]] == (chosen or ["SAC"])


def test_an_algorithm_a_transform_and_an_observer_train_together_and_are_played_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = plugins("own_algorithm")
    words = ["task=TM20Lidar", "train=SmoothSAC", *TINY_OFF_POLICY, own, "synchronous=true"]
    words += ["train.params.config.replay_transforms=[mirror]", "observers=[LapFile]"]
    assert train.main([*words, "train.params.config.smoothness=0.3"]) == 0
    stored = load_checkpoint(checkpoint_of(tmp_path))
    assert stored.algorithm == "smooth_sac"
    assert stored.config["train"]["params"]["config"]["smoothness"] == 0.3
    assert "mirror" in stored.replay["transforms"]
    logged = b"".join(file.read_bytes() for file in tmp_path.glob("runs/*/summaries/events*"))
    assert b"losses/roughness" in logged
    assert b"rollout/laps" in logged

    file = str(checkpoint_of(tmp_path))
    assert train.main(["--play", "--checkpoint", file, own, *PLAY]) == 0
    (results,) = tmp_path.glob("runs/*/play/*/results.json")
    assert len(json.loads(results.read_text())["episodes"]) == 1


def test_without_its_file_an_algorithm_is_unknown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main(["task=TM20Lidar", "train=SmoothSAC", *TINY]) == 2
    assert "SmoothSAC" in capsys.readouterr().err


def test_wrong_values_of_a_users_key_are_refused_by_its_full_name(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["task=TM20Lidar", "train=SmoothSAC", plugins("own_algorithm"), *TINY]
    assert train.main([*words, "train.params.config.smoothness=-1"]) == 2
    assert "train.params.config.smoothness must be >= 0, got -1" in capsys.readouterr().err
    assert train.main([*words, "train.params.config.smothness=1"]) == 2
    assert "did you mean train.params.config.smoothness?" in capsys.readouterr().err
    assert train.main([*words, "train.params.config.replay_transforms=[mirrors]"]) == 2
    assert "unknown 'mirrors'; registered: mirror" in capsys.readouterr().err


def test_a_users_settings_are_files_in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "train").mkdir()
    file = tmp_path / "train" / "Smooth.yaml"
    file.write_text("defaults: [SmoothSAC, /shared/driving@_here_, _self_]\nparams: {config: {smoothness: 0.7}}\n")
    words = ["task=TM20Lidar", "train=Smooth", plugins("own_algorithm"), *TINY, f"--config-dir={tmp_path}"]
    params = prepared(words, monkeypatch)
    assert params["config"]["run"].train.params.config.smoothness == 0.7
    assert params["config"]["run"].train.params.config.gamma == 0.98


def test_another_actor_acts_in_workers_and_when_it_is_played(tmp_path: Path) -> None:
    own = plugins("own_network")
    words = ["task=TM20Lidar", "train=LinearSAC", *TINY_OFF_POLICY, own]
    assert train.main([*words, "train.params.network.squares=false"]) == 0
    stored = load_checkpoint(checkpoint_of(tmp_path))
    assert stored.policy["function"] == "own_network:make_policy"
    assert stored.counters["updates"] > 0
    assert stored.acting_weights()["actor.layer.weight"].shape == (6, 1 + 4 * 19 + 2 * 3)
    assert train.main(["--play", "--checkpoint", str(checkpoint_of(tmp_path)), own, *PLAY]) == 0


def test_a_users_ppo_has_its_own_key_agent_player_and_network(tmp_path: Path) -> None:
    own = plugins("own_ppo")
    words = ["task=TM20Lidar", "train=CalmingPPO", *TINY, own, "train.params.network.name=skip_net"]
    words += ["max_env_steps=32", "train.params.config.num_actors=2", "train.params.config.horizon_length=8"]
    words += ["train.params.config.minibatch_size=16", "train.params.config.evaluation_episodes=1"]
    assert train.main([*words, "train.params.config.final_entropy_coef=0.005"]) == 0
    stored = load_checkpoint(checkpoint_of(tmp_path))
    assert stored.algorithm == "calming_ppo"
    assert stored.config["train"]["params"]["config"]["final_entropy_coef"] == 0.005
    assert any("skip.weight" in name for name in stored.acting_weights())
    assert train.main(["--play", "--checkpoint", str(checkpoint_of(tmp_path)), own, *PLAY]) == 0


def test_the_entropy_bonus_of_the_example_falls_linearly(monkeypatch: pytest.MonkeyPatch) -> None:
    agent_file = example("own_ppo_agent", monkeypatch)
    monkeypatch.setattr(agent_file.RemotePPOAgent, "train_epoch", lambda self: self.entropy_coef)
    agent = object.__new__(agent_file.CalmingPPOAgent)
    agent.config = {"entropy_coef": 0.01, "final_entropy_coef": 0.002}
    agent.max_frames = 100
    seen = []
    for frame in (0, 50, 100, 120):
        agent.frame = frame
        seen.append(agent.train_epoch())
    assert seen == pytest.approx([0.01, 0.006, 0.002, 0.002])


def test_an_unknown_network_builder_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main(["task=TM20Lidar", "train=TM20LidarPPO", *TINY, "train.params.network.name=nothing"]) == 2
    assert "train.params.network.name must be null or one of tm_encoder, got 'nothing'" in capsys.readouterr().err


def test_smooth_sac_equals_sac_only_with_smoothness_0(monkeypatch: pytest.MonkeyPatch) -> None:
    own = example("own_algorithm", monkeypatch)
    network, cpu = NetworkConfig(hidden=[8]), torch.device("cpu")
    features = torch.randn(5, 1 + 4 * 19 + 2 * 3, generator=torch.Generator().manual_seed(1))

    def loss(algorithm: SAC) -> tuple[float, dict[str, torch.Tensor]]:
        value, _, metrics = algorithm.actor_loss(features, features)
        return float(value.detach()), metrics

    expected, _ = loss(SAC(LIDAR, SACConfig(), network, cpu, seed=3))
    off, metrics = loss(own.SmoothSAC(LIDAR, own.SmoothSACConfig(smoothness=0.0), network, cpu, seed=3))
    rough, _ = loss(own.SmoothSAC(LIDAR, own.SmoothSACConfig(smoothness=2.0), network, cpu, seed=3))
    assert off == expected
    assert rough == pytest.approx(expected + 2.0 * float(metrics["losses/roughness"]))
    assert float(metrics["losses/roughness"]) > 0.0


def test_the_mirror_changes_half_of_the_batch_and_mirroring_twice_restores_it(monkeypatch: pytest.MonkeyPatch) -> None:
    own = example("own_algorithm", monkeypatch)
    batch = random_batch(LIDAR, 64)
    seen = own.mirror(batch, np.random.default_rng(7))
    changed = (seen.action[:, 2] != batch.action[:, 2]).numpy()
    assert 16 < changed.sum() < 48
    for one, other in ((seen.observation, batch.observation), (seen.next_observation, batch.next_observation)):
        assert torch.equal(one["lidar"][changed], other["lidar"][changed].flip(-1))
        assert torch.equal(one["lidar"][~changed], other["lidar"][~changed])
        assert torch.equal(one["action_1"][changed][:, 2], -other["action_1"][changed][:, 2])
    assert torch.equal(seen.action[:, :2], batch.action[:, :2])
    again = own.mirror(seen, np.random.default_rng(7))
    assert torch.equal(again.observation["lidar"], batch.observation["lidar"])
    assert torch.equal(again.action, batch.action)


def test_the_policy_of_workers_acts_as_the_learners_actor(monkeypatch: pytest.MonkeyPatch) -> None:
    own = example("own_network", monkeypatch)
    network = own.LinearNetworkConfig(hidden=[8])
    learner = own.LinearSAC(LIDAR, SACConfig(), network, torch.device("cpu"), seed=0)
    kwargs = {"spec": LIDAR.to_json(), "network": {"hidden": [8]}}
    policy = build_policy({"function": "own_network:make_policy", "kwargs": kwargs}, seed=0)
    assert policy.weights().keys() == learner.acting_weights().keys()
    policy.load_weights(learner.acting_weights(), 1)
    observation = {name: values[:1] for name, values in random_batch(LIDAR, 1).observation.items()}
    mean, _ = learner.acting(observation)
    chosen = policy.act({name: values[0].numpy() for name, values in observation.items()}, deterministic=True)
    assert chosen == pytest.approx(mean[0].detach().tanh().numpy(), abs=1e-6)


def test_a_name_can_be_registered_once() -> None:
    algorithms.add_off_policy("mine", "some_file:Mine", SACConfig)
    algorithms.add_off_policy("mine", "some_file:Mine", SACConfig)  # the file was read again
    with pytest.raises(ValueError, match="'mine' is taken by some_file:Mine"):
        algorithms.add_off_policy("mine", "other_file:Mine", SACConfig)
    with pytest.raises(ValueError, match="the algorithm name 'remote_sac' is taken"):
        algorithms.add_off_policy("remote_sac", "other_file:Mine", SACConfig)
    with pytest.raises(ValueError, match=r"must be 'module:Class' or 'module:function', got 'other_file\.Mine'"):
        algorithms.add_off_policy("others", "other_file.Mine", SACConfig)


# --- environments ---


def test_one_boat_and_a_fleet_behave_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    own = example("own_simulator", monkeypatch)
    env = registry.make("Boat", observation="dict", start_distance_m=6.0)
    fleet = own.BoatFleet(own.BoatConfig(start_distance_m=6.0), 1, seed=0)
    observation, _ = env.reset(seed=5)
    fleet.rng = np.random.default_rng(5)
    assert np.array_equal(fleet.reset()["buoy"][0], observation["buoy"])
    is_over = False
    while not is_over:
        ahead, left = observation["buoy"]
        action = np.array([1.0 if ahead > 0 else 0.2, np.sign(left)], np.float32)
        observation, reward, terminated, truncated, info = env.step(action)
        step = fleet.step(action[None])
        is_over = terminated or truncated
        assert (step.reward[0], step.terminated[0], step.truncated[0]) == (reward, terminated, truncated)
        if not is_over:
            assert np.array_equal(step.observation["buoy"][0], observation["buoy"])
    assert terminated
    assert np.hypot(*observation["buoy"]) < 2.0  # the last observation, not the first of the next episode
    assert np.hypot(*step.observation["buoy"][0]) == pytest.approx(6.0)
    assert info["episode_statistics"] == step.episodes[0][1]
    assert info["episode_statistics"]["return"] == pytest.approx(6.0 - np.hypot(*observation["buoy"]), abs=1e-5)


def test_ppo_steps_the_batch_itself_and_is_played_on_one_boat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[batch_vecenv.BatchVecEnv] = []
    original = batch_vecenv.BatchVecEnv.__init__

    def remember(self: Any, *args: Any, **kwargs: Any) -> None:
        made.append(self)
        original(self, *args, **kwargs)

    monkeypatch.setattr(batch_vecenv.BatchVecEnv, "__init__", remember)
    own = plugins("own_simulator")
    words = ["task=Boat", "train=PPO", own, "headless=true", "max_env_steps=512", "task.ep_max_length=6"]
    words += ["train.params.config.num_actors=16", "train.params.config.horizon_length=16"]
    words += ["train.params.config.minibatch_size=64", "train.params.network.hidden=[16]"]
    assert train.main([*words, "train.params.config.evaluation_episodes=2"]) == 0
    assert len(made) == 1
    stored = load_checkpoint(checkpoint_of(tmp_path))
    assert (stored.task, stored.counters["env_steps"]) == ("Boat", 512)
    assert stored.counters["episodes"] >= 16 * (512 // 16 // 6)
    assert stored.best["report"]["episodes"]
    assert train.main(["--play", "--checkpoint", str(checkpoint_of(tmp_path)), own, *PLAY]) == 0


def test_a_batch_behaves_like_lock_step_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    own = example("own_simulator", monkeypatch)
    config = own.BoatConfig(ep_max_length=2)
    flat = batch_vecenv.BatchVecEnv(config, 3, seed=1, observation="flat")
    named = batch_vecenv.BatchVecEnv(config, 3, seed=1, observation="dict")
    first, fields = flat.reset(), named.reset()
    assert isinstance(fields, dict)
    assert isinstance(first, np.ndarray)
    for row, entry in enumerate(first):
        assert entry == pytest.approx(own.SPEC.to_flat({name: values[row] for name, values in fields.items()}))
    assert flat.get_env_info()["observation_space"].shape == first[0].shape
    _, _, dones, infos = flat.step(np.zeros((3, 2)))
    assert not dones.any()
    assert infos["episode_statistics"] == []
    _, rewards, dones, infos = flat.step(np.zeros((3, 2)))
    assert dones.all()
    assert infos["time_outs"].all()
    assert rewards.dtype == np.float32
    assert infos["episode_indices"] == [0, 1, 2]
    with pytest.raises(ValueError, match=r"actions must have shape \(3, 2\), got \(2, 2\)"):
        flat.step(np.zeros((2, 2)))


def test_a_batch_must_observe_what_the_single_environment_does(monkeypatch: pytest.MonkeyPatch) -> None:
    own = example("own_simulator", monkeypatch)
    monkeypatch.setattr(own.BoatFleet, "observation_spec", ObservationSpec((Field("buoy", (2,)),), 2, 0))
    with pytest.raises(ValueError, match="the batch of task 'Boat' observes other fields than its single environment"):
        batch_vecenv.BatchVecEnv(own.BoatConfig(), 2, seed=0)


def test_sac_drives_the_boat_in_a_worker(tmp_path: Path) -> None:
    words = ["task=Boat", plugins("own_simulator"), "headless=true", "max_env_steps=150"]
    words += ["train.params.network.hidden=[16]", "train.params.config.env_steps_before_training=50"]
    words += ["train.params.config.evaluation_interval=0", "task.start_distance_m=5.0"]
    assert train.main(words) == 0
    stored = load_checkpoint(checkpoint_of(tmp_path))
    assert stored.config["task"]["start_distance_m"] == 5.0
    assert stored.counters["updates"] > 0


def test_a_key_of_a_users_task_is_checked(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["task=Boat", plugins("own_simulator")]
    assert train.main([*words, "task.start_distance_m=1"]) == 2
    assert "task.start_distance_m must be > 2 m, got 1" in capsys.readouterr().err
    assert train.main([*words, "task.start_distance=5"]) == 2
    assert "task.start_distance" in capsys.readouterr().err


def test_a_users_gym_environment_is_a_task_by_its_id(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["task=Gym", "train=GymSAC", "task.id=Tank-v0", "task.kwargs={leak:0.1}", plugins("own_gym")]
    params = prepared(words, monkeypatch)
    spec = ObservationSpec.from_json(params["config"]["env_config"]["policy"]["kwargs"]["spec"])
    assert [field.name for field in spec.fields] == ["level", "wanted"]
    env = registry.make("Gym", id="Tank-v0", kwargs={"leak": 0.1})
    env.reset(seed=1)
    (level, _), *_ = env.step(np.array([1.0], np.float32))
    assert level == pytest.approx([0.2 - 0.1])
