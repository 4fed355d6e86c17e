"""Checkpoints and configuration files from somebody else contain only values: no text in them runs as code."""

from __future__ import annotations

import copy
import importlib
import os
import shlex
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

import train
from algos.acting.policy import build_policy
from algos.config.errors import UsageError
from algos.config.schema import RunConfig, TrackioConfig, WandbConfig
from algos.config.typed_only import SECTIONS
from algos.faces.ppo import ppo_policy
from algos.run.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from algos.run.stored_config import with_stored_choices
from algos.run.zoo import entry_file
from tasks.config import config_to_dict
from tasks.registry import observation_spec
from tasks.words.command_line import Role
from tests.test_train_checkpoint import refused

pytestmark = pytest.mark.timeout(300)

CODE = "os:abort"
SHORT = ("task.max_episode_steps=2", "train.params.network.hidden=[4]")
QUIET = ("play.episodes=1", "play.video=false", "play.plot=false", "headless=true")
RUN = train.run
Place = tuple[str | int, ...]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Records whether ``os:abort`` was called, or looked up by its module's name."""
    found: list[str] = []
    import_module = importlib.import_module

    def watched(name: str, package: str | None = None) -> Any:
        if name == "os":
            found.append(name)
        return import_module(name, package)

    monkeypatch.setattr(os, "abort", lambda *_, **__: found.append(CODE))
    monkeypatch.setattr(importlib, "import_module", watched)
    return found


def within(monkeypatch: pytest.MonkeyPatch, argv: Sequence[str], body: Callable[[Any, list[str]], None]) -> None:
    """Calls ``body`` where the command would run, with the composed configuration and the words."""
    with monkeypatch.context() as patch:
        patch.setattr(train, "run", lambda composed, role, words: body(composed, words))
        assert train.main(argv) == 0


def untrained(monkeypatch: pytest.MonkeyPatch, path: Path, algorithm: str) -> Path:
    """The checkpoint of a run that has not learned yet."""

    def save(composed: Any, words: list[str]) -> None:
        params = train.prepare(composed, Role.train, words)
        config = params["config"]
        record = config["env_config"]["policy"] or ppo_policy(params, observation_spec("Gym"))
        policy = build_policy(record, 0)
        weights = policy._model.state_dict() if algorithm == "PPO" else policy.weights()
        stored = config_to_dict(config["run"])
        kept = {"config": stored, "observation_spec": record["kwargs"]["spec"], "algorithm_state": {"step": 0}}
        acts = {**record, "weights": weights, "version": 1}
        save_checkpoint(path, Checkpoint(algorithm=params["algo"]["name"], task="Gym", policy=acts, **kept))

    within(monkeypatch, ["task=Gym", f"train=Gym{algorithm}", *SHORT], save)
    return path


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return untrained(monkeypatch, tmp_path / "stranger.pth", "SAC")


def texts(value: Any, place: Place = ()) -> Iterator[Place]:
    """The places of all texts."""
    if isinstance(value, str):
        yield place
    elif isinstance(value, dict | list):
        for key, entry in value.items() if isinstance(value, dict) else enumerate(value):
            yield from texts(entry, (*place, key))


def with_text(content: dict[str, Any], place: Place, text: Any) -> dict[str, Any]:
    """A copy with another text at one place."""
    changed: Any = copy.deepcopy(content)
    inner = changed
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = text
    return changed


