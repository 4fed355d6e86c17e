"""Every role and every key: a typed key has an effect, or is refused by name with advice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

import train
from algos.config.algorithms import TRAIN_SCHEMAS
from algos.config.role_keys import check_roles
from algos.config.schema import TASK_SCHEMAS, RunConfig, marked_keys, nearest
from tasks.config import config_to_dict
from tasks.words.command_line import Role
from tasks.words.keys import CONFIGURED, Workers

EVERYWHERE = "train play worker server record check benchmark drive export"
DRIVING = "train play worker record check benchmark drive export"
ROLES = {
    "task": DRIVING,
    "task.privileged": "train worker check benchmark",
    "task.randomization": "train play worker check benchmark",
    "task.randomization.rolling_starts": "train worker",
    "train": "train",
    "train.params.algo": "train play worker benchmark",
    "train.params.model": "train play",
    "train.params.network": "train play worker benchmark",
    "train.params.network.dropout": "train worker benchmark",
    "train.params.network.asymmetric_critic": "train worker benchmark",
    "train.params.network.batch_renorm_warm_up": "train worker benchmark",
    "train.params.network.random_shift": "train worker benchmark",
    "train.params.config.warm_up": "train worker",
    "train.params.config.held_pedals": "train worker",
    "seed": "train benchmark",
    "device": "train",
    "inference_device": "train play worker benchmark",
    "torch_threads": "train play",
    "experiment": "train",
    "checkpoint": DRIVING,
    "checkpoint_mode": "train",
    "max_env_steps": "train",
    "max_updates": "train",
    "num_workers": "train",
    "launcher": "train",
    "synchronous": "train",
    "headless": EVERYWHERE,
    "plugins": EVERYWHERE,
    "observers": "train",
    "wandb": "train",
    "trackio": "train",
    "play": "train play",
    "export": "export",
    "record": "record drive",
    "record.driver": "record",
    "record.from_file": "record",
    "drive": "drive",
    "drive.width": "drive record",
    "drive.height": "drive record",
    "check": "check",
    "benchmark": "benchmark",
    "link": "train",
    "link.segment_rows": "train worker",
    "remote": "train worker server",
    "remote.listen": "train server",
    "remote.address": "worker",
    "remote.relay": "train",
    "remote.max_workers": "train server",
    "worker": "worker",
    "worker.envs_per_worker": "train worker",
    "ray": "train",
    "profile": "train",
    "debug": "train",
    "choices": "",
}
"""Roles in which a key and all keys below it have an effect; the longest name counts."""
PPO_ROLES = {"train.params.algo": "train play", "train.params.network": "train play"}
"""Differences of PPO: its workers do not act alone, and --benchmark needs a checkpoint."""


def config(task: str = "trackmania", kind: str = "sac", **changes: Any) -> RunConfig:
    values: dict[str, Any] = {"task": TASK_SCHEMAS[task](), "train": TRAIN_SCHEMAS[kind](), "experiment": "run"}
    return RunConfig(**(values | changes))


def leaves(plain: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in plain.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def refusal(run: RunConfig, role: Role, *words: str) -> str:
    """The refusal of these arguments; empty when they are accepted."""
    try:
        check_roles(run, role, words)
    except ValueError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("role", CONFIGURED)
@pytest.mark.parametrize("kind", TRAIN_SCHEMAS)
def test_each_role_accepts_exactly_the_keys_that_have_an_effect_in_it(role: Role, kind: str) -> None:
    table = ROLES | (PPO_ROLES if kind == "ppo" else {})
    for task in TASK_SCHEMAS:
        run = config(task, kind)
        for key in leaves(config_to_dict(run)):
            above = [name for name in table if key == name or key.startswith(f"{name}.")]
            acts = table[max(above, key=len)].split()
            said = refusal(run, role, f"{key}=null")
            assert said.startswith(f"{key} does nothing ") != (role.value in acts), key
            assert bool(said) != (role.value in acts), key


@pytest.mark.parametrize("role", CONFIGURED)
def test_every_role_accepts_a_choice_of_files_and_a_removed_group(role: Role) -> None:
    check_roles(config(), role, ["task=TM20Lidar", "train=TM20LidarSAC", "~wandb"])


@pytest.mark.parametrize(
    ("role", "words", "message"),
    [
        (Role.play, ["seed=777"], "seed does nothing with --play: use play.seed"),
        (Role.play, ["device=cpu"], "device does nothing with --play: use inference_device"),
        (
            Role.play,
            ["max_env_steps=9", "play.seed=3", "seed=1"],
            "max_env_steps does nothing with --play: it belongs to training, leave it out; "
            "seed does nothing with --play: use play.seed",
        ),
        (Role.check, ["play.seed=3"], "play.seed does nothing with --check: it belongs to training and --play, leave"),
        (
            Role.check,
            ["play={seed:3}"],
            "play.seed does nothing with --check: it belongs to training and --play, leave",
        ),
        (
            Role.train,
            ["check.seconds=3"],
            "check.seconds does nothing in training: it belongs to --check, leave it out",
        ),
        (Role.train, ["remote.address=a:1"], "remote.address does nothing in training: it belongs to --worker"),
        (Role.train, ["worker.expert=true"], "worker.expert does nothing in training: it belongs to --worker"),
        (Role.worker, ["remote.listen=a:1"], "it belongs to training and --server, leave it out"),
        (Role.worker, ["num_workers=3"], "num_workers does nothing with --worker: use worker.envs_per_worker"),
        (Role.worker, ["+ray.resources.CPU=1"], "ray.resources.CPU does nothing with --worker: it belongs to training"),
        (Role.server, ["task.track=short"], "task.track does nothing with --server: it belongs to training and --play"),
        (Role.record, ["experiment=mine"], "experiment does nothing with --record: use record.name"),
        (Role.train, ["choices.task=a"], "choices.task does nothing in training: the program writes it, leave it out"),
    ],
)
def test_the_message_says_what_to_do(role: Role, words: list[str], message: str) -> None:
    assert message in refusal(config(), role, *words)


def test_a_worker_accepts_every_argument_that_its_learner_prints() -> None:
    run = config()
    marks = marked_keys(Workers)
    shown = [key for key in leaves(config_to_dict(run)) if nearest(marks, key) is Workers.same]
    assert "train.params.network.random_shift" in shown
    assert refusal(run, Role.worker, *(f"{key}=null" for key in shown)) == ""


def test_the_player_of_a_stock_algorithm_gets_every_key_of_the_training() -> None:
    run = config(train={"params": {"algo": {"name": "a2c_continuous"}, "config": {"player": {"games_num": 3}}}})
    check_roles(run, Role.play, ["train.params.config.player.games_num=3", "seed=3", "play.seed=3"])
    assert refusal(run, Role.check, "train.params.config.player.games_num=3")
    assert refusal(run, Role.play, "record.name=x")


@pytest.mark.parametrize(
    ("role", "word"),
    [("--check", "seed=3"), ("--server", "task.track=short"), ("--benchmark", "num_workers=2"), ("--play", "seed=777")],
)
def test_the_command_refuses_a_key_without_effect(
    role: str, word: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [role, word, "task.game=sim"] if role != "--server" else [role, word, "remote.listen=127.0.0.1:0"]
    if role == "--play":
        words.append("checkpoint=zoo:TM20Lidar")
    assert train.main(words) == 2
    assert f"train.py: {word.partition('=')[0]} does nothing with {role}" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
