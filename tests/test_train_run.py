"""The program itself, as a user starts it: a short training, what it leaves behind, and playing it back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import train
from algos.run.checkpoint import CheckpointError
from algos.run.folder import remove_unused

ROOT = Path(__file__).resolve().parents[1]
TINY = [
    "task=TM20Lidar",
    "task.game=sim",
    "task.track=short",
    "task.rtgym.ep_max_length=60",
    "max_env_steps=200",
    "train.params.network.hidden=[16,16]",
    "train.params.config.batch_size=16",
    "train.params.config.env_steps_before_training=100",
    "train.params.config.evaluation_episodes=1",
    "seed=0",
]


def train_py(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "train.py"), *words]
    return subprocess.run(command, cwd=cwd, env=dict(os.environ), capture_output=True, text=True, timeout=110)


def test_a_run_trains_and_is_played_back_from_its_file_alone(tmp_path: Path) -> None:
    trained = train_py(*TINY, "synchronous=true", "--headless", cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
    (run,) = (tmp_path / "runs").iterdir()
    assert run.name.startswith("TM20LidarSAC_20")
    assert {path.name for path in run.iterdir()} >= {"config.yaml", "nn", "summaries"}
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert (config["max_env_steps"], config["task"]["track"], config["seed"]) == (200, "short", 0)

    played = train_py("--play", "--checkpoint", str(run / "nn" / "last.pth"), "play.episodes=2", cwd=tmp_path)
    assert played.returncode == 0, played.stderr
    (results_file,) = run.glob("play/*/results.json")
    results = json.loads(results_file.read_text())
    assert (results["task"], results["track"], len(results["episodes"])) == ("TM20Lidar", "short", 2)
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


def test_each_job_of_a_multirun_has_its_own_run_folder(tmp_path: Path) -> None:
    done = train_py(*TINY[:-1], "synchronous=true", "max_env_steps=120", "seed=0,1", "--multirun", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
    runs = sorted((tmp_path / "runs").glob("TM20LidarSAC_*"))
    assert sorted(yaml.safe_load((run / "config.yaml").read_text())["seed"] for run in runs) == [0, 1]


def test_a_checkpoint_that_does_not_fit_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from rl_games.torch_runner import Runner

    def refuse(*_: object) -> None:
        raise CheckpointError("its replay is gone")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Runner, "run", refuse)
    assert train.main(TINY) == 2
    captured = capsys.readouterr()
    assert captured.out == ""  # rl_games' own progress is not shown
    assert captured.err.splitlines() == ["train.py: its replay is gone"]
    assert list((tmp_path / "runs").iterdir()) == []


def interrupt_when_built(monkeypatch: pytest.MonkeyPatch, saved: str | None = None) -> None:
    """Ctrl-C when the run folder has its parts, and perhaps a checkpoint."""
    from algos.faces.training_run import TrainingRun

    class Interrupted:
        def __init__(self, base_name: str, params: dict[str, Any]) -> None:
            files = TrainingRun(params, "remote_sac").files
            (files.summaries / "events").write_text("")
            if saved is not None:
                (files.nn / saved).write_text("")
            raise KeyboardInterrupt

    monkeypatch.setattr("algos.faces.agent.OffPolicyAgent", Interrupted)


def test_an_interrupt_at_the_start_leaves_no_run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    interrupt_when_built(monkeypatch)
    assert train.main(TINY) == 130
    assert list((tmp_path / "runs").iterdir()) == []


def test_an_interrupt_keeps_what_was_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    interrupt_when_built(monkeypatch, saved="last.pth")
    assert train.main(TINY) == 130
    assert len(list((tmp_path / "runs").glob("*/nn/last.pth"))) == 1


def test_only_a_folder_of_this_command_is_removed(tmp_path: Path) -> None:
    for name in ("resumed", "new"):
        (tmp_path / name / "nn").mkdir(parents=True)
    checkpoint = str(tmp_path / "resumed" / "nn" / "gone.pth")
    remove_unused(tmp_path / "resumed", checkpoint)
    remove_unused(tmp_path / "new", checkpoint)
    assert [path.name for path in tmp_path.iterdir()] == ["resumed"]


PLUGIN = """
import sys
from pathlib import Path

from algos.run.observers import add_observer
from tasks import registry
from tasks.trackmania.lidar import LidarInterface


class MyInterface(LidarInterface):
    pass


class Watcher:
    def process_infos(self, infos, done_indices):
        with Path("seen.txt").open("a") as file:
            file.write(f"{'torch._inductor.compile_fx' in sys.modules}\\n")


registry.register("MyTask", "my_task:MyInterface", defaults={"window_width": 958, "window_height": 488})
add_observer("watcher", "my_task:Watcher")
"""


def test_workers_drive_a_users_own_task_and_his_observer_sees_the_episodes(tmp_path: Path) -> None:
    (tmp_path / "my_task.py").write_text(PLUGIN)
    words = ["task.name=MyTask", "observers=[watcher]", "+plugins=[my_task.py]", "task.rtgym.ep_max_length=40"]
    done = train_py(*TINY, *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    has_compiler = (tmp_path / "seen.txt").read_text().splitlines()
    assert len(has_compiler) >= 2
    assert set(has_compiler) == {"False"}, "torch's compiler was imported, which takes a second"


ENCODER = """
import torch
from torch import nn

from algos.networks import add_encoder


class Pooled(nn.Module):
    def __init__(self, inputs, config):
        super().__init__()
        channels, _, _ = inputs.image_shape
        self.layers = nn.Sequential(nn.Conv2d(channels, 4, 8, 4), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
        self.size = inputs.vector_size + 16

    def forward(self, inputs):
        return torch.cat((inputs.vector, self.layers(inputs.image)), dim=1)


add_encoder("pooled", Pooled, reads_images=True)
"""


def test_a_users_own_encoder_trains_in_learner_and_workers_and_is_played_back(tmp_path: Path) -> None:
    (tmp_path / "my_encoder.py").write_text(ENCODER)
    words = ["task=TM20Full", "train=TM20FullSAC", "train.params.network.encoder=pooled", "plugins=[my_encoder.py]"]
    trained = train_py(*TINY[1:], *words, "train.params.config.evaluation_interval=100", "--headless", cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    (run,) = (tmp_path / "runs").iterdir()
    assert yaml.safe_load((run / "config.yaml").read_text())["train"]["params"]["network"]["encoder"] == "pooled"
    assert (run / "nn" / "best.pth").is_file()  # the evaluator, a process of its own, has it too

    play = ["--play", "--checkpoint", str(run / "nn" / "last.pth"), "play.episodes=1", "play.video=false"]
    played = train_py(*play, "plugins=[my_encoder.py]", cwd=tmp_path)
    assert played.returncode == 0, played.stderr
    without = train_py(*play, cwd=tmp_path)
    assert without.returncode == 2
    (line,) = without.stderr.splitlines()
    assert "train.params.network.encoder must be one of" in line
    assert "plugins=[...], got 'pooled'" in line


@pytest.mark.parametrize("words", [["task.tracc=short"], ["--play"], ["seed=0,1", "--multirun", "link.window=0"]])
def test_a_refusal_is_one_line_and_exit_code_two(words: list[str], tmp_path: Path) -> None:
    done = train_py(*words, cwd=tmp_path)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith("train.py: ")
    assert not (tmp_path / "outputs").exists()
    assert not (tmp_path / "multirun").exists()
