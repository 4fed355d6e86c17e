"""DAgger through the command line: taught, played without what only the teacher sees, a start for another algorithm."""

from __future__ import annotations

from pathlib import Path

import pytest

import train
from algos.run.checkpoint import load_checkpoint

pytestmark = pytest.mark.timeout(120)
SMALL = [
    "--headless",
    "task=TM20Lidar",
    "task.game=sim",
    "task.track=short",
    "task.rtgym.ep_max_length=40",
    "synchronous=true",
    "seed=0",
    "max_env_steps=60",
    "train.params.network.hidden=[16,16]",
    "train.params.config.batch_size=8",
    "train.params.config.env_steps_before_training=40",
    "train.params.config.evaluation_interval=0",
    "train.params.config.save_replay=false",
]


def trained(name: str, *words: str) -> Path:
    assert train.main([*SMALL, f"experiment={name}", *words]) == 0
    (checkpoint,) = Path("runs").glob(f"{name}_*/nn/last.pth")
    return checkpoint


def test_what_it_learned_is_played_and_trained_on_without_privileged_fields(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    taught = trained("taught", "train=TM20LidarDAgger")
    assert load_checkpoint(taught).counters["updates"] > 0
    play = ["--play", "--headless", "play.episodes=1", "play.video=false", "play.plot=false"]
    assert train.main([*play, "--checkpoint", str(taught)]) == 0

    words = ["train=TM20LidarSAC", f"checkpoint={taught}"]
    assert train.main([*SMALL, *words]) == 2
    assert "train.params.algo.name=remote_sac would change the shape of the networks" in capsys.readouterr().err
    # No update is due before the end: the actor is still the one that was taught.
    words += [
        "checkpoint_mode=weights",
        "train.params.network.encoder=mlp",
        "train.params.config.env_steps_before_training=100",
    ]
    refined = load_checkpoint(trained("refined", *words))
    assert refined.algorithm == "remote_sac"
    before = load_checkpoint(taught).acting_weights()
    assert all((weights == before[name]).all() for name, weights in refined.acting_weights().items())


def test_a_task_that_gives_the_teacher_too_little_is_told_what_to_add(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert train.main([*SMALL, "train=TM20LidarDAgger", "task.privileged=false"]) == 2
    assert "task.privileged=true gives what TM20Track sees" in capsys.readouterr().err
    assert train.main([*SMALL, "train=DAgger"]) == 2
    assert "train.params.config.teacher must be the checkpoint of a policy to imitate" in capsys.readouterr().err
