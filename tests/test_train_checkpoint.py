"""Starting from a checkpoint: the stored configuration, changed only by what was typed, and never in its shapes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import train
from algos.faces.players import play_directory
from algos.run.checkpoint import Checkpoint, save_checkpoint
from algos.run.stored_config import merge_stored, refuse_shape_changes
from tasks.config import config_to_dict
from tasks.words.command_line import Role

Start = Callable[..., dict[str, Any]]


def starter(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    """Runs the command line up to the moment where training or playing would begin; returns rl_games' params."""
    monkeypatch.chdir(folder)
    seen: list[dict[str, Any]] = []

    def stop_there(composed: Any, role: Role, words: list[str]) -> None:
        with train._refusals():
            seen.append(train.prepare(composed, role, words))

    monkeypatch.setattr(train, "run", stop_there)

    def call(*words: str) -> dict[str, Any]:
        assert train.main(words) == 0
        return seen[-1]

    return call


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    return starter(tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def params(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Of a run whose command line had these words."""
    words = ["task=TM20Lidar", "task.game=sim", "task.track=short", "task.img_hist_len=2", "seed=7", "play.episodes=3"]
    words += ["train.params.config.batch_size=32", "train.params.network.hidden=[8,8]"]
    with pytest.MonkeyPatch.context() as monkeypatch:
        return starter(tmp_path_factory.mktemp("stored"), monkeypatch)(*words)


@pytest.fixture
def stored(params: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint of that run, in its run folder below the current one."""
    monkeypatch.chdir(tmp_path)
    return save_stored(tmp_path / "runs" / "Lidar_old" / "nn" / "last.pth", params)


def save_stored(path: Path, params: dict[str, Any]) -> Path:
    config = params["config"]
    return save_checkpoint(
        path,
        Checkpoint(
            algorithm=params["algo"]["name"],
            task=config["env_name"],
            config=config_to_dict(config["run"]),
            observation_spec={},
            policy={},
            algorithm_state={"num_updates": 0},
        ),
    )


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert train.main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_the_stored_configuration_is_complete_and_resolved(start: Start) -> None:
    config = config_to_dict(start("task=TM20Lidar", "task.game=sim", "task.track=short")["config"]["run"])
    assert config["max_env_steps"] == config["train"]["max_env_steps"]
    assert config["task"]["game"] == "sim"
    assert config["experiment"] == "TM20LidarSAC"
    assert config["device"] == "auto"
    assert config["choices"] == {"task": "TM20Lidar", "train": "TM20LidarSAC"}


def test_the_checkpoint_alone_is_enough(start: Start, stored: Path) -> None:
    params = start("--play", "--checkpoint", str(stored))
    config = params["config"]
    assert params["seed"] == 7
    assert config["env_name"] == "TM20Lidar"
    assert config["env_config"]["task"]["track"] == "short"
    assert config["env_config"]["task"]["img_hist_len"] == 2
    assert config["run"].train.params.config.batch_size == 32
    assert config["run"].train.params.network.hidden == [8, 8]
    assert config["run"].play.episodes == 3


def test_a_vehicle_file_is_not_needed_after_the_run_has_begun(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "car.yaml"
    file.write_text("yaw_lag_s: 0.2\n", encoding="utf-8")
    params = start("task=TM20Lidar", "task.game=sim", "task.track=short", f"task.vehicle={file}")
    stored = save_stored(tmp_path / "runs" / "Lidar_other_car" / "nn" / "last.pth", params)
    file.unlink()
    played = start("--play", "--checkpoint", str(stored))
    assert played["config"]["env_config"]["task"]["vehicle"] == '{"yaw_lag_s": 0.2}'
    played = start("--play", "--checkpoint", str(stored), "task.vehicle={yaw_lag_s: 0.1}")
    assert played["config"]["env_config"]["task"]["vehicle"] == '{"yaw_lag_s": 0.1}'


def test_only_typed_keys_override_the_stored_configuration(start: Start, stored: Path) -> None:
    words = ["task=TM20Lidar", "train=TM20LidarSAC", "task.track=medium", "task.reward={END_OF_TRACK:5}"]
    config = start("--play", f"checkpoint={stored}", *words, "play.episodes=1", "+plugins=[]")["config"]
    assert config["env_config"]["task"]["track"] == "medium"
    assert config["env_config"]["task"]["reward"]["END_OF_TRACK"] == 5.0
    assert config["env_config"]["task"]["reward"]["MIN_STEPS"] == 70
    assert config["env_config"]["task"]["img_hist_len"] == 2
    assert config["run"].train.params.config.batch_size == 32
    assert config["run"].play.episodes == 1


def test_the_device_is_that_of_this_machine(start: Start, stored: Path) -> None:
    content = start("--play", f"checkpoint={stored}")["config"]["run"]
    content.device = "cuda:5"
    other = save_stored(stored.with_name("other.pth"), start("task=TM20Lidar", "task.game=sim", "task.track=short"))
    params = start(f"checkpoint={other}", "device=cpu")
    assert params["config"]["device"] == "cpu"


@pytest.mark.parametrize(
    ("word", "key"),
    [
        ("task=TM20LidarProgress", "task.name"),
        ("task.name=TM20Full", "task.name"),
        ("task.img_hist_len=4", "task.img_hist_len"),
        ("task.rtgym.act_buf_len=3", "task.rtgym.act_buf_len"),
        ("task.rtgym.act_in_obs=false", "task.rtgym.act_in_obs"),
        ("task.rtgym.reset_act_buf=false", "task.rtgym.reset_act_buf"),
        ("train.params.network.hidden=[16,16]", "train.params.network.hidden"),
        ("train.params.network.layer_norm=true", "train.params.network.layer_norm"),
        ("train=TM20LidarPPO", "train.params.algo.name"),
    ],
)
def test_another_shape_is_refused_by_its_key(
    word: str, key: str, stored: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = refused(capsys, "--play", f"checkpoint={stored}", word)
    assert f"train.py: {key}=" in message
    assert str(stored) in message


def test_a_change_of_how_histories_begin_is_named_as_such(stored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(capsys, "--play", f"checkpoint={stored}", "task.rtgym.reset_act_buf=false")
    assert "task.rtgym.reset_act_buf=false would change how histories begin: " in message
    assert "shape" not in message


def test_playing_on_the_wall_clock_what_was_trained_synchronously_is_allowed(start: Start, tmp_path: Path) -> None:
    params = start("task=TM20Lidar", "task.game=sim", "task.track=short", "synchronous=true")
    path = save_stored(tmp_path / "runs" / "sync" / "nn" / "last.pth", params)
    played = start("--play", f"checkpoint={path}", "task.clock=wall")
    assert played["config"]["env_config"]["task"]["clock"] == "wall"


@pytest.mark.parametrize("mode", ["resume", "weights"])
def test_another_shape_is_refused_when_resuming(mode: str, stored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(capsys, f"checkpoint={stored}", f"checkpoint_mode={mode}", "train.params.network.hidden=[16]")
    assert "train.params.network.hidden=[16] would change the shape of the networks" in message


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["train.params.config.save_replay=false"], "train.params.config.save_replay must be true"),
        (["task=TM20Lidar", "train=TM20LidarPPO"], "checkpoint_mode must be resume or weights with PPO"),
    ],
)
def test_a_replay_that_is_not_used_cannot_be_started_from(
    start: Start, stored: Path, words: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert expected in refused(capsys, f"checkpoint={stored}", "checkpoint_mode=replay", *words)


def test_the_same_shape_may_be_typed_again(start: Start, stored: Path) -> None:
    start("--play", f"checkpoint={stored}", "task.img_hist_len=2", "train.params.network.hidden=[8,8]")


def test_a_new_agent_on_the_old_replay_may_have_other_networks(start: Start, stored: Path) -> None:
    config = start(f"checkpoint={stored}", "checkpoint_mode=replay", "train.params.network.hidden=[16]")["config"]
    assert config["run"].train.params.network.hidden == [16]


def test_a_training_begins_with_a_policy_of_the_zoo_on_another_track(start: Start) -> None:
    run = start("checkpoint=zoo:TM20Lidar", "checkpoint_mode=weights", "task.track=short")["config"]["run"]
    assert (run.task.track, run.checkpoint_mode.name, run.experiment) == ("short", "weights", "TM20LidarDAgger")


def test_a_new_agent_on_the_old_replay_needs_the_same_observation(
    stored: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = refused(capsys, f"checkpoint={stored}", "checkpoint_mode=replay", "task.img_hist_len=3")
    assert "task.img_hist_len=3 would change the shape of the observation" in message


def test_a_resumed_run_uses_its_folder_and_others_start_a_new_one(start: Start, stored: Path) -> None:
    def folder(*words: str) -> str:
        return start(f"checkpoint={stored}", *words)["config"]["full_experiment_name"]

    assert folder() == "Lidar_old"
    assert folder("checkpoint_mode=weights").startswith("TM20LidarSAC_")
    assert folder("checkpoint_mode=replay").startswith("TM20LidarSAC_")
    assert folder("experiment=again").startswith("again_")


def test_how_a_run_was_started_is_not_inherited(start: Start, stored: Path) -> None:
    second = start(f"checkpoint={stored}", "checkpoint_mode=weights")
    path = save_stored(stored.parents[2] / "second" / "nn" / "last.pth", second)
    assert start(f"checkpoint={path}")["config"]["run"].checkpoint_mode.name == "resume"


def test_the_keys_of_another_algorithm_are_known_without_naming_it(start: Start, tmp_path: Path) -> None:
    params = start("task=TM20Lidar", "train=TM20LidarPPO", "task.game=sim", "task.track=short")
    path = save_stored(tmp_path / "runs" / "ppo" / "nn" / "last.pth", params)
    resumed = start(f"checkpoint={path}", "train.params.config.mini_epochs=2")
    assert resumed["algo"]["name"] == "remote_ppo"
    assert resumed["config"]["mini_epochs"] == 2


def test_two_runs_in_one_second_have_two_folders(start: Start) -> None:
    words = ["task=TM20Lidar", "task.game=sim", "task.track=short"]
    names = {start(*words)["config"]["full_experiment_name"] for _ in range(3)}
    assert len(names) == 3


def test_playing_a_file_from_elsewhere_writes_below_runs(start: Start, stored: Path, tmp_path: Path) -> None:
    other = tmp_path / "downloads" / "driver" / "nn" / "best.pth"
    other.parent.mkdir(parents=True)
    other.write_bytes(stored.read_bytes())
    directories = []
    for path in (stored, other):
        config = start("--play", f"checkpoint={path}")["config"]
        directories.append(play_directory(str(path), Path(config["train_dir"])).resolve().parent)
    assert directories == [stored.parents[1] / "play", tmp_path / "runs" / "play"]


def test_playing_creates_no_run_folder(start: Start, stored: Path) -> None:
    before = sorted(stored.parents[2].iterdir())
    start("--play", f"checkpoint={stored}")
    assert sorted(stored.parents[2].iterdir()) == before


def test_an_argument_that_removes_a_key_is_refused() -> None:
    with pytest.raises(ValueError, match="takes a key away"):
        merge_stored({"seed": 1}, {"seed": 0}, ["~seed"])


def test_an_entry_of_a_list_may_be_typed() -> None:
    stored_config = {"train": {"params": {"config": {"betas": [0.1, 0.2]}}}}
    composed = {"train": {"params": {"config": {"betas": [0.1, 0.9]}}}}
    merged = merge_stored(stored_config, composed, ["train.params.config.betas.1=0.9"])
    assert merged["train"]["params"]["config"]["betas"] == [0.1, 0.9]


def test_keys_that_the_file_lacks_come_from_this_program() -> None:
    assert merge_stored({"seed": 1}, {"seed": 0, "new": 3}, []) == {"seed": 1, "new": 3}


def test_a_switch_that_changes_no_shape_is_allowed() -> None:
    old = {"train": {"params": {"network": {"random_shift": 0}}}}
    new = {"train": {"params": {"network": {"random_shift": 4}}}}
    refuse_shape_changes(old, new, "a.pth", mode="resume")
