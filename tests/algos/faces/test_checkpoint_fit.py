"""A checkpoint of the simulator's earlier car is accepted with a warning; keys of the task that changed are named."""

from __future__ import annotations

from typing import Any

import pytest

from algos.config.schema import RunConfig
from algos.faces.checkpoint_fit import changed_task_keys, require_fit
from algos.run.checkpoint import Checkpoint
from tasks.config import AnyTaskConfig, GymConfig, TaskConfig, config_from_dict, config_to_dict
from tasks.registry import observation_spec
from tasks.words.command_line import Role

TODAY = config_to_dict(TaskConfig()) | {"game": "sim"}
EARLIER = {key: value for key, value in TODAY.items() if key != "vehicle"}


@pytest.mark.parametrize(
    ("task", "is_warned"),
    [(EARLIER, True), (TODAY, False), (EARLIER | {"game": "live"}, False), ({"id": "Pendulum-v1"}, False)],
)
def test_resuming_or_playing_it_warns(task: dict[str, Any], is_warned: bool, caplog: pytest.LogCaptureFixture) -> None:
    spec = observation_spec("TM20Lidar")
    checkpoint = Checkpoint("remote_sac", "TM20Lidar", {"task": task}, spec.to_json(), {}, {})
    require_fit(checkpoint, "old.pth", spec, "remote_sac")
    assert ("old.pth was trained on the simulator's earlier car" in caplog.text) is is_warned


@pytest.mark.parametrize(
    ("stored", "now", "in_training", "in_play"),
    [
        ({}, {}, [], []),
        ({}, {"track": "long"}, ["task.track"], ["task.track"]),
        ({}, {"reward": {"END_OF_TRACK": 5.0}}, ["task.reward.END_OF_TRACK"], ["task.reward.END_OF_TRACK"]),
        ({}, {"randomization": {"rolling_starts": 0.5}}, ["task.randomization.rolling_starts"], []),
        ({}, {"privileged": True}, ["task.privileged"], []),
        ({}, {"clock": "wall", "live": {"port": 9001}, "rtgym": {"benchmark": True}}, [], []),
    ],
)
def test_a_changed_task_is_named_by_the_keys_that_act(
    stored: dict[str, Any], now: dict[str, Any], in_training: list[str], in_play: list[str]
) -> None:
    assert changes(TaskConfig, stored, now, Role.train) == in_training
    assert changes(TaskConfig, stored, now, Role.play) == in_play


@pytest.mark.parametrize(
    ("stored", "now", "expected"),
    [
        ({"g": 9.81}, {"g": 9.81}, []),
        ({}, {"g": 9.81}, ["task.kwargs", "task.kwargs.g"]),
        ({"g": 9.81}, {"g": 9.81, "render": 1}, ["task.kwargs.render"]),
        ({"g": 9.81}, {"g": 1.0}, ["task.kwargs.g"]),
    ],
)
def test_arguments_of_a_gymnasium_environment_are_compared(
    stored: dict[str, Any], now: dict[str, Any], expected: list[str]
) -> None:
    assert changes(GymConfig, {"kwargs": stored}, {"kwargs": now}, Role.play) == expected


def test_a_key_that_the_file_lacks_has_not_changed_while_it_has_its_default() -> None:
    checkpoint = Checkpoint("remote_sac", "TM20Lidar", {"task": EARLIER}, {}, {}, {})
    config = RunConfig(task=config_from_dict(TaskConfig, TODAY, "task"), train={}, experiment="any")
    assert changed_task_keys(checkpoint, config, Role.play) == []
    config.task.vehicle = "{yaw_lag_s: 0.2}"
    assert changed_task_keys(checkpoint, config, Role.play) == ["task.vehicle"]


def changes(kind: type[AnyTaskConfig], stored: dict[str, Any], now: dict[str, Any], role: Role) -> list[str]:
    """``changed_task_keys`` of a checkpoint of one task in a run of another one."""
    before, after = (config_from_dict(kind, task, "task") for task in (stored, now))
    checkpoint = Checkpoint("remote_sac", "Any", {"task": config_to_dict(before)}, {}, {}, {})
    return changed_task_keys(checkpoint, RunConfig(task=after, train={}, experiment="any"), role)
