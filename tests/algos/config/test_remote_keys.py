"""Keys of remote training: which keys a role accepts, and which are refused instead of ignored."""

from __future__ import annotations

from typing import Any

import pytest

from algos.config.algorithms import TRAIN_SCHEMAS
from algos.config.remote_keys import check_remote
from algos.config.schema import ChoicesConfig, RunConfig
from algos.config.train_schema import PPOTrainConfig
from tasks.config import ClockKind, GameKind, TaskConfig
from tasks.remote.config import Launcher, RayConfig, RemoteConfig, RemoteWorkerConfig

LISTEN = {"listen": "0.0.0.0:55555", "credentials": "credentials/learner"}


def config(
    remote: dict[str, Any] | None = None,
    worker: dict[str, Any] | None = None,
    ray: dict[str, Any] | None = None,
    game: GameKind = GameKind.sim,
    clock: ClockKind = ClockKind.auto,
    **run: Any,
) -> RunConfig:
    values: dict[str, Any] = {
        "train": TRAIN_SCHEMAS["sac"](),
        "experiment": "run",
        "choices": ChoicesConfig("TM20Lidar", "TM20LidarX"),
    }
    return RunConfig(
        **(values | run),
        task=TaskConfig(name="TM20Lidar", game=game, clock=clock),
        remote=RemoteConfig(**(remote or {})),
        worker=RemoteWorkerConfig(**(worker or {})),
        ray=RayConfig(**(ray or {})),
    )


@pytest.mark.parametrize(
    ("role", "groups"),
    [
        ("train", {}),
        ("train", {"remote": LISTEN | {"insecure": True, "max_workers": 3, "max_message_mb": 9}}),
        ("train", {"remote": LISTEN, "num_workers": 0}),
        ("train", {"remote": LISTEN, "num_workers": 0, "game": GameKind.live}),
        ("train", {"remote": {"relay": "relay:1", "credentials": "learner"}, "num_workers": 0}),
        ("train", {"remote": LISTEN | {"relay": "relay:1"}}),
        ("train", {"worker": {"envs_per_worker": 4}, "num_workers": 2}),
        ("train", {"launcher": Launcher.ray, "ray": {"address": "auto", "resources": {"trackmania": 1}}}),
        ("train", {"train": PPOTrainConfig(), "num_workers": 2}),
        ("worker", {"remote": {"address": "learner:1", "credentials": "pc", "insecure": True, "max_message_mb": 9}}),
        ("worker", {"remote": {"address": "learner:1"}, "worker": {"expert": True, "outbox_mb": 7, "name": "pc"}}),
        ("worker", {"remote": {"address": "learner:1"}, "game": GameKind.auto, "num_workers": 0}),
        ("server", {"remote": LISTEN | {"max_workers": 3, "insecure": True}}),
        ("play", {"num_workers": 0}),
    ],
)
def test_keys_that_fit_are_accepted(role: str, groups: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())  # Ray is an extra
    check_remote(config(**groups), role)


@pytest.mark.parametrize(
    ("role", "groups", "message"),
    [
        ("worker", {}, r"--worker needs remote\.address"),
        ("server", {}, r"--server needs remote\.listen"),
        ("train", {"remote": {"credentials": "c"}}, r"remote\.credentials=c does nothing without remote\.listen or"),
        ("train", {"remote": {"insecure": True}}, r"remote\.insecure=true does nothing without remote\.listen or"),
        (
            "train",
            {"remote": {"relay": "r:1", "max_workers": 3}},
            r"remote\.max_workers=3 does nothing without remote\.listen",
        ),
        ("train", {"num_workers": 0}, r"num_workers must be >= 1 without remote\.listen and remote\.relay.* got 0"),
        ("train", {"remote": LISTEN, "synchronous": True}, r"synchronous must be false with remote\.listen, got true"),
        (
            "train",
            {"remote": {"relay": "r:1"}, "train": PPOTrainConfig()},
            r"remote\.relay does not fit train=TM20LidarX: PPO .*lock step",
        ),
        (
            "train",
            {"remote": LISTEN, "num_workers": 0, "game": GameKind.auto},
            r"task\.game must be sim or live with num_workers=0, got auto",
        ),
        ("train", {"launcher": Launcher.ray, "synchronous": True}, r"synchronous must be false with launcher=ray"),
        (
            "train",
            {"launcher": Launcher.ray, "remote": LISTEN, "num_workers": 0},
            r"num_workers must be >= 1 with launcher=ray",
        ),
        (
            "train",
            {"worker": {"envs_per_worker": 2}, "train": PPOTrainConfig()},
            r"worker\.envs_per_worker must be 1 here, got 2: PPO spreads",
        ),
        ("train", {"worker": {"envs_per_worker": 2}, "synchronous": True}, r"must be 1 here, got 2: a synchronous run"),
        (
            "train",
            {"worker": {"envs_per_worker": 2}, "remote": LISTEN, "num_workers": 0},
            r"must be 1 here, got 2: num_workers is 0",
        ),
        ("train", {"worker": {"envs_per_worker": 2}, "game": GameKind.live}, r"must be 1 here, got 2: .*one live game"),
        (
            "train",
            {"worker": {"envs_per_worker": 2}, "clock": ClockKind.wall},
            r"must be 1 here, got 2: .*in real time",
        ),
    ],
)
def test_keys_without_effect_or_that_cannot_work_are_refused_by_name(
    role: str, groups: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        check_remote(config(**groups), role)