@pytest.mark.parametrize(("algorithm", "text"), [("SAC", CODE), ("SAC", "stranger"), ("PPO", CODE)])
def test_no_text_of_a_checkpoint_runs_code_when_it_is_played(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: list[str], algorithm: str, text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = untrained(monkeypatch, tmp_path / "stranger.pth", algorithm)
    content = torch.load(path, weights_only=True)
    content["config"] |= {"observers": ["LapFile"], "plugins": ["stranger.py"]}
    content["software"] = {"python": "3.11"}
    results: list[Any] = []
    monkeypatch.setattr("algos.faces.players.write_results", lambda file, result: results.append(result["episodes"]))

    def play(composed: Any, words: list[str], changed: dict[str, Any]) -> Any:
        torch.save(changed, path)
        try:
            with_stored_choices([f"checkpoint={path}"], lambda group, name: True)
            RUN(composed, Role.play, words)
        except (UsageError, ValueError):
            return "refused"
        return results.pop()

    def walk(composed: Any, words: list[str]) -> None:
        driven = play(composed, words, content)
        assert len(driven) == 1
        places = [place for place in texts(content) if "choices" not in place]  # these are looked at while composing
        assert len(places) > 40
        for place in places:
            assert play(composed, words, with_text(content, place, text)) in ("refused", driven), place
            assert calls == [], place

    within(monkeypatch, ["--play", "--checkpoint", str(path), *QUIET], walk)


@pytest.mark.parametrize("choice", [CODE, "stranger", "../train/GymPPO", "/etc/hostname", "GymSAC,GymPPO"])
def test_a_stored_choice_is_the_name_of_an_option_or_nothing(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, choice: str
) -> None:
    content = torch.load(checkpoint, weights_only=True)
    torch.save(with_text(content, ("config", "choices", "train"), choice), checkpoint)
    assert with_stored_choices([f"checkpoint={checkpoint}"], lambda group, name: name == "Gym" or name == choice) == [
        "task=Gym",
        "train=stranger" if choice == "stranger" else "train=SAC",
        f"checkpoint={checkpoint}",
    ]
    seen: list[dict[str, Any]] = []
    words = ["--play", "--checkpoint", str(checkpoint)]
    within(monkeypatch, words, lambda composed, words: seen.append(train.prepare(composed, Role.play, words)))
    assert seen[0]["config"]["run"].train.params.network.hidden == [4]


def test_no_text_of_a_configuration_file_names_code(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, calls: list[str]
) -> None:
    content = load_checkpoint(checkpoint).config
    content["observers"] = ["LapFile"]
    places = [place for place in texts(content) if place[0] not in SECTIONS]

    def walk(composed: Any, words: list[str]) -> None:
        for place in places:
            with pytest.raises(ValueError, match=rf"names code to run, '{CODE}', and comes from a file"):
                train.prepare(OmegaConf.create(with_text(content, place, CODE)), Role.train, words)

    within(monkeypatch, ["task=Gym", "train=GymSAC"], walk)
    assert len(places) > 20
    assert calls == []


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("train/Mine", "# @package _global_\nhydra: {callbacks: {x: {_target_: os.abort}}}", "hydra"),
        ("train/Mine", "# @package hydra.callbacks.x\n_target_: os.abort", "hydra.callbacks.x"),
        ("train/Mine", "# @package _global_\nhydra: {job: {env_set: {LD_PRELOAD: stranger.so}}}", "hydra"),
        ("train/Mine", "defaults: [/more/code@hydra.callbacks.x]", "/more/code@hydra.callbacks.x"),
        ("train/Mine", "# @package _global_\nplugins: [stranger.py]", "plugins"),
        ("train/Mine", "# @package _global_\nwandb: {enabled: true, entity: stranger}", "wandb"),
        ("hydra/callbacks/Mine", "x: {_target_: os.abort}", "hydra/callbacks/Mine"),
        ("Mine", "hydra: {searchpath: ['pkg://stranger']}", "hydra"),
        ("Mine", "wandb: {enabled: true}", "wandb"),
        ("Mine", "trackio: {enabled: true}", "trackio"),
    ],
)
def test_a_file_of_another_folder_may_not_set_keys_that_must_be_typed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    calls: list[str],
    name: str,
    text: str,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stranger.py").write_text("raise SystemExit('it ran')")
    for file, content in (("more/code", "_target_: os.abort"), (name, text)):
        (tmp_path / f"{file}.yaml").parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"{file}.yaml").write_text(content)
    group, _, option = name.rpartition("/")
    chosen = [f"--config-dir={tmp_path}", f"+{group}={option}" if group.startswith("hydra") else f"{group}={option}"]
    message = refused(capsys, *(chosen if group else [f"--config-path={tmp_path}", f"--config-name={option}"]))
    assert f"{tmp_path / name}.yaml sets {said}: " in message
    assert calls == []


def test_the_configuration_of_a_run_and_a_copy_of_ours_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    seen: list[Any] = []
    shutil.copytree(train.CONFIG_DIR, tmp_path / "cfg")
    within(monkeypatch, [f"--config-path={tmp_path / 'cfg'}", "seed=3"], lambda composed, words: seen.append(composed))
    run = tmp_path / "run"
    run.mkdir()
    OmegaConf.save(load_checkpoint(entry_file("TM20Lidar")).config, run / "config.yaml")
    within(monkeypatch, [f"--config-path={run}", "seed=4"], lambda composed, words: seen.append(composed))
    assert [composed["seed"] for composed in seen] == [3, 4]


