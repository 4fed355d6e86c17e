"""An asymmetric critic from the command line: what is refused, and a run that is played without privileged fields."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import train
from algos.faces.registration import register
from algos.faces.role_task import task_of_role
from algos.faces.runner_params import worker_policy
from algos.run.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from algos.run.checkpoint_words import named_file
from algos.run.stored_config import refuse_shape_changes
from tasks import registry
from tasks.config import TaskConfig, config_to_dict
from tasks.experience.observation import ObservationSpec
from tasks.registration import register_tasks
from tasks.trackmania.driving import PRIVILEGED_FIELDS
from tasks.words.command_line import Role
from tests.test_config_files import run_config

pytestmark = pytest.mark.timeout(120)
LIDAR = ["task=TM20Lidar", "train=TM20LidarSAC", "task.game=sim", "task.track=short", "seed=0"]
ASYMMETRIC = "train.params.network.asymmetric_critic=true"
SYMMETRIC = "train.params.network.asymmetric_critic=false"
TINY = [
    "task.rtgym.ep_max_length=60",
    "max_env_steps=120",
    "synchronous=true",
    "headless=true",
    "train.params.network.hidden=[16,16]",
    "train.params.config.batch_size=16",
    "train.params.config.env_steps_before_training=60",
    "train.params.config.evaluation_interval=0",
    "play.episodes=1",
    "play.video=false",
    "play.plot=false",
    "debug.check_samples=true",
]
Start = Callable[..., dict[str, Any]]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    """Runs the command line up to the moment where training or playing would begin; returns rl_games' params."""
    monkeypatch.chdir(tmp_path)
    seen: list[dict[str, Any]] = []

    def stop_there(composed: Any, role: Role, words: list[str]) -> None:
        with train._refusals():
            seen.append(train.prepare(composed, role, words))

    monkeypatch.setattr(train, "run", stop_there)

    def call(*words: str) -> dict[str, Any]:
        assert train.main(words) == 0
        return seen[-1]

    return call


def runner(params: dict[str, Any]) -> Any:
    from rl_games.torch_runner import Runner

    register_tasks()
    made = Runner()
    register(made)
    made.load({"params": params})
    return made


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert train.main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_it_is_refused_with_advice_without_privileged_fields(start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, *LIDAR, ASYMMETRIC, "task.privileged=false")
    assert "train.params.network.asymmetric_critic must be false" in line
    assert line.endswith("leave task.privileged out, or set it to true")


@pytest.mark.parametrize(
    ("words", "is_captured"),
    [
        ([ASYMMETRIC], True),
        (["train=TM20LidarDAgger"], True),
        ([], True),
        ([SYMMETRIC], None),
        ([SYMMETRIC, "task.privileged=true"], True),
        (["task=Gym", "train=GymSAC"], None),
    ],
)
def test_privileged_fields_are_captured_where_training_uses_them(
    start: Start, words: list[str], is_captured: bool | None
) -> None:
    given = words if words[:1] == ["task=Gym"] else [*LIDAR, *words]
    task = start(*given)["config"]["env_config"]["task"]
    assert task.get("privileged") == is_captured


@pytest.mark.parametrize(
    ("role", "share"), [(Role.train, 0.5), (Role.worker, 0.5), (Role.play, 0.0), (Role.benchmark, 0.0)]
)
def test_only_training_begins_on_the_way(role: Role, share: float) -> None:
    config = run_config("task=TM20Full", "task.game=sim")
    task = task_of_role(config, role)
    assert isinstance(task, TaskConfig)
    assert task.randomization.rolling_starts == share
    assert task.privileged == (True if share else None)


def test_the_road_ahead_is_seen_as_the_teacher_sees_it(start: Start, tmp_path: Path) -> None:
    teacher = load_checkpoint(named_file("zoo:TM20TrackMedium"))
    for exponent in (1.0, 2.5):
        teacher.config["task"]["look_ahead_exponent"] = exponent
        save_checkpoint(tmp_path / "teacher.pth", teacher)
        words = ["train=TM20LidarDAgger", f"train.params.config.teacher={tmp_path / 'teacher.pth'}"]
        assert start(*LIDAR, *words)["config"]["env_config"]["task"]["look_ahead_exponent"] == exponent


