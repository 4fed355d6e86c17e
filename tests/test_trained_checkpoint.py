"""The zoo: its entries drive as their results say; ``--checkpoint`` finds them, and the newest run."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path

import pytest
import torch

import tasks
from algos.faces.trained_policy import trained_policy
from algos.run import zoo
from algos.run.checkpoint import load_checkpoint
from algos.run.checkpoint_words import with_checkpoint_files
from benchmarks.zoo.__main__ import main as add_entry
from benchmarks.zoo.entry import MAX_BYTES, save_policy, training_command
from tasks.acting.evaluation import evaluate
from tasks.words.command_line import Role, parse
from tasks.words.nested import leaves, value_at
from tests.test_config_files import composed
from tests.test_strangers_files import untrained
from tests.test_train_checkpoint import refused


def resolved(word: str, role: Role = Role.play, *words: str) -> str:
    return with_checkpoint_files(parse([f"checkpoint={word}", *words]).words, role)[0]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", zoo.entries())
def test_an_entry_of_the_zoo_drives_as_its_results_say(name: str) -> None:
    torch.set_num_threads(1)
    file = zoo.entry_file(name)
    checkpoint = load_checkpoint(file)
    results = json.loads((file.parent / zoo.RESULTS).read_text())
    env = tasks.make(checkpoint.task, observation="dict", config=checkpoint.config["task"])
    assert env.observation_spec == checkpoint.spec()
    first = results["episodes"][0]

    report = evaluate(env, trained_policy(checkpoint, str(file), env.observation_spec, "cpu", 0), [first["seed"]])

    env.close()
    assert file.stat().st_size < MAX_BYTES
    assert results["checkpoint"] == f"zoo:{name}"
    assert len(results["episodes"]) == 10
    assert report.finish_rate == float(first["finished"])
    assert report.mean_lap_time_s == pytest.approx(first["lap_time_s"], rel=0.03)
    line = parse(shlex.split((file.parent / zoo.COMMAND).read_text())[2:])
    assert (line.role, composed(*line.words)["task"]["name"]) == (Role.train, checkpoint.task)
    texts = [value for _, value in leaves(checkpoint.config) if isinstance(value, str)]
    assert not [text for text in texts if Path(text).is_absolute()], "it needs a file of the machine that trained it"


def test_an_entry_has_what_acts_and_the_command_that_trained_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(zoo, "ZOO", tmp_path / "zoo")
    run = untrained(monkeypatch, tmp_path / "best.pth", "SAC")
    before = load_checkpoint(run)

    assert add_entry([str(run), "Mine", "play.episodes=2"]) == 0

    entry = load_checkpoint(zoo.entry_file("Mine"))
    assert (entry.algorithm_state, entry.replay, entry.rng, entry.best) == ({}, {}, {}, {})
    assert not {"remote", "wandb", "device", "checkpoint"} & entry.config.keys()
    assert all((entry.acting_weights()[name] == array).all() for name, array in before.acting_weights().items())
    results = json.loads((tmp_path / "zoo" / "Mine" / zoo.RESULTS).read_text())
    assert (results["checkpoint"], len(results["episodes"])) == ("zoo:Mine", 2)
    command = shlex.split((tmp_path / "zoo" / "Mine" / zoo.COMMAND).read_text())
    assert command[:4] == ["python", "train.py", "task=Gym", "train=GymSAC"]
    again = composed(*parse(command[2:]).words)
    told = {key: value for key, value in leaves(before.config) if key.startswith(("task.", "train.", "seed"))}
    assert {key: value_at(again, key) for key in told} == told
    assert "begin a training with it (checkpoint_mode=weights)" in refused(capsys, "checkpoint=zoo:Mine")
    assert "checkpoint zoo:Yours is not in the zoo, which has Mine" in refused(capsys, "--play", "checkpoint=zoo:Yours")


@pytest.mark.parametrize(("typed_steps", "words"), [(2000, ["max_env_steps=2000"]), (None, [])])
def test_the_command_has_the_steps_of_the_run_whatever_the_file_said_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed_steps: int | None, words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    config = load_checkpoint(untrained(monkeypatch, tmp_path / "best.pth", "SAC")).config
    today = composed("task=Gym", "train=GymSAC")["train"]["max_env_steps"]
    config |= {"max_env_steps": typed_steps or today, "train": {**config["train"], "max_env_steps": 77}}

    assert [part for part in training_command(config).split() if "max_env_steps" in part] == words


def test_a_large_policy_is_kept_in_half_precision_and_a_larger_one_is_refused(tmp_path: Path) -> None:
    checkpoint = load_checkpoint(zoo.entry_file("TM20Lidar"))
    for rows, is_kept in ((400, True), (700, False)):
        checkpoint.policy["weights"] = {"matrix": torch.ones(rows, 1000), "bias": torch.ones(3)}
        path = tmp_path / f"{rows}.pth"
        if is_kept:
            save_policy(path, checkpoint)
            weights = load_checkpoint(path).policy["weights"]
            assert (weights["matrix"].dtype, weights["bias"].dtype) == (torch.float16, torch.float32)
        else:
            with pytest.raises(ValueError, match="in half precision"):
                save_policy(path, checkpoint)
            assert not path.exists()


def test_latest_is_the_run_that_saved_last_its_best_to_play_and_its_last_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"no run in .* has saved one"):
        resolved("latest")
    for age, name in enumerate(
        ["new/nn/last.pth", "new/nn/best.pth", "old/nn/best.pth", "play/x.pth", "zoo/Z/policy.pth"]
    ):
        file = tmp_path / "runs" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
        os.utime(file, (1e9 - age, 1e9 - age))
    assert resolved("latest") == "checkpoint='runs/new/nn/best.pth'"
    assert "checkpoint latest: runs/new/nn/best.pth" in capsys.readouterr().out
    assert resolved("latest", Role.train) == "checkpoint='runs/new/nn/last.pth'"
    assert resolved("latest", Role.train, "checkpoint_mode=weights") == "checkpoint='runs/new/nn/best.pth'"
    (tmp_path / "runs/new/nn/best.pth").unlink()
    assert resolved("latest") == "checkpoint='runs/new/nn/last.pth'"
    assert resolved("./latest") == "checkpoint='./latest'"


def test_the_names_can_be_swept() -> None:
    words = with_checkpoint_files(parse(["--play", "-m", "checkpoint=zoo:TM20Lidar,other.pth"]).words, Role.play)
    assert words[0] == f"checkpoint='{zoo.entry_file('TM20Lidar')}','other.pth'"
