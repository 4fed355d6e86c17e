"""The YAML files of cfg: every combination composes into its dataclasses, and every option can be seen."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from algos.config import EncoderKind, SACConfig, WarmUp
from algos.ppo_config import PPOConfig
from algos.schema import PPOTrainConfig, RunConfig, SACTrainConfig, register_schemas, typed
from tasks import registry
from tasks.config import TaskConfig

CFG = Path(__file__).resolve().parents[1] / "cfg"
TASKS = sorted(file.stem for file in (CFG / "task").glob("*.yaml"))
TRAINS = sorted(file.stem for file in (CFG / "train").glob("*.yaml"))


def composed(*words: str) -> dict[str, Any]:
    register_schemas()
    with initialize_config_dir(str(CFG), version_base="1.3"):
        config = compose("config", overrides=list(words), return_hydra_config=True)
    HydraConfig.instance().set_config(config)
    whole = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    plain: Any = OmegaConf.to_container(whole, resolve=True, enum_to_str=True)
    return plain


def run_config(*words: str) -> RunConfig:
    return typed(composed(*words))


def leaves(cls: type, prefix: str) -> Iterator[str]:
    for field in dataclasses.fields(cls):
        key = f"{prefix}{field.name}"
        nested = field.default_factory if isinstance(field.default_factory, type) else None
        if nested is not None and dataclasses.is_dataclass(nested):
            yield from leaves(nested, f"{key}.")
        else:
            yield key


def test_the_tasks_and_trainings_of_the_first_release_are_there() -> None:
    assert TASKS == ["TM20Full", "TM20Lidar", "TM20LidarProgress"]
    assert sorted(f"{task}{algorithm}" for task in TASKS for algorithm in ("SAC", "PPO")) == TRAINS


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("train", TRAINS)
def test_every_task_composes_with_every_training(task: str, train: str) -> None:
    config = run_config(f"task={task}", f"train={train}")
    assert config.task.name == task
    assert isinstance(config.task, TaskConfig)
    assert isinstance(config.train, SACTrainConfig if train.endswith("SAC") else PPOTrainConfig)
    assert config.experiment == train


@pytest.mark.parametrize("task", TASKS)
def test_a_task_chooses_its_own_sac_by_default(task: str) -> None:
    assert run_config(f"task={task}").choices.train == f"{task}SAC"


@pytest.mark.parametrize(
    ("train", "prefix", "cls"),
    [
        ("TM20FullSAC", "train.params.config.", SACConfig),
        ("TM20FullPPO", "train.params.config.", PPOConfig),
        ("TM20FullSAC", "task.", TaskConfig),
    ],
)
def test_every_option_of_a_dataclass_is_a_key(train: str, prefix: str, cls: type) -> None:
    config = OmegaConf.create(composed(f"train={train}"))
    missing = [key for key in leaves(cls, prefix) if OmegaConf.select(config, key, default="absent") == "absent"]
    assert not missing


def test_the_lidar_task_has_the_window_its_beams_are_measured_in() -> None:
    for task in ("TM20Lidar", "TM20LidarProgress"):
        config = run_config(f"task={task}").task
        assert (config.window_width, config.window_height) == (958, 488)


@pytest.mark.parametrize("task", TASKS)
def test_the_command_line_and_python_drive_the_same_task(task: str) -> None:
    assert run_config(f"task={task}").task == registry.default_config(task)


def test_the_pixel_training_differs_from_the_lidar_training_where_it_must() -> None:
    full, lidar = run_config("task=TM20Full").train.params, run_config("task=TM20Lidar").train.params
    assert (full.network.encoder, lidar.network.encoder) == (EncoderKind.compact_cnn, EncoderKind.mlp)
    assert (full.config.batch_size, lidar.config.batch_size) == (64, 256)
    assert lidar.config.warm_up is WarmUp.driving


def test_one_switch_checks_samples_everywhere() -> None:
    config = run_config("debug.check_samples=true")
    assert config.train.params.config.debug.check_samples is True


def test_the_default_track_is_medium() -> None:
    assert run_config().task.track == "medium"
