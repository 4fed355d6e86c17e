"""Our flags leave the command line before hydra sees it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.words.command_line import CommandLineError, Role, parse

ROOT = Path(__file__).resolve().parents[1]


def train_py(*words: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "train.py"), *words]
    return subprocess.run(command, cwd=cwd, env=os.environ | env, capture_output=True, text=True, timeout=100)


def test_without_a_flag_the_program_trains() -> None:
    line = parse(["task=TM20Lidar", "seed=3"])
    assert (line.role, line.words) == (Role.train, ["task=TM20Lidar", "seed=3"])


def test_play_and_checkpoint_are_taken_out_wherever_they_stand() -> None:
    line = parse(["--checkpoint", "runs/a/nn/best.pth", "task=TM20Full", "--play", "train=TM20FullSAC"])
    assert line.role is Role.play
    assert line.words == ["task=TM20Full", "train=TM20FullSAC", "checkpoint='runs/a/nn/best.pth'"]


def test_flag_and_key_of_a_checkpoint_are_one() -> None:
    assert parse(["--checkpoint=a.pth", "checkpoint=a.pth"]).words == ["checkpoint='a.pth'"]
    with pytest.raises(CommandLineError, match="one key"):
        parse(["--checkpoint", "a.pth", "checkpoint=b.pth"])


def test_headless_is_a_key_too() -> None:
    assert parse(["--headless"]).words == ["headless=true"]


@pytest.mark.parametrize("word", ["plugins=[a.py]", "+plugins=[a.py]", "++plugins=[a.py]"])
def test_plugins_may_be_given_with_or_without_plus(word: str) -> None:
    assert parse([word]).words == ["plugins=['a.py']"]


@pytest.mark.parametrize("role", [Role.record, Role.check, Role.benchmark, Role.drive, Role.worker, Role.server])
def test_the_other_roles_accept_the_keys_of_a_training(role: Role) -> None:
    line = parse([f"--{role.value}", "task=TM20Lidar", "task.game=live"])
    assert (line.role, line.words) == (role, ["task=TM20Lidar", "task.game=live"])


def test_a_file_to_record_from_is_typed_without_what_python_forbids() -> None:
    line = parse(["--record", "record.from=a run.Ghost.Gbx"])
    assert (line.role, line.words) == (Role.record, ["record.from_file='a run.Ghost.Gbx'"])


def test_the_plugin_is_installed_where_it_is_asked_for() -> None:
    line = parse(["--install-plugin", "--to", "somewhere"])
    assert (line.role, line.folder) == (Role.install_plugin, "somewhere")
    with pytest.raises(CommandLineError, match="--to DIR belongs to --install-plugin"):
        parse(["--to", "somewhere"])
    with pytest.raises(CommandLineError, match="takes no keys of the configuration, got task=TM20Full"):
        parse(["--install-plugin", "task=TM20Full"])


def test_credentials_are_made_for_hosts_and_workers() -> None:
    line = parse(["--make-credentials", "DIR", "--hosts", "learner.example.org, 10.0.0.1", "--workers=pc1,pc2"])
    assert (line.role, line.folder) == (Role.make_credentials, "DIR")
    assert (line.hosts, line.workers) == (["learner.example.org", "10.0.0.1"], ["pc1", "pc2"])
    with pytest.raises(CommandLineError, match="belong to --make-credentials"):
        parse(["--workers", "pc1"])
    with pytest.raises(CommandLineError, match="choose one of --play --make-credentials"):
        parse(["--play", "--make-credentials", "DIR"])


def test_two_roles_are_refused() -> None:
    with pytest.raises(CommandLineError, match="choose one of --play --worker"):
        parse(["--play", "--worker"])


@pytest.mark.parametrize("flag", ["--chec", "--checkpont=a.pth", "--pla", "--experimental-rerun=a.pickle"])
def test_an_unknown_or_shortened_flag_is_refused(flag: str) -> None:
    with pytest.raises(CommandLineError, match="unknown flag"):
        parse([flag])


def test_hydras_flags_are_left_to_hydra() -> None:
    words = ["--cfg", "job", "--multirun", "--config-dir=/tmp", "-m"]
    assert parse(words).words == words


def test_flags_may_stand_between_the_keys() -> None:
    line = parse(["seed=1", "--cfg", "job", "~wandb", "--headless", "task=TM20Full"])
    assert line.words == ["seed=1", "~wandb", "task=TM20Full", "headless=true", "--cfg", "job"]


def test_help_lists_flags_files_and_keys_and_is_quick(tmp_path: Path) -> None:
    done = train_py("--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for text in ("--play", "--checkpoint FILE", "TM20LidarProgressSAC", "--multirun", "max_env_steps"):
        assert text in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_the_configuration_can_be_printed_and_nothing_is_left_behind(tmp_path: Path) -> None:
    done = train_py("task=TM20Lidar", "task.track=short", "--cfg", "job", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "track: short" in done.stdout
    assert "batch_size: 256" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_argument_is_refused_without_importing_torch_or_rl_games(tmp_path: Path) -> None:
    done = train_py("task.tracks=short", cwd=tmp_path, PYTHONPROFILEIMPORTTIME="1")
    assert done.returncode == 2
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "hydra" in imported
    assert not {"torch", "rl_games", "numba"} & imported