def test_another_look_ahead_than_the_teachers_is_refused(start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, *LIDAR, "train=TM20LidarDAgger", "task.look_ahead_exponent=4.0")
    assert line.endswith(
        "task.look_ahead_exponent=4.0 does nothing with train.params.config.teacher=zoo:TM20Track: leave it out"
    )


def test_a_teacher_that_sees_the_road_otherwise_than_the_checkpoint_is_refused(
    start: Start, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    teacher = load_checkpoint(named_file("zoo:TM20TrackMedium"))
    teacher.config["task"]["look_ahead_exponent"] = 2.5
    save_checkpoint(tmp_path / "teacher.pth", teacher)
    taught = ["checkpoint_mode=weights", f"train.params.config.teacher={tmp_path / 'teacher.pth'}"]
    line = refused(capsys, "checkpoint=zoo:TM20TrackMedium", "train=TM20TrackDAgger", *taught)
    assert f"must see the road ahead as {named_file('zoo:TM20TrackMedium')} does, with task.look_ahead_exponent" in line
    assert "teacher.pth, which has 2.5: name another teacher" in line
    # A policy that does not see the road takes any teacher; its replay, which holds the road, would not.
    params = start("checkpoint=zoo:TM20Full", "train=TM20FullDAgger", *taught)
    assert params["config"]["env_config"]["task"]["look_ahead_exponent"] == 2.5
    config = run_config("train=TM20FullDAgger", taught[1], "checkpoint=run.pth")
    with pytest.raises(ValueError, match=r"must see the road ahead as run\.pth does"):
        task_of_role(config, Role.train)


@pytest.mark.parametrize("words", [[SYMMETRIC], ["train=TM20LidarPPO"]], ids=" ".join)
def test_a_look_ahead_that_nothing_sees_is_refused(
    start: Start, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    line = refused(capsys, *LIDAR, *words, "task.look_ahead_exponent=2")
    assert "task.look_ahead_exponent must be 1 when neither policy nor critic sees the road ahead, got 2.0" in line
    assert start(*LIDAR, "task.look_ahead_exponent=2")["config"]["env_config"]["task"]["look_ahead_exponent"] == 2.0


def test_a_checkpoint_keeps_its_look_ahead_and_an_older_one_had_1(
    start: Start, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    stored = load_checkpoint(named_file("zoo:TM20TrackMedium"))
    assert "look_ahead_exponent" not in stored.config["task"]
    stored.config["task"]["look_ahead_exponent"] = 3.0
    save_checkpoint(tmp_path / "newer.pth", stored)
    for name, kept, other in (("zoo:TM20TrackMedium", 1.0, 3.0), (str(tmp_path / "newer.pth"), 3.0, 1.0)):
        words = [f"checkpoint={name}", "checkpoint_mode=weights"]
        assert start(*words)["config"]["env_config"]["task"]["look_ahead_exponent"] == kept
        line = refused(capsys, *words, f"task.look_ahead_exponent={other}")
        assert f"task.look_ahead_exponent={other} would change where the points of the road ahead lie" in line


def test_where_the_policy_sees_all_there_is_nothing_to_add(start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["task=TM20Track", "train=TM20TrackSAC", "task.game=sim"]
    assert refused(capsys, *words, ASYMMETRIC).endswith("its policy sees all there is")
    assert "task.privileged" in refused(capsys, *words, "task.privileged=true")


def test_other_tasks_are_told_to_mark_their_fields(start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, "task=RCDrone", "train=RCDroneSAC", ASYMMETRIC)
    assert "set it to false, or mark fields of the observation of RCDrone as privileged" in line


def test_workers_and_checkpoints_make_their_policy_without_privileged_fields(start: Start) -> None:
    params = start(*LIDAR, ASYMMETRIC)
    kwargs = params["config"]["env_config"]["policy"]["kwargs"]
    assert ObservationSpec.from_json(kwargs["spec"]).names == ("speed", "lidar", "action_0", "action_1")
    assert kwargs["spec"] == start(*LIDAR, SYMMETRIC)["config"]["env_config"]["policy"]["kwargs"]["spec"]


def test_a_run_is_played_without_privileged_fields(start: Start, tmp_path: Path) -> None:
    params = start(*LIDAR, ASYMMETRIC, *TINY)
    runner(params).run({"train": True, "play": False})
    (checkpoint,) = tmp_path.glob("runs/*/nn/last.pth")
    stored = load_checkpoint(checkpoint)
    beside = stored.spec().privileged_fields
    assert beside == PRIVILEGED_FIELDS[1:]  # a LIDAR task has the speed
    # speed, lidar, two actions, the privileged fields; then the action
    width = 1 + 76 + 6 + sum(field.size for field in beside) + 3
    assert stored.algorithm_state["critic"]["ensemble.hidden.0.weight"].shape == (2, width, 16)
    assert stored.acting_weights()["actor.hidden.0.weight"].shape == (16, 83 + 64)  # and the encoder's
    assert stored.counters["updates"] > 0

    played = start("--play", "--checkpoint", str(checkpoint))
    assert played["config"]["env_config"]["task"]["privileged"] is None
    runner(played).run({"train": False, "play": True, "checkpoint": str(checkpoint)})
    (results,) = tmp_path.glob("runs/*/play/*/results.json")
    assert np.isfinite([episode["return"] for episode in json.loads(results.read_text())["episodes"]]).all()

    # It goes on with critics that see what it sees, which begin anew; no update is due before the end.
    words = ["checkpoint_mode=weights", SYMMETRIC, *TINY, "train.params.config.env_steps_before_training=120"]
    goes_on = start(f"checkpoint={checkpoint}", *words, "experiment=goes_on")
    runner(goes_on).run({"train": True, "play": False, "checkpoint": str(checkpoint)})
    (refined,) = (load_checkpoint(path) for path in tmp_path.glob("runs/goes_on_*/nn/last.pth"))
    assert refined.algorithm_state["critic"]["ensemble.hidden.0.weight"].shape != (2, width, 16)
    weights = refined.acting_weights()
    assert all((weights[key] == array).all() for key, array in stored.acting_weights().items())


def test_ppo_does_not_see_them(start: Start) -> None:
    from algos.faces.task_env import observation_spec
    from tasks.remote.learner.vecenv import make_vecenv

    params = start("task=TM20Lidar", "train=TM20LidarPPO", "task.game=sim", "task.track=short")
    env_config = {key: value for key, value in params["config"]["env_config"].items() if key != "policy"}
    env_config["task"] = {**env_config["task"], "privileged": True}
    for observation in ("flat", "dict"):
        with closing(make_vecenv("TM20Lidar", 1, **{**env_config, "observation": observation})) as vec_env:
            info = vec_env.get_env_info()
            assert observation_spec(info).names == ("speed", "lidar", "action_0", "action_1")
            space = info["observation_space"]
            if observation == "flat":
                assert space.shape == (83,)
            else:
                assert set(space) == set(observation_spec(info).names)


def saved(path: Path, params: dict[str, Any]) -> Path:
    config = params["config"]
    return save_checkpoint(
        path,
        Checkpoint(
            params["algo"]["name"], config["env_name"], config_to_dict(config["run"]), {}, {}, {"num_updates": 0}
        ),
    )


def test_a_resumed_training_keeps_the_privileged_fields(
    start: Start, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = saved(tmp_path / "runs" / "run" / "nn" / "last.pth", start(*LIDAR, ASYMMETRIC))
    assert start(f"checkpoint={path}")["config"]["env_config"]["task"]["privileged"]
    line = refused(capsys, f"checkpoint={path}", "task.privileged=false")
    assert "task.privileged=false would change what the critics see" in line
    line = refused(capsys, f"checkpoint={path}", SYMMETRIC)
    assert "would change the shape of the critics" in line
    assert start(f"checkpoint={path}", "task.privileged=null")["config"]["env_config"]["task"]["privileged"]


def test_a_replay_without_them_is_not_for_critics_that_see_more(
    start: Start, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = saved(tmp_path / "runs" / "run" / "nn" / "last.pth", start(*LIDAR, SYMMETRIC))
    words = [f"checkpoint={path}", "checkpoint_mode=replay"]
    assert start(*words)["config"]["env_config"]["task"]["privileged"] is None
    line = refused(capsys, *words, ASYMMETRIC)
    assert line.endswith(f"the replay of {path} has none: set it to false")


def test_they_are_refused_where_nothing_could_use_them(start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, "task=TM20Lidar", "train=TM20LidarPPO", "task.privileged=true")
    assert "task.privileged=true does nothing with train.kind=ppo" in line
    assert "task.privileged" in refused(capsys, "--drive", "task=TM20Lidar", "task.privileged=true")


def test_a_task_of_ones_own_is_told_to_mark_its_fields(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(registry, "_TASKS", dict(registry._TASKS))
    example = Path(__file__).resolve().parents[1] / "docs" / "examples" / "own_interface.py"
    (tmp_path / "my_drone.py").write_text(example.read_text(encoding="utf-8"), encoding="utf-8")
    line = refused(capsys, "plugins=[my_drone.py]", "task=Drone", "train=TM20LidarSAC")
    assert "set it to false, or mark fields of the observation of Drone as privileged" in line


def test_a_policy_goes_on_with_critics_that_see_what_it_sees(
    start: Start, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = saved(tmp_path / "runs" / "run" / "nn" / "last.pth", start(*LIDAR, ASYMMETRIC))
    words = [f"checkpoint={path}", SYMMETRIC]
    goes_on = start(*words, "checkpoint_mode=weights")
    assert not goes_on["config"]["env_config"]["task"]["privileged"]
    path = saved(tmp_path / "runs" / "other" / "nn" / "last.pth", goes_on)
    words = [f"checkpoint={path}", ASYMMETRIC]
    assert start(*words, "checkpoint_mode=weights")["config"]["env_config"]["task"]["privileged"]
    assert "asymmetric_critic does nothing with --play" in refused(capsys, "--play", *words)


def test_a_checkpoint_older_than_the_keys_has_neither() -> None:
    old: dict[str, Any] = {"task": {"name": "TM20Lidar"}, "train": {"params": {"network": {"encoder": "mlp"}}}}
    network = {"encoder": "mlp", "asymmetric_critic": False}
    same = {"task": {"name": "TM20Lidar", "privileged": False}, "train": {"params": {"network": network}}}
    refuse_shape_changes(old, same, "a.pth", mode="resume")
    other = {**same, "train": {"params": {"network": network | {"asymmetric_critic": True}}}}
    with pytest.raises(ValueError, match=r"asymmetric_critic=true would change the shape of the critics"):
        refuse_shape_changes(old, other, "a.pth", mode="resume")
    refuse_shape_changes(old, other, "a.pth", mode=None)


def test_the_policy_of_a_worker_is_the_same_with_and_without_them() -> None:
    from algos.config.algorithms import TRAIN_SCHEMAS
    from algos.config.train_schema import OffPolicyTrainConfig

    specs = [registry.observation_spec("TM20Full", registry.default_config("TM20Full"))]
    specs.append(ObservationSpec((*specs[0].fields, *PRIVILEGED_FIELDS[3:])))
    train = TRAIN_SCHEMAS["sac"]()
    assert isinstance(train, OffPolicyTrainConfig)
    one, other = (worker_policy(train, spec, "cpu") for spec in specs)
    assert one == other
