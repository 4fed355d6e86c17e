"""The YAML files of cfg: every combination composes into its dataclasses, and every option can be seen."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.errors import MissingConfigException
from omegaconf import OmegaConf

from algos.config import EncoderKind, WarmUp
from algos.config.algorithms import TRAIN_SCHEMAS
from algos.config.hydra_entry import options
from algos.config.options import base_name, with_default_train
from algos.config.schema import RunConfig, register_schemas, typed
from algos.faces.runner_params import CARS_PER_WORKER, resolve
from tasks import registry
from tasks.config import GameKind, config_to_dict
from train import register_options

CFG = Path(__file__).resolve().parents[1] / "cfg"
TASKS = sorted(file.stem for file in (CFG / "task").glob("*.yaml"))
DRIVING = ["TM20Full", "TM20Lidar", "TM20LidarProgress", "TM20Track"]
ENTRIES = [task + base_name(kind) for task in TASKS for kind in TRAIN_SCHEMAS]


def composed(*words: str, folders: Sequence[Path] = ()) -> dict[str, Any]:
    words = (*words, *(f"hydra.searchpath=[file://{folder}]" for folder in folders))
    register_schemas()
    register_options([CFG, *folders])
    with initialize_config_dir(str(CFG), version_base="1.3"):
        config = compose("config", overrides=list(words), return_hydra_config=True)
    HydraConfig.instance().set_config(config)
    whole = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    plain: Any = OmegaConf.to_container(whole, resolve=True, enum_to_str=True)
    return plain


def run_config(*words: str) -> RunConfig:
    plain = composed(*words)
    return typed(plain, type(registry.default_config(plain["task"]["name"])))


def leaves(cls: type, prefix: str) -> Iterator[str]:
    for field in dataclasses.fields(cls):
        key = f"{prefix}{field.name}"
        nested = field.default_factory if isinstance(field.default_factory, type) else None
        if nested is not None and dataclasses.is_dataclass(nested):
            yield from leaves(nested, f"{key}.")
        else:
            yield key


def test_every_task_has_a_file() -> None:
    assert set(TASKS) == {*DRIVING, "RCDrone", "Gym"} == set(registry.names())


@pytest.mark.parametrize("train", ENTRIES)
def test_every_task_and_algorithm_compose_into_their_dataclasses(train: str) -> None:
    task = max((name for name in TASKS if train.startswith(name)), key=len)
    config = run_config(f"task={task}", f"train={train}")
    kind = config.train.kind
    assert train == task + base_name(kind)
    assert type(config.train) is TRAIN_SCHEMAS[kind]
    assert type(config.task) is type(registry.default_config(task))
    assert (config.task.name, config.experiment) == (task, train)


def test_the_files_are_what_hydra_lists() -> None:
    composed()
    assert sorted([*ENTRIES, *map(base_name, TRAIN_SCHEMAS)]) == sorted(file.stem for file in (CFG / "train").iterdir())
    with initialize_config_dir(str(CFG), version_base="1.3"):
        assert options("train") == sorted([*ENTRIES, *map(base_name, TRAIN_SCHEMAS)])
        assert options("task") == TASKS


@pytest.mark.parametrize("task", TASKS)
def test_a_task_chooses_its_own_sac_by_default(task: str) -> None:
    assert run_config(f"task={task}").choices.train == f"{task}SAC"


@pytest.mark.parametrize(
    ("words", "prefix", "cls"),
    [
        *([f"task={task}", "train.", TRAIN_SCHEMAS["sac"]] for task in ("TM20Full", "Gym")),
        *([f"train=TM20Lidar{base_name(kind)}", "train.", schema] for kind, schema in TRAIN_SCHEMAS.items()),
        *([f"task={task}", "task.", type(registry.default_config(task))] for task in TASKS),
    ],
)
def test_every_option_of_a_dataclass_is_a_key(words: str, prefix: str, cls: type) -> None:
    config = OmegaConf.create(composed(words))
    missing = [key for key in leaves(cls, prefix) if OmegaConf.select(config, key, default="absent") == "absent"]
    assert not missing


def said(file: Path) -> dict[str, Any]:
    """The keys that a file sets itself, with their values."""
    plain: Any = OmegaConf.to_container(OmegaConf.load(file))
    plain.pop("defaults", None)
    return dict(leaves_of(plain))


def leaves_of(section: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in section.items():
        if isinstance(value, dict):
            yield from leaves_of(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def value_of(plain: Any, key: str) -> Any:
    for name in key.split("."):
        plain = plain[name]
    return plain


@pytest.mark.parametrize("file", [file for file in sorted((CFG / "train").glob("*.yaml")) if said(file)], ids=str)
def test_a_file_of_train_says_only_what_differs_from_its_defaults(file: Path, tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    without = OmegaConf.masked_copy(OmegaConf.load(file), ["defaults"])  # type: ignore[arg-type]
    OmegaConf.save(without, tmp_path / "train" / "Without.yaml")
    task = max((name for name in TASKS if file.stem.startswith(name)), key=len, default="TM20Lidar")
    plain = composed(f"task={task}", "train=Without", folders=[tmp_path])["train"]
    assert [key for key, value in said(file).items() if value_of(plain, key) == value] == []


@pytest.mark.parametrize("file", sorted((CFG / "shared").glob("*.yaml")), ids=str)
def test_a_shared_file_says_only_what_differs_from_the_dataclass(file: Path) -> None:
    default = config_to_dict(TRAIN_SCHEMAS["sac"]())
    assert [key for key, value in said(file).items() if value_of(default, key) == value] == []


def test_values_of_a_file_override_those_of_its_defaults() -> None:
    def settings(train: str) -> Any:
        return run_config(f"task={train.removesuffix('SAC').removesuffix('CrossQ')}", f"train={train}").train

    assert settings("GymSAC").params.config.gamma == 0.99  # the dataclass
    assert settings("TM20LidarCrossQ").params.config.gamma == 0.98  # shared/driving
    assert settings("TM20LidarSAC").params.config.gamma == 0.99  # its own
    assert settings("TM20LidarSAC").params.config.polyak == 0.99  # shared/driving_targets
    assert settings("TM20FullSAC").params.config.batch_size == 64  # shared/images
    assert settings("TM20LidarSAC").params.config.env_steps_before_training == 2000  # shared/driving
    assert settings("TM20FullSAC").params.config.env_steps_before_training == 1500  # its own
    assert settings("TM20FullSAC").params.config.lr_decay_updates == "auto"  # TM20LidarSAC
    assert settings("TM20FullCrossQ").params.config.lr_decay_updates == 0


def test_files_of_a_user_are_found(tmp_path: Path) -> None:
    for file, text in {
        "task/Mine.yaml": "defaults: [TM20Lidar, _self_]\nname: TM20Lidar\ntrack: short\n",
        "train/MineREDQ.yaml": "defaults: [TM20LidarREDQ, _self_]\nparams: {config: {gamma: 0.9, redq_n: 5}}\n",
        "train/MineTQC.yaml": "defaults: [TQC, /shared/driving@_here_, _self_]\nmax_env_steps: 7\n",
    }.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(text)
    plain = composed("task=Mine", "train=MineREDQ", folders=[tmp_path])
    config = plain["train"]["params"]["config"]
    assert (config["gamma"], config["redq_n"], config["target_entropy"]) == (0.9, 5, -5.0)
    plain = composed("task=Mine", "train=MineTQC", folders=[tmp_path])
    assert (plain["train"]["max_env_steps"], plain["train"]["params"]["config"]["gamma"]) == (7, 0.98)
    with pytest.raises(MissingConfigException):
        composed("train=MineREDQ")  # of an earlier call


def test_a_registered_task_needs_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    lidar = registry._TASKS["TM20Lidar"]
    wide = dataclasses.replace(lidar, defaults={**lidar.defaults, "track": "short"})
    monkeypatch.setitem(registry._TASKS, "Wide", wide)
    config = run_config("task=Wide", "train=DroQ")
    assert (config.task.name, config.task.track, config.train.kind) == ("Wide", "short", "droq")
    assert config.train.params.config.gamma == 0.99  # the paper's


def test_a_task_without_a_file_of_its_own_learns_with_sac(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry._TASKS, "Wide", registry._TASKS["TM20Lidar"])
    register_options([CFG])
    assert with_default_train(["task=Wide"], [CFG]) == ["task=Wide", "train=SAC"]
    for words in (["task=Wide", "train=REDQ"], ["task=TM20Lidar"], []):
        assert with_default_train(words, [CFG]) == words


def test_the_lidar_task_has_the_window_its_beams_are_measured_in() -> None:
    for task in ("TM20Lidar", "TM20LidarProgress"):
        config = run_config(f"task={task}").task
        assert (config.window_width, config.window_height) == (958, 488)


@pytest.mark.parametrize("task", TASKS)
def test_the_command_line_and_python_drive_the_same_task(task: str) -> None:
    assert run_config(f"task={task}").task == registry.default_config(task)


def test_training_from_images_differs_from_lidar_in_the_expected_keys() -> None:
    full, lidar = run_config("task=TM20Full").train.params, run_config("task=TM20Lidar").train.params
    assert (full.network.encoder, lidar.network.encoder) == (EncoderKind.compact_cnn, EncoderKind.dense)
    assert (full.config.batch_size, lidar.config.batch_size) == (64, 256)
    assert lidar.config.warm_up is WarmUp.driving


def test_one_switch_checks_samples_everywhere() -> None:
    config = run_config("debug.check_samples=true")
    assert config.train.params.config.debug.check_samples is True


def test_the_default_track_is_medium() -> None:
    assert run_config().task.track == "medium"


@pytest.mark.parametrize(
    ("words", "num_envs"),
    [
        (["task=TM20Lidar"], CARS_PER_WORKER),
        (["task=TM20Full", "train=TM20FullRSAC"], CARS_PER_WORKER),
        (["task=TM20Lidar", "worker.envs_per_worker=3"], 3),
        (["task=TM20Lidar", "train=TM20LidarREDQ"], 1),  # twenty updates per step
        (["task=TM20Lidar", "train=TM20LidarPPO"], 1),  # it has num_actors
        (["task=TM20Lidar", "synchronous=true"], 1),
        (["task=TM20Lidar", "num_workers=0"], 1),
        (["task=TM20Lidar", "task.clock=wall"], 1),
        (["task=TM20Lidar", "task.game=live"], 1),
        (["task=Gym"], 1),
    ],
)
def test_workers_drive_many_cars_where_that_pays(words: list[str], num_envs: int) -> None:
    config = run_config(*words)
    if config.task.is_undecided:
        config.task.game = GameKind.sim
    assert config.worker.envs_per_worker == ("auto" if num_envs != 3 else 3)
    assert resolve(config).worker.num_envs == num_envs
