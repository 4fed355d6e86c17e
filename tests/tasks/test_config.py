"""Strict loading of configurations from plain data."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import pytest

from tasks.config import (
    GameKind,
    RewardCompat,
    RtgymConfig,
    TaskConfig,
    config_from_dict,
    config_to_dict,
)


@dataclass
class _Example:
    size: tuple[int, ...] = (1, 2)
    ratio: float | None = None
    count: int = 1
    names: dict[str, float] = field(default_factory=dict)
    flag: bool = False


def test_a_task_survives_json() -> None:
    config = TaskConfig(name="TM20Lidar", game=GameKind.sim, rtgym=RtgymConfig(act_buf_len=4, ep_max_length=77))
    config.reward.compat = RewardCompat.tmrl
    assert config_from_dict(TaskConfig, json.loads(json.dumps(config_to_dict(config))), "task") == config


def test_enums_are_written_by_member_name() -> None:
    assert config_to_dict(TaskConfig())["game"] == "auto"


def test_absent_keys_keep_their_defaults() -> None:
    config = config_from_dict(TaskConfig, {"rtgym": {"act_buf_len": 3}}, "task")
    assert (config.rtgym.act_buf_len, config.rtgym.time_step_duration, config.track) == (3, 0.05, "medium")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"trak": "short"}, r"unknown key task\.trak \(did you mean task\.track\?\)"),
        ({"rtgym": {"time_stp": 0.05}}, r"unknown key task\.rtgym\.time_stp"),
        ({"rtgym": {"act_buf_len": "2"}}, r"task\.rtgym\.act_buf_len must be an integer, got '2'"),
        ({"rtgym": {"act_buf_len": True}}, r"task\.rtgym\.act_buf_len must be an integer, got True"),
        ({"rtgym": 3}, r"task\.rtgym must be a mapping"),
        ({"game": "simulator"}, r"task\.game must be one of auto, sim, live, got 'simulator'"),
        ({"img_grayscale": 1}, r"task\.img_grayscale must be true or false, got 1"),
        (
            {"rtgym": {"ep_max_length": 1.5}},
            r"task\.rtgym\.ep_max_length must be 'auto', inf or an integer >= 1, got 1\.5",
        ),
        (
            {"randomization": {"input_delay_ticks": [0, 0.5]}},
            r"task\.randomization\.input_delay_ticks\[1\] must be an integer",
        ),
        ({"rtgym": {"time_step_duration": -1}}, r"task\.rtgym\.time_step_duration must be > 0, got -1\.0"),
    ],
)
def test_a_wrong_entry_is_named_in_full(data: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config_from_dict(TaskConfig, data, "task")


def test_integers_become_floats_only_where_a_float_is_expected() -> None:
    loaded = config_from_dict(_Example, {"ratio": 2, "names": {"a": 1}, "size": [3, 4, 5]}, "x")
    assert loaded == _Example(size=(3, 4, 5), ratio=2.0, names={"a": 1.0})
    assert isinstance(loaded.ratio, float)
    assert isinstance(loaded.names["a"], float)
