"""Keys that need a value of another key: typed without it they are refused, and the message names that key."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any, get_type_hints

import pytest

import train
from algos.config.algorithms import TRAIN_SCHEMAS
from algos.config.role_keys import check_needs
from algos.config.schema import TASK_SCHEMAS, RunConfig
from tasks.config import TaskConfig
from tasks.words.command_line import Role
from tasks.words.keys import Need

NEEDS: dict[str, tuple[str, object, object]] = {
    "task.rtgym.benchmark_polyak": ("task.rtgym.benchmark", False, True),
    "task.reward.min_speed": ("task.reward.compat", "tmrl", "ours"),
    "task.reward.wall_penalty": ("task.game", "live", "sim"),
    "task.track_width_m": ("task.track", "short_mirrored", "mine.csv"),
    "task.img_width": ("task.name", "TM20Lidar", "TM20Full"),
    "task.img_height": ("task.name", "TM20LidarProgress", "TM20Full"),
    "task.img_grayscale": ("task.name", "TM20Lidar", "Mine"),
    "task.img_hist_len": ("task.name", "TM20Track", "TM20Lidar"),
    "task.sleep_time_at_reset": ("task.game", "sim", "live"),
    "task.save_replays": ("task.game", "sim", "auto"),
    "task.randomization.frame_phase": ("task.game", "live", "auto"),
    "task.randomization.capture_jitter_s": ("task.clock", "wall", "auto"),
    "task.live.port": ("task.game", "sim", "live"),
    "task.live.ghost_port": ("task.save_replays", False, True),
    "num_workers": ("synchronous", True, False),
    "link.segment_rows": ("synchronous", True, False),
    "link.window": ("task.game", "live", "sim"),
    "wandb.project": ("wandb.enabled", False, True),
    "wandb.entity": ("wandb.enabled", False, True),
    "wandb.run_name": ("wandb.enabled", False, True),
    "trackio.project": ("trackio.enabled", False, True),
    "trackio.run_name": ("trackio.enabled", False, True),
    "ray.address": ("launcher", "local", "ray"),
    "record.name": ("drive.record", False, True),
    "drive.width": ("record.driver", "scripted", "human"),
    "drive.height": ("record.driver", "scripted", "human"),
    "check.seconds": ("headless", False, True),
    "task.rtgym.last_act_on_reset": ("task.rtgym.reset_act_buf", True, False),
    "task.look_ahead_exponent": ("train.params.config.teacher", "zoo:TM20Track", None),
    "task.privileged": ("task.name", "TM20Track", "TM20Full"),
    "train.params.config.alpha_min": ("train.params.config.learn_entropy_coef", False, True),
    "train.params.config.alpha_max": ("train.params.config.learn_entropy_coef", False, True),
    "train.params.config.target_entropy": ("train.params.config.learn_entropy_coef", False, True),
    "train.params.config.lr_entropy": ("train.params.config.learn_entropy_coef", False, True),
    "train.params.config.betas_entropy": ("train.params.config.learn_entropy_coef", False, True),
    "train.params.config.evaluation_episodes": ("train.params.config.evaluation_interval", 0, 2000),
    "train.params.config.min_updates_per_env_step": ("task.game", "live", "auto"),
    "train.params.config.kl_threshold": ("train.params.config.lr_schedule", "linear", "adaptive"),
    "train.params.config.grad_norm": ("train.params.config.truncate_grads", False, True),
    "train.params.network.batch_renorm_warm_up": ("train.params.network.batch_renorm", False, True),
    "train.params.network.random_shift": ("train.params.network.encoder", "mlp", "compact_cnn"),
    "train.params.network.feature_size": ("train.params.network.encoder", "mlp", "compact_cnn"),
}
"""For each key or group: the other key, a value without effect, and one with an effect."""

KINDS = {"kl_threshold": "ppo", "grad_norm": "ppo", "look_ahead_exponent": "dagger"}
"""By the last part of a key: the algorithm that has its other key."""
ROLES = {"record": Role.drive, "drive": Role.record, "check": Role.check}
"""Roles in which the keys of a group are typed; all others in training."""
OTHERS = {"link": [("train.kind", "ppo")], "task.reward.wall_penalty": [("task.reward.compat", "tmrl")]}
"""Other values that make a key have no effect."""


def with_needs(config_type: Any, prefix: str = "") -> Iterator[str]:
    """Full names of the fields with needs in their metadata."""
    hints = get_type_hints(config_type)
    for entry in fields(config_type):
        if entry.metadata.get(Need):
            yield prefix + entry.name
        if is_dataclass(hints[entry.name]):
            yield from with_needs(hints[entry.name], f"{prefix}{entry.name}.")


def holder(config: Any, key: str) -> tuple[Any, str]:
    """The dataclass of the last part of a full name, and that part."""
    *groups, name = key.split(".")
    for group in groups:
        config = getattr(config, group)
    return config, name


def config(key: str, **changes: object) -> RunConfig:
    """A configuration with the key and its other key's value."""
    kind = KINDS.get(key.rpartition(".")[2], "sac")
    run = RunConfig(task=TaskConfig(), train=TRAIN_SCHEMAS[kind](), experiment="run")
    for name, value in changes.items():
        setattr(*holder(run, name), value)
    return run


