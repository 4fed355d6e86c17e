"""What follows another game or another training file that is typed beside a checkpoint."""

from __future__ import annotations

from typing import Any

import pytest

from algos.run.stored_config import merge_stored

STORED = {"task": {"game": "sim", "clock": "virtual", "track": "medium"}, "seed": 1}


def merged(stored: dict[str, Any], *words: str) -> dict[str, Any]:
    task = {"game": "auto", "clock": "auto", "track": "medium", "live": {"port": 9000}}
    for word in words:
        key, _, value = word.removeprefix("task.").partition("=")
        task[key] = value
    return merge_stored(stored, {"task": task, "seed": 0}, words)["task"]


@pytest.mark.parametrize("game", ["live", "auto", "sim"])
def test_another_game_brings_its_own_clock(game: str) -> None:
    task = merged(STORED, f"task.game={game}")
    assert (task["game"], task["clock"], task["track"]) == (game, "auto", "medium")


def test_a_typed_clock_is_used() -> None:
    assert merged(STORED, "task.game=sim", "task.clock=wall")["clock"] == "wall"
    assert merged(STORED, "task.clock=wall", "task.game=sim")["clock"] == "wall"


def test_the_stored_clock_stays_with_the_stored_game() -> None:
    live = {"task": {"game": "live", "clock": "wall"}, "seed": 1}
    assert merged(STORED, "task.track=short")["clock"] == "virtual"
    assert merged(live, "task.track=short")["clock"] == "wall"
    assert merged(live, "task.game=sim")["clock"] == "auto"


def test_the_listening_address_comes_from_the_command_and_the_number_of_workers_from_the_run() -> None:
    stored = {**STORED, "num_workers": 0, "remote": {"listen": "0.0.0.0:5", "insecure": True}, "launcher": "ray"}
    stored |= {"ray": {"address": "auto"}, "worker": {"envs_per_worker": 4}}
    composed = {"task": {"game": "auto", "clock": "auto"}, "seed": 0, "num_workers": 1, "launcher": "local"}
    composed |= {"remote": {"listen": None, "insecure": False}, "ray": {"address": "local"}}
    composed |= {"worker": {"envs_per_worker": 1}}
    config = merge_stored(stored, composed, [])
    for key in ("remote", "launcher", "ray", "worker"):
        assert config[key] == composed[key]
    assert config["num_workers"] == 0


@pytest.mark.parametrize(
    ("words", "steps"),
    [
        ([], 300_000),
        (["train=TM20LidarSAC"], "auto"),
        (["train=TM20LidarSAC", "max_env_steps=7"], 7),
        (["train=TM20LidarDAgger"], 300_000),
    ],
)
def test_another_training_file_brings_its_own_number_of_steps(words: list[str], steps: int | str) -> None:
    stored = {**STORED, "max_env_steps": 300_000, "choices": {"train": "TM20LidarDAgger"}, "train": {"kind": "dagger"}}
    composed = {"task": {}, "max_env_steps": 7 if "max_env_steps=7" in words else "auto", "train": {"kind": "sac"}}
    config = merge_stored(stored, {**composed, "choices": {"train": "TM20LidarSAC"}}, words)
    assert config["max_env_steps"] == steps


def test_a_typed_check_is_that_of_the_learner_too() -> None:
    def both(config: dict[str, Any]) -> list[bool]:
        return [config["debug"]["check_samples"], config["train"]["params"]["config"]["debug"]["check_samples"]]

    def plain(checks: bool) -> dict[str, Any]:
        debug = {"check_samples": checks}
        return {"task": {}, "debug": debug, "train": {"params": {"config": {"debug": dict(debug)}}}}

    assert both(merge_stored(plain(False), plain(True), ["debug.check_samples=true"])) == [True, True]
    assert both(merge_stored(plain(False), plain(False), [])) == [False, False]
    assert merge_stored({**plain(False), "train": {}}, plain(True), ["debug.check_samples=true"])["train"] == {}