def test_observers_of_a_checkpoint_are_used_when_resuming_and_only_by_name(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    content = torch.load(checkpoint, weights_only=True)
    content["config"]["observers"] = ["rl_games.common.algo_observer:DefaultAlgoObserver"]
    torch.save(content, checkpoint)
    message = refused(capsys, f"checkpoint={checkpoint}")
    word = message.rpartition("type ")[2]
    assert word == 'observers="[rl_games.common.algo_observer:DefaultAlgoObserver]"'
    seen: list[dict[str, Any]] = []
    (typed,) = shlex.split(word)
    for argv, role in ((["--play"], Role.play), ([typed], Role.train)):
        words = [*argv, "--checkpoint", str(checkpoint)]
        prepared = lambda composed, words, role=role: seen.append(train.prepare(composed, role, words))  # noqa: E731
        within(monkeypatch, words, prepared)
    assert [len(params["config"]["run"].observers) for params in seen] == [0, 1]


def test_accounts_come_from_the_command_line(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    content = torch.load(checkpoint, weights_only=True)
    content["config"]["wandb"] = {"enabled": True, "project": "p", "entity": "stranger", "run_name": "r"}
    content["config"]["trackio"] = {"enabled": True, "project": "p", "run_name": "r"}
    torch.save(content, checkpoint)
    seen: list[RunConfig] = []
    within(
        monkeypatch,
        ["--checkpoint", str(checkpoint)],
        lambda composed, words: seen.append(train.prepare(composed, Role.train, words)["config"]["run"]),
    )
    assert [(run.wandb, run.trackio) for run in seen] == [(WandbConfig(), TrackioConfig())]
    assert "type wandb.enabled=true" in caplog.text
    assert "type trackio.enabled=true" in caplog.text


def test_an_interpolation_in_a_checkpoint_stays_text(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SECRET", "xyzzy")
    content = torch.load(checkpoint, weights_only=True)
    torch.save(with_text(content, ("config", "task", "id"), "${oc.env:SECRET}"), checkpoint)
    message = refused(capsys, "--play", f"checkpoint={checkpoint}")
    assert "task.id must be a registered id, got '${oc.env:SECRET}'" in message
    assert "xyzzy" not in message


@pytest.mark.parametrize("place", ["env_config", "player.env_config"])
def test_a_train_section_without_a_kind_does_not_load_plugins(
    checkpoint: Path, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    content = torch.load(checkpoint, weights_only=True)
    inner: dict[str, Any] = {"plugins": ["stranger.py"]}
    for name in reversed(place.split(".")):
        inner = {name: inner}
    content["config"]["train"] = {"max_env_steps": 1, "params": {"algo": {"name": "a2c_continuous"}, "config": inner}}
    torch.save(content, checkpoint)
    message = refused(capsys, "--play", f"checkpoint={checkpoint}", "train=GymSAC")
    assert f"train.params.config.{place}.plugins cannot be set in a file" in message


def other_arguments(content: dict[str, Any]) -> None:
    content["policy"]["kwargs"]["speed"] = 3


def other_policy_type(content: dict[str, Any]) -> None:
    content["policy"]["kwargs"]["policy_type"] = CODE


def other_fields(content: dict[str, Any]) -> None:
    content["policy"]["kwargs"]["spec"]["fields"][0]["name"] = "other"


def nan_weights(content: dict[str, Any]) -> None:
    first(content).fill_(float("nan"))


def other_shape(content: dict[str, Any]) -> None:
    name = next(iter(content["policy"]["weights"]))
    content["policy"]["weights"][name] = first(content)[:1]


def text_weights(content: dict[str, Any]) -> None:
    content["policy"]["weights"][next(iter(content["policy"]["weights"]))] = CODE


def no_policy(content: dict[str, Any]) -> None:
    content["policy"] = CODE


def no_version(content: dict[str, Any]) -> None:
    del content["policy"]["version"]


def first(content: dict[str, Any]) -> torch.Tensor:
    weights: dict[str, torch.Tensor] = content["policy"]["weights"]
    return next(iter(weights.values()))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (other_arguments, "unexpected keyword argument 'speed'"),
        (other_policy_type, "policy"),
        (other_fields, "'other' is missing"),
        (nan_weights, "holds NaN in the weights "),
        (other_shape, "must have shape (4, 3), got (1, 3)"),
        (text_weights, "does not fit any policy"),
        (no_policy, "its policy must be a dict, got a str"),
        (no_version, "'version' is missing"),
    ],
)
def test_a_policy_record_that_does_not_act_is_refused(
    checkpoint: Path,
    capfd: pytest.CaptureFixture[str],
    damage: Callable[[dict[str, Any]], None],
    reason: str,
) -> None:
    content = torch.load(checkpoint, weights_only=True)
    damage(content)
    torch.save(content, checkpoint)
    assert train.main(["--play", "--checkpoint", str(checkpoint), *QUIET]) == 2
    (line,) = (line for line in capfd.readouterr().err.splitlines() if line.startswith("train.py: "))
    assert str(checkpoint) in line
    assert reason in line


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("config", "task"), "x"),
        (("config", "task"), {}),
        (("config", "task", "name"), []),
        (("config", "choices"), None),
        (("config", "play"), 3),
        (("observation_spec", "act_buf_len"), "x"),
        (("config",), []),
    ],
)
def test_a_value_of_another_form_is_refused(
    checkpoint: Path, capfd: pytest.CaptureFixture[str], place: Place, value: Any
) -> None:
    torch.save(with_text(torch.load(checkpoint, weights_only=True), place, value), checkpoint)
    assert train.main(["--play", "--checkpoint", str(checkpoint), *QUIET]) == 2
    assert "train.py: " in capfd.readouterr().err


def test_an_expert_of_another_shape_is_refused(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = torch.load(checkpoint, weights_only=True)
    other_shape(content)
    torch.save(content, checkpoint)
    words = ["--worker", "--checkpoint", str(checkpoint), "worker.expert=true", "remote.address=localhost:9"]
    assert "must have shape (4, 3)" in refused(capsys, *words, "remote.insecure=true")