def refusal(key: str, changes: dict[str, object]) -> str:
    try:
        check_needs(config(key, **changes), ROLES.get(key.partition(".")[0], Role.train), [f"{key}=x"])
    except ValueError as error:
        return str(error)
    return ""


def test_every_key_that_needs_another_is_in_the_table() -> None:
    found = set(with_needs(RunConfig))
    for group, schemas in (("task", TASK_SCHEMAS), ("train", TRAIN_SCHEMAS)):
        for schema in schemas.values():
            found |= set(with_needs(schema, f"{group}."))
    listed = {name for name in found for key in NEEDS if key == name or key.startswith(f"{name}.")}
    assert listed == found
    assert {key for key in NEEDS if not any(key == name or key.startswith(f"{name}.") for name in found)} == set()


@pytest.mark.parametrize("key", NEEDS)
def test_a_typed_key_without_effect_is_refused_with_the_key_that_it_needs(key: str) -> None:
    other, idle, acting = NEEDS[key]
    text = str(idle).lower() if isinstance(idle, bool) else idle
    made = {"task.save_replays": True} if key == "task.live.port" else {}
    said = refusal(key, {**made, key: "9", other: idle})
    assert said.startswith(f"{key}=9 does nothing with {other}={text}: ")
    assert said.endswith("leave it out")
    before = {"task.game": "live"} if key == "task.live.ghost_port" else {}
    assert refusal(key, {**before, key: "9", other: acting}) == ""


@pytest.mark.parametrize("key", NEEDS)
def test_a_key_without_effect_may_be_typed_with_its_default(key: str) -> None:
    other, idle, _ = NEEDS[key]
    assert refusal(key, {other: idle}) == ""


def test_every_condition_applies_and_that_of_a_group_to_its_keys() -> None:
    assert "task.reward.compat=tmrl: give task.reward.compat=ours" in refusal(
        "task.reward.wall_penalty", {"task.reward.wall_penalty": 1.0, "task.reward.compat": "tmrl"}
    )
    assert "task.game=sim: give task.game=live" in refusal(
        "task.live.ghost_port", {"task.live.ghost_port": 1, "task.game": "sim", "task.save_replays": True}
    )


def test_a_key_from_a_file_is_not_refused() -> None:
    run = config("wandb.project", **{"wandb.project": "mine"})
    check_needs(run, Role.train, ["seed=3"])


def test_a_task_without_the_other_key_is_not_refused() -> None:
    run = RunConfig(task=TASK_SCHEMAS["gym"](), train=TRAIN_SCHEMAS["sac"](), experiment="run")
    run.train.params.config.min_updates_per_env_step = 2.0
    check_needs(run, Role.train, ["train.params.config.min_updates_per_env_step=2"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["task.game=sim", "task.live.port=9100"],
            "task.live.port=9100 does nothing with task.game=sim: give ",
        ),
        (
            ["task.game=sim", "wandb.project=mine"],
            "wandb.project=mine does nothing with wandb.enabled=false: give ",
        ),
        (
            ["--check", "task.game=sim", "check.pictures=2"],
            "check.pictures=2 does nothing with headless=false: give ",
        ),
        (
            ["--drive", "task.game=sim", "record.name=a"],
            "record.name=a does nothing with drive.record=false: give ",
        ),
    ],
)
def test_the_command_refuses_a_key_without_effect(
    words: list[str], message: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert train.main(words) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
