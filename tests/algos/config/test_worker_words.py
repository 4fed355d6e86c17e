"""The arguments that give a remote worker its learner's configuration: hydra composes the same from them."""

from __future__ import annotations

import copy
import shlex
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from algos.config.hydra_entry import as_in_the_files, compose_and_call
from algos.config.schema import RunConfig
from algos.config.worker_words import worker_words, written
from algos.run.checkpoint import load_checkpoint, save_checkpoint
from algos.run.checkpoint_words import named_file
from tasks import registry
from tasks.config import config_to_dict
from tasks.words.command_line import Role
from train import configured, register_options

CONFIG_DIR = Path(__file__).parents[3] / "cfg"


def composed(*words: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The configuration from these arguments, and the one from the files alone."""
    got: list[dict[str, Any]] = []

    def job(config: Any, _: list[str]) -> None:
        got.append(OmegaConf.to_container(config, resolve=True, enum_to_str=True))  # type: ignore[arg-type]
        choices = got[0]["choices"]
        got.append(as_in_the_files(choices["task"], choices["train"]))

    register_options([CONFIG_DIR])
    compose_and_call(list(words), CONFIG_DIR, job)
    return got[0], got[1]


def words_of(*words: str, **changes: Any) -> list[str]:
    config, files = composed(*words)
    config = copy.deepcopy(config)
    for key, value in changes.items():
        config["task"][key] = value
    return worker_words(config, files)


def test_only_the_files_are_named_when_nothing_differs() -> None:
    assert words_of("task=TM20Lidar") == ["task=TM20Lidar", "train=TM20LidarSAC"]


def test_only_keys_that_the_worker_needs_are_named() -> None:
    words = words_of(
        "task=TM20Lidar",
        "task.track=short",
        "seed=3",
        "device=cpu",
        "max_env_steps=10",
        "task.live.port=9001",
        "num_workers=0",
        "train.params.config.gamma=0.9",
        "train.params.config.warm_up=uniform",
        "link.segment_rows=16",
        "link.window=9",
    )
    assert set(words[2:]) == {"task.track=short", "train.params.config.warm_up=uniform", "link.segment_rows=16"}


@pytest.mark.parametrize(
    ("game", "clock", "expected"),
    [
        ("sim", "virtual", ["task.game=sim"]),
        ("live", "wall", ["task.game=live"]),
        ("sim", "wall", ["task.game=sim", "task.clock=wall"]),
    ],
)
def test_the_chosen_game_is_named_and_its_default_clock_is_not(game: str, clock: str, expected: list[str]) -> None:
    assert sorted(words_of("task=TM20Lidar", game=game, clock=clock)[2:]) == sorted(expected)


def test_hydra_composes_the_same_configuration_from_the_arguments() -> None:
    typed = [
        "task=TM20Full",
        "task.track='/a folder/my track.json'",
        "task.reward.path=null",
        "task.img_hist_len=2",
        "task.rtgym.reset_act_buf=false",
        "train.params.network.hidden=[64,32]",
        "plugins=['it\\'s mine.py']",
    ]
    config, files = composed(*typed)
    words = worker_words(config, files)
    assert len(words) > 4
    again, _ = composed(*shlex.split(" ".join(words)))
    for key in ("task", "plugins"):
        assert again[key] == config[key]
    assert again["train"]["params"]["network"] == config["train"]["params"]["network"]


def test_a_key_and_a_choice_are_one_argument_of_a_shell() -> None:
    config = {
        "choices": {"task": "A; reboot", "train": "B | reboot"},
        "task": {"kwargs": {"a; reboot": 1}},
    }
    words = shlex.split(" ".join(worker_words(config, {})))
    assert words == ["task='A; reboot'", "train='B | reboot'", "task.kwargs.a; reboot=1"]


@pytest.mark.parametrize("value", ["zoo:TM20Track", "C:/lap.csv", "::1", "1:30", "true", "a b"])
def test_a_text_is_quoted_only_where_hydra_would_read_something_else(value: str) -> None:
    for nested in (value, [value, value], {"a": value}):
        (text,) = shlex.split(written(nested))
        assert OverridesParser.create().parse_override(f"key={text}").value() == nested
    assert ("'" in written(value)) == (value in ("1:30", "true", "a b"))


TEACHER = "train.params.config.teacher=zoo:TM20TrackMedium"


@pytest.mark.parametrize(
    ("task", "train_file", "more"),
    [
        ("TM20Lidar", "SAC", []),
        ("TM20LidarProgress", "CrossQ", []),
        ("TM20Full", "DAgger", [TEACHER]),
        ("TM20Track", "SAC", ["task.look_ahead_exponent=3"]),
    ],
)
def test_a_worker_takes_the_words_of_any_training(task: str, train_file: str, more: list[str]) -> None:
    """What a learner decides by itself, such as task.privileged, its worker decides alike."""
    typed = [f"task={task}", f"train={task}{train_file}", "task.game=sim", "task.track=short", *more]
    learner, words = configured_as(Role.train, *typed)

    worker, _ = configured_as(Role.worker, *shlex.split(" ".join(words)), "remote.address=localhost:1")
    assert registry.fingerprint(task, worker.task) == registry.fingerprint(task, learner.task)
    assert [word for word in words[2:] if "privileged" in word] == []


def test_a_worker_is_told_the_look_ahead_of_its_learners_teacher(tmp_path: Path) -> None:
    teacher = load_checkpoint(named_file("zoo:TM20TrackMedium"))
    teacher.config["task"]["look_ahead_exponent"] = 3.0
    save_checkpoint(tmp_path / "teacher.pth", teacher)
    file = f"train.params.config.teacher={tmp_path / 'teacher.pth'}"
    learner, words = configured_as(Role.train, "task=TM20Full", "train=TM20FullDAgger", "task.game=sim", file)
    assert "task.look_ahead_exponent=3.0" in words
    worker, _ = configured_as(Role.worker, *shlex.split(" ".join(words)), "remote.address=localhost:1")
    assert registry.fingerprint("TM20Full", worker.task) == registry.fingerprint("TM20Full", learner.task)


def configured_as(role: Role, *words: str) -> tuple[RunConfig, list[str]]:
    """The configuration of a process, and the words that give it to a worker."""
    found: list[tuple[RunConfig, list[str]]] = []

    def job(composed: Any, _: list[str]) -> None:
        config = configured(composed, role, words)
        files = as_in_the_files(config.choices.task, config.choices.train)
        found.append((config, worker_words(config_to_dict(config), files)))

    register_options([CONFIG_DIR])
    compose_and_call(list(words), CONFIG_DIR, job)
    return found[0]
